//! Where layers' directories are made, before they are renamed to their place: on ext4 that decides which part of the disk a
//! directory and all below it go to.
//!
//! ext4 without a journal does not use an inode again for minutes, and looks at all of them in turn: where a large layer has
//! just been removed, the next one would take ten times as long to unpack. So layers take turns among a few cradles, each in
//! a part of its own (`chattr +T`; `find_group_orlov` in the kernel's `fs/ext4/ialloc.c`), and come back to one late.
//! Other filesystems have no need of it, and lose nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Error;

/// How many parts of the disk take turns.
const CRADLES: u64 = 64;

pub(super) struct Nursery {
    dir: PathBuf,
}

impl Nursery {
    /// Opens it; a cradle is made when it is first used.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        super::make_private_dir(dir)?;
        // Other filesystems have no such flag.
        let _ = fs::File::open(dir).map(cleat_sys::inode_flags::spread_subdirectories);
        Ok(Self { dir: dir.to_owned() })
    }

    /// Makes the directory of a layer.
    pub(super) fn make(&self, number: u64, place: &Path) -> Result<(), Error> {
        let cradle = self.dir.join((number % CRADLES).to_string());
        super::make_private_dir(&cradle)?;
        let made = cradle.join(number.to_string());
        // One that is there was left by a daemon that died between these lines, and is empty.
        super::make_private_dir(&made)?;
        match fs::rename(&made, place) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let _ = fs::remove_dir(&made);
                Err(Error::io("make", place)(error))
            }
            other => other.map_err(Error::io("make", place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_directory_is_in_its_place_and_its_cradle_empty() {
        let root = tempfile::tempdir().unwrap();
        let nursery = Nursery::open(&root.path().join("nursery")).unwrap();
        let place = root.path().join("7");
        // What a daemon that died in the middle left.
        fs::create_dir_all(root.path().join("nursery/7/7")).unwrap();
        nursery.make(7, &place).unwrap();
        assert!(place.is_dir());
        assert_eq!(fs::read_dir(root.path().join("nursery/7")).unwrap().count(), 0);
        fs::write(place.join("file"), b"").unwrap();
        assert!(nursery.make(7, &place).is_err(), "what is there is not replaced");
        assert_eq!(fs::read_dir(root.path().join("nursery/7")).unwrap().count(), 0);
    }
}
