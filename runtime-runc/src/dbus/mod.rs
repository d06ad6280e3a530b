//! A client of the message bus that does one thing after the other: connect, call, wait for a job of systemd's. All that a worker
//! of a few milliseconds needs; a general library would bring a runtime and a megabyte.
//!
//! Connections are tried in this order: systemd's own socket, which takes no bus, then the bus. Sources: D-Bus Specification,
//! "Authentication Protocol" and "Server Addresses"; `org.freedesktop.systemd1(5)`.

pub mod wire;

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::{Call, FIXED, Message, Reader, Value};

/// How long one answer, or one job, may take; as runc.
const PATIENCE: Duration = Duration::from_secs(30);

const BUS: &str = "org.freedesktop.DBus";

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or the connection broke.
    #[error("failed to connect to dbus")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("dbus")]
    Io(#[from] io::Error),
    /// The other side does not know who we are.
    #[error("dbus authentication failed: {0}")]
    Auth(String),
    /// It answered with an error.
    #[error("{message}")]
    Remote {
        /// Such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// In its own words.
        message: String,
    },
    /// What came is no message.
    #[error("malformed dbus message")]
    Malformed,
    /// A job did not end well.
    #[error("job ended with {0:?}")]
    Job(String),
    /// There is no address to be found.
    #[error(
        "could not detect the user's session bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR leads to one"
    )]
    NoAddress,
}

impl Error {
    /// Returns whether the other side answered with this error of systemd's.
    pub fn is(&self, error: &str) -> bool {
        matches!(self, Self::Remote { name, .. } if name.strip_prefix("org.freedesktop.systemd1.") == Some(error))
    }
}

impl From<wire::Malformed> for Error {
    fn from(_: wire::Malformed) -> Self {
        Self::Malformed
    }
}

/// What a call answers.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection.
#[derive(Debug)]
pub struct Bus {
    socket: UnixStream,
    serial: u32,
    /// Path and result of the jobs that have ended since.
    ended: Vec<(String, String)>,
    /// A signal has to be asked for.
    is_bus: bool,
}

impl Bus {
    /// Connects to the host's systemd, or with `user` to that of the user's session.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Auth`].
    pub fn connect(user: bool) -> Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
        let (own, variable, bus) = match (user, runtime.map(PathBuf::from)) {
            (false, _) => (
                Some(PathBuf::from("/run/systemd/private")),
                "DBUS_SYSTEM_BUS_ADDRESS",
                Some(PathBuf::from("/run/dbus/system_bus_socket")),
            ),
            (true, runtime) => (
                runtime.as_ref().map(|path| path.join("systemd/private")),
                "DBUS_SESSION_BUS_ADDRESS",
                runtime.map(|path| path.join("bus")),
            ),
        };
        let named = std::env::var(variable).ok().filter(|text| !text.is_empty());
        // Where a bus is named there is a reason to take that one.
        if let Some(own) = own.filter(|_| named.is_none())
            && let Ok(bus) = SocketAddr::from_pathname(own)
                .map_err(Error::Connect)
                .and_then(|address| Self::open(&address, false))
        {
            return Ok(bus);
        }
        let addresses = match (named, bus) {
            (Some(text), _) => addresses(&text),
            (None, Some(path)) => SocketAddr::from_pathname(path).into_iter().collect(),
            (None, None) => Vec::new(),
        };
        let mut outcome = Err(Error::NoAddress);
        for address in addresses {
            outcome = Self::open(&address, true);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn open(address: &SocketAddr, is_bus: bool) -> Result<Self> {
        let socket = UnixStream::connect_addr(address).map_err(Error::Connect)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self { socket, serial: 0, ended: Vec::new(), is_bus };
        bus.authenticate()?;
        if is_bus {
            bus.call(bus_call("Hello"), &[])?;
        }
        Ok(bus)
    }

    /// Who we are the kernel tells; naming a user would be wrong in a user namespace, where ours has another number. All is said at
    /// once, and the first call only after the answer: systemd leaves a call lying that it reads together with `BEGIN`.
    fn authenticate(&mut self) -> Result<()> {
        self.socket.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            let line = self.line()?;
            match line.split_ascii_whitespace().next() {
                Some("DATA") => {}
                Some("OK") => return Ok(()),
                _ => return Err(Error::Auth(line)),
            }
        }
    }

    /// Nothing follows a line before we have answered, but messages may: so not a byte more.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 512 {
            let mut byte = [0];
            self.socket.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Calls a method and returns the answer.
    ///
    /// # Errors
    /// [`Error::Remote`] where the answer is an error.
    pub fn call(&mut self, to: Call<'_>, arguments: &[Value]) -> Result<Message> {
        self.serial += 1;
        self.socket.write_all(&wire::call(self.serial, to, arguments))?;
        loop {
            let message = self.receive()?;
            if message.reply_to != self.serial {
                continue;
            }
            match message.kind {
                wire::METHOD_RETURN => return Ok(message),
                wire::ERROR => {
                    let text = Reader::new(&message.body).text().unwrap_or_default().to_owned();
                    let name = message.error_name;
                    let message = if text.is_empty() { name.clone() } else { text };
                    return Err(Error::Remote { name, message });
                }
                _ => {}
            }
        }
    }

    /// Asks to be told of the ends of jobs; to be called before one is begun.
    ///
    /// # Errors
    /// Those of [`Self::call`].
    pub fn watch_jobs(&mut self, manager: Call<'_>) -> Result<()> {
        if self.is_bus {
            let rule = format!(
                "type='signal',sender='{}',interface='{}',member='JobRemoved'",
                manager.destination, manager.interface
            );
            self.call(bus_call("AddMatch"), &[Value::Text(rule)])?;
            self.call(Call { member: "Subscribe", ..manager }, &[])?;
        }
        Ok(())
    }

    /// Waits for the end of a job; `Ok` is that it is `done`.
    ///
    /// # Errors
    /// [`Error::Job`] with its result, which may be `failed`, `canceled`, `timeout` …
    pub fn wait_for_job(&mut self, path: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| ended == path) {
                return if result == "done" { Ok(()) } else { Err(Error::Job(result.clone())) };
            }
            if Instant::now() >= deadline {
                return Err(Error::Job("timeout".to_owned()));
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let mut fixed = [0; FIXED];
        self.socket.read_exact(&mut fixed)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED + wire::rest_of(&fixed)?, 0);
        self.socket.read_exact(&mut bytes[FIXED..])?;
        let message = wire::parse(&bytes)?;
        if (message.kind, message.member.as_str()) == (wire::SIGNAL, "JobRemoved")
            && message.signature == "uoss"
        {
            let mut body = Reader::new(&message.body);
            body.u32()?;
            let path = body.text()?.to_owned();
            body.text()?;
            self.ended.push((path, body.text()?.to_owned()));
        }
        Ok(message)
    }
}

fn bus_call(member: &str) -> Call<'_> {
    Call { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member }
}

/// Reads the addresses of unix sockets in a list such as `unix:path=/run/bus,guid=1;tcp:host=x`.
fn addresses(list: &str) -> Vec<SocketAddr> {
    let one = |text: &str| {
        let keys = text.strip_prefix("unix:")?;
        keys.split(',').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = unescape(value)?;
            match key {
                "path" => {
                    SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(&value))).ok()
                }
                "abstract" => SocketAddr::from_abstract_name(value).ok(),
                _ => None,
            }
        })
    };
    list.split(';').filter_map(one).collect()
}

/// Undoes `%2f` and the like.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_are_paths_and_abstract_names() {
        let found =
            addresses("unix:path=/run/a%3ab,guid=7;tcp:host=x;unix:abstract=name;unix:path=%");
        assert_eq!(found[0].as_pathname(), Some(Path::new("/run/a:b")));
        assert_eq!(found[1].as_abstract_name(), Some(&b"name"[..]));
        assert_eq!(found.len(), 2);
    }

    /// One who plays systemd on a socket, a step at a time, and answers with the given messages.
    fn talk(answers: Vec<Vec<u8>>, client: impl FnOnce(&SocketAddr)) {
        // Never twice: a child that another test starts just now may hold the listener before for a moment more.
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("cleat-test-bus-{}-{count}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut greeting = [0; 29];
            socket.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            socket.write_all(b"DATA\r\nOK 0123456789abcdef\r\n").unwrap();
            for answer in answers {
                let mut fixed = [0; FIXED];
                socket.read_exact(&mut fixed).unwrap();
                let mut rest = vec![0; wire::rest_of(&fixed).unwrap()];
                socket.read_exact(&mut rest).unwrap();
                socket.write_all(&answer).unwrap();
            }
        });
        client(&address);
        server.join().unwrap();
    }

    const MANAGER: Call<'static> =
        Call { destination: "a.b", path: "/p", interface: "a.b.C", member: "Do" };

    /// A header's fields: its reply, or its member, and its signature.
    fn message(kind: u8, fields: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'l', kind, 0, 1];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(9u32.to_le_bytes());
        bytes.extend((fields.len() as u32).to_le_bytes());
        bytes.extend(fields);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        bytes
    }

    const FIRST: &[u8] = b"\x05\x01u\0\x01\0\0\0";

    fn job_removed(result: &str) -> Vec<u8> {
        let fields = b"\x03\x01s\0\x0a\0\0\0JobRemoved\0\0\0\0\0\0\x08\x01g\0\x04uoss\0";
        let mut body = 3u32.to_le_bytes().to_vec();
        for text in ["/job/3", "x.scope", result] {
            body.resize(body.len().next_multiple_of(4), 0);
            body.extend((text.len() as u32).to_le_bytes());
            body.extend(text.as_bytes());
            body.push(0);
        }
        message(wire::SIGNAL, fields, &body)
    }

    #[test]
    fn a_job_may_end_before_and_after_the_answer_to_its_call() {
        let answer = message(wire::METHOD_RETURN, FIRST, b"");
        for (answers, result) in [
            ([job_removed("done"), answer.clone()].concat(), Ok(())),
            ([answer.clone(), job_removed("done")].concat(), Ok(())),
            ([answer.clone(), job_removed("failed")].concat(), Err("job ended with \"failed\"")),
        ] {
            talk(vec![answers], |address| {
                let mut bus = Bus::open(address, false).unwrap();
                bus.call(MANAGER, &[Value::U32(1)]).unwrap();
                let waited = bus.wait_for_job("/job/3").map_err(|error| error.to_string());
                assert_eq!(waited, result.map_err(str::to_owned));
            });
        }
    }

    #[test]
    fn an_error_is_answered_by_its_name_and_its_words() {
        let name = b"\x04\x01s\0\x24\0\0\0org.freedesktop.systemd1.NoSuchUnit_\0";
        let fields = [FIRST, &name[..]].concat();
        let answer = message(wire::ERROR, &fields, b"\x03\0\0\0Why\0");
        talk(vec![answer], |address| {
            let error = Bus::open(address, false).unwrap().call(MANAGER, &[]).unwrap_err();
            assert!(error.is("NoSuchUnit_") && !error.is("UnitExists"), "{error:?}");
            assert_eq!(error.to_string(), "Why");
        });
    }

    #[test]
    fn who_hangs_up_is_an_error() {
        talk(vec![], |address| {
            let mut bus = Bus::open(address, false).unwrap();
            assert!(matches!(bus.call(MANAGER, &[]), Err(Error::Io(_))));
        });
    }
}
