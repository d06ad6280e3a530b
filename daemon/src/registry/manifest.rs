//! Manifests and indexes: what they say, and which of an index is for a platform.
//!
//! Source: OCI image-spec, manifest.md, image-index.md; "Image Manifest V 2, Schema 2" of Docker's registry.

use cleat_proto::digest::Digest;
pub use cleat_proto::platform::Platform;
use serde::{Deserialize, Serialize};

use super::Error;

/// OCI image-spec, media-types.md.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The same.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The same.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's index.
pub const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's configuration.
pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer.
pub const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// What Docker's registry of old had.
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// What we can read, in the order of preference.
pub const ACCEPT: [&str; 4] = [MANIFEST, LIST, OCI_MANIFEST, OCI_INDEX];

/// How deep indexes may be nested.
pub const DEPTH_MAX: u32 = 4;
/// The most entries of an index that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Names a blob or a manifest. OCI image-spec, descriptor.md.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// How long.
    pub size: u64,
    /// Its name.
    pub digest: Digest,
    /// Where else it is, for layers that a registry may not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// In an index: for which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// One image's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// From the bottom up.
    pub layers: Vec<Descriptor>,
}

/// What a manifest's bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, by platform.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index. `claimed` is what the answer's head or a descriptor says it is.
///
/// # Errors
/// [`Error::Manifest`].
pub fn parse(bytes: &[u8], claimed: &str) -> Result<Document, Error> {
    let wrong = |why: String| Error::Manifest(why);
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|error| wrong(format!("invalid manifest: {error}")))?;
    if claimed.starts_with(SCHEMA1) || raw.schema_version == 1 || raw.fs_layers.is_some() {
        return Err(wrong(
            "the image has a manifest of schema 1, which was removed: build or push it anew with a client of this decade".into(),
        ));
    }
    if raw.schema_version != 2 {
        return Err(wrong(format!(
            "invalid manifest: schema version {} is not 2",
            raw.schema_version
        )));
    }
    let is_index = raw.manifests.is_some();
    if is_index && (raw.layers.is_some() || raw.config.is_some()) {
        // CVE-2021-41190
        return Err(wrong("invalid manifest: it is both an index and a manifest".into()));
    }
    for claim in [claimed, raw.media_type.as_deref().unwrap_or_default()] {
        let fits = match claim {
            "" | "application/json" | "text/plain" | "application/octet-stream" => true,
            OCI_INDEX | LIST => is_index,
            OCI_MANIFEST | MANIFEST => !is_index,
            _ => return Err(wrong(format!("unsupported media type {claim}"))),
        };
        if !fits {
            return Err(wrong(format!("invalid manifest: it is not of the media type {claim}")));
        }
    }
    if let Some(entries) = raw.manifests {
        if entries.len() > ENTRIES_MAX {
            return Err(wrong(format!("the index has more than {ENTRIES_MAX} entries")));
        }
        return Ok(Document::Index(entries));
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        return Err(wrong("unsupported manifest format".into()));
    };
    Ok(Document::Manifest(Manifest { config, layers }))
}

/// Returns the entries of an index that a platform can run, the best first.
pub fn matching<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let mut found: Vec<(u32, &Descriptor)> = entries
        .iter()
        .filter_map(|entry| {
            let rank = entry.platform.as_ref().map_or(Some(100), |has| rank(has, wanted))?;
            Some((rank, entry))
        })
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, entry)| entry).collect()
}

/// Whether what is made for one platform runs on another.
pub fn runs(has: &Platform, wanted: &Platform) -> bool {
    rank(has, wanted).is_some() || has.variant.is_empty() && has.satisfies(wanted)
}

/// Further than any variant, nearer than a platform that is not said.
const ELDER: u32 = 50;

/// How far from what is wanted, 0 being that; `None` does not run there.
fn rank(has: &Platform, wanted: &Platform) -> Option<u32> {
    if has.os != wanted.os {
        return None;
    }
    let level = |platform: &Platform| {
        let default = match platform.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            "amd64" => 1,
            _ => 0,
        };
        let digits = platform.variant.trim_start_matches('v');
        if platform.variant.is_empty() { Some(default) } else { digits.parse::<u32>().ok() }
    };
    match (has.architecture.as_str(), wanted.architecture.as_str()) {
        (has, wanted) if has == wanted => {}
        // The 64-bit machines run their elders' programs, if need be.
        ("386", "amd64") => return Some(ELDER),
        ("arm", "arm64") => return level(has).map(|level| ELDER + 8_u32.saturating_sub(level)),
        _ => return None,
    }
    match (level(has), level(wanted)) {
        _ if has.variant == wanted.variant => Some(0),
        // An older machine's programs run on a newer one.
        (Some(has), Some(wanted)) if has <= wanted => Some(wanted - has),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        Digest::from_sum([n; 32]).to_string()
    }

    fn descriptor(platform: &str) -> Descriptor {
        let mut parts = platform.split('/').map(str::to_owned);
        let os = parts.next().unwrap();
        let architecture = parts.next().unwrap();
        let variant = parts.next().unwrap_or_default();
        let platform = Platform { os, architecture, variant, ..Platform::default() };
        Descriptor {
            media_type: String::new(),
            size: 1,
            digest: Digest::from_sum([1; 32]),
            urls: None,
            platform: Some(platform),
        }
    }

    #[track_caller]
    fn chosen(has: &[&str], wanted: &str, expected: &[&str]) {
        let entries: Vec<Descriptor> = has.iter().map(|text| descriptor(text)).collect();
        let wanted = descriptor(wanted).platform.unwrap();
        let found = matching(&entries, &wanted);
        let found: Vec<String> =
            found.iter().map(|entry| entry.platform.as_ref().unwrap().to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_nearest_variant_that_runs_is_chosen() {
        chosen(&["linux/arm64", "linux/amd64"], "linux/amd64", &["linux/amd64"]);
        chosen(
            &["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"],
            "linux/arm/v6",
            &["linux/arm/v6", "linux/arm/v5"],
        );
        chosen(&["linux/arm64/v8"], "linux/arm64", &["linux/arm64/v8"]);
        chosen(&["linux/amd64/v3"], "linux/amd64", &[]);
        chosen(
            &["linux/386", "linux/arm/v7", "linux/amd64"],
            "linux/amd64",
            &["linux/amd64", "linux/386"],
        );
        chosen(&["windows/amd64", "unknown/unknown"], "linux/amd64", &[]);
    }

    #[track_caller]
    fn refused(text: &str, claimed: &str, why: &str) {
        let error = parse(text.as_bytes(), claimed).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_manifest_is_what_it_says() {
        let config = format!(r#"{{"mediaType":"x","size":1,"digest":"{}"}}"#, digest(1));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        assert!(matches!(parse(manifest.as_bytes(), MANIFEST), Ok(Document::Manifest(_))));
        refused(&manifest, LIST, "not of the media type");
        refused(&manifest, "text/html", "unsupported media type");
        refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, "", "schema 1");
        refused(r#"{"schemaVersion":2}"#, "", "unsupported manifest format");
        refused(
            &format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{config}}}"#),
            "",
            "both",
        );
        refused(
            r#"{"schemaVersion":2,"config":{"size":-1,"digest":"sha256:1"},"layers":[]}"#,
            "",
            "invalid manifest",
        );
        refused("[]", "", "invalid manifest");
        refused("<html>", "", "invalid manifest");
    }
}
