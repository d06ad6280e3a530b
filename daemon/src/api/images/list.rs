//! `GET /images/json`.

use std::collections::{HashMap, HashSet};

use axum::extract::State;
use cleat_proto::{digest::ChainId, docker::image::ImageSummary};

use super::{created_nanos, resolve, unix_seconds};
use crate::{
    api::{
        body,
        error::{Error, Result},
        query::{Filters, Query},
        version::ApiVersion,
    },
    engine::Engine,
    image::{Family, Image, Reference},
};

const FILTERS: [&str; 6] = ["dangling", "label", "before", "since", "reference", "until"];

pub(super) async fn list(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
) -> Result {
    let mut filters = query.filters()?;
    // Before 1.41 a parameter of its own.
    if !version.since(1, 41)
        && let Some(pattern) = query.optional("filter")
    {
        filters.add("reference", pattern);
    }
    filters.only(&FILTERS)?;
    let wanted = Wanted::new(&engine, &filters, query.bool("all"))?;
    let all = engine.images().list();
    let families = engine.images().families();
    let parents: HashSet<&str> =
        all.iter().filter_map(|image| Some(image.parent.as_ref()?.as_str())).collect();
    let users = count_users(&engine);
    let shared = query.bool("shared-size") && version.since(1, 42);
    let shared = shared.then(|| shared_sizes(&families));
    let manifests = query.bool("manifests") && version.since(1, 47);
    let mut chosen: Vec<(i64, ImageSummary)> = Vec::new();
    for family in &families {
        let image = &family.image;
        let Some(names) = wanted.names(image, parents.contains(image.id.as_str()))? else {
            continue;
        };
        let mut summary = summary(family, &names, version);
        if version.since(1, 51) {
            summary.containers = users_of(family, &users);
        }
        if let Some(sizes) = &shared {
            summary.shared_size = shared_size(family, sizes);
        }
        if let Some(index) = family.index.as_ref().filter(|_| manifests) {
            summary.manifests = super::manifests::summaries(&engine, index);
        }
        chosen.push((created_nanos(image), summary));
    }
    chosen.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
    body::ok(&chosen.into_iter().map(|(_, summary)| summary).collect::<Vec<_>>())
}

/// Returns every image with what it takes and shares, for `/system/df`.
pub fn disk_usage(engine: &Engine, version: ApiVersion) -> Vec<ImageSummary> {
    let families = engine.images().families();
    let users = count_users(engine);
    let shared = shared_sizes(&families);
    let shown = families.iter().map(|family| ImageSummary {
        containers: users_of(family, &users),
        shared_size: shared_size(family, &shared),
        ..summary(family, &family.image.references, version)
    });
    shown.collect()
}

/// What the filters leave.
struct Wanted<'f> {
    filters: &'f Filters,
    all: bool,
    dangling: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
}

impl<'f> Wanted<'f> {
    fn new(engine: &Engine, filters: &'f Filters, all: bool) -> Result<Self, Error> {
        let mut before: Option<i64> = None;
        for name in filters.get("before") {
            let created = created_nanos(&*resolve(engine, name)?);
            before = Some(before.map_or(created, |known| known.min(created)));
        }
        let mut since: Option<i64> = None;
        for name in filters.get("since") {
            let created = created_nanos(&*resolve(engine, name)?);
            since = Some(since.map_or(created, |known| known.max(created)));
        }
        let (dangling, until) = (filters.bool("dangling")?, filters.until_or_internal()?);
        Ok(Self { filters, all, dangling, before, since, until })
    }

    /// Returns the names to be shown; `None` if the image is not.
    fn names(&self, image: &Image, has_children: bool) -> Result<Option<Vec<Reference>>, Error> {
        let created = created_nanos(image);
        let out = self.before.is_some_and(|before| created >= before)
            || self.since.is_some_and(|since| created <= since)
            || self.until.is_some_and(|until| created >= until)
            || !self.filters.labels("label", image.config.labels.as_ref())
            || self.dangling == Some(true) && has_children;
        if out {
            return Ok(None);
        }
        let patterns = self.filters.get("reference");
        let mut names = Vec::new();
        for reference in &image.references {
            if patterns.is_empty() || matches_any(patterns, reference)? {
                names.push(reference.clone());
            }
        }
        let shown = if names.is_empty() {
            (self.all || !has_children) && self.dangling != Some(false) && patterns.is_empty()
        } else {
            self.dangling != Some(true) || names.iter().all(|name| name.tag.is_none())
        };
        Ok(shown.then_some(names))
    }
}

fn summary(family: &Family, names: &[Reference], version: ApiVersion) -> ImageSummary {
    let image = &family.image;
    let size = layers_of(family).values().sum();
    let index = family.index.as_ref().filter(|_| version.since(1, 48));
    let with = |tagged: bool| -> Vec<String> {
        let wanted =
            |name: &&Reference| if tagged { name.tag.is_some() } else { name.digest.is_some() };
        names.iter().filter(wanted).map(Reference::familiar).collect()
    };
    let (mut repo_tags, mut repo_digests) = (with(true), with(false));
    if !version.since(1, 43) && repo_tags.is_empty() && repo_digests.is_empty() {
        repo_tags.push("<none>:<none>".into());
        repo_digests.push("<none>@<none>".into());
    }
    ImageSummary {
        containers: -1,
        created: unix_seconds(image.created.as_deref()),
        id: image.id.to_string(),
        labels: image.config.labels.clone(),
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests,
        repo_tags,
        shared_size: -1,
        size,
        virtual_size: (!version.since(1, 44)).then_some(size),
        descriptor: index.map(|index| index.descriptor()),
        manifests: Vec::new(),
    }
}

fn count_users(engine: &Engine) -> HashMap<String, i64> {
    let mut users = HashMap::new();
    for container in engine.containers() {
        *users.entry(container.record.image_id.clone()).or_insert(0) += 1;
    }
    users
}

fn users_of(family: &Family, users: &HashMap<String, i64>) -> i64 {
    family.images.iter().filter_map(|image| users.get(image.id.as_str())).sum()
}

/// The layers of all platforms, each once, with their sizes.
fn layers_of(family: &Family) -> HashMap<&ChainId, u64> {
    let layers = family.images.iter().flat_map(|image| &image.layers);
    layers.map(|layer| (&layer.chain_id, layer.size)).collect()
}

fn shared_size(family: &Family, shared: &HashMap<&ChainId, i64>) -> i64 {
    layers_of(family).keys().filter_map(|id| shared.get(id)).sum()
}

/// The sizes of the layers that more than one image has; those of several platforms are one.
fn shared_sizes(families: &[Family]) -> HashMap<&ChainId, i64> {
    let mut seen: HashMap<&ChainId, (u32, u64)> = HashMap::new();
    for (id, size) in families.iter().flat_map(layers_of) {
        let entry = seen.entry(id).or_insert((0, size));
        entry.0 += 1;
    }
    let shared = seen.into_iter().filter(|(_, (count, _))| *count > 1);
    shared.map(|(id, (_, size))| (id, i64::try_from(size).unwrap_or(i64::MAX))).collect()
}

/// A pattern is held against the whole familiar name and against the repository alone.
fn matches_any(patterns: &[String], reference: &Reference) -> Result<bool, Error> {
    let (whole, name) = (reference.familiar(), reference.name.familiar());
    for pattern in patterns {
        let bad = || Error::internal("syntax error in pattern");
        if glob(pattern.as_bytes(), whole.as_bytes()).ok_or_else(bad)?
            || glob(pattern.as_bytes(), name.as_bytes()).ok_or_else(bad)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Go's `path.Match`: `*` and `?` do not match a slash, `[…]` is a class, a backslash escapes. `None` for a bad pattern.
fn glob(pattern: &[u8], text: &[u8]) -> Option<bool> {
    let Some((first, rest)) = pattern.split_first() else { return Some(text.is_empty()) };
    match first {
        b'*' => {
            let reach = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            for skipped in 0..=reach {
                if glob(rest, &text[skipped..])? {
                    return Some(true);
                }
            }
            Some(false)
        }
        b'?' => match text.split_first() {
            Some((byte, after)) if *byte != b'/' => glob(rest, after),
            _ => Some(false),
        },
        b'[' => {
            let end = rest.iter().skip(1).position(|byte| *byte == b']')? + 1;
            let (class, after) = (&rest[..end], &rest[end + 1..]);
            let (negated, class) = match class.strip_prefix(b"^") {
                Some(class) => (true, class),
                None => (false, class),
            };
            let Some((byte, left)) = text.split_first() else { return Some(false) };
            if in_class(class, *byte) == negated { Some(false) } else { glob(after, left) }
        }
        b'\\' => {
            let (escaped, after) = rest.split_first()?;
            match text.split_first() {
                Some((byte, left)) if byte == escaped => glob(after, left),
                _ => Some(false),
            }
        }
        literal => match text.split_first() {
            Some((byte, left)) if byte == literal => glob(rest, left),
            _ => Some(false),
        },
    }
}

fn in_class(mut class: &[u8], byte: u8) -> bool {
    while let Some((low, rest)) = class.split_first() {
        match rest {
            [b'-', high, after @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                class = after;
            }
            _ => {
                if *low == byte {
                    return true;
                }
                class = rest;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: Option<bool>) {
        assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
    }

    #[test]
    fn patterns_are_gos() {
        check("busy*", "busybox:latest", Some(true));
        check("*", "a/b", Some(false));
        check("a/*:1", "a/b:1", Some(true));
        check("b?sybox", "busybox", Some(true));
        check("[a-c]x", "bx", Some(true));
        check("[^a-c]x", "bx", Some(false));
        check("[a", "a", None);
        check("\\*", "*", Some(true));
    }
}
