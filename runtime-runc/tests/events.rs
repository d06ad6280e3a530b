//! `events`.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

mod common;

use common::{Bundle, succeeded};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

fn idle() -> Bundle {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.start();
    bundle
}

/// Follows a container's events.
fn follow(bundle: &Bundle, flags: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = bundle.worker();
    command.arg("events").args(flags).arg(&bundle.id).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

#[test]
fn statistics_have_runc_s_shape() {
    let bundle = idle();
    let text = succeeded(bundle.verb("events", &["--stats"], &[]));
    assert!(text.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",", bundle.id)), "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["pids"]["current"], 1);
    assert!(data["hugetlb"].is_object());
}

#[test]
fn events_come_until_the_container_is_removed() {
    let bundle = idle();
    let (mut child, mut lines) = follow(&bundle, &["--interval", "10ms"]);
    for _ in 0..3 {
        assert!(lines.next().unwrap().contains("\"type\":\"stats\""));
    }
    succeeded(bundle.verb("delete", &["--force"], &[]));
    assert!(lines.all(|line| !line.contains("oom")));
    assert!(child.wait().unwrap().success());
}

#[test]
fn running_out_of_memory_is_an_event() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    bundle.start();
    let (mut child, mut lines) = follow(&bundle, &["--interval", "10ms"]);
    // The first line tells that the watch is there.
    lines.next().unwrap();
    let exec = bundle.verb("exec", &[], &["/bin/tail", "/dev/zero"]);
    assert_eq!(exec.status.code(), Some(137));
    let wanted = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", bundle.id);
    assert!(lines.any(|line| line == wanted));
    succeeded(bundle.verb("delete", &["--force"], &[]));
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_stopped_container_has_no_events() {
    let bundle = Bundle::shell("true");
    bundle.start();
    bundle.wait_for_status("stopped");
    let output = bundle.verb("events", &["--stats"], &[]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not running"));
    assert_eq!(output.status.code(), Some(1));
}
