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
        part: None,
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
    assert_eq!((store.images.list().len(), store.blobs()), (0, 0));
    let store = store.again();
    assert_eq!((store.images.list().len(), store.blobs(), store.layer_dirs()), (0, 0, 0));
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
    assert_eq!(names.len(), store.images.list().len(), "{names:?}");
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

#[test]
fn whoever_loads_removes_commits_and_prunes_the_same_at_once_leaves_whole_images_only() {
    let store = Store::new();
    let layers: Vec<Vec<u8>> = (0..4_u8).map(|n| tar(&[("f", &[n; 3000]), ("g", &[n])])).collect();
    // The same layers in different stacks, one of them twice in one.
    let stacks: [&[usize]; 4] = [&[0, 1], &[0, 2], &[1, 0, 3], &[3, 3, 1]];
    let archives: Vec<Vec<u8>> = stacks
        .iter()
        .enumerate()
        .map(|(n, stack)| {
            let stack: Vec<&[u8]> = stack.iter().map(|layer| layers[*layer].as_slice()).collect();
            good(&format!("image{n}:1"), &stack)
        })
        .collect();
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("new"), b"new").unwrap();
    let act = |seed: usize| {
        let (name, other) = (format!("image{}:1", seed % 4), format!("image{}:1", seed / 4 % 4));
        let images = &store.images;
        match seed / 16 % 7 {
            0..=2 => drop(store.load(archives[seed % 4].clone()).unwrap()),
            3 => drop(store.remove(&name, seed.is_multiple_of(3))),
            4 => drop(images.prune(&|image| image.is_dangling(), &Vec::new).unwrap()),
            5 => {
                let Ok(base) = images.resolve(&name) else { return };
                let commit = Commit {
                    top_layer: base.top_layer().cloned(),
                    parent: Some(base.id.clone()),
                    reference: Some(Reference::parse("made:1").unwrap()),
                    ..Commit::default()
                };
                // Its base may have gone meanwhile.
                drop(images.commit_container(upper.path(), commit));
            }
            _ => {
                let Ok(image) = images.resolve(&other) else { return };
                drop(images.tag(&image.id, Reference::parse("tagged:1").unwrap()));
                let Ok(selection) = images.select(&[other], None) else { return };
                let (writer, mut receiver) = chunks::body();
                std::thread::scope(|scope| {
                    let saving = scope.spawn(|| images.save(&selection, writer));
                    while let Some(chunk) = receiver.blocking_recv() {
                        drop(chunk.expect("what a selection holds stays"));
                    }
                    saving.join().unwrap().unwrap();
                });
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            scope.spawn(move || {
                let mut state = thread * 7919 + 17;
                for _ in 0..40 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    act(state >> 33);
                }
            });
        }
    });
    let references: usize = store.images.list().iter().map(|image| image.references.len()).sum();
    let stored = store.images.0.database.list(crate::image::store::REFERENCES).unwrap();
    assert_eq!(stored.len(), references);
    let mut checked = 0;
    store
        .images
        .check(&mut |one| {
            checked += 1;
            assert_eq!(one.problems, [], "{one:?}");
        })
        .unwrap();
    assert_eq!(checked, store.images.list().len());
    // Once all of it goes, nothing is left.
    while let Some(image) = store.images.list().pop() {
        if store.images.has_children(&image.id) {
            let leaf =
                store.images.list().into_iter().find(|it| !store.images.has_children(&it.id));
            store.remove(leaf.unwrap().id.as_str(), true).unwrap();
        } else {
            store.remove(image.id.as_str(), true).unwrap();
        }
    }
    store.images.prune(&|_| true, &Vec::new).unwrap();
    assert_eq!((store.layer_dirs(), store.blobs()), (0, 0));
}
