//! The five capability sets of a process, `capabilities(7)`.

use crate::error::{Context, Result};
use crate::spec::Capabilities;
use cleat_sys::capability::{NAMES, Sets};
use cleat_sys::{Errno, capability, process};

/// Returns all names, for `features`.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

/// The sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    pub bounding: u64,
    pub sets: Sets,
    pub ambient: u64,
}

impl Masks {
    /// Reads the lists; returns the names nobody knows as well, which `runc` only warns of.
    ///
    /// What this process itself is not permitted is left out, as `runc` does: a host without CAP_SYS_RESOURCE can run a
    /// privileged container.
    pub fn new(lists: &Capabilities, own: u64) -> (Self, Vec<String>) {
        let mut unknown = Vec::new();
        let mut mask = |list: &[String]| {
            let mut mask = 0;
            for name in list {
                match bit(name) {
                    Some(bit) => mask |= 1 << bit,
                    None => unknown.push(name.clone()),
                }
            }
            mask & own
        };
        let masks = Self {
            bounding: mask(&lists.bounding),
            sets: Sets {
                effective: mask(&lists.effective),
                permitted: mask(&lists.permitted),
                inheritable: mask(&lists.inheritable),
            },
            ambient: mask(&lists.ambient),
        };
        unknown.sort();
        unknown.dedup();
        (masks, unknown)
    }

    /// Drops what is not in the bounding set. To be called before the user changes.
    ///
    /// # Errors
    /// `EPERM` without CAP_SETPCAP.
    pub fn drop_bounding(self) -> Result<()> {
        for number in 0..64 {
            // Most containers keep a dozen of 41: asking first would cost as much as dropping.
            if self.bounding & 1 << number == 0 {
                match process::drop_bounding(number) {
                    Err(Errno::EINVAL) => break, // beyond the kernel's last
                    other => other.context(|| "unable to drop bounding capabilities".to_owned())?,
                }
            }
        }
        Ok(())
    }

    /// Sets the others, after the user has changed.
    ///
    /// # Errors
    /// `EPERM` where a set is larger than it may be.
    pub fn apply(self) -> Result<()> {
        capability::set(self.sets).context(|| "unable to apply caps".to_owned())?;
        if self.ambient == 0 {
            // Kernels before 4.3 have no ambient set, so there is nothing to empty either.
            return process::clear_ambient()
                .context(|| "unable to clear ambient capabilities".to_owned());
        }
        process::clear_ambient().context(|| "unable to clear ambient capabilities".to_owned())?;
        for number in (0..64).filter(|number| self.ambient & 1 << number != 0) {
            match process::raise_ambient(number) {
                Ok(()) => {}
                // Not permitted or not inheritable: runc goes on without it as well.
                Err(errno @ Errno::EPERM) => {
                    let name = NAMES.get(usize::from(number)).copied().unwrap_or("?");
                    let reason = crate::error::reason(errno);
                    crate::log::warn(&format!(
                        "can't raise ambient capability CAP_{name}: {reason}"
                    ));
                }
                other => other.context(|| "unable to apply ambient capabilities".to_owned())?,
            }
        }
        Ok(())
    }
}

fn bit(name: &str) -> Option<u8> {
    let name = name.strip_prefix("CAP_")?;
    NAMES.iter().position(|known| *known == name).map(|at| at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(names: &[&str]) -> Capabilities {
        let list: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Capabilities {
            bounding: list.clone(),
            effective: list.clone(),
            permitted: list,
            ..Capabilities::default()
        }
    }

    #[test]
    fn names_become_bits() {
        let (masks, unknown) =
            Masks::new(&lists(&["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]), u64::MAX);
        assert_eq!(masks.bounding, 1 | 1 << 40);
        assert_eq!(
            masks.sets,
            Sets { effective: 1 | 1 << 40, permitted: 1 | 1 << 40, inheritable: 0 }
        );
        assert!(unknown.is_empty());
    }

    #[test]
    fn unknown_names_are_told_and_left_out() {
        let (masks, unknown) = Masks::new(&lists(&["CAP_MOON", "chown"]), u64::MAX);
        assert_eq!((masks.bounding, unknown), (0, vec!["CAP_MOON".to_owned(), "chown".to_owned()]));
    }

    #[test]
    fn what_this_process_may_not_is_left_out() {
        let (masks, _) = Masks::new(&lists(&["CAP_SYS_RESOURCE", "CAP_CHOWN"]), 1);
        assert_eq!(masks.bounding, 1);
    }
}
