//! The default bridge, published ports, and the modes none, host and container.

use std::{net::UdpSocket, time::Duration};

use cleat_tests::{NetworkNamespace, TestDaemon, run, wait_for};

fn serve(daemon: &TestDaemon, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend([
        "busybox",
        "sh",
        "-c",
        "mkdir /w; echo from $0 >/w/index.html; exec httpd -f -p 80 -h /w",
        name,
    ]);
    daemon.docker(args).ok();
}

/// Fetches a page from the daemon's network namespace.
fn fetch(daemon: &TestDaemon, url: &str) -> Option<String> {
    let ran = run(daemon.network().command("curl").args(["-s", "--max-time", "5", url]));
    (ran.code == 0).then(|| ran.text())
}

#[test]
fn containers_on_the_bridge_reach_each_other_and_the_host_reaches_them() {
    let daemon = TestDaemon::with_busybox();
    serve(&daemon, "web", &[]);
    let address = daemon.inspect("web", ".NetworkSettings.IPAddress");
    let page = || fetch(&daemon, &format!("http://{address}/"));
    assert_eq!(wait_for("the page", page), "from web");
    assert_eq!(
        daemon
            .docker(["run", "--rm", "busybox", "wget", "-qO-", &format!("http://{address}/")])
            .ok(),
        "from web"
    );
    let gateway = daemon.inspect("web", ".NetworkSettings.Gateway");
    daemon.docker(["run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", &gateway]).ok();
}

#[test]
fn a_published_port_is_served_by_the_container_even_without_a_daemon() {
    let mut daemon = TestDaemon::with_busybox();
    serve(&daemon, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    assert_eq!(wait_for("the page", || fetch(&daemon, "http://127.0.0.1:8080/")), "from web");
    assert_eq!(fetch(&daemon, "http://127.0.0.1:8081/").as_deref(), Some("from web"));
    let gateway = daemon.inspect("web", ".NetworkSettings.Gateway");
    assert_eq!(fetch(&daemon, &format!("http://{gateway}:8080/")).as_deref(), Some("from web"));
    assert_eq!(fetch(&daemon, &format!("http://{gateway}:8081/")), None);
    assert!(daemon.docker(["port", "web"]).ok().contains("80/tcp -> 0.0.0.0:8080"));
    daemon
        .docker(["run", "-p", "8080:80", "--name", "late", "busybox"])
        .expect(125)
        .says("port is already allocated");
    daemon.docker(["rm", "late"]).ok();
    daemon.kill();
    assert_eq!(fetch(&daemon, "http://127.0.0.1:8080/").as_deref(), Some("from web"));
    daemon.spawn();
    assert_eq!(fetch(&daemon, "http://127.0.0.1:8080/").as_deref(), Some("from web"));
    daemon.docker(["rm", "-f", "web"]).ok();
    assert_eq!(fetch(&daemon, "http://127.0.0.1:8080/"), None);
}

#[test]
fn udp_is_published_too() {
    let daemon = TestDaemon::with_busybox();
    let flags = ["run", "-d", "--name", "udp", "-p", "5353:53/udp", "busybox", "sleep", "1000"];
    daemon.docker(flags).ok();
    let pid = daemon.inspect("udp", ".State.Pid");
    let bind = |address: &str| UdpSocket::bind(address).unwrap();
    let inside = NetworkNamespace::enter(format!("/proc/{pid}/ns/net"), || bind("0.0.0.0:53"));
    let outside = NetworkNamespace::enter(daemon.network().path(), || bind("127.0.0.1:0"));
    for socket in [&inside, &outside] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let mut packet = [0; 16];
    outside.send_to(b"ping", "127.0.0.1:5353").unwrap();
    let (length, client) = inside.recv_from(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"ping");
    inside.send_to(b"pong", client).unwrap();
    let length = outside.recv(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"pong");
}

#[test]
fn the_modes_are_what_they_say() {
    let daemon = TestDaemon::with_busybox();
    let links = |mode: &str| {
        daemon.docker(["run", "--rm", "--network", mode, "busybox", "ls", "/sys/class/net"]).ok()
    };
    assert_eq!(links("none"), "lo");
    serve(&daemon, "web", &[]);
    let host = run(daemon.network().command("ls").arg("/sys/class/net")).ok();
    assert!(links("host").lines().count() >= 3, "lo, the bridge and a container's link: {host}");
    let wget = ["wget", "-qO-", "http://127.0.0.1/"];
    wait_for("the page", || {
        let ran = daemon.docker(
            ["run", "--rm", "--network", "container:web", "busybox"].into_iter().chain(wget),
        );
        (ran.code == 0 && ran.text() == "from web").then_some(())
    });
    daemon
        .docker(["run", "--rm", "--network", "nope", "busybox"])
        .expect(125)
        .says("network nope not found");
}

#[test]
fn the_files_in_etc_are_dockers() {
    let daemon = TestDaemon::with_busybox();
    let hosts = daemon
        .docker([
            "run",
            "--rm",
            "-h",
            "me",
            "--add-host",
            "other:1.2.3.4",
            "busybox",
            "cat",
            "/etc/hosts",
        ])
        .ok();
    assert!(
        hosts.contains("127.0.0.1\tlocalhost\n")
            && hosts.contains("1.2.3.4\tother")
            && hosts.contains("\tme"),
        "{hosts}"
    );
    let resolv = [
        "run",
        "--rm",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "x.y",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ];
    let resolv = daemon.docker(resolv).ok();
    assert!(resolv.contains("nameserver 9.9.9.9") && resolv.contains("search x.y"), "{resolv}");
}
