//! How little a shim takes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::fs;

use common::{Shim, shell};

fn rollup(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The figure that counts is that of the release build: `SHIM_TEST_BINARY=… cargo test --test footprint -- --nocapture`.
#[tokio::test]
async fn twenty_shims_have_one_thread_and_little_memory_each() {
    let mut shims = Vec::new();
    for _ in 0..20 {
        shims.push(Shim::run(shell("while :; do sleep 1000; done")).await);
    }
    for round in ["running", "after an exec and an attached client"] {
        let sum = |name| shims.iter().map(|shim| rollup(shim.pid, name)).sum::<u64>() / 20;
        let (pss, dirty) = (sum("Pss:"), sum("Private_Dirty:"));
        println!("{round}: PSS {pss} KiB, private dirty {dirty} KiB each");
        // An unoptimised build takes more; the promise is the release build's.
        let (figure, limit) =
            if std::env::var("SHIM_TEST_BINARY").is_ok() { (pss, 512) } else { (dirty, 1024) };
        assert!(figure <= limit, "{figure} KiB");
        for shim in &mut shims {
            let threads = fs::read_dir(format!("/proc/{}/task", shim.pid)).unwrap().count();
            assert_eq!(threads, 1);
            shim.add_exec("e", "head -c 1000000 /dev/zero", false).await;
            let wish = cleat_proto::shim::Attach { exec_id: "e".into(), ..common::all() };
            let mut client = shim.attach(wish).unwrap();
            shim.start_task("e").await.unwrap();
            let got = common::blocking(move || common::read_frames(&mut client)).await;
            assert_eq!(got[0].1.len(), 1_000_000);
            shim.wait("e").await;
            shim.delete("e").await.unwrap();
        }
    }
    for mut shim in shims {
        shim.stop(9, None).await;
        shim.finish().await;
    }
}
