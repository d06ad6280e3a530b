//! The device rules of an OCI spec, boiled down to what both kinds of cgroup can express: a default and exceptions to it.
//!
//! Rules are taken in order. One for all devices (type `a`) sets the default and forgets what came before; any other adds
//! an exception, or takes one back. v1 keeps just that in the kernel; for v2 it becomes a program.
//! Source: OCI runtime-spec, config-linux.md, "Allowed Device list"; kernel docs cgroup-v1/devices.rst.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::error::{Error, Result};

/// What a container may always use, whatever its spec says: runc's list, `/dev/net/tun` included.
const ALWAYS_ALLOWED: [(Class, Access); 11] = [
    (Class::char(None, None), Access::MKNOD),
    (Class { is_block: true, major: None, minor: None }, Access::MKNOD),
    (Class::char(Some(1), Some(3)), Access::ALL), // null
    (Class::char(Some(1), Some(8)), Access::ALL), // random
    (Class::char(Some(1), Some(7)), Access::ALL), // full
    (Class::char(Some(5), Some(0)), Access::ALL), // tty
    (Class::char(Some(1), Some(5)), Access::ALL), // zero
    (Class::char(Some(1), Some(9)), Access::ALL), // urandom
    (Class::char(Some(136), None), Access::ALL),  // pts
    (Class::char(Some(5), Some(2)), Access::ALL), // ptmx
    (Class::char(Some(10), Some(200)), Access::ALL), // net/tun
];

/// Which devices an exception is about; `None` is any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    pub is_block: bool,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Class {
    const fn char(major: Option<u32>, minor: Option<u32>) -> Self {
        Self { is_block: false, major, minor }
    }

    /// Returns the classes that contain this one, without itself.
    fn wider(self) -> impl Iterator<Item = Self> {
        let Self { major, minor, .. } = self;
        let all = [(None, minor), (major, None), (None, None)].map(|(major, minor)| Self {
            major,
            minor,
            ..self
        });
        all.into_iter().filter(move |class| *class != self)
    }
}

/// A set of `r`, `w` and `m`, as the bits of `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access(pub u8);

impl Access {
    const LETTERS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];
    const MKNOD: Self = Self(1);
    /// All three.
    pub const ALL: Self = Self(7);

    fn parse(text: &str) -> Result<Self> {
        let bit =
            |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bit);
        // Other letters mean nothing, as for runc.
        match text.chars().filter_map(bit).fold(0, |bits, bit| bits | bit) {
            bits @ 1.. => Ok(Self(bits)),
            0 => Err(Error::InvalidLimit(format!(
                "device access {text:?} is not made of r, w and m"
            ))),
        }
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        ['r', 'w', 'm'].iter().try_for_each(|letter| {
            let has = Self::LETTERS.iter().any(|(known, bit)| known == letter && self.0 & bit != 0);
            if has { write!(f, "{letter}") } else { Ok(()) }
        })
    }
}

/// The default and the exceptions to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What is not in `exceptions` is allowed.
    pub allows_by_default: bool,
    /// What is refused if the default is to allow, and the other way round.
    pub exceptions: BTreeMap<Class, Access>,
}

impl Filter {
    /// Boils down the rules of a spec, and what is always allowed.
    pub fn new(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut filter = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            let text = rule.access().as_deref().unwrap_or_default();
            if text.is_empty() {
                return Err(Error::InvalidLimit(format!(
                    "device access at {index} field cannot be empty"
                )));
            }
            let access = Access::parse(text)?;
            match class_of(rule)? {
                None => {
                    filter = Self { allows_by_default: rule.allow(), exceptions: BTreeMap::new() }
                }
                Some(class) => filter.add(class, access, rule.allow())?,
            }
        }
        for (class, access) in ALWAYS_ALLOWED {
            filter.add(class, access, true)?;
        }
        Ok(filter)
    }

    fn add(&mut self, class: Class, access: Access, allow: bool) -> Result<()> {
        if allow != self.allows_by_default {
            self.exceptions.entry(class).or_default().0 |= access.0;
            return Ok(());
        }
        // An exception is taken back, and only one that was made: v1 has no exceptions to exceptions.
        let covers =
            |wider: &Class| self.exceptions.get(wider).is_some_and(|held| held.0 & access.0 != 0);
        if let Some(wider) = class.wider().find(covers) {
            return Err(Error::InvalidLimit(format!(
                "device rule {} cannot be taken back from the wider rule {}",
                line(class, access),
                line(wider, self.exceptions[&wider])
            )));
        }
        if let Some(held) = self.exceptions.get_mut(&class) {
            held.0 &= !access.0;
            if held.0 == 0 {
                self.exceptions.remove(&class);
            }
        }
        Ok(())
    }
}

/// Returns a rule as v1's `devices.allow` and `devices.deny` take it.
pub fn line(class: Class, access: Access) -> String {
    let number =
        |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let kind = if class.is_block { 'b' } else { 'c' };
    format!("{kind} {}:{} {access}", number(class.major), number(class.minor))
}

/// Returns which devices a rule is about; `None` is all of them.
fn class_of(rule: &LinuxDeviceCgroup) -> Result<Option<Class>> {
    let is_block = match rule.typ() {
        None | Some(LinuxDeviceType::A) => return Ok(None),
        Some(LinuxDeviceType::B) => true,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => false,
        Some(LinuxDeviceType::P) => {
            return Err(Error::InvalidLimit("a FIFO cannot have a device cgroup rule".to_owned()));
        }
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| Error::InvalidLimit(format!("invalid device number {number}"))),
    };
    Ok(Some(Class { is_block, major: number(rule.major())?, minor: number(rule.minor())? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+c 1:3 rwm` allows, `-a *:* rwm` denies.
    fn rules(texts: &[&str]) -> Vec<LinuxDeviceCgroup> {
        let rule = |text: &&str| {
            let [sign, fields @ ..] = text.as_bytes() else { unreachable!() };
            let fields: Vec<_> = std::str::from_utf8(fields).unwrap().split([' ', ':']).collect();
            let mut rule = LinuxDeviceCgroup::default();
            let kind = match fields[0] {
                "a" => LinuxDeviceType::A,
                "b" => LinuxDeviceType::B,
                _ => LinuxDeviceType::C,
            };
            rule.set_allow(*sign == b'+')
                .set_typ(Some(kind))
                .set_access(Some(fields[3].to_owned()));
            rule.set_major(fields[1].parse().ok()).set_minor(fields[2].parse().ok());
            rule
        };
        texts.iter().map(rule).collect()
    }

    #[track_caller]
    fn check(texts: &[&str], allows_by_default: bool, expected: &[&str]) {
        let filter = Filter::new(&rules(texts)).unwrap();
        assert_eq!(filter.allows_by_default, allows_by_default);
        let always: Vec<_> =
            ALWAYS_ALLOWED.iter().map(|(class, access)| line(*class, *access)).collect();
        let lines = filter.exceptions.iter().map(|(class, access)| line(*class, *access));
        let lines: Vec<_> =
            lines.filter(|line| allows_by_default || !always.contains(line)).collect();
        assert_eq!(lines, expected, "{texts:?}");
    }

    #[test]
    fn rules_become_a_default_and_exceptions() {
        check(&[], false, &[]);
        check(&["-a *:* rwm"], false, &[]);
        check(&["-a *:* rwm", "+b 8:0 r"], false, &["b 8:0 r"]);
        check(&["+b 8:0 r", "+b 8:0 w"], false, &["b 8:0 rw"]);
        check(&["+b 8:0 rw", "-b 8:0 w"], false, &["b 8:0 r"]);
        check(&["+b 8:0 rw", "-b 8:0 rw"], false, &[]);
        check(&["+b 8:0 rwm", "+a *:* rwm"], true, &[]);
        check(&["+a *:* rwm", "-b 8:* w", "-c 10:1 m"], true, &["c 10:1 m", "b 8:* w"]);
    }

    #[test]
    fn what_neither_kernel_interface_can_express_is_refused() {
        for texts in [["+c 4:* rw", "-c 4:1 r"], ["+b *:* r", "-b 8:0 r"]] {
            assert!(Filter::new(&rules(&texts)).is_err(), "{texts:?}");
        }
        assert!(Filter::new(&rules(&["+c 1:3 x"])).is_err());
    }

    #[test]
    fn taking_back_less_than_a_wider_rule_gives_is_fine() {
        check(&["+c 4:* r", "+c 4:1 w", "-c 4:1 w"], false, &["c 4:* r"]);
    }
}
