//! What a request leaves open: filled in from the image and from the daemon's configuration. Pure.
//!
//! Source: the rules by which dockerd 28 merges (observed), and Engine API v1.51, ContainerCreate.

use cleat_proto::docker::container::{Config, HealthConfig, HostConfig, StrSlice, Ulimit};

/// What is hidden from a container, unless it is privileged or says otherwise.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What a container may read, not write.
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Puts the image's configuration where the user's says nothing.
pub(super) fn merge_image(user: &mut Config, image: &Config) {
    if user.user.is_empty() {
        user.user.clone_from(&image.user);
    }
    merge_map(&mut user.exposed_ports, image.exposed_ports.as_ref());
    merge_map(&mut user.volumes, image.volumes.as_ref());
    merge_map(&mut user.labels, image.labels.as_ref());
    merge_env(&mut user.env, image.env.as_deref().unwrap_or_default());
    if is_empty(user.entrypoint.as_ref()) {
        if is_empty(user.cmd.as_ref()) {
            user.cmd.clone_from(&image.cmd);
        }
        // An entrypoint of [] or [""] says: none, not even the image's.
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    }
    match (&mut user.healthcheck, &image.healthcheck) {
        (Some(user), Some(image)) => merge_health(user, image),
        (user @ None, Some(image)) => *user = Some(image.clone()),
        (_, None) => {}
    }
    if user.working_dir.is_empty() {
        user.working_dir.clone_from(&image.working_dir);
    }
    user.working_dir = clean(&user.working_dir);
    if user.stop_signal.is_empty() {
        user.stop_signal.clone_from(&image.stop_signal);
    }
}

/// Go's `filepath.Clean` of an absolute path; any other is left for the check to refuse.
fn clean(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_empty(words: Option<&StrSlice>) -> bool {
    words.is_none_or(|words| words.0.is_empty())
}

fn merge_map<V: Clone>(
    user: &mut Option<std::collections::BTreeMap<String, V>>,
    image: Option<&std::collections::BTreeMap<String, V>>,
) {
    let Some(image) = image.filter(|image| !image.is_empty()) else { return };
    let user = user.get_or_insert_default();
    for (key, value) in image {
        user.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn merge_env(user: &mut Option<Vec<String>>, image: &[String]) {
    if image.is_empty() {
        return;
    }
    let user = user.get_or_insert_default();
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let known: Vec<String> = user.iter().map(|entry| key(entry)).collect();
    user.extend(image.iter().filter(|entry| !known.contains(&key(entry))).cloned());
}

fn merge_health(user: &mut HealthConfig, image: &HealthConfig) {
    if user.test.as_ref().is_none_or(Vec::is_empty) {
        user.test.clone_from(&image.test);
    }
    let fill = |mine: &mut i64, theirs: i64| {
        if *mine == 0 {
            *mine = theirs;
        }
    };
    fill(&mut user.interval, image.interval);
    fill(&mut user.timeout, image.timeout);
    fill(&mut user.start_period, image.start_period);
    fill(&mut user.start_interval, image.start_interval);
    fill(&mut user.retries, image.retries);
}

/// Returns what is executed and its arguments; `None` if there is nothing.
pub(super) fn command(config: &Config) -> Option<(String, Vec<String>)> {
    let words = |slice: &Option<StrSlice>| slice.clone().unwrap_or_default().0;
    let mut all = words(&config.entrypoint);
    all.extend(words(&config.cmd));
    let mut all = all.into_iter();
    Some((all.next()?, all.collect()))
}

/// The daemon's own defaults.
pub(super) struct Defaults<'a> {
    pub runtime: &'a str,
    pub log_driver: &'a str,
    pub log_opts: &'a std::collections::BTreeMap<String, String>,
    pub shm_size_bytes: u64,
    pub ulimits: &'a [Ulimit],
    pub unified_cgroups: bool,
}

/// Fills in what the host configuration leaves open.
pub(super) fn fill_host_config(host: &mut HostConfig, defaults: &Defaults<'_>) {
    let or = |text: &mut String, default: &str| {
        if text.is_empty() {
            default.clone_into(text);
        }
    };
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory * 2;
    }
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(defaults.shm_size_bytes).unwrap_or(i64::MAX);
    }
    or(&mut host.ipc_mode, "private");
    let own_cgroupns = defaults.unified_cgroups;
    or(&mut host.cgroupns_mode, if own_cgroupns { "private" } else { "host" });
    or(&mut host.runtime, defaults.runtime);
    or(&mut host.restart_policy.name, "no");
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    if host.log_config.kind.is_empty() {
        defaults.log_driver.clone_into(&mut host.log_config.kind);
    }
    if host.log_config.kind == defaults.log_driver {
        let options = host.log_config.config.get_or_insert_default();
        for (key, value) in defaults.log_opts {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    host.log_config.config.get_or_insert_default();
    for ulimit in defaults.ulimits {
        let own = host.ulimits.get_or_insert_default();
        if !own.iter().any(|known| known.name == ulimit.name) {
            own.push(ulimit.clone());
        }
    }
    if host.oom_kill_disable.is_none() && !defaults.unified_cgroups {
        host.oom_kill_disable = Some(false);
    }
    if host.security_opt.is_none()
        && (host.privileged || host.pid_mode == "host" || host.ipc_mode == "host")
    {
        // Whoever shares that much with the host is not held by a label.
        host.security_opt = Some(vec!["label=disable".to_owned()]);
    }
    if !host.privileged {
        let list = |paths: &[&str]| Some(paths.iter().map(|&path| path.to_owned()).collect());
        if host.masked_paths.is_none() {
            host.masked_paths = list(&MASKED_PATHS);
        }
        if host.readonly_paths.is_none() {
            host.readonly_paths = list(&READONLY_PATHS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<StrSlice> {
        Some(StrSlice(text.split_whitespace().map(str::to_owned).collect()))
    }

    #[track_caller]
    fn check(
        user: (Option<StrSlice>, Option<StrSlice>),
        image: (Option<StrSlice>, Option<StrSlice>),
        expected: &str,
    ) {
        let mut config = Config { entrypoint: user.0, cmd: user.1, ..Config::default() };
        let image = Config { entrypoint: image.0, cmd: image.1, ..Config::default() };
        merge_image(&mut config, &image);
        let (path, args) = command(&config).unwrap_or_default();
        let all = std::iter::once(path).chain(args).collect::<Vec<_>>().join(" ");
        assert_eq!(all, expected);
    }

    #[test]
    fn a_working_directory_is_cleaned() {
        for (path, expected) in [
            ("/tmp/../var", "/var"),
            ("/", "/"),
            ("//a/./b/", "/a/b"),
            ("/../x", "/x"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn the_images_command_stands_where_the_user_says_nothing() {
        check((None, None), (words("entry"), words("cmd")), "entry cmd");
        check((None, words("mine")), (words("entry"), words("cmd")), "entry mine");
    }

    #[test]
    fn an_entrypoint_of_the_users_drops_the_images_command() {
        check((words("mine"), None), (words("entry"), words("cmd")), "mine");
    }

    #[test]
    fn an_empty_entrypoint_drops_the_images() {
        check((words(""), words("cmd")), (words("entry"), words("theirs")), "cmd");
        check((words(""), None), (words("entry"), words("theirs")), "theirs");
    }

    #[test]
    fn the_users_environment_wins_and_the_images_follows() {
        let mut user = Some(vec!["A=1".to_owned(), "B".to_owned()]);
        merge_env(&mut user, &["A=2".to_owned(), "B=3".to_owned(), "C=4".to_owned()]);
        assert_eq!(user.unwrap(), ["A=1", "B", "C=4"]);
    }

    #[test]
    fn swap_is_as_much_again_as_memory() {
        let mut host = HostConfig { memory: 32 << 20, ..HostConfig::default() };
        let options = Default::default();
        let defaults = Defaults {
            runtime: "runc",
            log_driver: "json-file",
            log_opts: &options,
            shm_size_bytes: 64 << 20,
            ulimits: &[],
            unified_cgroups: false,
        };
        fill_host_config(&mut host, &defaults);
        assert_eq!(host.memory_swap, 64 << 20);
        assert_eq!((host.shm_size, host.cgroupns_mode.as_str()), (64 << 20, "host"));
    }

    #[test]
    fn a_privileged_container_sees_everything() {
        let mut host = HostConfig { privileged: true, ..HostConfig::default() };
        let options = Default::default();
        let defaults = Defaults {
            runtime: "runc",
            log_driver: "json-file",
            log_opts: &options,
            shm_size_bytes: 0,
            ulimits: &[],
            unified_cgroups: true,
        };
        fill_host_config(&mut host, &defaults);
        assert_eq!((host.masked_paths, host.readonly_paths), (None, None));
    }
}
