//! The disk fails, fills up or loses power at each step in turn: whatever is listed afterwards is whole, and nothing else is left.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;
use crate::{
    disk::faults::{self, Fault, Loss},
    image::{Checked, Pull},
    registry::{Config, Registries, manifest::Platform},
};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Below memory if there is some: nothing here depends on the disk.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("cleat-");
    match memory.is_dir() {
        true => builder.tempdir_in(memory).unwrap(),
        false => builder.tempdir().unwrap(),
    }
}

/// As the daemon opens it at its start.
fn start(root: &Path) -> Result<Images, Error> {
    let database = Database::open(&root.join("meta.redb"))?;
    let content = Content::open(&root.join("content"))?;
    let snapshots = Snapshots::open(&root.join("snapshots"), &database)?;
    let images = Images::open(database, content, snapshots)?;
    images.sweep(&Vec::new)?;
    images.sweep_blobs()?;
    Ok(images)
}

type Act = dyn Fn(&Images) -> Result<(), Error>;

/// What is done while the disk fails, and what has to hold once it was done.
struct Case {
    name: &'static str,
    /// What was there before.
    prepare: fn(&Images),
    act: Box<Act>,
    /// The names afterwards.
    expected: Vec<String>,
}

fn import(images: &Images, name: &str, files: &[(&str, &[u8])]) -> Result<Arc<Image>, Error> {
    let reference = Some(Reference::parse(name).unwrap());
    images.import(
        stream(tar(files)),
        Import { reference, platform: Platform::host(), ..Import::default() },
    )
}

/// One image of one layer, which every other shares nothing with.
fn base(images: &Images) {
    import(images, "base:1", &[("etc/kept", b"kept"), ("gone", b"gone")]).unwrap();
}

fn names(images: &Images) -> Vec<String> {
    let mut all: Vec<String> = images.list().iter().flat_map(|image| image.tags()).collect();
    all.sort();
    all
}

/// Every image is what its digests say, and the store has nothing that no image needs.
#[track_caller]
fn whole(images: &Images, root: &Path, when: &str) {
    let mut checked: Vec<Checked> = Vec::new();
    images.check(&mut |one| checked.push(one)).unwrap();
    for one in &checked {
        assert_eq!(one.problems, [], "{when}: {one:?}");
    }
    assert_eq!(checked.len(), images.list().len(), "{when}");
    assert!(names(images).contains(&"base:1".to_owned()), "{when}: {:?}", names(images));
    let layers: std::collections::BTreeSet<String> = images
        .list()
        .iter()
        .flat_map(|image| image.layers.iter())
        .map(|layer| images.snapshots().layer(&layer.chain_id).unwrap().number.to_string())
        .collect();
    let is_number = |name: &String| name.parse::<u64>().is_ok();
    let found: std::collections::BTreeSet<String> =
        entries(&root.join("snapshots")).into_iter().filter(is_number).collect();
    assert_eq!(found, layers, "{when}");
    let blobs = images.list().len() + images.manifest_blobs().len();
    assert_eq!(images.content().list().unwrap().len(), blobs, "{when}");
}

fn entries(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

impl Case {
    /// Goes through all steps, for one way to fail.
    #[track_caller]
    fn survives(&self, fault: Fault, losses: &[Loss]) {
        for at in 1.. {
            let mut met = false;
            for loss in losses {
                met |= self.once(fault, at, *loss);
            }
            if !met {
                println!("{}: {fault:?} at {} steps", self.name, at - 1);
                assert!(at > 10, "{}: only {at} steps were counted", self.name);
                return;
            }
        }
    }

    #[track_caller]
    fn once(&self, fault: Fault, at: u64, loss: Loss) -> bool {
        let when = format!("{}, {fault:?} at step {at}, {loss:?}", self.name);
        let dir = directory();
        let root = dir.path();
        let images = start(root).unwrap();
        (self.prepare)(&images);
        drop(images);
        nix::unistd::sync();
        let faults = faults::arm(root, at, fault);
        let started = start(root);
        let done = started.and_then(|images| {
            let done = (self.act)(&images);
            if fault != Fault::End {
                faults.disarm();
                let listed = names(&images);
                assert!(listed.contains(&"base:1".to_owned()), "{when}: {listed:?}");
            }
            done
        });
        let met = faults.was_met();
        if fault == Fault::End {
            faults.power_cut(loss).unwrap();
        }
        faults.disarm();
        if !met {
            done.unwrap();
        }
        // A second end in the middle of the recovery.
        if fault == Fault::End {
            let again = faults::arm(root, 1 + at % 5, Fault::End);
            drop(start(root));
            again.power_cut(loss).unwrap();
            again.disarm();
        }
        let images = start(root).unwrap_or_else(|error| panic!("{when}: {error}"));
        whole(&images, root, &when);
        // What was not done can be done now.
        if names(&images) != self.expected {
            (self.act)(&images).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
        assert_eq!(names(&images), self.expected, "{when}");
        images.content().remove_partials(&|_| false).unwrap();
        whole(&images, root, &when);
        met
    }

    #[track_caller]
    fn survives_all(&self) {
        self.survives(Fault::Once, &[Loss::Names]);
        self.survives(Fault::Full, &[Loss::Names]);
        self.survives(Fault::End, &[Loss::Names, Loss::Bytes]);
    }
}

#[test]
fn a_load_survives_any_disk() {
    let layers: [Vec<u8>; 2] = [tar(&[("a", b"1"), ("d/b", &[7; 5000])]), tar(&[("c", b"3")])];
    let archive = good("loaded:1", &[&layers[0], &layers[1]]);
    let case = Case {
        name: "load",
        prepare: base,
        act: Box::new(move |images| {
            images.load(stream(archive.clone()), None, &mut |_| {}).map(drop)
        }),
        expected: vec!["base:1".into(), "loaded:1".into()],
    };
    case.survives_all();
}

/// What is left of each name's index is whole: no more is missing than before, and nothing is shown alone.
fn platforms(images: &Images) -> Vec<String> {
    let families = images.families().into_iter();
    let mut all: Vec<String> = families
        .map(|family| {
            let of = |image: &Arc<Image>| image.architecture.clone();
            let mut architectures: Vec<String> = family.images.iter().map(of).collect();
            architectures.sort();
            format!("{} {}", family.image.tags().join(","), architectures.join(","))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_load_of_several_platforms_survives_any_disk() {
    let host = Platform::host().architecture;
    let archive = super::platforms::several("loaded:1", &["s390x", &host], &[]);
    let wanted = format!("loaded:1 {host},s390x");
    let case = Case {
        name: "load of several platforms",
        prepare: base,
        act: Box::new(move |images| {
            images.load(stream(archive.clone()), None, &mut |_| {})?;
            assert!(platforms(images).contains(&wanted), "{:?}", platforms(images));
            Ok(())
        }),
        expected: vec!["base:1".into(), "loaded:1".into(), "loaded:1".into()],
    };
    case.survives_all();
}

#[test]
fn a_removal_of_several_platforms_survives_any_disk() {
    let case = Case {
        name: "rmi of several platforms",
        prepare: |images| {
            base(images);
            let host = Platform::host().architecture;
            let archive = super::platforms::several("other:1", &["s390x", &host], &[]);
            images.load(stream(archive), None, &mut |_| {}).unwrap();
        },
        act: Box::new(|images| {
            let options = RemoveOptions { force: true, keep_parents: false };
            let platform = super::platforms::platform("s390x");
            match images.remove_platform("other:1", &platform, options, &|| Vec::new()) {
                Err(Error::NotFound(_) | Error::OtherPlatform { .. }) => {}
                other => drop(other?),
            }
            match images.remove("other:1", options, &|| Vec::new()) {
                Err(Error::NotFound(_)) => {
                    // The name went without its image: a prune takes that.
                    images.prune(&|image| image.is_dangling(), &|| Vec::new()).map(drop)
                }
                other => other.map(drop),
            }
        }),
        expected: vec!["base:1".into()],
    };
    case.survives_all();
}

#[test]
fn a_commit_survives_any_disk() {
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("new"), b"333").unwrap();
    let case = Case {
        name: "commit",
        prepare: base,
        act: Box::new(move |images| {
            let base = images.resolve("base:1")?;
            let commit = super::super::Commit {
                top_layer: base.top_layer().cloned(),
                parent: Some(base.id.clone()),
                reference: Some(Reference::parse("made:1").unwrap()),
                ..super::super::Commit::default()
            };
            images.commit_container(upper.path(), commit).map(drop)
        }),
        expected: vec!["base:1".into(), "made:1".into()],
    };
    case.survives_all();
}

#[test]
fn a_removal_survives_any_disk() {
    let case = Case {
        name: "rmi",
        prepare: |images| {
            base(images);
            import(images, "other:1", &[("f", b"1")]).unwrap();
        },
        act: Box::new(|images| {
            let options = RemoveOptions { force: false, keep_parents: false };
            match images.remove("other:1", options, &|| Vec::new()) {
                // The name went, and with the next start the rest.
                Err(Error::NotFound(_)) => Ok(()),
                other => other.map(drop),
            }
        }),
        expected: vec!["base:1".into()],
    };
    case.survives_all();
}

#[test]
fn a_prune_survives_any_disk() {
    let case = Case {
        name: "prune",
        prepare: |images| {
            base(images);
            let image = import(images, "other:1", &[("f", b"1")]).unwrap();
            images.untag(&images.turn(), &image.references).unwrap();
        },
        act: Box::new(|images| {
            images.prune(&|image| image.is_dangling(), &|| Vec::new()).map(drop)
        }),
        expected: vec!["base:1".into()],
    };
    case.survives_all();
}

#[test]
fn what_a_policy_takes_survives_any_disk() {
    let case = Case {
        name: "collect",
        prepare: |images| {
            base(images);
            let image = import(images, "other:1", &[("f", b"1")]).unwrap();
            images.tag(&image.id, Reference::parse("another:1").unwrap()).unwrap();
        },
        act: Box::new(|images| {
            let base = images.resolve("base:1")?;
            let user = Use {
                container: "c".repeat(64),
                image: base.id.to_string(),
                top_layer: base.top_layer().cloned(),
                running: false,
            };
            let max_unused = Some(std::time::Duration::from_nanos(1));
            let policy = crate::gc::Policy { max_unused, disk_percent: None };
            let now = crate::event::now_nanos() + 1_000_000_000;
            images.collect(policy, now, &|| vec![user.clone()], &mut |_| {})
        }),
        expected: vec!["base:1".into()],
    };
    case.survives_all();
}

/// Serves one image over HTTP, blobs by range as well, and counts the bytes of blobs that went out.
struct Server {
    address: String,
    sent: Arc<AtomicUsize>,
}

fn serve(blobs: Vec<(String, Vec<u8>)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (blobs, sent) = (Arc::new(blobs), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (blobs, counted) = (Arc::clone(&blobs), Arc::clone(&counted));
            std::thread::spawn(move || answer(&stream, &blobs, &counted));
        }
    });
    Server { address, sent }
}

fn answer(mut stream: &TcpStream, blobs: &[(String, Vec<u8>)], sent: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let range = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_range = name.eq_ignore_ascii_case("range");
        is_range
            .then(|| value.trim().trim_start_matches("bytes=").split('-').next()?.parse().ok())?
    });
    let found = blobs.iter().find(|(end, _)| path.ends_with(end.as_str()));
    // Each document says what it is.
    let kinds = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];
    let says = |kind: &&str| {
        let text = found.map(|(_, body)| String::from_utf8_lossy(body)).unwrap_or_default();
        text.contains(&format!("\"mediaType\":\"{kind}\""))
    };
    let kind = kinds.into_iter().find(says).unwrap_or("application/octet-stream");
    let (status, from, body): (&str, usize, &[u8]) = match (found, range) {
        (Some((_, body)), None) => ("200 OK", 0, body),
        (Some((_, body)), Some(from)) => ("206 Partial", from, body),
        (None, _) if path == "/v2/" => ("200 OK", 0, b"{}"),
        (None, _) => ("404 None", 0, b"{}"),
    };
    let part = &body[from.min(body.len())..];
    let end = body.len().saturating_sub(1);
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{end}/{}\r\n\r\n",
        part.len(),
        body.len()
    );
    if path.contains("/blobs/") && lines[0].starts_with("GET") {
        sent.fetch_add(part.len(), Ordering::SeqCst);
    }
    let _ = stream.write_all(head.as_bytes());
    if !lines[0].starts_with("HEAD") {
        let _ = stream.write_all(part);
    }
    // What the client still sends is not to reset what it still reads.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.take(1 << 16).read_to_end(&mut Vec::new());
}

/// A pull's server, and what one pull of it sends.
fn pulled(layers: &[Vec<u8>]) -> Server {
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha(layer)).collect();
    let config = json!({"os": "linux", "architecture": Platform::host().architecture,
        "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let described = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "size": bytes.len(), "digest": sha(bytes)});
    let layer_kind = "application/vnd.docker.image.rootfs.diff.tar";
    let manifest = json!({"schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": described("application/vnd.docker.container.image.v1+json", &config),
        "layers": layers.iter().map(|layer| described(layer_kind, layer)).collect::<Vec<_>>()});
    let mut blobs = vec![("/manifests/1".to_owned(), manifest.to_string().into_bytes())];
    blobs.extend([&config].into_iter().chain(layers).map(|blob| (sha(blob), blob.clone())));
    serve(blobs)
}

fn pull(images: &Images, address: &str) -> Result<(), Error> {
    pull_for(images, address, false)
}

fn pull_for(images: &Images, address: &str, all_platforms: bool) -> Result<(), Error> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let reference = Reference::parse(&format!("{address}/pulled:1")).unwrap();
    let config = Config { insecure: vec!["127.0.0.0/8".into()], ..Config::default() };
    let registries = Registries::new(config);
    let pull = Pull { reference, platform: None, all_platforms, credentials: Default::default() };
    runtime.block_on(images.pull(&registries, pull, Arc::new(|_| {}))).map(drop)
}

#[test]
fn a_pull_survives_any_disk() {
    let layers = [tar(&[("a", b"1"), ("d/b", &[7; 5000])]), tar(&[("c", b"3")])];
    let server = pulled(&layers);
    let address = server.address.clone();
    let case = Case {
        name: "pull",
        prepare: base,
        expected: vec![format!("{address}/pulled:1"), "base:1".into()],
        act: Box::new(move |images| pull(images, &address)),
    };
    case.survives_all();
}

/// A pull's server of an index of two platforms.
fn pulled_index(architectures: [&str; 2]) -> Server {
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    for architecture in architectures {
        let layer = tar(&[(architecture, &[7; 3000])]);
        let config = json!({"os": "linux", "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]}});
        let config = config.to_string().into_bytes();
        let described = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "size": bytes.len(), "digest": sha(bytes)});
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": described("config.v1+json", &config),
            "layers": [described("layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        manifests.push(json!({"mediaType": OCI_MANIFEST, "size": manifest.len(),
            "digest": sha(&manifest), "platform": {"os": "linux", "architecture": architecture}}));
        blobs.extend([layer, config, manifest].map(|blob| (sha(&blob), blob)));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    blobs.push(("/manifests/1".to_owned(), index.to_string().into_bytes()));
    serve(blobs)
}

#[test]
fn a_pull_of_several_platforms_survives_any_disk() {
    let host = Platform::host().architecture;
    let server = pulled_index(["s390x", &host]);
    let address = server.address.clone();
    let name = format!("{address}/pulled:1");
    let wanted = format!("{name} {host},s390x");
    let case = Case {
        name: "pull of several platforms",
        prepare: base,
        expected: vec![name.clone(), name, "base:1".into()],
        act: Box::new(move |images| {
            pull_for(images, &address, true)?;
            assert!(platforms(images).contains(&wanted), "{:?}", platforms(images));
            Ok(())
        }),
    };
    case.survives_all();
}

#[test]
fn a_pull_waits_for_the_disk_as_often_whatever_it_brings() {
    for count in [1, 2, 20] {
        let layers = (0..count).map(|n| tar(&[("a", &[n; 5000]), ("b", &[n])]));
        let server = pulled(&layers.collect::<Vec<_>>());
        let dir = directory();
        let faults = faults::arm(dir.path(), u64::MAX, Fault::Once);
        let images = start(dir.path()).unwrap();
        let before = faults.syncs();
        pull(&images, &server.address).unwrap();
        faults.disarm();
        let syncs = faults.syncs();
        // All layers at once; the configuration and its name.
        let directories = syncs.directories - before.directories;
        assert_eq!((syncs.all - before.all, directories), (1, 1), "{count} layers");
        assert_eq!(syncs.files - before.files, 1, "{count} layers");
    }
}

#[test]
fn a_second_pull_fetches_only_what_is_missing() {
    let layers = [tar(&[("a", &[1; 300_000])]), tar(&[("b", &[2; 300_000])])];
    let whole: usize = layers.iter().map(Vec::len).sum();
    // What the first still sends to a pull that is over is not to count for the second.
    let (first, second) = (pulled(&layers), pulled(&layers));
    let mut most = 0;
    for at in 1.. {
        let dir = directory();
        drop(start(dir.path()).unwrap());
        // The daemon alone ends: what was written stays.
        let faults = faults::arm(dir.path(), at, Fault::End);
        let done = start(dir.path()).and_then(|images| pull(&images, &first.address));
        faults.disarm();
        let images = start(dir.path()).unwrap();
        let kept = images.content().partial_bytes() as usize;
        second.sent.store(0, Ordering::SeqCst);
        pull(&images, &second.address).unwrap();
        let sent = second.sent.load(Ordering::SeqCst);
        // The configuration comes once more.
        assert!(sent < whole - kept + 1000, "step {at}: {sent} of {whole}, {kept} were there");
        most = most.max(kept);
        if !faults.was_met() {
            done.unwrap();
            break;
        }
    }
    assert_eq!(most, whole, "at some step all was there but the record");
}
