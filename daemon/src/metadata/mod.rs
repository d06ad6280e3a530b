//! The one transactional database, `ROOT/meta.redb`: everything the user asked for.
//!
//! Tables map a text key to a value kept as JSON; the module that owns a kind of state owns its [`Table`]. Writes go
//! through one thread: whatever waits when it is free goes into one commit (group commit), and a write's future
//! resolves when its commit is on disk. Reads see the last commit and never wait for a writer.
//!
//! A commit that fails is not simply undone: its last write may have reached the disk before the error. So the database is
//! opened anew, which settles it (each commit has a number), and what is not there is written once more. Where the disk is full,
//! a reserve is given up first, but only for what does not make the records grow: removing things must be possible then.

mod reserve;

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc},
    thread,
};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use cleat_proto::kind::Kind;

/// The layout's version; a database of a higher one is refused.
const SCHEMA_VERSION: u64 = 1;
const SCHEMA: Table<u64> = Table::new("schema");
const SCHEMA_KEY: &str = "version";
/// The number of the last commit.
const COMMIT_KEY: &str = "commit";

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon has it, or it cannot be read.
    #[error("cannot open the database {path}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        source: redb::DatabaseError,
    },
    /// A newer release wrote it.
    #[error(
        "the database has schema version {found}, this release knows {SCHEMA_VERSION}: a downgrade is not possible"
    )]
    Downgrade {
        /// What it has.
        found: u64,
    },
    /// The store failed (disk full, I/O error).
    #[error("the database failed: {0}")]
    Store(#[from] redb::Error),
    /// A value is not what its table holds.
    #[error("the record {table}/{key} is damaged")]
    Damaged {
        /// In which table.
        table: &'static str,
        /// Which.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The store failed, and does not open any more to say how far it came.
    #[error(
        "the database failed, and only a restart will tell whether the change is recorded: {0}"
    )]
    Unsettled(redb::Error),
    /// The writer thread is gone: the daemon is shutting down.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Closed => Kind::Unavailable,
            Self::Open { .. }
            | Self::Downgrade { .. }
            | Self::Store(_)
            | Self::Unsettled(_)
            | Self::Damaged { .. } => Kind::Internal,
        }
    }

    /// The same error for one more of those that shared a commit.
    fn again(&self) -> Self {
        let io = |error: &dyn std::fmt::Display| {
            redb::Error::Io(std::io::Error::other(error.to_string()))
        };
        match self {
            Self::Unsettled(error) => Self::Unsettled(io(error)),
            Self::Store(error) => Self::Store(io(error)),
            other => Self::Store(io(other)),
        }
    }
}

/// A table of `V` by text key.
pub struct Table<V> {
    name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Table<V> {}

impl<V: Serialize + DeserializeOwned> Table<V> {
    /// Names a table; it is made at its first write.
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    fn definition(&self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name)
    }

    fn decode(&self, key: &str, bytes: &[u8]) -> Result<V, Error> {
        serde_json::from_slice(bytes).map_err(|source| Error::Damaged {
            table: self.name,
            key: key.to_owned(),
            source,
        })
    }
}

/// A key and its value, or why that cannot be read.
pub type Row<V> = (String, Result<V, Error>);

/// A write in progress. What it changes reaches the commit only if all of it succeeds.
#[derive(Default)]
pub struct Transaction {
    pending: Vec<Change>,
}

/// Table, key, and the new value; `None` deletes. Later ones win.
type Change = (&'static str, String, Option<Vec<u8>>);

impl Transaction {
    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the value has no JSON form.
    pub fn put<V: Serialize + DeserializeOwned>(
        &mut self,
        table: Table<V>,
        key: &str,
        value: &V,
    ) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).map_err(|source| Error::Damaged {
            table: table.name,
            key: key.to_owned(),
            source,
        })?;
        self.pending.push((table.name, key.to_owned(), Some(bytes)));
        Ok(())
    }

    /// Removes a key; one that is not there is fine.
    pub fn delete<V: Serialize + DeserializeOwned>(&mut self, table: Table<V>, key: &str) {
        self.pending.push((table.name, key.to_owned(), None));
    }
}

type Job = Box<dyn FnOnce() -> (Vec<Change>, Reply) + Send>;
/// Tells the waiting future how the commit went; `Some` is the error of the commit itself.
type Reply = Box<dyn FnOnce(Option<Error>) + Send>;

/// The open database. Clones share it; the last one to go closes it, and with that gives up its lock.
#[derive(Clone)]
pub struct Database {
    // Before the writer: the writer's end must find no other handle.
    store: Arc<Store>,
    writer: Arc<Writer>,
}

/// The open file.
struct Store {
    path: PathBuf,
    /// `None` after a failure, until it opens again.
    inner: RwLock<Option<redb::Database>>,
}

/// The thread that commits. Its end waits for what it was given.
struct Writer {
    /// Taken to end it.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    fn start(store: Arc<Store>) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name("metadata".into())
            .stack_size(256 << 10)
            .spawn(move || write_loop(&store, &queue))
            .expect("a thread can be started while the daemon starts");
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(Error::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // A panic of its has been reported already.
            let _ = thread.join();
        }
    }
}

impl Database {
    /// Opens or makes the database and takes its lock.
    ///
    /// # Errors
    /// [`Error::Open`] if it cannot be had, [`Error::Downgrade`] if a newer release wrote it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let inner = create(path)
            .map_err(|source| Error::Open { path: path.display().to_string(), source })?;
        let store = Arc::new(Store { path: path.to_owned(), inner: RwLock::new(Some(inner)) });
        let writer = Arc::new(Writer::start(Arc::clone(&store)));
        let database = Self { store, writer };
        match database.get(SCHEMA, SCHEMA_KEY)? {
            Some(SCHEMA_VERSION) => {}
            Some(found) if found > SCHEMA_VERSION => return Err(Error::Downgrade { found }),
            _ => database.write_blocking(|tx| tx.put(SCHEMA, SCHEMA_KEY, &SCHEMA_VERSION))?,
        }
        Ok(database)
    }

    /// Runs `change` in the next commit and resolves when that is on disk. Several changes may share one commit; one that
    /// fails leaves no trace in it.
    ///
    /// # Errors
    /// Whatever `change` returns; [`Error::Store`] if the commit failed, and then nothing of it has happened.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    {
        self.submit(change)?.await.map_err(|_| Error::Closed)?
    }

    /// As [`Self::write`], for a thread that may block.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_blocking<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    {
        self.submit(change)?.blocking_recv().map_err(|_| Error::Closed)?
    }

    fn submit<T, E, F>(&self, change: F) -> Result<oneshot::Receiver<Result<T, E>>, Error>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            let mut tx = Transaction::default();
            let result = change(&mut tx);
            let pending = if result.is_ok() { tx.pending } else { Vec::new() };
            let reply = move |commit_error: Option<Error>| {
                let _ = done.send(match commit_error {
                    Some(error) if result.is_ok() => Err(error.into()),
                    _ => result,
                });
            };
            (pending, Box::new(reply) as Reply)
        });
        self.writer.submit(job)?;
        Ok(answer)
    }

    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Damaged`].
    pub fn get<V: Serialize + DeserializeOwned>(
        &self,
        table: Table<V>,
        key: &str,
    ) -> Result<Option<V>, Error> {
        let tx = self.store.begin_read()?;
        let open = match tx.open_table(table.definition()) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(redb::Error::from)?,
        };
        let found = open.get(key).map_err(redb::Error::from)?;
        found.map(|guard| table.decode(key, guard.value())).transpose()
    }

    /// Returns all of a table in key order. A damaged record comes as its error, so that one cannot hide the rest.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn list<V: Serialize + DeserializeOwned>(
        &self,
        table: Table<V>,
    ) -> Result<Vec<Row<V>>, Error> {
        let tx = self.store.begin_read()?;
        let open = match tx.open_table(table.definition()) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other.map_err(redb::Error::from)?,
        };
        let mut all = Vec::new();
        for entry in open.iter().map_err(redb::Error::from)? {
            let (key, value) = entry.map_err(redb::Error::from)?;
            let key = key.value().to_owned();
            let value = table.decode(&key, value.value());
            all.push((key, value));
        }
        Ok(all)
    }
}

impl Store {
    fn begin_read(&self) -> Result<redb::ReadTransaction, Error> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = inner.as_ref() {
            return Ok(database.begin_read().map_err(redb::Error::from)?);
        }
        drop(inner);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let database = match &mut *inner {
            Some(database) => database,
            closed => closed.insert(create(&self.path).map_err(redb::Error::from)?),
        };
        Ok(database.begin_read().map_err(redb::Error::from)?)
    }

    /// Commits changes under a number.
    fn commit(&self, number: u64, changes: &[Change]) -> Result<(), redb::Error> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let database = inner.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let tx = database.begin_write()?;
        for (name, key, value) in changes {
            put(&tx, name, key, value.as_deref())?;
        }
        let number = serde_json::to_vec(&number).map_err(std::io::Error::other)?;
        put(&tx, SCHEMA.name, COMMIT_KEY, Some(&number))?;
        Ok(tx.commit()?)
    }

    /// Opens the file anew after a failure. redb does nothing more with one that has failed.
    fn reopen(&self) -> Result<(), redb::Error> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        drop(inner.take());
        *inner = Some(create(&self.path)?);
        Ok(())
    }

    /// Returns the number of the last commit.
    fn last_commit(&self) -> Result<u64, Error> {
        let tx = self.begin_read()?;
        let open = match tx.open_table(SCHEMA.definition()) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
            other => other.map_err(redb::Error::from)?,
        };
        let found = open.get(COMMIT_KEY).map_err(redb::Error::from)?;
        let number = found.map(|guard| SCHEMA.decode(COMMIT_KEY, guard.value())).transpose()?;
        Ok(number.unwrap_or(0))
    }

    /// Commits changes after commit `last`; where that fails, settles what has become of them, and tries once more.
    fn commit_or_settle(&self, last: &mut Option<u64>, changes: &[Change]) -> Result<(), Error> {
        let number = match last.take() {
            Some(last) => last + 1,
            None => self.settle()? + 1,
        };
        let mut result = self.commit(number, changes);
        for is_last in [false, true] {
            let Err(error) = &result else { break };
            tracing::warn!(%error, "the database failed and is opened anew");
            let is_full = reserve::is_full(error);
            let found = self.settle()?;
            // What makes the database grow must not take what a removal will need.
            if is_full && self.growth(changes)? <= reserve::GROWTH_MAX {
                reserve::give_up(&self.path);
            }
            if found == number {
                result = Ok(());
            } else if is_last {
                *last = Some(found);
            } else {
                result = self.commit(number, changes);
            }
        }
        result?;
        *last = Some(number);
        Ok(())
    }

    /// Returns how many bytes more there will be after these changes.
    fn growth(&self, changes: &[Change]) -> Result<i64, Error> {
        let tx = self.begin_read()?;
        let length = |bytes: &[u8]| i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let mut growth = 0_i64;
        for (name, key, value) in changes {
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(name);
            let before = match tx.open_table(definition) {
                Err(redb::TableError::TableDoesNotExist(_)) => 0,
                other => {
                    let open = other.map_err(redb::Error::from)?;
                    let found = open.get(key.as_str()).map_err(redb::Error::from)?;
                    found.map_or(0, |guard| length(guard.value()))
                }
            };
            let after = value.as_deref().map_or(0, length);
            growth = growth.saturating_add(after).saturating_sub(before);
        }
        Ok(growth)
    }

    /// Opens the file anew and returns the number of the last commit in it.
    fn settle(&self) -> Result<u64, Error> {
        self.reopen().map_err(Error::Unsettled)?;
        self.last_commit().map_err(|error| match error {
            Error::Store(error) => Error::Unsettled(error),
            other => other,
        })
    }
}

fn put(
    tx: &redb::WriteTransaction,
    table: &str,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), redb::Error> {
    let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
    let mut open = tx.open_table(definition)?;
    match value {
        Some(bytes) => open.insert(key, bytes).map(drop)?,
        None => open.remove(key).map(drop)?,
    }
    Ok(())
}

fn create(path: &Path) -> Result<redb::Database, redb::DatabaseError> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(2 << 20);
    #[cfg(test)]
    if crate::disk::faults::are_counted(path) {
        let backend = crate::disk::faults::Backend::open(path).map_err(redb::StorageError::Io)?;
        return builder.create_with_backend(backend);
    }
    builder.create(path)
}

fn write_loop(store: &Store, queue: &mpsc::Receiver<Job>) {
    reserve::keep(&store.path);
    let mut last = store.last_commit().ok();
    while let Ok(first) = queue.recv() {
        let (mut changes, mut replies) = (Vec::new(), Vec::new());
        for job in std::iter::once(first).chain(queue.try_iter()) {
            let (pending, reply) = job();
            changes.extend(pending);
            replies.push(reply);
        }
        let failed = match changes.is_empty() {
            true => None,
            false => {
                crate::disk::commit();
                let failed = store.commit_or_settle(&mut last, &changes).err();
                crate::disk::commit();
                failed
            }
        };
        for reply in replies {
            reply(failed.as_ref().map(Error::again));
        }
        if failed.is_none() {
            reserve::keep(&store.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: Table<String> = Table::new("texts");

    fn open() -> (tempfile::TempDir, Database) {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("meta.redb")).unwrap();
        (dir, database)
    }

    #[test]
    fn a_change_that_fails_leaves_no_trace() {
        let (_dir, database) = open();
        let failed: Result<(), Error> = database.write_blocking(|tx| {
            tx.put(TEXTS, "a", &"half".to_owned())?;
            Err(Error::Closed)
        });
        assert!(failed.is_err());
        assert_eq!(database.get(TEXTS, "a").unwrap(), None);
    }

    #[test]
    fn what_was_acknowledged_is_there_after_reopening() {
        let (dir, database) = open();
        database.write_blocking(|tx| tx.put(TEXTS, "a", &"kept".to_owned())).unwrap();
        drop(database);
        let again = Database::open(&dir.path().join("meta.redb")).unwrap();
        assert_eq!(again.get(TEXTS, "a").unwrap().as_deref(), Some("kept"));
    }

    #[test]
    fn what_is_refused_is_not_there_and_what_is_taken_is_whatever_the_disk_does() {
        use crate::disk::faults::{Fault, arm};
        for fault in [Fault::Once, Fault::Full] {
            for at in 1..40 {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("meta.redb");
                drop(Database::open(&path).unwrap());
                let faults = arm(dir.path(), at, fault);
                let Ok(database) = Database::open(&path) else { continue };
                let taken: Vec<bool> = (0..3)
                    .map(|n| {
                        let key = n.to_string();
                        let write = move |tx: &mut Transaction| tx.put(TEXTS, &key, &"kept".into());
                        database.write_blocking::<_, Error, _>(write).is_ok()
                    })
                    .collect();
                faults.disarm();
                let there = |database: &Database| -> Vec<bool> {
                    let get = |n: u32| database.get(TEXTS, &n.to_string()).unwrap().is_some();
                    (0..3).map(get).collect()
                };
                assert_eq!(there(&database), taken, "{fault:?} at {at}");
                // One failure of the disk does not close the database for good.
                assert!(fault == Fault::Full || taken.iter().all(|taken| *taken), "at {at}");
                let more = |tx: &mut Transaction| tx.put(TEXTS, "more", &"more".into());
                database.write_blocking::<_, Error, _>(more).unwrap();
                drop(database);
                assert_eq!(there(&Database::open(&path).unwrap()), taken, "{fault:?} at {at}");
            }
        }
    }

    #[test]
    fn what_a_commit_adds_is_known_before_it() {
        let (_dir, database) = open();
        let texts = |length: usize| "x".repeat(length);
        let put = move |tx: &mut Transaction| tx.put(TEXTS, "a", &texts(98));
        database.write_blocking::<_, Error, _>(put).unwrap();
        let growth = |change: &dyn Fn(&mut Transaction) -> Result<(), Error>| {
            let mut tx = Transaction::default();
            change(&mut tx).unwrap();
            database.store.growth(&tx.pending).unwrap()
        };
        let none: Table<String> = Table::new("none");
        assert_eq!(growth(&|_| Ok(())), 0);
        assert_eq!(growth(&|tx| tx.put(TEXTS, "a", &"x".repeat(108))), 10);
        assert_eq!(growth(&|tx| tx.put(none, "b", &"x".repeat(8))), 10);
        let delete = |tx: &mut Transaction| {
            tx.delete(TEXTS, "a");
            tx.delete(TEXTS, "b");
            tx.delete(none, "c");
            Ok(())
        };
        assert_eq!(growth(&delete), -100);
    }

    #[test]
    fn only_one_opens_it() {
        let (dir, _database) = open();
        assert!(matches!(Database::open(&dir.path().join("meta.redb")), Err(Error::Open { .. })));
    }
}
