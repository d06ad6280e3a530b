//! Talking to `criu swrk`: one request over a socket of packets, notifications in between, one answer. Source: criu.org, RPC, and
//! criu's `images/rpc.proto`, whose field numbers stand here.

use super::wire::{Field, Writer, fields};
use crate::error::{Context, Error, Result, errno_of, reason};
use crate::log;
use cleat_sys::fdpass;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};

/// The longest packet of an answer.
const MAX_BYTES: usize = 40 << 10;

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

const NOTIFY: u64 = 6;
const FEATURE_CHECK: i64 = 9;

/// What CRIU tells while it works: the script's name, a pid, and what came along.
#[derive(Debug)]
pub struct Notice {
    pub script: String,
    pub pid: i32,
    pub descriptor: Option<OwnedFd>,
}

/// A running `criu swrk`.
#[derive(Debug)]
pub struct Criu {
    child: Child,
    socket: OwnedFd,
}

/// Lets a descriptor through to programs that we start.
///
/// # Errors
/// None in practice.
pub fn inherit(fd: impl AsFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).context(|| "fcntl".to_owned())
}

impl Criu {
    /// Starts it, with our standard descriptors.
    ///
    /// # Errors
    /// [`Error::State`] where it is not installed.
    pub fn start() -> Result<Self> {
        let pair =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (socket, theirs) = pair.context(|| "socketpair".to_owned())?;
        inherit(&theirs)?;
        let mut command = Command::new("criu");
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::State(
                "criu is needed for this and not installed: exec: \"criu\": executable file not found in $PATH"
                    .to_owned(),
            ),
            _ => Error::State(format!("cannot start criu: {}", reason(errno_of(&error)))),
        })?;
        Ok(Self { child, socket })
    }

    /// Returns its pid.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends the request, hands every notice to `on_notice`, and returns when CRIU is done.
    ///
    /// # Errors
    /// [`Error::State`] where CRIU says so, or a notice could not be dealt with.
    pub fn request(
        mut self,
        kind: Kind,
        options: &Writer,
        mut on_notice: impl FnMut(Notice) -> Result<()>,
    ) -> Result<()> {
        let mut request = Writer::default();
        request.number(1, kind as i64).message(2, options);
        let done = self.send(&request).and_then(|()| {
            loop {
                let (packet, descriptor) = self.receive()?;
                let answer = Answer::read(&packet);
                if !answer.success {
                    let (kind, errno) = (answer.kind, answer.errno);
                    return Err(Error::State(format!("criu failed: type {kind} errno {errno}")));
                }
                if answer.kind != NOTIFY {
                    return Ok(());
                }
                log::debug(|| format!("notify: {}", answer.script));
                on_notice(Notice { script: answer.script, pid: answer.pid, descriptor })?;
                let mut go_on = Writer::default();
                go_on.number(1, NOTIFY as i64).flag(3, true);
                self.send(&go_on)?;
            }
        });
        // It ends when nobody talks to it any more; after a pre-dump it would wait for the next one, and fails.
        drop(self.socket);
        let status = self.child.wait().context(|| "wait for criu".to_owned())?;
        done?;
        if status.success() || kind == Kind::PreDump {
            Ok(())
        } else {
            Err(Error::State(format!("criu failed: {status}")))
        }
    }

    /// Asks whether pages can be left behind until they are needed.
    ///
    /// # Errors
    /// [`Error::State`] where this kernel, or this CRIU, has no `userfaultfd(2)` to fetch them by.
    pub fn check_lazy_pages() -> Result<()> {
        let mut criu = Self::start()?;
        let (mut wanted, mut request) = (Writer::default(), Writer::default());
        wanted.flag(2, true);
        request.number(1, FEATURE_CHECK).message(5, &wanted);
        let asked = criu.send(&request).and_then(|()| criu.receive());
        drop(criu.socket);
        criu.child.wait().context(|| "wait for criu".to_owned())?;
        if Answer::read(&asked?.0).lazy_pages {
            return Ok(());
        }
        let text = "CRIU is missing features: lazy pages take userfaultfd, which this kernel or this CRIU does not have";
        Err(Error::State(text.to_owned()))
    }

    fn send(&self, message: &Writer) -> Result<()> {
        fdpass::send(&self.socket, message.as_bytes(), &[])
            .context(|| "cannot talk to criu".to_owned())
            .map(drop)
    }

    fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut packet = vec![0; MAX_BYTES];
        let (count, mut fds) =
            fdpass::recv(&self.socket, &mut packet).context(|| "cannot talk to criu".to_owned())?;
        if count == 0 {
            return Err(Error::State("criu failed: unexpected EOF".to_owned()));
        }
        packet.truncate(count);
        Ok((packet, fds.pop()))
    }
}

/// `criu_resp`.
#[derive(Debug, Default)]
struct Answer {
    kind: u64,
    success: bool,
    script: String,
    pid: i32,
    errno: i32,
    /// Of the features that were asked for.
    lazy_pages: bool,
}

impl Answer {
    fn read(packet: &[u8]) -> Self {
        let mut answer = Self::default();
        for field in fields(packet) {
            match field {
                (1, Field::Number(kind)) => answer.kind = kind,
                (2, Field::Number(success)) => answer.success = success != 0,
                (5, Field::Bytes(notice)) => answer.read_notice(notice),
                (7, Field::Number(errno)) => answer.errno = errno as i32,
                (8, Field::Bytes(features)) => {
                    answer.lazy_pages =
                        fields(features).any(|field| matches!(field, (2, Field::Number(1))));
                }
                _ => {}
            }
        }
        answer
    }

    fn read_notice(&mut self, notice: &[u8]) {
        for field in fields(notice) {
            match field {
                (1, Field::Bytes(script)) => {
                    self.script = String::from_utf8_lossy(script).into_owned();
                }
                (2, Field::Number(pid)) => self.pid = pid as i32,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_there_if_the_answer_says_so() {
        // criu_resp { type: 9, success, features { lazy_pages } }
        for (features, there) in
            [(&[66, 2, 16, 1][..], true), (&[66, 2, 16, 0], false), (&[], false)]
        {
            let packet = [&[8, 9, 16, 1], features].concat();
            let answer = Answer::read(&packet);
            assert_eq!((answer.kind, answer.success, answer.lazy_pages), (9, true, there));
        }
    }
}
