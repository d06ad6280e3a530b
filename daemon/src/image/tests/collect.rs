//! What a policy takes, and what it leaves.

use std::{cell::Cell, time::Duration};

use super::*;
use crate::{
    gc::{Policy, Reason},
    image::Collected,
};

const DAY: i64 = 24 * 3600 * 1_000_000_000;

fn weekly() -> Policy {
    Policy { max_unused: Some(Duration::from_secs(7 * 24 * 3600)), disk_percent: None }
}

fn in_days(days: i64) -> i64 {
    crate::event::now_nanos() + days * DAY
}

impl Store {
    fn user(&self, image: &Image) -> Use {
        Use {
            container: "c".repeat(64),
            image: image.id.to_string(),
            top_layer: image.top_layer().cloned(),
            running: false,
        }
    }

    fn collect(&self, now_nanos: i64, uses: &dyn Fn() -> Vec<Use>) -> Vec<Collected> {
        let mut collected = Vec::new();
        self.images.collect(weekly(), now_nanos, uses, &mut |one| collected.push(one)).unwrap();
        collected
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.images.list().iter().flat_map(|image| image.tags()).collect();
        names.sort();
        names
    }

    fn commit(&self, base: &Image, name: &str) -> Arc<Image> {
        let upper = tempfile::tempdir().unwrap();
        fs::write(upper.path().join(name), name).unwrap();
        let commit = crate::image::Commit {
            top_layer: base.top_layer().cloned(),
            parent: Some(base.id.clone()),
            reference: Some(Reference::parse(name).unwrap().or_latest()),
            ..crate::image::Commit::default()
        };
        self.images.commit_container(upper.path(), commit).unwrap()
    }
}

#[test]
fn an_image_that_nobody_used_for_long_goes_with_all_its_names() {
    let store = Store::new();
    let image = store.import("a:1", &[("f", b"1")]);
    store.images.tag(&image.id, Reference::parse("b:2").unwrap()).unwrap();
    assert_eq!(store.collect(in_days(6), &Vec::new), []);
    let mut none = Vec::new();
    let never = Policy::default();
    store.images.collect(never, in_days(1000), &Vec::new, &mut |one| none.push(one)).unwrap();
    assert_eq!(none, []);
    let collected = store.collect(in_days(8), &Vec::new);
    let [one] = collected.as_slice() else { panic!("{collected:?}") };
    assert!(matches!(one.reason, Reason::Old(age) if age.as_secs() / 86400 == 8), "{one:?}");
    let names = ["a:1", "b:2"].map(|name| Reference::parse(name).unwrap());
    let [a, b] = names.map(|name| Removed::Name(image.id.clone(), name));
    let layer = Removed::Layer(image.top_layer().unwrap().clone());
    assert_eq!(one.removed, [a, b, Removed::Image(image.id.clone()), layer]);
    assert_eq!((store.images.list().len(), store.layer_dirs(), store.blobs()), (0, 0, 0));
}

#[test]
fn what_a_container_or_a_lease_or_another_image_stands_on_stays() {
    let store = Store::new();
    let used = store.import("used:1", &[("f", b"used")]);
    let leased = store.import("leased:1", &[("f", b"leased")]);
    let base = store.import("base:1", &[("f", b"base")]);
    let child = store.commit(&base, "child:1");
    store.import("alone:1", &[("f", b"alone")]);
    let lease = store.images.lease(&leased).unwrap();
    let uses = || vec![store.user(&used), store.user(&child)];
    let collected = store.collect(in_days(8), &uses);
    assert_eq!(collected.len(), 1, "{collected:?}");
    assert_eq!(store.names(), ["base:1", "child:1", "leased:1", "used:1"]);
    drop(lease);
    // The child first, then what it stood on.
    let order: Vec<_> = store.collect(in_days(8), &|| vec![store.user(&used)]);
    let at = |image: &Image| order.iter().position(|one| one.image.id == image.id).unwrap();
    assert!(at(&child) < at(&base));
    assert_eq!(store.names(), ["used:1"]);
}

#[test]
fn a_name_a_load_and_a_second_start_are_uses_and_a_removal_ends_them() {
    let store = Store::new();
    let ages = |store: &Store| store.images.0.database.list(super::super::collect::USED).unwrap();
    let long_ago = |store: &Store| {
        for (id, _) in ages(store) {
            let write = move |tx: &mut crate::metadata::Transaction| {
                tx.put(super::super::collect::USED, &id, &1)
            };
            store.images.0.database.write_blocking::<_, crate::metadata::Error, _>(write).unwrap();
        }
    };
    let image = store.import("a:1", &[("f", b"1")]);
    let archive = store.save(&["a:1"]);
    long_ago(&store);
    store.images.tag(&image.id, Reference::parse("b:2").unwrap()).unwrap();
    assert_eq!(store.collect(in_days(0), &Vec::new), []);
    long_ago(&store);
    store.load(archive).unwrap();
    assert_eq!(store.collect(in_days(0), &Vec::new), []);
    // What came before uses were noted counts from now on.
    let id = image.id.to_string();
    let forget = move |tx: &mut crate::metadata::Transaction| {
        tx.delete(super::super::collect::USED, &id);
        Ok::<_, crate::metadata::Error>(())
    };
    store.images.0.database.write_blocking(forget).unwrap();
    assert_eq!(store.collect(in_days(0), &Vec::new), []);
    let store = store.again();
    assert_eq!(ages(&store).len(), 1);
    store.images.sweep_blobs().unwrap();
    assert_eq!(ages(&store).len(), 1);
    store.remove("a:1", false).unwrap();
    store.remove("b:2", false).unwrap();
    assert_eq!(ages(&store).len(), 0);
    // A container may be removed after its image.
    store.images.touch(image.id.as_str());
    store.images.sweep_blobs().unwrap();
    assert_eq!(ages(&store).len(), 0);
}

#[test]
fn a_container_that_comes_while_its_image_is_being_removed_keeps_its_layers() {
    // Whoever makes a container holds a lease until its record is there, and that may be right after any look at the records.
    for comes_after in 1..=3 {
        let store = Store::new();
        let image = store.import("a:1", &[("f", b"1")]);
        let (asked, lease) = (Cell::new(0), Cell::new(store.images.lease(&image).unwrap()));
        let uses = || {
            asked.set(asked.get() + 1);
            if asked.get() > comes_after {
                return vec![store.user(&image)];
            }
            if asked.get() == comes_after {
                drop(lease.take());
            }
            Vec::new()
        };
        let options = RemoveOptions { force: true, keep_parents: false };
        let _ = store.images.remove("a:1", options, &uses);
        assert_eq!(store.layer_dirs(), 1, "{comes_after}");
        store.images.sweep(&|| vec![store.user(&image)]).unwrap();
        assert_eq!(store.layer_dirs(), 1, "{comes_after}");
    }
}

#[test]
fn a_full_disk_takes_one_after_the_other_until_there_is_room() {
    let store = Store::new();
    for name in ["a:1", "b:1"] {
        store.import(name, &[("f", name.as_bytes())]);
    }
    assert!(store.images.snapshots().taken_percent().unwrap() > 0);
    let policy = |percent| Policy { max_unused: None, disk_percent: Some(percent) };
    let mut gone = Vec::new();
    let mut collect = |percent| {
        let tell = &mut |one: Collected| gone.push(one.image.tags());
        store.images.collect(policy(percent), in_days(0), &Vec::new, tell).unwrap();
    };
    collect(100);
    // Others use this disk as well: however much goes, it does not get empty.
    collect(0);
    assert_eq!(gone, [["a:1"], ["b:1"]]);
}
