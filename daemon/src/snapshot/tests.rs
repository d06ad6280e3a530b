//! Snapshots on real directories and real overlays, as root.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use cleat_proto::{
    digest::{ChainId, DiffId},
    id::ContainerId,
};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::{Layer, Snapshots, diff::Kind};
use crate::metadata::Database;

struct Store {
    dir: tempfile::TempDir,
    snapshots: Snapshots,
    id: ContainerId,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("meta.redb")).unwrap();
        let snapshots = Snapshots::open(&dir.path().join("snapshots"), &database).unwrap();
        Self { dir, snapshots, id: ContainerId::from_bytes([7; 32]) }
    }

    /// Makes a layer above another; `fill` gets its directory.
    fn layer(&self, n: u8, parent: Option<&ChainId>, fill: impl FnOnce(&Path)) -> ChainId {
        let draft = self.snapshots.draft().unwrap();
        fill(&draft.dir().join("fs"));
        let chain_id = ChainId::from_sum([n; 32]);
        let layer = Layer {
            chain_id: chain_id.clone(),
            diff_id: DiffId::from_sum([n; 32]),
            parent: parent.cloned(),
            number: draft.number(),
            size: 0,
            tar_size: 0,
        };
        self.snapshots.adopt(layer, Some(draft));
        chain_id
    }

    fn upper(&self) -> PathBuf {
        self.snapshots.upper_dir(&self.id)
    }

    fn read(&self, top: &ChainId, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.snapshots.read_file(&self.id, Some(top), Path::new(path), 100)
    }

    fn changes(&self, top: &ChainId) -> Vec<(String, Kind)> {
        let changes = self.snapshots.changes(&self.id, Some(top)).unwrap();
        changes.into_iter().map(|change| (change.path, change.kind)).collect()
    }
}

fn whiteout(path: &Path) {
    mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
}

fn opaque(path: &Path) {
    cleat_sys::xattr::set(File::open(path).unwrap(), b"trusted.overlay.opaque", b"y").unwrap();
}

/// Two layers with every rule of overlayfs in them.
fn stacked(store: &Store) -> ChainId {
    let base = store.layer(1, None, |fs| {
        for dir in ["etc", "hidden", "opaque", "merged"] {
            fs::create_dir(fs.join(dir)).unwrap();
            fs::write(fs.join(dir).join("low"), "low").unwrap();
        }
        fs::write(fs.join("etc/passwd"), "root").unwrap();
        fs::write(fs.join("gone"), "gone").unwrap();
        fs::write(fs.join("file-over-dir"), "x").unwrap();
    });
    store.layer(2, Some(&base), |fs| {
        whiteout(&fs.join("gone"));
        whiteout(&fs.join("hidden"));
        fs::create_dir(fs.join("opaque")).unwrap();
        opaque(&fs.join("opaque"));
        fs::create_dir(fs.join("merged")).unwrap();
        fs::write(fs.join("merged/high"), "high").unwrap();
        symlink("/etc/passwd", fs.join("absolute")).unwrap();
        symlink("../../../etc/passwd", fs.join("merged/climbing")).unwrap();
        symlink("loop", fs.join("loop")).unwrap();
        nix::unistd::mkfifo(&fs.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        fs::write(fs.join("large"), [b'x'; 101]).unwrap();
    })
}

#[test]
fn a_file_is_read_as_the_overlay_shows_it() {
    let store = Store::new();
    let top = stacked(&store);
    store.snapshots.prepare(&store.id, Some(&top)).unwrap();
    let check = |path: &str, expected: Option<&str>| {
        let found = store.read(&top, path).unwrap();
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
    };
    check("/etc/passwd", Some("root"));
    check("/merged/low", Some("low"));
    check("/merged/high", Some("high"));
    check("/absolute", Some("root"));
    check("/merged/climbing", Some("root"));
    for path in ["/gone", "/hidden/low", "/opaque/low", "/nope", "/etc/passwd/x", "/etc", "/fifo"] {
        check(path, None);
    }
    assert!(store.read(&top, "/loop").is_err());
    assert!(store.read(&top, "/large").is_err());
    whiteout(&store.upper().join("absolute"));
    check("/absolute", None);
}

#[test]
fn the_kernels_view_is_the_same() {
    let store = Store::new();
    let top = stacked(&store);
    store.snapshots.prepare(&store.id, Some(&top)).unwrap();
    for root in [
        store.snapshots.open_root(&store.id, Some(&top)).unwrap(),
        store.snapshots.open_root_read_only(&store.id, Some(&top)).unwrap(),
    ] {
        let read = |path: &str| {
            let path = Path::new(path);
            let fd = cleat_sys::openat2::open_in_root(&root, path, libc::O_RDONLY, 0);
            fd.ok().map(|fd| std::io::read_to_string(File::from(fd)).unwrap())
        };
        assert_eq!(read("absolute").as_deref(), Some("root"));
        assert_eq!(read("merged/low").as_deref(), Some("low"));
        assert_eq!((read("gone"), read("opaque/low"), read("hidden/low")), (None, None, None));
        // What every container has.
        assert_eq!(read("etc/hosts").as_deref(), Some(""));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.dir.path().to_str().unwrap()));
}

#[test]
fn changes_are_what_the_container_did() {
    let store = Store::new();
    let top = stacked(&store);
    store.snapshots.prepare(&store.id, Some(&top)).unwrap();
    assert!(store.changes(&top).is_empty());
    let upper = store.upper();
    let below = store.snapshots.lower_dirs(&top).unwrap();
    let (etc, passwd) = (upper.join("etc"), upper.join("etc/passwd"));
    fs::create_dir(&etc).unwrap();
    // Copied up and not changed: the same bytes, mode and time.
    fs::write(&passwd, "root").unwrap();
    let old = File::open(below[1].join("etc/passwd")).unwrap().metadata().unwrap();
    File::options()
        .write(true)
        .open(&passwd)
        .unwrap()
        .set_modified(old.modified().unwrap())
        .unwrap();
    assert_eq!(fs::metadata(&passwd).unwrap().mode(), old.mode());
    assert!(store.changes(&top).is_empty());
    fs::write(&passwd, "changed").unwrap();
    fs::create_dir_all(upper.join("new/deep")).unwrap();
    whiteout(&upper.join("absolute"));
    // A whiteout of what is not there says nothing.
    whiteout(&upper.join("never"));
    fs::create_dir(upper.join("merged")).unwrap();
    opaque(&upper.join("merged"));
    fs::write(upper.join("merged/high"), "other").unwrap();
    let expected = [
        ("/absolute", Kind::Deleted),
        ("/etc", Kind::Modified),
        ("/etc/passwd", Kind::Modified),
        ("/merged", Kind::Modified),
        ("/merged/climbing", Kind::Deleted),
        ("/merged/high", Kind::Modified),
        ("/merged/low", Kind::Deleted),
        ("/new", Kind::Added),
        ("/new/deep", Kind::Added),
    ];
    assert_eq!(store.changes(&top), expected.map(|(path, kind)| (path.to_owned(), kind)));
}

#[test]
fn removal_can_be_done_again_and_leaves_nothing() {
    let store = Store::new();
    store.snapshots.prepare(&store.id, None).unwrap();
    store.snapshots.prepare(&store.id, None).unwrap();
    fs::write(store.upper().join("f"), "12345").unwrap();
    assert_eq!(store.snapshots.usage(&store.id).unwrap(), 5);
    store.snapshots.remove(&store.id).unwrap();
    store.snapshots.remove(&store.id).unwrap();
    assert!(!store.upper().exists());
    // The other thread deletes it in its own time.
    let trash = store.dir.path().join("snapshots/trash");
    while fs::read_dir(&trash).unwrap().next().is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_without_a_container_is_swept() {
    let store = Store::new();
    let other = ContainerId::from_bytes([8; 32]);
    store.snapshots.prepare(&store.id, None).unwrap();
    store.snapshots.prepare(&other, None).unwrap();
    store.snapshots.sweep(|id| *id == store.id).unwrap();
    assert!(store.upper().exists() && !store.snapshots.upper_dir(&other).exists());
}

#[test]
fn a_container_on_a_missing_layer_is_refused() {
    let store = Store::new();
    let missing = ChainId::from_sum([9; 32]);
    let error = store.snapshots.prepare(&store.id, Some(&missing)).unwrap_err();
    assert!(matches!(error, super::Error::NoLayer(id) if id == missing));
}
