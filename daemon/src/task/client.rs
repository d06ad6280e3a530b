//! Calls to a shim: containerd's Task API over gRPC, and the attach line beside it.

use std::{
    future::Future,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use cleat_proto::{
    containerd::{
        task::v3::{self as api, task_client::TaskClient},
        types::Mount,
        v1::types::Status as TaskStatus,
    },
    kind::Kind,
    shim::{
        Answer, Attach, Follow, Hello, ORDERS_TYPE_URL, PROCESS_TYPE_URL, RESOURCES_TYPE_URL,
        STREAM_URI,
    },
    shim_v1::{
        Orders, RestartPolicy, SetRestartPolicyRequest, StopRequest,
        supervisor_client::SupervisorClient,
    },
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_types::Any;
use tokio::{io::AsyncWriteExt, io::BufReader, io::Interest};
use tonic::body::Body;

use super::{
    Error, TaskDir,
    watch::{accepted, hung_up, line_of, read_line},
};

/// Making and starting a process: the runtime does real work, on a host that may be busy.
const START: Duration = Duration::from_secs(60);
/// Whatever a shim answers from what it knows.
const ASK: Duration = Duration::from_secs(10);

/// One HTTP/2 connection, as tonic wants it.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A connection to one shim, for one or a few calls. Dropping it closes it.
pub struct Client {
    id: String,
    task: TaskClient<Channel>,
    supervisor: SupervisorClient<Channel>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Deadline`].
    pub async fn connect(directory: &TaskDir) -> Result<Self, Error> {
        let handshake = async {
            let stream = directory.connect().await?;
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 18).initial_connection_window_size(1 << 18);
            let (sender, connection) = builder
                .handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(|error| Error::Unreachable(std::io::Error::other(error)))?;
            // Ends by itself when the last sender has gone.
            tokio::spawn(async move {
                let _ = connection.await;
            });
            Ok(Channel(sender))
        };
        let channel = within(ASK, "connect", handshake).await?;
        let origin = http::Uri::from_static("http://shim");
        Ok(Self {
            id: directory.id().as_str().to_owned(),
            task: TaskClient::with_origin(channel.clone(), origin.clone()),
            supervisor: SupervisorClient::with_origin(channel, origin),
        })
    }

    /// Makes the task, with its root filesystem from `rootfs` and its standing orders.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn create(
        &mut self,
        bundle: &std::path::Path,
        rootfs: Vec<Mount>,
        terminal: bool,
        stdin: bool,
        orders: &Orders,
    ) -> Result<u32, Error> {
        let stream = |wanted: bool| if wanted { STREAM_URI.to_owned() } else { String::new() };
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.display().to_string(),
            rootfs,
            terminal,
            stdin: stream(stdin),
            stdout: stream(true),
            stderr: stream(!terminal),
            options: Some(any(ORDERS_TYPE_URL, orders.encode_to_vec())),
            ..Default::default()
        };
        Ok(call(START, "Create", self.task.create(request)).await?.pid)
    }

    /// Starts the first process, or an exec.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn start(&mut self, exec_id: &str) -> Result<u32, Error> {
        let request = api::StartRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        Ok(call(START, "Start", self.task.start(request)).await?.pid)
    }

    /// Adds a process, as an OCI `process` in JSON; it does not run yet.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn exec(
        &mut self,
        exec_id: &str,
        process: Vec<u8>,
        terminal: bool,
        streams: Streams,
    ) -> Result<(), Error> {
        let uri = |wanted: bool| if wanted { STREAM_URI.to_owned() } else { String::new() };
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            terminal,
            stdin: uri(streams.stdin),
            stdout: uri(streams.stdout),
            stderr: uri(streams.stderr && !terminal),
            spec: Some(any(PROCESS_TYPE_URL, process)),
        };
        call(START, "Exec", self.task.exec(request)).await.map(drop)
    }

    /// Asks where a process stands.
    ///
    /// # Errors
    /// `NotFound` if there is no such process.
    pub async fn status(&mut self, exec_id: &str) -> Result<TaskStatus, Error> {
        let request = api::StateRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        let answer = call(ASK, "State", self.task.state(request)).await?;
        Ok(answer.status())
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn kill(&mut self, signal: i32) -> Result<(), Error> {
        let request = api::KillRequest {
            id: self.id.clone(),
            signal: signal.unsigned_abs(),
            ..Default::default()
        };
        call(ASK, "Kill", self.task.kill(request)).await.map(drop)
    }

    /// Stops the task for good: `signal`, and SIGKILL after `timeout`; `by_daemon`, if it is because the daemon ends. Answers when it has stopped, so the deadline is the
    /// caller's timeout and a margin.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn stop(
        &mut self,
        signal: i32,
        timeout: Option<Duration>,
        by_daemon: bool,
    ) -> Result<(), Error> {
        let request = StopRequest {
            id: self.id.clone(),
            signal: signal.unsigned_abs(),
            timeout_millis: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            by_daemon,
        };
        match timeout {
            Some(timeout) => {
                call(timeout.saturating_add(ASK), "Stop", self.supervisor.stop(request)).await?;
            }
            None => {
                self.supervisor.stop(request).await.map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Freezes the task.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn pause(&mut self) -> Result<(), Error> {
        let request = api::PauseRequest { id: self.id.clone() };
        call(ASK, "Pause", self.task.pause(request)).await.map(drop)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn resume(&mut self) -> Result<(), Error> {
        let request = api::ResumeRequest { id: self.id.clone() };
        call(ASK, "Resume", self.task.resume(request)).await.map(drop)
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn resize(&mut self, exec_id: &str, height: u32, width: u32) -> Result<(), Error> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            width,
            height,
        };
        call(ASK, "ResizePty", self.task.resize_pty(request)).await.map(drop)
    }

    /// Changes the limits of the task, as OCI `linux.resources` in JSON.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn update(&mut self, resources: Vec<u8>) -> Result<(), Error> {
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: Some(any(RESOURCES_TYPE_URL, resources)),
            ..Default::default()
        };
        call(START, "Update", self.task.update(request)).await.map(drop)
    }

    /// Replaces the restart policy.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn set_restart_policy(&mut self, policy: RestartPolicy) -> Result<(), Error> {
        let request = SetRestartPolicyRequest { id: self.id.clone(), restart: Some(policy) };
        call(ASK, "SetRestartPolicy", self.supervisor.set_restart_policy(request)).await.map(drop)
    }

    /// Forgets a process that has ended; for the first process this removes what the runtime keeps, and `exit.json`.
    ///
    /// # Errors
    /// What the shim says.
    pub async fn delete(&mut self, exec_id: &str) -> Result<(), Error> {
        let request = api::DeleteRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        call(ASK, "Delete", self.task.delete(request)).await.map(drop)
    }

    /// Ends the shim. That it hangs up instead of answering is fine.
    pub async fn shutdown(&mut self) {
        let request = api::ShutdownRequest { id: self.id.clone(), now: true };
        let _ = call(ASK, "Shutdown", self.task.shutdown(request)).await;
    }
}

/// Which streams of an exec are kept for a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    /// What the client sends.
    pub stdin: bool,
    /// What the process says.
    pub stdout: bool,
    /// What it complains about.
    pub stderr: bool,
}

/// Hands a client's connection to the shim, which alone speaks to it from then on.
///
/// # Errors
/// [`Error::Shim`] if there is no such process, [`Error::Unreachable`], [`Error::Deadline`].
pub async fn attach(directory: &TaskDir, attach: Attach, client: OwnedFd) -> Result<(), Error> {
    hand_over(directory, "attach", Hello::Attach(attach), client).await
}

/// Has the shim send a client the log, and what is added to it.
///
/// # Errors
/// As [`attach`].
pub async fn follow(directory: &TaskDir, follow: Follow, client: OwnedFd) -> Result<(), Error> {
    hand_over(directory, "follow", Hello::Follow(follow), client).await
}

async fn hand_over(
    directory: &TaskDir,
    call: &'static str,
    hello: Hello,
    client: OwnedFd,
) -> Result<(), Error> {
    within(ASK, call, async {
        let mut stream = directory.connect().await?;
        let line = line_of(&hello)?;
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                cleat_sys::fdpass::send(&stream, &line, &[client.as_raw_fd()])
                    .map_err(std::io::Error::from)
            })
            .await
            .map_err(Error::Unreachable)?;
        // The shim has its own copy now.
        drop(client);
        stream.write_all(&line[sent..]).await.map_err(Error::Unreachable)?;
        let mut stream = BufReader::with_capacity(128, stream);
        let answer: Option<Answer> = read_line(&mut stream).await?;
        answer.map_or_else(|| Err(hung_up()), accepted)
    })
    .await
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value }
}

async fn within<T>(
    deadline: Duration,
    call: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(Error::Deadline { call, deadline }))
}

async fn call<T>(
    deadline: Duration,
    name: &'static str,
    request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    let answer = async { request.await.map(tonic::Response::into_inner).map_err(refused) };
    within(deadline, name, answer).await
}

fn refused(status: tonic::Status) -> Error {
    if std::error::Error::source(&status).is_some() {
        // The connection broke; the shim itself sends no source.
        return Error::Unreachable(std::io::Error::other(status));
    }
    Error::Shim { kind: Kind::from_grpc(status.code()), message: status.message().to_owned() }
}
