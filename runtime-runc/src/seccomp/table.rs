//! What a profile says about every number of every architecture.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use syscalls::{aarch64, arm, x86, x86_64};

use super::Error;

/// `SECCOMP_RET_*` of `<linux/seccomp.h>`.
pub const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
/// Set in the numbers of x32, which shares `AUDIT_ARCH_X86_64`.
const X32_BIT: u32 = 0x4000_0000;

/// All that is said about one `AUDIT_ARCH_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub audit_arch: u32,
    /// First number → what happens from there to the next entry; the first entry is for 0. Neighbours differ.
    pub intervals: Vec<(u32, Outcome)>,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This, whatever the arguments.
    Return(u32),
    /// The first rule whose conditions all hold decides.
    Rules { rules: Vec<Rule>, otherwise: u32 },
}

/// Conditions, and what happens if all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

/// A compare of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub index: u32,
    pub operator: Operator,
    pub value: u64,
    /// For `MaskedEq`: what the argument is, under the mask `value`.
    pub second: u64,
}

/// An architecture whose programs this host may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Machine {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

impl Machine {
    fn native() -> Result<Self, Error> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => Err(Error::UnknownMachine(other)),
        }
    }

    /// The others' programs cannot run on a host that we run on.
    fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            Arch::ScmpArchNative => Self::native().ok(),
            _ => None,
        }
    }

    /// `<linux/audit.h>`.
    fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }
}

/// The calls that x32 has at numbers of its own, from 512. Source: the kernel's arch/x86/entry/syscalls/syscall_64.tbl.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// The numbers of an architecture by name. The crate's own look-up compares with one name after the other, which for a whole
/// profile takes milliseconds.
struct Numbers {
    machine: Machine,
    by_name: HashMap<&'static str, u32>,
}

impl Numbers {
    fn of(machine: Machine) -> Self {
        let by_name = match machine {
            Machine::X86_64 | Machine::X32 => {
                x86_64::Sysno::iter().map(|call| (call.name(), call.id() as u32)).collect()
            }
            Machine::X86 => {
                x86::Sysno::iter().map(|call| (call.name(), call.id() as u32)).collect()
            }
            Machine::Aarch64 => {
                aarch64::Sysno::iter().map(|call| (call.name(), call.id() as u32)).collect()
            }
            // Its numbers have a gap of a million, through which `iter` would walk.
            Machine::Arm => HashMap::new(),
        };
        Self { machine, by_name }
    }

    fn get(&self, name: &str) -> Option<u32> {
        match self.machine {
            Machine::Arm => Some(arm::Sysno::from_str(name).ok()?.id() as u32),
            Machine::X32 => {
                let own = X32_OWN
                    .iter()
                    .position(|known| *known == name)
                    .map(|position| 512 + position as u32);
                own.or_else(|| self.by_name.get(name).copied()).map(|number| X32_BIT | number)
            }
            _ => self.by_name.get(name).copied(),
        }
    }

    /// Returns the calls that this one can be made through as well: (number, the value of argument 0).
    fn multiplexed(&self, name: &str) -> Option<(u32, u64)> {
        if self.machine != Machine::X86 {
            return None;
        }
        let find = |table: &[(u64, &str)]| {
            table.iter().find(|(_, known)| *known == name).map(|(call, _)| *call)
        };
        let (outer, call) = find(&SOCKETCALL)
            .map(|call| ("socketcall", call))
            .or_else(|| find(&IPC).map(|call| ("ipc", call)))?;
        Some((self.get(outer)?, call))
    }
}

/// What i386's `socketcall` can do. Source: `<linux/net.h>`.
const SOCKETCALL: [(u64, &str); 20] = [
    (1, "socket"),
    (2, "bind"),
    (3, "connect"),
    (4, "listen"),
    (5, "accept"),
    (6, "getsockname"),
    (7, "getpeername"),
    (8, "socketpair"),
    (9, "send"),
    (10, "recv"),
    (11, "sendto"),
    (12, "recvfrom"),
    (13, "shutdown"),
    (14, "setsockopt"),
    (15, "getsockopt"),
    (16, "sendmsg"),
    (17, "recvmsg"),
    (18, "accept4"),
    (19, "recvmmsg"),
    (20, "sendmmsg"),
];

/// What i386's `ipc` can do. Source: `<linux/ipc.h>`.
const IPC: [(u64, &str); 12] = [
    (1, "semop"),
    (2, "semget"),
    (3, "semctl"),
    (4, "semtimedop"),
    (11, "msgsnd"),
    (12, "msgrcv"),
    (13, "msgget"),
    (14, "msgctl"),
    (21, "shmat"),
    (22, "shmdt"),
    (23, "shmget"),
    (24, "shmctl"),
];

/// Works a profile out for every architecture that it lists, and for the host's own.
pub fn sections(profile: &LinuxSeccomp) -> Result<Vec<Section>, Error> {
    check(profile)?;
    let native = Machine::native()?;
    let mut machines = vec![native];
    machines.extend(profile.architectures().iter().flatten().filter_map(|arch| Machine::of(*arch)));
    machines.sort();
    machines.dedup();
    let mut sections: Vec<Section> = Vec::new();
    for machine in machines {
        let mut intervals = intervals(machine, profile);
        match sections.iter_mut().find(|section| section.audit_arch == machine.audit_arch()) {
            // x32 comes after x86_64, whose intervals end where x32's begin.
            Some(x86_64) => {
                x86_64.intervals.retain(|(first, _)| *first < X32_BIT);
                x86_64.intervals.append(&mut intervals);
            }
            None => sections.push(Section { audit_arch: machine.audit_arch(), intervals }),
        }
    }
    // The host's own first: it is asked for most.
    sections.sort_by_key(|section| section.audit_arch != native.audit_arch());
    sections
        .iter_mut()
        .for_each(|section| section.intervals.dedup_by(|next, kept| next.1 == kept.1));
    Ok(sections)
}

fn check(profile: &LinuxSeccomp) -> Result<(), Error> {
    if profile.default_action() == Action::ScmpActNotify {
        return Err(Error::NotifyByDefault);
    }
    for rule in profile.syscalls().iter().flatten() {
        if rule.action() == Action::ScmpActNotify && rule.names().iter().any(|name| name == "write")
        {
            return Err(Error::NotifyWrite);
        }
        if let Some(arg) = rule.args().iter().flatten().find(|arg| arg.index() > 5) {
            let name = rule.names().first().cloned().unwrap_or_default();
            return Err(Error::NoSuchArgument { name, index: arg.index() });
        }
    }
    Ok(())
}

/// Returns the `SECCOMP_RET_*` of an action; without a number of its own, ERRNO and TRACE say EPERM.
fn value_of(action: Action, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => ERRNO | data,
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000 | data,
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}

fn intervals(machine: Machine, profile: &LinuxSeccomp) -> Vec<(u32, Outcome)> {
    let default = value_of(profile.default_action(), profile.default_errno_ret());
    let numbers = Numbers::of(machine);
    let calls = rules_by_number(&numbers, profile, default);
    let (first, end) = match machine {
        Machine::X32 => (X32_BIT, None),
        // Not listed, or replaced by x32's intervals.
        Machine::X86_64 => (0, Some((X32_BIT, KILL_THREAD))),
        _ => (0, None),
    };
    let mut intervals = vec![(first, Outcome::Return(default))];
    for (number, rules) in calls {
        // Right after the call before: the default between them is empty.
        intervals.pop_if(|(first, _)| *first == number);
        intervals.push((number, outcome(rules, default)));
        intervals.push((number + 1, Outcome::Return(default)));
    }
    if let Some(beyond) = newest(&numbers, profile).filter(|_| refuses(profile.default_action())) {
        // What follows the newest call, whether that one had a rule or only the default.
        intervals.retain(|(first, _)| *first <= beyond);
        intervals.push((beyond + 1, Outcome::Return(ERRNO | libc::ENOSYS as u32)));
    }
    if let Some((first, action)) = end {
        intervals.push((first, Outcome::Return(action)));
    }
    intervals
}

fn refuses(default: Action) -> bool {
    !matches!(default, Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace)
}

/// Returns the highest number that the profile names.
fn newest(numbers: &Numbers, profile: &LinuxSeccomp) -> Option<u32> {
    let names = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
    names.filter_map(|name| numbers.get(name)).max()
}

fn rules_by_number(
    numbers: &Numbers,
    profile: &LinuxSeccomp,
    default: u32,
) -> BTreeMap<u32, Vec<Rule>> {
    let mut calls: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for syscall in profile.syscalls().iter().flatten() {
        let action = value_of(syscall.action(), syscall.errno_ret());
        if action == default {
            continue;
        }
        let rules = rules_of(numbers.machine, syscall, action);
        for name in syscall.names() {
            if let Some(number) = numbers.get(name) {
                calls.entry(number).or_default().extend(rules.iter().cloned());
            }
            // Behind `socketcall` and `ipc` the arguments are in memory, where no filter can look.
            if let Some((number, call)) =
                numbers.multiplexed(name).filter(|_| rules[0].conditions.is_empty())
            {
                let condition =
                    Condition { index: 0, operator: Operator::ScmpCmpEq, value: call, second: 0 };
                calls.entry(number).or_default().push(Rule { conditions: vec![condition], action });
            }
        }
    }
    calls
}

/// Returns one rule with all conditions; if an argument occurs twice, one rule for each condition (as runc does, and since
/// 2014: profiles mean "or" by it).
fn rules_of(machine: Machine, syscall: &LinuxSyscall, action: u32) -> Vec<Rule> {
    let width = if machine.is_32_bit() { u64::from(u32::MAX) } else { u64::MAX };
    let condition = |arg: &LinuxSeccompArg| Condition {
        index: arg.index() as u32,
        operator: arg.op(),
        value: arg.value() & width,
        second: arg.value_two().unwrap_or(0) & arg.value() & width,
    };
    let conditions: Vec<Condition> = syscall.args().iter().flatten().map(condition).collect();
    let is_repeated =
        |one: &Condition| conditions.iter().filter(|other| other.index == one.index).count() > 1;
    if conditions.iter().any(is_repeated) {
        conditions
            .into_iter()
            .map(|condition| Rule { conditions: vec![condition], action })
            .collect()
    } else {
        vec![Rule { conditions, action }]
    }
}

fn outcome(rules: Vec<Rule>, default: u32) -> Outcome {
    match rules.iter().find(|rule| rule.conditions.is_empty()) {
        Some(unconditional) => Outcome::Return(unconditional.action),
        None => Outcome::Rules { rules, otherwise: default },
    }
}
