//! pull, push, login: against Debian's registry, and against one that behaves badly.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use cleat_tests::{
    Answer, Asked, FakeRegistry, Options, Registry, TestDaemon, digest, run, wait_for,
};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

pub(super) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// `joe:secret`
pub(super) const PASSWORDS: &str =
    "joe:$2y$05$up/wz0y30UfjmRQmarp99.MNh6E6RBF9ODBetvEuE.eRAwvtaSzCu\n";

/// An image as a registry has it.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) tar: Vec<u8>,
    pub(super) layer: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) manifest: Value,
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns the tar of one file.
pub(super) fn tar(daemon: &TestDaemon, name: &str, content: &[u8]) -> Vec<u8> {
    let dir = daemon.path("tar");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), content).unwrap();
    run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", "-", name])).expect(0).stdout
}

/// Bytes that do not compress.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "size": bytes.len(), "digest": digest(bytes)})
}

pub(super) fn served(daemon: &TestDaemon, content: &[u8], architecture: &str) -> Served {
    let tar = tar(daemon, "file", content);
    let layer = gzip(&tar);
    let config = json!({"os": "linux", "architecture": architecture, "config": {"Cmd": ["/file"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]}});
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", &config),
        "layers": [descriptor(LAYER, &layer)]});
    Served { tar, layer, config, manifest }
}

impl Served {
    pub(super) fn manifest_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.manifest).unwrap()
    }

    /// Answers as a good registry would, whatever the repository.
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        let manifest = self.manifest_bytes();
        if asked.path == "/v2/" {
            return Answer::ok("{}");
        }
        if asked.path.contains("/manifests/") {
            return Answer::ok(manifest).with("Content-Type", MANIFEST);
        }
        match [&self.layer, &self.config].into_iter().find(|blob| digest(blob) == last) {
            Some(blob) => ranged(asked, blob),
            None => Answer::status(404),
        }
    }
}

/// As much of a blob as the client wants.
pub(super) fn ranged(asked: &Asked, blob: &[u8]) -> Answer {
    match wanted(asked, blob.len()) {
        None => Answer::ok(blob),
        Some(range) => {
            let told = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len());
            Answer { status: 206, ..Answer::ok(&blob[range]) }.with("Content-Range", told)
        }
    }
}

/// What a request wants of a blob of that length, if not all of it.
pub(super) fn wanted(asked: &Asked, length: usize) -> Option<std::ops::Range<usize>> {
    let (start, last) = asked.header("range").strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..last.parse::<usize>().map_or(length, |last| last + 1))
}

pub(super) fn is_blob(asked: &Asked, blob: &[u8]) -> bool {
    asked.method == "GET" && asked.path.ends_with(&format!("/blobs/{}", digest(blob)))
}

/// Everything that the store has: blobs, ingests and numbered layers.
pub(super) fn stored(daemon: &TestDaemon) -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["root/content/blobs/sha256", "root/content/ingest", "root/snapshots"] {
        let entries = std::fs::read_dir(daemon.path(directory)).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(
            names.filter(|name| !["active", "init", "nursery", "trash"].contains(&name.as_str())),
        );
    }
    found
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let daemon = TestDaemon::with_busybox();
    let registry = Registry::start(&daemon, 5000);
    let name = registry.name("a/busybox:1");
    let id = daemon.inspect("busybox", ".Id");
    daemon.docker(["tag", "busybox", &name]).ok();
    let pushed = daemon.docker(["push", &name]).ok();
    let digest = pushed.split("digest: ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(pushed.contains("Pushed"), "{pushed}");
    let again = daemon.docker(["push", &name]).ok();
    assert!(again.contains("Layer already exists") && again.contains(&digest), "{again}");
    let neighbour = registry.name("b/busybox:2");
    daemon.docker(["tag", "busybox", &neighbour]).ok();
    let mounted = daemon.docker(["push", &neighbour]).ok();
    assert!(mounted.contains("Mounted from a/busybox") && mounted.contains(&digest), "{mounted}");

    daemon.docker(["rmi", "busybox", &name, &neighbour]).ok();
    assert_eq!(stored(&daemon), Vec::<String>::new());
    // `run` pulls what is missing.
    assert_eq!(daemon.docker(["run", "--rm", &name, "echo", "back"]).ok(), "back");
    assert_eq!(daemon.inspect(&name, ".Id"), id);
    let by_digest = format!("{}@{digest}", registry.name("a/busybox"));
    assert_eq!(daemon.inspect(&name, "index .RepoDigests 0"), by_digest);
    let pulled = daemon.docker(["pull", &name]).ok();
    assert!(pulled.contains(&format!("Status: Image is up to date for {name}")), "{pulled}");
    // The very blob that was pulled.
    let again = daemon.docker(["push", &name]).ok();
    assert!(again.contains("Layer already exists") && again.contains(&digest), "{again}");

    daemon.docker(["rmi", &name]).ok();
    let pulled = daemon.docker(["pull", &by_digest]).ok();
    assert!(pulled.starts_with(&format!("{by_digest}: Pulling from a/busybox\n")), "{pulled}");
    assert!(
        pulled.contains(&format!("Status: Downloaded newer image for {by_digest}")),
        "{pulled}"
    );
    // What is for another machine alone comes all the same, and is warned of at the end.
    let other = daemon.docker(["pull", "--platform", "linux/s390x", &by_digest]).ok();
    let last: Vec<&str> = other.lines().rev().take(3).collect();
    assert!(last[2].starts_with("Status: Image is up to date"), "{other}");
    assert!(
        last[1].starts_with("WARNING: image with reference") && last[1].ends_with("(linux/s390x)"),
        "{other}"
    );
    daemon.docker(["pull", "-q", "-a", &registry.name("b/busybox")]).ok();
    assert_eq!(daemon.inspect(&neighbour, ".Id"), id);
    assert_eq!(daemon.docker(["images", "-q", "--no-trunc"]).ok().lines().next(), Some(&*id));
}

#[test]
fn an_image_of_another_platform_is_not_pushed_as_what_it_is_not() {
    let daemon = TestDaemon::with_busybox();
    let registry = Registry::start(&daemon, 5000);
    let name = registry.name("a/b:1");
    daemon.docker(["tag", "busybox", &name]).ok();
    let own = format!("linux/{}", daemon.inspect(&name, ".Architecture"));
    daemon.docker(["push", "--platform", "linux/s390x", &name]).expect(1).says(&format!(
        "image with reference {name} was found but its platform ({own}) does not match the specified platform (linux/s390x)"
    ));
    daemon.docker(["push", "--platform", &own, &name]).ok();
    let missing = registry.name("a/b:2");
    daemon
        .docker(["push", "--platform", &own, &missing])
        .expect(1)
        .says(&format!("No such image: {missing}"));
}

#[test]
fn what_a_registry_does_not_have_is_told_in_dockers_words() {
    let daemon = TestDaemon::with_busybox();
    let registry = Registry::start(&daemon, 5000);
    let name = registry.name("a/b:1");
    daemon.docker(["tag", "busybox", &name]).ok();
    daemon.docker(["push", &name]).ok();
    let missing = registry.name("a/b:2");
    let text = format!("manifest for {missing} not found: manifest unknown: manifest unknown");
    daemon.docker(["pull", &missing]).expect(1).says(&text);
    daemon.docker(["push", &missing]).expect(1).says(&format!("tag does not exist: {missing}"));
    daemon.docker(["pull", "127.0.0.1:5999/a:1"]).expect(1).says(
        "Get \"http://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused",
    );
    daemon.docker(["search", &registry.name("a")]).expect(1).says("Unexpected status code 404");
}

#[test]
fn a_registry_with_passwords_takes_a_login() {
    let daemon = TestDaemon::with_busybox();
    let registry = with_passwords(&daemon, 5001);
    let name = registry.name("a/b:1");
    daemon.docker(["tag", "busybox", &name]).ok();
    daemon.docker(["push", &name]).expect(1).says("no basic auth credentials");
    let login = ["login", "-u", "joe", "--password-stdin", "127.0.0.1:5001"];
    daemon.docker_with_stdin(login, b"wrong".to_vec()).expect(1).says("401 Unauthorized");
    let text = daemon.docker_with_stdin(login, b"secret".to_vec()).ok();
    assert!(text.contains("Login Succeeded"), "{text}");
    daemon.docker(["push", &name]).ok();
    daemon.docker(["rmi", &name, "busybox"]).ok();
    daemon.docker(["pull", &name]).ok();
    daemon.docker(["logout", "127.0.0.1:5001"]).ok();
    daemon.docker(["pull", &name]).expect(1).says("no basic auth credentials");
}

/// Starts a registry that takes `joe:secret` alone.
fn with_passwords(daemon: &TestDaemon, port: u16) -> Registry {
    let passwords = daemon.path("htpasswd");
    std::fs::write(&passwords, PASSWORDS).unwrap();
    let auth = format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", passwords.display());
    Registry::with(daemon, port, &auth)
}

#[test]
fn our_own_client_logs_in_pushes_and_pulls() {
    let daemon = TestDaemon::with_busybox();
    let registry = with_passwords(&daemon, 5001);
    let name = registry.name("a/b:1");
    daemon.cleat(["tag", "busybox", &name]).ok();
    daemon.cleat(["push", &name]).expect(1).says("no basic auth credentials");
    let login = |password| daemon.cleat(["login", "-u", "joe", "-p", password, "127.0.0.1:5001"]);
    login("wrong").expect(1).says("401 Unauthorized");
    assert_eq!(login("secret").ok(), "Login Succeeded");
    let file = daemon.path("docker-config/config.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let pushed = daemon.cleat(["push", &name]).ok();
    assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
    daemon.cleat(["rmi", &name, "busybox"]).ok();
    let pulled = daemon.cleat(["pull", &name]).ok();
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {name}")), "{pulled}");
    daemon.cleat(["logout", "127.0.0.1:5001"]).ok();
    daemon.cleat(["pull", &name]).expect(1).says("no basic auth credentials");
    daemon.cleat(["search", &registry.name("a")]).expect(1).says("Unexpected status code 404");
}

#[test]
fn a_credential_helper_keeps_what_our_own_client_is_told() {
    let daemon = TestDaemon::with_busybox();
    let registry = with_passwords(&daemon, 5001);
    let name = registry.name("a/b:1");
    let (helpers, kept) = (daemon.path("helpers"), daemon.path("kept"));
    std::fs::create_dir_all(&helpers).unwrap();
    let script = format!(
        "#!/bin/sh\ncase $1 in store) cat > {0};; get) cat {0};; erase) rm {0};; esac\n",
        kept.display()
    );
    let helper = helpers.join("docker-credential-test");
    std::fs::write(&helper, script).unwrap();
    run(Command::new("chmod").arg("755").arg(&helper)).expect(0);
    let config = daemon.path("docker-config");
    std::fs::create_dir_all(&config).unwrap();
    let file = config.join("config.json");
    std::fs::write(&file, r#"{"credsStore": "test"}"#).unwrap();
    let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
    let cleat = |args: &[&str]| run(daemon.cleat_command().env("PATH", &path).args(args));
    cleat(&["login", "-u", "joe", "-p", "secret", "127.0.0.1:5001"]).ok();
    assert!(!std::fs::read_to_string(&file).unwrap().contains("auth\":"), "the helper has it");
    cleat(&["tag", "busybox", &name]).ok();
    cleat(&["push", &name]).ok();
    cleat(&["logout", "127.0.0.1:5001"]).ok();
    assert!(!kept.exists());
    cleat(&["push", &name]).expect(1).says("no basic auth credentials");
}

#[test]
fn a_token_is_fetched_by_scope_and_used_until_it_is_refused() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let good = image.clone();
    let tokens = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tokens);
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if asked.path.starts_with("/token") {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::ok(format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        // The first token is worth nothing any more when the layer is asked for.
        let wanted = if is_blob(asked, &good.layer) { "Bearer t2" } else { "Bearer t" };
        if asked.header("authorization").starts_with(wanted) {
            return good.answer(asked);
        }
        Answer::status(401).with(
            "WWW-Authenticate",
            "Bearer realm=\"http://127.0.0.1:5000/token\",service=\"s\",scope=\"x\"",
        )
    });
    daemon.docker(["pull", &registry.name("a/b:1")]).ok();
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    let asked = registry.asked();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert_eq!(token.path, "/token?service=s&scope=repository%3Aa%2Fb%3Apull");
}

#[test]
fn a_registry_that_never_takes_a_token_is_not_asked_for_ever() {
    let daemon = TestDaemon::start();
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if asked.path.starts_with("/token") {
            return Answer::ok(r#"{"token":"t"}"#);
        }
        Answer::status(401)
            .with("WWW-Authenticate", "Bearer realm=\"http://127.0.0.1:5000/token\",service=\"s\"")
    });
    daemon
        .docker(["pull", &registry.name("a/b:1")])
        .expect(1)
        .says("unauthorized: authentication required");
    assert!(registry.asked().len() < 10, "{:?}", registry.asked());
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let elsewhere = image.clone();
    let other = FakeRegistry::start(daemon.network(), 5001, move |asked| elsewhere.answer(asked));
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if asked.header("authorization").is_empty() {
            return Answer::status(401).with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if is_blob(asked, &image.layer) {
            return Answer::status(307)
                .with("Location", format!("http://127.0.0.1:5001{}", asked.path));
        }
        image.answer(asked)
    });
    let login = ["login", "-u", "joe", "--password-stdin", "127.0.0.1:5000"];
    daemon.docker_with_stdin(login, b"secret".to_vec()).ok();
    daemon.docker(["pull", &registry.name("a/b:1")]).ok();
    let asked = other.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), "");
}

#[test]
fn the_manifest_of_the_platform_is_chosen() {
    let daemon = TestDaemon::start();
    let (host, other) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64"),
        _ => ("amd64", "arm64"),
    };
    let ours = served(&daemon, b"ours", host);
    let theirs = served(&daemon, b"theirs", other);
    let entry = |image: &Served, architecture: &str| {
        let mut entry = descriptor(MANIFEST, &image.manifest_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&theirs, other), entry(&ours, host)]});
    let index = serde_json::to_vec(&index).unwrap();
    let top = digest(&index);
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if asked.path.ends_with("/manifests/1") {
            return Answer::ok(index.clone()).with("Content-Type", INDEX);
        }
        let images = [&ours, &theirs];
        let found = images.iter().find(|image| {
            let names = [&image.manifest_bytes(), &image.layer, &image.config].map(|b| digest(b));
            names.iter().any(|name| asked.path.ends_with(name.as_str()))
        });
        found.unwrap_or(&&ours).answer(asked)
    });
    let name = registry.name("a/b:1");
    daemon.docker(["pull", &name]).ok();
    assert_eq!(daemon.inspect(&name, ".Architecture"), host);
    let digests = daemon.inspect(&name, "index .RepoDigests 0");
    assert_eq!(digests, format!("{}@{top}", registry.name("a/b")));
    daemon.docker(["pull", "--platform", &format!("linux/{other}"), &name]).ok();
    // One more of the same name, which leads to that of this machine.
    assert_eq!(daemon.inspect(&name, ".Architecture"), host);
    let inspect = ["image", "inspect", "--platform", other, "-f", "{{.Architecture}}", &name];
    assert_eq!(daemon.docker(inspect).ok().trim(), other);
    daemon
        .docker(["pull", "--platform", "linux/s390x", &name])
        .expect(1)
        .says("no matching manifest for linux/s390x in the manifest list entries");
}

#[test]
fn a_lost_connection_is_gone_on_with_where_it_broke() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, &noise(3_000_000), "amd64");
    let good = image.clone();
    let losses = AtomicUsize::new(0);
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let answer = good.answer(asked);
        match is_blob(asked, &good.layer) {
            true if losses.fetch_add(1, Ordering::SeqCst) < 2 => {
                Answer { cut: Some(1_000_000), ..answer }
            }
            _ => answer,
        }
    });
    daemon.docker(["pull", &registry.name("a/b:1")]).ok();
    let asked = registry.asked();
    let blobs: Vec<&str> = asked
        .iter()
        .filter(|asked| is_blob(asked, &image.layer))
        .map(|asked| asked.header("range"))
        .collect();
    assert_eq!(blobs, ["", "bytes=1000000-", "bytes=2000000-"]);
}

#[test]
fn a_pull_that_dies_with_the_daemon_fetches_only_what_is_missing() {
    let mut daemon = TestDaemon::start();
    let image = served(&daemon, &noise(3_000_000), "amd64");
    let good = image.clone();
    // The first answer stands still in the middle until the daemon is dead.
    let dead = Arc::new((Mutex::new(false), Condvar::new()));
    let (watched, first) = (Arc::clone(&dead), AtomicUsize::new(0));
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let answer = good.answer(asked);
        if is_blob(asked, &good.layer) && first.fetch_add(1, Ordering::SeqCst) == 0 {
            return Answer { cut: Some(2_000_000), ..answer };
        }
        if is_blob(asked, &good.layer) {
            let mut is_dead = watched.0.lock().unwrap();
            while !*is_dead {
                is_dead = watched.1.wait(is_dead).unwrap();
            }
        }
        answer
    });
    let name = registry.name("a/b:1");
    let mut pull =
        daemon.docker_command().args(["pull", &name]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the second request", || {
        let asked = registry.asked();
        (asked.iter().filter(|asked| is_blob(asked, &image.layer)).count() == 2).then_some(())
    });
    daemon.kill();
    assert!(!pull.wait().unwrap().success());
    *dead.0.lock().unwrap() = true;
    dead.1.notify_all();
    daemon.spawn();
    assert_eq!(daemon.docker(["images", "-aq"]).ok(), "");
    daemon.docker(["pull", &name]).ok();
    let asked = registry.asked();
    let last = asked.iter().rfind(|asked| is_blob(asked, &image.layer)).unwrap();
    assert_eq!(last.header("range"), "bytes=2000000-");
    daemon.docker(["rmi", &name]).ok();
    assert_eq!(stored(&daemon), Vec::<String>::new());
}

#[test]
fn two_pulls_of_the_same_share_one_download() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let good = image.clone();
    // The layer comes when both have asked for its configuration.
    let both = Arc::new((Mutex::new(0), Condvar::new()));
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let (count, changed) = &*both;
        let mut configs = count.lock().unwrap();
        if is_blob(asked, &good.config) {
            *configs += 1;
            changed.notify_all();
        }
        while is_blob(asked, &good.layer) && *configs < 2 {
            configs = changed.wait(configs).unwrap();
        }
        good.answer(asked)
    });
    let names = [registry.name("a/b:1"), registry.name("c/d:1")];
    let pulls = names.each_ref().map(|name| {
        daemon.docker_command().args(["pull", name]).stdout(Stdio::null()).spawn().unwrap()
    });
    for mut pull in pulls {
        assert!(pull.wait().unwrap().success());
    }
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|asked| is_blob(asked, &image.layer)).count(), 1);
    assert_eq!(daemon.inspect(&names[0], ".Id"), daemon.inspect(&names[1], ".Id"));
}

/// Pulls from a registry that is good but for one answer, and checks what is said and that nothing is left.
#[track_caller]
fn bad(
    daemon: &TestDaemon,
    image: &Served,
    change: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static,
    says: &str,
) {
    let good = image.clone();
    let registry =
        FakeRegistry::start(daemon.network(), 5000, move |asked| change(asked, good.answer(asked)));
    daemon.docker(["pull", &registry.name("bad/image:1")]).expect(1).says(says);
    assert_eq!(daemon.docker(["images", "-aq"]).ok(), "", "{says}");
    daemon.docker(["image", "prune", "-f"]).ok();
    assert_eq!(stored(daemon), Vec::<String>::new(), "{says}");
}

/// Bad only where the layer's blob is asked for.
fn bad_layer(
    image: &Served,
    change: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static {
    let layer = image.layer.clone();
    move |asked, answer| if is_blob(asked, &layer) { change(answer) } else { answer }
}

fn bad_manifest(bytes: Vec<u8>) -> impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static {
    move |asked, answer| match asked.path.contains("/manifests/") {
        true => Answer { body: bytes.clone(), ..answer },
        false => answer,
    }
}

#[test]
fn a_layer_that_is_not_what_it_should_be_leaves_nothing() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, &noise(100_000), "amd64");
    let changed = |position: usize| {
        move |mut answer: Answer| {
            answer.body[position] ^= 1;
            answer
        }
    };
    let name = digest(&image.layer);
    let verification = format!("filesystem layer verification failed for digest {name}");
    bad(&daemon, &image, bad_layer(&image, changed(50_000)), &verification);
    // Not even a tar, and still it is the digest that is told of.
    bad(&daemon, &image, bad_layer(&image, changed(0)), &verification);
    let longer = |answer: Answer| Answer { body: [answer.body, vec![0; 9]].concat(), ..answer };
    bad(&daemon, &image, bad_layer(&image, longer), &format!("layer {name} has"));
    let endless = |answer: Answer| Answer { endless: true, ..answer };
    bad(&daemon, &image, bad_layer(&image, endless), &format!("layer {name} has"));
    let short = |answer: Answer| Answer { body: answer.body[..50_000].to_vec(), ..answer };
    bad(&daemon, &image, bad_layer(&image, short), &format!("layer {name} has 50000 bytes"));
    let truncated = |answer: Answer| Answer {
        cut: Some(answer.body.len().min(1000)),
        claim: Some(answer.body.len() as u64),
        ..answer
    };
    let never = {
        let layer = image.layer.clone();
        move |asked: &Asked, answer: Answer| match is_blob(asked, &layer) {
            // Whatever the range: nothing more comes.
            true if !asked.header("range").is_empty() => Answer { cut: Some(0), ..answer },
            true => truncated(answer),
            false => answer,
        }
    };
    bad(&daemon, &image, never, "the connection was lost");
}

#[test]
fn a_layer_that_no_disk_has_room_for_is_refused_before_it_comes() {
    let daemon = TestDaemon::start();
    let mut image = served(&daemon, b"hello", "amd64");
    image.manifest["layers"][0]["size"] = json!(1_u64 << 50);
    let served = image.clone();
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| served.answer(asked));
    let ran = daemon.docker(["pull", &registry.name("bad/image:1")]);
    ran.expect(1).says("no space left on device");
    assert!(!registry.asked().iter().any(|asked| is_blob(asked, &image.layer)));
    assert_eq!(stored(&daemon), Vec::<String>::new());
}

#[test]
fn a_configuration_that_does_not_fit_leaves_nothing() {
    let daemon = TestDaemon::start();
    let mut image = served(&daemon, b"hello", "amd64");
    let with_config = |image: &Served, config: Value| {
        let config = serde_json::to_vec(&config).unwrap();
        let mut changed = image.clone();
        changed.manifest["config"] =
            descriptor("application/vnd.docker.container.image.v1+json", &config);
        changed.config = config;
        changed
    };
    let good = |_: &Asked, answer| answer;
    let rootfs = |ids: Value| json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
    let wrong = with_config(&image, rootfs(json!([digest(b"other")])));
    bad(&daemon, &wrong, good, "layers from manifest don't match image configuration");
    let fewer = with_config(&image, rootfs(json!([])));
    bad(&daemon, &fewer, good, "layers from manifest don't match image configuration");
    let windows = with_config(&image, json!({"os": "windows", "rootfs": {"type": "layers"}}));
    bad(&daemon, &windows, good, "cannot download image with operating system");
    bad(&daemon, &with_config(&image, json!([1])), good, "invalid image configuration");
    let config = image.config.clone();
    let other = move |asked: &Asked, answer: Answer| match is_blob(asked, &config) {
        true => Answer { body: vec![b' '; answer.body.len()], ..answer },
        false => answer,
    };
    let text = format!("image config verification failed for digest {}", digest(&image.config));
    bad(&daemon, &image, other, &text);
    let config = image.config.clone();
    let endless = move |asked: &Asked, answer: Answer| match is_blob(asked, &config) {
        true => Answer { endless: true, ..answer },
        false => answer,
    };
    bad(&daemon, &image, endless, "the image's configuration is larger than");
    let mut large = image.clone();
    large.manifest["config"]["size"] = json!(5 << 20);
    bad(&daemon, &large, good, "the image's configuration is larger than 4194304 bytes");
    image.manifest["config"]["mediaType"] = json!("application/vnd.example.model.v1");
    bad(&daemon, &image, good, "Encountered remote");
}

#[test]
fn a_manifest_that_lies_leaves_nothing() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let large = [image.manifest_bytes(), vec![b' '; 4 << 20]].concat();
    bad(&daemon, &image, bad_manifest(large), "the manifest is larger than 4194304 bytes");
    let endless = |asked: &Asked, answer: Answer| match asked.path.contains("/manifests/") {
        true => Answer { endless: true, ..answer },
        false => answer,
    };
    bad(&daemon, &image, endless, "the manifest is larger than 4194304 bytes");
    let index = |asked: &Asked, answer: Answer| match asked.path.contains("/manifests/") {
        true => Answer { headers: vec![("Content-Type".into(), INDEX.into())], ..answer },
        false => answer,
    };
    bad(&daemon, &image, index, "not of the media type");
    let old = json!({"schemaVersion": 1, "name": "x", "tag": "1", "fsLayers": [], "history": []});
    bad(&daemon, &image, bad_manifest(serde_json::to_vec(&old).unwrap()), "schema 1");
    bad(&daemon, &image, bad_manifest(b"<html>".to_vec()), "invalid manifest");
    let claimed = |asked: &Asked, answer: Answer| match asked.path.contains("/manifests/") {
        true => answer.with("Docker-Content-Digest", digest(b"other")),
        false => answer,
    };
    bad(&daemon, &image, claimed, "manifest verification failed for digest");
    let mut strange = image.clone();
    strange.manifest["layers"][0]["mediaType"] = json!("application/x-strange");
    bad(&daemon, &strange, |_, answer| answer, "unsupported media type application/x-strange");
    // An index that leads to itself, as far as digests can: by a lie.
    let entry = json!({"mediaType": INDEX, "size": 10, "digest": digest(b"itself"),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let mut entry_arm = entry.clone();
    entry_arm["platform"]["architecture"] = json!("arm64");
    let itself = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry, entry_arm]});
    let itself = serde_json::to_vec(&itself).unwrap();
    let cyclic = move |asked: &Asked, answer: Answer| match asked.path.contains("/manifests/") {
        true => Answer::ok(itself.clone()).with("Content-Type", INDEX),
        false => answer,
    };
    bad(&daemon, &image, cyclic, "the manifest has");
}

#[test]
fn more_layers_than_any_image_has_are_refused_before_one_is_fetched() {
    let daemon = TestDaemon::start();
    let mut image = served(&daemon, b"hello", "amd64");
    let ids = vec![json!(digest(&image.tar)); 10_000];
    image.config = serde_json::to_vec(&json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": ids}}))
    .unwrap();
    image.manifest["config"] =
        descriptor("application/vnd.docker.container.image.v1+json", &image.config);
    image.manifest["layers"] = json!(vec![image.manifest["layers"][0].clone(); 10_000]);
    let says = "the manifest has 10000 layers, more than the 127 that an image may have";
    bad(&daemon, &image, |_, answer| answer, says);
    image.manifest["layers"] = json!([image.manifest["layers"][0]]);
    bad(&daemon, &image, |_, answer| answer, "it has too many layers");
    let few = served(&daemon, b"hello", "amd64");
    let load = |manifest: Value, config: &Value| {
        let files = [
            ("manifest.json", serde_json::to_vec(&manifest).unwrap()),
            ("config.json", serde_json::to_vec(config).unwrap()),
            ("layer.tar", few.tar.clone()),
        ];
        let dir = daemon.path("archive");
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in &files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        let archive =
            run(Command::new("tar").arg("-C").arg(&dir).args(["-cf", "-", "."])).expect(0).stdout;
        let ran = daemon.docker_with_stdin(["load"], archive).expect(1);
        assert_eq!(stored(&daemon), Vec::<String>::new());
        ran
    };
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": vec![json!(digest(&few.tar)); 10_000]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": vec!["layer.tar"; 10_000]}]);
    load(manifest, &config).says("it has too many layers");
}

#[test]
fn a_redirect_to_anything_but_a_web_server_is_refused() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    std::fs::write(daemon.path("layer"), &image.layer).unwrap();
    let layer = daemon.path("layer").display().to_string();
    for to in [format!("file://{layer}"), "ftp://127.0.0.1/layer".into(), "unix:///x".into()] {
        let redirected = {
            let (to, layer) = (to.clone(), image.layer.clone());
            move |asked: &Asked, answer: Answer| match is_blob(asked, &layer) {
                true => Answer::status(307).with("Location", &to),
                false => answer,
            }
        };
        bad(&daemon, &image, redirected, "redirect");
    }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let (good, refusals) = (image.clone(), AtomicUsize::new(0));
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if is_blob(asked, &good.config) {
            match refusals.fetch_add(1, Ordering::SeqCst) {
                0 => return Answer::status(429).with("Retry-After", "0"),
                1 => return Answer::status(503),
                _ => {}
            }
        }
        good.answer(asked)
    });
    daemon.docker(["pull", &registry.name("a/b:1")]).ok();
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|asked| is_blob(asked, &image.config)).count(), 3);
}

#[test]
fn a_mirror_stands_for_docker_hub() {
    let options = Options {
        flags: vec!["--registry-mirror".into(), "http://127.0.0.1:5000/hub".into()],
        env: Vec::new(),
    };
    let daemon = TestDaemon::with(options);
    let image = served(&daemon, b"hello", "amd64");
    let mirror = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let mut asked = asked.clone();
        asked.path = asked.path.strip_prefix("/hub").unwrap_or("/none").to_owned();
        image.answer(&asked)
    });
    daemon.docker(["pull", "thing:1"]).ok();
    assert_eq!(daemon.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok(), "thing:1");
    let asked = mirror.asked();
    assert!(asked.iter().any(|asked| asked.path == "/hub/v2/library/thing/manifests/1"));
}

/// Makes a certificate authority, and certificates of it for the server and for a client.
pub(super) fn certificates(dir: &std::path::Path, address: &str) {
    let openssl = |args: &str| {
        run(Command::new("openssl").current_dir(dir).args(args.split(' '))).expect(0);
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=test-ca",
    );
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        std::fs::write(dir.join("extensions"), format!("subjectAltName=IP:{address}\n")).unwrap();
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.cert -days 30 -extfile extensions"
        ));
    }
}

#[test]
fn a_registry_with_tls_is_trusted_by_its_authority_and_wants_our_certificate() {
    const ADDRESS: &str = "10.99.0.1";
    let etc = tempfile::tempdir().unwrap();
    let file = etc.path().join("daemon.json");
    std::fs::write(&file, "{}").unwrap();
    let flags = vec!["--config-file".to_owned(), file.to_string_lossy().into_owned()];
    let daemon = TestDaemon::with(Options { flags, env: Vec::new() });
    daemon.import_busybox();
    let address = format!("{ADDRESS}/32");
    run(daemon.network().command("ip").args(["addr", "add", &address, "dev", "lo"])).expect(0);
    certificates(etc.path(), ADDRESS);
    let path = |name: &str| etc.path().join(name).display().to_string();
    let tls = format!(
        "  tls:\n    certificate: {}\n    key: {}\n    clientcas: ['{}']\n",
        path("server.cert"),
        path("server.key"),
        path("ca.crt")
    );
    let registry = Registry::at(&daemon, &format!("{ADDRESS}:5443"), &tls);
    let name = registry.name("a/b:1");
    daemon.docker(["tag", "busybox", &name]).ok();
    daemon.docker(["push", &name]).expect(1).says("invalid peer certificate: UnknownIssuer");
    let trusted = etc.path().join(format!("certs.d/{ADDRESS}:5443"));
    std::fs::create_dir_all(&trusted).unwrap();
    std::fs::copy(path("ca.crt"), trusted.join("ca.crt")).unwrap();
    daemon.docker(["push", &name]).expect(1);
    for name in ["client.cert", "client.key"] {
        std::fs::copy(path(name), trusted.join(name)).unwrap();
    }
    daemon.docker(["push", &name]).ok();
    daemon.docker(["rmi", &name, "busybox"]).ok();
    daemon.docker(["pull", "-q", &name]).ok();
}

#[test]
fn a_proxy_leads_to_a_registry_that_is_not_on_loopback() {
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("daemon.json");
    std::fs::write(&path, r#"{"insecure-registries": ["registry.test"]}"#).unwrap();
    let daemon = TestDaemon::with(Options {
        flags: vec!["--config-file".into(), path.to_string_lossy().into_owned()],
        env: vec![
            ("HTTP_PROXY".into(), "http://u:p@127.0.0.1:3128".into()),
            ("HTTPS_PROXY".into(), "http://u:p@127.0.0.1:3128".into()),
        ],
    });
    let image = served(&daemon, b"hello", "amd64");
    let proxy = FakeRegistry::start(daemon.network(), 3128, move |asked| {
        let mut asked = asked.clone();
        // It has no way to where TLS is spoken.
        match asked.path.strip_prefix("http://registry.test") {
            Some(path) => asked.path = path.to_owned(),
            None => return Answer::status(502),
        }
        image.answer(&asked)
    });
    daemon.docker(["pull", "-q", "registry.test/a/b:1"]).ok();
    let asked = proxy.asked();
    assert_eq!(
        (asked[0].method.as_str(), asked[0].path.as_str()),
        ("CONNECT", "registry.test:443")
    );
    assert_eq!(asked[0].header("proxy-authorization"), "Basic dTpw");
    let manifest = "http://registry.test/v2/a/b/manifests/1";
    let manifest = asked.iter().find(|asked| asked.path == manifest).unwrap();
    assert_eq!(manifest.header("proxy-authorization"), "Basic dTpw");
}

#[test]
fn an_import_comes_from_an_address() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let tar = image.tar.clone();
    let server =
        FakeRegistry::start(daemon.network(), 5000, move |asked| match asked.path.as_str() {
            "/x.tar" => Answer::ok(tar.clone()),
            _ => Answer::status(404),
        });
    let imported =
        daemon.docker(["import", &format!("http://{}", server.name("x.tar")), "imported:1"]).ok();
    let first = format!("Downloading from http://{}", server.name("x.tar"));
    assert!(imported.starts_with(&first), "{imported}");
    assert_eq!(daemon.inspect("imported:1", "index .RootFS.Layers 0"), digest(&image.tar));
    let missing = format!("http://{}", server.name("y.tar"));
    daemon
        .docker(["import", &missing, "none"])
        .expect(1)
        .says(&format!("failed to GET {missing} with status 404 X:"));
    // The client takes this for a file of its own.
    let socket = daemon.path("cleat.sock").display().to_string();
    let address = "http://x/images/create?fromSrc=ftp://x/y&repo=none";
    let told =
        run(Command::new("curl").args(["-s", "--unix-socket", &socket, "-X", "POST", address]))
            .ok();
    assert!(told.contains("unsupported protocol scheme"), "{told}");
}
