//! `port`.

use super::{container_path, handler};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::{Error, Outcome};
use crate::output::natural;
use crate::value::Value;
use crate::{go, print};

pub static PORT: Command = Command {
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List the published ports of a container",
    names: "container port, port",
    arity: Arity::Between(1, 2),
    options_first: false,
    flags: &[],
    run: handler!(run),
};

/// `ADDRESS:PORT`, with brackets around IPv6.
pub fn join(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

async fn run(call: Call) -> Outcome {
    let container =
        call.client()?.get(&container_path(call.arg(0), "/json")?, &Query::default()).await?;
    let ports = container.at("NetworkSettings").at("Ports");
    let on_host =
        |binding: &Value| join(binding.at("HostIp").text(), binding.at("HostPort").text());
    let wanted = call.arg(1);
    let mut lines: Vec<String> = if wanted.is_empty() {
        let all = ports.entries().iter().flat_map(|(port, bindings)| {
            bindings.items().iter().map(move |binding| format!("{port} -> {}", on_host(binding)))
        });
        all.collect()
    } else {
        let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, ""));
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        go::parse_uint(port, 10, 16).map_err(|fault| {
            format!("Error: invalid port ({port}): {}", fault.message("ParseUint", port))
        })?;
        let bindings = ports.at(&format!("{port}/{protocol}")).items();
        if bindings.is_empty() {
            return Err(Error::Message(format!(
                "Error: No public port '{wanted}' published for {}",
                call.arg(0)
            )));
        }
        bindings.iter().map(on_host).collect()
    };
    lines.sort_by(|a, b| natural::compare(a, b));
    if !lines.is_empty() {
        print::line(&lines.join("\n"));
    }
    Ok(())
}
