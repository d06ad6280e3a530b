//! `ps`.

use super::{handler, list, short_id};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::{Error, Outcome};
use crate::flags::{Kind, short};
use crate::go;
use crate::opts::filter::Filters;
use crate::opts::reference::Reference;
use crate::output::format::Format;
use crate::output::table::ellipsis;
use crate::output::{time, units};
use crate::print;
use crate::value::{Record, Value};

pub static PS: Command = Command {
    usage: "[OPTIONS]",
    about: "List containers",
    names: "container ls, container list, container ps, ps",
    arity: Arity::None,
    options_first: false,
    flags: &[&[
        short('a', "all", Kind::Bool, "Include those that do not run"),
        short('f', "filter", Kind::Filter, "Include only those that fit"),
        list::FORMAT,
        short('n', "last", Kind::Int, "Include only the newest, running or not").default("-1"),
        short('l', "latest", Kind::Bool, "Include only the newest one, running or not"),
        list::NO_TRUNC,
        short('q', "quiet", Kind::Bool, "Print ids only"),
        short('s', "size", Kind::Bool, "Print sizes as well"),
    ]],
    run: handler!(run),
};

/// The titles of the columns.
pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    let quiet = flags.on("quiet");
    let mut source = flags.text("format").to_owned();
    if source.is_empty() {
        source.clone_from(&call.app.config.ps_format);
    } else if quiet {
        print::err("WARNING: Ignoring custom format, because both --format and --quiet are set.\n");
    }
    let mut size = flags.on("size");
    if !source.is_empty() {
        size |= probe(&source)? && !quiet && !flags.changed("size");
    }
    let mut query = Query::default();
    if flags.on("all") {
        query.add("all", "1");
    }
    let last = flags.int("last");
    let limit = if flags.on("latest") && last == -1 { 1 } else { last };
    if limit > 0 {
        query.add("limit", limit.to_string());
    }
    if size {
        query.add("size", "1");
    }
    let filters = Filters::new(&flags.list("filter"));
    if !filters.is_empty() {
        query.add("filters", filters.json());
    }
    let containers = call.client()?.get("/containers/json", &query).await?;
    let format = Format::new(&format_text(&source, quiet, size))?;
    let truncate = !flags.on("no-trunc");
    let rows: Vec<Value> =
        containers.items().iter().map(|container| row(container, truncate)).collect();
    print::out(&format.render(HEADERS, &rows)?);
    Ok(())
}

/// Tries the format on an empty row, as docker does before it asks the daemon; true if it uses the size.
fn probe(source: &str) -> Outcome<bool> {
    let template = crate::output::template::Template::parse(source)
        .map_err(|error| Error::Message(format!("failed to parse template: {error}")))?;
    template
        .execute(&row(&Value::Nil, false), false)
        .map_err(|error| Error::Message(format!("failed to execute template: {error}")))?;
    Ok(template.uses("Size"))
}

fn format_text(source: &str, quiet: bool, size: bool) -> String {
    let table = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
    match source {
        "raw" if quiet => "container_id: {{.ID}}".into(),
        "raw" => {
            let size = if size { "size: {{.Size}}\\n" } else { "" };
            format!(
                "container_id: {{{{.ID}}}}\nimage: {{{{.Image}}}}\ncommand: {{{{.Command}}}}\ncreated_at: {{{{.CreatedAt}}}}\n\
                 state: {{{{- pad .State 1 0}}}}\nstatus: {{{{- pad .Status 1 0}}}}\nnames: {{{{.Names}}}}\n\
                 labels: {{{{- pad .Labels 1 0}}}}\nports: {{{{- pad .Ports 1 0}}}}\n{size}"
            )
        }
        _ if quiet => "{{.ID}}".into(),
        "table" | "" if size => format!("{table}\t{{{{.Size}}}}"),
        "table" | "" => table.into(),
        custom => custom.into(),
    }
}

/// A container as templates see it. (Engine API, ContainerList.)
pub fn row(container: &Value, truncate: bool) -> Value {
    let id = container.at("Id").text();
    let created = container.at("Created").int();
    let command = container.at("Command").text();
    let labels = container.at("Labels").texts();
    let networks: Vec<&str> = container
        .at("NetworkSettings")
        .at("Networks")
        .entries()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let mounts = container.at("Mounts").items();
    let local = mounts.iter().filter(|mount| mount.at("Driver").text() == "local").count();
    let fields = vec![
        ("ID", Value::from(if truncate { short_id(id) } else { id })),
        ("Names", names(container, truncate).into()),
        ("Image", image(container, truncate).into()),
        (
            "Command",
            go::quote(&if truncate { ellipsis(command, 20) } else { command.to_owned() }).into(),
        ),
        ("CreatedAt", time::go_string(created).into()),
        ("RunningFor", format!("{} ago", units::human_duration(time::now() - created)).into()),
        ("Platform", platform(container)),
        ("Ports", ports(container.at("Ports").items()).into()),
        ("State", container.at("State").text().into()),
        ("Status", container.at("Status").text().into()),
        ("Size", size(container).into()),
        ("Labels", joined_labels(container.at("Labels")).into()),
        ("Mounts", mount_names(mounts, truncate).into()),
        ("LocalVolumes", local.to_string().into()),
        ("Networks", networks.join(",").into()),
    ];
    let mut record = Record::row("*formatter.ContainerContext", fields);
    record.labels = Some(labels);
    record.into()
}

/// Labels as `a=b,c=d`, in order.
pub fn joined_labels(labels: &Value) -> String {
    let mut words: Vec<String> =
        labels.entries().iter().map(|(key, value)| format!("{key}={}", value.text())).collect();
    words.sort();
    words.join(",")
}

fn names(container: &Value, truncate: bool) -> String {
    let names: Vec<&str> = container
        .at("Names")
        .items()
        .iter()
        .map(|name| name.text().get(1..).unwrap_or_default())
        .collect();
    let plain = names.iter().find(|name| !name.contains('/'));
    match plain {
        Some(plain) if truncate => (*plain).to_owned(),
        _ => names.join(","),
    }
}

fn image(container: &Value, truncate: bool) -> String {
    let image = container.at("Image").text();
    if image.is_empty() {
        return "<no image>".into();
    }
    if !truncate {
        return image.to_owned();
    }
    let short = short_id(container.at("ImageID").text());
    if !short.is_empty() && short == short_id(image) {
        return short.to_owned();
    }
    match Reference::parse(image) {
        Ok(mut reference) => {
            reference.digest = None;
            reference.familiar()
        }
        Err(_) => image.to_owned(),
    }
}

fn platform(container: &Value) -> Value {
    let platform = container.at("ImageManifestDescriptor").at("platform");
    if *platform == Value::Nil { Value::Nil } else { platform.clone() }
}

fn size(container: &Value) -> String {
    let human = |value: &Value| units::human_size_with(value.int() as f64, 3);
    let written = human(container.at("SizeRw"));
    match container.at("SizeRootFs") {
        total if total.int() > 0 => format!("{written} (virtual {})", human(total)),
        _ => written,
    }
}

fn mount_names(mounts: &[Value], truncate: bool) -> String {
    let name = |mount: &Value| {
        let name = match mount.at("Name").text() {
            "" => mount.at("Source").text(),
            name => name,
        };
        if truncate { ellipsis(name, 15) } else { name.to_owned() }
    };
    mounts.iter().map(name).collect::<Vec<_>>().join(",")
}

/// Ports as `0.0.0.0:80->80/tcp, 9988/tcp`; neighbours become ranges.
fn ports(ports: &[Value]) -> String {
    let mut ports: Vec<(i64, &str, i64, &str)> = ports
        .iter()
        .map(|p| {
            (
                p.at("PrivatePort").int(),
                p.at("IP").text(),
                p.at("PublicPort").int(),
                p.at("Type").text(),
            )
        })
        .collect();
    ports.sort_unstable();
    let mut groups: Vec<((&str, &str), i64, i64)> = Vec::new();
    let (mut done, mut mapped) = (Vec::new(), Vec::new());
    for (private, address, public, protocol) in ports {
        if !address.is_empty() && public != private {
            mapped.push(format!(
                "{}->{private}/{protocol}",
                super::port::join(address, &public.to_string())
            ));
            continue;
        }
        match groups.iter_mut().find(|(key, ..)| *key == (address, protocol)) {
            None => groups.push(((address, protocol), private, private)),
            Some((_, _, last)) if private == *last + 1 => *last = private,
            Some((key, first, last)) => {
                done.push(range(*key, *first, *last));
                (*first, *last) = (private, private);
            }
        }
    }
    done.extend(groups.into_iter().map(|(key, first, last)| range(key, first, last)));
    done.extend(mapped);
    done.join(", ")
}

fn range((address, protocol): (&str, &str), first: i64, last: i64) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if address.is_empty() {
        format!("{range}/{protocol}")
    } else {
        format!("{}->{range}/{protocol}", super::port::join(address, &range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_grouped_into_ranges() {
        let value: Value = serde_json::from_str(
            r#"[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":80,"Type":"tcp"},
                {"IP":"0.0.0.0","PrivatePort":81,"PublicPort":81,"Type":"tcp"},
                {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                {"PrivatePort":9988,"Type":"udp"}]"#,
        )
        .unwrap();
        assert_eq!(ports(value.items()), "0.0.0.0:80-81->80-81/tcp, 9988/udp, [::]:8080->80/tcp");
    }
}
