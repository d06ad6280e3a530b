//! `images`.

use super::{handler, list, short_id};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::Outcome;
use crate::flags::{Kind, flag, short};
use crate::opts::filter::Filters;
use crate::opts::reference::Reference;
use crate::output::format::Format;
use crate::output::{time, units};
use crate::value::{Record, Value};
use crate::{go, print};

pub static IMAGES: Command = Command {
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    names: "image ls, image list, images",
    arity: Arity::AtMost(1),
    options_first: false,
    flags: &[&[
        short('a', "all", Kind::Bool, "Include intermediate images"),
        flag("digests", Kind::Bool, "Print digests as well"),
        short('f', "filter", Kind::Filter, "Include only those that fit"),
        list::FORMAT,
        list::NO_TRUNC,
        short('q', "quiet", Kind::Bool, "Print ids only"),
        flag("tree", Kind::Bool, "List platforms as a tree").since("1.47"),
    ]],
    run: handler!(run),
};

/// The titles of the columns.
pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

async fn run(call: Call) -> Outcome {
    let flags = &call.flags;
    if flags.on("tree") {
        return Err("--tree is not supported by this client yet".into());
    }
    let mut filters = Filters::new(&flags.list("filter"));
    if !call.arg(0).is_empty() {
        filters.add("reference", call.arg(0));
    }
    let mut query = Query::default();
    if !filters.is_empty() {
        query.add("filters", filters.json());
    }
    if flags.on("all") {
        query.add("all", "1");
    }
    let images = call.client()?.get("/images/json", &query).await?;
    let (quiet, digests) = (flags.on("quiet"), flags.on("digests"));
    let source = list::source(&call, &call.app.config.images_format);
    let text = format_text(source, quiet, digests);
    let with_digest = digests || text.contains("{{.Digest}}");
    let format = Format::new(&text)?;
    let truncate = !flags.on("no-trunc");
    let rows: Vec<Value> = images
        .items()
        .iter()
        .flat_map(|image| {
            names(image, with_digest, digests)
                .into_iter()
                .map(move |name| row(image, &name, truncate))
        })
        .collect();
    print::out(&format.render(HEADERS, &rows)?);
    if rows.is_empty() && images.items().is_empty() && call.name == "images" {
        hint(call.arg(0));
    }
    Ok(())
}

/// `images prune` was probably meant as `image prune`.
fn hint(name: &str) {
    const WORDS: [&str; 13] = [
        "build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push",
        "rm", "save", "tag",
    ];
    if WORDS.contains(&name) {
        let quoted = go::quote(name);
        let program = crate::app::NAME;
        print::err(&format!(
            "\nNo images found matching {quoted}: did you mean \"{program} image {name}\"?\n"
        ));
    }
}

fn format_text(source: &str, quiet: bool, digests: bool) -> String {
    let created = "{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}";
    match source {
        "table" if quiet => "{{.ID}}".into(),
        "table" if digests => {
            format!(
                "table {{{{.Repository}}}}\t{{{{.Tag}}}}\t{{{{.Digest}}}}\t{{{{.ID}}}}\t{created}\t{{{{.Size}}}}"
            )
        }
        "table" => format!(
            "table {{{{.Repository}}}}\t{{{{.Tag}}}}\t{{{{.ID}}}}\t{created}\t{{{{.Size}}}}"
        ),
        "raw" if quiet => "image_id: {{.ID}}".into(),
        "raw" => {
            let digest = if digests { "digest: {{.Digest}}\n" } else { "" };
            format!(
                "repository: {{{{ .Repository }}}}\ntag: {{{{.Tag}}}}\n{digest}image_id: {{{{.ID}}}}\n\
                 created_at: {{{{.CreatedAt}}}}\nvirtual_size: {{{{.Size}}}}\n"
            )
        }
        custom if custom.starts_with("table") && digests && !custom.contains("{{.Digest}}") => {
            format!("{custom}\t{{{{.Digest}}}}")
        }
        custom => custom.into(),
    }
}

/// Repository, tag and digest of one row.
type Name = (String, String, String);

/// The rows an image has: one for each of its names.
fn names(image: &Value, with_digest: bool, digest_rows: bool) -> Vec<Name> {
    let none = || "<none>".to_owned();
    let texts = |key: &str| image.at(key).items().iter().map(Value::text).collect::<Vec<_>>();
    let (tags, digests) = (texts("RepoTags"), texts("RepoDigests"));
    let dangling = (tags.is_empty() && digests.is_empty())
        || (tags == ["<none>:<none>"] && digests == ["<none>@<none>"]);
    if dangling {
        return vec![(none(), none(), none())];
    }
    let tags: Vec<Reference> =
        tags.into_iter().filter_map(|text| Reference::parse(text).ok()).collect();
    let mut digests: Vec<Reference> =
        digests.into_iter().filter_map(|text| Reference::parse(text).ok()).collect();
    let mut rows = Vec::new();
    for tag in &tags {
        let name = tag.familiar_name();
        let own: Vec<String> = digests
            .iter()
            .filter(|digest| with_digest && digest.familiar_name() == name)
            .filter_map(|digest| digest.digest.clone())
            .collect();
        let shown = tag.tag.clone().unwrap_or_default();
        if own.is_empty() {
            rows.push((name, shown, none()));
        } else {
            rows.extend(own.into_iter().map(|digest| (name.clone(), shown.clone(), digest)));
        }
    }
    digests.retain(|digest| tags.iter().all(|tag| tag.familiar_name() != digest.familiar_name()));
    for digest in digests {
        let shown =
            if digest_rows { digest.digest.clone().unwrap_or_default() } else { String::new() };
        rows.push((digest.familiar_name(), none(), shown));
    }
    rows
}

/// An image as templates see it. (Engine API, ImageList.)
pub fn row(image: &Value, (repository, tag, digest): &Name, truncate: bool) -> Value {
    let id = image.at("Id").text();
    let created = image.at("Created").int();
    let (size, shared) = (image.at("Size").int(), image.at("SharedSize").int());
    let human = |bytes: i64, known: bool| {
        if known { units::human_size(bytes as f64) } else { "N/A".into() }
    };
    let containers = image.at("Containers").int();
    let fields = vec![
        ("ID", Value::from(if truncate { short_id(id) } else { id })),
        ("Repository", repository.as_str().into()),
        ("Tag", tag.as_str().into()),
        ("Digest", digest.as_str().into()),
        ("CreatedSince", format!("{} ago", units::human_duration(time::now() - created)).into()),
        ("CreatedAt", time::go_string(created).into()),
        ("Size", units::human_size_with(size as f64, 3).into()),
        ("Containers", if containers == -1 { "N/A".into() } else { containers.to_string() }.into()),
        ("VirtualSize", units::human_size(size as f64).into()),
        ("SharedSize", human(shared, shared != -1).into()),
        ("UniqueSize", human(size - shared, size != -1 && shared != -1).into()),
    ];
    Record::row("*formatter.imageContext", fields).into()
}
