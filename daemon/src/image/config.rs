//! An image's configuration, as the blob that the image's id is the digest of.
//!
//! Source: OCI image-spec, config.md; the fields beyond it are Docker's (`docker_version`, `container`, `OnBuild` …).

use cleat_proto::{
    digest::{ChainId, DiffId},
    docker::container::Config,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Error;

/// The most that a configuration or manifest may have.
pub const LIMIT: u64 = 4 << 20;

/// More layers than this are refused; overlayfs takes 500.
pub const LAYERS_MAX: usize = 127;

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default)]
    pub config: Config,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    #[serde(default)]
    pub os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    pub rootfs: RootFs,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// What the image's root filesystem is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// From the bottom up.
    #[serde(default)]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// How one layer came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a configuration. `null` is zero, as Go has it; a wrong type is an error.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut value: Value = serde_json::from_slice(bytes).map_err(Error::Config)?;
        drop_nulls(&mut value);
        if !value.is_object() {
            return Err(Error::ConfigShape("it is no JSON object"));
        }
        let config: Self = serde_json::from_value(value).map_err(Error::Config)?;
        if config.rootfs.kind != "layers" {
            return Err(Error::ConfigShape("rootfs.type is not \"layers\""));
        }
        if config.rootfs.diff_ids.len() > LAYERS_MAX {
            return Err(Error::ConfigShape("it has too many layers"));
        }
        Ok(config)
    }

    /// Returns the bytes whose digest is the image's id.
    ///
    /// # Errors
    /// [`Error::Config`]; a value of this type always has a JSON form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::Config)
    }

    /// Returns the chain ids of the layers, from the bottom up.
    pub fn chain_ids(&self) -> Vec<ChainId> {
        chain_ids(&self.rootfs.diff_ids)
    }
}

/// Returns the chain id of each layer on top of those before it. OCI image-spec, config.md, Layer ChainID.
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => ChainId::from(diff_id),
            Some(below) => ChainId::from_sum(Sha256::digest(format!("{below} {diff_id}"))),
        };
        chain.push(next);
    }
    chain
}

/// Removes what is `null` from every object: Go reads such a key as if it were not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_wrong_types_is_refused() {
        for bad in [
            r#"{"config":{"Env":5},"rootfs":{"type":"layers","diff_ids":[]}}"#,
            "[]",
            "null",
            r#"{"rootfs":null,"os":"linux"}"#,
            "{",
            r#"{"rootfs":{"type":"layers","diff_ids":"x"}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#,
            r#"{"rootfs":{"type":"other","diff_ids":[]}}"#,
        ] {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn null_is_as_if_it_were_not_there() {
        let text = r#"{"config":{"Env":null,"Hostname":null,"Labels":{"a":"b"}},"history":null,
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.labels.unwrap()["a"], "b");
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn a_chain_id_follows_the_specification() {
        let diff = |n: u8| DiffId::from_sum([n; 32]);
        let chain = chain_ids(&[diff(1), diff(2)]);
        assert_eq!(chain[0].as_str(), diff(1).as_str());
        let expected = Sha256::digest(format!("{} {}", diff(1), diff(2)));
        assert_eq!(chain[1], ChainId::from_sum(expected));
    }
}
