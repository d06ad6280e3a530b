//! Tells a stock containerd what happens: `Events/Forward` over ttrpc to `TTRPC_ADDRESS`. Hints only: Wait and State are the truth.

use std::time::{SystemTime, UNIX_EPOCH};

use cleat_proto::containerd::{services::events::ttrpc::v1::ForwardRequest, types::Envelope};
use prost::Message;
use prost_types::{Any, Timestamp};
use tokio::sync::mpsc;

use crate::ttrpc::Client;

/// As many as stock shims keep while containerd is away.
const QUEUE: usize = 2048;
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Where events go; nowhere if nobody asked for them.
pub struct Publisher {
    namespace: String,
    queue: Option<mpsc::Sender<Envelope>>,
}

/// Converts a time to the wire.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
}

impl Publisher {
    /// Makes one for the socket at `address`, if there is one. Needs the runtime.
    pub fn new(namespace: &str, address: Option<String>) -> Self {
        let queue = address.filter(|address| !address.is_empty()).map(|address| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(forward(address, receiver));
            sender
        });
        Self { namespace: namespace.to_owned(), queue }
    }

    /// Queues an event; drops it if containerd has been away for too long.
    pub fn publish(&self, topic: &'static str, type_url: &'static str, message: &impl Message) {
        let Some(queue) = &self.queue else { return };
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }),
        };
        let _ = queue.try_send(envelope);
    }
}

async fn forward(address: String, mut queue: mpsc::Receiver<Envelope>) {
    let mut client = None;
    while let Some(envelope) = queue.recv().await {
        let request = ForwardRequest { envelope: Some(envelope) }.encode_to_vec();
        for _ in 0..5 {
            if send(&mut client, &address, &request).await.is_ok() {
                break;
            }
            client = None;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

async fn send(client: &mut Option<Client>, address: &str, request: &[u8]) -> std::io::Result<()> {
    if client.is_none() {
        *client = Some(Client::connect(address).await?);
    }
    match client {
        Some(client) => client.call(SERVICE, "Forward", request).await,
        None => Ok(()),
    }
}
