//! The life of a task, as our daemon drives it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::{fs, net::Shutdown};

use cleat_proto::{containerd::v1::types::Status, journal::What, shim::Attach, shim_v1};
use common::{Shim, all, blocking, read_frame, read_frames, shell, until, write_all};

type Test = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn a_container_runs_and_says_how_it_ended() -> Test {
    let mut shim = Shim::create(shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!(shim.state("").await.status(), Status::Created);
    let pid = shim.start_task("").await?;
    assert_eq!(shim.wait("").await, 7);

    let state = shim.state("").await;
    assert_eq!((state.status(), state.exit_status, state.pid), (Status::Stopped, 7, pid));
    assert!(state.exited_at.is_some());
    assert_eq!(shim.exit_file().status, 7);
    let mut log = shim.log();
    log.sort();
    assert_eq!(log, [("stderr".into(), "err\n".into()), ("stdout".into(), "out\n".into())]);
    let entries: Vec<_> = shim.watch(0).take(2).map(|entry| (entry.seq, entry.what)).collect();
    assert_eq!(
        entries,
        [
            (1, What::Started { pid, restart_count: 0 }),
            (2, What::Exited { status: 7, oom_killed: false, error: None, by_hand: false }),
        ]
    );
    shim.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_signal_ends_it_with_its_number() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    shim.kill("", 9).await.unwrap();
    assert_eq!(shim.wait("").await, 137);
    assert_eq!(shim.kill("", 9).await.unwrap_err().code(), tonic::Code::NotFound);
    shim.finish().await;
}

#[tokio::test]
async fn a_created_container_can_be_deleted() {
    let shim = Shim::create(shell("exit 0")).await;
    shim.finish().await;
}

#[tokio::test]
async fn a_failed_create_tells_the_runtimes_words_and_leaves_the_shim_usable() {
    let mut options = shell("");
    options.args = vec!["nope".into()];
    let mut shim = Shim::start(options).await;
    let error = shim.try_create().await.unwrap_err();
    let text = error.message();
    assert!(
        text.starts_with(
            "OCI runtime create failed: runc create failed: unable to start container process: "
        ),
        "{text}"
    );
    assert!(text.ends_with("exec: \"nope\": executable file not found in $PATH"), "{text}");
    assert_eq!(
        shim.task
            .state(cleat_proto::containerd::task::v3::StateRequest {
                id: shim.id.clone(),
                exec_id: String::new()
            })
            .await
            .unwrap_err()
            .code(),
        tonic::Code::NotFound
    );
}

#[tokio::test]
async fn what_a_client_types_comes_back_framed() {
    let mut shim = Shim::create(shell("cat; echo done >&2")).await;
    let mut client = shim.attach(all()).unwrap();
    shim.start_task("").await.unwrap();
    write_all(&client, b"hello\n");
    client.shutdown(Shutdown::Write).unwrap();
    let frames = blocking(move || read_frames(&mut client)).await;
    assert_eq!(frames, [(1, b"hello\n".to_vec()), (2, b"done\n".to_vec())]);
    assert_eq!(shim.wait("").await, 0);
    shim.finish().await;
}

#[tokio::test]
async fn a_process_that_reads_no_further_is_still_heard() {
    let mut options =
        shell("read line; exec 0<&-; for i in $(seq 50); do echo $line; sleep 0.01; done");
    options.stdin_once = false;
    let mut shim = Shim::create(options).await;
    let mut client = shim.attach(all()).unwrap();
    shim.start_task("").await.unwrap();
    write_all(&client, b"a\n");
    let frames = blocking(move || {
        let first = read_frame(&mut client);
        write_all(&client, b"nobody reads this\n");
        first.into_iter().chain(read_frames(&mut client)).collect::<Vec<_>>()
    })
    .await;
    let heard: Vec<u8> = frames.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(String::from_utf8_lossy(&heard), "a\n".repeat(50));
    assert_eq!(shim.wait("").await, 0);
    shim.finish().await;
}

#[tokio::test]
async fn two_hundred_megabytes_go_through_unharmed() {
    for driver in ["none", "json-file"] {
        let mut options = shell("cat");
        options.log.driver = driver.into();
        let mut shim = Shim::create(options).await;
        let mut client = shim.attach(all()).unwrap();
        shim.start_task("").await.unwrap();
        let line = format!("{}\n", "0123456789".repeat(10).split_off(1));
        let block = line.repeat(2500);
        let total: usize = if driver == "none" { 200_000_000 } else { 50_000_000 };
        let writer = client.try_clone().unwrap();
        let began = std::time::Instant::now();
        let typed = std::thread::spawn(move || {
            for _ in 0..total / block.len() {
                write_all(&writer, block.as_bytes());
            }
            writer.shutdown(Shutdown::Write).unwrap();
            block
        });
        let got = blocking(move || {
            let mut got = Vec::with_capacity(total);
            while let Some((kind, bytes)) = common::read_frame(&mut client) {
                assert_eq!(kind, 1);
                got.extend(bytes);
            }
            got
        })
        .await;
        let rate = total as f64 / 1e6 / began.elapsed().as_secs_f64();
        println!(
            "{driver}: {rate:.0} MB/s, CPU of the shim (user, system) {:?} ms",
            common::cpu_millis(shim.pid.cast_unsigned())
        );
        let block = typed.join().unwrap();
        assert_eq!(got.len(), total);
        assert!(got.chunks(block.len()).all(|chunk| chunk == block.as_bytes()));
        assert_eq!(shim.wait("").await, 0);
        shim.finish().await;
    }
}

#[tokio::test]
async fn an_attached_client_first_gets_the_log_and_no_gap() {
    let mut shim =
        Shim::run(shell("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; cat; echo end"))
            .await;
    until("it has said something", async || {
        fs::metadata(shim.path("log")).is_ok_and(|log| log.len() > 0)
    })
    .await;
    let mut client = shim.attach(Attach { logs: true, ..all() }).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let frames = blocking(move || read_frames(&mut client)).await;
    let expected: String =
        (0..3000).map(|number| format!("{number}\n")).chain(["end\n".into()]).collect();
    assert!(frames == [(1, expected.into_bytes())], "{} frames", frames.len());
    assert_eq!(shim.wait("").await, 0);
    shim.finish().await;
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_hold_the_container() {
    let mut shim = Shim::create(shell(
        "head -c 20000000 /proc/self/exe >/dev/null; yes x | head -c 20000000; exit 5",
    ))
    .await;
    let client = shim.attach(Attach { stdin: false, ..all() }).unwrap();
    shim.start_task("").await.unwrap();
    assert_eq!(shim.wait("").await, 5);
    // It still gets everything when it wakes up.
    let mut client = client;
    let frames = blocking(move || read_frames(&mut client)).await;
    assert_eq!(frames.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 20_000_000);
    shim.finish().await;
}

#[tokio::test]
async fn a_terminal_is_raw_and_has_a_size() {
    let mut options = shell("stty size; read line; echo got $line");
    options.terminal = true;
    let mut shim = Shim::create(options).await;
    let request = cleat_proto::containerd::task::v3::ResizePtyRequest {
        id: shim.id.clone(),
        width: 100,
        height: 30,
        ..Default::default()
    };
    shim.task.resize_pty(request).await.unwrap();
    let mut client = shim.attach(all()).unwrap();
    shim.start_task("").await.unwrap();
    write_all(&client, b"hi\r");
    let text = blocking(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut client, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    })
    .await;
    assert!(text.contains("30 100\r\n") && text.ends_with("got hi\r\n"), "{text:?}");
    assert_eq!(shim.wait("").await, 0);
    assert!(shim.log().iter().all(|(stream, _)| stream == "stdout"));
    shim.finish().await;
}

#[tokio::test]
async fn the_detach_keys_let_the_client_go_and_the_container_run() {
    let mut options = shell("cat");
    options.terminal = true;
    let mut shim = Shim::run(options).await;
    let mut client = shim.attach(Attach { detach_keys: vec![16, 17], ..all() }).unwrap();
    write_all(&client, b"\x10\x11");
    blocking(move || std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap()).await;
    let last = shim.watch(1).next().unwrap();
    assert_eq!(last.what, What::Detached { exec_id: String::new() });
    assert_eq!(shim.state("").await.status(), Status::Running);
    shim.kill("", 9).await.unwrap();
    assert_eq!(shim.wait("").await, 137);
    shim.finish().await;
}

#[tokio::test]
async fn execs_run_beside_and_leave_nothing() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    for (terminal, expected) in [(false, &b"in: x\n"[..]), (true, b"x\r\nin: x\r\n")] {
        shim.add_exec("e", "read line; echo in: $line; exit 3", terminal).await;
        let mut client = shim.attach(Attach { exec_id: "e".into(), ..all() }).unwrap();
        write_all(&client, b"x\n");
        let pid = shim.start_task("e").await.unwrap();
        assert!(pid > 0);
        let got = blocking(move || {
            let mut got = Vec::new();
            std::io::Read::read_to_end(&mut client, &mut got).unwrap();
            got
        })
        .await;
        assert_eq!(shim.wait("e").await, 3);
        assert_eq!(if terminal { &got[..] } else { &got[8..] }, expected);
        assert_eq!(shim.delete("e").await.unwrap().exit_status, 3);
        assert_eq!(shim.delete("e").await.unwrap_err().code(), tonic::Code::NotFound);
    }
    shim.add_exec("bad", "", false).await;
    assert_eq!(shim.delete("bad").await.unwrap().pid, 0);
    shim.stop(15, Some(0)).await;
    shim.finish().await;
}

#[tokio::test]
async fn the_client_of_an_exec_that_cannot_start_is_told() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    shim.add_exec_of("e", &["nope"], false).await;
    let mut client = shim.attach(Attach { exec_id: "e".into(), ..all() }).unwrap();
    let error = shim.start_task("e").await.unwrap_err();
    let expected = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\": executable file not found in $PATH";
    assert_eq!(error.message(), expected);
    // Deleted at once, as the daemon does.
    shim.delete("e").await.ok();
    let frames = blocking(move || read_frames(&mut client)).await;
    assert_eq!(frames, [(1, format!("{expected}\r\n").into_bytes())]);
    shim.stop(15, Some(0)).await;
    shim.finish().await;
}

#[tokio::test]
async fn a_child_in_the_background_does_not_hold_an_exec_for_ever() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    shim.add_exec("e", "sleep 1000 & echo hi", false).await;
    let mut client = shim.attach(Attach { exec_id: "e".into(), ..all() }).unwrap();
    shim.start_task("e").await.unwrap();
    assert_eq!(shim.wait("e").await, 0);
    assert_eq!(blocking(move || read_frames(&mut client)).await, [(1, b"hi\n".to_vec())]);
    shim.stop(9, None).await;
    shim.finish().await;
}

#[tokio::test]
async fn nor_one_that_never_stops_talking() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    shim.add_exec("e", "yes & exit 3", false).await;
    let client = shim.attach(Attach { exec_id: "e".into(), ..all() }).unwrap();
    let mut reader = client.try_clone().unwrap();
    let drained =
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap());
    shim.start_task("e").await.unwrap();
    assert_eq!(shim.wait("e").await, 3);
    blocking(move || drained.join().unwrap()).await;
    shim.stop(9, None).await;
    shim.finish().await;
}

#[tokio::test]
async fn stop_waits_for_its_signal_and_then_kills() {
    let mut shim =
        Shim::run(shell("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done")).await;
    until("it is ready", async || !shim.log().is_empty()).await;
    shim.stop(15, Some(10_000)).await;
    assert_eq!(shim.exit_file().status, 4);
    shim.finish().await;

    let deaf = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    let mut shim = Shim::run(deaf).await;
    until("it is ready", async || !shim.log().is_empty()).await;
    shim.stop(15, Some(100)).await;
    assert_eq!(shim.exit_file().status, 137);
    shim.finish().await;
}

#[tokio::test]
async fn a_paused_container_is_killed_all_the_same() {
    let mut shim = Shim::run(shell("while :; do sleep 1; done")).await;
    let id = shim.id.clone();
    shim.task.pause(cleat_proto::containerd::task::v3::PauseRequest { id }).await.unwrap();
    assert_eq!(shim.state("").await.status(), Status::Paused);
    shim.stop(15, Some(50)).await;
    assert_eq!(shim.exit_file().status, 137);
    shim.finish().await;
}

fn policy(kind: shim_v1::restart_policy::Kind, max_retries: u32) -> shim_v1::RestartPolicy {
    shim_v1::RestartPolicy { kind: kind.into(), max_retries }
}

#[tokio::test]
async fn on_failure_restarts_as_often_as_ordered() {
    let mut options = shell("echo run; exit 7");
    options.restart = policy(shim_v1::restart_policy::Kind::OnFailure, 2);
    let mut shim = Shim::run(options).await;
    assert_eq!(shim.wait("").await, 7);
    assert_eq!(shim.exit_file().restart_count, 2);
    assert_eq!(shim.log().len(), 3);
    let kinds: Vec<_> = shim
        .watch(0)
        .take(6)
        .map(|entry| match entry.what {
            What::Started { restart_count, .. } => format!("started {restart_count}"),
            What::Restarting { status, delay_millis, .. } => {
                format!("restarting {status} {delay_millis}")
            }
            What::Exited { status, .. } => format!("exited {status}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        ["started 0", "restarting 7 100", "started 1", "restarting 7 200", "started 2", "exited 7"]
    );
    shim.finish().await;
}

#[tokio::test]
async fn a_stop_during_the_delay_ends_it() {
    let mut options = shell("exit 1");
    options.restart = policy(shim_v1::restart_policy::Kind::Always, 0);
    let mut shim = Shim::run(options).await;
    let restarting = |entry: &cleat_proto::journal::Entry| {
        matches!(entry.what, What::Restarting { delay_millis: 800.., .. })
    };
    let watch = shim.watch(0);
    blocking(move || watch.into_iter().find(restarting)).await.unwrap();
    let state = shim.state("").await;
    assert_eq!((state.status(), state.pid, state.exited_at), (Status::Stopped, 0, None));
    shim.stop(15, Some(10_000)).await;
    assert_eq!(shim.exit_file().status, 1);
    shim.finish().await;
}

#[tokio::test]
async fn an_oom_kill_is_told() {
    let mut options = shell("x=$(yes | head -c 100000000); echo survived");
    options.memory = Some(16 << 20);
    let mut shim = Shim::run(options).await;
    let status = shim.wait("").await;
    assert!(status != 0, "{status}");
    assert!(shim.exit_file().oom_killed);
    shim.finish().await;
}

#[tokio::test]
async fn without_a_pid_namespace_the_rest_is_killed_with_the_first() {
    let mut options = shell("sleep 1000 & echo $!");
    options.host_pid = true;
    let mut shim = Shim::run(options).await;
    assert_eq!(shim.wait("").await, 0);
    let pid = shim.log()[0].1.trim().to_owned();
    until("the child has gone", async || !fs::exists(format!("/proc/{pid}")).unwrap()).await;
    shim.finish().await;
}

#[tokio::test]
async fn when_the_shim_is_killed_the_container_dies_with_it() {
    if !common::runtime().native {
        return; // a foreign runtime leaves that to whoever started the shim
    }
    let mut shim = Shim::create(shell("echo ready; while :; do sleep 1; done")).await;
    let pid = shim.start_task("").await.unwrap();
    until("it runs", async || !shim.log().is_empty()).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim.pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let gone = async || {
        !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    until("the container is gone", gone).await;
}
