//! The standard streams of a process: what its URIs mean, and both ends of what connects it with us.
//!
//! The URIs are containerd's (runtime v2 README, "Logging" and "IO"): nothing, a FIFO's path, `file://`, `binary://`; and ours,
//! [`STREAM_URI`], for streams that clients attach to.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use cleat_proto::shim::STREAM_URI;
use cleat_sys::{fdpass, spawn::Spawn};
use tokio::net::UnixListener as AsyncListener;

use crate::{
    descriptor::Descriptor,
    logger::Source,
    output::{Sink, Target},
    stdin::Stdin,
};

/// What was asked for, as in the request.
#[derive(Clone, Debug, Default)]
pub struct Uris {
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

/// Where one stream leads.
#[derive(Debug, PartialEq, Eq)]
enum Uri<'a> {
    Null,
    Stream,
    Fifo(&'a str),
    File(&'a str),
    Binary(&'a str),
}

fn parse(uri: &str) -> io::Result<Uri<'_>> {
    Ok(match uri.split_once("://") {
        None if uri.is_empty() => Uri::Null,
        None => Uri::Fifo(uri),
        Some(_) if uri == STREAM_URI => Uri::Stream,
        Some(("fifo", path)) => Uri::Fifo(path),
        Some(("file", path)) => Uri::File(path),
        Some(("binary", rest)) => Uri::Binary(rest),
        Some((scheme, _)) => {
            return Err(io::Error::other(format!("unknown stream scheme {scheme:?}")));
        }
    })
}

/// The ends that the process gets, by way of the runtime.
pub struct ChildEnds {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
    /// Where the runtime sends the terminal's master.
    pub console: Option<Console>,
}

/// Our ends.
#[derive(Default)]
pub struct OurEnds {
    pub stdin: Option<Arc<Stdin>>,
    pub outputs: Vec<(Source, Arc<Descriptor>)>,
    /// The terminal's master, for its size.
    pub terminal: Option<Arc<Descriptor>>,
}

/// Makes both ends.
///
/// `log` says that a logging driver wants the output even if no URI does.
pub fn open(uris: &Uris, log: bool, directory: &File) -> io::Result<(ChildEnds, OurEnds)> {
    if uris.terminal {
        let console = Some(Console::listen(directory)?);
        let child = ChildEnds {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
            console,
        };
        return Ok((child, OurEnds::default()));
    }
    let mut ours = OurEnds::default();
    let stdin = if parse(&uris.stdin)? == Uri::Null {
        Stdio::null()
    } else {
        let (reader, writer) = io::pipe()?;
        ours.stdin = Some(Arc::new(Stdin::new(Arc::new(Descriptor::new(writer.into())?), false)));
        reader.into()
    };
    let mut output = |source, uri| {
        if parse(uri)? == Uri::Null && !log {
            return Ok::<_, io::Error>(Stdio::null());
        }
        let (reader, writer) = io::pipe()?;
        ours.outputs.push((source, Arc::new(Descriptor::new(reader.into())?)));
        Ok(writer.into())
    };
    let stdout = output(Source::Stdout, &uris.stdout)?;
    let stderr = output(Source::Stderr, &uris.stderr)?;
    Ok((ChildEnds { stdin, stdout, stderr, console: None }, ours))
}

/// Makes our ends out of a terminal's master.
pub fn terminal_ends(master: OwnedFd) -> io::Result<OurEnds> {
    let master = Arc::new(Descriptor::new(master)?);
    Ok(OurEnds {
        stdin: Some(Arc::new(Stdin::new(Arc::clone(&master), true))),
        outputs: vec![(Source::Stdout, Arc::clone(&master))],
        terminal: Some(master),
    })
}

/// A socket for `--console-socket`. Its path leads through our own descriptor of the directory: a socket's path holds
/// 107 bytes, a state directory's may be longer.
pub struct Console {
    listener: AsyncListener,
    path: PathBuf,
}

impl Console {
    fn listen(directory: &File) -> io::Result<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}/pty-{count}",
            std::process::id(),
            directory.as_raw_fd()
        ));
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: AsyncListener::from_std(listener)?, path })
    }

    /// Returns the argument of `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master that a runtime sends (OCI runtime-tools' convention: one descriptor, with the pty's name as data).
    pub async fn receive(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        loop {
            stream.readable().await?;
            let mut name = [0; 4096];
            match stream.try_io(tokio::io::Interest::READABLE, || {
                Ok(fdpass::recv(stream.as_fd(), &mut name)?)
            }) {
                Ok((_, mut fds)) if !fds.is_empty() => return Ok(fds.remove(0)),
                Ok(_) => return Err(io::Error::other("the runtime sent no terminal")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Left behind, it goes with the directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens what a stock containerd wants the output copied to.
pub fn open_sinks(uris: &Uris, id: &str, namespace: &str) -> io::Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if let Uri::Binary(rest) = parse(&uris.stdout)? {
        return start_logger(rest, id, namespace);
    }
    for (source, uri) in [(Source::Stdout, &uris.stdout), (Source::Stderr, &uris.stderr)] {
        let target = match parse(uri)? {
            Uri::Null | Uri::Stream | Uri::Binary(_) => continue,
            Uri::Fifo(path) => Target::Pipe(open_fifo(path)?),
            Uri::File(path) => {
                Target::File(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?)
            }
        };
        sinks.push(Sink { source, target });
    }
    Ok(sinks)
}

/// Opens both ends in one, so that a reader that dies neither fails nor ends the writing.
fn open_fifo(path: &str) -> io::Result<Descriptor> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Descriptor::new(file.into())
}

/// Copies what a FIFO brings into `stdin`, and closes that at its end.
pub fn feed_from_fifo(uris: &Uris, stdin: Arc<Stdin>) -> io::Result<()> {
    let Uri::Fifo(path) = parse(&uris.stdin)? else { return Ok(()) };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let fifo = Descriptor::new(file.into())?;
    tokio::spawn(async move {
        // An error is an end as well.
        let _ = crate::attach::copy(&fifo, &stdin).await;
        stdin.close();
    });
    Ok(())
}

/// Starts a `binary://PATH?KEY=VALUE…` logger: descriptors 3 and 4 are the streams, 5 is closed when it is ready.
fn start_logger(rest: &str, id: &str, namespace: &str) -> io::Result<Vec<Sink>> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let words = pairs.flat_map(|pair| pair.split('=')).filter(|word| !word.is_empty());
    let (out_reader, out_writer) = io::pipe()?;
    let (err_reader, err_writer) = io::pipe()?;
    let (_ready_reader, ready_writer) = io::pipe()?;
    Spawn {
        program: path.into(),
        args: std::iter::once(path).chain(words).map(Into::into).collect(),
        env: vec![
            format!("CONTAINER_ID={id}").into(),
            format!("CONTAINER_NAMESPACE={namespace}").into(),
        ],
        fds: vec![(out_reader.as_fd(), 3), (err_reader.as_fd(), 4), (ready_writer.as_fd(), 5)],
        ..Spawn::default()
    }
    .start()?;
    Ok(vec![
        Sink { source: Source::Stdout, target: Target::Pipe(Descriptor::new(out_writer.into())?) },
        Sink { source: Source::Stderr, target: Target::Pipe(Descriptor::new(err_writer.into())?) },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, expected: Uri<'_>) {
        assert_eq!(parse(uri).unwrap(), expected);
    }

    #[test]
    fn uris_are_containerds_and_ours() {
        check("", Uri::Null);
        check("/run/fifo/1-stdout", Uri::Fifo("/run/fifo/1-stdout"));
        check("fifo:///run/x", Uri::Fifo("/run/x"));
        check("file:///var/log/x", Uri::File("/var/log/x"));
        check("binary:///bin/logger?a=b", Uri::Binary("/bin/logger?a=b"));
        check("stream://", Uri::Stream);
        assert!(parse("https://x").is_err());
    }
}
