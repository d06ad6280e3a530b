//! The processes of a container, as the host's `ps` shows them. Source: Engine API v1.51, ContainerTop.

use std::{process, sync::Arc};

use cleat_proto::kind::Kind;

use super::{Attributes, Engine, Error, Result};
use crate::{
    container::{
        names::ContainerRef,
        state::{Command, Refusal},
    },
    task::cgroup,
};

/// What `ps` printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// The heads of the columns.
    pub titles: Vec<String>,
    /// A row per process.
    pub processes: Vec<Vec<String>>,
}

/// Without arguments of the client's.
const DEFAULT_ARGS: &str = "-ef";

impl Engine {
    /// Lists a container's processes by `ps` with the client's arguments.
    ///
    /// # Errors
    /// If it does not run, or `ps` does not like the arguments.
    pub async fn top(&self, reference: &ContainerRef, args: &str) -> Result<Table> {
        let args = if args.is_empty() { DEFAULT_ARGS } else { args }.to_owned();
        check_args(&args)?;
        let container = self.entry(reference)?.settled().await;
        let id = &container.record.id;
        container.state.decide(Command::Inspect).map_err(|why| {
            let text = match why {
                Refusal::Restarting => {
                    format!("Container {id} is restarting, wait until the container is running")
                }
                _ => format!("container {id} is not running"),
            };
            Error::new(Kind::Conflict, text)
        })?;
        let (engine, record) = (self.clone(), Arc::clone(&container.record));
        let listed = tokio::task::spawn_blocking(move || {
            let pids = cgroup::processes(&engine.cgroup_path(&record));
            parse(&ps(&args, &pids)?, &pids)
        });
        let table = listed.await.map_err(Error::lost)??;
        self.publish(&container, "top", Attributes::new());
        Ok(table)
    }
}

/// A column of another name that claims to be the pid would show other processes.
fn check_args(args: &str) -> Result<()> {
    let mut words = args.split_ascii_whitespace().skip(1);
    match words.find(|word| {
        word.split_once('=').is_some_and(|(key, head)| key != "pid" && head.starts_with("PID"))
    }) {
        Some(word) => {
            Err(Error::new(Kind::Internal, format!("specifying {word:?} is not allowed")))
        }
        None => Ok(()),
    }
}

fn ps(args: &str, pids: &[u32]) -> Result<String> {
    let args: Vec<&str> = args.split(' ').collect();
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let failed = |why: String| Error::new(Kind::Internal, format!("ps: {why}"));
    let run = |more: Option<String>| {
        let output = process::Command::new("ps").args(&args).args(more).output();
        output.map_err(|error| failed(error.to_string()))
    };
    let mut output = run(Some(format!("-q{}", list.join(","))))?;
    if !output.status.success() {
        // Some options cannot be used together with -q.
        output = run(None)?;
    }
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text.lines().next().unwrap_or_default();
        return Err(failed(if why.is_empty() {
            output.status.to_string()
        } else {
            why.to_owned()
        }));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes the rows of `pids` out of what `ps` printed, with the thread lines (`-`) that follow them.
fn parse(output: &str, pids: &[u32]) -> Result<Table> {
    let mut lines = output.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let failed = |text: String| Error::new(Kind::Internal, text);
    let pid_column = titles.iter().position(|title| title == "PID");
    let pid_column =
        pid_column.ok_or_else(|| failed("Couldn't find PID field in ps output".into()))?;
    let mut processes = Vec::new();
    let mut is_ours = false;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.get(pid_column) {
            None => continue,
            Some(&"-") => {}
            Some(text) => {
                let pid: u32 =
                    text.parse().map_err(|_| failed(format!("Unexpected pid '{text}'")))?;
                is_ours = pids.contains(&pid);
            }
        }
        if is_ours && fields.len() >= titles.len() {
            processes.push(row(&fields, titles.len()));
        }
    }
    Ok(Table { titles, processes })
}

/// The last column is the command, with blanks in it.
fn row(fields: &[&str], columns: usize) -> Vec<String> {
    let (head, command) = fields.split_at(columns - 1);
    head.iter().map(|field| (*field).to_owned()).chain([command.join(" ")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_processes_are_left_out() {
        let output =
            "UID  PID CMD\nroot 7   sh -c  x\nroot -   thread\nroot 8   other\nroot -   its\n";
        let table = parse(output, &[7]).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "CMD"]);
        assert_eq!(table.processes, [["root", "7", "sh -c x"], ["root", "-", "thread"]]);
    }

    #[test]
    fn the_pid_column_is_not_to_be_forged() {
        assert!(check_args("-eo pid,uid=PID").is_err() || check_args("-eo uid=PID").is_err());
        assert!(check_args("-ef").is_ok() && check_args("-o pid=PID").is_ok());
        assert!(parse("UID CMD\n", &[7]).is_err());
    }
}
