//! Writing to stdout and stderr. A reader that is gone ends us, as `SIGPIPE` ends other programs.

use std::io::{self, Write};

/// The exit code of a program killed by `SIGPIPE`.
const BROKEN_PIPE: i32 = 128 + 13;

/// Writes to stdout.
pub fn out(text: &str) {
    write(&mut io::stdout().lock(), text.as_bytes());
}

/// Writes a line to stdout.
pub fn line(text: &str) {
    out(&format!("{text}\n"));
}

/// Writes to stderr.
pub fn err(text: &str) {
    write(&mut io::stderr().lock(), text.as_bytes());
}

/// Writes bytes to stdout.
pub fn bytes(bytes: &[u8]) {
    write(&mut io::stdout().lock(), bytes);
}

fn write(stream: &mut impl Write, bytes: &[u8]) {
    if let Err(error) = stream.write_all(bytes).and_then(|()| stream.flush()) {
        exit_if_broken(&error);
    }
}

/// Ends the program if the reader of its output is gone.
pub fn exit_if_broken(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        crate::terminal::restore();
        std::process::exit(BROKEN_PIPE);
    }
}
