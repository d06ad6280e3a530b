//! OCI layouts that lie: `index.json` and what it leads to.

use serde_json::Value;

use super::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layout that grows blob by blob.
#[derive(Clone, Default)]
struct Layout(Vec<(String, Vec<u8>)>);

impl Layout {
    /// Adds a blob and returns its descriptor.
    fn add(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha(bytes);
        self.0.push((format!("blobs/{}", digest.replace(':', "/")), bytes.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.add(media_type, value.to_string().as_bytes())
    }

    /// The archive, whose index leads to these.
    fn tar(mut self, manifests: Value) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        self.0.push(("index.json".into(), index.into_bytes()));
        let files: Vec<(&str, &[u8])> =
            self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        tar(&files)
    }
}

/// A layout with one image, and that image's manifest.
fn good_layout() -> (Layout, Value) {
    let mut layout = Layout::default();
    let layer = tar(&[("f", b"x")]);
    let config = json!({"os": "linux", "architecture": crate::registry::manifest::Platform::host().architecture,
        "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]}});
    let manifest = json!({"schemaVersion": 2, "config": layout.add_json(CONFIG, &config),
        "layers": [layout.add(LAYER, &layer)]});
    (layout, manifest)
}

#[track_caller]
fn refused(archive: Vec<u8>, says: &str) {
    let store = Store::new();
    let error = store.load(archive).unwrap_err();
    let text = cleat_proto::kind::whole(&error);
    assert!(text.contains(says), "{text} for {says}");
    assert_eq!(error.kind(), Kind::InvalidArgument, "{text}");
    assert!(store.images.list().is_empty(), "{says}");
    assert_eq!((store.layer_dirs(), store.blobs()), (0, 0), "{says}");
}

#[test]
fn a_layout_that_lies_leaves_nothing() {
    let (layout, manifest) = good_layout();
    {
        let mut layout = layout.clone();
        let entry = layout.add_json(MANIFEST, &manifest);
        assert_eq!(Store::new().load(layout.tar(json!([entry]))).unwrap().len(), 2);
    }
    let changed = |change: &dyn Fn(&mut Value), says: &str| {
        let (mut layout, mut manifest) = (layout.clone(), manifest.clone());
        change(&mut manifest);
        let entry = layout.add_json(MANIFEST, &manifest);
        refused(layout.tar(json!([entry])), says);
    };
    changed(&|it| it["schemaVersion"] = json!(1), "schema version 1 is not 2");
    changed(&|it| it["manifests"] = json!([]), "is both an index and a manifest");
    changed(&|it| it["mediaType"] = json!(INDEX), "is not of the type");
    changed(&|it| it["config"]["mediaType"] = json!("text/x-model"), "is no image's configuration");
    changed(&|it| it["config"]["size"] = json!(3), "bytes instead of 3");
    changed(&|it| it["config"]["digest"] = json!("sha256:../../x"), "invalid digest");
    changed(&|it| it["config"]["digest"] = json!(sha(b"none")), "is not in the archive");
    changed(&|it| it["layers"] = json!([]), "layers length mismatch");
    changed(&|it| it["layers"][0]["digest"] = json!(sha(b"none")), "is not in the archive");
    let config = manifest["config"].clone();
    changed(&|it| it["layers"][0] = config.clone(), "is no tar");
    changed(&|it| drop(it.as_object_mut().unwrap().remove("layers")), "neither an index nor");
    let entry = |change: &dyn Fn(&mut Value), says: &str| {
        let mut layout = layout.clone();
        let mut entry = layout.add_json(MANIFEST, &manifest);
        change(&mut entry);
        refused(layout.tar(json!([entry])), says);
    };
    entry(&|it| it["mediaType"] = json!(INDEX), "is not of the type");
    entry(&|it| it["size"] = json!(1_u64 << 40), "bytes instead of 1099511627776");
    entry(&|it| it["size"] = json!(-1), "invalid index.json");
    entry(&|it| it["digest"] = json!(7), "invalid index.json");
    refused(layout.clone().tar(json!([])), "no image for this platform");
    // A large file, all of it JSON.
    let mut large = layout.clone();
    let spaces = [b"{".to_vec(), vec![b' '; 5 << 20], b"}".to_vec()].concat();
    let large_entry = large.add(MANIFEST, &spaces);
    refused(large.tar(json!([large_entry])), "is larger than 4194304 bytes");
}

#[test]
fn indexes_that_lead_to_each_other_or_go_deep_come_to_an_end() {
    let (mut layout, manifest) = good_layout();
    let mut entry = layout.add_json(MANIFEST, &manifest);
    for depth in 1..7 {
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        entry = layout.add_json(INDEX, &index);
        let archive = layout.clone().tar(json!([entry]));
        match depth {
            1..=4 => assert_eq!(Store::new().load(archive).unwrap().len(), 2, "{depth}"),
            _ => refused(archive, "nested too deep"),
        }
    }
    // Digests make a real circle impossible; a false one is found out.
    let (mut layout, _) = good_layout();
    let itself = json!({"mediaType": INDEX, "digest": sha(b"itself"), "size": 6});
    let mut entry = layout.add_json(INDEX, &json!({"schemaVersion": 2, "manifests": [itself]}));
    let name = format!("blobs/{}", sha(b"itself").replace(':', "/"));
    let back = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    layout.0.push((name, back.into_bytes()));
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "a:1"});
    refused(layout.tar(json!([entry])), "invalid digest of");
    // A symbolic link of the archive to itself.
    let mut files = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    files.append_link(&mut header, "index.json", "index.json").unwrap();
    refused(files.into_inner().unwrap(), "is not in the archive");
}
