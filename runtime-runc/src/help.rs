//! `--help`: what there is, and what each verb takes. The layout is that of `runc`, which scripts look into.

use crate::cli::{self, Syntax};
use std::fmt::Write;

/// Verb, arguments, what it does.
const VERBS: [(&str, &str, &str); 18] = [
    ("checkpoint", "<container-id>", "save a running container to files with CRIU"),
    ("create", "<container-id>", "make a container whose program waits for start"),
    ("delete", "<container-id>", "remove what is left of a container"),
    ("events", "<container-id>", "print statistics and out-of-memory events of a container"),
    ("exec", "<container-id> <command> [argument...]", "run another process in a container"),
    ("features", "", "print what this runtime can do"),
    ("kill", "<container-id> [signal]", "send a signal to a container's init (SIGTERM)"),
    ("list", "", "print all containers"),
    ("pause", "<container-id>", "freeze the processes of a container"),
    ("ps", "<container-id> [ps option...]", "print the processes of a container"),
    ("restore", "<container-id>", "make a container from the files of checkpoint"),
    ("resume", "<container-id>", "let a paused container go on"),
    ("run", "<container-id>", "create and start a container"),
    ("spec", "", "write a config.json to begin with"),
    ("start", "<container-id>", "let the program of a created container run"),
    ("state", "<container-id>", "print the state of a container"),
    ("update", "<container-id>", "change the resource limits of a container"),
    ("help", "", "print this"),
];

/// Returns the text for the whole program.
pub fn general() -> String {
    let mut text = "NAME:\n   cleat-runc - Open Container Initiative runtime\n\nUSAGE:\n   \
        cleat-runc [global options] command [command options] [arguments...]\n\nCOMMANDS:\n"
        .to_owned();
    for (verb, _, summary) in VERBS {
        // A String takes everything.
        let _ = writeln!(text, "   {verb:<12}{summary}");
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.push_str(&options(&cli::GLOBAL));
    text
}

/// Returns the text for one verb.
pub fn of_verb(verb: &str, syntax: &Syntax) -> String {
    let (_, arguments, summary) =
        VERBS.iter().find(|(name, ..)| *name == verb).copied().unwrap_or((verb, "", ""));
    format!(
        "NAME:\n   cleat-runc {verb} - {summary}\n\nUSAGE:\n   cleat-runc {verb} [command options] {arguments}\n\nOPTIONS:\n{}",
        options(syntax)
    )
}

fn options(syntax: &Syntax) -> String {
    let line = |flag: &str, value: &str| match flag.split_once(',') {
        Some((long, short)) => format!("   --{long}{value}, -{short}{value}\n"),
        None => format!("   --{flag}{value}\n"),
    };
    let values = syntax.values.iter().map(|flag| line(flag, " value"));
    values.chain(syntax.switches.iter().map(|flag| line(flag, ""))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_s_help_begins_with_its_name_and_has_its_flags() {
        let syntax = Syntax { values: &["env,e"], switches: &["detach"], least: 0, most: 0 };
        let text = of_verb("exec", &syntax);
        assert!(text.starts_with("NAME:\n   cleat-runc exec - "), "{text}");
        assert!(text.ends_with("   --env value, -e value\n   --detach\n"), "{text}");
    }
}
