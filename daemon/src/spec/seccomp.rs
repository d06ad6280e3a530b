//! The system call filter: Docker's default profile, one the user brought in Docker's form, or none.

use cleat_proto::docker::go_json;
use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use super::{Error, default_seccomp};

/// What a profile's conditions are asked about.
pub struct Situation<'a> {
    /// Without `CAP_`.
    pub capabilities: &'a [&'a str],
    /// Major and minor.
    pub kernel: (u32, u32),
}

/// A profile in Docker's form: OCI's with conditions. Source: Docker's documentation of seccomp profiles.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    listener_path: String,
    listener_metadata: String,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Arg>>,
    includes: Filter,
    excludes: Filter,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Arg {
    index: u32,
    value: u64,
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// This build's architecture as Go and as seccomp call it.
const ARCH: (&str, &str) = if cfg!(target_arch = "aarch64") {
    ("arm64", "SCMP_ARCH_AARCH64")
} else {
    ("amd64", "SCMP_ARCH_X86_64")
};

impl Filter {
    fn names_capability(&self, situation: &Situation<'_>, name: &str) -> bool {
        situation.capabilities.iter().any(|granted| name.strip_prefix("CAP_") == Some(granted))
    }

    fn min_kernel_met(&self, situation: &Situation<'_>) -> bool {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return true;
        };
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(u32::MAX));
        situation.kernel >= (parts.next().unwrap_or(u32::MAX), parts.next().unwrap_or(0))
    }

    /// Every condition holds.
    fn includes(&self, situation: &Situation<'_>) -> bool {
        let arch = self
            .arches
            .as_ref()
            .is_none_or(|list| list.is_empty() || list.iter().any(|arch| arch == ARCH.0));
        let caps = self.caps.iter().flatten().all(|name| self.names_capability(situation, name));
        arch && caps && self.min_kernel_met(situation)
    }

    /// Any condition holds.
    fn excludes(&self, situation: &Situation<'_>) -> bool {
        let arch = self.arches.iter().flatten().any(|arch| arch == ARCH.0);
        let caps = self.caps.iter().flatten().any(|name| self.names_capability(situation, name));
        let kernel = self.min_kernel.as_ref().is_some_and(|text| !text.is_empty())
            && self.min_kernel_met(situation);
        arch || caps || kernel
    }
}

/// Evaluates a profile in Docker's form.
///
/// # Errors
/// [`Error::Invalid`] for what is no profile.
pub fn custom(text: &str, situation: &Situation<'_>) -> Result<LinuxSeccomp, Error> {
    let invalid = |why: String| Error::Invalid(format!("Decoding seccomp profile failed: {why}"));
    let profile: Profile =
        go_json::from_slice(text.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    if profile.architectures.as_ref().is_some_and(|list| !list.is_empty())
        && profile.arch_map.as_ref().is_some_and(|list| !list.is_empty())
    {
        return Err(invalid("both 'architectures' and 'archMap' are specified: use either".into()));
    }
    if profile.default_action == "SCMP_ACT_NOTIFY" {
        return Err(invalid("SCMP_ACT_NOTIFY cannot be used as default action".into()));
    }
    let mut rules = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        if !rule.name.is_empty() && rule.names.as_ref().is_some_and(|names| !names.is_empty()) {
            return Err(invalid(
                "both 'name' and 'names' are specified in a rule: use either".into(),
            ));
        }
        if rule.excludes.excludes(situation) || !rule.includes.includes(situation) {
            continue;
        }
        let names = rule.names.filter(|names| !names.is_empty()).unwrap_or_else(|| vec![rule.name]);
        let mut value = serde_json::json!({ "names": names, "action": rule.action });
        if let Some(errno) = rule.errno_ret {
            value["errnoRet"] = errno.into();
        }
        if let Some(wrong) = rule.args.iter().flatten().find(|arg| arg.index > 5) {
            return Err(invalid(format!("a call has no argument {}", wrong.index)));
        }
        if rule.action == "SCMP_ACT_NOTIFY" && names.iter().any(|name| name == "write") {
            return Err(invalid("SCMP_ACT_NOTIFY cannot be used for the write syscall".into()));
        }
        if let Some(args) = rule.args.filter(|args| !args.is_empty()) {
            value["args"] =
                serde_json::to_value(args).map_err(|error| invalid(error.to_string()))?;
        }
        rules.push(value);
    }
    let mut value =
        serde_json::json!({ "defaultAction": profile.default_action, "syscalls": rules });
    if let Some(errno) = profile.default_errno_ret {
        value["defaultErrnoRet"] = errno.into();
    }
    let mapped = profile.arch_map.into_iter().flatten().find(|map| map.architecture == ARCH.1);
    let architectures = match mapped {
        Some(map) => Some(
            std::iter::once(map.architecture)
                .chain(map.sub_architectures.into_iter().flatten())
                .collect(),
        ),
        None => profile.architectures,
    };
    if let Some(architectures) = architectures {
        value["architectures"] = architectures.into();
    }
    if let Some(flags) = profile.flags {
        value["flags"] = flags.into();
    }
    if !profile.listener_path.is_empty() {
        value["listenerPath"] = profile.listener_path.into();
        value["listenerMetadata"] = profile.listener_metadata.into();
    }
    // Actions, operators, flags and architectures that are none are refused here.
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

/// Returns Docker's default profile for a container.
pub fn default(situation: &Situation<'_>) -> LinuxSeccomp {
    default_seccomp::profile(situation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &LinuxSeccomp) -> Vec<String> {
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    fn situation<'a>(capabilities: &'a [&'a str]) -> Situation<'a> {
        Situation { capabilities, kernel: (6, 1) }
    }

    #[test]
    fn the_default_profile_follows_the_capabilities() {
        let plain = names(&default(&situation(&["SYS_CHROOT"])));
        let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
        assert!(has(&plain, "read") && has(&plain, "chroot") && has(&plain, "ptrace"));
        assert!(!has(&plain, "mount") && !has(&plain, "bpf") && !has(&plain, "reboot"));
        let admin = names(&default(&situation(&["SYS_ADMIN"])));
        assert!(has(&admin, "mount") && has(&admin, "bpf") && !has(&admin, "chroot"));
    }

    #[test]
    fn clone3_is_unknown_without_sys_admin_so_that_libraries_fall_back() {
        let rule_of = |profile: &LinuxSeccomp| {
            let rules = profile.syscalls().clone().unwrap();
            rules.into_iter().find(|rule| rule.names().iter().any(|name| name == "clone3")).unwrap()
        };
        assert_eq!(rule_of(&default(&situation(&[]))).errno_ret(), Some(38));
        assert_eq!(rule_of(&default(&situation(&["SYS_ADMIN"]))).errno_ret(), None);
    }

    #[test]
    fn a_users_profile_is_evaluated() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},{"name":"write","action":"SCMP_ACT_ALLOW"},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["new"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
            {"names":["old"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_CHOWN"]}}]}"#;
        assert_eq!(names(&custom(text, &situation(&["CHOWN"])).unwrap()), ["read", "write"]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in ["x", "{\"defaultAction\":\"SCMP_ACT_NOPE\"}", "[]"] {
            let error = custom(text, &situation(&[])).unwrap_err().to_string();
            assert!(error.starts_with("Decoding seccomp profile failed: "), "{error}");
        }
    }
}
