//! `inspect`, of anything and of one kind.
//!
//! Without a format the daemon's own JSON is printed, indented. A template sees the typed object first; what it does not find
//! there is looked for in the plain JSON, as docker does.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{Body, Client, Error as ClientError, Query, escape};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::output::template::Template;
use crate::output::{json, schema};
use crate::value::Value;
use crate::{go, print};
use cleat_proto::platform::Platform;

const FORMAT: Flag = short('f', "format", Kind::Text, "How to print it: 'json' or a Go template");

pub static ANY: Command = Command {
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show all there is to know about objects of any kind",
    names: "",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        FORMAT,
        short('s', "size", Kind::Bool, "Include the sizes of a container"),
        flag("type", Kind::Text, "Look at objects of this kind only"),
    ]],
    run: handler!(any),
};

pub static CONTAINER: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Show all there is to know about containers",
    names: "",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[FORMAT, short('s', "size", Kind::Bool, "Include sizes")]],
    run: handler!(container),
};

pub static IMAGE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Show all there is to know about images",
    names: "",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[
        FORMAT,
        flag("platform", Kind::Text, "Platform of the image, where it has several").since("1.49"),
    ]],
    run: handler!(image),
};

pub static NETWORK: Command = Command {
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Show all there is to know about networks",
    names: "",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[FORMAT, short('v', "verbose", Kind::Bool, "Include what tells about faults")]],
    run: handler!(network),
};

pub static VOLUME: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Show all there is to know about volumes",
    names: "",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[FORMAT]],
    run: handler!(volume),
};

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Container,
    Image,
    Network,
    Volume,
    Plugin,
}

/// All kinds that `--type` knows; those of a swarm are asked for by path only.
const TYPES: [&str; 10] = [
    "config",
    "container",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "task",
    "volume",
];

impl Object {
    fn path(self, name: &str) -> String {
        let name = escape(name, true);
        match self {
            Self::Container => format!("/containers/{name}/json"),
            Self::Image => format!("/images/{name}/json"),
            Self::Network => format!("/networks/{name}"),
            Self::Volume => format!("/volumes/{name}"),
            Self::Plugin => format!("/plugins/{name}/json"),
        }
    }

    fn schema(self) -> &'static str {
        match self {
            Self::Container => "container.InspectResponse",
            Self::Image => "image.InspectResponse",
            Self::Network => "network.Inspect",
            Self::Volume => "volume.Volume",
            Self::Plugin => "",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Plugin => "plugin",
        }
    }
}

/// An object as it was found.
struct Found {
    object: Object,
    raw: String,
}

async fn fetch(
    client: &Client,
    object: Object,
    name: &str,
    query: &Query,
) -> Result<Found, ClientError> {
    if name.trim().is_empty() {
        return Err(ClientError::Request(format!(
            "invalid {} name or ID: value is empty",
            object.word()
        )));
    }
    let path = object.path(name);
    let response = client.request((http::Method::GET, &path), query, Body::Empty).await?;
    let raw = String::from_utf8_lossy(&response.bytes().await?).into_owned();
    Ok(Found { object, raw })
}

/// What is printed of the objects found.
enum Printer {
    Indented(Vec<String>),
    Compact(Vec<String>),
    Template(Template, String),
}

impl Printer {
    fn new(format: &str) -> Outcome<Self> {
        Ok(match format {
            "" => Self::Indented(Vec::new()),
            "json" => Self::Compact(Vec::new()),
            text => {
                let template = Template::parse(text).map_err(|error| Error::Status {
                    message: format!("template parsing error: {error}"),
                    code: 64,
                })?;
                Self::Template(template, String::new())
            }
        })
    }

    fn add(&mut self, found: Found) -> Result<(), String> {
        match self {
            Self::Indented(all) | Self::Compact(all) => all.push(found.raw),
            Self::Template(template, out) => {
                let raw: Value =
                    serde_json::from_str(&found.raw).map_err(|error| error.to_string())?;
                let typed = schema::typed(found.object.schema(), &raw);
                let text = template
                    .execute(&typed, false)
                    .or_else(|_| template.execute(&raw, true))
                    .map_err(|error| format!("template parsing error: {error}"))?;
                out.push_str(&text);
                out.push('\n');
            }
        }
        Ok(())
    }

    fn flush(self) {
        match self {
            Self::Indented(all) if all.is_empty() => print::line("[]"),
            Self::Compact(all) if all.is_empty() => print::line("[]"),
            Self::Indented(all) => {
                print::line(&json::indent(&format!("[{}]", all.join(",")), "    "))
            }
            Self::Compact(all) => {
                let text = format!("[{}]", all.join(","));
                print::line(&json::compact(text.as_bytes()).unwrap_or(text));
            }
            Self::Template(_, out) if out.is_empty() => print::line(""),
            Self::Template(_, out) => print::out(&out),
        }
    }
}

/// Prints all that is found, then the failures.
async fn run<F>(call: &Call, find: F) -> Outcome
where
    F: AsyncFn(&Client, &str) -> Outcome<Found>,
{
    let mut printer = Printer::new(call.flags.text("format"))?;
    let client = call.client()?;
    let mut failures = Vec::new();
    for name in &call.args {
        match find(client, name).await {
            Ok(found) => failures.extend(printer.add(found).err()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    printer.flush();
    super::joined(failures)
}

fn size_query(call: &Call) -> Query {
    if call.flags.on("size") { Query::of("size", "1") } else { Query::default() }
}

async fn container(call: Call) -> Outcome {
    let query = size_query(&call);
    run(&call, async |client, name| Ok(fetch(client, Object::Container, name, &query).await?)).await
}

async fn image(call: Call) -> Outcome {
    let mut query = Query::default();
    if !call.flags.text("platform").is_empty() {
        query.add(
            "platform",
            Platform::parse(call.flags.text("platform"))
                .map_err(|reason| reason.to_string())?
                .json(),
        );
    }
    run(&call, async |client, name| Ok(fetch(client, Object::Image, name, &query).await?)).await
}

async fn network(call: Call) -> Outcome {
    let query =
        if call.flags.on("verbose") { Query::of("verbose", "true") } else { Query::default() };
    run(&call, async |client, name| Ok(fetch(client, Object::Network, name, &query).await?)).await
}

async fn volume(call: Call) -> Outcome {
    run(&call, async |client, name| {
        Ok(fetch(client, Object::Volume, name, &Query::default()).await?)
    })
    .await
}

async fn any(call: Call) -> Outcome {
    let wanted = call.flags.text("type");
    let list = || TYPES.join("\", \"");
    if call.flags.changed("type") && wanted.is_empty() {
        return Err(Error::Message(format!("type is empty: must be one of \"{}\"", list())));
    }
    if !wanted.is_empty() && !TYPES.contains(&wanted) {
        let quoted = go::quote(wanted);
        return Err(Error::Message(format!(
            "unknown type: {quoted}: must be one of \"{}\"",
            list()
        )));
    }
    let size = size_query(&call);
    run(&call, async |client, name| find_any(client, name, wanted, &size).await).await
}

/// Looks for an object of any kind, in docker's order.
async fn find_any(client: &Client, name: &str, wanted: &str, size: &Query) -> Outcome<Found> {
    const ORDER: [Object; 5] =
        [Object::Container, Object::Image, Object::Network, Object::Volume, Object::Plugin];
    let empty = Query::default();
    for object in ORDER {
        if !wanted.is_empty() && object.word() != wanted {
            continue;
        }
        let query = if object == Object::Container { size } else { &empty };
        match fetch(client, object, name, query).await {
            Ok(found) => {
                if !size.render().is_empty() && object != Object::Container {
                    print::err(&format!("WARNING: --size ignored for {}\n", object.word()));
                }
                return Ok(found);
            }
            Err(error) if wanted.is_empty() && is_skippable(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !wanted.is_empty() && ORDER.iter().all(|object| object.word() != wanted) {
        let path = format!("/{wanted}s/{}", escape(name, true));
        let response = client.request((http::Method::GET, &path), &empty, Body::Empty).await?;
        let raw = String::from_utf8_lossy(&response.bytes().await?).into_owned();
        return Ok(Found { object: Object::Plugin, raw });
    }
    Err(Error::Message(format!("Error: No such object: {name}")))
}

fn is_skippable(error: &ClientError) -> bool {
    let text = error.to_string();
    error.is_not_found()
        || text.contains("not supported")
        || text.contains("invalid reference format")
}
