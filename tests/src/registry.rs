//! Registries of a test's own, inside its daemon's network namespace: Debian's `docker-registry`, and one that answers whatever
//! the test wants.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{NetworkNamespace, TestDaemon, docker_registry, wait_for};

/// Returns a blob's name.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Debian's `docker-registry` on loopback.
pub struct Registry {
    process: Child,
    address: String,
    access: PathBuf,
}

impl Registry {
    /// Starts one beside a daemon, with nothing in it.
    pub fn start(daemon: &TestDaemon, port: u16) -> Self {
        Self::with(daemon, port, "")
    }

    /// Starts one with more configuration.
    pub fn with(daemon: &TestDaemon, port: u16, more: &str) -> Self {
        Self::at(daemon, &format!("127.0.0.1:{port}"), more)
    }

    /// Starts one at an address of its own; `more` goes on below `http`.
    pub fn at(daemon: &TestDaemon, address: &str, more: &str) -> Self {
        let data = daemon.path(&format!("registry-{address}"));
        let config = daemon.path(&format!("registry-{address}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: '{address}'\n  secret: test\n{more}",
            data.display()
        );
        fs::write(&config, text).expect("a file can be written");
        let mut command = daemon.network().command(docker_registry());
        let log = fs::File::create(daemon.path(&format!("registry-{address}.log")))
            .expect("a file can be made");
        let access = daemon.path(&format!("registry-{address}.access"));
        let requests = fs::File::create(&access).expect("a file can be made");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(requests).stderr(log);
        let process = command.spawn().expect("the registry starts");
        let address = address.to_owned();
        NetworkNamespace::enter(daemon.network().path(), || {
            wait_for("the registry", || TcpStream::connect(&address).ok());
        });
        Self { process, address, access }
    }

    /// Returns the name of a repository in it.
    pub fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Returns how many bytes went out for `GET`s of paths with `part` in them, as far as its log of accesses has come: the Combined
    /// Log Format of the Apache server, `… "GET /v2/… HTTP/1.1" 200 1234 …`.
    pub fn sent(&self, part: &str) -> u64 {
        let log = fs::read_to_string(&self.access).expect("the log of accesses can be read");
        let bytes = log.lines().filter_map(|line| {
            let mut parts = line.split('"').skip(1);
            let (request, rest) = (parts.next()?, parts.next()?);
            let is_wanted = request.starts_with("GET ") && request.contains(part);
            is_wanted.then(|| rest.split_whitespace().nth(1)?.parse::<u64>().ok())?
        });
        bytes.sum()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request that a [`FakeRegistry`] got.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET` …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What came with it.
    pub body: Vec<u8>,
}

impl Asked {
    /// Returns a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a [`FakeRegistry`] answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 200 …
    pub status: u16,
    /// In this order.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Say that the body has another length.
    pub claim: Option<u64>,
    /// Send the body again and again.
    pub endless: bool,
    /// Stand still after so many bytes of the body until the gate is opened.
    pub hold: Option<(usize, Gate)>,
}

/// Keeps answers back until it is opened; a minute at most, then they are cut.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets all of them go, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    fn wait(&self) -> bool {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.0.1.wait_timeout_while(open, Duration::from_secs(60), |open| !*open);
        *open.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Answer {
    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// 200 with a body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A server that answers what a test says, one request to a connection, and keeps what it was asked.
pub struct FakeRegistry {
    listener: Arc<TcpListener>,
    accepting: Option<JoinHandle<()>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    address: String,
}

impl FakeRegistry {
    /// Listens on loopback in a network namespace.
    pub fn start(
        network: &NetworkNamespace,
        port: u16,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let address = format!("127.0.0.1:{port}");
        let listener = NetworkNamespace::enter(network.path(), || TcpListener::bind(&address));
        let listener = Arc::new(listener.expect("the port is free"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (accepted, kept) = (Arc::clone(&listener), Arc::clone(&asked));
        let handler: Arc<Handler> = Arc::new(handler);
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepted.accept() {
                let (handler, kept) = (Arc::clone(&handler), Arc::clone(&kept));
                std::thread::spawn(move || serve(stream, &*handler, &kept));
            }
        });
        Self { listener, accepting: Some(accepting), asked, address }
    }

    /// Returns the name of a repository in it.
    pub fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Returns what it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(stream: TcpStream, handler: &Handler, kept: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(&stream);
    let Some(asked) = read(&mut reader) else { return };
    kept.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
    let answer = handler(&asked);
    // A client that hangs up is what some tests are about.
    let _ = write(&stream, &asked, &answer);
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body })
}

fn write(mut stream: &TcpStream, asked: &Asked, answer: &Answer) -> std::io::Result<()> {
    let length = answer.claim.unwrap_or(answer.body.len() as u64);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    if !answer.endless {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    let (first, rest) = body.split_at(answer.hold.as_ref().map_or(body.len(), |hold| hold.0));
    stream.write_all(first)?;
    if answer.hold.as_ref().is_some_and(|(_, gate)| !gate.wait()) {
        return Ok(());
    }
    stream.write_all(rest)?;
    if answer.endless {
        loop {
            stream.write_all(&answer.body)?;
        }
    }
    Ok(())
}
