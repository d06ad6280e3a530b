//! Where images come from, for whom, and how many at once: `hosts.toml`, `daemon.json` and what SIGHUP changes of it, identity tokens,
//! foreign layers, and a pull that is given up.

use std::{
    process::Stdio,
    sync::{Arc, Condvar, Mutex},
};

use cleat_tests::{Answer, FakeRegistry, Options, Registry, TestDaemon, run, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::registry::{
    LAYER, MANIFEST, PASSWORDS, certificates, descriptor, gzip, is_blob, noise, served, tar,
};

/// A daemon with an options' file of its own, and the directory that it is in.
fn with_file(text: &str) -> (TestDaemon, tempfile::TempDir) {
    let etc = tempfile::tempdir().unwrap();
    let file = etc.path().join("daemon.json");
    std::fs::write(&file, text).unwrap();
    let flags = vec!["--config-file".to_owned(), file.to_string_lossy().into_owned()];
    (TestDaemon::with(Options { flags, env: Vec::new() }), etc)
}

fn write_hosts(etc: &tempfile::TempDir, registry: &str, text: &str) {
    let directory = etc.path().join("certs.d").join(registry);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
}

/// Makes the daemon read its options again, and waits until it has.
pub(super) fn reload(daemon: &TestDaemon) {
    let mut events = daemon
        .docker_command()
        .args(["events", "--filter", "type=daemon", "--since", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    kill(Pid::from_raw(daemon.pid()), Signal::SIGHUP).unwrap();
    let mut line = String::new();
    let out = events.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    events.kill().unwrap();
    events.wait().unwrap();
    assert!(line.contains("daemon reload"), "{line}");
}

#[test]
fn any_registry_has_mirrors_with_an_authority_and_credentials_of_their_own() {
    const ADDRESS: &str = "10.99.0.2";
    let (daemon, etc) = with_file("{}");
    daemon.import_busybox();
    let address = format!("{ADDRESS}/32");
    run(daemon.network().command("ip").args(["addr", "add", &address, "dev", "lo"])).expect(0);
    certificates(etc.path(), ADDRESS);
    let path = |name: &str| etc.path().join(name).display().to_string();
    std::fs::write(path("htpasswd"), PASSWORDS).unwrap();
    let more = format!(
        "  tls: {{certificate: {}, key: {}}}\nauth:\n  htpasswd: {{realm: test, path: {}}}\n",
        path("server.cert"),
        path("server.key"),
        path("htpasswd")
    );
    let registry = Registry::at(&daemon, &format!("{ADDRESS}:5443"), &more);
    let mirror = |capabilities: &str, secret: &str| {
        format!(
            "[host.\"https://{ADDRESS}:5443\"]\ncapabilities = [{capabilities}]\nca = \"../../ca.crt\"\n[host.\"https://{ADDRESS}:5443\".header]\nauthorization = \"Basic {secret}\"\n"
        )
    };
    let (good, bad) = ("am9lOnNlY3JldA==", "am9lOndyb25n");
    // It takes what is pushed to the registry that it stands for.
    write_hosts(&etc, "up.test_5000_", &mirror("\"pull\", \"resolve\", \"push\"", good));
    let name = "up.test:5000/a/b:1";
    daemon.docker(["tag", "busybox", name]).ok();
    daemon.docker(["push", name]).ok();
    let id = daemon.inspect(name, ".Id");
    daemon.docker(["rmi", name, "busybox"]).ok();
    daemon.docker(["pull", name]).ok();
    assert_eq!(daemon.inspect(name, ".Id"), id);
    daemon.docker(["rmi", name]).ok();
    // For every registry, wherever that is.
    write_hosts(&etc, "_default", &mirror("\"pull\", \"resolve\"", good));
    daemon.docker(["pull", "other.test/a/b:1"]).ok();
    assert_eq!(daemon.inspect("other.test/a/b:1", ".Id"), id);
    // What does not help is passed over, and what the registry itself says is told.
    write_hosts(&etc, "_default", &mirror("\"pull\", \"resolve\"", bad));
    daemon.docker(["pull", "127.0.0.1:5999/a/b:1"]).expect(1).says("127.0.0.1:5999");
    write_hosts(&etc, "_default", "nosuch = 1");
    daemon.docker(["pull", "other.test/a/b:1"]).expect(1).says("_default/hosts.toml: ");
    drop(registry);
}

#[test]
fn a_mirror_that_may_not_resolve_gives_what_a_digest_names_alone() {
    let (daemon, etc) = with_file("{}");
    let image = served(&daemon, &noise(10_000), "amd64");
    let (upstream_image, mirror_image) = (image.clone(), image.clone());
    let upstream =
        FakeRegistry::start(daemon.network(), 5000, move |asked| upstream_image.answer(asked));
    let mirror = FakeRegistry::start(daemon.network(), 5001, move |asked| {
        let mut asked = asked.clone();
        let Some(path) = asked.path.strip_suffix("?ns=127.0.0.1%3A5000") else {
            return Answer::status(400);
        };
        asked.path = path.replace("/sub/v2/", "/v2/");
        mirror_image.answer(&asked)
    });
    let text = "[host.\"http://127.0.0.1:5001/sub\"]\ncapabilities = [\"pull\"]\n[host.\"http://127.0.0.1:5001/sub\".header]\nx-secret = \"s\"\n";
    write_hosts(&etc, "127.0.0.1:5000", text);
    let login = ["login", "-u", "joe", "--password-stdin", "127.0.0.1:5000"];
    daemon.docker_with_stdin(login, b"secret".to_vec()).ok();
    daemon.docker(["pull", &upstream.name("a/b:1")]).ok();
    let (at_mirror, at_upstream) = (mirror.asked(), upstream.asked());
    assert!(at_mirror.iter().any(|asked| asked.path.contains("/blobs/")), "{at_mirror:?}");
    assert!(at_mirror.iter().all(|asked| !asked.path.contains("/manifests/1")), "{at_mirror:?}");
    assert!(at_mirror.iter().all(|asked| asked.header("x-secret") == "s"), "{at_mirror:?}");
    assert!(at_mirror.iter().all(|asked| asked.header("authorization").is_empty()));
    assert!(at_upstream.iter().all(|asked| !is_blob(asked, &image.layer)), "{at_upstream:?}");
    assert!(at_upstream.iter().all(|asked| asked.header("x-secret").is_empty()));
}

#[test]
fn how_many_layers_come_at_once_is_an_option_that_may_change_meanwhile() {
    let (daemon, etc) = with_file(r#"{"max-concurrent-downloads": 1}"#);
    let tars = [0, 1].map(|n| tar(&daemon, &format!("file{n}"), &noise(5000)));
    let layers = tars.each_ref().map(|tar| gzip(tar));
    let mut image = served(&daemon, b"", "amd64");
    let config = json!({"os": "linux", "architecture": "amd64", "config": {},
        "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|tar| cleat_tests::digest(tar)).collect::<Vec<_>>()}});
    image.config = serde_json::to_vec(&config).unwrap();
    image.manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", &image.config),
        "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>()});
    // No layer comes before both are asked for.
    let asked_for = Arc::new((Mutex::new(0), Condvar::new()));
    let watched = Arc::clone(&asked_for);
    let (served_layers, good) = (layers.clone(), image.clone());
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let Some(layer) = served_layers.iter().find(|layer| is_blob(asked, layer)) else {
            return good.answer(asked);
        };
        let (count, changed) = &*watched;
        let mut count = count.lock().unwrap();
        *count += 1;
        changed.notify_all();
        while *count < 2 {
            count = changed.wait(count).unwrap();
        }
        Answer::ok(layer.clone())
    });
    let name = registry.name("a/b:1");
    let mut pull =
        daemon.docker_command().args(["pull", &name]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the first layer's request", || (*asked_for.0.lock().unwrap() > 0).then_some(()));
    let file = etc.path().join("daemon.json");
    std::fs::write(
        &file,
        r#"{"max-concurrent-downloads": 2, "registry-mirrors": ["http://m.test"]}"#,
    )
    .unwrap();
    assert_eq!(*asked_for.0.lock().unwrap(), 1, "one at a time");
    reload(&daemon);
    assert!(pull.wait().unwrap().success());
    let mirrors = daemon.docker(["info", "--format", "{{.RegistryConfig.Mirrors}}"]).ok();
    assert!(mirrors.contains("http://m.test"), "{mirrors}");
}

#[test]
fn how_often_a_download_is_tried_is_an_option() {
    let (daemon, _etc) = with_file(r#"{"max-download-attempts": 1}"#);
    let image = served(&daemon, &noise(100_000), "amd64");
    let good = image.clone();
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let answer = good.answer(asked);
        if is_blob(asked, &good.layer) { Answer { cut: Some(0), ..answer } } else { answer }
    });
    daemon.docker(["pull", &registry.name("a/b:1")]).expect(1).says("the connection was lost");
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|asked| is_blob(asked, &image.layer)).count(), 1);
}

#[test]
fn proxies_of_the_options_count_before_those_of_the_environment() {
    let (daemon, _etc) = with_file(
        r#"{"insecure-registries": ["registry.test"], "proxies": {"http-proxy": "http://u:p@127.0.0.1:3128", "https-proxy": "http://127.0.0.1:3128"}}"#,
    );
    let image = served(&daemon, b"hello", "amd64");
    let proxy = FakeRegistry::start(daemon.network(), 3128, move |asked| {
        let mut asked = asked.clone();
        match asked.path.strip_prefix("http://registry.test") {
            Some(path) => asked.path = path.to_owned(),
            None => return Answer::status(502),
        }
        image.answer(&asked)
    });
    daemon.docker(["pull", "-q", "registry.test/a/b:1"]).ok();
    assert_eq!(proxy.asked()[0].path, "registry.test:443");
    let shown = daemon.docker(["info", "--format", "{{.HTTPProxy}} {{.HTTPSProxy}}"]).ok();
    assert_eq!(shown, "http://xxxxx:xxxxx@127.0.0.1:3128 http://127.0.0.1:3128");
}

#[test]
fn an_identity_token_stands_for_the_password_after_the_login() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, b"hello", "amd64");
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if asked.path.starts_with("/token") && asked.method == "POST" {
            let form = String::from_utf8_lossy(&asked.body).into_owned();
            return match form.contains("grant_type=refresh_token&")
                && form.contains("refresh_token=r1")
            {
                true => Answer::ok(r#"{"access_token":"pull"}"#),
                false => Answer::status(400),
            };
        }
        if asked.path.starts_with("/token") {
            return match asked.header("authorization") {
                "Basic am9lOnNlY3JldA==" => Answer::ok(r#"{"token":"login","refresh_token":"r1"}"#),
                _ => Answer::status(401),
            };
        }
        let token = if asked.path == "/v2/" { "Bearer login" } else { "Bearer pull" };
        if asked.header("authorization") == token {
            return image.answer(asked);
        }
        Answer::status(401)
            .with("WWW-Authenticate", "Bearer realm=\"http://127.0.0.1:5000/token\",service=\"s\"")
    });
    let login = ["login", "-u", "joe", "--password-stdin", "127.0.0.1:5000"];
    daemon.docker_with_stdin(login, b"secret".to_vec()).ok();
    let config = std::fs::read_to_string(daemon.path("docker-config/config.json")).unwrap();
    assert!(config.contains("\"identitytoken\": \"r1\""), "{config}");
    daemon.docker(["pull", &registry.name("a/b:1")]).ok();
    let asked = registry.asked();
    let post = asked.iter().find(|asked| asked.method == "POST").unwrap();
    let form = String::from_utf8_lossy(&post.body).into_owned();
    assert!(form.contains("scope=repository%3Aa%2Fb%3Apull"), "{form}");
}

#[test]
fn a_foreign_layer_comes_from_where_its_address_is() {
    const ADDRESS: &str = "10.99.0.3";
    let (daemon, etc) = with_file("{}");
    let address = format!("{ADDRESS}/32");
    run(daemon.network().command("ip").args(["addr", "add", &address, "dev", "lo"])).expect(0);
    let trusted = etc.path().join(format!("certs.d/{ADDRESS}:5443"));
    std::fs::create_dir_all(&trusted).unwrap();
    certificates(&trusted, ADDRESS);
    // The server's own are no client's.
    let path = |name: &str| trusted.join(name).display().to_string();
    for name in ["server", "client"] {
        std::fs::rename(path(&format!("{name}.cert")), path(&format!("{name}.pem"))).unwrap();
    }
    let tls =
        format!("  tls: {{certificate: {}, key: {}}}\n", path("server.pem"), path("server.key"));
    let elsewhere = Registry::at(&daemon, &format!("{ADDRESS}:5443"), &tls);
    let mut image = served(&daemon, &noise(10_000), "amd64");
    let url = put_blob(&daemon, &format!("https://{}", elsewhere.name("")), &image.layer);
    let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    image.manifest["layers"][0]["mediaType"] = json!(kind);
    image.manifest["layers"][0]["urls"] = json!([url]);
    let (layer, tar) = (image.layer.clone(), image.tar.clone());
    let registry = FakeRegistry::start(daemon.network(), 5000, move |asked| {
        if is_blob(asked, &image.layer) { Answer::status(404) } else { image.answer(asked) }
    });
    let name = registry.name("a/b:1");
    daemon.docker(["pull", &name]).ok();
    assert_eq!(daemon.inspect(&name, "index .RootFS.Layers 0"), cleat_tests::digest(&tar));
    assert!(registry.asked().iter().all(|asked| !is_blob(asked, &layer)));
}

/// Uploads a blob with curl, and returns where it is.
fn put_blob(daemon: &TestDaemon, registry: &str, blob: &[u8]) -> String {
    let repository = format!("{}/v2/foreign/layers", registry.trim_end_matches('/'));
    let file = daemon.path("blob");
    std::fs::write(&file, blob).unwrap();
    let curl = |args: &[&str]| {
        run(daemon.network().command("curl").args(["-k", "-s", "-S", "-f"]).args(args)).ok()
    };
    let upload = format!("{repository}/blobs/uploads/");
    let place = curl(&["-X", "POST", "-o", "/dev/null", "-w", "%header{location}", &upload]);
    let digest = cleat_tests::digest(blob);
    let (data, target) = (format!("@{}", file.display()), format!("{place}&digest={digest}"));
    let kind = "Content-Type: application/octet-stream";
    curl(&["-X", "PUT", "-H", kind, "--data-binary", &data, &target]);
    format!("{repository}/blobs/{digest}")
}

#[test]
fn a_pull_that_is_given_up_stops_and_is_gone_on_with_later() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, &noise(3_000_000), "amd64");
    let clients: [fn(&TestDaemon) -> std::process::Command; 2] =
        [TestDaemon::docker_command, TestDaemon::cleat_command];
    for (port, client) in (5000..).zip(clients) {
        let good = image.clone();
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let (watched, asked_for) = (Arc::clone(&over), Mutex::new(0));
        let registry = FakeRegistry::start(daemon.network(), port, move |asked| {
            let answer = good.answer(asked);
            if !is_blob(asked, &good.layer) {
                return answer;
            }
            let number = {
                let mut count = asked_for.lock().unwrap();
                *count += 1;
                *count
            };
            match number {
                1 => return Answer { cut: Some(2_000_000), ..answer },
                // It stands still until all is over: only a pull that was given up lets another one at the layer.
                2 => {
                    let mut is_over = watched.0.lock().unwrap();
                    while !*is_over {
                        is_over = watched.1.wait(is_over).unwrap();
                    }
                }
                _ => {}
            }
            answer
        });
        let name = registry.name("a/b:1");
        let mut pull = client(&daemon).args(["pull", &name]).stdout(Stdio::null()).spawn().unwrap();
        let ranges = || -> Vec<String> {
            let asked = registry.asked().into_iter().filter(|asked| is_blob(asked, &image.layer));
            asked.map(|asked| asked.header("range").to_owned()).collect()
        };
        wait_for("the second request", || (ranges().len() == 2).then_some(()));
        kill(Pid::from_raw(pull.id() as i32), Signal::SIGINT).unwrap();
        assert!(!pull.wait().unwrap().success());
        daemon.docker(["pull", &name]).ok();
        assert_eq!(ranges(), ["", "bytes=2000000-", "bytes=2000000-"]);
        daemon.docker(["rmi", &name]).ok();
        *over.0.lock().unwrap() = true;
        over.1.notify_all();
    }
}
