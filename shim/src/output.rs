//! Carries what one process says to the log, to containerd's FIFOs and to the attached clients: one task, which owns them all.
//!
//! The process waits for a client only while that makes progress. One that made none for a second gets a [`Backlog`].
//! Nothing is held back when nobody listens: it is read and dropped.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, IoSlice, Write},
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use cleat_proto::log::LogOptions;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use tokio::{
    io::Interest,
    select,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    attach::{Client, frame_header, hang_up},
    backlog::{Backlog, Place, Replay},
    descriptor::Descriptor,
    follower::{self, Wanted},
    health::Captured,
    logger::{Source, json_file::JsonFile},
};

/// How long a client may make no progress before it counts as slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// The buffer of a process that says little.
const SMALL: usize = 4096;
/// The buffer of one that says much, and the longest frame.
const LARGE: usize = 64 * 1024;
/// What the kernel may hold of a stream that is busy.
const BUSY_PIPE: i32 = 512 * 1024;
/// When the memory of a busy stream is given back.
const IDLE: Duration = Duration::from_secs(1);
/// How many reads before others get a turn.
const READS_IN_TURN: usize = 16;

/// Where containerd wants a stream copied to.
pub struct Sink {
    pub source: Source,
    pub target: Target,
}

/// See [`Sink`].
pub enum Target {
    Pipe(Descriptor),
    File(File),
    /// A health probe's.
    Memory(Captured),
}

/// What may be asked of an [`Output`] under way.
pub enum Command {
    /// A client joins; with the log first, if that is to be.
    Attach { client: Client, logs: bool, stream: bool },
    /// A client wants the log as it grows.
    Follow(Wanted),
    /// A client has left or gone.
    Remove(u64),
    /// Tells the clients why nothing else comes.
    Say(String),
}

/// Speaks to an [`Output`].
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    finish: watch::Sender<Option<Instant>>,
}

impl Handle {
    /// Joins a client; false if there is no output any more.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    /// Lets clients say that they leave.
    pub fn commands(&self) -> mpsc::UnboundedSender<Command> {
        self.commands.clone()
    }

    /// Says that the process has ended: what is left is read until the end, or until `deadline`.
    pub fn finish(&self, deadline: Instant) {
        self.finish.send_replace(Some(deadline));
    }
}

/// See the module.
pub struct Output {
    inputs: Vec<(Source, Arc<Descriptor>)>,
    log: Option<JsonFile>,
    sinks: Vec<Sink>,
    clients: Vec<Client>,
    commands: mpsc::UnboundedReceiver<Command>,
    finish: watch::Receiver<Option<Instant>>,
    place: Place,
    turn: usize,
    /// Wakes who follow the log; true when nothing more is added.
    grown: watch::Sender<bool>,
}

impl Output {
    /// Makes one, and the handle to it. Clients may attach before it runs.
    pub fn new(place: Place) -> (Self, Handle) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (finish_sender, finish) = watch::channel(None);
        let output = Self {
            inputs: Vec::new(),
            log: None,
            sinks: Vec::new(),
            clients: Vec::new(),
            commands,
            finish,
            place,
            turn: 0,
            grown: watch::Sender::new(false),
        };
        (output, Handle { commands: sender, finish: finish_sender })
    }

    /// Carries until the process has ended and everything it said is delivered or in a backlog; then hangs up on everybody.
    pub async fn run(
        mut self,
        inputs: Vec<(Source, Arc<Descriptor>)>,
        log: Option<JsonFile>,
        sinks: Vec<Sink>,
    ) {
        self.inputs = inputs;
        self.log = log;
        self.sinks = sinks;
        let mut buffer = vec![0; SMALL];
        let mut finish = self.finish.clone();
        let mut deadline = finish.clone();
        while !(self.inputs.is_empty() && finish.borrow().is_some()) {
            let roomy = buffer.len() > SMALL || self.log.as_ref().is_some_and(JsonFile::is_roomy);
            let compressing = self.log.as_ref().is_some_and(JsonFile::compressing);
            select! {
                biased;
                Some(command) = self.commands.recv() => self.obey(command).await,
                () = overdue(&mut deadline) => break,
                index = first_readable(&self.inputs, self.turn), if !self.inputs.is_empty() => {
                    self.turn = index + 1;
                    self.carry(index, &mut buffer).await;
                }
                _ = finish.changed(), if finish.borrow().is_none() => {}
                () = tokio::task::yield_now(), if compressing => { self.log.as_mut().map(JsonFile::compress); }
                () = sleep(IDLE), if roomy => {
                    buffer = vec![0; SMALL];
                    self.log.iter_mut().for_each(JsonFile::rest);
                }
            }
        }
        self.end().await;
    }

    async fn end(mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command).await;
        }
        if let Some(log) = &mut self.log {
            log.finish(SystemTime::now());
        }
        self.grown.send_replace(true);
        for client in &self.clients {
            match &client.backlog {
                Some(backlog) => backlog.close(),
                None => hang_up(&client.socket),
            }
            client.ended.notify_one();
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { client, logs, stream } => self.attach(client, logs, stream),
            Command::Follow(wanted) => {
                let (grown, unfinished) = (self.grown.subscribe(), self.place.unfinished.clone());
                tokio::spawn(async move {
                    // That the client has gone, or the log cannot be read, concerns nobody else: the connection ends.
                    let _ = follower::run(wanted, grown).await;
                    drop(unfinished);
                });
            }
            Command::Remove(id) => self.remove(id),
            Command::Say(text) => self.deliver(Source::Stdout, text.as_bytes()).await,
        }
    }

    fn remove(&mut self, id: u64) {
        for client in self.clients.extract_if(.., |client| client.id == id) {
            client.drop_now();
        }
    }

    fn attach(&mut self, mut client: Client, logs: bool, stream: bool) {
        if logs {
            let Ok(backlog) =
                Backlog::start(&self.place, Arc::clone(&client.socket), Some(self.replay(&client)))
            else {
                return client.drop_now();
            };
            if !stream {
                backlog.close();
                client.ended.notify_one();
                return;
            }
            client.backlog = Some(backlog);
        }
        self.clients.push(client);
    }

    fn replay(&self, client: &Client) -> Replay {
        let log = self.log.as_ref();
        let (stdout, stderr) = (client.stdout, client.stderr);
        let options = LogOptions { stdout, stderr, ..LogOptions::default() };
        let mut pending = Vec::new();
        for source in [Source::Stdout, Source::Stderr] {
            let text = log.map_or(&[][..], |log| log.pending(source));
            if client.wants(source) && !text.is_empty() {
                if client.framed {
                    pending.extend(frame_header(source, text.len()));
                }
                pending.extend(text);
            }
        }
        // One that cannot be read is to the client as one that is not there.
        let log = log.and_then(|log| log.reader(options, !client.framed).ok());
        Replay { log, pending }
    }

    /// Reads one input until it is empty for now, has ended, or others should get a turn.
    async fn carry(&mut self, index: usize, buffer: &mut Vec<u8>) {
        let (source, input) = (self.inputs[index].0, Arc::clone(&self.inputs[index].1));
        for _ in 0..READS_IN_TURN {
            if self.can_splice(source) && self.splice(source, &input).await {
                continue;
            }
            match input.try_read(buffer) {
                Ok(n) if n > 0 => {
                    self.deliver(source, &buffer[..n]).await;
                    if n == buffer.len() && n < LARGE {
                        *buffer = vec![0; LARGE];
                        enlarge(&input);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return;
                }
                // A terminal whose last user has gone says EIO.
                Ok(_) | Err(_) => {
                    self.inputs.remove(index);
                    return;
                }
            }
        }
        tokio::task::yield_now().await;
    }

    async fn deliver(&mut self, source: Source, data: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(source, data, SystemTime::now());
            if self.grown.receiver_count() > 0 {
                self.grown.send_replace(false);
            }
        }
        let mut finish = self.finish.clone();
        for sink in self.sinks.iter_mut().filter(|sink| sink.source == source) {
            select! {
                _ = sink.write(data) => {}
                () = overdue(&mut finish) => {}
            }
        }
        let mut gone = Vec::new();
        for client in self.clients.iter_mut().filter(|client| client.wants(source)) {
            let header = frame_header(source, data.len());
            let header = if client.framed { &header[..] } else { &[] };
            if !give(client, header, data, &self.place, &mut finish).await {
                gone.push(client.id);
            }
        }
        for id in gone {
            self.remove(id);
        }
    }

    /// One client alone, that keeps up: then the bytes need not come into our memory.
    fn can_splice(&self, source: Source) -> bool {
        let [client] = &self.clients[..] else { return false };
        self.log.is_none()
            && self.sinks.is_empty()
            && client.wants(source)
            && client.backlog.is_none()
    }

    /// Passes one frame on without copying it; false if there is nothing that is worth it.
    async fn splice(&mut self, source: Source, input: &Descriptor) -> bool {
        let waiting = match cleat_sys::pipe::readable_bytes(input) {
            Ok(n) if n >= SMALL => n.min(BUSY_PIPE as usize),
            // Small pieces are cheaper to copy; the plain read also tells the end from emptiness.
            _ => return false,
        };
        let Some(client) = self.clients.first_mut() else { return false };
        let framed = client.framed;
        let header = frame_header(source, waiting);
        let mut finish = self.finish.clone();
        if framed && !give(client, &header, &[], &self.place, &mut finish).await {
            let id = client.id;
            self.remove(id);
            return false;
        }
        let mut left = if client.backlog.is_none() {
            splice_some(client, input, waiting, &mut finish).await
        } else {
            waiting
        };
        if waiting == LARGE && left == 0 {
            enlarge(input);
        }
        // It fell behind, or cannot be spliced to: the rest of the frame goes the ordinary way.
        let mut piece = vec![0; left.min(LARGE)];
        while left > 0 {
            let len = left.min(piece.len());
            let Ok(n @ 1..) = input.try_read(&mut piece[..len]) else { break };
            left -= n;
            let Some(client) = self.clients.first_mut() else { break };
            if !give(client, &[], &piece[..n], &self.place, &mut finish).await {
                let id = client.id;
                self.remove(id);
            }
        }
        true
    }
}

/// Lets the kernel hold more of a stream that is busy: fewer turns for both sides.
fn enlarge(input: &Descriptor) {
    // A terminal is no pipe, and only root may go beyond the limit: the old size serves as well.
    let _ = fcntl(input, FcntlArg::F_SETPIPE_SZ(BUSY_PIPE));
}

/// Moves up to `left` bytes; returns how many are still to be moved because the client made no progress or cannot be spliced to.
async fn splice_some(
    client: &Client,
    input: &Descriptor,
    mut left: usize,
    finish: &mut watch::Receiver<Option<Instant>>,
) -> usize {
    while left > 0 {
        match splice(
            input,
            None,
            &*client.socket,
            None,
            left,
            SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE,
        ) {
            Ok(n @ 1..) => left -= n,
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) => {
                client.socket.exhausted(Interest::WRITABLE);
                if !room(client, finish).await {
                    return left;
                }
            }
            Ok(_) | Err(_) => return left,
        }
    }
    0
}

/// Waits until the client takes more; false if it made no progress, or if nobody should wait for it any more.
async fn room(client: &Client, finish: &mut watch::Receiver<Option<Instant>>) -> bool {
    if finish.borrow_and_update().is_some() {
        return false;
    }
    select! {
        waited = timeout(PATIENCE, client.socket.writable()) => matches!(waited, Ok(Ok(()))),
        _ = finish.changed() => false,
    }
}

/// Gives a client `header` and `data`; false if it is to be dropped.
async fn give(
    client: &mut Client,
    header: &[u8],
    data: &[u8],
    place: &Place,
    finish: &mut watch::Receiver<Option<Instant>>,
) -> bool {
    if let Some(backlog) = &client.backlog {
        if !backlog.is_empty() {
            return backlog.push(&[header, data]);
        }
        backlog.retire();
        client.backlog = None;
    }
    let mut sent = 0;
    let total = header.len() + data.len();
    while sent < total {
        let head = &header[sent.min(header.len())..];
        let rest = &data[sent.saturating_sub(header.len())..];
        match client.socket.try_write(&[IoSlice::new(head), IoSlice::new(rest)]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !room(client, finish).await {
                    let Ok(backlog) = Backlog::start(place, Arc::clone(&client.socket), None)
                    else {
                        return false;
                    };
                    let pushed = backlog.push(&[head, rest]);
                    client.backlog = Some(backlog);
                    return pushed;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

impl Sink {
    async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.target {
            Target::Pipe(pipe) => pipe.write_all(data).await,
            Target::File(file) => file.write_all(data),
            Target::Memory(captured) => {
                captured.push(data);
                Ok(())
            }
        }
    }
}

async fn first_readable(inputs: &[(Source, Arc<Descriptor>)], turn: usize) -> usize {
    poll_fn(|context| {
        for offset in 0..inputs.len() {
            let index = (turn + offset) % inputs.len();
            if inputs[index].1.poll_readable(context).is_ready() {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits until the process has ended and its time for last words is over.
async fn overdue(finish: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match finish.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        // Nobody is there to say it any more.
        Err(_) => None,
    };
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}
