//! Programs are run by a small interpreter and compared with a plain reading of the profile.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Filter, cached, compile, program::code};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const KILL: u32 = 0;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

/// Runs a program as the kernel would.
fn run(filter: &Filter, arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
    let (mut accumulator, mut at) = (0u32, 0);
    loop {
        let bytes = &filter.program[at * 8..at * 8 + 8];
        let operation = u16::from_ne_bytes(bytes[..2].try_into().unwrap());
        let value = u32::from_ne_bytes(bytes[4..].try_into().unwrap());
        let branch = |condition: bool| usize::from(if condition { bytes[2] } else { bytes[3] });
        at += 1 + match operation {
            code::LOAD_WORD => {
                let value = value as usize;
                accumulator = u32::from_ne_bytes(data[value..value + 4].try_into().unwrap());
                0
            }
            code::AND => {
                accumulator &= value;
                0
            }
            code::JUMP => value as usize,
            code::JUMP_EQUAL => branch(accumulator == value),
            code::JUMP_GREATER => branch(accumulator > value),
            code::JUMP_GREATER_EQUAL => branch(accumulator >= value),
            code::RETURN => return value,
            other => panic!("instruction {other:#x} at {at}"),
        };
    }
}

#[track_caller]
fn check(profile: &LinuxSeccomp, calls: &[(u32, u32, [u64; 6], u32)]) {
    let filter = compile(profile).unwrap();
    for (arch, number, arguments, expected) in calls {
        let found = run(&filter, *arch, *number, *arguments);
        assert_eq!(
            found, *expected,
            "{arch:#x} {number} {arguments:?}: {found:#x}, wanted {expected:#x}"
        );
    }
}

#[test]
fn names_numbers_and_architectures() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read", "no_such_call", "openat2"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["close"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    }));
    let none = [0; 6];
    check(
        &profile,
        &[
            (X86_64, 0, none, ALLOW),
            (X86_64, 1, none, ENOSYS),
            (X86_64, 3, none, 0x8000_0000),
            (X86_64, 2, none, EPERM),
            (X86_64, 436, none, EPERM),
            (X86_64, 437, none, ALLOW),
            // Newer than the newest in the profile.
            (X86_64, 438, none, ENOSYS),
            (X86_64, 100_000, none, ENOSYS),
            // x32 is not listed.
            (X86_64, 0x4000_0000, none, KILL),
            (X86_64, 0x4000_0001, none, KILL),
            (X86_64, u32::MAX, none, KILL),
            (X86, 3, none, ALLOW),
            (X86, 0, none, EPERM),
            (X86, 438, none, ENOSYS),
            (0xc000_00b7, 0, none, KILL),
        ],
    );
}

#[test]
fn x32_has_numbers_of_its_own() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["read", "ioctl"], "action": "SCMP_ACT_ALLOW"}],
    }));
    let none = [0; 6];
    check(
        &profile,
        &[
            (X86_64, 16, none, ALLOW),
            (X86_64, 17, none, ENOSYS),
            (X86_64, 0x4000_0000, none, ALLOW),
            (X86_64, 0x4000_0000 | 16, none, EPERM),
            (X86_64, 0x4000_0000 | 514, none, ALLOW),
            (X86_64, 0x4000_0000 | 515, none, ENOSYS),
        ],
    );
}

#[test]
fn a_default_that_lets_pass_has_no_enosys() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }));
    check(
        &profile,
        &[(X86_64, 83, [0; 6], 0x0005_000d), (X86_64, 5000, [0; 6], ALLOW), (X86, 5, [0; 6], KILL)],
    );
}

#[test]
fn sockets_behind_socketcall_obey_too() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["socket", "shmget"], "action": "SCMP_ACT_ERRNO"}],
    }));
    let call = |number| [number, 0, 0, 0, 0, 0];
    check(
        &profile,
        &[
            (X86, 359, [0; 6], EPERM),
            (X86, 102, call(1), EPERM),
            (X86, 102, call(2), ALLOW),
            (X86, 117, call(23), EPERM),
            (X86, 117, call(1), ALLOW),
        ],
    );
}

#[test]
fn an_unconditional_rule_outdoes_conditions_and_the_default_is_no_rule() {
    let condition = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["dup"], "action": "SCMP_ACT_ERRNO", "args": condition},
            {"names": ["dup"], "action": "SCMP_ACT_TRAP", "args": condition},
            {"names": ["dup"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["dup"], "action": "SCMP_ACT_LOG"},
        ],
    }));
    check(&profile, &[(X86_64, 32, [1, 0, 0, 0, 0, 0], ALLOW), (X86_64, 32, [0; 6], ALLOW)]);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]}],
    }));
    let with = |value| [value, 0, 0, 0, 0, 0];
    check(
        &profile,
        &[(X86_64, 32, with(1), ALLOW), (X86_64, 32, with(5), ALLOW), (X86_64, 32, with(2), EPERM)],
    );
}

/// A stream of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// Numbers near each other and near the edges of 32 and 64 bits, so that compares meet.
    fn argument(&mut self) -> u64 {
        let edges =
            [0, 1, 5, 0x7fff_ffff, 0xffff_ffff, 1 << 32, (1 << 32) + 5, u64::MAX - 1, 1 << 63];
        edges[self.next(edges.len() as u64) as usize].wrapping_add(self.next(3))
    }
}

/// What the profile says about x86_64, read straight from it.
fn naive(profile: &LinuxSeccomp, name: &str, arguments: [u64; 6]) -> Action {
    let holds = |arg: &oci_spec::runtime::LinuxSeccompArg| {
        use oci_spec::runtime::LinuxSeccompOperator::*;
        let (found, value) = (arguments[arg.index()], arg.value());
        match arg.op() {
            ScmpCmpEq => found == value,
            ScmpCmpNe => found != value,
            ScmpCmpLt => found < value,
            ScmpCmpLe => found <= value,
            ScmpCmpGe => found >= value,
            ScmpCmpGt => found > value,
            ScmpCmpMaskedEq => found & value == arg.value_two().unwrap_or(0) & value,
        }
    };
    let rules = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.names().iter().any(|known| known == name));
    let rules: Vec<_> = rules.filter(|rule| rule.action() != profile.default_action()).collect();
    let unconditional = rules.iter().find(|rule| rule.args().is_none());
    let matching = rules.iter().find(|rule| rule.args().iter().flatten().all(holds));
    unconditional.or(matching).map_or(profile.default_action(), |rule| rule.action())
}

#[test]
fn random_profiles_do_what_they_say() {
    let names: Vec<&str> =
        (0..400).filter_map(syscalls::x86_64::Sysno::new).map(|call| call.name()).collect();
    let actions = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_LOG",
        "SCMP_ACT_KILL_PROCESS",
    ];
    let operators = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
    let mut numbers = Numbers(7);
    for _ in 0..40 {
        let mut syscalls = Vec::new();
        for _ in 0..numbers.next(25) + 1 {
            let chosen: Vec<&str> = (0..numbers.next(12) + 1)
                .map(|_| names[numbers.next(names.len() as u64) as usize])
                .collect();
            let mut rule = json!({"names": chosen, "action": actions[numbers.next(5) as usize]});
            let first = numbers.next(6);
            let args: Vec<_> = (0..numbers.next(4))
                .map(|offset| {
                    let operator = format!("SCMP_CMP_{}", operators[numbers.next(7) as usize]);
                    json!({"index": (first + offset) % 6, "value": numbers.argument(), "valueTwo": numbers.argument(), "op": operator})
                })
                .collect();
            if !args.is_empty() {
                rule["args"] = json!(args);
            }
            syscalls.push(rule);
        }
        let default = actions[numbers.next(5) as usize];
        let profile = profile(json!({"defaultAction": default, "syscalls": syscalls}));
        let filter = compile(&profile).unwrap();
        let named = |name: &&&str| {
            profile
                .syscalls()
                .iter()
                .flatten()
                .any(|rule| rule.names().iter().any(|known| known == **name))
        };
        for name in names.iter().filter(named) {
            let number = name.parse::<syscalls::x86_64::Sysno>().unwrap().id() as u32;
            for _ in 0..20 {
                let arguments = std::array::from_fn(|_| numbers.argument());
                let expected = match naive(&profile, name, arguments) {
                    Action::ScmpActAllow => ALLOW,
                    Action::ScmpActErrno => EPERM,
                    Action::ScmpActTrap => 0x0003_0000,
                    Action::ScmpActLog => 0x7ffc_0000,
                    _ => 0x8000_0000,
                };
                assert_eq!(
                    run(&filter, X86_64, number, arguments),
                    expected,
                    "{name} {arguments:x?}"
                );
            }
        }
    }
}

#[test]
fn notifying_profiles_ask_for_a_listener() {
    let notify = |name: &str| {
        profile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x.sock", "listenerMetadata": "m", "flags": [],
            "syscalls": [{"names": [name], "action": "SCMP_ACT_NOTIFY"}],
        }))
    };
    let filter = compile(&notify("mkdir")).unwrap();
    assert_eq!(filter.flags, cleat_sys::seccomp::NEW_LISTENER);
    assert_eq!(filter.listener_path.as_deref(), Some("/run/x.sock".as_ref()));
    assert!(compile(&notify("write")).is_err());
    assert!(compile(&profile(json!({"defaultAction": "SCMP_ACT_NOTIFY"}))).is_err());
}

#[test]
fn flags_are_the_kernels_and_speculation_is_allowed_by_default() {
    let with = |flags: serde_json::Value| {
        profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}))
    };
    assert_eq!(compile(&profile(json!({"defaultAction": "SCMP_ACT_ALLOW"}))).unwrap().flags, 4);
    assert_eq!(compile(&with(json!([]))).unwrap().flags, 0);
    let all = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
    ]);
    assert_eq!(compile(&with(all)).unwrap().flags, 6);
}

fn cache_directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("cleat-seccomp-{name}-{}", std::process::id()))
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

#[test]
fn the_cache_gives_back_what_was_compiled_and_believes_no_other_file() {
    let directory = cache_directory("believes");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#;
    let (one, made) = (raw(text), compile(&serde_json::from_str(text).unwrap()).unwrap());
    let first = cached(&directory, &one).unwrap();
    assert!(first.filter == made && first.file.is_none());
    let second = cached(&directory, &one).unwrap();
    assert!(second.filter == made && second.file.is_some());
    let file = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // A marked program shows that the file was read.
    let mut content = std::fs::read(&file).unwrap();
    assert_eq!(content[..made.program.len()], made.program);
    content[0] ^= 1;
    std::fs::write(&file, &content).unwrap();
    assert_ne!(cached(&directory, &one).unwrap().filter, made);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(cached(&directory, &one).unwrap().filter, made);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_file_of_another_profile_or_a_part_of_one_is_not_taken() {
    let directory = cache_directory("other");
    let (one, other) =
        (raw(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#), raw(r#"{"defaultAction":"SCMP_ACT_LOG"}"#));
    let made = cached(&directory, &one).unwrap().filter;
    let name = |directory: &Path| std::fs::read_dir(directory).unwrap().next().unwrap().unwrap();
    let path = name(&directory).path();
    std::fs::remove_file(&path).unwrap();
    cached(&directory, &other).unwrap();
    // As if both had the same hash.
    std::fs::rename(name(&directory).path(), &path).unwrap();
    assert_eq!(cached(&directory, &one).unwrap().filter, made);
    let content = std::fs::read(&path).unwrap();
    for length in 0..content.len() {
        std::fs::write(&path, &content[..length]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(cached(&directory, &one).unwrap().file.is_none(), "{length}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_profile_with_an_agent_is_not_cached_and_a_bad_one_is_refused() {
    let directory = cache_directory("agent");
    let agent = raw(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent.sock","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
    );
    for _ in 0..2 {
        let found = cached(&directory, &agent).unwrap();
        assert_eq!(found.filter.listener_path.as_deref(), Some(Path::new("/run/agent.sock")));
        assert!(found.file.is_none());
    }
    assert!(!directory.exists());
    assert!(cached(&directory, &raw(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#)).is_err());
}

/// A filter without TSYNC is one thread's: it ends with the thread.
#[test]
fn the_kernel_takes_the_program_and_obeys_it() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78,
             "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]},
        ],
    }));
    let filter = compile(&profile).unwrap();
    let thread = std::thread::spawn(move || {
        cleat_sys::seccomp::install(&filter.program, filter.flags).unwrap();
        let made = std::fs::create_dir("/nowhere/at/all").unwrap_err().raw_os_error();
        let this = nix::unistd::Pid::this();
        let asked = nix::sys::signal::kill(this, None).unwrap_err() as i32;
        nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGCONT).unwrap();
        (made, asked)
    });
    assert_eq!(thread.join().unwrap(), (Some(77), 78));
}
