//! How a stock containerd starts a shim, asks about it, and cleans up after a dead one (runtime v2 README, "Commands").

use std::{
    env, fs,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use cleat_proto::containerd::{runc::v1::Options, task::v3::DeleteResponse};
use cleat_sys::spawn::Spawn;
use prost::Message;
use prost_types::Any;

use crate::{args::Args, events::timestamp, runtime::Runtime, supervisor::stock_runtime};

/// Where the sockets are: not in the bundle, whose path may be too long for a socket's 107 bytes.
const SOCKETS: &str = "/run/cleat/s";
/// Names the socket, in the bundle, for `delete`.
const ADDRESS_FILE: &str = "address";

/// Binds a socket, starts the shim proper with it, and prints its address.
pub fn start(args: &Args) -> io::Result<()> {
    // Options come on stdin; what Create needs of them it gets again.
    io::copy(&mut io::stdin().take(10 << 20), &mut io::sink())?;
    let path = new_socket_path()?;
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    if let Err(error) = start_serving(args, &listener) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    fs::write(ADDRESS_FILE, format!("unix://{}", path.display()))?;
    io::stdout().write_all(answer(&path, &|name| env::var(name).ok()).as_bytes())
}

/// Returns the answer of `start`. Up to containerd 1.7.0 that is a plain ttrpc address, which says nothing of
/// MAX_SHIM_VERSION; later ones (which set it) take JSON. gRPC addresses are plain paths, ttrpc's have a scheme.
fn answer(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let path = path.display();
    if variable("CLEAT_SHIM_PROTOCOL").as_deref() == Some("grpc") {
        return format!(r#"{{"version":3,"address":"{path}","protocol":"grpc"}}"#);
    }
    match variable("MAX_SHIM_VERSION").and_then(|version| version.parse::<u32>().ok()) {
        Some(2..) => format!(r#"{{"version":3,"address":"unix://{path}","protocol":"ttrpc"}}"#),
        _ => format!("unix://{path}"),
    }
}

fn new_socket_path() -> io::Result<PathBuf> {
    fs::create_dir_all(SOCKETS)?;
    fs::set_permissions(SOCKETS, fs::Permissions::from_mode(0o700))?;
    // Seeded by the system: no two shims share it.
    let random = RandomState::new().build_hasher().finish();
    Ok(Path::new(SOCKETS).join(format!("{random:016x}{:08x}", std::process::id())))
}

fn start_serving(args: &Args, listener: &UnixListener) -> io::Result<()> {
    let program = env::current_exe()?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    let mut words = vec![program.clone().into_os_string()];
    for (flag, value) in
        [("-namespace", &args.namespace), ("-id", &args.id), ("-address", &args.address)]
    {
        words.extend([flag.into(), value.into()]);
    }
    words.push("serve".into());
    let environment = env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let spawned = Spawn {
        program,
        args: words,
        env: environment.collect(),
        fds: vec![(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2), (listener.as_fd(), 3)],
        new_session: true,
        ..Spawn::default()
    }
    .start()?;
    harden(spawned.pid.as_raw());
    Ok(())
}

/// The kernel should rather take the container than the shim, and rather the shim than containerd.
fn harden(pid: i32) {
    let score = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    // Not everybody may.
    let _ = fs::write(
        format!("/proc/{pid}/oom_score_adj"),
        (score.unwrap_or(0) + 1).min(1000).to_string(),
    );
}

/// Cleans up after a shim that has died: kills and removes the container, and says how it ended.
pub fn delete(args: &Args) -> io::Result<()> {
    if !args.bundle.as_os_str().is_empty() {
        env::set_current_dir(&args.bundle)?;
    }
    let options = fs::read("options.json")
        .ok()
        .and_then(|text| serde_json::from_slice::<OptionsFile>(&text).ok());
    let options = options.unwrap_or_default();
    let options = Options {
        binary_name: options.binary_name,
        root: options.root,
        systemd_cgroup: options.systemd_cgroup,
    };
    let runtime = stock_runtime(&options, &args.namespace);
    let pid = crate::runtime::state_pid(&runtime, &args.id).unwrap_or(0);
    command(&runtime)
        .args(["delete", "--force", &args.id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if let Ok(address) = fs::read_to_string(ADDRESS_FILE) {
        // Gone with the shim, or never made.
        let _ = fs::remove_file(address.trim_start_matches("unix://"));
    }
    crate::rootfs::unmount_all(Path::new("rootfs"));
    let killed =
        DeleteResponse { pid, exit_status: 128 + 9, exited_at: Some(timestamp(SystemTime::now())) };
    io::stdout().write_all(&killed.encode_to_vec())
}

fn command(runtime: &Runtime) -> Command {
    runtime.plain_command()
}

/// containerd writes the runtime's options here, in Go's JSON.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct OptionsFile {
    binary_name: String,
    root: String,
    systemd_cgroup: bool,
}

/// Prints `containerd.types.RuntimeInfo`: who we are, and the runtime's features.
pub fn info(args: &Args) -> io::Result<()> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Version {
        #[prost(string, tag = "1")]
        version: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct RuntimeInfo {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        version: Option<Version>,
        #[prost(message, optional, tag = "4")]
        features: Option<Any>,
    }
    let mut input = Vec::new();
    io::stdin().take(10 << 20).read_to_end(&mut input)?;
    let options = Any::decode(&*input)
        .ok()
        .and_then(|any| Options::decode(&*any.value).ok())
        .unwrap_or_default();
    let runtime = stock_runtime(&options, &args.namespace);
    let features =
        command(&runtime).arg("features").output().ok().filter(|output| output.status.success());
    let type_url = "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned();
    let info = RuntimeInfo {
        name: "io.containerd.cleat.v1".to_owned(),
        version: Some(Version { version: env!("CARGO_PKG_VERSION").to_owned() }),
        features: features.map(|output| Any { type_url, value: output.stdout }),
    };
    io::stdout().write_all(&info.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: &str) {
        let variable = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(answer(Path::new("/run/s/x"), &variable), expected);
    }

    #[test]
    fn each_containerd_gets_the_answer_it_understands() {
        check(&[], "unix:///run/s/x");
        check(
            &[("MAX_SHIM_VERSION", "2")],
            r#"{"version":3,"address":"unix:///run/s/x","protocol":"ttrpc"}"#,
        );
        check(
            &[("MAX_SHIM_VERSION", "2"), ("CLEAT_SHIM_PROTOCOL", "grpc")],
            r#"{"version":3,"address":"/run/s/x","protocol":"grpc"}"#,
        );
    }
}
