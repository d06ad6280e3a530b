//! The first process: arguments, environment, directory.

use std::path::PathBuf;

use super::{Input, Namespace};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where an init is bound.
pub const INIT: &str = "/sbin/docker-init";

fn name(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

/// Puts the container's variables over Docker's: a name that is there is replaced in its place, one without `=` removes.
pub fn environment(config_env: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in config_env {
        let place = env.iter().position(|earlier| name(earlier) == name(entry));
        match (place, entry.contains('=')) {
            (Some(place), true) => env[place].clone_from(entry),
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

/// Returns the init that starts the command. In a PID namespace of somebody else's it would not be pid 1, and reap nobody.
pub fn init<'a>(input: &'a Input<'_>) -> Option<&'a PathBuf> {
    input.init_binary.as_ref().filter(|_| input.pid == Namespace::New)
}

/// Returns what is executed: the command, or the init that executes it.
pub fn arguments(input: &Input<'_>) -> Vec<String> {
    let mut args = Vec::with_capacity(input.args.len() + 2);
    if init(input).is_some() {
        args.extend([INIT.to_owned(), "--".to_owned()]);
    }
    args.extend(input.args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(env: &[&str], expected: &[&str]) {
        let env: Vec<String> = env.iter().map(|&entry| entry.to_owned()).collect();
        assert_eq!(environment(&env, "h", true), expected);
    }

    #[test]
    fn what_the_container_says_wins_in_place() {
        check(&[], &[PATH, "HOSTNAME=h", "TERM=xterm"]);
        check(&["PATH=/bin", "A=b=c"], &["PATH=/bin", "HOSTNAME=h", "TERM=xterm", "A=b=c"]);
        check(&["TERM", "A=1", "A=2", "NONE"], &[PATH, "HOSTNAME=h", "A=2"]);
    }
}
