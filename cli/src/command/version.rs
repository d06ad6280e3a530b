//! `version`.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::{NEWEST, Query};
use crate::error::{Error, Outcome};
use crate::flags::{Kind, short};
use crate::output::template::Template;
use crate::output::{schema, table};
use crate::print;
use crate::value::{Map, Value};

/// The commit this was built from, where the build knows it.
pub const BUILD: &str = match option_env!("CLEAT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub static VERSION: Command = Command {
    usage: "[OPTIONS]",
    about: "Show the versions of client and daemon",
    names: "",
    arity: Arity::None,
    options_first: false,
    flags: &[&[short('f', "format", Kind::Text, "How to print it: 'json' or a Go template")]],
    run: handler!(run),
};

const TEXT: &str = "{{with .Client -}}
Client:
 Version:\t{{.Version}}
 API version:\t{{.APIVersion}}{{if ne .APIVersion .DefaultAPIVersion}} (downgraded from {{.DefaultAPIVersion}}){{end}}
 Git commit:\t{{.GitCommit}}
 OS/Arch:\t{{.Os}}/{{.Arch}}
 Context:\t{{.Context}}
{{- end}}
{{- if .Server}}{{with .Server}}

Server:{{if ne .Platform.Name \"\"}} {{.Platform.Name}}{{end}}
 {{- range $component := .Components}}
 {{$component.Name}}:
  Version:\t{{$component.Version}}
  {{- range $key, $value := $component.Details}}
  {{$key}}:\t{{$value}}
  {{- end}}
 {{- end}}
{{- end}}{{- end}}";

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::Map(Map {
        of_text: false,
        entries: members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    })
}

/// Go's name of our architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What we say about ourselves.
pub fn client_info(api_version: &str, context: &str) -> Value {
    object(vec![
        ("Version", env!("CARGO_PKG_VERSION").into()),
        ("ApiVersion", api_version.into()),
        ("DefaultAPIVersion", NEWEST.into()),
        ("GitCommit", BUILD.into()),
        ("GoVersion", "none".into()),
        ("Os", "linux".into()),
        ("Arch", architecture().into()),
        ("BuildTime", "".into()),
        ("Context", context.into()),
    ])
}

async fn run(call: Call) -> Outcome {
    let format = match call.flags.text("format") {
        "" => TEXT,
        "json" => "{{json .}}",
        text => text,
    };
    let template = Template::parse(format).map_err(|error| Error::Status {
        message: format!(
            "template parsing error: {}",
            error.replacen("template: :", "template: version:", 1)
        ),
        code: 64,
    })?;
    let client = call.client()?;
    let server = client.get("/version", &Query::default()).await;
    let version = client.version().await;
    let mut members = vec![("Client", client_info(&version, &call.app.context_name()))];
    if let Ok(server) = &server {
        members.push(("Server", server.clone()));
    }
    let data = schema::typed("system.versionInfo", &object(members));
    let printed = template.execute(&data, false);
    print::out(&table::align_with(&format!("{}\n", printed.as_deref().unwrap_or_default()), 20, 1));
    server?;
    printed.map(drop).map_err(|error| {
        let named = error.replacen("template: :", "template: version:", 1).replacen(
            "executing \"\"",
            "executing \"version\"",
            1,
        );
        Error::Message(named)
    })
}
