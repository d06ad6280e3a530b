//! An OCI layout: `index.json` → index or manifest → configuration and layers, each under its digest.
//!
//! Source: OCI image-spec, image-layout.md, image-index.md, manifest.md; `io.containerd.image.name` is containerd's.

use cleat_proto::{
    digest::{Digest, ImageId},
    docker::image,
};
use serde::Deserialize;

use super::{Error, IMAGES_MAX, Parts, Reference, Wanted, invalid, parse};
use crate::{
    image::index::{self, Index, ManifestRecord, Part},
    registry::manifest,
};

/// How deep an index may be within indexes.
const DEPTH_MAX: u32 = 4;

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
    variant: String,
}

/// An index or a manifest, told apart by what it has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    schema_version: u32,
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

pub(super) fn images(
    parts: &Parts,
    platform: Option<&manifest::Platform>,
) -> Result<Vec<Wanted>, Error> {
    let index: Document = parse(parts.json("index.json")?, "index.json")?;
    check(&index, "index.json")?;
    let mut wanted = Vec::new();
    for descriptor in index.manifests.ok_or_else(|| invalid("index.json has no manifests"))? {
        let name = name_of(&descriptor);
        let several = members(parts, &descriptor, platform, name.clone())?;
        if several.is_empty() {
            wanted.extend(follow(parts, &descriptor, platform, name, 0)?);
        }
        wanted.extend(several);
        if wanted.len() > IMAGES_MAX {
            return Err(invalid("the archive has too many images"));
        }
    }
    if wanted.is_empty() {
        return Err(invalid("the archive has no image for this platform"));
    }
    Ok(wanted)
}

/// Whether an archive has an index of several platforms, which docker's own format has no word for.
pub(super) fn has_index(parts: &Parts) -> Result<bool, Error> {
    if !parts.has("index.json") {
        return Ok(false);
    }
    let index: Document = parse(parts.json("index.json")?, "index.json")?;
    let manifests = index.manifests.unwrap_or_default();
    Ok(manifests.iter().any(|descriptor| INDEX_TYPES.contains(&descriptor.media_type.as_str())))
}

/// Returns the images of an index that are whole in the archive: all, or that of a platform. None for what is no index, or not
/// whole: what is wrong with that is found elsewhere.
fn members(
    parts: &Parts,
    descriptor: &Descriptor,
    platform: Option<&manifest::Platform>,
    name: Option<Reference>,
) -> Result<Vec<Wanted>, Error> {
    let path = blob(parts, descriptor)?;
    let bytes = parts.json(&path)?;
    let document: Document = parse(bytes, &path)?;
    check(&document, &path)?;
    if document.manifests.is_none() {
        return Ok(Vec::new());
    }
    let document = index::Document::new(bytes, &descriptor.media_type)?;
    let index = Index::parse(&document)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut others: Vec<ManifestRecord> = Vec::new();
    let mut content: Vec<Vec<u8>> = Vec::new();
    for entry in &index.entries {
        let Some(manifest) = whole(parts, entry)? else { continue };
        if !index::is_image(entry) {
            for (digest, _) in &manifest.blobs {
                content.push(parts.json(&format!("blobs/sha256/{}", digest.hex()))?.to_vec());
            }
            others.push(manifest);
            continue;
        }
        let has = entry.platform.as_ref();
        let is_wanted = has.is_none_or(|has| match platform {
            Some(wanted) => manifest::runs(has, wanted),
            None => has.os == "linux",
        });
        if !is_wanted {
            continue;
        }
        let entry = Descriptor {
            media_type: entry.media_type.clone(),
            digest: entry.digest.to_string(),
            size: entry.size,
            ..Descriptor::default()
        };
        let Some(mut image) = follow(parts, &entry, platform, name.clone(), DEPTH_MAX)? else {
            continue;
        };
        image.told = name.is_some() && !wanted.is_empty();
        image.part = name.is_some().then(|| Part {
            index: document.clone(),
            manifests: vec![manifest],
            content: Vec::new(),
        });
        wanted.push(image);
    }
    // What is no image comes with one.
    if let Some(part) = wanted.first_mut().and_then(|first| first.part.as_mut()) {
        part.manifests.extend(others);
        part.content = content;
    }
    Ok(wanted)
}

/// Reads a manifest that is in the archive with all that it names.
fn whole(parts: &Parts, entry: &image::Descriptor) -> Result<Option<ManifestRecord>, Error> {
    let path = format!("blobs/sha256/{}", entry.digest.hex());
    if !parts.has(&path) {
        return Ok(None);
    }
    parts.check_blob(&path)?;
    let bytes = parts.json(&path)?;
    let document = index::Document::new(bytes, &entry.media_type)?;
    let manifest::Document::Manifest(manifest) = manifest::parse(bytes, &document.media_type)?
    else {
        return Ok(None);
    };
    let named: Vec<&manifest::Descriptor> =
        manifest.layers.iter().chain([&manifest.config]).collect();
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    if named.iter().any(|blob| !parts.has(&path(&blob.digest))) {
        return Ok(None);
    }
    if index::is_image(entry) {
        let image = Some(ImageId::from(manifest.config.digest));
        return Ok(Some(ManifestRecord { document, image, blobs: Vec::new() }));
    }
    let mut blobs = Vec::new();
    for blob in named {
        let path = path(&blob.digest);
        // What is not small JSON is kept by nobody here.
        let Ok(bytes) = parts.json(&path) else { return Ok(None) };
        parts.check_blob(&path)?;
        blobs.push((blob.digest.clone(), bytes.len() as u64));
    }
    Ok(Some(ManifestRecord { document, image: None, blobs }))
}

/// Goes from a descriptor to the image of this machine's platform, if there is one.
fn follow(
    parts: &Parts,
    descriptor: &Descriptor,
    platform: Option<&manifest::Platform>,
    name: Option<Reference>,
    depth: u32,
) -> Result<Option<Wanted>, Error> {
    if depth > DEPTH_MAX {
        return Err(invalid("the archive's indexes are nested too deep"));
    }
    let path = blob(parts, descriptor)?;
    let document: Document = parse(parts.json(&path)?, &path)?;
    check(&document, &path)?;
    let is_index = document.manifests.is_some();
    let types = if is_index { INDEX_TYPES } else { MANIFEST_TYPES };
    for claimed in [&descriptor.media_type, &document.media_type] {
        if !claimed.is_empty() && !types.contains(&claimed.as_str()) {
            return Err(invalid(format!("{path} is not of the type {claimed}")));
        }
    }
    if let Some(manifests) = document.manifests {
        for descriptor in manifests.iter().filter(|descriptor| fits(descriptor, platform)) {
            if let Some(image) = follow(parts, descriptor, platform, name.clone(), depth + 1)? {
                return Ok(Some(image));
            }
        }
        return Ok(None);
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(invalid(format!("{path} is neither an index nor a manifest")));
    };
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        return Err(invalid(format!("{path}: {} is no image's configuration", config.media_type)));
    }
    let config = parts.json(&blob(parts, &config)?)?.to_vec();
    let layers = layers.iter().map(layer_path).collect::<Result<_, _>>()?;
    let references = name.into_iter().collect();
    Ok(Some(Wanted { config, layers, references, parent: None, part: None, told: false }))
}

/// An index has manifests and no layers, a manifest the other way round: never both (CVE-2021-41190).
fn check(document: &Document, path: &str) -> Result<(), Error> {
    if document.schema_version != 2 {
        return Err(invalid(format!(
            "{path}: schema version {} is not 2",
            document.schema_version
        )));
    }
    if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
        return Err(invalid(format!("{path} is both an index and a manifest")));
    }
    Ok(())
}

/// Whether what a descriptor leads to may be for `wanted`, or for this machine.
fn fits(descriptor: &Descriptor, wanted: Option<&manifest::Platform>) -> bool {
    let Some(has) = &descriptor.platform else { return true };
    let Some(wanted) = wanted else {
        return has.os == "linux" && has.architecture == manifest::Platform::host().architecture;
    };
    has.os == wanted.os
        && has.architecture == wanted.architecture
        && (wanted.variant.is_empty() || has.variant == wanted.variant)
}

/// Returns a JSON blob's name in the archive, after a look at its digest and size.
fn blob(parts: &Parts, descriptor: &Descriptor) -> Result<String, Error> {
    let path = layer_path(descriptor)?;
    parts.check_blob(&path)?;
    let size = parts.json(&path)?.len() as u64;
    if size != descriptor.size {
        return Err(invalid(format!("{path} has {size} bytes instead of {}", descriptor.size)));
    }
    Ok(path)
}

fn layer_path(descriptor: &Descriptor) -> Result<String, Error> {
    let digest: Digest =
        descriptor.digest.parse().map_err(|error| invalid(format!("index.json: {error}")))?;
    Ok(format!("blobs/sha256/{}", digest.hex()))
}

fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let annotations = descriptor.annotations.as_ref()?;
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    // The second is often a bare tag, which names nothing by itself.
    let name = keys.iter().find_map(|key| annotations.get(*key))?;
    let reference = Reference::parse(name).ok()?;
    let is_whole = reference.tag.is_some() && reference.digest.is_none();
    is_whole.then_some(reference)
}
