//! Attach over a WebSocket.

use cleat_tests::{TestDaemon, WebSocket};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn open(daemon: &TestDaemon, path: &str) -> Result<WebSocket, String> {
    WebSocket::open(&daemon.path("cleat.sock"), path)
}

#[test]
fn streams_go_through_a_websocket() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["create", "-i", "--name", "cat", "busybox", "cat"]).ok();
    let all = "?stream=1&stdin=1&stdout=1&stderr=1";
    let mut client = open(&daemon, &format!("/v1.51/containers/cat/attach/ws{all}")).unwrap();
    daemon.docker(["start", "cat"]).ok();
    client.send(BINARY, b"hello\n");
    assert_eq!(client.read(BINARY, 6), b"hello\n");
    client.send(PING, b"p");
    let pong = client.frame().unwrap();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"p"[..]));
    client.send(TEXT, b"more\n");
    assert_eq!(client.read(BINARY, 5), b"more\n");
    // Before 1.28 output was text, and all streams were joined whatever was asked for.
    let mut old = open(&daemon, "/v1.27/containers/cat/attach/ws?stream=1").unwrap();
    old.send(TEXT, b"old\n");
    assert_eq!(old.read(TEXT, 4), b"old\n");
    assert_eq!(client.read(BINARY, 4), b"old\n");
    daemon.docker(["kill", "cat"]).ok();
    let end = client.frame().unwrap();
    assert_eq!((end.opcode, end.payload), (CLOSE, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(client.frame(), None);
    daemon.docker(["rm", "cat"]).ok();
}

#[test]
fn a_terminal_and_a_log_go_through_a_websocket() {
    let daemon = TestDaemon::with_busybox();
    daemon.docker(["run", "-dit", "--name", "sh", "busybox", "cat"]).ok();
    let mut client = open(&daemon, "/containers/sh/attach/ws?stream=1&stdin=1&stdout=1").unwrap();
    client.send(BINARY, b"x\r");
    // The terminal's echo, and what cat says.
    assert_eq!(client.read(BINARY, 6), b"x\r\nx\r\n");
    // Detach keys: the client goes, the container stays.
    client.send(BINARY, &[16, 17]);
    while client.frame().is_some_and(|frame| frame.opcode != CLOSE) {}
    assert_eq!(daemon.inspect("sh", ".State.Running"), "true");
    daemon.docker(["rm", "-f", "sh"]).ok();
    daemon.docker(["run", "--name", "said", "busybox", "echo", "hi"]).ok();
    let mut log = open(&daemon, "/containers/said/attach/ws?logs=1&stdout=1").unwrap();
    assert_eq!(log.read(BINARY, 3), b"hi\n");
    assert_eq!(log.frame().unwrap().opcode, CLOSE);
}

#[test]
fn what_is_no_websocket_is_refused() {
    let daemon = TestDaemon::with_busybox();
    let missing = open(&daemon, "/containers/nope/attach/ws?stream=1").err().unwrap();
    assert!(missing.starts_with("HTTP/1.1 404 "), "{missing}");
    assert!(missing.contains("No such container: nope"), "{missing}");
    daemon.docker(["create", "--name", "one", "busybox"]).ok();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-i", "--unix-socket"]).arg(daemon.path("cleat.sock"));
    let plain = cleat_tests::run(curl.arg("http://d/containers/one/attach/ws?stream=1")).ok();
    assert!(plain.starts_with("HTTP/1.1 400 "), "{plain}");
    assert!(plain.ends_with("not websocket protocol"), "{plain}");
}
