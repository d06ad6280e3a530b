//! Images that lie or attack, by each way in: pull, load, import. A clear error or a harmless image, nothing half-visible, nothing
//! left after a prune, and little memory. (What registries can do wrong is in `registry.rs`, each trick of a tar by itself in the
//! daemon's own tests.)
//!
//! Where each kind of bad input is tried (`image::` and `archive::` are the daemon's own tests):
//!
//! | input | pull | load, import |
//! |---|---|---|
//! | wrong digest | `registry::a_layer_that_is_not_what_it_should_be…`, `…a_configuration_that_does_not_fit…`, `…a_manifest_that_lies…` | `image::…layout::a_layout_that_lies…`, `image::…a_layout_without_manifest_json…` |
//! | truncated blob or stream, wrong size | `registry::a_layer_that_is_not…`, here | `image::…an_archive_that_lies…`, `image::…layout::…`, here |
//! | endless body | `registry::a_layer_that_is_not…`, `…a_configuration…`, `…a_manifest…` | bounded as a bomb is |
//! | redirect elsewhere, with credentials | `registry::credentials_do_not_follow…`, `…a_redirect_to_anything_but…` | – |
//! | manifest over 4 MiB, 10,000 layers | `registry::a_manifest_that_lies…`, `…more_layers_than_any_image_has…` | `image::…layout::…`, `registry::more_layers…` |
//! | media type that lies | `registry::a_manifest_that_lies…`, here | `image::…layout::…` |
//! | cyclic or deep index | `registry::a_manifest_that_lies…` | `image::…layout::indexes_that_lead_to_each_other…` |
//! | `..`, absolute names, links out, devices, whiteouts, duplicates | here, and one by one in `archive::` | here |
//! | gzip and zstd bombs, their memory | here; the disk's reserve in `store::a_full_disk…` | here |
//! | sparse maps, extended headers, directories and names without number | `archive::a_sparse_map…`, `…an_extended_header…`, `…what_is_kept_in_memory…` | the same, and `image::…the_names_in_an_archive…` |
//! | wrong diff id | `registry::a_configuration_that_does_not_fit…` | `image::…an_archive_that_lies…` |
//! | malformed configuration | here | here |

use std::{fs, io::Write, os::unix::fs::FileTypeExt};

use cleat_tests::{FakeRegistry, Ran, TestDaemon, digest};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{
    registry::{LAYER, Served, descriptor, gzip, served, stored},
    store::layers_with,
};

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// One entry of a tar, as the format has it and no tool would write it. Source: POSIX `pax`, ustar Interchange Format.
#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a str,
    kind: u8,
    link: &'a str,
    data: &'a [u8],
    device: (u32, u32),
    /// What the header says of the length of the data.
    size: Option<u64>,
}

fn file<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
    Entry { name, kind: b'0', link: "", data, device: (0, 0), size: None }
}

fn of_kind<'a>(name: &'a str, kind: u8, link: &'a str) -> Entry<'a> {
    Entry { kind, link, ..file(name, b"") }
}

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, entry.name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", entry.size.unwrap_or(entry.data.len() as u64)).as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[entry.kind]);
        put(157, entry.link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", entry.device.0).as_bytes());
        put(337, format!("{:07o}\0", entry.device.1).as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(entry.data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// An image whose one layer is these bytes; `tar` is what they unpack to, as far as its maker says.
fn image(layer: Vec<u8>, tar: Vec<u8>) -> Served {
    let config = json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]}});
    with_config(layer, tar, serde_json::to_vec(&config).unwrap())
}

fn with_config(layer: Vec<u8>, tar: Vec<u8>, config: Vec<u8>) -> Served {
    let manifest = json!({"schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)]});
    Served { tar, layer, config, manifest }
}

/// The same image as an archive for `load`.
fn archive(image: &Served) -> Vec<u8> {
    let manifest = json!([{"Config": "config", "RepoTags": ["bad/image:1"], "Layers": ["layer"]}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    tar(&[
        file("config", &image.config),
        file("layer", &image.layer),
        file("manifest.json", &manifest),
    ])
}

/// The ways in.
const WAYS: [&str; 3] = ["pull", "load", "import"];

fn bring(daemon: &TestDaemon, image: &Served, way: &str) -> Ran {
    match way {
        "pull" => {
            let served = image.clone();
            let registry =
                FakeRegistry::start(daemon.network(), 5000, move |asked| served.answer(asked));
            daemon.docker(["pull", &registry.name("bad/image:1")])
        }
        "load" => daemon.docker_with_stdin(["load"], archive(image)),
        _ => daemon.docker_with_stdin(["import", "-", "bad/image:1"], image.layer.clone()),
    }
}

/// Nothing is listed, and after a prune nothing is left.
#[track_caller]
fn nothing_left(daemon: &TestDaemon, when: &str) {
    assert_eq!(daemon.docker(["images", "-aq"]).ok(), "", "{when}");
    daemon.docker(["image", "prune", "-f"]).ok();
    assert_eq!(stored(daemon), Vec::<String>::new(), "{when}");
}

#[test]
fn a_tar_that_reaches_out_is_refused_or_stays_inside_however_it_comes() {
    let daemon = TestDaemon::start();
    let outside = daemon.path("outside");
    fs::create_dir(&outside).unwrap();
    let secret = outside.join("secret");
    fs::write(&secret, "secret").unwrap();
    let (directory, secret_text) = (outside.to_string_lossy(), secret.to_string_lossy());
    let climbing = format!("{}{directory}/evil", "../".repeat(20));
    let refused: [(&str, Vec<Entry<'_>>, &str); 9] = [
        (
            "a file through a link out of the root",
            vec![of_kind("d", b'2', &directory), file("d/evil", b"x")],
            "cannot find the directory of",
        ),
        ("a hard link to a file outside", vec![of_kind("leak", b'1', &secret_text)], "leak"),
        (
            "a hard link through a link",
            vec![of_kind("d", b'2', &directory), of_kind("leak", b'1', "d/secret")],
            "leak",
        ),
        ("the root replaced by a file", vec![file(".", b"x")], "it would replace the root"),
        (
            "the root replaced by a link",
            vec![of_kind("a/..", b'2', &directory)],
            "replace the root",
        ),
        ("a whiteout of nothing", vec![file("k/f", b""), file("k/.wh.", b"")], "k/.wh."),
        ("a whiteout of its directory", vec![file("k/f", b""), file("k/.wh..", b"")], "k/.wh.."),
        ("a whiteout of its parent", vec![file("k/f", b""), file("k/.wh...", b"")], "k/.wh..."),
        (
            "a file that is longer than its tar",
            vec![Entry { size: Some(8 << 30), ..file("long", b"short") }],
            "unexpected EOF",
        ),
    ];
    for (what, entries, says) in &refused {
        let tar = tar(entries);
        let image = image(gzip(&tar), tar);
        for way in WAYS {
            bring(&daemon, &image, way).expect(1).says(says);
            nothing_left(&daemon, &format!("{way}: {what}"));
        }
    }
    let null = Entry { device: (1, 3), ..of_kind("null", b'3', "") };
    let accepted: [(&str, Vec<Entry<'_>>, &str); 5] = [
        ("a name that climbs", vec![file(&climbing, b"x")], climbing.trim_start_matches("../")),
        ("an absolute name", vec![file("/abs", b"x")], "abs"),
        ("a device node", vec![null], "null"),
        (
            "the same name thrice, of three kinds",
            vec![file("f", b"1"), of_kind("f", b'5', ""), file("f", b"3")],
            "f",
        ),
        (
            "whiteouts of what is below and of what is its own",
            vec![file("f", b"1"), file(".wh.f", b""), file(".wh.none", b"")],
            "f",
        ),
    ];
    for (what, entries, at) in &accepted {
        let tar = tar(entries);
        let image = image(gzip(&tar), tar);
        for way in WAYS {
            bring(&daemon, &image, way).expect(0);
            daemon.cleat(["image", "check"]).ok();
            let found = layers_with(&daemon, at.trim_start_matches('/'));
            assert_eq!(found.len(), 1, "{way}: {what}");
            let kind = found[0].symlink_metadata().unwrap().file_type();
            assert_eq!(kind.is_char_device(), *at == "null", "{way}: {what}");
            let id = daemon.docker(["images", "-aq"]).ok();
            daemon.docker(["rmi", "-f", &id]).ok();
            nothing_left(&daemon, &format!("{way}: {what}"));
        }
    }
    let names: Vec<_> =
        fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((names.len(), fs::read(&secret).unwrap()), (1, b"secret".to_vec()), "{names:?}");
}

#[test]
fn a_stream_that_ends_early_or_is_not_what_it_says_is_refused_however_it_comes() {
    let daemon = TestDaemon::start();
    let whole = tar(&[file("f", &super::registry::noise(100_000))]);
    let gz = gzip(&whole);
    let mut checksum = gz.clone();
    let at = checksum.len() - 6;
    checksum[at] ^= 1;
    let cases = [
        ("a cut tar", whole[..50_000].to_vec(), "unexpected EOF"),
        ("a cut gzip", gz[..gz.len() / 2].to_vec(), "unexpected EOF"),
        ("a gzip with another checksum", checksum, "corrupt gzip stream"),
        (
            "a zstd frame that wants a gigabyte of memory",
            window(30),
            "too much memory for decoding",
        ),
        ("a zstd frame without an end", window(20)[..8].to_vec(), "unexpected EOF"),
        ("no tar", b"garbage ".repeat(1000), "invalid tar header"),
    ];
    for (what, layer, says) in cases {
        let image = image(layer, whole.clone());
        for way in WAYS {
            bring(&daemon, &image, way).expect(1).says(says);
            nothing_left(&daemon, &format!("{way}: {what}"));
        }
    }
    // A media type that is wrong about the compression: the bytes themselves say what they are.
    let mut plain = image(whole.clone(), whole.clone());
    let mut named_zstd = image(gz, whole);
    let oci = "application/vnd.oci.image.layer.v1.tar";
    plain.manifest["layers"][0]["mediaType"] = json!(format!("{oci}+gzip"));
    named_zstd.manifest["layers"][0]["mediaType"] = json!(format!("{oci}+zstd"));
    for image in [plain, named_zstd] {
        bring(&daemon, &image, "pull").expect(0);
        daemon.cleat(["image", "check"]).ok();
        let id = daemon.docker(["images", "-aq"]).ok();
        daemon.docker(["rmi", "-f", &id]).ok();
    }
}

/// A zstd frame with a window of so many bytes (log 2), and one byte in it. Source: RFC 8878, 3.1.1.
fn window(log: u8) -> Vec<u8> {
    vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1 | 1 << 3, 0, 0, b'x']
}

#[test]
fn a_configuration_of_other_types_is_refused_by_pull_and_load() {
    let daemon = TestDaemon::start();
    let good = served(&daemon, b"hello", "amd64");
    let good_config: Value = serde_json::from_slice(&good.config).unwrap();
    let diff_id = digest(&good.tar);
    let changes: Vec<(&str, Value)> = vec![
        ("config", json!(7)),
        ("config", json!([1])),
        ("config", json!({"Env": "x"})),
        ("config", json!({"Env": [7]})),
        ("config", json!({"Cmd": {"a": 1}})),
        ("config", json!({"Labels": [1]})),
        ("config", json!({"Labels": {"a": 1}})),
        ("config", json!({"ExposedPorts": [1]})),
        ("config", json!({"Volumes": 7})),
        ("config", json!({"Healthcheck": "x"})),
        ("config", json!({"User": 9})),
        ("rootfs", json!("x")),
        ("rootfs", json!({"type": "other", "diff_ids": [diff_id]})),
        ("rootfs", json!({"type": "layers", "diff_ids": [7]})),
        ("rootfs", json!({"type": "layers", "diff_ids": ["sha256:short"]})),
        ("rootfs", json!({"type": "layers", "diff_ids": ["../../etc/passwd"]})),
        ("rootfs", json!({"type": "layers", "diff_ids": {"a": 1}})),
        ("rootfs", Value::Null),
        ("history", json!({})),
        ("history", json!([7])),
        ("history", json!([{"empty_layer": "yes"}])),
        ("os", json!(5)),
        ("architecture", json!([])),
        ("created", json!(7)),
    ];
    let broken = ["", "[]", "7", "null", "{", "{\"rootfs\":", "\u{feff}{}"];
    let broken = broken.iter().map(|text| text.as_bytes().to_vec());
    let deep = ["{\"a\":".repeat(100_000), "[".repeat(100_000)].map(String::into_bytes);
    let changed = changes.iter().map(|(key, value)| {
        let mut config = good_config.clone();
        config[*key] = value.clone();
        serde_json::to_vec(&config).unwrap()
    });
    for config in changed.chain(broken).chain(deep) {
        let text = String::from_utf8_lossy(&config[..config.len().min(200)]).into_owned();
        let bad = with_config(good.layer.clone(), good.tar.clone(), config);
        for way in ["pull", "load"] {
            let ran = bring(&daemon, &bad, way);
            assert_eq!(ran.code, 1, "{way}: {text}");
            assert!(!ran.stderr.trim().is_empty(), "{way}: {text}");
        }
    }
    nothing_left(&daemon, "after all configurations");
}

/// What the daemon may take beyond what it takes when idle, whatever it unpacks …
const UNPACKING_MAX_KIB: u64 = 40 << 10;
/// … and for a configuration of 4 MiB whose every other byte is a value.
const PARSING_MAX_KIB: u64 = 128 << 10;

fn peak_kib(daemon: &TestDaemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A tar, and behind its end so many MiB of zeros, which belong to it and need no room on the disk.
fn with_zeros<W: Write>(mut encoder: W, mebibytes: usize) -> W {
    encoder.write_all(&tar(&[file("f", b"data")])).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..mebibytes).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder
}

#[test]
fn bombs_end_at_their_limits_and_take_little_memory() {
    let daemon = TestDaemon::start();
    let idle = peak_kib(&daemon);
    let gz = with_zeros(GzEncoder::new(Vec::new(), Compression::best()), 1800).finish().unwrap();
    let zstd = with_zeros(zstd::Encoder::new(Vec::new(), 1).unwrap(), 1200).finish().unwrap();
    for (what, layer, says) in
        [("gzip", gz, "unpacks to more than"), ("zstd", zstd, "unpacks to more than")]
    {
        let image = image(layer, b"another tar".to_vec());
        for way in WAYS {
            bring(&daemon, &image, way).expect(1).says(says);
            nothing_left(&daemon, &format!("{way}: {what}"));
        }
    }
    let over = peak_kib(&daemon) - idle;
    assert!(over < UNPACKING_MAX_KIB, "{over} KiB more than idle");
    // As much JSON as is taken, of what grows most when it is read.
    for text in ["0,", "{},", "[],", "\"\","] {
        let list = text.repeat((4 << 20) / text.len() - 1000);
        let config = format!("{{\"a\":[{list}0],\"rootfs\":{{\"type\":\"none\"}}}}").into_bytes();
        let bad = with_config(gzip(&tar(&[])), tar(&[]), config);
        for way in ["pull", "load"] {
            bring(&daemon, &bad, way).expect(1);
        }
    }
    nothing_left(&daemon, "after all bombs");
    let over = peak_kib(&daemon) - idle;
    assert!(over < PARSING_MAX_KIB, "{over} KiB more than idle");
}
