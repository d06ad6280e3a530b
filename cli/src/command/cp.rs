//! `cp`.

use std::io::Read;
use std::sync::{Arc, Mutex};

use base64::Engine as _;

use super::{container_path, handler};
use crate::archive::{self, Place};
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Client, Query, Response};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, short};
use crate::output::units;
use crate::value::Value;
use crate::{go, print, terminal};

pub static CP: Command = Command {
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tcleat cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files between a container and the host ('-' is a tar archive on stdin or stdout)",
    names: "container cp, cp",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[&[
        short('a', "archive", Kind::Bool, "Keep owners"),
        short('L', "follow-link", Kind::Bool, "Follow a symbolic link that is the source"),
        short('q', "quiet", Kind::Bool, "Print nothing"),
    ]],
    run: handler!(run),
};

/// Go's `os.FileMode` bits, as the path's header has them.
const MODE_DIR: i64 = 1 << 31;
const MODE_SYMLINK: i64 = 1 << 27;
const MODE_DEVICE: i64 = 1 << 26;
const MODE_IRREGULAR: i64 = 1 << 19;

/// What the copy is about.
struct Copy<'a> {
    client: &'a Client,
    container: &'a str,
    source: &'a str,
    target: &'a str,
    follow_link: bool,
    keep_owners: bool,
    quiet: bool,
}

async fn run(call: Call) -> Outcome {
    let (source, target) = (call.arg(0), call.arg(1));
    if source.is_empty() {
        return Err("source can not be empty".into());
    }
    if target.is_empty() {
        return Err("destination can not be empty".into());
    }
    let flags = &call.flags;
    let quiet = if flags.changed("quiet") { flags.on("quiet") } else { !terminal::stdout_is() };
    let (from, source) = split(source);
    let (to, target) = split(target);
    let copy = |container| -> Outcome<Copy<'_>> {
        Ok(Copy {
            client: call.client()?,
            container,
            source,
            target,
            follow_link: flags.on("follow-link"),
            keep_owners: flags.on("archive"),
            quiet,
        })
    };
    match (from, to) {
        (Some(container), None) => copy(container)?.to_host().await,
        (None, Some(container)) => copy(container)?.to_container().await,
        (Some(_), Some(_)) => Err("copying between containers is not supported".into()),
        (None, None) => Err("must specify at least one container source".into()),
    }
}

/// `CONTAINER:PATH`, or a path on the host: absolute, or with a dot before the colon.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((container, path)) if !argument.starts_with('/') && !container.starts_with('.') => {
            (Some(container).filter(|name| !name.is_empty()), path)
        }
        _ => (None, argument),
    }
}

impl Copy<'_> {
    /// Looks at a path in the container.
    async fn stat(&self, path: &str) -> Outcome<Value> {
        let url = container_path(self.container, "/archive")?;
        let route = (http::Method::HEAD, url.as_str());
        let response = self.client.request(route, &Query::of("path", path), Body::Empty).await?;
        Ok(stat_of(&response))
    }

    async fn to_host(&self) -> Outcome {
        let target = match self.target {
            "-" => "-".to_owned(),
            path => archive::absolute(path).ok_or("cannot find the current directory")?,
        };
        check_target(&target)?;
        let (mut source, mut rename) = (self.source.to_owned(), String::new());
        if self.follow_link
            && let Ok(found) = self.stat(&source).await
            && found.at("mode").int() & MODE_SYMLINK != 0
        {
            let link = found.at("linkTarget").text();
            let link = match link.starts_with('/') {
                true => link.to_owned(),
                false => go::clean_path(&format!("{}/{link}", archive::split(&source).0)),
            };
            (source, rename) = archive::rebase_name(&source, &link);
        }
        let url = container_path(self.container, "/archive")?;
        let route = (http::Method::GET, url.as_str());
        let response =
            self.client.request(route, &Query::of("path", source.as_str()), Body::Empty).await?;
        let found = stat_of(&response);
        let reader = body_reader(response);
        if target == "-" {
            return pass_through(reader).await;
        }
        let is_dir = found.at("mode").int() & MODE_DIR != 0;
        let from = Place { path: source, exists: true, is_dir, rename };
        let shown = target.clone();
        let size = tokio::task::spawn_blocking(move || unpack(reader, &from, &target))
            .await
            .map_err(|error| error.to_string())??;
        self.report(size, &shown);
        Ok(())
    }

    async fn to_container(&self) -> Outcome {
        let source = match self.source {
            "-" => "-".to_owned(),
            path => archive::absolute(path).ok_or("cannot find the current directory")?,
        };
        let mut target = Place { path: self.target.to_owned(), ..Place::default() };
        let mut found = self.stat(self.target).await;
        if let Ok(stat) = &found
            && stat.at("mode").int() & MODE_SYMLINK != 0
        {
            let link = stat.at("linkTarget").text();
            target.path = match link.starts_with('/') {
                true => link.to_owned(),
                false => go::clean_path(&format!("{}/{link}", archive::split(self.target).0)),
            };
            found = self.stat(&target.path.clone()).await;
        }
        let mode = found.as_ref().map_or(0, |stat| stat.at("mode").int());
        let place = format!("\"{}:{}\"", self.container, self.target);
        for (bit, what) in
            [(MODE_DEVICE, "got a device"), (MODE_IRREGULAR, "got an irregular file")]
        {
            if mode & bit != 0 {
                let text =
                    format!("destination {place} must be a directory or a regular file: {what}");
                return Err(Error::Message(text));
            }
        }
        (target.exists, target.is_dir) = (found.is_ok(), mode & MODE_DIR != 0);
        if source == "-" {
            if !target.is_dir {
                return Err(Error::Message(format!("destination {place} must be a directory")));
            }
            return self.put(&target.path, Box::new(std::io::stdin())).await;
        }
        let from = archive::source(&source, self.follow_link)?;
        let plan = archive::plan(&from, &target)?;
        let base =
            if from.rename.is_empty() { archive::split(&from.path).1 } else { from.rename.clone() };
        let name = plan.rename.map_or(base, |(_, new)| new);
        let (reader, writer) = std::io::pipe()?;
        let failure = Arc::new(Mutex::new(None));
        let noted = failure.clone();
        std::thread::spawn(move || {
            if let Err(reason) = archive::pack(&from.path, &name, writer)
                && let Ok(mut slot) = noted.lock()
            {
                *slot = Some(reason);
            }
        });
        let size = Arc::new(Mutex::new(0));
        let counted = Counted { inner: reader, count: size.clone() };
        self.put(&plan.directory, Box::new(counted)).await?;
        if let Some(reason) = failure.lock().ok().and_then(|mut slot| slot.take()) {
            return Err(Error::Message(reason));
        }
        let size = size.lock().map_or(0, |size| *size);
        self.report(size, &format!("{}:{}", self.container, target.path));
        Ok(())
    }

    async fn put(&self, directory: &str, content: Box<dyn Read + Send>) -> Outcome {
        let mut query = Query::of("path", directory).with("noOverwriteDirNonDir", "true");
        if self.keep_owners {
            query.add("copyUIDGID", "true");
        }
        let url = container_path(self.container, "/archive")?;
        let body = Body::Reader("application/x-tar", content);
        self.client.request((http::Method::PUT, &url), &query, body).await?;
        Ok(())
    }

    fn report(&self, size: u64, target: &str) {
        if !self.quiet {
            let size = units::human_size_with(size as f64, 3);
            print::err(&format!("Successfully copied {size} to {target}\n"));
        }
    }
}

/// `X-Docker-Container-Path-Stat`: base64 of JSON.
fn stat_of(response: &Response) -> Value {
    let header = response.header("x-docker-container-path-stat");
    let bytes = base64::engine::general_purpose::STANDARD.decode(header).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Refuses targets in directories that do not exist, and those that are neither file nor directory.
fn check_target(path: &str) -> Outcome {
    let clean = go::clean_path(path);
    let directory = clean.rsplit_once('/').map_or("", |(directory, _)| directory);
    if !directory.is_empty() && std::fs::metadata(directory).is_err() {
        let quoted = go::quote(directory);
        return Err(Error::Message(format!(
            "invalid output path: directory {quoted} does not exist"
        )));
    }
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() && !found.is_file() => Err(Error::Message(format!(
            "invalid output path: {} must be a directory or a regular file: got a device",
            go::quote(path)
        ))),
        _ => Ok(()),
    }
}

/// A response's body for a thread to read.
fn body_reader(response: Response) -> ChannelReader {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        let mut chunks = response.chunks();
        while let Ok(Some(chunk)) = chunks.next().await {
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
    });
    ChannelReader { receiver, current: bytes::Bytes::new() }
}

struct ChannelReader {
    receiver: tokio::sync::mpsc::Receiver<bytes::Bytes>,
    current: bytes::Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

async fn pass_through(mut reader: ChannelReader) -> Outcome {
    while let Some(chunk) = reader.receiver.recv().await {
        print::bytes(&chunk);
    }
    Ok(())
}

/// Unpacks on the host; answers how much was read.
fn unpack(reader: ChannelReader, source: &Place, target: &str) -> Result<u64, String> {
    let target = archive::target(target)?;
    let mut plan = archive::plan(source, &target)?;
    // The archive's names begin with the real name; a followed link's own name comes first.
    if !source.rename.is_empty() {
        let real = archive::split(&source.path).1;
        let new = plan.rename.take().map_or_else(|| source.rename.clone(), |(_, new)| new);
        plan.rename = Some((real, new));
    }
    let size = Arc::new(Mutex::new(0));
    let mut counted = Counted { inner: reader, count: size.clone() };
    archive::unpack(&mut counted, &plan)?;
    // What is left is padding; reading it lets the connection end in order.
    let _ = std::io::copy(&mut counted, &mut std::io::sink());
    Ok(size.lock().map_or(0, |size| *size))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: Arc<Mutex<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Ok(mut total) = self.count.lock() {
            *total += count as u64;
        }
        Ok(count)
    }
}
