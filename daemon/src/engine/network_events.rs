//! What is told about networks. Connecting containers is a step of their start and of their end.

use super::Engine;
use crate::{
    container::Record,
    event::{self, Event},
};

impl Engine {
    /// Tells that a container joined (`connect`) or left (`disconnect`) its networks.
    pub(super) fn publish_networks(&self, record: &Record, action: &str) {
        for name in record.networks.keys() {
            let Ok(network) = self.networks().inspect(name) else { continue };
            let attributes = [
                ("container", record.id.to_string()),
                ("name", network.name),
                ("type", network.driver.to_owned()),
            ];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value)).into();
            self.events().publish(Event::now(event::Kind::Network, action, network.id, attributes));
        }
    }
}
