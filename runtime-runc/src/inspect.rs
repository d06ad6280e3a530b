//! `state`, `list` and `ps`: what there is.

use crate::Global;
use crate::cli::{Arguments, Syntax};
use crate::error::{Context, Error, Result};
use crate::state::{Container, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub const STATE: Syntax = Syntax { values: &[], switches: &[], least: 1, most: 1 };
pub const LIST: Syntax =
    Syntax { values: &["format,f"], switches: &["quiet,q"], least: 0, most: 0 };
pub const PS: Syntax = Syntax { values: &["format,f"], switches: &[], least: 1, most: usize::MAX };

/// `state`: prints one container's state as JSON.
///
/// # Errors
/// [`Error::NotFound`].
pub fn state(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("state", words, &STATE)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    print(&summary(&container)?)
}

/// What `state` and `list` show of a container; in this order, since scripts look at the text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

fn summary(container: &Container) -> Result<Summary<'_>> {
    let state = &container.state;
    let status = container.status()?;
    Ok(Summary {
        oci_version: &state.cleat.oci_version,
        id: &state.id,
        pid: if status == Status::Stopped { 0 } else { state.init_process_pid },
        status: status.word(),
        bundle: &state.cleat.bundle,
        rootfs: &state.config.rootfs,
        created: &state.created,
        annotations: &state.cleat.annotations,
        owner: owner(container),
    })
}

/// Returns the name of the user who owns the state, or the number where the host knows none.
fn owner(container: &Container) -> String {
    let uid = std::fs::metadata(&container.directory).map_or(0, |metadata| metadata.uid());
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// `list`: prints all containers.
///
/// # Errors
/// Where the state directory cannot be read.
pub fn list(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("list", words, &LIST)?;
    let format = arguments.value("format").unwrap_or("table");
    if !matches!(format, "table" | "json") {
        return Err(Error::Usage("invalid format option".to_owned()));
    }
    let containers = load_all(global)?;
    if arguments.has("quiet") {
        containers.iter().for_each(|container| crate::say(&container.state.id));
        return Ok(());
    }
    let summaries = containers.iter().map(summary).collect::<Result<Vec<_>>>()?;
    if format == "json" {
        // As runc: null where there is none.
        return print_line(&(!summaries.is_empty()).then_some(summaries));
    }
    let rows = summaries.iter().map(|row| {
        let bundle = row.bundle.display().to_string();
        let pid = row.pid.to_string();
        [
            row.id.to_owned(),
            pid,
            row.status.to_owned(),
            bundle,
            row.created.to_owned(),
            row.owner.clone(),
        ]
    });
    let rows: Vec<[String; 6]> =
        std::iter::once(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned))
            .chain(rows)
            .collect();
    print_table(&rows);
    Ok(())
}

/// Columns at least 12 wide, one space apart, as runc's.
fn print_table(rows: &[[String; 6]]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count() + 1).max().unwrap_or(0).max(12)
    };
    for row in rows {
        let line: String = row[..5]
            .iter()
            .enumerate()
            .map(|(at, cell)| format!("{cell:<0$}", width(at)))
            .collect();
        crate::say(&format!("{line}{}", row[5]));
    }
}

fn load_all(global: &Global) -> Result<Vec<Container>> {
    let entries = match std::fs::read_dir(&global.root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| format!("open {}", global.root.display()))?,
    };
    let mut containers = Vec::new();
    for entry in entries {
        let name = entry.context(|| "readdir".to_owned())?.file_name();
        // One that is being made or removed just now has no state.
        if let Some(Ok(container)) = name.to_str().map(|id| Container::load(&global.root, id)) {
            containers.push(container);
        }
    }
    containers.sort_by(|a, b| a.state.id.cmp(&b.state.id));
    Ok(containers)
}

/// `ps`: prints a container's processes, by pid or as the host's `ps` shows them.
///
/// # Errors
/// [`Error`].
pub fn ps(global: &Global, words: &[String]) -> Result<()> {
    let arguments = Arguments::parse_verb("ps", words, &PS)?;
    let container = Container::load(&global.root, &arguments.rest[0])?;
    let pids: Vec<i32> = container.need_cgroup()?.pids()?.iter().map(|pid| pid.as_raw()).collect();
    match arguments.value("format").unwrap_or("table") {
        "json" => print_line(&serde_json::json!(pids)),
        "table" => table(&pids, &arguments.rest[1..]),
        _ => Err(Error::Usage("invalid format option".to_owned())),
    }
}

fn table(pids: &[i32], options: &[String]) -> Result<()> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let output =
        std::process::Command::new("ps").args(options).output().context(|| "ps".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::State(format!("{}: {}", output.status, said.trim())));
    }
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|title| title == "PID");
    let column =
        column.ok_or_else(|| Error::State("couldn't find PID field in ps output".to_owned()))?;
    crate::say(header);
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            crate::say(line);
        }
    }
    Ok(())
}

fn print(value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::Invalid(error.to_string()))?;
    crate::say(&text);
    Ok(())
}

fn print_line(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::Invalid(error.to_string()))?;
    crate::say(&text);
    Ok(())
}
