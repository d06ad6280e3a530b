//! Hooks, OCI runtime-spec, config.md, POSIX-platform Hooks: programs with the container's state on their stdin.

use crate::error::{Context, Error, Result, errno_of, reason};
use crate::spec::Hook;
use cleat_sys::pidfd::PidFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How much of what a failed hook wrote goes into the error.
const MAX_OUTPUT_BYTES: u64 = 4096;

/// Runs hooks one after another; the first that fails ends it. `env` is for those that have none of their own.
///
/// # Errors
/// [`Error::Invalid`] with runc's wording.
pub fn run(kind: &str, hooks: &[Hook], state: &serde_json::Value, env: &[String]) -> Result<()> {
    for (at, hook) in hooks.iter().enumerate() {
        run_one(hook, state, env)
            .map_err(|error| Error::Invalid(format!("error running {kind} hook #{at}: {error}")))?;
    }
    Ok(())
}

/// Runs hooks that cannot undo anything any more: what fails is logged, the next one runs.
pub fn run_all(kind: &str, hooks: &[Hook], state: &serde_json::Value) {
    for (at, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(hook, state, &[]) {
            crate::log::warn(&format!("error running {kind} hook #{at}: {error}"));
        }
    }
}

fn run_one(hook: &Hook, state: &serde_json::Value, env: &[String]) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear();
    for pair in hook.env.as_deref().unwrap_or(env) {
        if let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Error::Invalid(format!("fork/exec {}: {}", hook.path.display(), reason(errno_of(&error))))
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its stdin is no failure.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    wait(&mut child, hook.timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs))
}

/// Waits for the hook's end while its output is read, so that it never blocks on a full pipe.
fn wait(child: &mut Child, timeout: Option<Duration>) -> Result<()> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let pidfd =
        PidFd::open(Pid::from_raw(child.id() as i32)).context(|| "pidfd_open".to_owned())?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(stdout.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        fds.extend(stderr.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, left) {
            Err(cleat_sys::Errno::EINTR) => continue,
            Err(errno) => return Err(Error::Kernel { what: "poll".to_owned(), errno }),
            Ok(0) => {
                let _ = pidfd.kill();
                let _ = child.wait();
                let seconds = timeout.unwrap_or_default().as_secs_f64();
                return Err(Error::Invalid(format!(
                    "hook ran past specified timeout of {seconds:.1}s"
                )));
            }
            Ok(_) => {}
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        let (ended, first, second) = (ready(0), ready(1), ready(2));
        drop(fds);
        let both = stdout.is_some();
        if both && first {
            drain(&mut stdout, &mut out);
        }
        if (both && second) || (!both && first) {
            drain(&mut stderr, &mut err);
        }
        if ended && !first && !second {
            break;
        }
    }
    let status = child.wait().context(|| "wait".to_owned())?;
    if status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let status = match status.code() {
        Some(code) => format!("exit status {code}"),
        None => format!("signal: {}", signal_name(status.signal().unwrap_or(0))),
    };
    Err(Error::Invalid(format!("{status}, stdout: {}, stderr: {}", text(&out), text(&err))))
}

/// Names a signal as Go prints it.
fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGABRT => "aborted",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGTERM => "terminated",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Reads what is there; closes the pipe at its end.
fn drain<R: Read>(pipe: &mut Option<R>, kept: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    let count = pipe.as_mut().map_or(0, |pipe| pipe.read(&mut buffer).unwrap_or(0));
    if count == 0 {
        *pipe = None;
    }
    let room = (MAX_OUTPUT_BYTES as usize).saturating_sub(kept.len());
    kept.extend_from_slice(&buffer[..count.min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: None, timeout }
    }

    fn state() -> serde_json::Value {
        serde_json::json!({"id": "web"})
    }

    #[test]
    fn the_state_comes_on_stdin() {
        run(
            "prestart",
            &[shell("grep -q '\"id\":\"web\"'", None)],
            &state(),
            &["PATH=/bin:/usr/bin".into()],
        )
        .unwrap();
    }

    #[test]
    fn a_failure_names_the_hook_and_shows_what_it_wrote() {
        let hooks = [shell("true", None), shell("echo out; echo err >&2; exit 3", None)];
        let error = run("createRuntime", &hooks, &state(), &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "error running createRuntime hook #1: exit status 3, stdout: out, stderr: err"
        );
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let error = run(
            "prestart",
            &[shell("exec sleep 100", Some(1))],
            &state(),
            &["PATH=/bin:/usr/bin".into()],
        );
        assert!(
            error.unwrap_err().to_string().ends_with("hook ran past specified timeout of 1.0s")
        );
    }

    #[test]
    fn much_output_does_not_block_it() {
        run(
            "prestart",
            &[shell("head -c 300000 /dev/zero", None)],
            &state(),
            &["PATH=/bin:/usr/bin".into()],
        )
        .unwrap();
    }
}
