//! `run` and `create`.
//!
//! The order of calls is docker's: create (pull if the image is missing), attach, wait, start, resize.

use cleat_proto::docker::container::{BindOptions, Mount, StrSlice};
use cleat_proto::platform::Platform;

use super::container_flags::{CONTAINER, LIMITS, MORE_LIMITS};
use super::foreground::{Foreground, check_tty, start};
use super::signal::{self, OnInterrupt, Proxy};
use super::{handler, pull};
use crate::app::NAME;
use crate::cli::{Arity, Call, Command};
use crate::client::{Client, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::opts::container::{self, CreateRequest};
use crate::opts::reference::Reference;
use crate::stream::Plan;
use crate::{go, print, terminal};

pub static RUN: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image and start it",
    names: "container run, run",
    arity: Arity::AtLeast(1),
    options_first: true,
    flags: &[RUN_FLAGS, COMMON_FLAGS, CONTAINER, LIMITS, MORE_LIMITS],
    run: handler!(run),
};

pub static CREATE: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image without starting it",
    names: "container create, create",
    arity: Arity::AtLeast(1),
    options_first: true,
    flags: &[COMMON_FLAGS, CONTAINER, LIMITS, MORE_LIMITS],
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

/// A failure before or at the creation, with the hint where to find help.
fn with_help(message: &str, command: &str, code: i32) -> Error {
    Error::Status {
        message: format!("{NAME}: {message}\n\nRun '{NAME} {command} --help' for more information"),
        code,
    }
}

/// Docker's exit codes: 127 not found, 126 not executable, 125 everything else.
fn start_failure(error: Error) -> Error {
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
    let id = create_container(&call, request).await.map_err(start_failure)?;
    let client = call.client()?;
    if !plan.stdin && !plan.stdout && !plan.stderr {
        print::line(&id);
        return start(client, &id).await.map_err(start_failure);
    }
    let proxy = call.flags.on("sig-proxy").then(Proxy::new);
    let detach_keys = call.detach_keys();
    let attached =
        Foreground { client, id: &id, plan, auto_remove, detach_keys }.run(start_failure);
    signal::set_on_interrupt(OnInterrupt::GoOn);
    signal::forwarded(proxy, client, &id, attached).await
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
        query.add(
            "platform",
            Platform::parse(&platform)
                .map_err(|reason| format!("error parsing specified platform: {reason}"))?
                .to_string(),
        );
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
