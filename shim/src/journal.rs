//! Writes `exit.json` and the journal into the state directory, and feeds those who watch the journal.
//!
//! The directory is on a tmpfs: what is there is gone after a reboot, and so is the container. Hence no syncing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use cleat_proto::{
    exit::{self, Exit},
    journal::{self, Entry, What},
};
use tokio::sync::mpsc;

/// It lies in memory. Beyond this the older half is dropped, but for what says where the container stands ([`standing`]).
const LIMIT_BYTES: u64 = 128 << 10;

/// How many probes' results the API shows.
const SHOWN_PROBES: usize = 5;

/// Who watches gets each entry as its line.
pub type Watcher = mpsc::UnboundedSender<Vec<u8>>;

/// The open journal.
pub struct Journal {
    directory: PathBuf,
    file: File,
    len: u64,
    next: u64,
    watchers: Vec<Watcher>,
}

/// Returns nanoseconds since the epoch.
pub fn nanos(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Journal {
    /// Opens the one in `directory` and goes on counting where it ends.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(journal::FILE_NAME);
        let text = fs::read(&path).unwrap_or_default();
        let next = entries(&text).last().map_or(1, |(seq, _)| seq + 1);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self {
            directory: directory.to_owned(),
            file,
            len: text.len() as u64,
            next,
            watchers: Vec::new(),
        })
    }

    /// Adds an entry. One that cannot be written still reaches those who watch.
    pub fn append(&mut self, what: What) {
        let entry = Entry { seq: self.next, at_nanos: nanos(SystemTime::now()), what };
        self.next += 1;
        let Ok(mut line) = serde_json::to_vec(&entry) else { return };
        line.push(b'\n');
        if self.file.write_all(&line).is_ok() {
            self.len += line.len() as u64;
        }
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
        if self.len > LIMIT_BYTES {
            // It stays long if that fails.
            let _ = self.shorten();
        }
    }

    /// Sends the entries above `after` to `watcher`, and then those that come.
    pub fn watch(&mut self, after: u64, watcher: Watcher) {
        let text = fs::read(self.directory.join(journal::FILE_NAME)).unwrap_or_default();
        for (_, line) in entries(&text).filter(|&(seq, _)| seq > after) {
            // It has hung up again; the next entry finds out.
            let _ = watcher.send(line.to_vec());
        }
        self.watchers.push(watcher);
    }

    /// Writes down how the container ended; from then on a reader sees all of it or none.
    pub fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let temporary = self.directory.join(format!("{}.tmp", exit::FILE_NAME));
        fs::write(&temporary, serde_json::to_vec(exit)?)?;
        fs::rename(temporary, self.directory.join(exit::FILE_NAME))
    }

    /// Removes both files; the daemon has committed what they say.
    pub fn remove(self) {
        for name in [exit::FILE_NAME, journal::FILE_NAME] {
            // The daemon removes the directory anyway.
            let _ = fs::remove_file(self.directory.join(name));
        }
    }

    fn shorten(&mut self) -> io::Result<()> {
        let path = self.directory.join(journal::FILE_NAME);
        let text = fs::read(&path)?;
        let half = text.len() / 2;
        let from = text[half..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(text.len(), |at| half + at + 1);
        let mut kept = standing(&text[..from]);
        kept.extend_from_slice(&text[from..]);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, &kept)?;
        self.file = OpenOptions::new().append(true).open(&temporary)?;
        self.len = kept.len() as u64;
        fs::rename(temporary, path)
    }
}

/// Returns those of the older lines without which a daemon would not know where the container stands: the last start, what
/// came after it (a pause, a restart to come), and the last probes' results.
fn standing(text: &[u8]) -> Vec<u8> {
    let parsed = |line: &[u8]| serde_json::from_slice::<Entry>(line).ok();
    let entries: Vec<(What, &[u8])> = text
        .split_inclusive(|&byte| byte == b'\n')
        .filter_map(|line| Some((parsed(line)?.what, line)))
        .collect();
    let is_start = |what: &What| matches!(what, What::Started { .. });
    let is_turn = |what: &What| {
        matches!(what, What::Paused | What::Resumed | What::Restarting { .. } | What::Oom)
    };
    let last = |is_it: &dyn Fn(&What) -> bool| entries.iter().rposition(|(what, _)| is_it(what));
    let (start, turn) = (last(&is_start), last(&is_turn));
    let probes = entries.iter().enumerate().rev();
    let probes = probes.filter(|(_, (what, _))| matches!(what, What::Probed { .. }));
    let mut kept: Vec<usize> = probes.map(|(index, _)| index).take(SHOWN_PROBES).collect();
    kept.extend(start);
    kept.extend(turn.filter(|&turn| start.is_none_or(|start| turn > start)));
    kept.sort_unstable();
    kept.into_iter().flat_map(|index| entries[index].1).copied().collect()
}

/// Returns the numbers and lines of what is whole in `text`.
fn entries(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    text.split_inclusive(|&byte| byte == b'\n').filter_map(|line| {
        let entry: Entry = serde_json::from_slice(line).ok()?;
        Some((entry.seq, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(receiver: &mut mpsc::UnboundedReceiver<Vec<u8>>) -> Vec<u64> {
        let mut all = Vec::new();
        while let Ok(line) = receiver.try_recv() {
            all.extend(entries(&line).map(|(seq, _)| seq));
        }
        all
    }

    #[test]
    fn a_watcher_gets_what_it_missed_and_what_comes() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        for _ in 0..3 {
            journal.append(What::Paused);
        }
        let (sender, mut receiver) = mpsc::unbounded_channel();
        journal.watch(1, sender);
        journal.append(What::Resumed);
        assert_eq!(seqs(&mut receiver), [2, 3, 4]);
    }

    #[test]
    fn counting_goes_on_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        Journal::open(directory.path()).unwrap().append(What::Oom);
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.append(What::Oom);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        journal.watch(0, sender);
        assert_eq!(seqs(&mut receiver), [1, 2]);
    }

    #[test]
    fn the_journal_stays_short() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        for _ in 0..6_000 {
            journal.append(What::ExecExited { exec_id: "e".repeat(64), status: 0 });
        }
        let text = fs::read(directory.path().join(journal::FILE_NAME)).unwrap();
        assert!(text.len() as u64 <= LIMIT_BYTES);
        let kept: Vec<_> = entries(&text).map(|(seq, _)| seq).collect();
        assert_eq!(kept.last(), Some(&6_000));
        assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }

    #[test]
    fn what_says_where_the_container_stands_is_never_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.append(What::Started { pid: 7, restart_count: 0 });
        journal.append(What::Started { pid: 8, restart_count: 1 });
        for exit_code in 0..7 {
            journal.append(What::Probed {
                started_at_nanos: 0,
                exit_code,
                output: String::new(),
                health: cleat_proto::journal::Health::Healthy,
                failing_streak: 0,
            });
        }
        journal.append(What::Paused);
        for _ in 0..6_000 {
            journal.append(What::ExecExited { exec_id: "e".repeat(64), status: 0 });
        }
        let text = fs::read(directory.path().join(journal::FILE_NAME)).unwrap();
        let kept: Vec<_> = entries(&text).map(|(seq, _)| seq).take(8).collect();
        assert_eq!(kept[..7], [2, 5, 6, 7, 8, 9, 10]);
        assert!(kept[7] > 11);
    }
}
