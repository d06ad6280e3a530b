//! The streams of an attached container: stdin to the daemon, stdout and stderr from it, on two threads with large buffers.
//!
//! Output ends when the daemon closes. Input ends at the end of stdin, which half-closes the connection, or when the detach
//! keys are typed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use tokio::sync::oneshot;

use crate::client::Hijacked;
use crate::terminal;

/// How much is copied at once.
const BUFFER: usize = 256 * 1024;

/// How much of short frames is gathered for one write.
const GATHERED: usize = 64 * 1024;

/// What to connect.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pass stdin on.
    pub stdin: bool,
    /// Print the container's stdout.
    pub stdout: bool,
    /// Print the container's stderr.
    pub stderr: bool,
    /// There is one raw stream, and keys go through as they are.
    pub tty: bool,
}

/// How the streams came to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The daemon closed.
    Closed,
    /// The detach keys were typed.
    Detached,
    /// A stream was malformed, or carried an error.
    Failed(String),
}

/// Connects the streams and waits until they end.
pub async fn run(connection: Hijacked, plan: Plan, detach_keys: &str) -> Ended {
    let keys = if plan.tty { keys(detach_keys) } else { Vec::new() };
    if plan.stdin
        && plan.tty
        && let Err(error) = terminal::set_raw()
    {
        return Ended::Failed(format!(
            "unable to setup input stream: unable to set IO streams as raw terminal: {error}"
        ));
    }
    let Hijacked { mut reader, mut writer } = connection;
    let (detached_sender, mut detached) = oneshot::channel();
    let (input_sender, mut input_done) = oneshot::channel();
    std::thread::spawn(move || {
        let typed_keys = plan.stdin && copy_input(&mut writer, &keys);
        if typed_keys {
            let _ = detached_sender.send(());
            return;
        }
        let _ = writer.close();
        let _ = input_sender.send(());
    });
    let wants_output = plan.stdout || plan.stderr;
    let (output_sender, output_done) = oneshot::channel();
    if wants_output {
        std::thread::spawn(move || {
            let ended =
                if plan.tty { copy_raw(&mut reader) } else { copy_frames(&mut reader, plan) };
            if plan.tty {
                terminal::restore();
            }
            let _ = output_sender.send(ended);
        });
    }
    let ended = tokio::select! {
        biased;
        ended = output_done, if wants_output => ended.unwrap_or(Ended::Closed),
        Ok(()) = &mut detached => Ended::Detached,
        _ = &mut input_done, if !wants_output => Ended::Closed,
    };
    terminal::restore();
    ended
}

/// Copies stdin until it ends, or until the keys; true if by the keys.
fn copy_input(writer: &mut impl Write, keys: &[u8]) -> bool {
    let Some(mut stdin) = duplicate(io::stdin()) else { return false };
    let mut buffer = vec![0; BUFFER];
    let mut matched = 0;
    let mut pending = Vec::new();
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(0) => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
            Ok(count) => count,
        };
        if keys.is_empty() {
            if writer.write_all(&buffer[..count]).is_err() {
                return false;
            }
            continue;
        }
        pending.clear();
        for byte in &buffer[..count] {
            if *byte == keys[matched] {
                matched += 1;
                if matched == keys.len() {
                    let _ = writer.write_all(&pending);
                    return true;
                }
                continue;
            }
            // What looked like the beginning of the keys was plain input.
            pending.extend_from_slice(&keys[..matched]);
            matched = usize::from(*byte == keys[0]);
            if matched == 0 {
                pending.push(*byte);
            } else if keys.len() == 1 {
                let _ = writer.write_all(&pending);
                return true;
            }
        }
        if writer.write_all(&pending).is_err() {
            return false;
        }
    }
}

fn copy_raw(reader: &mut impl Read) -> Ended {
    let mut buffer = vec![0; BUFFER];
    let Some(mut stdout) = duplicate(io::stdout()) else { return Ended::Closed };
    loop {
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => return Ended::Closed,
            Ok(count) => {
                if let Err(error) = stdout.write_all(&buffer[..count]) {
                    crate::print::exit_if_broken(&error);
                    return Ended::Closed;
                }
            }
        }
    }
}

fn copy_frames(reader: &mut impl Read, plan: Plan) -> Ended {
    let mut demultiplexer = Demultiplexer::new(plan.stdout, plan.stderr);
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) | Err(_) => return Ended::Closed,
            Ok(count) => count,
        };
        if let Err(message) = demultiplexer.feed(&buffer[..count]) {
            return Ended::Failed(message);
        }
    }
}

/// A file of its own for a standard stream: unbuffered, and not behind the lock of the standard library's.
fn duplicate(stream: impl AsFd) -> Option<File> {
    stream.as_fd().try_clone_to_owned().ok().map(File::from)
}

/// Takes Docker's framing apart: `[stream, 0, 0, 0, length (big-endian)]`, then the payload. (Engine API, ContainerAttach.)
pub struct Demultiplexer {
    stdout: Option<File>,
    stderr: Option<File>,
    header: [u8; 8],
    have: usize,
    left: usize,
    failure: Vec<u8>,
    /// Short payloads in a row of one stream, written at once: a log is a frame per line.
    gathered: Vec<u8>,
    gathered_for: u8,
}

impl Demultiplexer {
    /// Writes the wanted streams to ours.
    pub fn new(stdout: bool, stderr: bool) -> Self {
        Self {
            stdout: stdout.then(|| duplicate(io::stdout())).flatten(),
            stderr: stderr.then(|| duplicate(io::stderr())).flatten(),
            header: [0; 8],
            have: 0,
            left: 0,
            failure: Vec::new(),
            gathered: Vec::with_capacity(GATHERED),
            gathered_for: 1,
        }
    }

    /// Takes the next bytes, wherever they are cut.
    ///
    /// # Errors
    /// A frame of a stream that does not exist, or the daemon's own error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        let outcome = self.split(bytes);
        self.flush()?;
        outcome
    }

    fn split(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = bytes.len().min(8 - self.have);
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < 8 {
                    return Ok(());
                }
                let length: [u8; 4] =
                    [self.header[4], self.header[5], self.header[6], self.header[7]];
                self.left = u32::from_be_bytes(length) as usize;
                if self.left == 0 {
                    self.have = 0;
                    continue;
                }
            }
            let take = bytes.len().min(self.left);
            self.payload(&bytes[..take])?;
            bytes = &bytes[take..];
            self.left -= take;
            if self.left == 0 {
                self.have = 0;
                if self.header[0] == 3 {
                    let text = String::from_utf8_lossy(&self.failure).into_owned();
                    return Err(format!("error from daemon in stream: {text}"));
                }
            }
        }
        Ok(())
    }

    fn payload(&mut self, bytes: &[u8]) -> Result<(), String> {
        let stream = match self.header[0] {
            0 | 1 => 1,
            2 => 2,
            3 => {
                self.failure.extend_from_slice(bytes);
                return Ok(());
            }
            other => return Err(format!("unrecognized input header: {other}")),
        };
        if stream != self.gathered_for || self.gathered.len() + bytes.len() > GATHERED {
            self.flush()?;
        }
        self.gathered_for = stream;
        if bytes.len() > GATHERED {
            return self.write(stream, bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let outcome = self.write(self.gathered_for, &gathered);
        gathered.clear();
        self.gathered = gathered;
        outcome
    }

    fn write(&mut self, stream: u8, bytes: &[u8]) -> Result<(), String> {
        let target = if stream == 1 { &mut self.stdout } else { &mut self.stderr };
        match target {
            Some(file) => file.write_all(bytes).map_err(|error| {
                crate::print::exit_if_broken(&error);
                crate::go::os_error(&error)
            }),
            None => Ok(()),
        }
    }
}

/// The default keys: ctrl-p, ctrl-q.
const DEFAULT_KEYS: [u8; 2] = [16, 17];

/// The bytes of a sequence of detach keys; the default for an empty or invalid one.
fn keys(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return DEFAULT_KEYS.to_vec();
    }
    match parse_keys(text) {
        Ok(keys) => keys,
        Err(reason) => {
            crate::command::warn(&format!("invalid detach escape keys, using default: {reason}"));
            DEFAULT_KEYS.to_vec()
        }
    }
}

/// Reads `a`, `ctrl-a` and the like, separated by commas.
fn parse_keys(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(|key| match key.as_bytes() {
            [byte] => Ok(*byte),
            _ => match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
                Some([b'@']) => Ok(0),
                Some([sign @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(sign - b'[' + 27),
                _ => Err(format!("Unknown character: '{key}'")),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_letters_and_control_keys() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(parse_keys("ctrl-x,d,ctrl-@,ctrl-_"), Ok(vec![24, b'd', 0, 31]));
        assert_eq!(parse_keys("ctrl-bogus"), Err("Unknown character: 'ctrl-bogus'".into()));
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let mut demultiplexer = Demultiplexer::new(false, false);
        let stream =
            [[1u8, 0, 0, 0, 0, 0, 0, 2].as_slice(), b"ab", &[3, 0, 0, 0, 0, 0, 0, 4], b"fail"]
                .concat();
        let mut failure = Ok(());
        for byte in stream {
            failure = demultiplexer.feed(&[byte]);
        }
        assert_eq!(failure, Err("error from daemon in stream: fail".into()));
        assert_eq!(
            demultiplexer.feed(&[9, 0, 0, 0, 0, 0, 0, 1, 0]),
            Err("unrecognized input header: 9".into())
        );
    }
}
