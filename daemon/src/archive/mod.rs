//! Tar in and out of a tree, on descriptors: one applier for layers, `docker cp` and import; one packer for export and diff.
//!
//! The archive's author is not trusted, and neither is whoever changes the tree meanwhile: every step is taken from a
//! descriptor, below a root, with no link followed that the tree itself does not resolve. Bounds are in [`Limits`]; an
//! error names the entry. The format (headers, numbers, checksums) is crate `tar`'s and POSIX pax, "pax Interchange
//! Format"; what a layer's entries mean is OCI image-spec, layer.md.

pub mod apply;
pub mod chunks;
pub mod compression;
pub mod gzip;
pub mod pack;
pub mod reader;
pub mod recipe;
pub mod view;

use std::io;

use cleat_proto::kind::Kind;

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// These bytes are no tar.
    #[error("archive/tar: invalid tar header")]
    Header,
    /// The archive ends in the middle.
    #[error("unexpected EOF")]
    Truncated,
    /// The compressed stream is damaged.
    #[error("cannot decompress the archive")]
    Compression(#[source] io::Error),
    /// One entry cannot be what it says.
    #[error("invalid archive entry {name:?}: {reason}")]
    Entry {
        /// Which.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// `docker cp` would replace a directory by something else, or the other way round. Docker's words.
    #[error("{0}")]
    Overwrite(String),
    /// A volume or the root filesystem is read-only there.
    #[error("cannot write {name:?}: read-only")]
    ReadOnly {
        /// Which entry.
        name: String,
    },
    /// The archive has more than is taken.
    #[error("the archive has too many {0}")]
    TooMany(&'static str),
    /// It unpacks to more than is taken: a bomb.
    #[error("the archive unpacks to more than the {0} bytes that its size permits")]
    Bomb(u64),
    /// The disk has too little left for it.
    #[error("no space left on device: {0} bytes of it are kept free")]
    Full(u64),
    /// The tree did not take an entry.
    #[error("cannot {action} {name:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// For which entry.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The sender went away, or what it sends cannot be read.
    #[error("cannot read the archive")]
    Input(#[source] io::Error),
    /// What is packed does not get out.
    #[error("cannot write the archive")]
    Output(#[source] io::Error),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            // Docker calls what is no archive a failure of its own.
            Self::Header | Self::Truncated | Self::Compression(_) | Self::Full(_) => Kind::Internal,
            Self::Entry { .. } | Self::Overwrite(_) | Self::Bomb(_) | Self::TooMany(_) => {
                Kind::InvalidArgument
            }
            Self::ReadOnly { .. } => Kind::Forbidden,
            Self::Io { source, .. } => match source.kind() {
                // What an archive asks of a tree that cannot be: a file as a parent, a name that is too long.
                io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::NotFound => Kind::InvalidArgument,
                io::ErrorKind::ReadOnlyFilesystem => Kind::Forbidden,
                _ if source.raw_os_error() == Some(libc::ELOOP) => Kind::InvalidArgument,
                _ => Kind::Internal,
            },
            Self::Input(_) | Self::Output(_) => Kind::Internal,
        }
    }

    /// Reads an error of a source back: a decompressor wraps ours.
    pub(crate) fn from_input(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Truncated,
            Err(error) => Self::Input(error),
        }
    }

    fn entry(name: &[u8], reason: &'static str) -> Self {
        Self::Entry { name: text(name), reason }
    }

    fn io(action: &'static str, name: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let name = text(name);
        move |source| Self::Io { action, name, source }
    }

    fn errno(action: &'static str, name: &[u8]) -> impl FnOnce(nix::errno::Errno) -> Self {
        let name = text(name);
        move |errno| Self::Io { action, name, source: errno.into() }
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned()
}

/// The most that an archive may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of one extended header (names, attributes).
    pub extended: u64,
    /// Pieces of one sparse file.
    pub sparse: usize,
}

impl Limits {
    /// What every archive gets: more than any image has, less than hurts.
    pub const DEFAULT: Self = Self { entries: 10_000_000, extended: 1 << 20, sparse: 64 << 10 };
}

/// Splits a path into its names, without what means nothing, `..` resolved in the text and never above the root.
pub(crate) fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
}

#[cfg(test)]
mod tests;
