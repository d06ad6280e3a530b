//! `cleat`: docker's command line, word for word, over the Engine API and nothing else.
//!
//! Owns no state: each run asks the daemon and ends. `cli.rs` has the shape of commands, `command/` a file for each,
//! `flags/` and `opts/` read what was typed, `client/` speaks to the daemon, `output/` prints what it said.

mod app;
mod archive;
mod cli;
mod client;
mod command;
mod config;
mod context;
mod credentials;
mod error;
mod flags;
mod go;
mod help;
mod host;
mod opts;
mod output;
mod print;
mod stream;
mod terminal;
mod value;

use std::rc::Rc;

use app::{App, NAME};
use cli::{Call, Entry, EntryKind};
use command::signal::{OnInterrupt, on_interrupt};
use error::{Error, Outcome};
use flags::{Flag, Flags, Kind, Parsed, flag, short};
use tokio::signal::unix::{SignalKind, signal};

/// The flags before the command.
static GLOBALS: &[Flag] = &[
    flag("config", Kind::Text, "Directory of the client's configuration"),
    short(
        'c',
        "context",
        Kind::Text,
        "Stored context to use (instead of DOCKER_HOST and the current context)",
    ),
    short('D', "debug", Kind::Bool, "Print what happens on the way"),
    short('H', "host", Kind::List, "Address of the daemon"),
    short(
        'l',
        "log-level",
        Kind::Text,
        "Least important messages to print (debug, info, warn, error, fatal)",
    )
    .default("info"),
    flag("tls", Kind::Bool, "Use TLS"),
    flag("tlscacert", Kind::Text, "Certificate of the authority to trust"),
    flag("tlscert", Kind::Text, "Our TLS certificate"),
    flag("tlskey", Kind::Text, "Our TLS key"),
    flag("tlsverify", Kind::Bool, "Use TLS and check the daemon's certificate"),
    short('v', "version", Kind::Bool, "Print the version and exit"),
];

fn main() {
    let code = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run_until_signal()),
        Err(error) => {
            eprintln!("{NAME}: {error}");
            1
        }
    };
    terminal::restore();
    // Threads may still sit in a read of stdin; nothing of theirs is needed any more.
    std::process::exit(code);
}

/// Runs the command; an interrupt or termination ends it unless the command has taken signals over.
async fn run_until_signal() -> i32 {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return 1;
    };
    let run = run();
    tokio::pin!(run);
    let mut count = 0;
    loop {
        let number = tokio::select! {
            outcome = &mut run => return report(outcome),
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
        };
        count += 1;
        match on_interrupt() {
            OnInterrupt::End => return 128 + number,
            OnInterrupt::EndQuietly => return 0,
            OnInterrupt::GoOn if count == 3 => {
                terminal::restore();
                print::err("\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n");
                return 1;
            }
            OnInterrupt::GoOn => {}
        }
    }
}

fn report(outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            terminal::restore();
            let text = error.to_string();
            if !text.is_empty() {
                print::err(&format!("{text}\n"));
            }
            error.code()
        }
    }
}

async fn run() -> Outcome {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let refused =
        |reason: String| flag_error(&reason, &format!("{NAME} [OPTIONS] COMMAND [ARG...]"), NAME);
    let (globals, rest) = match flags::parse(&[GLOBALS], &args, true).map_err(refused)? {
        Parsed::Help(_) => {
            print::out(&help::program(command::ENTRIES, GLOBALS));
            return Ok(());
        }
        Parsed::Run(globals, rest) => (globals, rest),
    };
    if globals.on("version") {
        print::out(&format!(
            "{NAME} version {}, build {}\n",
            env!("CARGO_PKG_VERSION"),
            command::version::BUILD
        ));
        return Ok(());
    }
    check_log_level(&globals)?;
    let app = Rc::new(App::new(&globals)?);
    dispatch(app, &rest).await
}

fn check_log_level(globals: &Flags) -> Outcome {
    let level = globals.text("log-level");
    if matches!(
        level,
        "trace" | "debug" | "info" | "warn" | "warning" | "error" | "fatal" | "panic"
    ) {
        return Ok(());
    }
    Err(Error::Message(format!("Unable to parse logging level: {level}")))
}

fn flag_error(reason: &str, usage: &str, path: &str) -> Error {
    Error::Status {
        message: format!("{reason}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"),
        code: 125,
    }
}

/// Finds the command and runs it.
async fn dispatch(app: Rc<App>, words: &[String]) -> Outcome {
    let Some(first) = words.first() else {
        print::err(&help::program(command::ENTRIES, GLOBALS));
        return Ok(());
    };
    if first == "help" {
        return help_on(&words[1..]);
    }
    let (mut entries, mut path) = (command::ENTRIES, NAME.to_owned());
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let Some(entry) = Entry::find(entries, word) else { break };
        rest = after;
        path = format!("{path} {}", entry.name);
        match entry.kind {
            EntryKind::Command(command) => {
                return run_command(app, entry, command, &path, rest).await;
            }
            EntryKind::Group { entries: inner, about } => {
                let next = rest.first().map(String::as_str);
                if next.is_none_or(|next| next.starts_with('-')) {
                    return group_itself(about, inner, &path, rest);
                }
                entries = inner;
            }
        }
    }
    let unknown = rest.first().map_or("", String::as_str);
    let usage = if path == NAME { String::new() } else { format!("\nUsage:  {path}\n") };
    Err(Error::Message(format!(
        "{NAME}: unknown command: {path} {unknown}\n{usage}\nRun '{path} --help' for more information"
    )))
}

/// A group without a command: its help.
fn group_itself(about: &str, entries: &[Entry], path: &str, words: &[String]) -> Outcome {
    let text = help::group(about, entries, path);
    match flags::parse(&[], words, false).map_err(|reason| flag_error(&reason, path, path))? {
        Parsed::Help(_) => print::out(&text),
        Parsed::Run(..) => print::err(&text),
    }
    Ok(())
}

fn help_on(words: &[String]) -> Outcome {
    let (mut entries, mut path) = (command::ENTRIES, NAME.to_owned());
    let mut text = help::program(command::ENTRIES, GLOBALS);
    for word in words {
        let Some(entry) = Entry::find(entries, word) else {
            return Err(Error::Message(format!("unknown help topic: {}", words.join(" "))));
        };
        path = format!("{path} {}", entry.name);
        (text, entries) = match entry.kind {
            EntryKind::Command(command) => (help::command(command, &path), &[] as &[Entry]),
            EntryKind::Group { about, entries } => (help::group(about, entries, &path), entries),
        };
    }
    print::out(&text);
    Ok(())
}

async fn run_command(
    app: Rc<App>,
    entry: &'static Entry,
    command: &'static cli::Command,
    path: &str,
    words: &[String],
) -> Outcome {
    let parsed = flags::parse(command.flags, words, command.options_first)
        .map_err(|reason| flag_error(&reason, &command.usage_line(path), path))?;
    let (flags, args) = match parsed {
        Parsed::Help(deprecated) => {
            if deprecated {
                print::line("Flag shorthand -h has been deprecated, use --help");
            }
            print::out(&help::command(command, path));
            return Ok(());
        }
        Parsed::Run(flags, args) => (flags, args),
    };
    command.check_arity(path, args.len())?;
    if let Some((old, new)) = flags.deprecated() {
        print::line(&format!("Flag --{old} has been deprecated, use --{new} instead"));
    }
    check_versions(&app, &flags).await?;
    (command.run)(Call { app, flags, args, name: entry.name }).await
}

/// Refuses flags that the daemon's API does not have yet.
async fn check_versions(app: &App, flags: &Flags) -> Outcome {
    let windows = flags.windows_only();
    let mut needs = flags.version_needs().peekable();
    if needs.peek().is_none() && windows.is_empty() {
        return Ok(());
    }
    let client = app.client()?;
    let version = client.version().await;
    let os = if windows.is_empty() { String::new() } else { client.os().await };
    let mut missing: Vec<String> = needs
        .filter(|(_, since)| client::older(&version, since))
        .map(|(name, since)| {
            format!("\"--{name}\" requires API version {since}, but the Docker daemon API version is {version}")
        })
        .collect();
    if !matches!(os.as_str(), "" | "windows") {
        missing.extend(windows.iter().map(|name| {
            format!(
                "\"--{name}\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on {os}"
            )
        }));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Message(missing.join("\n"))) }
}
