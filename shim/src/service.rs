//! The Task service (containerd's, versions 2 and 3) and our Supervisor service: what comes over the wire becomes a
//! [`Request`] to the supervisor, and its answer goes back. No decisions.

use cleat_proto::{
    containerd::task::v3::{self as api, task_server::Task},
    shim_v1::{
        SetRestartPolicyRequest, StopRequest, supervisor_server::Supervisor as SupervisorService,
    },
};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::{Response, Status};

use crate::{error::Error, events::timestamp, process::Reply, supervisor::Request};

/// Asks the supervisor on behalf of any peer. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    id: std::sync::Arc<str>,
    requests: mpsc::Sender<Request>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Makes one for the container `id`.
    pub fn new(id: &str, requests: mpsc::Sender<Request>) -> Self {
        Self { id: id.into(), requests }
    }

    /// Asks, and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Asks about the container that we are here for, and no other.
    async fn about<T>(&self, id: &str, make: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        if *id != *self.id {
            return Err(Error::NoContainer(id.to_owned()).into());
        }
        Ok(Response::new(self.ask(make).await?))
    }

    /// Dispatches a ttrpc call: names and bytes in, bytes out.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: &[u8],
    ) -> Result<Vec<u8>, Status> {
        if !matches!(service, "containerd.task.v2.Task" | "containerd.task.v3.Task") {
            return Err(Status::unimplemented(format!("service {service}")));
        }
        macro_rules! dispatch {
            ($($name:literal => $method:ident($request:ty)),* $(,)?) => {
                match method {
                    $($name => {
                        let request = <$request>::decode(payload).map_err(|error| Status::invalid_argument(error.to_string()))?;
                        Ok(Task::$method(self, tonic::Request::new(request)).await?.into_inner().encode_to_vec())
                    })*
                    _ => Err(Status::unimplemented(format!("method {method}"))),
                }
            };
        }
        dispatch! {
            "State" => state(api::StateRequest),
            "Create" => create(api::CreateTaskRequest),
            "Start" => start(api::StartRequest),
            "Delete" => delete(api::DeleteRequest),
            "Pids" => pids(api::PidsRequest),
            "Pause" => pause(api::PauseRequest),
            "Resume" => resume(api::ResumeRequest),
            "Checkpoint" => checkpoint(api::CheckpointTaskRequest),
            "Kill" => kill(api::KillRequest),
            "Exec" => exec(api::ExecProcessRequest),
            "ResizePty" => resize_pty(api::ResizePtyRequest),
            "CloseIO" => close_io(api::CloseIoRequest),
            "Update" => update(api::UpdateTaskRequest),
            "Wait" => wait(api::WaitRequest),
            "Stats" => stats(api::StatsRequest),
            "Connect" => connect(api::ConnectRequest),
            "Shutdown" => shutdown(api::ShutdownRequest),
        }
    }
}

#[tonic::async_trait]
impl Task for Service {
    async fn state(
        &self,
        request: tonic::Request<api::StateRequest>,
    ) -> Answer<api::StateResponse> {
        let api::StateRequest { id, exec_id } = request.into_inner();
        self.about(&id, |reply| Request::State { exec_id, reply }).await
    }

    async fn create(
        &self,
        request: tonic::Request<api::CreateTaskRequest>,
    ) -> Answer<api::CreateTaskResponse> {
        let request = request.into_inner();
        let id = request.id.clone();
        let pid = self.about(&id, |reply| Request::Create { request, reply }).await?.into_inner();
        Ok(Response::new(api::CreateTaskResponse { pid }))
    }

    async fn start(
        &self,
        request: tonic::Request<api::StartRequest>,
    ) -> Answer<api::StartResponse> {
        let api::StartRequest { id, exec_id } = request.into_inner();
        let pid = self.about(&id, |reply| Request::Start { exec_id, reply }).await?.into_inner();
        Ok(Response::new(api::StartResponse { pid }))
    }

    async fn delete(
        &self,
        request: tonic::Request<api::DeleteRequest>,
    ) -> Answer<api::DeleteResponse> {
        let api::DeleteRequest { id, exec_id } = request.into_inner();
        self.about(&id, |reply| Request::Delete { exec_id, reply }).await
    }

    async fn pids(&self, request: tonic::Request<api::PidsRequest>) -> Answer<api::PidsResponse> {
        self.about(&request.into_inner().id, |reply| Request::Pids { reply }).await
    }

    async fn pause(&self, request: tonic::Request<api::PauseRequest>) -> Answer<()> {
        self.about(&request.into_inner().id, |reply| Request::Pause { reply }).await
    }

    async fn resume(&self, request: tonic::Request<api::ResumeRequest>) -> Answer<()> {
        self.about(&request.into_inner().id, |reply| Request::Resume { reply }).await
    }

    async fn checkpoint(&self, _: tonic::Request<api::CheckpointTaskRequest>) -> Answer<()> {
        Err(Error::Unsupported("checkpointing").into())
    }

    async fn kill(&self, request: tonic::Request<api::KillRequest>) -> Answer<()> {
        let api::KillRequest { id, exec_id, signal, all } = request.into_inner();
        self.about(&id, |reply| Request::Kill { exec_id, signal, all, reply }).await
    }

    async fn exec(&self, request: tonic::Request<api::ExecProcessRequest>) -> Answer<()> {
        let request = request.into_inner();
        let id = request.id.clone();
        self.about(&id, |reply| Request::Exec { request, reply }).await
    }

    async fn resize_pty(&self, request: tonic::Request<api::ResizePtyRequest>) -> Answer<()> {
        let api::ResizePtyRequest { id, exec_id, width, height } = request.into_inner();
        self.about(&id, |reply| Request::Resize { exec_id, columns: width, rows: height, reply })
            .await
    }

    async fn close_io(&self, request: tonic::Request<api::CloseIoRequest>) -> Answer<()> {
        let api::CloseIoRequest { id, exec_id, stdin } = request.into_inner();
        if !stdin {
            return Ok(Response::new(()));
        }
        self.about(&id, |reply| Request::CloseStdin { exec_id, reply }).await
    }

    async fn update(&self, request: tonic::Request<api::UpdateTaskRequest>) -> Answer<()> {
        let request = request.into_inner();
        let resources = request.resources.unwrap_or_default();
        self.about(&request.id, |reply| Request::Update { resources, reply }).await
    }

    async fn wait(&self, request: tonic::Request<api::WaitRequest>) -> Answer<api::WaitResponse> {
        let api::WaitRequest { id, exec_id } = request.into_inner();
        let exit = self.about(&id, |reply| Request::Wait { exec_id, reply }).await?.into_inner();
        Ok(Response::new(api::WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)),
        }))
    }

    async fn stats(
        &self,
        request: tonic::Request<api::StatsRequest>,
    ) -> Answer<api::StatsResponse> {
        self.about(&request.into_inner().id, |reply| Request::Stats { reply }).await
    }

    async fn connect(
        &self,
        _: tonic::Request<api::ConnectRequest>,
    ) -> Answer<api::ConnectResponse> {
        Ok(Response::new(self.ask(|reply| Request::Connect { reply }).await?))
    }

    async fn shutdown(&self, _: tonic::Request<api::ShutdownRequest>) -> Answer<()> {
        Ok(Response::new(self.ask(|reply| Request::Shutdown { reply }).await?))
    }
}

#[tonic::async_trait]
impl SupervisorService for Service {
    async fn stop(&self, request: tonic::Request<StopRequest>) -> Answer<()> {
        let request = request.into_inner();
        let id = request.id.clone();
        self.about(&id, |reply| Request::Stop { request, reply }).await
    }

    async fn set_restart_policy(
        &self,
        request: tonic::Request<SetRestartPolicyRequest>,
    ) -> Answer<()> {
        let SetRestartPolicyRequest { id, restart } = request.into_inner();
        let policy = restart.unwrap_or_default();
        self.about(&id, |reply| Request::SetRestartPolicy { policy, reply }).await
    }
}
