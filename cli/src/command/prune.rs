//! `prune` of each kind, and of everything.

use super::{confirm, filter_query, handler};
use crate::cli::{Arity, Call, Command, Run};
use crate::client::{Client, older};
use crate::error::{Error, Outcome};
use crate::flags::{Flag, Kind, flag, short};
use crate::opts::filter::Filters;
use crate::output::units;
use crate::print;
use crate::value::Value;

const FILTER: Flag = flag("filter", Kind::Filter, "Remove only what fits").since("1.28");
const FORCE: Flag = short('f', "force", Kind::Bool, "Do not ask");
const ALL: Flag = short(
    'a',
    "all",
    Kind::Bool,
    "Remove all that no container uses, not only those without a name",
);

const fn command(
    about: &'static str,
    flags: &'static [&'static [Flag]],
    run: fn(Call) -> Run,
) -> Command {
    let (usage, arity) = ("[OPTIONS]", Arity::None);
    Command { usage, about, names: "", arity, options_first: false, flags, run }
}

pub static CONTAINERS: Command =
    command("Remove all stopped containers", &[&[FILTER, FORCE]], handler!(containers));

pub static IMAGES: Command =
    command("Remove unused images", &[&[ALL, FILTER, FORCE]], handler!(images));

pub static VOLUMES: Command = command(
    "Remove unused local volumes",
    &[&[ALL.since("1.42"), FILTER, FORCE]],
    handler!(volumes),
);

pub static NETWORKS: Command =
    command("Remove all unused networks", &[&[FILTER, FORCE]], handler!(networks));

pub static SYSTEM: Command = command(
    "Remove all that is not used",
    &[&[
        short('a', "all", Kind::Bool, "Remove all unused images, not only those without a name"),
        FILTER,
        FORCE,
        flag("volumes", Kind::Bool, "Remove anonymous volumes as well"),
    ]],
    handler!(system),
);

/// A kind of thing that can be pruned.
#[derive(Clone, Copy)]
struct Target {
    word: &'static str,
    path: &'static str,
    key: &'static str,
    title: &'static str,
}

const CONTAINER: Target = Target {
    word: "container",
    path: "/containers/prune",
    key: "ContainersDeleted",
    title: "Deleted Containers:",
};
const NETWORK: Target = Target {
    word: "network",
    path: "/networks/prune",
    key: "NetworksDeleted",
    title: "Deleted Networks:",
};
const VOLUME: Target = Target {
    word: "volume",
    path: "/volumes/prune",
    key: "VolumesDeleted",
    title: "Deleted Volumes:",
};
const IMAGE: Target =
    Target { word: "image", path: "/images/prune", key: "ImagesDeleted", title: "Deleted Images:" };
const BUILD: Target = Target {
    word: "build",
    path: "/build/prune",
    key: "CachesDeleted",
    title: "Deleted build cache objects:",
};

/// The given filters, and those of the configuration that do not contradict them.
fn filters(call: &Call) -> Filters {
    let mut filters = Filters::new(&call.flags.list("filter"));
    for word in &call.app.config.prune_filters {
        let Some((name, value)) = word.split_once('=') else { continue };
        let opposite = match name {
            "label" => "label!",
            "label!" => "label",
            _ => "",
        };
        if opposite.is_empty() || !filters.has(opposite, value) {
            filters.add(name, value);
        }
    }
    filters
}

/// Prunes, and prints what is gone; answers the bytes that came free.
async fn prune(client: &Client, target: Target, filters: &Filters) -> Outcome<i64> {
    let report = client.post_for(target.path, &filter_query(filters)).await?;
    let deleted = report.at(target.key).items();
    if deleted.is_empty() {
        return Ok(0);
    }
    let mut text = format!("{}\n", target.title);
    for item in deleted {
        text.push_str(&match item {
            Value::Text(id) => format!("{id}\n"),
            item if item.at("Untagged").text().is_empty() => {
                format!("deleted: {}\n", item.at("Deleted").text())
            }
            item => format!("untagged: {}\n", item.at("Untagged").text()),
        });
    }
    print::line(&text);
    Ok(report.at("SpaceReclaimed").int())
}

/// Goes on only if the user wants to.
fn ask(call: &Call, warning: &str) -> Outcome {
    if call.flags.on("force") || confirm(&format!("{warning}\nAre you sure you want to continue?"))?
    {
        return Ok(());
    }
    // Nothing is printed: the user knows what they answered.
    Err(Error::Status { message: String::new(), code: 0 })
}

async fn one(call: &Call, target: Target, filters: Filters, warning: &str) -> Outcome {
    ask(call, warning)?;
    let freed = prune(call.client()?, target, &filters).await?;
    if target.word != NETWORK.word {
        print_total(freed);
    }
    Ok(())
}

fn print_total(freed: i64) {
    print::line(&format!("Total reclaimed space: {}", units::human_size(freed as f64)));
}

async fn containers(call: Call) -> Outcome {
    one(&call, CONTAINER, filters(&call), "WARNING! This will remove all stopped containers.").await
}

async fn images(call: Call) -> Outcome {
    let all = call.flags.on("all");
    let mut filters = filters(&call);
    filters.add("dangling", if all { "false" } else { "true" });
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    one(&call, IMAGE, filters, warning).await
}

async fn volumes(call: Call) -> Outcome {
    let mut filters = filters(&call);
    let everything =
        "WARNING! This will remove all local volumes not used by at least one container.";
    let mut warning =
        "WARNING! This will remove anonymous local volumes not used by at least one container.";
    if older(&call.client()?.version().await, "1.42") {
        warning = everything;
    } else if call.flags.on("all") {
        if filters.contains("all") {
            return Err("conflicting options: cannot specify both --all and --filter all=1".into());
        }
        filters.add("all", "true");
        warning = everything;
    }
    one(&call, VOLUME, filters, warning).await
}

async fn networks(call: Call) -> Outcome {
    let warning =
        "WARNING! This will remove all custom networks not used by at least one container.";
    one(&call, NETWORK, filters(&call), warning).await
}

async fn system(call: Call) -> Outcome {
    let (all, with_volumes) = (call.flags.on("all"), call.flags.on("volumes"));
    let given = filters(&call);
    if with_volumes && given.contains("until") {
        return Err("ERROR: The \"until\" filter is not supported with \"--volumes\"".into());
    }
    let words = call.flags.list("filter");
    ask(&call, &warning(all, with_volumes, &words))?;
    let client = call.client()?;
    let mut targets = vec![CONTAINER, NETWORK];
    if with_volumes {
        targets.push(VOLUME);
    }
    targets.extend([IMAGE, BUILD]);
    let mut total = 0;
    for target in targets {
        let mut filters = given.clone();
        if target.word == IMAGE.word {
            filters.add("dangling", if all { "false" } else { "true" });
        }
        total += match prune(client, target, &filters).await {
            // A daemon without a builder has no cache to prune.
            Err(Error::Client(crate::client::Error::Daemon { status: 404 | 501, .. }))
                if target.word == BUILD.word =>
            {
                continue;
            }
            outcome => outcome?,
        };
    }
    print_total(total);
    Ok(())
}

/// What will be removed.
fn warning(all: bool, volumes: bool, filters: &[String]) -> String {
    let mut things =
        vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        things.push("all anonymous volumes not used by at least one container");
    }
    things.push(if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    things.push(if all { "all build cache" } else { "unused build cache" });
    let mut text = "WARNING! This will remove:\n".to_owned();
    for thing in things {
        text.push_str(&format!("  - {thing}\n"));
    }
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in filters {
            text.push_str(&format!("  - {filter}\n"));
        }
    }
    text
}
