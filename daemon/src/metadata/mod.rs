//! The one transactional database, `ROOT/meta.redb`: everything the user asked for.
//!
//! Tables map a text key to a value kept as JSON; the module that owns a kind of state owns its [`Table`]. Writes go
//! through one thread: whatever waits when it is free goes into one commit (group commit), and a write's future
//! resolves when its commit is on disk. Reads see the last commit and never wait for a writer.

use std::{
    marker::PhantomData,
    path::Path,
    sync::{Arc, mpsc},
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
    /// The writer thread is gone: the daemon is shutting down.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Closed => Kind::Unavailable,
            Self::Open { .. } | Self::Downgrade { .. } | Self::Store(_) | Self::Damaged { .. } => {
                Kind::Internal
            }
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
pub struct Transaction<'t> {
    inner: &'t redb::WriteTransaction,
    /// Table, key, and the new value; `None` deletes. Later entries win.
    pending: Vec<(&'static str, String, Option<Vec<u8>>)>,
}

impl Transaction<'_> {
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

    fn apply(self) -> Result<(), Error> {
        for (name, key, value) in self.pending {
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(name);
            let mut open = self.inner.open_table(definition).map_err(redb::Error::from)?;
            match value {
                Some(bytes) => open.insert(key.as_str(), bytes.as_slice()).map(drop),
                None => open.remove(key.as_str()).map(drop),
            }
            .map_err(redb::Error::from)?;
        }
        Ok(())
    }
}

type Job = Box<dyn FnOnce(&redb::WriteTransaction) -> Reply + Send>;
/// Tells the waiting future how the commit went; `Some` is the error of the commit itself.
type Reply = Box<dyn FnOnce(Option<Error>) + Send>;

/// The open database. Clones share it; the last one to go closes it, and with that gives up its lock.
#[derive(Clone)]
pub struct Database {
    // Before the writer: the writer's end must find no other handle.
    inner: Arc<redb::Database>,
    writer: Arc<Writer>,
}

/// The thread that commits. Its end waits for what it was given.
struct Writer {
    /// Taken to end it.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    fn start(database: Arc<redb::Database>) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name("metadata".into())
            .stack_size(256 << 10)
            .spawn(move || write_loop(&database, &queue))
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
        let inner = redb::Builder::new()
            .set_cache_size(2 << 20)
            .create(path)
            .map_err(|source| Error::Open { path: path.display().to_string(), source })?;
        let inner = Arc::new(inner);
        let writer = Arc::new(Writer::start(Arc::clone(&inner)));
        let database = Self { inner, writer };
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
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
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
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit(change)?.blocking_recv().map_err(|_| Error::Closed)?
    }

    fn submit<T, E, F>(&self, change: F) -> Result<oneshot::Receiver<Result<T, E>>, Error>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |inner| {
            let mut tx = Transaction { inner, pending: Vec::new() };
            let result =
                change(&mut tx).and_then(|value| tx.apply().map(|()| value).map_err(E::from));
            Box::new(move |commit_error| {
                let _ = done.send(match commit_error {
                    None => result,
                    Some(error) => Err(error.into()),
                });
            })
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
        let tx = self.inner.begin_read().map_err(redb::Error::from)?;
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
        let tx = self.inner.begin_read().map_err(redb::Error::from)?;
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

fn write_loop(database: &redb::Database, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let jobs = std::iter::once(first).chain(queue.try_iter());
        commit(database, jobs);
    }
}

fn commit(database: &redb::Database, jobs: impl Iterator<Item = Job>) {
    let tx = match database.begin_write() {
        Ok(tx) => tx,
        // Dropping the jobs tells their futures that the database is closed.
        Err(_) => return,
    };
    let replies: Vec<Reply> = jobs.map(|job| job(&tx)).collect();
    match tx.commit() {
        Ok(()) => replies.into_iter().for_each(|reply| reply(None)),
        Err(error) => {
            let text = error.to_string();
            for reply in replies {
                let error = redb::Error::Io(std::io::Error::other(text.clone()));
                reply(Some(Error::Store(error)));
            }
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
    fn only_one_opens_it() {
        let (dir, _database) = open();
        assert!(matches!(Database::open(&dir.path().join("meta.redb")), Err(Error::Open { .. })));
    }
}
