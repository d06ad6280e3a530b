//! The tree of commands: names, usage, arity, flags, and which function runs.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::app::{App, NAME};
use crate::client::Client;
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Flags};

/// A command's run.
pub type Run = Pin<Box<dyn Future<Output = Outcome>>>;

/// What a command is called with.
pub struct Call {
    /// The configuration and the client.
    pub app: Rc<App>,
    /// Its flags.
    pub flags: Flags,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its last word: `ls`, or `ps` for the same command.
    pub name: &'static str,
}

impl Call {
    /// The way to the daemon.
    ///
    /// # Errors
    /// As [`App::client`].
    pub fn client(&self) -> Outcome<&Client> {
        self.app.client()
    }

    /// An argument, empty if it was not given.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// The keys that detach us: the flag's, or the configuration's.
    pub fn detach_keys(&self) -> &str {
        match self.flags.text("detach-keys") {
            "" => &self.app.config.detach_keys,
            keys => keys,
        }
    }
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Arity {
    Any,
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

/// A command, whatever its names.
pub struct Command {
    /// After the name: `[OPTIONS] CONTAINER`.
    pub usage: &'static str,
    /// In one sentence.
    pub about: &'static str,
    /// All its names, without the program's: `container ls, ps`. Empty if it has one.
    pub names: &'static str,
    /// How many arguments it takes.
    pub arity: Arity,
    /// Its first argument ends the flags.
    pub options_first: bool,
    /// Its flags.
    pub flags: &'static [&'static [Flag]],
    /// What it does.
    pub run: fn(Call) -> Run,
}

/// A word of the command line and what it leads to.
pub struct Entry {
    /// The word.
    pub name: &'static str,
    /// Other words for it.
    pub aliases: &'static [&'static str],
    /// What it is.
    pub kind: EntryKind,
}

/// A command, or a group of them.
#[allow(missing_docs)]
pub enum EntryKind {
    Command(&'static Command),
    Group { about: &'static str, entries: &'static [Entry] },
}

/// An entry for a command.
pub const fn entry(name: &'static str, command: &'static Command) -> Entry {
    Entry { name, aliases: &[], kind: EntryKind::Command(command) }
}

/// An entry for a command with other names beside it.
pub const fn entry_also(
    name: &'static str,
    aliases: &'static [&'static str],
    command: &'static Command,
) -> Entry {
    Entry { name, aliases, kind: EntryKind::Command(command) }
}

/// An entry for a group.
pub const fn group(name: &'static str, about: &'static str, entries: &'static [Entry]) -> Entry {
    Entry { name, aliases: &[], kind: EntryKind::Group { about, entries } }
}

impl Entry {
    /// In one sentence.
    pub fn about(&self) -> &'static str {
        match self.kind {
            EntryKind::Command(command) => command.about,
            EntryKind::Group { about, .. } => about,
        }
    }

    /// Finds a word in a list.
    pub fn find(entries: &'static [Entry], word: &str) -> Option<&'static Entry> {
        entries.iter().find(|entry| entry.name == word || entry.aliases.contains(&word))
    }
}

impl Command {
    /// `cleat container ls [OPTIONS]`.
    pub fn usage_line(&self, path: &str) -> String {
        if self.usage.is_empty() { path.to_owned() } else { format!("{path} {}", self.usage) }
    }

    /// Checks the number of arguments.
    ///
    /// # Errors
    /// Docker's text, exit code 1.
    pub fn check_arity(&self, path: &str, count: usize) -> Outcome {
        let plural = |number: usize| if number == 1 { "argument" } else { "arguments" };
        let (ok, wanted, lead) = match self.arity {
            Arity::Any => (true, String::new(), ""),
            Arity::None => (count == 0, "accepts no arguments".into(), "Run"),
            Arity::Exactly(n) => (count == n, format!("requires {n} {}", plural(n)), "Run"),
            Arity::AtLeast(n) => {
                (count >= n, format!("requires at least {n} {}", plural(n)), "See")
            }
            // The reference misspells the word here, and scripts compare whole texts.
            Arity::AtMost(n) => (count <= n, format!("requires at most {n} {}", plural(n)), "SRun"),
            Arity::Between(least, most) => (
                (least..=most).contains(&count),
                format!("requires at least {least} and at most {most} {}", plural(most)),
                "Run",
            ),
        };
        if ok {
            return Ok(());
        }
        let usage = self.usage_line(path);
        Err(Error::Message(format!(
            "{NAME}: '{path}' {wanted}\n\nUsage:  {usage}\n\n{lead} '{path} --help' for more information"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arity: Arity) -> Command {
        Command {
            usage: "[OPTIONS] X",
            about: "",
            names: "",
            arity,
            options_first: false,
            flags: &[],
            run: |_| Box::pin(async { Ok(()) }),
        }
    }

    #[test]
    fn a_wrong_number_of_arguments_is_told_with_the_usage() {
        let text = command(Arity::AtLeast(1)).check_arity("cleat run", 0).unwrap_err().to_string();
        assert_eq!(
            text,
            "cleat: 'cleat run' requires at least 1 argument\n\nUsage:  cleat run [OPTIONS] X\n\nSee 'cleat run --help' for more information"
        );
        assert!(command(Arity::Between(1, 2)).check_arity("x", 2).is_ok());
    }
}
