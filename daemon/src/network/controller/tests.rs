//! Each test has a host of its own: a network namespace in which the bridge, the table and the listeners are made.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use cleat_sys::{
    netlink::{Family, Socket},
    netns,
};

use super::super::link::{self, Veth, Which};
use super::*;

struct Host {
    dir: tempfile::TempDir,
    database: Database,
    config: Config,
}

impl Host {
    fn controller(&self) -> Controller {
        Controller::open(self.config.clone(), &self.database).unwrap()
    }

    fn request(&self, digit: char) -> Attach {
        Attach {
            container: id(digit),
            name: format!("c{digit}"),
            hostname: "h".into(),
            domainname: String::new(),
            mode: Mode::Bridge,
            requested: BTreeMap::new(),
            exposed: vec![],
            port_bindings: PortMap::new(),
            publish_all: false,
            mac_address: String::new(),
            extra_hosts: vec![],
            dns: vec![],
            dns_search: vec![],
            dns_options: vec![],
            directory: self.dir.path().to_owned(),
        }
    }

    fn publishing(&self, digit: char, port: &str, host_ip: &str, host_port: &str) -> Attach {
        let binding = cleat_proto::docker::container::PortBinding {
            host_ip: host_ip.into(),
            host_port: host_port.into(),
        };
        Attach {
            port_bindings: [(port.to_owned(), Some(vec![binding]))].into(),
            ..self.request(digit)
        }
    }
}

fn id(digit: char) -> ContainerId {
    digit.to_string().repeat(64).parse().unwrap()
}

/// Runs a test on a host of its own where bridges are not shown to the firewall.
fn on_a_host_without_br_netfilter(icc: bool, test: impl FnOnce(&Host) + Send) {
    on_a_host(icc, |host| {
        // Where the module is missing there is nothing to switch off.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        test(host);
    });
}

/// Runs a test on a host of its own.
fn on_a_host(icc: bool, test: impl FnOnce(&Host) + Send) {
    netns::create_with(|| {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("meta.redb")).unwrap();
        let mut socket = Socket::open(Family::Route).unwrap();
        socket.transact(&[link::up(Which::Name("lo"))]).unwrap();
        let config = Config { bridge: Some("cleat0".into()), icc, ..Config::default() };
        test(&Host { dir, database, config });
    })
    .unwrap();
}

/// Answers one connection with what it was sent, inside a namespace. Bound when this returns.
fn echo(namespace: &OwnedFd, port: u16) -> std::thread::JoinHandle<SocketAddr> {
    let listener = netns::enter_with(namespace, || TcpListener::bind(("0.0.0.0", port)).unwrap());
    let listener = listener.unwrap();
    std::thread::spawn(move || {
        let (mut client, from) = listener.accept().unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        client.write_all(&byte).unwrap();
        from
    })
}

fn ask(address: impl Into<SocketAddr>) -> io::Result<u8> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&[7])?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn address_of(sandbox: &Sandbox) -> Ipv4Addr {
    sandbox.endpoints["bridge"].ip_address.parse().unwrap()
}

fn netns_of(sandbox: &Sandbox) -> &OwnedFd {
    sandbox.netns.as_ref().unwrap()
}

fn links() -> Vec<link::Link> {
    link::links(&mut Socket::open(Family::Route).unwrap()).unwrap()
}

/// A namespace behind another interface of the host: 10.9.0.2, with its default route to us at 10.9.0.1.
fn neighbour() -> OwnedFd {
    let (namespace, inside) = netns::create_with(|| Socket::open(Family::Route).unwrap()).unwrap();
    let mut inside = inside;
    let mut host = Socket::open(Family::Route).unwrap();
    let (ours, subnet) = Subnet::parse("10.9.0.1/24").unwrap();
    let veth = Veth {
        name: "out0",
        master: 0,
        peer: "eth0",
        peer_mac: [2, 0, 0, 0, 0, 9],
        namespace: std::os::fd::AsFd::as_fd(&namespace),
        mtu: 0,
    };
    host.transact(&[link::new_veth(&veth)]).unwrap();
    let out = link::find(&mut host, "out0").unwrap().unwrap().index;
    host.transact(&[link::add_address(out, ours, subnet), link::up(Which::Index(out))]).unwrap();
    let eth = link::find(&mut inside, "eth0").unwrap().unwrap().index;
    let theirs = Ipv4Addr::new(10, 9, 0, 2);
    inside
        .transact(&[
            link::add_address(eth, theirs, subnet),
            link::up(Which::Index(eth)),
            link::add_default_route(ours),
        ])
        .unwrap();
    namespace
}

#[test]
fn a_container_gets_an_address_and_reaches_the_gateway() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let sandbox = controller.attach_blocking(&host.request('a')).unwrap();
        let endpoint = &sandbox.endpoints["bridge"];
        assert_eq!(
            (endpoint.ip_address.as_str(), endpoint.gateway.as_str()),
            ("172.17.0.2", "172.17.0.1")
        );
        let gateway = TcpListener::bind("172.17.0.1:0").unwrap();
        let to = gateway.local_addr().unwrap();
        let from = netns::enter_with(netns_of(&sandbox), || {
            TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap().local_addr().unwrap()
        });
        assert_eq!(from.unwrap().ip().to_string(), "172.17.0.2");
        let hosts = std::fs::read_to_string(host.dir.path().join("hosts")).unwrap();
        assert!(hosts.ends_with("172.17.0.2\th\n"), "{hosts}");
        // The host's routes now have the bridge's subnet: a second daemon takes the next one.
        let second =
            Config { suffix: "x".into(), bridge: Some("cleat-x".into()), ..Config::default() };
        let second = Controller::open(second, &host.database).unwrap();
        assert_eq!(second.inspect("bridge").unwrap().ipam.unwrap().0, "172.18.0.0/16");
    });
}

#[test]
fn a_published_port_answers_wherever_it_is_asked() {
    on_a_host(true, published_everywhere);
}

#[test]
fn a_published_port_answers_without_br_netfilter_too() {
    on_a_host_without_br_netfilter(true, published_everywhere);
}

fn published_everywhere(host: &Host) {
    let outside = neighbour();
    let controller = host.controller();
    let server = controller.attach_blocking(&host.publishing('a', "80/tcp", "", "8080")).unwrap();
    let client = controller.attach_blocking(&host.request('b')).unwrap();
    let bound = server.ports["80/tcp"].as_ref().unwrap();
    let bound: Vec<_> = bound.iter().map(|b| (b.host_ip.as_str(), b.host_port.as_str())).collect();
    assert_eq!(bound, [("0.0.0.0", "8080"), ("::", "8080")]);
    let gateway = (Ipv4Addr::new(172, 17, 0, 1), 8080);
    // The host at localhost and at its own address; a neighbour in the bridge; the container itself; and from outside.
    let ask_here = |to| ask(to);
    for to in [(Ipv4Addr::LOCALHOST, 8080), gateway] {
        let serving = echo(netns_of(&server), 80);
        assert_eq!(ask_here(to).unwrap(), 7, "{to:?}");
        serving.join().unwrap();
    }
    for namespace in [netns_of(&client), netns_of(&server)] {
        let serving = echo(netns_of(&server), 80);
        assert_eq!(netns::enter_with(namespace, || ask(gateway)).unwrap().unwrap(), 7);
        serving.join().unwrap();
    }
    let serving = echo(netns_of(&server), 80);
    let to = (Ipv4Addr::new(10, 9, 0, 1), 8080);
    assert_eq!(netns::enter_with(&outside, || ask(to)).unwrap().unwrap(), 7);
    // The client's address is kept.
    assert_eq!(serving.join().unwrap().ip().to_string(), "10.9.0.2");
    // What is not published is out of reach, even for who knows the way.
    let _listening = echo(netns_of(&server), 80);
    let to = (address_of(&server), 80);
    assert!(netns::enter_with(&outside, || ask(to)).unwrap().is_err());
    assert_eq!(ask(to).unwrap(), 7);
}

#[test]
fn a_container_reaches_the_outside_under_the_hosts_address() {
    on_a_host(true, |host| {
        let outside = neighbour();
        let controller = host.controller();
        let sandbox = controller.attach_blocking(&host.request('a')).unwrap();
        let serving = echo(&outside, 80);
        let to = (Ipv4Addr::new(10, 9, 0, 2), 80);
        assert_eq!(netns::enter_with(netns_of(&sandbox), || ask(to)).unwrap().unwrap(), 7);
        assert_eq!(serving.join().unwrap().ip().to_string(), "10.9.0.1");
    });
}

#[test]
fn a_port_of_localhost_is_not_anybody_elses() {
    on_a_host(true, |host| {
        let outside = neighbour();
        let controller = host.controller();
        let server = controller
            .attach_blocking(&host.publishing('a', "80/tcp", "127.0.0.1", "8080"))
            .unwrap();
        let serving = echo(netns_of(&server), 80);
        let refused = netns::enter_with(&outside, || ask((Ipv4Addr::new(10, 9, 0, 1), 8080)));
        assert!(refused.unwrap().is_err());
        assert_eq!(ask((Ipv4Addr::LOCALHOST, 8080)).unwrap(), 7);
        serving.join().unwrap();
        // A listener on the host's loopback is out of a container's reach, although the bridge routes 127/8.
        let secret = UdpSocket::bind("127.0.0.1:5300").unwrap();
        secret.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let sent = netns::enter_with(netns_of(&server), || {
            let mut inside = Socket::open(Family::Route).unwrap();
            // The container gives up its own 127/8 and sends it to the gateway.
            inside.transact(&[link::delete_address(1, Ipv4Addr::LOCALHOST, 8)]).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            socket.send_to(&[1], "127.0.0.1:5300")
        });
        assert!(sent.unwrap().is_ok());
        assert!(secret.recv(&mut [0]).is_err());
    });
}

#[test]
fn udp_is_published_too() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let sandbox = controller.attach_blocking(&host.publishing('a', "53/udp", "", "")).unwrap();
        let port: u16 = sandbox.ports["53/udp"].as_ref().unwrap()[0].host_port.parse().unwrap();
        let server =
            netns::enter_with(netns_of(&sandbox), || UdpSocket::bind("0.0.0.0:53").unwrap());
        let server = server.unwrap();
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send_to(&[9], ("127.0.0.1", port)).unwrap();
        let mut byte = [0];
        let (_, from) = server.recv_from(&mut byte).unwrap();
        server.send_to(&byte, from).unwrap();
        let (_, answered_by) = client.recv_from(&mut byte).unwrap();
        assert_eq!((byte, answered_by.port()), ([9], port));
    });
}

/// Speaks to a port of the host, and returns what `server` heard.
fn speak(client: &UdpSocket, server: &UdpSocket, port: u16) -> io::Result<u8> {
    let mut byte = [0];
    client.send_to(&[9], ("127.0.0.1", port))?;
    server.recv(&mut byte).map(|_| byte[0])
}

#[test]
fn a_client_that_goes_on_speaking_reaches_whoever_has_the_port_now() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let serve = |digit: char| {
            let request = host.publishing(digit, "53/udp", "", "5353");
            let sandbox = controller.attach_blocking(&request).unwrap();
            let bound = netns::enter_with(netns_of(&sandbox), || UdpSocket::bind("0.0.0.0:53"));
            let server = bound.unwrap().unwrap();
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            (sandbox, server)
        };
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody has the port yet, and the kernel remembers that.
        let _ = client.send_to(&[9], "127.0.0.1:5353");
        let (first, server) = serve('a');
        assert_eq!(speak(&client, &server, 5353).unwrap(), 9);
        controller.detach_blocking(&id('a'), false).unwrap();
        drop(first);
        let own = UdpSocket::bind("127.0.0.1:5353").unwrap();
        own.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(speak(&client, &own, 5353).unwrap(), 9);
        drop(own);
        let (_second, server) = serve('b');
        assert_eq!(speak(&client, &server, 5353).unwrap(), 9);
    });
}

#[test]
fn withdrawn_ports_are_anybodys_while_the_address_stays() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let one = controller.attach_blocking(&host.publishing('a', "80/tcp", "", "8080")).unwrap();
        let bridge = controller.0.bridge.as_ref().unwrap();
        // As the shim does when the container ends.
        let address = address_of(&one);
        drop(one);
        lock(bridge).withdraw(&id('a')).unwrap();
        let two = controller.attach_blocking(&host.publishing('b', "80/tcp", "", "8080")).unwrap();
        assert_ne!(address_of(&two), address);
        let serving = echo(netns_of(&two), 80);
        controller.detach_blocking(&id('a'), false).unwrap();
        assert_eq!(ask((Ipv4Addr::LOCALHOST, 8080)).unwrap(), 7);
        serving.join().unwrap();
    });
}

#[test]
fn a_taken_port_is_refused_in_dockers_words_and_leaves_nothing() {
    on_a_host(true, |host| {
        let controller = host.controller();
        controller.attach_blocking(&host.publishing('a', "80/tcp", "", "8080")).unwrap();
        let before =
            controller.0.bridge.as_ref().map(|bridge| format!("{:?}", lock(bridge).endpoints()));
        let again = controller.attach_blocking(&host.publishing('b', "80/tcp", "", "8080"));
        let text = again.unwrap_err().to_string();
        let (head, tail) = text.split_once("): ").unwrap();
        assert!(
            head.starts_with("driver failed programming external connectivity on endpoint cb ("),
            "{head}"
        );
        assert_eq!(tail, "Bind for 0.0.0.0:8080 failed: port is already allocated");
        let _listener = TcpListener::bind("0.0.0.0:8099").unwrap();
        let foreign = controller.attach_blocking(&host.publishing('b', "80/tcp", "", "8099"));
        let text = foreign.unwrap_err().to_string();
        assert!(
            text.ends_with("): failed to bind host port for 0.0.0.0:8099:172.17.0.4:80/tcp: address already in use"),
            "{text}"
        );
        let after =
            controller.0.bridge.as_ref().map(|bridge| format!("{:?}", lock(bridge).endpoints()));
        assert_eq!(before, after);
    });
}

#[test]
fn without_icc_neighbours_do_not_meet() {
    on_a_host(false, kept_apart);
}

#[test]
fn without_icc_and_br_netfilter_neighbours_do_not_meet() {
    on_a_host_without_br_netfilter(false, kept_apart);
}

fn kept_apart(host: &Host) {
    let controller = host.controller();
    let server = controller.attach_blocking(&host.publishing('a', "80/tcp", "", "8080")).unwrap();
    let client = controller.attach_blocking(&host.request('b')).unwrap();
    let serving = echo(netns_of(&server), 80);
    let direct = (address_of(&server), 80);
    let published = (Ipv4Addr::new(172, 17, 0, 1), 8080);
    assert!(netns::enter_with(netns_of(&client), || ask(direct)).unwrap().is_err());
    assert_eq!(netns::enter_with(netns_of(&client), || ask(published)).unwrap().unwrap(), 7);
    serving.join().unwrap();
}

#[test]
fn nothing_is_left_after_the_last_container() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let one = controller.attach_blocking(&host.publishing('a', "80/tcp", "", "8080")).unwrap();
        let two = controller.attach_blocking(&host.request('b')).unwrap();
        controller.detach_blocking(&id('a'), false).unwrap();
        controller.detach_blocking(&id('a'), false).unwrap();
        drop(one);
        controller.detach_blocking(&id('b'), true).unwrap();
        let bridge = controller.0.bridge.as_ref().unwrap();
        lock(bridge).close().unwrap();
        assert_eq!(links().iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo"]);
        assert!(!lock(bridge).has_table());
        drop(two);
    });
}

#[test]
fn a_restart_finds_its_containers_and_mends_what_broke() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let network = controller.inspect("bridge").unwrap().id;
        let one = controller.attach_blocking(&host.publishing('a', "80/tcp", "", "8080")).unwrap();
        let two = controller.attach_blocking(&host.request('b')).unwrap();
        let gone = controller.attach_blocking(&host.publishing('c', "80/tcp", "", "8081")).unwrap();
        drop((controller, gone));
        // While no daemon runs: the veth of one container is removed, and another container ends.
        let mut socket = Socket::open(Family::Route).unwrap();
        let alias = format!("cleat:{}", id('b'));
        let link = links().into_iter().find(|link| link.alias == alias).unwrap();
        socket.transact(&[link::delete(Which::Index(link.index))]).unwrap();

        let controller = host.controller();
        let path = |sandbox: &Sandbox| {
            use std::os::fd::AsRawFd as _;
            format!("/proc/self/fd/{}", netns_of(sandbox).as_raw_fd()).into()
        };
        let live = |digit, sandbox: &Sandbox| Live {
            container: id(digit),
            name: format!("c{digit}"),
            endpoints: sandbox.endpoints.clone(),
            ports: sandbox.ports.clone(),
            netns: path(sandbox),
        };
        controller.restore_blocking(vec![live('a', &one), live('b', &two)]).unwrap();

        let seen = controller.inspect("bridge").unwrap();
        assert_eq!(seen.id, network);
        assert_eq!(seen.containers.len(), 2);
        let serving = echo(netns_of(&one), 80);
        let to = (Ipv4Addr::new(172, 17, 0, 1), 8080);
        assert_eq!(netns::enter_with(netns_of(&two), || ask(to)).unwrap().unwrap(), 7);
        serving.join().unwrap();
        let lost = format!("cleat:{}", id('c'));
        assert!(!links().iter().any(|link| link.alias == lost));
        // The dead one's port is free, the living one's is not.
        let new = host.publishing('d', "80/tcp", "", "8081");
        assert!(controller.attach_blocking(&new).is_ok());
        let taken = host.publishing('e', "80/tcp", "", "8080");
        assert!(controller.attach_blocking(&taken).is_err());
    });
}

#[test]
fn a_bridge_that_somebody_removed_is_made_again() {
    on_a_host(true, |host| {
        let controller = host.controller();
        controller.attach_blocking(&host.request('a')).unwrap();
        let mut socket = Socket::open(Family::Route).unwrap();
        socket.transact(&[link::delete(Which::Name("cleat0"))]).unwrap();
        let again = controller.attach_blocking(&host.request('b')).unwrap();
        let gateway = TcpListener::bind("172.17.0.1:0").unwrap();
        let to = gateway.local_addr().unwrap();
        netns::enter_with(netns_of(&again), || {
            TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap();
        })
        .unwrap();
    });
}

#[test]
fn the_bridge_keeps_its_hardware_address_as_ports_come_and_go() {
    on_a_host(true, |host| {
        let controller = host.controller();
        controller.attach_blocking(&host.request('a')).unwrap();
        let before = bridge_mac();
        for digit in ['b', 'c', 'd', 'e', 'f', '1', '2', '3'] {
            controller.attach_blocking(&host.request(digit)).unwrap();
        }
        assert_eq!(bridge_mac(), before);
    });
}

fn bridge_mac() -> String {
    let mut socket = Socket::open(Family::Route).unwrap();
    link::find(&mut socket, "cleat0").unwrap().unwrap().mac
}

#[test]
fn host_and_none_need_no_namespace_of_ours() {
    on_a_host(true, |host| {
        let controller = host.controller();
        for (mode, digit) in [(Mode::Host, 'a'), (Mode::None, 'b')] {
            let sandbox =
                controller.attach_blocking(&Attach { mode, ..host.request(digit) }).unwrap();
            assert!(sandbox.netns.is_none());
            assert_eq!(sandbox.endpoints[mode.name()].ip_address, "");
            assert_eq!(controller.inspect(mode.name()).unwrap().containers.len(), 1);
        }
        assert_eq!(links().len(), 1);
    });
}

#[test]
fn networks_are_found_by_id_name_and_prefix() {
    on_a_host(true, |host| {
        let controller = host.controller();
        let bridge = controller.inspect("bridge").unwrap();
        assert_eq!(controller.inspect(&bridge.id).unwrap(), bridge);
        assert_eq!(controller.inspect(&bridge.id[..20]).unwrap(), bridge);
        let missing = controller.inspect("nosuch").unwrap_err();
        assert_eq!(
            (missing.to_string().as_str(), missing.kind()),
            ("network nosuch not found", Kind::NotFound)
        );
    });
}

#[test]
fn hardware_addresses_are_read_strictly() {
    assert_eq!(parse_mac("02:42:0a:62:01:4d").unwrap(), [2, 0x42, 0x0a, 0x62, 1, 0x4d]);
    for wrong in [
        "",
        "zz",
        "02:42:0a:62:01",
        "02:42:0a:62:01:4d:00",
        "2:42:0a:62:01:4d",
        "+2:42:0a:62:01:4d",
    ] {
        assert!(parse_mac(wrong).is_err(), "{wrong}");
    }
}
