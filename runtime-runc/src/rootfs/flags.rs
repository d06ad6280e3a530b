//! What a bind mount keeps of its source's flags. As in `runc`: everything, if its options name no flag of `mount(2)` at all;
//! else what they do not name is cleared. In a user namespace a flag that the kernel has locked stays, unless the options ask
//! for the opposite: then the mount fails. Access-time modes that nobody names are kept.

use crate::error::{Context, Error, Result, reason};
use cleat_sys::Errno;
use cleat_sys::mountapi::{self, Attributes, attr};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::os::fd::AsFd;

/// The flags of `mount(2)` that the options of one mount name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    set: u64,
    cleared: u64,
}

/// Word → (flag, whether the word clears it). Source: `mount(8)`, "Filesystem-independent mount options".
const WORDS: &[(&str, u64, bool)] = &[
    ("async", libc::MS_SYNCHRONOUS, true),
    ("atime", libc::MS_NOATIME, true),
    ("dev", libc::MS_NODEV, true),
    ("diratime", libc::MS_NODIRATIME, true),
    ("dirsync", libc::MS_DIRSYNC, false),
    ("exec", libc::MS_NOEXEC, true),
    ("iversion", libc::MS_I_VERSION, false),
    ("lazytime", MS_LAZYTIME, false),
    ("loud", libc::MS_SILENT, true),
    ("mand", libc::MS_MANDLOCK, false),
    ("noatime", libc::MS_NOATIME, false),
    ("nodev", libc::MS_NODEV, false),
    ("nodiratime", libc::MS_NODIRATIME, false),
    ("noexec", libc::MS_NOEXEC, false),
    ("noiversion", libc::MS_I_VERSION, true),
    ("nolazytime", MS_LAZYTIME, true),
    ("nomand", libc::MS_MANDLOCK, true),
    ("norelatime", libc::MS_RELATIME, true),
    ("nostrictatime", libc::MS_STRICTATIME, true),
    ("nosuid", libc::MS_NOSUID, false),
    ("nosymfollow", MS_NOSYMFOLLOW, false),
    ("relatime", libc::MS_RELATIME, false),
    ("ro", libc::MS_RDONLY, false),
    ("rw", libc::MS_RDONLY, true),
    ("silent", libc::MS_SILENT, false),
    ("strictatime", libc::MS_STRICTATIME, false),
    ("suid", libc::MS_NOSUID, true),
    ("symfollow", MS_NOSYMFOLLOW, true),
    ("sync", libc::MS_SYNCHRONOUS, false),
];

const MS_NOSYMFOLLOW: u64 = 256;
const MS_LAZYTIME: u64 = 1 << 25;

/// Those that a mount has for itself, the access-time modes aside.
const PLAIN: [(u64, u64); 5] = [
    (libc::MS_RDONLY, attr::RDONLY),
    (libc::MS_NOSUID, attr::NOSUID),
    (libc::MS_NODEV, attr::NODEV),
    (libc::MS_NOEXEC, attr::NOEXEC),
    (MS_NOSYMFOLLOW, attr::NOSYMFOLLOW),
];

const TIMES: u64 =
    libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// What the kernel locks when it copies a mount to a less privileged namespace. Source: `mount_namespaces(7)`.
const LOCKABLE: u64 = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | TIMES;

impl Named {
    /// Takes a word of the options in; one that is no flag changes nothing.
    pub fn take(&mut self, word: &str) {
        let Some((_, flag, clears)) = find(word) else { return };
        let (to, from) = match clears {
            true => (&mut self.cleared, &mut self.set),
            false => (&mut self.set, &mut self.cleared),
        };
        *to |= flag;
        *from &= !flag;
    }

    /// Gives a copied mount these flags.
    ///
    /// # Errors
    /// `EPERM` where that would change one that is locked.
    pub fn apply(self, mount: impl AsFd) -> Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        let text = "failed to set user-requested vfs flags on bind-mount";
        match mountapi::set_attributes(&mount, attributes(self.set), false) {
            Err(Errno::EPERM) => {}
            done => return done.context(|| text.to_owned()),
        }
        let stat = fstatvfs(&mount).context(|| text.to_owned())?;
        let merged = self
            .merge(of_source(stat.flags()))
            .map_err(|said| Error::Invalid(format!("{text}: {said}: {}", reason(Errno::EPERM))))?;
        mountapi::set_attributes(&mount, attributes(merged), false).context(|| text.to_owned())
    }

    /// Adds the locked flags of the source, which these must not contradict.
    fn merge(self, source: u64) -> std::result::Result<u64, &'static str> {
        if source & self.cleared & LOCKABLE != 0 {
            return Err("cannot clear locked flags");
        }
        if self.set & TIMES != 0 && self.set & TIMES != source & TIMES {
            return Err("cannot change locked atime flags");
        }
        Ok(self.set | source & LOCKABLE)
    }
}

/// Returns whether a word is a flag of `mount(2)` and so no option of a filesystem.
pub fn is_flag(word: &str) -> bool {
    find(word).is_some()
}

fn find(word: &str) -> Option<&'static (&'static str, u64, bool)> {
    WORDS.iter().find(|(name, ..)| *name == word)
}

/// Translates to `mount_setattr(2)` what `mount(2)` with `MS_REMOUNT | MS_BIND` does.
fn attributes(flags: u64) -> Attributes {
    let mut attributes = Attributes::default();
    for (flag, attribute) in PLAIN {
        let list = if flags & flag == 0 { &mut attributes.clear } else { &mut attributes.set };
        *list |= attribute;
    }
    if flags & TIMES != 0 {
        attributes.clear |= attr::ATIME_MASK | attr::NODIRATIME;
        attributes.set |= match flags {
            _ if flags & libc::MS_STRICTATIME != 0 => attr::STRICTATIME,
            _ if flags & libc::MS_NOATIME != 0 => attr::NOATIME,
            _ => attr::RELATIME,
        };
        if flags & libc::MS_NODIRATIME != 0 {
            attributes.set |= attr::NODIRATIME;
        }
    }
    attributes
}

fn of_source(flags: FsFlags) -> u64 {
    let pairs = [
        (libc::ST_RDONLY, libc::MS_RDONLY),
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    let is_there = |(from, _): &&(u64, u64)| flags.bits() & from != 0;
    let found = pairs.iter().filter(is_there).fold(0, |all, (_, to)| all | to);
    // Which has no flag of its own there.
    let is_strict = found & (libc::MS_NOATIME | libc::MS_RELATIME) == 0;
    if is_strict { found | libc::MS_STRICTATIME } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Named {
        let mut named = Named::default();
        text.split(',').for_each(|word| named.take(word));
        named
    }

    #[test]
    fn what_is_not_named_is_cleared() {
        let expected = Attributes {
            set: attr::RDONLY,
            clear: attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW,
            ..Attributes::default()
        };
        assert_eq!(attributes(named("bind,ro,rprivate").set), expected);
    }

    #[test]
    fn words_that_are_no_flags_name_nothing() {
        assert_eq!(named("rbind,rprivate,rro,rnosuid,z"), Named::default());
        assert!(named("dev") != Named::default() && named("async") != Named::default());
    }

    #[test]
    fn access_times_exclude_each_other() {
        let times = |text| attributes(named(text).set).set & (attr::ATIME_MASK | attr::NODIRATIME);
        assert_eq!(times("noatime"), attr::NOATIME);
        assert_eq!(times("nodiratime"), attr::NODIRATIME | attr::RELATIME);
        assert_eq!(times("nodiratime,strictatime"), attr::NODIRATIME | attr::STRICTATIME);
        assert_eq!(attributes(named("atime,ro").set).clear & attr::ATIME_MASK, 0);
    }

    #[test]
    fn a_source_without_a_mode_of_access_times_is_strict() {
        let of = |bits| of_source(FsFlags::from_bits_retain(bits));
        let strict = libc::MS_NODIRATIME | libc::MS_STRICTATIME;
        assert_eq!(of(libc::ST_NODIRATIME), strict);
        assert_eq!(named("dev").merge(strict), Ok(strict));
        assert_eq!(of(libc::ST_RELATIME), libc::MS_RELATIME);
    }

    #[test]
    fn locked_flags_stay_unless_the_opposite_is_named() {
        let source = libc::MS_NODEV | libc::MS_NOATIME;
        assert_eq!(named("ro").merge(source), Ok(libc::MS_RDONLY | source));
        assert!(named("dev").merge(source).is_err());
        assert!(named("relatime").merge(source).is_err());
        assert_eq!(named("noatime").merge(source), Ok(source));
    }
}
