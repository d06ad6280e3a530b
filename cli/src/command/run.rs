//! `run` and `create`.
//!
//! The order of calls is docker's: create (pull if the image is missing), attach, wait, start, resize.

use cleat_proto::docker::container::{BindOptions, Mount, StrSlice};

use super::signal::{self, OnInterrupt, Proxy};
use super::{handler, pull};
use crate::app::NAME;
use crate::cli::{Arity, Call, Command};
use crate::client::{Client, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::opts::container::{self, CreateRequest};
use crate::opts::reference::Reference;
use crate::stream::{self, Ended, Plan};
use crate::value::Value;
use crate::{go, print, terminal};

pub static RUN: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image and start it",
    names: "container run, run",
    arity: Arity::AtLeast(1),
    options_first: true,
    flags: &[RUN_FLAGS, COMMON_FLAGS, CONTAINER_FLAGS],
    run: handler!(run),
};

pub static CREATE: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image without starting it",
    names: "container create, create",
    arity: Arity::AtLeast(1),
    options_first: true,
    flags: &[COMMON_FLAGS, CONTAINER_FLAGS],
    run: handler!(create),
};

static RUN_FLAGS: &[Flag] = &[
    short('d', "detach", Kind::Bool, "Leave the container in the background and print its id"),
    flag("detach-keys", Kind::Text, "Keys that detach from the container"),
    flag("sig-proxy", Kind::Bool, "Pass signals on to the container").default("true"),
];

static COMMON_FLAGS: &[Flag] = &[
    flag("disable-content-trust", Kind::Bool, "Do not verify the image").default("true"),
    flag("help", Kind::Bool, "Print this help"),
    flag("name", Kind::Text, "Name of the container"),
    flag("platform", Kind::Text, "Platform of the image, where it has several").since("1.32"),
    flag("pull", Kind::Text, "When to pull the image (\"always\", \"missing\", \"never\")")
        .default("missing"),
    short('q', "quiet", Kind::Bool, "Do not show the progress of a pull"),
    flag("use-api-socket", Kind::Bool, "Give the container the daemon's socket"),
];

/// What a container is made of.
static CONTAINER_FLAGS: &[Flag] = &[
    flag("add-host", Kind::ExtraHost, "Entry for the hosts file (host:ip)"),
    flag("annotation", Kind::Map, "Annotation for the runtime").since("1.43"),
    short('a', "attach", Kind::Stream, "Stream to attach: stdin, stdout or stderr"),
    flag("blkio-weight", Kind::Uint16, "Weight of block IO, 10 to 1000, or 0 for none")
        .default("0"),
    flag("blkio-weight-device", Kind::WeightDevice, "Weight of block IO for a device"),
    flag("cap-add", Kind::List, "Capability to add"),
    flag("cap-drop", Kind::List, "Capability to drop"),
    flag("cgroup-parent", Kind::Text, "Cgroup to put the container's under"),
    flag("cgroupns", Kind::Text, "Cgroup namespace (host|private); the daemon's default if empty")
        .since("1.41"),
    flag("cidfile", Kind::Text, "File to write the container's id to"),
    flag("cpu-count", Kind::Int, "Number of CPUs").windows(),
    flag("cpu-percent", Kind::Int, "Share of CPU in percent").windows(),
    flag("cpu-period", Kind::Int, "Period of the CPU quota in microseconds"),
    flag("cpu-quota", Kind::Int, "CPU time per period in microseconds"),
    flag("cpu-rt-period", Kind::Int, "Period of the real-time CPU limit in microseconds")
        .since("1.25"),
    flag("cpu-rt-runtime", Kind::Int, "Real-time CPU time per period in microseconds")
        .since("1.25"),
    short('c', "cpu-shares", Kind::Int, "Relative weight of CPU time"),
    flag("cpus", Kind::Cpus, "Number of CPUs, with fractions").since("1.25"),
    flag("cpuset-cpus", Kind::Text, "CPUs to run on (0-3, 0,1)"),
    flag("cpuset-mems", Kind::Text, "Memory nodes to use (0-3, 0,1)"),
    flag("device", Kind::List, "Device of the host to add"),
    flag("device-cgroup-rule", Kind::DeviceRule, "Rule for the devices cgroup"),
    flag("device-read-bps", Kind::BpsDevice, "Limit of bytes read per second from a device"),
    flag("device-read-iops", Kind::IopsDevice, "Limit of reads per second from a device"),
    flag("device-write-bps", Kind::BpsDevice, "Limit of bytes written per second to a device"),
    flag("device-write-iops", Kind::IopsDevice, "Limit of writes per second to a device"),
    flag("dns", Kind::Ip, "DNS server"),
    flag("dns-opt", Kind::List, "").spelling_of("dns-option"),
    flag("dns-option", Kind::List, "Option for the resolver"),
    flag("dns-search", Kind::Domain, "DNS search domain"),
    flag("domainname", Kind::Text, "NIS domain name"),
    flag("entrypoint", Kind::Text, "Program to run instead of the image's entrypoint"),
    short('e', "env", Kind::Env, "Environment variable"),
    flag("env-file", Kind::List, "File with environment variables"),
    flag("expose", Kind::List, "Port or range of ports to expose"),
    flag("gpus", Kind::Gpus, "GPUs to add ('all' for all of them)").since("1.40"),
    flag("group-add", Kind::List, "Additional group"),
    flag("health-cmd", Kind::Text, "Command that checks the health"),
    flag("health-interval", Kind::Duration, "Time between checks (ms|s|m|h)").default("0s"),
    flag("health-retries", Kind::Int, "Failures in a row that mean unhealthy"),
    flag("health-start-interval", Kind::Duration, "Time between checks while starting (ms|s|m|h)")
        .default("0s")
        .since("1.44"),
    flag("health-start-period", Kind::Duration, "Time to start before failures count (ms|s|m|h)")
        .default("0s")
        .since("1.29"),
    flag("health-timeout", Kind::Duration, "Longest time for one check (ms|s|m|h)").default("0s"),
    short('h', "hostname", Kind::Text, "Host name"),
    flag("init", Kind::Bool, "Run an init that forwards signals and reaps processes").since("1.25"),
    short('i', "interactive", Kind::Bool, "Keep stdin open even if it is not attached"),
    flag("io-maxbandwidth", Kind::Bytes, "Limit of IO bandwidth of the system drive").windows(),
    flag("io-maxiops", Kind::Uint64, "Limit of IO operations of the system drive").windows(),
    flag("ip", Kind::Text, "IPv4 address"),
    flag("ip6", Kind::Text, "IPv6 address"),
    flag("ipc", Kind::Text, "IPC namespace"),
    flag("isolation", Kind::Text, "Isolation technology"),
    flag("kernel-memory", Kind::Bytes, "Limit of kernel memory"),
    short('l', "label", Kind::Label, "Label"),
    flag("label-file", Kind::List, "File with labels"),
    flag("link", Kind::Link, "Link to another container"),
    flag("link-local-ip", Kind::List, "Link-local address"),
    flag("log-driver", Kind::Text, "Logging driver"),
    flag("log-opt", Kind::List, "Option for the logging driver"),
    flag("mac-address", Kind::Text, "Hardware address"),
    short('m', "memory", Kind::Bytes, "Limit of memory"),
    flag("memory-reservation", Kind::Bytes, "Soft limit of memory"),
    flag("memory-swap", Kind::SwapBytes, "Limit of memory and swap together, -1 for none"),
    flag("memory-swappiness", Kind::Int, "How readily to swap (0 to 100)").default("-1"),
    flag("mount", Kind::Mount, "Filesystem to mount"),
    flag("net", Kind::Network, "").spelling_of("network"),
    flag("net-alias", Kind::List, "").spelling_of("network-alias"),
    flag("network", Kind::Network, "Network to connect to"),
    flag("network-alias", Kind::List, "Additional name on the network"),
    flag("no-healthcheck", Kind::Bool, "Turn the image's health check off"),
    flag("oom-kill-disable", Kind::Bool, "Never kill it for lack of memory"),
    flag("oom-score-adj", Kind::Int, "How readily to kill it for lack of memory (-1000 to 1000)"),
    flag("pid", Kind::Text, "PID namespace"),
    flag("pids-limit", Kind::Int, "Limit of processes (-1 for none)"),
    flag("privileged", Kind::Bool, "Give it all privileges"),
    short('p', "publish", Kind::List, "Publish a port on the host"),
    short('P', "publish-all", Kind::Bool, "Publish all exposed ports on random ones"),
    flag("read-only", Kind::Bool, "Make the root filesystem read-only"),
    flag("restart", Kind::Text, "Restart policy").default("no"),
    flag("rm", Kind::Bool, "Remove the container and its anonymous volumes when it ends"),
    flag("runtime", Kind::Text, "OCI runtime"),
    flag("security-opt", Kind::List, "Security option"),
    flag("shm-size", Kind::Bytes, "Size of /dev/shm"),
    flag("stop-signal", Kind::Text, "Signal that stops it"),
    flag("stop-timeout", Kind::Int, "Seconds to stop before it is killed").since("1.25"),
    flag("storage-opt", Kind::List, "Option for the storage driver"),
    flag("sysctl", Kind::Sysctl, "Kernel parameter"),
    flag("tmpfs", Kind::List, "Directory to mount a tmpfs on"),
    short('t', "tty", Kind::Bool, "Give it a terminal"),
    flag("ulimit", Kind::Ulimit, "Resource limit"),
    short('u', "user", Kind::Text, "User, and group (name|uid[:group|gid])"),
    flag("userns", Kind::Text, "User namespace"),
    flag("uts", Kind::Text, "UTS namespace"),
    short('v', "volume", Kind::List, "Volume or directory to mount"),
    flag("volume-driver", Kind::Text, "Volume driver"),
    flag("volumes-from", Kind::List, "Container to take volumes from"),
    short('w', "workdir", Kind::Text, "Working directory"),
];

/// A failure before or at the creation, with the hint where to find help.
fn with_help(message: &str, command: &str, code: i32) -> Error {
    Error::Status {
        message: format!("{NAME}: {message}\n\nRun '{NAME} {command} --help' for more information"),
        code,
    }
}

/// Docker's exit codes: 127 not found, 126 not executable, 125 everything else.
fn start_failure(error: &Error) -> Error {
    let message = error.to_string();
    let has = |text: &str| message.contains(text);
    let code = if has("executable file not found")
        || has("no such file or directory")
        || has("system cannot find the file specified")
    {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        125
    };
    with_help(&message, "run", code)
}

/// Reads the flags into a request.
fn prepare(call: &Call, command: &str) -> Outcome<CreateRequest> {
    let refused = |reason: String| with_help(&reason, command, 125);
    let policy = call.flags.text("pull");
    if !matches!(policy, "" | "always" | "missing" | "never") {
        let reason = format!(
            "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
        );
        return Err(refused(reason));
    }
    let client = call.client()?;
    let environment = call.app.config.proxy_variables(client.host(), &call.flags.list("env"));
    container::request(&call.flags, call.arg(0), &call.args[1..], environment).map_err(refused)
}

async fn create(call: Call) -> Outcome {
    let request = prepare(&call, "create")?;
    let id = create_container(&call, request).await?;
    print::line(&id);
    Ok(())
}

async fn run(call: Call) -> Outcome {
    let mut request = prepare(&call, "run")?;
    let config = &mut request.config;
    if call.flags.on("detach") {
        if call.flags.changed("attach") {
            return Err("conflicting options: cannot specify both --attach and --detach".into());
        }
        (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
        config.stdin_once = false;
    } else {
        check_tty(config.attach_stdin, config.tty)?;
    }
    let plan = Plan {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        tty: config.tty,
    };
    let auto_remove = request.host.auto_remove;
    let id = create_container(&call, request).await.map_err(|error| start_failure(&error))?;
    let client = call.client()?;
    if !plan.stdin && !plan.stdout && !plan.stderr {
        print::line(&id);
        return start(client, &id).await.map_err(|error| start_failure(&error));
    }
    let proxy = call.flags.on("sig-proxy").then(Proxy::new);
    let detach_keys = match call.flags.text("detach-keys") {
        "" => &call.app.config.detach_keys,
        keys => keys,
    };
    let attached = run_attached(client, &id, plan, auto_remove, detach_keys);
    signal::set_on_interrupt(OnInterrupt::GoOn);
    match proxy {
        None => attached.await,
        Some(proxy) => tokio::select! {
            biased;
            outcome = attached => outcome,
            never = proxy.forward(client, &id) => match never {},
        },
    }
}

async fn run_attached(
    client: &Client,
    id: &str,
    plan: Plan,
    auto_remove: bool,
    detach_keys: &str,
) -> Outcome {
    let connection = attach(client, id, plan, detach_keys).await?;
    let mut exit = ExitStatus::watch(client, id, auto_remove).await;
    // Starting and printing go on side by side: a quick container may be over before `start` is answered.
    let streams = stream::run(connection, plan, detach_keys);
    tokio::pin!(streams);
    if let Err(error) = start(client, id).await {
        terminal::restore();
        if auto_remove {
            exit.code().await;
        }
        return Err(start_failure(&error));
    }
    let path = format!("/containers/{id}");
    let resizing = signal::follow_size(client, &path);
    tokio::pin!(resizing);
    let ended = tokio::select! {
        biased;
        ended = &mut streams => ended,
        never = &mut resizing, if plan.tty && terminal::stdout_is() => match never {},
        code = exit.code(), if !plan.stdout && !plan.stderr => return status(code),
    };
    match ended {
        Ended::Detached => Ok(()),
        Ended::Failed(message) => Err(Error::Message(message)),
        Ended::Closed => status(exit.code().await),
    }
}

/// Success, or a failure that only has an exit code.
pub fn status(code: i32) -> Outcome {
    if code == 0 { Ok(()) } else { Err(Error::exit(code)) }
}

/// Refuses to give a terminal's job to something else.
pub fn check_tty(stdin: bool, tty: bool) -> Outcome {
    if tty && stdin && !terminal::stdin_is() {
        return Err("the input device is not a TTY".into());
    }
    Ok(())
}

/// Starts a container.
pub async fn start(client: &Client, id: &str) -> Outcome {
    client.post(&super::container_path(id, "/start")?, &Query::default()).await?;
    Ok(())
}

/// Attaches to a container's streams.
pub async fn attach(
    client: &Client,
    id: &str,
    plan: Plan,
    detach_keys: &str,
) -> Outcome<crate::client::Hijacked> {
    let mut query = Query::of("stream", "1");
    for (wanted, name) in [(plan.stdin, "stdin"), (plan.stdout, "stdout"), (plan.stderr, "stderr")]
    {
        if wanted {
            query.add(name, "1");
        }
    }
    let query = query.with_some("detachKeys", detach_keys);
    let path = super::container_path(id, "/attach")?;
    Ok(client.hijack(&path, &query, crate::client::Body::Empty).await?)
}

/// The exit status of a container, asked for before it starts.
pub struct ExitStatus(Result<crate::client::Response, String>);

impl ExitStatus {
    /// Asks. The daemon answers with a head at once, so that nothing can be missed.
    pub async fn watch(client: &Client, id: &str, removed: bool) -> Self {
        let query = Query::of("condition", if removed { "removed" } else { "next-exit" });
        let path = format!("/containers/{id}/wait");
        Self(client.post(&path, &query).await.map_err(|error| error.to_string()))
    }

    /// Waits for it.
    pub async fn code(&mut self) -> i32 {
        let response = std::mem::replace(&mut self.0, Err("already asked".into()));
        let answer = match response {
            Ok(response) => response.value().await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if *answer.at("Error") != Value::Nil => {
                super::log(
                    "error",
                    &format!(
                        "Error waiting for container: {}",
                        answer.at("Error").at("Message").text()
                    ),
                );
                125
            }
            Ok(answer) => answer.at("StatusCode").int() as i32,
            Err(error) => {
                super::log("error", &format!("error waiting for container: {error}"));
                125
            }
        }
    }
}

/// The file for the container's id. Removed again if nothing is written to it.
struct CidFile {
    path: String,
    written: bool,
}

impl CidFile {
    fn create(path: &str) -> Outcome<Option<Self>> {
        if path.is_empty() {
            return Ok(None);
        }
        if std::fs::metadata(path).is_ok() {
            return Err(Error::Message(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        std::fs::File::create(path).map_err(|error| {
            format!(
                "failed to create the container ID file: {}",
                go::path_error("open", path, &error)
            )
        })?;
        Ok(Some(Self { path: path.to_owned(), written: false }))
    }

    fn write(&mut self, id: &str) -> Outcome {
        std::fs::write(&self.path, id).map_err(|error| {
            let reason = go::path_error("write", &self.path, &error);
            format!("failed to write the container ID to the file: {reason}")
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn create_container(call: &Call, mut request: CreateRequest) -> Outcome<String> {
    let client = call.client()?;
    let mut id_file = CidFile::create(call.flags.text("cidfile"))?;
    let image = request.config.image.clone();
    let is_id =
        image.len() == 64 && image.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let reference = if is_id || image.starts_with("sha256:") {
        None
    } else {
        Some(Reference::parse(&image)?.tagged())
    };
    if call.flags.on("use-api-socket") {
        mount_socket(client, &mut request)?;
    }
    let platform = platform(call);
    let mut query = Query::default().with_some("name", call.flags.text("name"));
    if !platform.is_empty() && !crate::client::older(&client.version().await, "1.41") {
        query.add("platform", crate::opts::platform::normalized(&platform)?);
    }
    let policy = call.flags.text("pull");
    if policy == "always" {
        pull_image(call, &image, &platform).await?;
    }
    request.host.console_size = terminal::console_size();
    fit_version(&mut request, &client.version().await)?;
    let mut outcome = client.post_json("/containers/create", &query, &request).await;
    if let (Err(error), Some(reference), "missing") = (&outcome, &reference, policy)
        && error.is_not_found()
    {
        if !call.flags.on("quiet") {
            print::err(&format!("Unable to find image '{}' locally\n", reference.familiar()));
        }
        pull_image(call, &image, &platform).await?;
        outcome = client.post_json("/containers/create", &query, &request).await;
    }
    let answer = outcome?.value().await?;
    for warning in answer.at("Warnings").items() {
        print::err(&format!("WARNING: {}\n", warning.text()));
    }
    for server in request.host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()) {
            print::err(&format!("WARNING: Localhost DNS ({server}) may fail in containers.\n"));
            break;
        }
    }
    let id = answer.at("Id").text().to_owned();
    if let Some(file) = &mut id_file {
        file.write(&id)?;
    }
    Ok(id)
}

/// Brings the request into the form that the agreed API version has.
fn fit_version(request: &mut CreateRequest, version: &str) -> Outcome {
    let older = |than: &str| crate::client::older(version, than);
    let mac_asked = request.networking.endpoints_config.iter().flatten().any(|(_, endpoint)| {
        endpoint.as_ref().is_some_and(|endpoint| !endpoint.mac_address.is_empty())
    });
    if older("1.44") && mac_asked {
        let text = format!(
            "\"specify mac-address per network\" requires API version 1.44, but the Docker daemon API version is {version}"
        );
        return Err(Error::Message(text));
    }
    if !older("1.42") || older("1.40") {
        request.host.kernel_memory = 0;
    }
    if !older("1.44") {
        request.config.mac_address.clear();
    }
    for capabilities in [&mut request.host.cap_add, &mut request.host.cap_drop] {
        *capabilities = capabilities.take().map(normalized_capabilities);
    }
    Ok(())
}

/// Capabilities in upper case with their prefix, sorted, each once.
fn normalized_capabilities(names: StrSlice) -> StrSlice {
    let upper = names.0.into_iter().map(|name| {
        let name = name.to_uppercase();
        if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
    });
    StrSlice(upper.collect::<std::collections::BTreeSet<_>>().into_iter().collect())
}

/// `--platform`, or the default of the environment.
pub fn platform(call: &Call) -> String {
    match call.flags.text("platform") {
        "" => std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
        platform => platform.to_owned(),
    }
}

async fn pull_image(call: &Call, image: &str, platform: &str) -> Outcome {
    pull::pull(call, image, platform, call.flags.on("quiet")).await
}

/// `--use-api-socket`.
fn mount_socket(client: &Client, request: &mut CreateRequest) -> Outcome {
    let Some(socket) = client.host().strip_prefix("unix://") else {
        return Err(Error::Message(format!(
            "flag --use-api-socket can only be used with unix sockets: docker endpoint {} incompatible",
            client.host()
        )));
    };
    request.host.mounts.get_or_insert_default().push(Mount {
        kind: "bind".into(),
        source: socket.into(),
        target: "/var/run/docker.sock".into(),
        bind_options: Some(BindOptions::default()),
        ..Mount::default()
    });
    Ok(())
}
