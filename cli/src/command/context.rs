//! `context`: named addresses of daemons in the configuration directory.
//!
//! Left out: TLS material.

use super::{handler, joined, list};
use crate::cli::{Arity, Call, Command};
use crate::context::{Context, Store, validate_name};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::output::format::Format;
use crate::output::table::ellipsis;
use crate::output::{json, natural};
use crate::value::{Record, Value};
use crate::{go, print};

const DEFINITION: &[Flag] = &[
    flag("description", Kind::Text, "What it is"),
    flag("docker", Kind::Strings, "The daemon's endpoint (host=ADDRESS)"),
];

pub static CREATE: Command = Command {
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context",
    names: "",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[DEFINITION, &[flag("from", Kind::Text, "Context to copy")]],
    run: handler!(create),
};

pub static INSPECT: Command = Command {
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Show all there is to know about contexts",
    names: "",
    arity: Arity::Any,
    options_first: false,
    flags: &[&[short('f', "format", Kind::Text, "How to print it: 'json' or a Go template")]],
    run: handler!(inspect),
};

pub static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List contexts",
    names: "context ls, context list",
    arity: Arity::None,
    options_first: false,
    flags: &[&[list::FORMAT, short('q', "quiet", Kind::Bool, "Print names only")]],
    run: handler!(ls),
};

pub static RM: Command = Command {
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove contexts",
    names: "context rm, context remove",
    arity: Arity::AtLeast(1),
    options_first: false,
    flags: &[&[short('f', "force", Kind::Bool, "Remove it even if it is in use")]],
    run: handler!(rm),
};

pub static SHOW: Command = Command {
    usage: "",
    about: "Print the name of the current context",
    names: "",
    arity: Arity::None,
    options_first: false,
    flags: &[],
    run: handler!(show),
};

pub static UPDATE: Command = Command {
    usage: "[OPTIONS] CONTEXT",
    about: "Change a context",
    names: "",
    arity: Arity::Exactly(1),
    options_first: false,
    flags: &[DEFINITION],
    run: handler!(update),
};

pub static USE: Command = Command {
    usage: "CONTEXT",
    about: "Make a context the current one",
    names: "",
    arity: Arity::Any,
    options_first: false,
    flags: &[],
    run: handler!(use_context),
};

/// The contexts of the configuration directory.
pub fn store(call: &Call) -> Store {
    Store::new(&call.app.directory)
}

/// A context by name; `default` is made of what the command line and the environment say.
pub fn find(call: &Call, name: &str) -> Outcome<Context> {
    if name == "default" {
        let host = call.app.default_host().map_err(|reason| {
            Error::Message(format!("unable to resolve docker endpoint: {reason}"))
        })?;
        return Ok(Context { name: name.into(), description: String::new(), host });
    }
    Ok(store(call).load(name)?)
}

/// The address in `--docker`.
fn host_of(call: &Call) -> Outcome<Option<String>> {
    let mut host = None;
    for word in call.flags.list("docker") {
        let (key, value) = word.split_once('=').unwrap_or((&word, ""));
        match key {
            "host" => host = Some(value.to_owned()),
            "from" => host = Some(find(call, value)?.host),
            "ca" | "cert" | "key" | "skip-tls-verify" => {
                return Err("TLS is not supported by this client yet: use a unix socket".into());
            }
            other => {
                return Err(Error::Message(format!(
                    "unable to create docker endpoint config: unrecognized config key: {other}"
                )));
            }
        }
    }
    Ok(host)
}

async fn create(call: Call) -> Outcome {
    let name = call.arg(0);
    validate_name(name)?;
    let store = store(&call);
    if store.load(name).is_ok() {
        return Err(Error::Message(format!("context {} already exists", go::quote(name))));
    }
    let (given, from) = (host_of(&call)?, call.flags.text("from"));
    if given.is_some() && !from.is_empty() {
        return Err("cannot use --docker flag when --from is set".into());
    }
    let mut context = match given {
        Some(host) => Context { host, ..Context::default() },
        None if from.is_empty() => find(&call, &call.app.context_name())?,
        None => find(&call, from)?,
    };
    name.clone_into(&mut context.name);
    if !call.flags.text("description").is_empty() {
        call.flags.text("description").clone_into(&mut context.description);
    }
    store.save(&context)?;
    print::line(name);
    print::err(&format!("Successfully created context {}\n", go::quote(name)));
    Ok(())
}

async fn update(call: Call) -> Outcome {
    let name = call.arg(0);
    validate_name(name)?;
    let store = store(&call);
    let mut context = store.load(name)?;
    if !call.flags.text("description").is_empty() {
        call.flags.text("description").clone_into(&mut context.description);
    }
    if let Some(host) = host_of(&call)? {
        context.host = host;
    }
    store.save(&context)?;
    print::line(name);
    print::err(&format!("Successfully updated context {}\n", go::quote(name)));
    Ok(())
}

async fn show(call: Call) -> Outcome {
    print::line(&call.app.context_name());
    Ok(())
}

async fn use_context(call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Error::Message(format!("accepts 1 arg(s), received {}", call.args.len())));
    }
    let name = call.arg(0);
    if name != "default" {
        validate_name(name)?;
        store(&call).load(name)?;
    }
    let value = if name == "default" { "" } else { name };
    if call.app.config.current_context != value {
        crate::config::set_current_context(&call.app.directory, value)?;
    }
    print::line(name);
    print::err(&format!("Current context is now {}\n", go::quote(name)));
    if name != "default" && std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
        let quoted = go::quote(name);
        print::err(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {quoted}, either set the \
             global --context flag, or unset DOCKER_HOST environment variable.\n"
        ));
    }
    Ok(())
}

async fn rm(call: Call) -> Outcome {
    let (store, current, force) = (store(&call), call.app.context_name(), call.flags.on("force"));
    let mut failures = Vec::new();
    for name in &call.args {
        let quoted = go::quote(name);
        if name == "default" {
            failures.push("context \"default\" cannot be removed".to_owned());
        } else if *name == current && !force {
            failures.push(format!("context {quoted} is in use, set -f flag to force remove"));
        } else if !force && store.load(name).is_err() {
            failures.push(format!("context {quoted} does not exist"));
        } else {
            if *name == current {
                crate::config::set_current_context(&call.app.directory, "")?;
            }
            store.remove(name)?;
            print::line(name);
        }
    }
    joined(failures)
}

async fn ls(call: Call) -> Outcome {
    let current = call.app.context_name();
    let mut contexts: Vec<(Context, String)> =
        store(&call).all().into_iter().map(|context| (context, String::new())).collect();
    for name in ["default", &current] {
        if contexts.iter().all(|(context, _)| context.name != name) {
            contexts.push(match find(&call, name) {
                Ok(mut context) => {
                    if context.name == "default" {
                        context.description = "Current DOCKER_HOST based configuration".into();
                    }
                    (context, String::new())
                }
                Err(error) => {
                    (Context { name: name.into(), ..Context::default() }, error.to_string())
                }
            });
        }
    }
    contexts.sort_by(|(a, _), (b, _)| natural::compare(&a.name, &b.name));
    let row = |(context, failure): &(Context, String)| -> Value {
        let fields = vec![
            ("Name", Value::from(context.name.as_str())),
            ("Description", context.description.as_str().into()),
            ("DockerEndpoint", context.host.as_str().into()),
            ("Current", (context.name == current).into()),
            ("Error", ellipsis(failure, 45).into()),
        ];
        Record::row("*formatter.clientContextContext", fields).into()
    };
    let rows: Vec<Value> = contexts.iter().map(row).collect();
    let format = match call.flags.text("format") {
        _ if call.flags.on("quiet") => "{{.Name}}",
        "" | "table" => {
            "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
        }
        custom => custom,
    };
    let headers = [
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    ];
    print::out(&Format::new(format)?.render(&headers, &rows)?);
    if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
        print::err(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset DOCKER_HOST environment variable.\n",
        );
    }
    Ok(())
}

async fn inspect(call: Call) -> Outcome {
    let names =
        if call.args.is_empty() { vec![call.app.context_name()] } else { call.args.clone() };
    let store = store(&call);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &names {
        match find(&call, name) {
            Ok(context) => found.push(store.describe(&context)),
            Err(error) => failures.push(error.to_string()),
        }
    }
    match call.flags.text("format") {
        "" => print::line(&json::indent(&format!("[{}]", found.join(",")), "    ")),
        "json" => print::line(&format!("[{}]", found.join(","))),
        text => {
            let template = crate::output::template::Template::parse(text).map_err(|error| {
                Error::Status { message: format!("template parsing error: {error}"), code: 64 }
            })?;
            if found.is_empty() {
                // Docker's inspect ends its output with a line, also when there is none.
                print::line("");
            }
            for text in found {
                let value: Value =
                    serde_json::from_str(&text).map_err(|error| error.to_string())?;
                match template.execute(&value, true) {
                    Ok(line) => print::line(&line),
                    Err(error) => failures.push(format!("template parsing error: {error}")),
                }
            }
        }
    }
    joined(failures)
}
