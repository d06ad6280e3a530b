//! Several who change the same at once, and what an error leaves.

use super::*;
use crate::image::{Commit, ImageConfig, store::NewImage};

fn no_problem(images: &Images) {
    images.check(&mut |checked| assert_eq!(checked.problems, [], "{checked:?}")).unwrap();
}

/// An image as if it had just been fetched, all of whose layers are there.
fn fetched(images: &Images, image: &Image, name: &str) -> NewImage {
    let bytes = images.content().read(&(&image.id).into(), 1 << 20).unwrap();
    NewImage {
        id: image.id.clone(),
        config: ImageConfig::parse(&bytes).unwrap(),
        bytes,
        layers: Vec::new(),
        parent: None,
        references: vec![Reference::parse(name).unwrap()],
        tagged: true,
    }
}

#[test]
fn a_removal_between_an_images_blob_and_its_record_takes_nothing_of_it() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    let new = fetched(&store.images, &image, "again:1");
    let lease = store.images.lease(&image).unwrap();
    store.remove("a:1", false).unwrap();
    assert_eq!(store.blobs(), 0);
    store.images.commit(new).unwrap();
    drop(lease);
    let store = store.again();
    assert_eq!(store.images.resolve("again:1").unwrap().id, image.id);
    no_problem(&store.images);
}

#[test]
fn a_record_never_names_a_layer_that_is_gone() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    let new = fetched(&store.images, &image, "again:1");
    store.remove("a:1", false).unwrap();
    let error = store.images.commit(new).unwrap_err();
    assert!(error.to_string().contains("layer does not exist"), "{error}");
    assert_eq!((store.images.count(), store.blobs()), (0, 0));
    let store = store.again();
    assert_eq!((store.images.count(), store.blobs(), store.layer_dirs()), (0, 0, 0));
    // As a commit finds it whose container was removed with its image.
    let upper = tempfile::tempdir().unwrap();
    let commit = Commit { top_layer: image.top_layer().cloned(), ..Commit::default() };
    let error = store.images.commit_container(upper.path(), commit).unwrap_err();
    assert!(error.to_string().contains("layer does not exist"), "{error}");
    assert_eq!((store.blobs(), store.layer_dirs()), (0, 0));
}

#[test]
fn what_has_been_removed_is_not_leased() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    store.remove("a:1", false).unwrap();
    let error = store.images.lease(&image).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_prune_takes_what_leases_held_and_blobs_that_no_image_has() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    store.import("kept:1", &[("f", b"2")]);
    let lease = store.images.lease(&image).unwrap();
    store.remove("a:1", false).unwrap();
    store.images.content().put(b"of an import that failed").unwrap();
    assert_eq!((store.blobs(), store.layer_dirs()), (2, 2));
    store.images.prune(&|_| false, &Vec::new).unwrap();
    assert_eq!((store.blobs(), store.layer_dirs()), (1, 2));
    drop(lease);
    store.images.prune(&|_| false, &Vec::new).unwrap();
    assert_eq!((store.blobs(), store.layer_dirs()), (1, 1));
    no_problem(&store.images);
}

#[test]
fn a_name_that_comes_during_a_removal_is_no_name_of_nothing() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    std::thread::scope(|scope| {
        let tag = || store.images.tag(&image.id, Reference::parse("b:1").unwrap());
        // Comes while the removal looks at the containers, and waits for its turn.
        let uses = || {
            scope.spawn(tag);
            Vec::new()
        };
        let options = RemoveOptions { force: true, keep_parents: false };
        let _ = store.images.remove("a:1", options, &uses);
    });
    let store = store.again();
    for image in store.images.list() {
        assert_eq!(image.tags(), ["b:1"]);
    }
    let names = store.images.0.database.list(crate::image::store::REFERENCES).unwrap();
    assert_eq!(names.len(), store.images.count(), "{names:?}");
}

#[test]
fn layers_of_an_archive_wait_for_their_image_without_a_descriptor_each() {
    let store = Store::new();
    let snapshots = store.images.snapshots();
    let drafts: Vec<_> = (0..20).map(|_| snapshots.draft().unwrap()).collect();
    let root = store.dir.path().join("snapshots");
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let of_layers = open.filter(|fd| {
        let path = fs::read_link(fd.path()).unwrap_or_default();
        path.starts_with(&root) && path.ends_with("fs")
    });
    assert_eq!(of_layers.count(), 0);
    drop(drafts);
    assert_eq!(store.layer_dirs(), 0);
}

#[test]
fn the_names_in_an_archive_are_bounded_together() {
    let long = "long/".repeat(800);
    let names: Vec<String> = (0..4200).map(|n| format!("{long}{n}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let error = Store::new().load(tar(&files)).unwrap_err();
    assert_eq!(error.to_string(), "the archive has too many files");
}
