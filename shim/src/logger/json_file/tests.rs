use std::{collections::HashMap, fs, io::Read, time::Duration};

use super::*;

const AT: SystemTime = SystemTime::UNIX_EPOCH;

struct Log {
    directory: tempfile::TempDir,
    file: JsonFile,
}

fn open(orders: shim_v1::Log) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log").to_str().unwrap().to_owned();
    let file =
        JsonFile::open(&shim_v1::Log { driver: "json-file".into(), path, ..orders }).unwrap();
    Log { directory, file }
}

impl Log {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    fn records(&self) -> Vec<String> {
        let text = self.text("log");
        let parse = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|line| parse(line)["log"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_record_has_dockers_keys_in_dockers_order() {
    let attributes =
        HashMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\"1\"".to_owned())]);
    let mut log = open(shim_v1::Log { attributes, ..Default::default() });
    log.file.write(Source::Stdout, b"hello\n", AT + Duration::from_nanos(6));
    log.file.write(Source::Stderr, b"oh\n", AT);
    assert_eq!(
        log.text("log"),
        "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"\\\"1\\\"\",\"b\":\"2\"},\"time\":\"1970-01-01T00:00:00.000000006Z\"}\n\
         {\"log\":\"oh\\n\",\"stream\":\"stderr\",\"attrs\":{\"a\":\"\\\"1\\\"\",\"b\":\"2\"},\"time\":\"1970-01-01T00:00:00Z\"}\n"
    );
}

#[track_caller]
fn check_escape(data: &[u8], expected: &str) {
    // At every offset within a word.
    for before in 0..9 {
        let mut padded = vec![b'x'; before];
        padded.extend_from_slice(data);
        let mut out = Vec::new();
        escape(&padded, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{}{expected}", "x".repeat(before)));
    }
}

#[test]
fn escapes_are_those_of_dockers_writer() {
    check_escape(b"a\"b\\c\n\r\t\0", "a\\\"b\\\\c\\n\\r\\u0009\\u0000");
    check_escape(b"<a href=x>&</a>=?", "\\u003ca href=x\\u003e\\u0026\\u003c/a\\u003e=?");
    check_escape("äö€😀\u{2028}ä\u{2029}\u{7f}!".as_bytes(), "äö€😀\\u2028ä\\u2029\u{7f}!");
    check_escape(b"\xff\xfeok\xc3", "\\ufffd\\ufffdok\\ufffd");
    check_escape(b"\xe2\x80\xa8\xa8\x1f !", "\\u2028\\ufffd\\u001f !");
}

#[test]
fn the_fast_scan_agrees_with_the_plain_rule_on_every_byte() {
    for byte in 0..=255_u8 {
        for at in 0..17 {
            let mut data = [b'a'; 17];
            data[at] = byte;
            assert_eq!(plain_len(&data), if is_plain(byte) { 17 } else { at }, "{byte:#x} at {at}");
        }
    }
}

#[test]
fn a_line_in_pieces_is_one_record() {
    let mut log = open(shim_v1::Log::default());
    for piece in [&b"one "[..], b"line", b"\nnext\nta", b"il"] {
        log.file.write(Source::Stdout, piece, AT);
    }
    log.file.write(Source::Stderr, b"other\n", AT);
    assert_eq!(log.records(), ["one line\n", "next\n", "other\n"]);
    assert_eq!(log.file.pending(Source::Stdout), b"tail");
    log.file.finish(AT);
    assert_eq!(log.records().last().unwrap(), "tail");
}

#[test]
fn a_long_line_is_cut_and_joins_to_itself() {
    for (unit, times) in [("x", 40_000), ("ä€", 9_000)] {
        for chunk in [1000, 16 * 1024, 65_536] {
            let mut log = open(shim_v1::Log::default());
            let line = format!("z{}\n", unit.repeat(times));
            for piece in line.as_bytes().chunks(chunk) {
                log.file.write(Source::Stdout, piece, AT);
            }
            let records = log.records();
            assert_eq!(records.concat(), line);
            assert!(
                (line.len().div_ceil(MAX_RECORD_BYTES)..=line.len() / (MAX_RECORD_BYTES - 3) + 1)
                    .contains(&records.len())
            );
            assert!(records.iter().all(|record| record.len() <= MAX_RECORD_BYTES));
        }
    }
}

#[test]
fn a_line_of_exactly_one_record_is_one_record() {
    let mut log = open(shim_v1::Log::default());
    let line = "y".repeat(MAX_RECORD_BYTES);
    log.file.write(Source::Stdout, line.as_bytes(), AT);
    log.file.write(Source::Stdout, b"\n", AT);
    assert_eq!(log.records().concat(), format!("{line}\n"));
}

#[test]
fn rotation_keeps_the_newest_files() {
    let mut log = open(shim_v1::Log { max_size_bytes: 100, max_files: 3, ..Default::default() });
    for index in 0..10 {
        log.file.write(Source::Stdout, format!("line {index}\n").as_bytes(), AT);
    }
    let mut names: Vec<_> = fs::read_dir(log.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let all = log.file.reader(options, true).unwrap().piece().unwrap().bytes;
    let expected: String = (4..10).map(|index| format!("line {index}\n")).collect();
    assert_eq!(String::from_utf8(all).unwrap(), expected);
}

#[test]
fn rotated_files_are_compressed() {
    let mut log = open(shim_v1::Log {
        max_size_bytes: 100,
        max_files: 2,
        compress: true,
        ..Default::default()
    });
    for index in 0..4 {
        log.file.write(Source::Stdout, format!("line {index}\n").as_bytes(), AT);
    }
    log.file.finish(AT);
    let packed = fs::File::open(log.directory.path().join("log.1.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    assert!(text.contains("line 0") && text.contains("line 1"), "{text}");
    assert!(!log.directory.path().join("log.1").exists());
}

#[test]
fn a_full_disk_loses_records_and_nothing_else() {
    let path = "/dev/full".to_owned();
    let mut file = JsonFile::open(&shim_v1::Log { path, ..Default::default() }).unwrap();
    file.write(Source::Stdout, b"lost\n", AT);
    assert_eq!(file.lost_batches, 1);
}
