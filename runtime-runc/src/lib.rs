//! cleat-runc: the worker. Makes a container from an OCI bundle, and is gone once its program runs.
//!
//! A file or a folder per verb, with `runc`'s command line: `create/` (and `init.rs`, the container's side of it), `start.rs`,
//! `run.rs`, `exec.rs`, `kill.rs`, `delete.rs`, `pause.rs`, `update.rs`, `events/`, `checkpoint/` (and restore), `inspect.rs` (state,
//! list, ps), `features.rs` (features, spec). What they share: `spec.rs` (the configuration), `state.rs` (what is remembered), `channel.rs` (parent and child), `process.rs` (the
//! last steps before a program), `rootfs/`, `cgroup/`, `seccomp/`.
//!
//! One thread and no runtime: code after `clone3` is as sound as before. Deliberately absent: Intel RDT; asking for it is an error.

mod cgroup;
mod seccomp;

mod affinity;
mod agent;
mod capability;
mod channel;
mod checkpoint;
mod cli;
mod console;
mod create;
mod dbus;
mod delete;
mod docker_init;
mod error;
mod events;
mod exec;
mod fault;
mod features;
mod foreground;
mod help;
mod hook;
mod init;
mod inspect;
mod kill;
mod log;
mod lsm;
mod namespace;
mod pause;
mod process;
mod procfs;
mod rootfs;
mod rootless;
mod run;
mod selfexe;
mod spec;
mod start;
mod state;
mod sysctl;
mod update;

use cli::Arguments;
use error::{Context, Error, Result};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};

/// What reads text that others wrote, for `fuzz/`.
#[doc(hidden)]
pub mod parsers {
    use std::path::Path;

    /// Reads a `config.json`, and says whether it is one that the worker takes.
    pub fn spec(text: &[u8]) -> bool {
        crate::spec::Spec::read(text, Path::new("config.json")).is_ok()
    }

    /// Reads the options of a mount, and says whether the worker can do all of them.
    pub fn mount_options(text: &str) -> bool {
        crate::rootfs::Options::parse(text.split(',')).is_ok()
    }

    /// Reads the value of `--rootfs-mounts`, and says whether it is one.
    pub fn rootfs_mounts(text: &str) -> bool {
        crate::rootfs::layer::parse(text).is_ok()
    }

    /// Compiles a seccomp profile; returns the program.
    pub fn seccomp(profile: &[u8]) -> Option<Vec<u8>> {
        let profile = serde_json::from_slice(profile).ok()?;
        crate::seccomp::compile(&profile).ok().map(|filter| filter.program)
    }
}

/// Where containers are remembered without `--root`.
const DEFAULT_ROOT: &str = "/run/cleat-runc";

/// The flags before the verb.
#[derive(Debug)]
pub struct Global {
    /// The directory with one directory per container.
    pub root: PathBuf,
    /// Cgroups are systemd's.
    pub systemd_cgroup: bool,
    /// `--rootless`: whether they are a user's, as far as we are told.
    pub rootless: String,
}

impl Global {
    /// Returns whether cgroups are those of a user who has not the host's root's rights.
    ///
    /// # Errors
    /// What is neither true nor false, in Go's words; and a denial that is not true, as with the rights there are nothing works.
    pub fn is_rootless(&self) -> Result<bool> {
        match self.rootless.as_str() {
            "" | "auto" => Ok(rootless::is_without_host_s_rights()),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" if rootless::is_rootless() => {
                Err(Error::Invalid("--rootless=false is not what this is".to_owned()))
            }
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => {
                let text = format!("strconv.ParseBool: parsing {other:?}: invalid syntax");
                Err(Error::Invalid(text))
            }
        }
    }
}

/// Runs the program: does what its command line says.
pub fn main() -> ExitCode {
    let called_as = std::env::args_os().next().unwrap_or_default();
    if Path::new(&called_as).file_name() == Some(docker_init::NAME.as_ref()) {
        return docker_init::run(std::env::args_os().skip(1));
    }
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let (global, verb, words) = match begin(&words) {
        Ok(Some(begun)) => begun,
        Ok(None) => exit(0),
        Err(error) => fail(&error.to_string(), 1),
    };
    // An exec's own failures are 255, which no program that was found would mean: engines tell them apart by it.
    let (prefix, code) = match verb.as_str() {
        "create" | "run" => (format!("runc {verb} failed: "), 1),
        "exec" => ("exec failed: ".to_owned(), 255),
        _ => (String::new(), 1),
    };
    match dispatch(&global, &verb, &words) {
        Ok(code) => exit(code),
        // Nothing was tried yet.
        Err(error @ Error::Usage(_)) => fail(&error.to_string(), 1),
        Err(error @ Error::NoTopic(_)) => fail(&error.to_string(), 3),
        Err(error) => fail(&format!("{prefix}{error}"), code),
    }
}

/// `help [VERB]`.
fn help(global: &Global, words: &[String]) -> Result<i32> {
    match words.first().map(String::as_str) {
        None | Some("help" | "h") => say(help::general().trim_end_matches('\n')),
        // Which prints it and ends.
        Some(verb) => return dispatch(global, verb, &["--help".to_owned()]),
    }
    Ok(0)
}

/// Prints a line. Whoever reads it may have gone, as `head` does: that is nobody's failure.
fn say(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes());
}

fn fail(message: &str, code: i32) -> ! {
    log::error(message);
    exit(code)
}

/// Reads the global flags; nothing is left to do after `--version` and `--help`.
fn begin(words: &[String]) -> Result<Option<(Global, String, Vec<String>)>> {
    let mut arguments = Arguments::parse(words, &cli::GLOBAL, false)?;
    if arguments.has("version") {
        let version = env!("CARGO_PKG_VERSION");
        say(&format!("cleat-runc version {version}\ncommit: {version}\nspec: {}", spec::VERSION));
        return Ok(None);
    }
    if arguments.has("help") || arguments.rest.is_empty() {
        say(help::general().trim_end_matches('\n'));
        return Ok(None);
    }
    let json = match arguments.value("log-format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Error::Usage(format!("invalid log-format: {other}"))),
    };
    let path = arguments.path("log");
    log::open(path.as_deref(), json, arguments.has("debug"))
        .context(|| format!("open {}", path.unwrap_or_default().display()))?;
    let rootless = arguments.value("rootless").unwrap_or_default().to_owned();
    let default = || rootless::default_root().unwrap_or_else(|| DEFAULT_ROOT.into());
    let root = arguments.path("root").unwrap_or_else(default);
    let root = std::path::absolute(&root).map_err(|error| Error::Invalid(error.to_string()))?;
    fault::arm(&root);
    if let Some(parent) = arguments.number("die-with")? {
        die_with(parent)?;
    }
    let systemd_cgroup = arguments.has("systemd-cgroup");
    let words = arguments.rest.split_off(1);
    Ok(arguments.rest.pop().map(|verb| (Global { root, systemd_cgroup, rootless }, verb, words)))
}

/// Has this process killed when its parent, `parent`, dies: what it was making would be nobody's.
fn die_with(parent: u32) -> Result<()> {
    cleat_sys::process::set_parent_death_signal(libc::SIGKILL)
        .context(|| "prctl(SET_PDEATHSIG)".to_owned())?;
    // It may have died before.
    match nix::unistd::getppid().as_raw().unsigned_abs() == parent {
        true => Ok(()),
        false => Err(Error::Invalid("the parent has gone".to_owned())),
    }
}

fn dispatch(global: &Global, verb: &str, words: &[String]) -> Result<i32> {
    log::debug(|| format!("{verb} {words:?}"));
    let done = match verb {
        "run" => return run::run(global, words),
        "exec" => return exec::run(global, words),
        "restore" => return checkpoint::restore(global, words),
        "create" => create::run(global, words),
        "start" => start::run(global, words),
        "kill" => kill::run(global, words),
        "delete" => delete::run(global, words),
        "state" => inspect::state(global, words),
        "list" => inspect::list(global, words),
        "ps" => inspect::ps(global, words),
        "pause" => pause::pause(global, words),
        "resume" => pause::resume(global, words),
        "update" => update::run(global, words),
        "features" => features::features(words),
        "spec" => features::write_spec(words),
        "events" => events::run(global, words),
        "checkpoint" => checkpoint::checkpoint(global, words),
        "help" | "h" => return help(global, words),
        other => Err(Error::NoTopic(other.to_owned())),
    };
    done.map(|()| 0)
}
