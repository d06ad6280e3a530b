//! Images through their whole life, on a real store.

use std::{fs, sync::Arc};

use bytes::Bytes;
use cleat_proto::digest::{DiffId, ImageId};
use cleat_proto::kind::Kind;
use cleat_proto::platform::Platform;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Error, Image, Images, Import, Loaded, Reference, RemoveOptions, Removed, Use};
use crate::{
    archive::{
        chunks::{self, Received},
        pack::Packer,
    },
    content::Content,
    metadata::Database,
    snapshot::Snapshots,
};

mod collect;
mod layout;
mod platforms;
mod power;
mod races;

struct Store {
    dir: tempfile::TempDir,
    images: Images,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = open(&dir);
        Self { dir, images }
    }

    /// As after the end of the daemon and a new start.
    fn again(self) -> Self {
        let Self { dir, images } = self;
        drop(images);
        // The database's writer lets go of its file a moment after its last handle.
        let images = open(&dir);
        Self { dir, images }
    }

    fn import(&self, name: &str, files: &[(&str, &[u8])]) -> Arc<Image> {
        let reference = Some(Reference::parse(name).unwrap().or_latest());
        let import = Import { reference, platform: Platform::host(), ..Import::default() };
        self.images.import(stream(tar(files)), import).unwrap()
    }

    fn load(&self, archive: Vec<u8>) -> Result<Vec<Loaded>, Error> {
        let mut told = Vec::new();
        self.images.load(stream(archive), None, &mut |step| told.push(step))?;
        Ok(told)
    }

    fn save(&self, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let selection = self.images.select(&names, None).unwrap();
        let (writer, mut receiver) = chunks::body();
        std::thread::scope(|scope| {
            scope.spawn(|| self.images.save(&selection, writer).unwrap());
            let mut all = Vec::new();
            while let Some(chunk) = receiver.blocking_recv() {
                all.extend_from_slice(&chunk.unwrap());
            }
            all
        })
    }

    fn remove(&self, name: &str, force: bool) -> Result<Vec<Removed>, Error> {
        self.remove_used(name, force, Vec::new())
    }

    fn remove_used(&self, name: &str, force: bool, uses: Vec<Use>) -> Result<Vec<Removed>, Error> {
        let options = RemoveOptions { force, keep_parents: false };
        self.images.remove(name, options, &move || uses.clone())
    }

    /// The numbered directories of layers.
    fn layer_dirs(&self) -> usize {
        let entries = fs::read_dir(self.dir.path().join("snapshots")).unwrap();
        let is_number = |name: &std::ffi::OsStr| name.to_str().unwrap().parse::<u64>().is_ok();
        entries.filter(|entry| is_number(&entry.as_ref().unwrap().file_name())).count()
    }

    fn blobs(&self) -> usize {
        self.images.content().list().unwrap().len()
    }
}

fn open(dir: &tempfile::TempDir) -> Images {
    let database = Database::open(&dir.path().join("meta.redb")).unwrap();
    let content = Content::open(&dir.path().join("content")).unwrap();
    let snapshots = Snapshots::open(&dir.path().join("snapshots"), &database).unwrap();
    Images::open(database, content, snapshots).unwrap()
}

fn stream(bytes: Vec<u8>) -> Received {
    let (sender, received) = Received::channel();
    std::thread::spawn(move || {
        for piece in bytes.chunks(3000) {
            if sender.blocking_send(Ok(Bytes::copy_from_slice(piece))).is_err() {
                return;
            }
        }
    });
    received
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut packer = Packer::new(Vec::new());
    for (name, bytes) in files {
        packer.bytes(name.as_bytes(), 0o644, 1_600_000_000, bytes).unwrap();
    }
    packer.finish().unwrap()
}

fn sha(bytes: &[u8]) -> String {
    DiffId::from_sum(Sha256::digest(bytes)).to_string()
}

/// A docker archive of these layers.
fn archive(tags: &[&str], layers: &[&[u8]], diff_ids: Vec<String>) -> Vec<u8> {
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{"Config": "c.json", "RepoTags": tags, "Layers": names}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let mut files: Vec<(&str, &[u8])> = vec![("c.json", config.as_bytes())];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().copied()));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}

fn good(tag: &str, layers: &[&[u8]]) -> Vec<u8> {
    archive(&[tag], layers, layers.iter().map(|layer| sha(layer)).collect())
}

#[test]
fn an_imported_image_is_there_after_a_start() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"hello")]);
    assert_eq!((image.size, image.tags()), (5, vec!["a:1".to_owned()]));
    let store = store.again();
    let found = store.images.resolve("a:1").unwrap();
    assert_eq!(*found, *image);
    for name in [image.id.as_str(), image.id.hex(), image.id.short(), &image.id.as_str()[..12]] {
        assert_eq!(store.images.resolve(name).unwrap().id, image.id, "{name}");
    }
    let missing = store.images.resolve("zz").unwrap_err();
    assert_eq!(missing.to_string(), "No such image: zz:latest");
}

#[test]
fn a_name_belongs_to_the_last_who_got_it() {
    let store = Store::new();
    let first = store.import("a", &[("f", b"1")]);
    let second = store.import("a", &[("f", b"2")]);
    assert_eq!(store.images.resolve("a").unwrap().id, second.id);
    assert!(store.images.get(&first.id).unwrap().references.is_empty());
    let store = store.again();
    assert!(store.images.get(&first.id).unwrap().references.is_empty());
}

#[test]
fn what_is_saved_loads_again_elsewhere() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"hello"), ("g", &[7; 10_000])]);
    let saved = store.save(&["a:1"]);
    let other = Store::new();
    let told = other.load(saved.clone()).unwrap();
    let name = Reference::parse("a:1").unwrap();
    assert!(told.contains(&Loaded::Name(image.id.clone(), name, None)), "{told:?}");
    assert_eq!(other.save(&["a:1"]), saved);
    // Once more changes nothing, and no layer is unpacked.
    let again = other.load(saved).unwrap();
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(other.layer_dirs(), 1);
}

#[test]
fn a_layout_without_manifest_json_loads_as_well() {
    let store = Store::new();
    let image = store.import("host.example/x/a:1", &[("f", b"hello")]);
    let saved = store.save(&["host.example/x/a:1"]);
    // The same archive without docker's own files.
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut reader = tar::Archive::new(saved.as_slice());
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if !bytes.is_empty() && name != "manifest.json" && name != "repositories" {
            files.push((name, bytes));
        }
    }
    let layout = |files: &[(String, Vec<u8>)]| {
        tar(&files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect::<Vec<_>>())
    };
    let other = Store::new();
    other.load(layout(&files)).unwrap();
    assert_eq!(other.images.resolve("host.example/x/a:1").unwrap().id, image.id);
    // A blob that is not what its name says.
    for at in 0..files.len() {
        // Nothing refers to the description of a layer as Docker had it before there were manifests.
        if !files[at].0.starts_with("blobs/") || files[at].1.starts_with(b"{\"id\":") {
            continue;
        }
        let mut damaged = files.clone();
        let last = damaged[at].1.len() - 1;
        damaged[at].1[last] ^= 1;
        let other = Store::new();
        assert!(other.load(layout(&damaged)).is_err(), "{}", files[at].0);
        assert!(other.images.list().is_empty());
        assert_eq!((other.layer_dirs(), other.blobs()), (0, 0));
    }
}

#[test]
fn layers_are_shared_and_go_with_their_last_image() {
    let store = Store::new();
    let (base, one, two) = (tar(&[("b", b"base")]), tar(&[("1", b"one")]), tar(&[("2", b"two")]));
    store.load(good("one:1", &[&base, &one])).unwrap();
    store.load(good("two:1", &[&base, &two])).unwrap();
    assert_eq!(store.layer_dirs(), 3);
    let removed = store.remove("one:1", false).unwrap();
    let layers = removed.iter().filter(|one| matches!(one, Removed::Layer(_))).count();
    assert_eq!((layers, store.layer_dirs()), (1, 2));
    store.remove("two:1", false).unwrap();
    assert_eq!((store.layer_dirs(), store.blobs()), (0, 0));
    assert!(store.again().images.list().is_empty());
}

#[test]
fn the_same_files_in_two_stacks_are_on_disk_once() {
    let store = Store::new();
    let (a, b) = (tar(&[("a", b"a")]), tar(&[("b", b"b")]));
    store.load(good("ab:1", &[&a, &b])).unwrap();
    store.load(good("ba:1", &[&b, &a])).unwrap();
    assert_eq!(store.layer_dirs(), 2);
    store.remove("ab:1", false).unwrap();
    assert_eq!(store.layer_dirs(), 2);
    let ba = store.images.resolve("ba:1").unwrap();
    let dirs = store.images.snapshots().lower_dirs(ba.top_layer().unwrap()).unwrap();
    assert!(dirs[0].join("a").is_file() && dirs[1].join("b").is_file());
    store.remove("ba:1", false).unwrap();
    assert_eq!(store.layer_dirs(), 0);
}

#[test]
fn the_same_layer_twice_in_one_stack_is_two_directories() {
    let store = Store::new();
    let a = tar(&[("a", b"a")]);
    store.load(good("aa:1", &[&a, &a])).unwrap();
    let image = store.images.resolve("aa:1").unwrap();
    let dirs = store.images.snapshots().lower_dirs(image.top_layer().unwrap()).unwrap();
    assert_ne!(dirs[0], dirs[1]);
    assert!(dirs.iter().all(|dir| dir.join("a").is_file()));
    let saved = store.save(&["aa:1"]);
    Store::new().load(saved).unwrap();
}

#[test]
fn an_archive_that_lies_leaves_nothing() {
    let layer = tar(&[("f", b"x")]);
    let wrong = "sha256:".to_owned() + &"1".repeat(64);
    let cut = {
        let whole = good("a:1", &[&layer]);
        whole[..whole.len() - 1024 - 300].to_vec()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (archive(&["a:1"], &[&layer], vec![wrong]), "invalid diffID for layer 0"),
        (archive(&["a:1"], &[&layer], vec![]), "layers length mismatch: expected 1, got 0"),
        (archive(&["a"], &[&layer], vec![sha(&layer)]), "invalid tag \"a\""),
        (archive(&["../../x:1"], &[&layer], vec![sha(&layer)]), "invalid reference format"),
        (good("a:1", &[b"garbage garbage"]), "archive/tar: invalid tar header"),
        (tar(&[("a", b"b")]), "neither manifest.json nor index.json"),
        (tar(&[("manifest.json", b"[null]")]), "invalid manifest.json"),
        (tar(&[("manifest.json", b"{}")]), "invalid manifest.json"),
        (tar(&[("manifest.json", &[b'['; 100_000])]), "invalid manifest.json"),
        (tar(&[("manifest.json", br#"[{"Config":"/etc/passwd"}]"#)]), "is not in the archive"),
        (b"garbage".repeat(200), "invalid tar header"),
        (Vec::new(), "neither manifest.json nor index.json"),
        (cut, "unexpected EOF"),
    ];
    for (bytes, message) in cases {
        let store = Store::new();
        let error = store.load(bytes).unwrap_err();
        let text = cleat_proto::kind::whole(&error);
        assert!(text.contains(message), "{text} for {message}");
        // What is no archive at all is Docker's own failure.
        let is_tar = !(message.starts_with("invalid tar header") || message.contains("EOF"));
        let kind = if is_tar { Kind::InvalidArgument } else { Kind::Internal };
        assert_eq!(error.kind(), kind, "{message}");
        assert!(store.images.list().is_empty());
        assert_eq!((store.layer_dirs(), store.blobs()), (0, 0), "{message}");
    }
}

#[test]
fn an_image_in_use_stays() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    let user = |running| Use {
        container: "c".repeat(64),
        image: image.id.to_string(),
        top_layer: image.top_layer().cloned(),
        running,
    };
    let (container, short) = ("c".repeat(12), image.id.short());
    let refused = |name: &str, force, running| {
        store.remove_used(name, force, vec![user(running)]).unwrap_err().to_string()
    };
    assert_eq!(
        refused("a:1", false, false),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container {container} is using its referenced image {short}"
        )
    );
    assert_eq!(
        refused(short, false, false),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
        )
    );
    assert_eq!(
        refused(short, true, true),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"
        )
    );
    store.images.tag(&image.id, Reference::parse("b:2").unwrap()).unwrap();
    assert_eq!(
        store.remove(short, false).unwrap_err().to_string(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    // The image goes, what a stopped container stands on stays until it is swept.
    store.remove_used(short, true, vec![user(false)]).unwrap();
    assert!(store.images.list().is_empty());
    assert_eq!(store.layer_dirs(), 1);
    store.images.sweep(&Vec::new).unwrap();
    assert_eq!(store.layer_dirs(), 0);
}

#[test]
fn a_lease_keeps_layers_alive() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    let lease = store.images.lease(&image).unwrap();
    store.remove("a:1", false).unwrap();
    assert_eq!(store.layer_dirs(), 1);
    drop(lease);
    store.images.sweep(&Vec::new).unwrap();
    assert_eq!(store.layer_dirs(), 0);
}

#[test]
fn a_damaged_image_does_not_keep_the_daemon_from_starting() {
    let store = Store::new();
    let kept = store.import("kept:1", &[("f", b"1")]);
    let broken = store.import("broken:1", &[("f", b"2")]);
    let blob = store.dir.path().join("content/blobs/sha256").join(broken.id.hex());
    fs::write(blob, "nonsense").unwrap();
    let store = store.again();
    let ids: Vec<ImageId> = store.images.list().iter().map(|image| image.id.clone()).collect();
    assert_eq!(ids, std::slice::from_ref(&kept.id));
    // Nothing of it is thrown away, and bringing it once more heals it.
    store.images.sweep(&Vec::new).unwrap();
    store.images.sweep_blobs().unwrap();
    assert_eq!((store.layer_dirs(), store.blobs()), (2, 2));
    let other = Store::new();
    let import =
        Import { reference: Some(Reference::parse("broken:1").unwrap()), ..Import::default() };
    other.images.import(stream(tar(&[("f", b"2")])), import).unwrap();
    store.load(other.save(&["broken:1"])).unwrap();
    assert_eq!(store.layer_dirs(), 2);
    store.images.resolve("broken:1").unwrap();
}

#[test]
fn a_store_that_was_cut_off_is_swept_at_its_start() {
    let store = Store::new();
    store.import("a:1", &[("f", b"1")]);
    // What a crash leaves before the record: files without one.
    fs::create_dir_all(store.dir.path().join("snapshots/77/fs")).unwrap();
    store.images.content().put(b"a configuration of an image that never was").unwrap();
    let store = store.again();
    store.images.sweep_blobs().unwrap();
    assert_eq!((store.layer_dirs(), store.blobs()), (1, 1));
    // Its number is not given again while its files may still be on their way out.
    let image = store.import("b:1", &[("f", b"2")]);
    let dirs = store.images.snapshots().lower_dirs(image.top_layer().unwrap()).unwrap();
    assert!(dirs[0].ends_with("78/fs"), "{dirs:?}");
}

#[test]
fn a_commit_is_one_more_layer_of_what_changed() {
    use std::os::unix::fs::FileTypeExt;
    let store = Store::new();
    let base = store.import("base:1", &[("kept", b"1"), ("gone", b"22")]);
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("new"), b"333").unwrap();
    let whiteout = nix::sys::stat::SFlag::S_IFCHR;
    nix::sys::stat::mknod(&upper.path().join("gone"), whiteout, nix::sys::stat::Mode::empty(), 0)
        .unwrap();
    let commit = super::Commit {
        top_layer: base.top_layer().cloned(),
        parent: Some(base.id.clone()),
        reference: Some(Reference::parse("made:1").unwrap()),
        ..super::Commit::default()
    };
    let made = store.images.commit_container(upper.path(), commit.clone()).unwrap();
    assert_eq!((made.layers.len(), made.size, made.parent.as_ref()), (2, 6, Some(&base.id)));
    let dirs = store.images.snapshots().lower_dirs(made.top_layer().unwrap()).unwrap();
    assert_eq!(fs::read(dirs[0].join("new")).unwrap(), b"333");
    assert!(fs::symlink_metadata(dirs[0].join("gone")).unwrap().file_type().is_char_device());
    // An image with children stays, force or not.
    let refused = store.remove("base:1", false).unwrap();
    assert_eq!(refused.len(), 1, "the name alone: {refused:?}");
    let error = store.remove(base.id.as_str(), true).unwrap_err().to_string();
    assert!(error.contains("(cannot be forced) - image has dependent child images"), "{error}");
    // With the child goes the parent that has no name any more.
    store.remove("made:1", false).unwrap();
    assert_eq!((store.layer_dirs(), store.blobs()), (0, 0));
    // Nothing changed: no layer.
    let base = store.import("base:1", &[("kept", b"1")]);
    let empty = tempfile::tempdir().unwrap();
    let commit = super::Commit {
        top_layer: base.top_layer().cloned(),
        parent: Some(base.id.clone()),
        ..commit
    };
    let made = store.images.commit_container(empty.path(), commit).unwrap();
    assert_eq!(made.layers, base.layers);
    assert!(made.history.last().unwrap().empty_layer);
}

#[test]
fn a_layer_whose_files_changed_is_not_saved_as_if_whole() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"hello")]);
    let dir = store.images.snapshots().lower_dirs(image.top_layer().unwrap()).unwrap().remove(0);
    fs::write(dir.join("f"), b"jello").unwrap();
    let selection = store.images.select(&["a:1".to_owned()], None).unwrap();
    let (writer, receiver) = chunks::body();
    let error = store.images.save(&selection, writer).unwrap_err();
    drop(receiver);
    assert!(matches!(error, Error::Damaged(_)), "{error}");
}

#[test]
fn of_an_archive_only_the_platform_that_was_asked_for_is_loaded() {
    let layer = tar(&[("f", b"x")]);
    let platform = |architecture: &str| Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        ..Default::default()
    };
    let load = |store: &Store, architecture: &str| {
        let archive = stream(good("a:1", &[&layer]));
        store.images.load(archive, Some(&platform(architecture)), &mut |_| {}).unwrap().len()
    };
    let store = Store::new();
    assert_eq!((load(&store, "arm64"), store.images.list().len(), store.layer_dirs()), (0, 0, 0));
    assert_eq!((load(&store, "amd64"), store.images.list().len(), store.layer_dirs()), (1, 1, 1));
    // Of an index the manifest of that platform.
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", &sha(bytes)["sha256:".len()..]);
    let of = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "size": bytes.len(), "digest": sha(bytes)});
    let mut files = vec![(blob(&layer), layer.clone())];
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = json!({"os": "linux", "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]}});
        let config = config.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2, "config": of("config.v1+json", &config),
            "layers": [of("layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = of("manifest.v1+json", &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(entry);
        files.extend([(blob(&config), config), (blob(&manifest), manifest)]);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
    let top = json!({"schemaVersion": 2, "manifests": [of("index.v1+json", &index)]});
    files.extend([(blob(&index), index), ("index.json".into(), top.to_string().into_bytes())]);
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    for architecture in ["amd64", "arm64"] {
        let store = Store::new();
        let archive = stream(tar(&files));
        let loaded =
            store.images.load(archive, Some(&platform(architecture)), &mut |_| {}).unwrap();
        assert_eq!(loaded[0].architecture, architecture);
    }
}
