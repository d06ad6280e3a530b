//! Images: references, manifests and configs over content and snapshots.
//!
//! An image is a configuration (a blob; its digest is the image's id) and a stack of layers (snapshots). Records and
//! references are in the database, and all of it is in memory too, so that reading costs nothing. Every change goes
//! through one lock: decide, commit, change the memory. What no image, container or lease refers to any more is removed
//! in the same step (see [`crate::gc`]).

mod blobs;
mod bound;
mod changes;
mod check;
mod collect;
mod commit;
pub mod config;
mod import;
pub mod index;
mod load;
pub mod pull;
pub mod push;
pub mod reference;
mod remove;
mod repair;
mod save;
mod store;
mod unpack;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, RwLock},
};

use cleat_proto::{
    digest::{ChainId, DiffId, Digest, ImageId},
    docker::container::Config,
    kind::Kind,
    platform::Platform,
};

use crate::{
    archive, content, content::Content, metadata, metadata::Database, registry, snapshot,
    snapshot::Snapshots,
};

pub use check::{Checked, Problem};
pub use collect::Collected;
pub use commit::Commit;
pub use config::{History, ImageConfig};
pub use import::Import;
pub use index::{Family, Index, Member};
pub use load::Loaded;
pub use pull::{Pull, PullStep, Pulled};
pub use push::{LayerPush, PushStep};
pub use reference::{ImageRef, Reference};
pub use remove::{RemoveOptions, Removed};

/// What can go wrong with an image. Texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name or id.
    #[error("No such image: {0}")]
    NotFound(String),
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// There is one of that name, for another platform. dockerd's words.
    #[error(
        "image with reference {name} was found but its platform ({has}) does not match the specified platform ({wanted})"
    )]
    OtherPlatform {
        /// As it was typed.
        name: String,
        /// What it is for.
        has: String,
        /// What it should be for.
        wanted: String,
    },
    /// There is an index of that name, without that platform. dockerd's words, where it has the image store of containerd.
    #[error(
        "image with reference {name} was found but does not provide the specified platform ({wanted})"
    )]
    NoPlatform {
        /// As it was typed.
        name: String,
        /// What it should be for.
        wanted: String,
    },
    /// None of the images to be saved is for that platform. dockerd's words.
    #[error("no suitable export target found for platform {0}")]
    NoTarget(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The image is in use, or has children.
    #[error("{0}")]
    Conflict(String),
    /// A configuration is no JSON of that shape.
    #[error("invalid image configuration")]
    Config(#[source] serde_json::Error),
    /// A configuration says what cannot be.
    #[error("invalid image configuration: {0}")]
    ConfigShape(&'static str),
    /// A layer's files are not what they were.
    #[error("layer {0} is damaged: its files do not make its tar any more")]
    Damaged(DiffId),
    /// What came of a layer is not what its name says. dockerd's words.
    #[error("filesystem layer verification failed for digest {0}")]
    LayerDigest(Digest),
    /// A layer is shorter or longer than its manifest says.
    #[error("layer {digest} has {found} bytes instead of {wanted}")]
    LayerSize {
        /// Which.
        digest: Digest,
        /// The manifest's word.
        wanted: u64,
        /// The truth.
        found: u64,
    },
    /// A registry does not have or give what was asked for.
    #[error("{message}")]
    Remote {
        /// What the caller can do about it.
        kind: Kind,
        /// Docker's words.
        message: String,
        /// The registry's.
        source: Box<registry::Error>,
    },
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A piece of work of our own did not come to its end.
    #[error("a task of the daemon failed: {0}")]
    Lost(String),
    /// A tar.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A blob.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// A layer.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A record.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_)
            | Self::OtherPlatform { .. }
            | Self::NoPlatform { .. }
            | Self::NoTarget(_) => Kind::NotFound,
            Self::Reference(_) | Self::Invalid(_) | Self::Config(_) | Self::ConfigShape(_) => {
                Kind::InvalidArgument
            }
            Self::Conflict(_) => Kind::Conflict,
            Self::Damaged(_) | Self::LayerDigest(_) | Self::LayerSize { .. } | Self::Lost(_) => {
                Kind::Internal
            }
            Self::Remote { kind, .. } => *kind,
            Self::Registry(error) => match error {
                registry::Error::Manifest(_) | registry::Error::Platform(_) => error.kind(),
                // As dockerd has it: what a registry says is no status of ours.
                _ => Kind::Internal,
            },
            Self::Archive(error) => error.kind(),
            Self::Content(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Metadata(error) => error.kind(),
        }
    }
}

/// One image, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// The defaults for its containers: the configuration's `config`.
    pub config: Config,
    /// `amd64` …
    pub architecture: String,
    /// `v8` …; often empty.
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Empty on Linux.
    pub os_version: String,
    /// RFC 3339, as its maker wrote it.
    pub created: Option<String>,
    /// Who made it.
    pub author: String,
    /// What was said of it.
    pub comment: String,
    /// Which Docker made it.
    pub docker_version: String,
    /// How it came about.
    pub history: Vec<History>,
    /// From the bottom up.
    pub layers: Vec<Layer>,
    /// What all its layers take, in bytes.
    pub size: u64,
    /// The image that it was committed on.
    pub parent: Option<ImageId>,
    /// When it last got a name, in nanoseconds since the epoch; 0 is never.
    pub tagged_at_nanos: i64,
    /// The names that lead to it, sorted.
    pub references: Vec<Reference>,
    /// Names that stand for an index which has it, and lead to the image of another platform.
    pub held: Vec<Reference>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Names its tar.
    pub diff_id: DiffId,
    /// Names it with all below it.
    pub chain_id: ChainId,
    /// What its files take, in bytes.
    pub size: u64,
}

impl Image {
    /// Returns the layer that a container's snapshot stands on; `None` for an image without layers.
    pub fn top_layer(&self) -> Option<&ChainId> {
        self.layers.last().map(|layer| &layer.chain_id)
    }

    /// Returns what it is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            ..Platform::default()
        }
    }

    /// Returns whether it has no name of its own, but is the other platform of something that has.
    pub fn is_only_held(&self) -> bool {
        self.references.is_empty() && !self.held.is_empty()
    }

    /// Returns its names with a tag, as users write them.
    pub fn tags(&self) -> Vec<String> {
        let tagged = self.names().filter(|reference| reference.tag.is_some());
        tagged.map(Reference::familiar).collect()
    }

    /// Returns its names with a digest, as users write them.
    pub fn digests(&self) -> Vec<String> {
        let by_digest = self.names().filter(|reference| reference.digest.is_some());
        by_digest.map(Reference::familiar).collect()
    }

    fn names(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().chain(&self.held)
    }

    /// Returns whether it has no name with a tag.
    pub fn is_dangling(&self) -> bool {
        self.names().all(|reference| reference.tag.is_none())
    }
}

/// Returns what this machine can run, as far up as it can: `linux/amd64/v3`.
///
/// Source: the x86-64 psABI, micro-architecture levels; containerd's `platforms`.
pub fn machine() -> Platform {
    Platform { variant: machine_level().to_owned(), ..Platform::host() }
}

#[cfg(target_arch = "x86_64")]
fn machine_level() -> &'static str {
    macro_rules! all {
        ($($feature:tt)*) => { [$(std::arch::is_x86_feature_detected!($feature)),*].iter().all(|has| *has) };
    }
    let v2 = all!("cmpxchg16b" "popcnt" "sse3" "sse4.1" "sse4.2" "ssse3");
    let v3 = v2 && all!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");
    let v4 = v3 && all!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    match (v2, v3, v4) {
        (.., true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

#[cfg(target_arch = "aarch64")]
fn machine_level() -> &'static str {
    "v8"
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn machine_level() -> &'static str {
    ""
}

/// A container's use of an image, as the engine's records say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The container's id.
    pub container: String,
    /// `sha256:…`.
    pub image: String,
    /// The layer that its snapshot stands on.
    pub top_layer: Option<ChainId>,
    /// It runs (or is paused, or restarts).
    pub running: bool,
}

/// All images. Clones share them.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    database: Database,
    content: Content,
    snapshots: Snapshots,
    catalog: RwLock<Catalog>,
    transfers: pull::Transfers,
    /// Held from a decision to the change of the catalogue: commits follow one another.
    turn: Mutex<()>,
}

/// What the database has, in memory.
#[derive(Default)]
struct Catalog {
    images: HashMap<ImageId, Arc<Image>>,
    /// By [`Reference::key`].
    references: BTreeMap<String, (Reference, ImageId)>,
    indexes: HashMap<Digest, Arc<Index>>,
    /// Which references stand for an index.
    indexed: BTreeMap<String, Digest>,
    /// Manifests of indexes that are here.
    manifests: HashMap<Digest, index::Stored>,
    /// Images that cannot be shown, by their records' keys, and their layers: one that comes again finds them.
    damaged: BTreeMap<String, Vec<ChainId>>,
}

#[cfg(test)]
mod tests;
