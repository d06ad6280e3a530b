//! `--help`, in docker's layout.

use crate::app::NAME;
use crate::cli::{Command, Entry, EntryKind};
use crate::flags::{Flag, flag_usages};
use crate::terminal;

fn width() -> usize {
    terminal::size(std::io::stdin()).map_or(80, |(columns, _)| usize::from(columns))
}

/// The help of a command.
pub fn command(command: &Command, path: &str) -> String {
    let mut text = format!("Usage:  {}\n\n{}\n", command.usage_line(path), command.about);
    if !command.names.is_empty() {
        let names: Vec<String> =
            command.names.split(", ").map(|name| format!("{NAME} {name}")).collect();
        text.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    let flags = flag_usages(command.flags, width() - 1);
    if !flags.is_empty() {
        text.push_str(&format!("\nOptions:\n{flags}"));
    }
    text
}

/// The help of a group.
pub fn group(about: &str, entries: &[Entry], path: &str) -> String {
    let mut text = format!("Usage:  {path} COMMAND\n\n{about}\n");
    section(&mut text, "Commands", entries.iter());
    text.push_str(&format!("\nRun '{path} COMMAND --help' for more information on a command.\n"));
    text
}

/// The help of the program.
pub fn program(entries: &[Entry], globals: &'static [Flag]) -> String {
    const COMMON: [&str; 7] = ["run", "exec", "ps", "pull", "images", "version", "info"];
    let mut text = format!("Usage:  {NAME} [OPTIONS] COMMAND\n\nRuns and manages containers\n");
    section(
        &mut text,
        "Common Commands",
        COMMON.iter().filter_map(|name| entries.iter().find(|e| e.name == *name)),
    );
    let is_group = |entry: &&Entry| matches!(entry.kind, EntryKind::Group { .. });
    section(&mut text, "Management Commands", entries.iter().filter(is_group));
    let rest = entries.iter().filter(|entry| !is_group(entry) && !COMMON.contains(&entry.name));
    section(&mut text, "Commands", rest);
    text.push_str(&format!("\nGlobal Options:\n{}", flag_usages(&[globals], width() - 1)));
    text.push_str(&format!("\nRun '{NAME} COMMAND --help' for more information on a command.\n"));
    text
}

fn section<'a>(text: &mut String, title: &str, entries: impl Iterator<Item = &'a Entry>) {
    text.push_str(&format!("\n{title}:\n"));
    for entry in entries {
        text.push_str(&format!("  {:<11} {}\n", entry.name, entry.about()));
    }
}
