//! Running a client to its end.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; 128 + the signal if one ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
    /// The command itself, for messages.
    pub line: String,
}

impl Ran {
    /// Returns stdout as text without the last newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Fails the test unless the command ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "{}\nstdout: {}\nstderr: {}",
            self.line,
            self.text(),
            self.stderr
        );
        self
    }

    /// Fails the test unless the command succeeded, and returns its output.
    #[track_caller]
    pub fn ok(self) -> String {
        self.expect(0).text()
    }

    /// Fails the test unless stderr has `part`.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(
            self.stderr.contains(part),
            "{}\nwanted: {part}\nstderr: {}",
            self.line,
            self.stderr
        );
        self
    }
}

/// Runs a command without stdin.
pub fn run(command: &mut Command) -> Ran {
    run_with_stdin(command, Vec::new())
}

/// Runs a command that reads `stdin`.
pub fn run_with_stdin(command: &mut Command, stdin: Vec<u8>) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let line = format!("{command:?}");
    let input = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let writer = child.stdin.take().map(|mut pipe| {
        thread::spawn(move || {
            // A command that reads no further is no failure of the test by itself.
            let _ = pipe.write_all(&stdin);
        })
    });
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{line}: {error}"));
    if let Some(writer) = writer {
        writer.join().expect("the writer does not panic");
    }
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Ran {
        code,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        line,
    }
}
