//! One process and its streams: the container's first one, or an exec.

use std::{path::PathBuf, sync::Arc};

use cleat_proto::shim::{Attach, Follow};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    attach::{Client, Typist},
    backlog::Place,
    descriptor::Descriptor,
    error::Error,
    follower::Wanted,
    health::Captured,
    logger::json_file::JsonFile,
    output::{Command, Handle, Output, Sink},
    reaper::Exit,
    state::State,
    stdin::Slot,
    stdio::{OurEnds, Uris},
    supervisor::Event,
};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// See the module.
pub struct Process {
    /// Empty for the container's first process.
    pub exec_id: String,
    pub uris: Uris,
    pub state: State,
    /// Close stdin when the client that types has ended its input.
    pub stdin_once: bool,
    /// It is a health probe: where its output goes.
    pub probe: Option<Captured>,
    /// Who waits for the end.
    pub waiters: Vec<Reply<Exit>>,
    output: Handle,
    /// Until it runs.
    idle: Option<Output>,
    stdin: watch::Sender<Slot>,
    terminal: Option<Arc<Descriptor>>,
    /// Asked for before there was a terminal.
    size: Option<(u16, u16)>,
}

impl Process {
    /// Makes one that clients can attach to already.
    pub fn new(exec_id: String, uris: Uris, state: State, stdin_once: bool, place: Place) -> Self {
        let (idle, output) = Output::new(place);
        Self {
            exec_id,
            uris,
            state,
            stdin_once,
            probe: None,
            waiters: Vec::new(),
            output,
            idle: Some(idle),
            stdin: watch::Sender::default(),
            terminal: None,
            size: None,
        }
    }

    /// Gets ready for another run.
    pub fn renew(&mut self, place: Place) {
        let (idle, output) = Output::new(place);
        (self.idle, self.output) = (Some(idle), output);
        self.stdin = watch::Sender::default();
        self.terminal = None;
    }

    /// Connects our ends, and tells `later` when all output has been read.
    pub fn connect(
        &mut self,
        ends: OurEnds,
        log: Option<JsonFile>,
        sinks: Vec<Sink>,
        later: &mpsc::UnboundedSender<Event>,
    ) {
        if let Some(stdin) = &ends.stdin {
            // Its clients will find out that nothing comes.
            let _ = crate::stdio::feed_from_fifo(&self.uris, Arc::clone(stdin));
        }
        self.stdin.send_replace(ends.stdin.map_or(Slot::Absent, Slot::Open));
        self.terminal = ends.terminal;
        if let Some((columns, rows)) = self.size {
            // A program that cannot be told its size has the default one.
            let _ = self.resize(columns, rows);
        }
        let Some(output) = self.idle.take() else { return };
        let (exec_id, later) = (self.exec_id.clone(), later.clone());
        tokio::spawn(async move {
            output.run(ends.outputs, log, sinks).await;
            // The supervisor has gone: nobody waits.
            let _ = later.send(Event::Drained { exec_id });
        });
    }

    /// Notes that it could not be started; clients that were there before are told and let go.
    pub fn failed(&mut self, exit: Exit, error: &Error, later: &mpsc::UnboundedSender<Event>) {
        // Docker's form, terminal or not.
        self.output.send(Command::Say(format!("{error}\r\n")));
        self.connect(OurEnds::default(), None, Vec::new(), later);
        self.ends(exit, Instant::now());
    }

    /// Notes that the process has ended: what it said is read to the end, or until `deadline`.
    pub fn ends(&mut self, exit: Exit, deadline: Instant) {
        self.state = State::Ending(exit);
        self.close_stdin();
        self.output.finish(deadline);
    }

    /// Notes that it has ended for good, and tells who waits.
    pub fn stopped(&mut self, exit: Exit) {
        self.state = State::Stopped(exit);
        for waiter in self.waiters.drain(..) {
            // It has gone away.
            let _ = waiter.send(Ok(exit));
        }
    }

    /// Answers `reply` when the process has ended for good.
    pub fn wait(&mut self, reply: Reply<Exit>) {
        match self.state {
            State::Stopped(exit) => drop(reply.send(Ok(exit))),
            _ => self.waiters.push(reply),
        }
        self.waiters.retain(|waiter| !waiter.is_closed());
    }

    /// Closes the writing end of stdin; a terminal's stays.
    pub fn close_stdin(&self) {
        if let Slot::Open(stdin) = &*self.stdin.borrow()
            && !stdin.is_terminal()
        {
            stdin.close();
        }
    }

    /// Sets the terminal's size, now or when there is one.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<(), Error> {
        self.size = Some((columns, rows));
        match &self.terminal {
            Some(terminal) => cleat_sys::tty::set_size(&**terminal, columns, rows)
                .map_err(|error| Error::io("cannot resize the terminal")(error.into())),
            None if self.uris.terminal && !matches!(self.state, State::Stopped(_)) => Ok(()),
            None => Err(Error::Invalid("the process has no terminal".into())),
        }
    }

    /// Joins a client.
    pub fn attach(
        &self,
        id: u64,
        wish: Attach,
        socket: Descriptor,
        later: &mpsc::UnboundedSender<Event>,
    ) -> Result<(), Error> {
        let (socket, ended) = (Arc::new(socket), Arc::new(Notify::new()));
        let client = Client {
            id,
            socket: Arc::clone(&socket),
            stdout: wish.stdout,
            stderr: wish.stderr,
            framed: !self.uris.terminal,
            backlog: None,
            ended: Arc::clone(&ended),
        };
        if !self.output.send(Command::Attach { client, logs: wish.logs, stream: wish.stream }) {
            return Err(Error::Finished);
        }
        let typist = Typist {
            id,
            socket,
            stdin: (wish.stdin && wish.stream).then(|| self.stdin.subscribe()),
            stdin_once: self.stdin_once,
            early: wish.early_stdin,
            detach_keys: wish.detach_keys,
            output: self.output.commands(),
            ended,
        };
        let later = later.clone();
        tokio::spawn(async move {
            if typist.run().await {
                // The supervisor has gone: nobody wants to know.
                let _ = later.send(Event::Detached { exec_id: wish.exec_id });
            }
        });
        Ok(())
    }

    /// Sends a client the log, until what runs now has ended.
    pub fn follow(&self, path: PathBuf, wish: Follow, socket: Descriptor) -> Result<(), Error> {
        let wanted = Wanted { path, wish, tty: self.uris.terminal, socket: Arc::new(socket) };
        match self.output.send(Command::Follow(wanted)) {
            true => Ok(()),
            false => Err(Error::Finished),
        }
    }
}
