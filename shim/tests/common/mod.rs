//! A shim of our own, with a busybox bundle and a real runtime, spoken to as the daemon does.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "tests alone, and each test binary uses its part"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use cleat_proto::{
    containerd::task::v3::{self as api, task_client::TaskClient},
    exit::Exit,
    journal::Entry,
    shim::{Answer, Attach, Hello, ORDERS_TYPE_URL, PREFIX, PROCESS_TYPE_URL, STREAM_URI},
    shim_v1::{self, Orders, supervisor_client::SupervisorClient},
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_types::Any;
use serde_json::{Value, json};
use tonic::body::Body;

pub const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-cleat-v1");

/// The shim to test; another build of it may be named.
pub fn shim_binary() -> String {
    std::env::var("SHIM_TEST_BINARY").unwrap_or_else(|_| SHIM.to_owned())
}

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

/// The runtime to test with: our own where it has been built, else runc.
pub fn runtime() -> shim_v1::Runtime {
    let own = Path::new(SHIM).with_file_name("cleat-runc");
    match std::env::var("SHIM_TEST_RUNTIME") {
        Ok(binary) => shim_v1::Runtime { binary, ..Default::default() },
        Err(_) if own.exists() => shim_v1::Runtime {
            binary: own.to_str().unwrap().into(),
            native: true,
            ..Default::default()
        },
        Err(_) => shim_v1::Runtime { binary: "runc".into(), ..Default::default() },
    }
}

/// What a test may vary.
pub struct Options {
    pub args: Vec<String>,
    pub terminal: bool,
    pub stdin_once: bool,
    pub log: shim_v1::Log,
    pub restart: shim_v1::RestartPolicy,
    pub memory: Option<u64>,
    pub stop_signal: u32,
    pub host_pid: bool,
    pub health: Option<shim_v1::HealthCheck>,
}

/// A container that runs `script`.
pub fn shell(script: &str) -> Options {
    Options {
        args: ["/bin/busybox", "sh", "-c", script].map(String::from).to_vec(),
        terminal: false,
        stdin_once: true,
        log: shim_v1::Log { driver: "json-file".into(), ..Default::default() },
        restart: shim_v1::RestartPolicy::default(),
        memory: None,
        stop_signal: 0,
        host_pid: false,
        health: None,
    }
}

pub struct Shim {
    pub id: String,
    pub directory: tempfile::TempDir,
    pub pid: i32,
    pub task: TaskClient<Channel>,
    pub supervisor: SupervisorClient<Channel>,
    orders: Orders,
    terminal: bool,
}

impl Shim {
    /// Starts a shim and creates the container.
    pub async fn create(options: Options) -> Self {
        let mut shim = Self::start(options).await;
        shim.try_create().await.unwrap();
        shim
    }

    /// Creates and starts the container.
    pub async fn run(options: Options) -> Self {
        let mut shim = Self::create(options).await;
        shim.start_task("").await.unwrap();
        shim
    }

    /// Starts a shim.
    pub async fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let id: String = (0..4).map(|_| format!("{:016x}", rand())).collect();
        write_bundle(directory.path(), &id, &options);
        let socket = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        let spawned = cleat_sys::spawn::Spawn {
            program: shim_binary().into(),
            args: ["containerd-shim-cleat-v1", "-namespace", "test", "-id", &id, "serve"]
                .map(Into::into)
                .to_vec(),
            env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            directory: Some(directory.path().into()),
            fds: vec![(null.as_fd(), 0), (null.as_fd(), 1), (listener.as_fd(), 3)],
            new_session: true,
            ..Default::default()
        }
        .start()
        .unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let orders = Orders {
            runtime: Some(shim_v1::Runtime { root: path("runtime"), ..runtime() }),
            log: Some(shim_v1::Log { path: path("log"), ..options.log }),
            restart: Some(options.restart),
            stdin_once: options.stdin_once,
            state_dir: path("state"),
            stop_signal: options.stop_signal,
            health: options.health,
            published: Vec::new(),
        };
        let channel = connect(&socket).await;
        let origin = http::Uri::from_static("http://shim");
        Self {
            id,
            directory,
            pid: spawned.pid.as_raw(),
            task: TaskClient::with_origin(channel.clone(), origin.clone()),
            supervisor: SupervisorClient::with_origin(channel, origin),
            orders,
            terminal: options.terminal,
        }
    }

    pub async fn try_create(&mut self) -> Result<u32, tonic::Status> {
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.directory.path().to_str().unwrap().to_owned(),
            terminal: self.terminal,
            stdin: STREAM_URI.into(),
            stdout: STREAM_URI.into(),
            stderr: STREAM_URI.into(),
            options: Some(Any {
                type_url: ORDERS_TYPE_URL.into(),
                value: self.orders.encode_to_vec(),
            }),
            ..Default::default()
        };
        Ok(self.task.create(request).await?.into_inner().pid)
    }

    pub async fn start_task(&mut self, exec_id: &str) -> Result<u32, tonic::Status> {
        let request = api::StartRequest { id: self.id.clone(), exec_id: exec_id.into() };
        Ok(self.task.start(request).await?.into_inner().pid)
    }

    pub async fn wait(&mut self, exec_id: &str) -> u32 {
        let request = api::WaitRequest { id: self.id.clone(), exec_id: exec_id.into() };
        let waiting = tokio::time::timeout(Duration::from_secs(60), self.task.wait(request));
        waiting.await.expect("it should have ended").unwrap().into_inner().exit_status
    }

    pub async fn state(&mut self, exec_id: &str) -> api::StateResponse {
        let request = api::StateRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.task.state(request).await.unwrap().into_inner()
    }

    pub async fn kill(&mut self, exec_id: &str, signal: u32) -> Result<(), tonic::Status> {
        let request =
            api::KillRequest { id: self.id.clone(), exec_id: exec_id.into(), signal, all: false };
        self.task.kill(request).await.map(drop)
    }

    pub async fn delete(&mut self, exec_id: &str) -> Result<api::DeleteResponse, tonic::Status> {
        let request = api::DeleteRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.task.delete(request).await.map(tonic::Response::into_inner)
    }

    pub async fn stop(&mut self, signal: u32, timeout_millis: Option<u64>) {
        let request =
            shim_v1::StopRequest { id: self.id.clone(), signal, timeout_millis, by_daemon: false };
        self.supervisor.stop(request).await.unwrap();
    }

    /// Adds an exec with streams for clients; `script` runs in a shell.
    pub async fn add_exec(&mut self, exec_id: &str, script: &str, terminal: bool) {
        self.add_exec_of(exec_id, &["/bin/busybox", "sh", "-c", script], terminal).await;
    }

    /// The same of any command.
    pub async fn add_exec_of(&mut self, exec_id: &str, args: &[&str], terminal: bool) {
        let process = json!({
            "args": args, "cwd": "/", "terminal": terminal,
            "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        });
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            terminal,
            stdin: STREAM_URI.into(),
            stdout: STREAM_URI.into(),
            stderr: STREAM_URI.into(),
            spec: Some(Any {
                type_url: PROCESS_TYPE_URL.into(),
                value: process.to_string().into_bytes(),
            }),
        };
        self.task.exec(request).await.unwrap();
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("s")).unwrap()
    }

    fn say(
        &self,
        hello: &Hello,
        descriptor: Option<&UnixStream>,
    ) -> Result<BufReader<UnixStream>, String> {
        let stream = self.connect();
        let line = format!("{PREFIX}{}\n", serde_json::to_string(hello).unwrap());
        let fds: Vec<_> = descriptor.iter().map(|stream| stream.as_raw_fd()).collect();
        assert_eq!(cleat_sys::fdpass::send(&stream, line.as_bytes(), &fds).unwrap(), line.len());
        let mut reader = BufReader::new(stream);
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        match serde_json::from_str(&answer).unwrap() {
            Answer::Ok => Ok(reader),
            Answer::Error(error) => Err(error),
        }
    }

    /// Attaches, and returns the client's end.
    pub fn attach(&self, wish: Attach) -> Result<UnixStream, String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.say(&Hello::Attach(wish), Some(&theirs))?;
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Ok(ours)
    }

    /// Follows the journal.
    pub fn watch(&self, after: u64) -> impl Iterator<Item = Entry> + use<> {
        let reader = self.say(&Hello::Watch { after }, None).unwrap();
        reader.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn exit_file(&self) -> Exit {
        serde_json::from_slice(&fs::read(self.path("state/exit.json")).unwrap()).unwrap()
    }

    /// Returns what the log holds: stream and text.
    pub fn log(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path("log")).unwrap();
        let parse = |line| serde_json::from_str::<Value>(line).unwrap();
        let field = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        text.lines()
            .map(parse)
            .map(|record| (field(&record, "stream"), field(&record, "log")))
            .collect()
    }

    /// Deletes the container and shuts the shim down, which must then end.
    pub async fn finish(mut self) {
        self.delete("").await.unwrap();
        let request = api::ShutdownRequest { id: self.id.clone(), now: false };
        self.task.shutdown(request).await.unwrap();
        let pid = nix::unistd::Pid::from_raw(self.pid);
        let ended = tokio::task::spawn_blocking(move || nix::sys::wait::waitpid(pid, None));
        let ended = tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .expect("the shim should have ended");
        assert_eq!(ended.unwrap().unwrap(), nix::sys::wait::WaitStatus::Exited(pid, 0));
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if fs::read_to_string(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| line.contains(&self.id))
        {
            let pid = nix::unistd::Pid::from_raw(self.pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
        let root = self.directory.path().join("runtime");
        let _ = Command::new(runtime().binary)
            .arg("--root")
            .arg(root)
            .args(["delete", "--force", &self.id])
            .output();
    }
}

async fn connect(socket: &Path) -> Channel {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Channel(sender)
}

fn write_bundle(directory: &Path, id: &str, options: &Options) {
    for name in ["rootfs/bin", "rootfs/proc", "rootfs/dev", "rootfs/tmp", "state", "runtime"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    // By a process of its own: a child that another test starts meanwhile would hold it open, and to run it would be ETXTBSY.
    let mut copy = std::process::Command::new("cp");
    let program = directory.join("rootfs/bin/busybox");
    assert!(copy.arg("/bin/busybox").arg(program).status().unwrap().success());
    fs::set_permissions(directory.join("rootfs/bin/busybox"), fs::Permissions::from_mode(0o755))
        .unwrap();
    let mut namespaces = vec!["mount", "uts", "ipc", "network"];
    if !options.host_pid {
        namespaces.push("pid");
    }
    let namespaces: Vec<_> = namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
    let memory = options.memory.map(|limit| json!({ "limit": limit, "swap": limit }));
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": options.terminal, "user": { "uid": 0, "gid": 0 }, "args": options.args,
            "env": ["PATH=/bin", "TERM=xterm"], "cwd": "/",
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/cleat-shim-test-{id}"),
            "resources": { "memory": memory.unwrap_or_else(|| json!({})) },
        },
    });
    fs::write(directory.join("config.json"), spec.to_string()).unwrap();
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Reads frames until the end: (stream type, bytes), joined where the type stays the same.
pub fn read_frames(client: &mut UnixStream) -> Vec<(u8, Vec<u8>)> {
    let mut frames: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some((kind, payload)) = read_frame(client) {
        match frames.last_mut() {
            Some((last, bytes)) if *last == kind => bytes.extend(payload),
            _ => frames.push((kind, payload)),
        }
    }
    frames
}

/// Reads one frame; none at the end.
pub fn read_frame(client: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    client.read_exact(&mut header).ok()?;
    let len = u32::from_be_bytes(header[4..].try_into().unwrap());
    let mut payload = vec![0; len as usize];
    client.read_exact(&mut payload).unwrap();
    Some((header[0], payload))
}

/// Returns the CPU time of a process so far, in milliseconds: user and system.
pub fn cpu_millis(pid: u32) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    (fields[9] * 10, fields[10] * 10)
}

/// Runs a blocking piece of the test beside the client's connection.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(work))
        .await
        .expect("in time")
        .unwrap()
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn all() -> Attach {
    Attach { stdin: true, stdout: true, stderr: true, stream: true, ..Attach::default() }
}

pub fn write_all(mut client: &UnixStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
}
