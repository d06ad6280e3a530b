//! The short commands on containers: stop, restart, kill, rm, pause, unpause, rename, export.

use std::io::Write;

use super::{container_path, each, handler, is_not_found, joined, one_by_one, outcomes};
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Query, Response};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::{go, print, terminal};

static STOP_FLAGS: &[Flag] = &[
    short('s', "signal", Kind::Text, "Signal to send"),
    flag("time", Kind::Int, "").spelling_of("timeout"),
    short('t', "timeout", Kind::Int, "Seconds to wait before killing it").default("0"),
];

pub static STOP: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop running containers",
    names: "container stop, stop",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[STOP_FLAGS],
    run: handler!(stop),
};

pub static RESTART: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop containers and start them again",
    names: "container restart, restart",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[STOP_FLAGS],
    run: handler!(restart),
};

pub static KILL: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Send a signal to running containers",
    names: "container kill, kill",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[short('s', "signal", Kind::Text, "Signal to send")]],
    run: handler!(kill),
};

pub static RM: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove containers",
    names: "container rm, container remove, rm",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        short('f', "force", Kind::Bool, "Kill it first if it runs"),
        short('l', "link", Kind::Bool, "Remove the link instead of the container"),
        short('v', "volumes", Kind::Bool, "Remove its anonymous volumes as well"),
    ]],
    run: handler!(rm),
};

pub static PAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Freeze all processes of containers",
    names: "container pause, pause",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[],
    run: handler!(pause),
};

pub static UNPAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Let paused containers go on",
    names: "container unpause, unpause",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[],
    run: handler!(unpause),
};

pub static RENAME: Command = Command {
    usage: "CONTAINER NEW_NAME",
    about: "Give a container another name",
    names: "container rename, rename",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[],
    run: handler!(rename),
};

pub static EXPORT: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Write a container's filesystem as a tar archive",
    names: "container export, export",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[&[short('o', "output", Kind::Text, "File to write instead of stdout")]],
    run: handler!(export),
};

/// The query of stop and restart.
fn stop_query(call: &Call) -> Query {
    let query = Query::default().with_some("signal", call.flags.text("signal"));
    if call.flags.changed("timeout") {
        query.with("t", call.flags.int("timeout").to_string())
    } else {
        query
    }
}

/// POST to each container.
async fn post_each(call: &Call, action: &str, query: Query) -> Outcome {
    let client = call.client()?;
    each(call, |name| {
        let query = &query;
        async move {
            client.post(&container_path(&name, action)?, query).await?;
            Ok(())
        }
    })
    .await
}

async fn stop(call: Call) -> Outcome {
    post_each(&call, "/stop", stop_query(&call)).await
}

async fn restart(call: Call) -> Outcome {
    let (client, query) = (call.client()?, stop_query(&call));
    one_by_one(&call, async |name| {
        client.post(&container_path(name, "/restart")?, &query).await?;
        Ok(name.to_owned())
    })
    .await
}

async fn kill(call: Call) -> Outcome {
    let query = Query::default().with_some("signal", call.flags.text("signal"));
    post_each(&call, "/kill", query).await
}

async fn pause(call: Call) -> Outcome {
    post_each(&call, "/pause", Query::default()).await
}

async fn unpause(call: Call) -> Outcome {
    post_each(&call, "/unpause", Query::default()).await
}

async fn rm(call: Call) -> Outcome {
    let client = call.client()?;
    let force = call.flags.on("force");
    let mut query = Query::default();
    for (flag, key) in [("volumes", "v"), ("link", "link"), ("force", "force")] {
        if call.flags.on(flag) {
            query.add(key, "1");
        }
    }
    let query = &query;
    let removed = outcomes(&call, |name: String| async move {
        let trimmed = name.trim_matches('/').to_owned();
        if trimmed.is_empty() {
            return Err(Error::from("container name cannot be empty"));
        }
        client.delete(&container_path(&trimmed, "")?, query).await?;
        Ok(())
    });
    let mut failures = Vec::new();
    for (name, outcome) in call.args.iter().zip(removed.await) {
        match outcome {
            Ok(()) => print::line(name),
            Err(error) if force && is_not_found(&error) => print::err(&format!("{error}\n")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    joined(failures)
}

async fn rename(call: Call) -> Outcome {
    let (old, new) = (call.arg(0).trim(), call.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err("Error: Neither old nor new names may be empty".into());
    }
    let client = call.client()?;
    if let Err(error) = client.post(&container_path(old, "/rename")?, &Query::of("name", new)).await
    {
        print::err(&format!("{error}\n"));
        return Err(Error::Message(format!("Error: failed to rename container named {old}")));
    }
    Ok(())
}

async fn export(call: Call) -> Outcome {
    let client = call.client()?;
    let output = OutputFile::open(call.flags.text("output"), "failed to export container")?;
    let path = container_path(call.arg(0), "/export")?;
    let response =
        client.request((http::Method::GET, &path), &Query::default(), Body::Empty).await?;
    output.fill(response).await
}

/// Where an archive goes: stdout, or a file that appears only when it is whole.
pub struct OutputFile {
    path: String,
    file: Option<(std::fs::File, std::path::PathBuf)>,
}

impl OutputFile {
    /// Prepares to write to `path`, or to stdout if it is empty.
    ///
    /// # Errors
    /// stdout is a terminal, or the file cannot be there; the text begins with `what`.
    pub fn open(path: &str, what: &str) -> Outcome<Self> {
        if path.is_empty() {
            if terminal::stdout_is() {
                return Err(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect".into()
                );
            }
            return Ok(Self { path: String::new(), file: None });
        }
        check_target(path).map_err(|reason| format!("{what}: {reason}"))?;
        let target = std::path::Path::new(path);
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory
            .unwrap_or_else(|| std::path::Path::new("."))
            .join(format!(".tmp-{name}{}", std::process::id()));
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(|error| {
                format!("{what}: {}", go::path_error("open", &temporary.to_string_lossy(), &error))
            })?;
        Ok(Self { path: path.to_owned(), file: Some((file, temporary)) })
    }

    /// Copies a response's body.
    pub async fn fill(mut self, response: Response) -> Outcome {
        let mut chunks = response.chunks();
        while let Some(chunk) = chunks.next().await? {
            match &mut self.file {
                None => print::bytes(&chunk),
                Some((file, _)) => file.write_all(&chunk)?,
            }
        }
        if let Some((file, temporary)) = self.file.take() {
            use std::os::unix::fs::PermissionsExt;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.sync_all()?;
            std::fs::rename(temporary, &self.path)?;
        }
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some((_, temporary)) = &self.file {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Refuses targets that are no regular file, or whose directory is missing, in the words of moby's atomicwriter.
fn check_target(path: &str) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt;
    let clean = go::clean_path(path);
    let directory = match clean.rsplit_once('/') {
        None => "",
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
    };
    if !matches!(directory, "" | "." | "..") {
        let invalid = |error: &std::io::Error| {
            format!("invalid output path: {}", go::path_error("stat", directory, error))
        };
        let found = std::fs::metadata(directory).map_err(|error| invalid(&error))?;
        if !found.is_dir() {
            return Err(invalid(&std::io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
    }
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(format!(
                "failed to stat output path: {}",
                go::path_error("lstat", path, &error)
            ));
        }
    };
    Err(match () {
        () if found.is_dir() => "cannot write to a directory",
        () if found.is_symlink() => "cannot write to a symbolic link directly",
        () if found.is_fifo() => "cannot write to a named pipe (FIFO)",
        () if found.is_socket() => "cannot write to a socket",
        () if found.is_block_device() => "cannot write to a block device file",
        () if found.is_char_device() => "cannot write to a character device file",
        () => return Ok(()),
    }
    .into())
}
