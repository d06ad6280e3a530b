//! The default bridge, published ports, and the modes none, host and container.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    time::Duration,
};

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

/// What a program of the host gets that wants a port for itself.
fn bind_at_host(daemon: &TestDaemon, address: &str) -> io::Result<TcpListener> {
    NetworkNamespace::enter(daemon.network().path(), || TcpListener::bind(address))
}

#[test]
fn a_published_port_is_served_over_ipv6_and_kept_from_others_even_without_a_daemon() {
    let mut daemon = TestDaemon::with_busybox();
    serve(&daemon, "web", &["-p", "8080:80", "-p", "[::1]:8081:80"]);
    let served = |daemon: &TestDaemon, url: &str| {
        assert_eq!(fetch(daemon, url).as_deref(), Some("from web"), "{url}");
    };
    wait_for("the page", || fetch(&daemon, "http://[::1]:8080/"));
    let shown = daemon.docker(["port", "web"]).ok();
    assert_eq!(shown, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::1]:8081\n80/tcp -> [::]:8080");
    daemon.kill();
    for _ in 0..2 {
        served(&daemon, "http://[::1]:8080/");
        served(&daemon, "http://[::1]:8081/");
        served(&daemon, "http://127.0.0.1:8080/");
        for address in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "[::1]:8081"] {
            let refused = bind_at_host(&daemon, address).expect_err(address);
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
        // Somebody flushes the firewall: the shim serves what the kernel no longer leads.
        run(daemon.network().command("nft").args(["flush", "ruleset"])).expect(0);
    }
    served(&daemon, "http://127.0.0.1:8080/");
    daemon.spawn();
    served(&daemon, "http://127.0.0.1:8080/");
    // A restart by the policy keeps them; the end gives them back before anybody hears of it.
    daemon.docker(["restart", "-t", "0", "web"]).ok();
    wait_for("the page", || fetch(&daemon, "http://[::1]:8080/"));
    daemon.docker(["stop", "-t", "0", "web"]).ok();
    bind_at_host(&daemon, "0.0.0.0:8080").expect("nobody has it");
    bind_at_host(&daemon, "[::]:8080").expect("nobody has it");
    serve(&daemon, "next", &["-p", "8080:80"]);
    assert_eq!(wait_for("the page", || fetch(&daemon, "http://[::1]:8080/")), "from next");
}

#[test]
fn a_port_that_a_program_of_the_host_has_is_refused_and_nothing_is_left() {
    let daemon = TestDaemon::with_busybox();
    for address in ["127.0.0.1:8080", "[::1]:8080"] {
        let listener = bind_at_host(&daemon, address).expect("nobody has it");
        let flags = ["create", "--name", "web", "-p", "8080:80", "busybox", "sleep", "1000"];
        daemon.docker(flags).ok();
        daemon
            .docker(["start", "web"])
            .expect(1)
            .says("failed to set up container networking: driver failed programming external connectivity on endpoint web (")
            .says("failed to bind host port for ")
            .says("80/tcp: address already in use");
        assert_eq!(daemon.inspect("web", ".State.Status"), "created");
        drop(listener);
        daemon.docker(["start", "web"]).ok();
        daemon.docker(["rm", "-f", "web"]).ok();
    }
}

#[test]
fn ranges_and_ephemeral_ports_are_dockers() {
    let daemon = TestDaemon::with_busybox();
    let start = |name: &str, flags: &[&str]| {
        let args = ["run", "-d", "--name", name].into_iter().chain(flags.iter().copied());
        daemon.docker(args.chain(["busybox", "sleep", "1000"]))
    };
    let port = |name: &str| daemon.docker(["port", name]).ok();
    start("first", &["-p", "8000-8001:80"]).ok();
    assert_eq!(port("first"), "80/tcp -> 0.0.0.0:8000\n80/tcp -> [::]:8000");
    start("second", &["-p", "8000-8001:80"]).ok();
    assert_eq!(port("second"), "80/tcp -> 0.0.0.0:8001\n80/tcp -> [::]:8001");
    start("third", &["-p", "8000-8001:80"]).expect(125).says("all ports are allocated");
    start("local", &["-p", "127.0.0.1::80"]).ok();
    assert!(
        port("local").starts_with("80/tcp -> 127.0.0.1:") && port("local").lines().count() == 1
    );
    start("all", &["-P", "--expose", "70", "--expose", "71/udp"]).ok();
    let shown = port("all");
    assert_eq!(shown.lines().count(), 4, "{shown}");
    let of = |proto: &str| {
        let ports = shown.lines().filter(|line| line.starts_with(proto));
        ports.map(|line| line.rsplit(':').next().unwrap_or_default()).collect::<Vec<_>>()
    };
    for proto in ["70/tcp", "71/udp"] {
        assert_eq!(of(proto)[0], of(proto)[1], "one port in both families: {shown}");
    }
}

#[test]
fn a_container_reaches_published_ports_at_the_hosts_address() {
    let daemon = TestDaemon::with_busybox();
    serve(&daemon, "web", &["-p", "8080:80"]);
    wait_for("the page", || fetch(&daemon, "http://127.0.0.1:8080/"));
    let gateway = daemon.inspect("web", ".NetworkSettings.Gateway");
    let url = format!("http://{gateway}:8080/");
    let wget = ["busybox", "wget", "-qO-", &url];
    assert_eq!(daemon.docker(["run", "--rm"].into_iter().chain(wget)).ok(), "from web");
    // The container itself as well.
    assert_eq!(daemon.docker(["exec", "web", "wget", "-qO-", &url]).ok(), "from web");
}

#[test]
fn datagrams_over_ipv6_come_through_and_answers_come_back() {
    let mut daemon = TestDaemon::with_busybox();
    let flags = ["run", "-d", "--name", "udp", "-p", "5353:53/udp", "busybox", "sleep", "1000"];
    daemon.docker(flags).ok();
    let pid = daemon.inspect("udp", ".State.Pid");
    let bind = |address: &str| UdpSocket::bind(address).unwrap();
    let inside = NetworkNamespace::enter(format!("/proc/{pid}/ns/net"), || bind("0.0.0.0:53"));
    let outside = NetworkNamespace::enter(daemon.network().path(), || bind("[::1]:0"));
    for socket in [&inside, &outside] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    outside.connect("[::1]:5353").unwrap();
    daemon.kill();
    let mut packet = [0; 16];
    for round in 0..3u8 {
        outside.send(&[round; 4]).unwrap();
        let (length, client) = inside.recv_from(&mut packet).unwrap();
        assert_eq!(packet[..length], [round; 4]);
        inside.send_to(&[round; 7], client).unwrap();
        let length = outside.recv(&mut packet).unwrap();
        assert_eq!(packet[..length], [round; 7]);
    }
    daemon.spawn();
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
