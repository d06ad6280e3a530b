//! Several platforms under one name.

use super::*;
use crate::registry::manifest::Platform;

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", &sha(bytes)["sha256:".len()..])
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    let media_type = format!("application/vnd.oci.image.{kind}");
    json!({"mediaType": media_type, "size": bytes.len(), "digest": sha(bytes)})
}

pub(super) fn platform(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

fn host() -> String {
    Platform::host().architecture
}

/// Returns an OCI layout of an index: an image of one layer of its own for each architecture, and an attestation for the first.
/// What is `missing` is in the index alone.
pub(super) fn several(name: &str, architectures: &[&str], missing: &[&str]) -> Vec<u8> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifests = Vec::new();
    for &architecture in architectures {
        let layer = tar(&[(architecture, &[7; 3000])]);
        let config = json!({"os": "linux", "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]}});
        let config = config.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2, "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("manifest.v1+json", &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(entry);
        if !missing.contains(&architecture) {
            files.extend([(blob(&layer), layer), (blob(&config), config)]);
            files.push((blob(&manifest), manifest));
        }
    }
    let (statement, config) = (b"{\"_type\":\"statement\"}".to_vec(), b"{}".to_vec());
    let manifest = json!({"schemaVersion": 2, "config": descriptor("config.v1+json", &config),
        "layers": [{"mediaType": "application/vnd.in-toto+json", "size": statement.len(),
            "digest": sha(&statement)}]});
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": manifests[0]["digest"]});
    manifests.push(entry);
    for bytes in [statement, config, manifest] {
        files.push((blob(&bytes), bytes));
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests});
    let index = index.to_string().into_bytes();
    let mut top = descriptor("index.v1+json", &index);
    top["annotations"] = json!({"io.containerd.image.name": name});
    let top = json!({"schemaVersion": 2, "manifests": [top]}).to_string().into_bytes();
    files.extend([(blob(&index), index), ("index.json".into(), top)]);
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tar(&files)
}

fn shown(store: &Store) -> Vec<Vec<String>> {
    let families = store.images.families().into_iter();
    let mut all: Vec<Vec<String>> = families
        .map(|family| family.images.iter().map(|image| image.architecture.clone()).collect())
        .collect();
    all.sort();
    all
}

#[test]
fn an_archive_of_several_platforms_is_one_name_of_all_of_them() {
    let host = host();
    let store = Store::new();
    let told = store.load(several("a:1", &["s390x", &host, "riscv64"], &["riscv64"])).unwrap();
    let named = told.iter().filter(|step| matches!(step, Loaded::Name(..)));
    assert_eq!(named.count(), 1, "{told:?}");
    // After a start as well.
    let store = store.again();
    store.images.sweep(&Vec::new).unwrap();
    store.images.sweep_blobs().unwrap();
    assert_eq!(shown(&store), [[host.as_str(), "s390x"]]);
    assert_eq!(store.images.resolve("a:1").unwrap().architecture, host);
    let of = |wanted: &str| store.images.resolve_for("a:1", Some(&platform(wanted)));
    let other = of("linux/s390x").unwrap();
    assert_eq!((other.architecture.as_str(), other.tags()), ("s390x", vec!["a:1".to_owned()]));
    assert!(!other.is_dangling() && other.is_only_held());
    assert_eq!(
        of("linux/riscv64").unwrap_err().to_string(),
        "image with reference a:1 was found but does not provide the specified platform (linux/riscv64)"
    );
    let index = store.images.index_of("a:1").unwrap();
    let members = store.images.members(&index);
    let available: Vec<bool> = members.iter().map(|member| member.available).collect();
    assert_eq!(available, [true, true, false, true]);
    // By what its manifest and its index are called, too.
    let manifest = members[0].entry.digest.to_string();
    assert_eq!(store.images.resolve(&manifest).unwrap().id, other.id);
    assert_eq!(store.images.resolve(&manifest[7..19]).unwrap().id, other.id);
    assert_eq!(store.images.resolve(index.digest.as_str()).unwrap().architecture, host);
    // An id alone names nothing else.
    let error = store.images.resolve_for(other.id.as_str(), Some(&platform("linux/arm/v7")));
    assert!(matches!(error, Err(Error::OtherPlatform { .. })));
}

#[test]
fn what_is_saved_of_several_platforms_loads_again_elsewhere() {
    let host = host();
    let store = Store::new();
    store.load(several("a:1", &[&host, "s390x"], &[])).unwrap();
    let saved = store.save(&["a:1"]);
    let other = Store::new();
    other.load(saved.clone()).unwrap();
    assert_eq!(shown(&other), [[host.as_str(), "s390x"]]);
    // The attestation came along, and is for the manifest as it is called now.
    let index = other.images.index_of("a:1").unwrap();
    let members = other.images.members(&index);
    assert_eq!(
        super::super::index::attests(&members[2].entry).unwrap(),
        members[0].entry.digest.as_str()
    );
    assert!(members.iter().all(|member| member.available));
    // Nothing is called otherwise any more.
    assert_eq!(other.save(&["a:1"]), saved);
    // One platform alone.
    let selection = store.images.select(&["a:1".to_owned()], Some(&platform("s390x"))).unwrap();
    let only: Vec<&str> = selection.images().map(|image| image.architecture.as_str()).collect();
    assert_eq!(only, ["s390x"]);
    let none = store.images.select(&["a:1".to_owned()], Some(&platform("riscv64")));
    assert_eq!(
        none.err().unwrap().to_string(),
        "no suitable export target found for platform linux/riscv64"
    );
}

#[test]
fn all_platforms_go_with_the_last_name() {
    let host = host();
    let store = Store::new();
    store.load(several("a:1", &[&host, "s390x"], &[])).unwrap();
    let index = store.images.index_of("a:1").unwrap();
    let image = store.images.resolve("a:1").unwrap();
    let name = Reference::parse("b:1").unwrap();
    store.images.tag_in(&image.id, name, Some(&index.digest)).unwrap();
    // A container of the other platform keeps the last name.
    let other = store.images.resolve_for("b:1", Some(&platform("s390x"))).unwrap();
    let user = Use {
        container: "c".repeat(64),
        image: other.id.to_string(),
        top_layer: other.top_layer().cloned(),
        running: false,
    };
    store.remove("a:1", false).unwrap();
    assert_eq!(shown(&store), [[host.as_str(), "s390x"]]);
    let error = store.remove_used("b:1", false, vec![user]).unwrap_err();
    assert!(error.to_string().contains("container cccccccccccc is using"), "{error}");
    let removed = store.remove("b:1", false).unwrap();
    let images = removed.iter().filter(|one| matches!(one, Removed::Image(_)));
    assert_eq!(images.count(), 2);
    assert_eq!((store.layer_dirs(), store.blobs(), store.images.list().len()), (0, 0, 0));
    let store = store.again();
    assert!(store.images.families().is_empty() && store.images.index_of("b:1").is_none());
}

#[test]
fn one_platform_is_removed_and_comes_again() {
    let host = host();
    let store = Store::new();
    let archive = several("a:1", &[&host, "s390x"], &[]);
    store.load(archive.clone()).unwrap();
    let forced = RemoveOptions { force: true, keep_parents: false };
    let remove = |wanted: &str, options| {
        store.images.remove_platform("a:1", &platform(wanted), options, &Vec::new)
    };
    let unforced = remove("s390x", RemoveOptions::default()).unwrap_err();
    assert_eq!(unforced.kind(), Kind::InvalidArgument);
    // The name leads to what is left.
    let removed = remove(&host, forced).unwrap();
    assert!(matches!(removed[0], Removed::Manifest(_)), "{removed:?}");
    assert_eq!(store.images.resolve("a:1").unwrap().architecture, "s390x");
    assert_eq!((shown(&store), store.layer_dirs()), (vec![vec!["s390x".to_owned()]], 1));
    store.load(archive).unwrap();
    assert_eq!(shown(&store), [[host.as_str(), "s390x"]]);
    // The last one takes the name with it.
    remove("s390x", forced).unwrap();
    remove(&host, forced).unwrap();
    assert_eq!((store.layer_dirs(), store.blobs(), store.images.list().len()), (0, 0, 0));
}

#[test]
fn a_name_that_moves_leaves_what_it_stood_for_without_one() {
    let host = host();
    let store = Store::new();
    store.load(several("a:1", &[&host, "s390x"], &[])).unwrap();
    store.import("a:1", &[("f", b"1")]);
    assert!(store.images.index_of("a:1").is_none());
    let dangling = store.images.list().iter().filter(|image| image.is_dangling()).count();
    assert_eq!((dangling, shown(&store).len()), (2, 3));
    store.images.prune(&|image| image.is_dangling(), &Vec::new).unwrap();
    assert_eq!((store.layer_dirs(), store.blobs(), store.images.list().len()), (1, 1, 1));
}

#[test]
fn what_a_manifest_is_called_is_an_id_and_names_nothing_that_could_be_untagged() {
    let store = Store::new();
    store.load(several("a:1", &[&host(), "s390x"], &[])).unwrap();
    let index = store.images.index_of("a:1").unwrap();
    let other = store.images.members(&index)[1].clone();
    let digest = other.entry.digest.as_str();
    let remove = |text: &str, force| {
        let options = RemoveOptions { force, keep_parents: false };
        store.images.remove(text, options, &Vec::new)
    };
    for text in [digest, &digest[7..19]] {
        let error = remove(text, false).unwrap_err().to_string();
        assert!(error.contains("Use --force to force delete"), "{error}");
    }
    let removed = remove(&digest[7..19], true).unwrap();
    assert!(removed.contains(&Removed::Image(other.image.unwrap().id.clone())), "{removed:?}");
    assert!(removed.iter().all(|one| !matches!(one, Removed::Name(..))), "{removed:?}");
    assert_eq!(shown(&store), [[host()]]);
}

#[test]
fn a_platform_that_has_a_name_of_its_own_is_not_taken_from_under_it() {
    let store = Store::new();
    store.load(several("a:1", &[&host(), "s390x"], &[])).unwrap();
    let wanted = platform("linux/s390x");
    let image = store.images.resolve_for("a:1", Some(&wanted)).unwrap();
    let name = Reference::parse("mine:1").unwrap();
    store.images.tag(&image.id, name).unwrap();
    let options = RemoveOptions { force: true, keep_parents: false };
    let error = store.images.remove_platform("a:1", &wanted, options, &Vec::new).unwrap_err();
    assert!(matches!(error, Error::Conflict(_)) && error.to_string().contains("mine:1"), "{error}");
    assert_eq!(store.images.resolve("mine:1").unwrap().id, image.id);
}
