//! A layer in several parts at once, from a registry whose first answer stands still until they are asked for.

use std::{
    ops::Range,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use cleat_tests::{Answer, Asked, FakeRegistry, Gate, TestDaemon, digest, wait_for};

use crate::registry::{Served, is_blob, noise, served, stored, wanted};

/// What the first answer brings before it stands still.
const FIRST: usize = 1 << 20;
/// Long enough for four parts beside what the first connection brings.
const LENGTH: usize = 40 << 20;

/// A registry whose first answer with the layer stands still until the layer has been asked for `parts` times more. Later
/// answers are changed by `change`, which hears how many there were before.
fn slow(
    daemon: &TestDaemon,
    image: &Served,
    parts: usize,
    change: impl Fn(usize, &Asked, Answer) -> Answer + Send + Sync + 'static,
) -> FakeRegistry {
    let (good, layer) = (image.clone(), format!("/blobs/{}", digest(&image.layer)));
    let (count, gate) = (AtomicUsize::new(0), Gate::default());
    FakeRegistry::start(daemon.network(), 5000, move |asked| {
        let answer = good.answer(asked);
        if !(asked.method == "GET" && asked.path.ends_with(&layer)) {
            return answer;
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Answer { hold: Some((FIRST, gate.clone())), ..answer },
            number => {
                if number == parts {
                    gate.open();
                }
                change(number - 1, asked, answer)
            }
        }
    })
}

/// What was asked for of the layer, `None` being all of it.
fn ranges(registry: &FakeRegistry, image: &Served) -> Vec<Option<Range<usize>>> {
    let asked = registry.asked();
    let blobs = asked.iter().filter(|asked| is_blob(asked, &image.layer));
    blobs.map(|asked| wanted(asked, image.layer.len())).collect()
}

fn pull(daemon: &TestDaemon, registry: &FakeRegistry) {
    daemon.docker(["pull", &registry.name("a/b:1")]).ok();
    daemon.docker(["rmi", &registry.name("a/b:1")]).ok();
    assert_eq!(stored(daemon), Vec::<String>::new());
}

#[test]
fn parts_of_a_slow_layer_come_at_once() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, &noise(LENGTH), "amd64");
    // No part goes on before three of them are on their way: beside the first connection two, then as many without it.
    let gate = Gate::default();
    let registry = slow(&daemon, &image, 2, move |number, _, answer| {
        if number == 2 {
            gate.open();
        }
        Answer { hold: Some((1000, gate.clone())), ..answer }
    });
    pull(&daemon, &registry);
    let mut ranges = ranges(&registry, &image);
    assert_eq!(ranges.remove(0), None);
    let mut parts: Vec<Range<usize>> = ranges.into_iter().flatten().collect();
    parts.sort_by_key(|part| part.start);
    assert!(parts.len() >= 4, "{parts:?}");
    assert!(parts.windows(2).all(|two| two[0].end == two[1].start), "{parts:?}");
    assert_eq!(parts.last().unwrap().end, image.layer.len());
}

#[test]
fn parts_that_are_not_what_they_should_be_do_no_harm() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, &noise(LENGTH), "amd64");
    let whole = |registry: &FakeRegistry| {
        ranges(registry, &image).iter().filter(|range| range.is_none()).count()
    };
    let alone = |registry: &FakeRegistry| {
        let ranges = ranges(registry, &image);
        // If they are slower to fail than it is to come to them, it goes on from there.
        assert!((2..=5).contains(&ranges.len()), "{ranges:?}");
        assert!(ranges[0].is_none() && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
    };
    let all = image.layer.clone();
    let no_ranges = move |_: usize, _: &Asked, _: Answer| Answer::ok(all.clone());
    let refused = |_: usize, _: &Asked, _: Answer| Answer::status(416);
    let size = image.layer.len();
    let shorter = move |_: usize, asked: &Asked, mut answer: Answer| {
        let range = wanted(asked, size).unwrap();
        answer.body.pop();
        answer.headers.clear();
        answer.with("Content-Range", format!("bytes {}-{}/{size}", range.start, range.end - 2))
    };
    // With each of these the first connection brings everything.
    let registry = slow(&daemon, &image, 1, no_ranges);
    pull(&daemon, &registry);
    alone(&registry);
    drop(registry);
    let registry = slow(&daemon, &image, 1, refused);
    pull(&daemon, &registry);
    alone(&registry);
    drop(registry);
    let registry = slow(&daemon, &image, 1, shorter);
    pull(&daemon, &registry);
    alone(&registry);
    drop(registry);
    // The name says what the bytes are, not what a server calls this answer.
    let tagged = |number: usize, _: &Asked, answer: Answer| answer.with("ETag", number.to_string());
    let registry = slow(&daemon, &image, 2, tagged);
    pull(&daemon, &registry);
    assert_eq!(whole(&registry), 1);
    drop(registry);
    // Other bytes than it should have: all of it once more, by one connection.
    let wrong = |_: usize, asked: &Asked, mut answer: Answer| {
        if !asked.header("range").is_empty() {
            answer.body[10] ^= 1;
        }
        answer
    };
    let registry = slow(&daemon, &image, 2, wrong);
    pull(&daemon, &registry);
    assert_eq!(whole(&registry), 2);
}

#[test]
fn a_part_that_is_lost_is_gone_on_with_where_it_broke() {
    let daemon = TestDaemon::start();
    let image = served(&daemon, &noise(LENGTH), "amd64");
    let broken = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&broken);
    let size = image.layer.len();
    let registry = slow(&daemon, &image, 2, move |number, asked, answer| {
        if number > 0 {
            return answer;
        }
        *kept.lock().unwrap() = wanted(asked, size);
        Answer { cut: Some(FIRST), ..answer }
    });
    pull(&daemon, &registry);
    let broken = broken.lock().unwrap().take().unwrap();
    let ranges = ranges(&registry, &image);
    assert!(ranges.contains(&Some(broken.start + FIRST..broken.end)), "{ranges:?}");
}

#[test]
fn a_daemon_that_dies_keeps_what_came_before_the_parts() {
    let mut daemon = TestDaemon::start();
    let image = served(&daemon, &noise(LENGTH), "amd64");
    // The parts come, the first connection never goes on.
    let registry = slow(&daemon, &image, usize::MAX, |_, _, answer| answer);
    let name = registry.name("a/b:1");
    let mut pull =
        daemon.docker_command().args(["pull", &name]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("two parts", || (ranges(&registry, &image).len() == 3).then_some(()));
    let hex = digest(&image.layer).replace("sha256:", "");
    let partial = daemon.path(&format!("root/content/ingest/{hex}.partial"));
    wait_for("what the first connection brought", || {
        (std::fs::metadata(&partial).ok()?.len() == FIRST as u64).then_some(())
    });
    daemon.kill();
    assert!(!pull.wait().unwrap().success());
    daemon.spawn();
    assert_eq!(std::fs::metadata(&partial).unwrap().len(), FIRST as u64);
    daemon.docker(["pull", &name]).ok();
    let ranges = ranges(&registry, &image);
    assert_eq!(ranges[3], Some(FIRST..image.layer.len()), "{ranges:?}");
    daemon.docker(["rmi", &name]).ok();
    assert_eq!(stored(&daemon), Vec::<String>::new());
}
