use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};

use super::*;

fn line(text: &str) -> String {
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05.6Z\"}}\n")
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| line(&number.to_string())).collect()
}

struct Log {
    directory: tempfile::TempDir,
}

impl Log {
    /// Numbers from 0: 0–9 compressed, 10–19 rotated, 20–29 in the present file.
    fn new() -> Self {
        let log = Self { directory: tempfile::tempdir().unwrap() };
        let mut gzip =
            GzEncoder::new(fs::File::create(log.path(".2.gz")).unwrap(), Compression::fast());
        gzip.write_all(lines(0..10).as_bytes()).unwrap();
        gzip.finish().unwrap();
        fs::write(log.path(".1"), lines(10..20)).unwrap();
        fs::write(log.path(""), lines(20..30)).unwrap();
        log
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("x-json.log{suffix}"))
    }

    fn reading(&self, tail: Option<usize>, follow: bool) -> Reader {
        let options = LogOptions { stdout: true, stderr: true, tail, ..LogOptions::default() };
        Reader::open(&self.path(""), options, true, follow).unwrap()
    }
}

fn numbers(reading: &mut Reader) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let piece = reading.piece().unwrap();
        all.extend(
            String::from_utf8(piece.bytes)
                .unwrap()
                .lines()
                .map(|line| line.parse::<u32>().unwrap()),
        );
        if piece.caught_up {
            return all;
        }
    }
}

#[test]
fn rotated_and_compressed_files_are_one_log() {
    assert_eq!(numbers(&mut Log::new().reading(None, false)), (0..30).collect::<Vec<_>>());
}

#[test]
fn tail_counts_back_through_all_files() {
    let log = Log::new();
    for count in [0, 1, 9, 10, 11, 20, 25, 30, 99] {
        let wanted: Vec<u32> = (30_u32.saturating_sub(count)..30).collect();
        assert_eq!(numbers(&mut log.reading(Some(count as usize), false)), wanted, "tail {count}");
    }
}

#[test]
fn what_is_written_after_the_opening_belongs_to_followers_only() {
    let log = Log::new();
    let (mut reading, mut following) = (log.reading(Some(1), false), log.reading(Some(1), true));
    let mut file = fs::OpenOptions::new().append(true).open(log.path("")).unwrap();
    file.write_all(lines(30..31).as_bytes()).unwrap();
    assert_eq!(numbers(&mut reading), [29]);
    assert_eq!(numbers(&mut following), [29, 30]);
}

#[test]
fn a_follower_misses_nothing_over_rotations() {
    let log = Log::new();
    let mut following = log.reading(Some(0), true);
    assert_eq!(numbers(&mut following), [0_u32; 0]);
    let mut file = fs::OpenOptions::new().append(true).open(log.path("")).unwrap();
    // Half a record, then two rotations before the follower looks again.
    let (head, rest) = (line("30"), lines(31..33));
    file.write_all(&head.as_bytes()[..20]).unwrap();
    assert_eq!(numbers(&mut following), [0_u32; 0]);
    file.write_all(&head.as_bytes()[20..]).unwrap();
    file.write_all(rest.as_bytes()).unwrap();
    for next in [33, 34] {
        fs::rename(log.path(".1"), log.path(".2")).unwrap();
        fs::rename(log.path(""), log.path(".1")).unwrap();
        fs::write(log.path(""), line(&next.to_string())).unwrap();
    }
    assert_eq!(numbers(&mut following), [30, 31, 32, 33, 34]);
}

#[test]
fn a_log_that_is_emptied_begins_anew_for_a_follower() {
    let log = Log::new();
    let mut following = log.reading(Some(1), true);
    assert_eq!(numbers(&mut following), [29]);
    fs::write(log.path(""), line("30")).unwrap();
    assert_eq!(numbers(&mut following), [30]);
}

#[test]
fn a_container_that_never_ran_has_an_empty_log() {
    let log = Log { directory: tempfile::tempdir().unwrap() };
    assert_eq!(numbers(&mut log.reading(None, false)), [0_u32; 0]);
    let mut following = log.reading(None, true);
    assert_eq!(numbers(&mut following), [0_u32; 0]);
    fs::write(log.path(""), lines(0..2)).unwrap();
    assert_eq!(numbers(&mut following), [0, 1]);
}

#[test]
fn damaged_lines_are_left_out() {
    let log = Log { directory: tempfile::tempdir().unwrap() };
    fs::write(log.path(""), format!("{}{{\"log\":\"tr\n\n{}", lines(0..1), lines(1..2))).unwrap();
    assert_eq!(numbers(&mut log.reading(None, false)), [0, 1]);
}
