//! Volumes of the local driver: `ROOT/volumes/<name>/_data`, and their records in the database.
//!
//! Who uses a volume is said by the containers' records; this module keeps a map derived from them, so that a removal
//! and a new user cannot cross. Nothing of a volume is ever mounted on the host: what a volume's options ask for
//! (`type=nfs` …) becomes a mount of the container's.

pub mod copy_up;
mod options;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use cleat_proto::{id::ContainerId, kind::Kind};
use serde::{Deserialize, Serialize};

use crate::metadata::{self, Database, Table};

/// The label that tells an anonymous volume from a named one.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume that somebody wants: made if there is none of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// Empty: 64 hex digits are chosen, and the volume is anonymous.
    pub name: String,
    /// Empty: `local`.
    pub driver: String,
    /// `type`, `device`, `o`.
    pub options: Option<BTreeMap<String, String>>,
    /// The user's.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A volume, as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// `local`.
    pub driver: String,
    /// Nanoseconds since the epoch.
    pub created_at_nanos: i64,
    /// `None` is shown as `null`.
    pub labels: Option<BTreeMap<String, String>>,
    /// `None` is shown as `null`.
    pub options: Option<BTreeMap<String, String>>,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS_LABEL))
    }
}

/// What is to be mounted where a container wants a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory of the host.
    Directory(PathBuf),
    /// A filesystem to mount in the container (`type`, `device`, `o` of the volume).
    Filesystem {
        /// `tmpfs`, `nfs`, `ext4` …
        kind: String,
        /// As mount(2)'s source.
        device: String,
        /// Split at commas.
        options: Vec<String>,
    },
}

/// What can go wrong with a volume. Texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such volume.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// A bad name, driver or option.
    #[error("{0}")]
    Invalid(String),
    /// No such driver.
    #[error("{0}")]
    NoSuchDriver(String),
    /// In use, or there with another driver.
    #[error("{0}")]
    Conflict(String),
    /// Docker knows it, we do not yet.
    #[error("{0}")]
    NotImplemented(String),
    /// A file operation failed.
    #[error("{what}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] metadata::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchVolume(_) | Self::NoSuchDriver(_) => Kind::NotFound,
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::Conflict(_) => Kind::Conflict,
            Self::NotImplemented(_) => Kind::NotImplemented,
            Self::Failed { .. } => Kind::Internal,
            Self::Database(error) => error.kind(),
        }
    }
}

/// The volumes of one daemon. Clones share it.
#[derive(Clone)]
pub struct Volumes(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    database: Database,
    state: Mutex<State>,
    /// Who makes or removes a volume has its name's turn until the commit: the second of two finds what the first did.
    turns: [tokio::sync::Mutex<()>; 16],
    filling: Mutex<()>,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    users: HashMap<String, BTreeSet<ContainerId>>,
}

const VOLUMES: Table<Volume> = Table::new("volumes");
const LOCAL_DRIVER: &str = "local";
/// Where what is removed waits for its end. No volume's name begins with a dot.
const TRASH: &str = ".trash";

impl Volumes {
    /// Opens the directory, `ROOT/volumes`, and finishes removals that were cut short.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Database`].
    pub fn open(directory: &Path, database: Database) -> Result<Self, Error> {
        let directory = directory.to_owned();
        let trash = directory.join(TRASH);
        // As Docker has it: who knows a volume's name may pass, nobody may look around.
        make_directory(&directory, 0o701)?;
        make_directory(&trash, 0o700)?;
        let mut volumes = BTreeMap::new();
        for (name, volume) in database.list(VOLUMES)? {
            match volume {
                Ok(volume) => drop(volumes.insert(name, volume)),
                Err(error) => tracing::error!(%error, volume = name, "the volume is left out"),
            }
        }
        // The rename to the trash is the decision; the record may have outlived it.
        let removed: Vec<String> = volumes
            .values()
            .filter(|volume| trash.join(trash_name(volume)).exists())
            .map(|volume| volume.name.clone())
            .collect();
        for name in removed {
            volumes.remove(&name);
            database.write_blocking(move |tx| {
                tx.delete(VOLUMES, &name);
                Ok::<_, metadata::Error>(())
            })?;
        }
        sweep(&directory, &volumes);
        let state = Mutex::new(State { volumes, users: HashMap::new() });
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        let filling = Mutex::default();
        Ok(Self(Arc::new(Inner { directory, database, state, turns, filling })))
    }

    /// Learns at a start who uses what, from the containers' records.
    pub fn restore(&self, users: impl IntoIterator<Item = (ContainerId, Vec<String>)>) {
        let mut state = self.state();
        for (container, names) in users {
            for name in names {
                state.users.entry(name).or_default().insert(container.clone());
            }
        }
    }

    /// Makes a volume, or returns the one that has the name already. The flag says whether it is new.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoSuchDriver`], [`Error::Conflict`] for another driver's.
    pub async fn create(&self, new: New) -> Result<(Volume, bool), Error> {
        self.create_for(new, None).await
    }

    /// Makes the volumes that a new container wants and notes it as their user, until [`Self::release`]. On failure
    /// nothing is left: neither users nor volumes that were new. Returns which of them are new.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn acquire(
        &self,
        container: &ContainerId,
        wanted: Vec<New>,
    ) -> Result<Vec<Volume>, Error> {
        let mut new = Vec::new();
        for one in wanted {
            match self.create_for(one, Some(container)).await {
                Ok((volume, true)) => new.push(volume),
                Ok((_, false)) => {}
                Err(error) => {
                    self.release(container);
                    for volume in new {
                        if let Err(error) = self.remove(&volume.name, true).await {
                            tracing::warn!(%error, volume = volume.name, "cannot undo a volume");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(new)
    }

    /// The container is gone, or its create failed. Its volumes stay (see [`Self::remove`]).
    pub fn release(&self, container: &ContainerId) {
        self.state().users.retain(|_, users| {
            users.remove(container);
            !users.is_empty()
        });
    }

    /// Returns a volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`].
    pub fn get(&self, name: &str) -> Result<Volume, Error> {
        let found = self.state().volumes.get(name).cloned();
        found.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// Returns all volumes, by name, each with the containers that use it.
    pub fn list(&self) -> Vec<(Volume, Vec<ContainerId>)> {
        let state = self.state();
        let users = |name| state.users.get(name).into_iter().flatten().cloned().collect();
        state.volumes.values().map(|volume| (volume.clone(), users(&volume.name))).collect()
    }

    /// Removes a volume that nobody uses. Its bytes go in the background.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`] unless forced, [`Error::Conflict`] while it is in use.
    pub async fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let _turn = self.turn(name).await;
        let volume = match self.get(name) {
            Err(Error::NoSuchVolume(_)) if force => return Ok(()),
            other => other?,
        };
        let users: Vec<String> = {
            let state = self.state();
            state.users.get(name).into_iter().flatten().map(ToString::to_string).collect()
        };
        if !users.is_empty() {
            let users = users.join(", ");
            return Err(Error::Conflict(format!("remove {name}: volume is in use - [{users}]")));
        }
        let trash = self.0.directory.join(TRASH).join(trash_name(&volume));
        match fs::rename(self.0.directory.join(name), &trash) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(format!("remove {name}"))(error));
            }
            _ => {}
        }
        let key = name.to_owned();
        let committed = self
            .0
            .database
            .write(move |tx| {
                tx.delete(VOLUMES, &key);
                Ok::<_, metadata::Error>(())
            })
            .await;
        if let Err(error) = committed {
            // Nothing was said yet: put it back. If that fails too, the next start goes on with the removal.
            let _ = fs::rename(&trash, self.0.directory.join(name));
            return Err(error.into());
        }
        self.state().volumes.remove(name);
        in_background(move || delete(&trash));
        Ok(())
    }

    /// Returns where the volume's files are (or would be, for one with a filesystem of its own): `Mountpoint`.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.0.directory.join(name).join("_data")
    }

    /// Returns what a container has to mount to see the volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; [`Error::Failed`] if its directory was lost and cannot be made again.
    pub fn content(&self, name: &str) -> Result<Content, Error> {
        let volume = self.get(name)?;
        let options = options::parse(volume.options.as_ref())?;
        if options.is_none() {
            // The record is durable before the directory is: a power cut may have taken it.
            self.make(name)?;
        }
        Ok(options.unwrap_or_else(|| Content::Directory(self.mountpoint(name))))
    }

    /// Has one volume filled at a time: two new containers that share a new volume must not both do it. Blocks.
    pub fn filling(&self) -> MutexGuard<'_, ()> {
        self.0.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the path of a directory or file within a volume's directory. A link on the way is refused: what is in a volume
    /// is the containers' to change, and it must not lead them elsewhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is nothing, or a link.
    pub fn subpath(directory: &Path, subpath: &str) -> Result<PathBuf, Error> {
        use cleat_sys::openat2::{BENEATH, NO_MAGICLINKS, NO_SYMLINKS, openat2};
        let refused = |why: String| {
            Error::Invalid(format!("cannot access subpath {subpath:?} of the volume: {why}"))
        };
        let root = fs::File::open(directory).map_err(|error| refused(error.to_string()))?;
        let rules = BENEATH | NO_MAGICLINKS | NO_SYMLINKS;
        openat2(&root, Path::new(subpath), libc::O_PATH, 0, rules)
            .map_err(|errno| refused(errno.desc().to_owned()))?;
        Ok(directory.join(subpath))
    }

    /// Returns how many bytes the volume's files take. Blocks for as long as it takes to look at each.
    pub fn usage(&self, name: &str) -> u64 {
        usage::bytes(&self.mountpoint(name))
    }

    async fn create_for(
        &self,
        mut new: New,
        user: Option<&ContainerId>,
    ) -> Result<(Volume, bool), Error> {
        if new.name.is_empty() {
            new.name = random_name()?;
            new.labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let name = new.name.clone();
        let _turn = self.turn(&name).await;
        let (volume, is_new) = match self.get(&name) {
            Ok(volume) if new.driver.is_empty() || new.driver == volume.driver => (volume, false),
            Ok(_) => {
                let text = format!("create {name}: conflict: volume name must be unique");
                return Err(Error::Conflict(text));
            }
            Err(_) => (self.make_new(new).await?, true),
        };
        if let Some(container) = user {
            self.state().users.entry(name).or_default().insert(container.clone());
        }
        Ok((volume, is_new))
    }

    async fn make_new(&self, new: New) -> Result<Volume, Error> {
        let New { name, driver, options, labels } = new;
        if !driver.is_empty() && driver != LOCAL_DRIVER {
            return Err(Error::NoSuchDriver(format!(
                "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
            )));
        }
        check_name(&name)?;
        options::parse(options.as_ref()).map_err(|error| match error {
            Error::Invalid(why) => Error::Invalid(format!("create {name}: {why}")),
            Error::NotImplemented(why) => Error::NotImplemented(format!("create {name}: {why}")),
            other => other,
        })?;
        self.make(&name)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let volume = Volume {
            name: name.clone(),
            driver: LOCAL_DRIVER.to_owned(),
            created_at_nanos: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            labels,
            options,
        };
        let record = volume.clone();
        self.0.database.write(move |tx| tx.put(VOLUMES, &record.name, &record)).await?;
        self.state().volumes.insert(name, volume.clone());
        Ok(volume)
    }

    fn make(&self, name: &str) -> Result<(), Error> {
        make_directory(&self.0.directory.join(name), 0o701)?;
        make_directory(&self.mountpoint(name), 0o755)
    }

    async fn turn(&self, name: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let turns = &self.0.turns;
        turns[(hasher.finish() % turns.len() as u64) as usize].lock().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Docker's rule for the local driver: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn check_name(name: &str) -> Result<(), Error> {
    if name.len() == 1 {
        return Err(Error::Invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let is_valid = name.bytes().enumerate().all(|(place, byte)| {
        byte.is_ascii_alphanumeric() || (place > 0 && matches!(byte, b'_' | b'.' | b'-'))
    });
    // A file name has at most 255 bytes, and the trash adds a number.
    if !is_valid || name.len() > 230 {
        return Err(Error::Invalid(format!(
            "create {name}: {name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

/// Names one life of a volume: a later one of the same name has another time.
fn trash_name(volume: &Volume) -> String {
    format!("{}~{}", volume.name, volume.created_at_nanos)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(format!("cannot make {}", path.display()))(error)),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(failed(format!("cannot set the mode of {}", path.display())))
}

/// Empties the trash, and removes directories that were made for a record that never came. One with files in it stays:
/// they may be worth more than our tidiness.
fn sweep(directory: &Path, volumes: &BTreeMap<String, Volume>) {
    let trash = directory.join(TRASH);
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries(directory) {
        let name = entry.file_name();
        let known = name.to_str().is_some_and(|name| name == TRASH || volumes.contains_key(name));
        if !known && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path().join("_data"));
            if let Err(error) = fs::remove_dir(entry.path()) {
                tracing::warn!(%error, directory = ?entry.path(), "there are files in a directory that is no volume's");
            }
        }
    }
    let waiting: Vec<PathBuf> = entries(&trash).map(|entry| entry.path()).collect();
    if !waiting.is_empty() {
        in_background(move || waiting.iter().for_each(|path| delete(path)));
    }
}

fn in_background(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name("volume-trash".into()).spawn(work);
    if let Err(error) = thread {
        tracing::warn!(%error, "the trash is left to the next start");
    }
}

fn delete(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, ?path, "cannot delete a removed volume's files");
        }
        _ => {}
    }
}

fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        failed("no random numbers".to_owned())(io::Error::other(error.to_string()))
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn failed(what: String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Failed { what, source }
}

#[cfg(test)]
mod tests;
