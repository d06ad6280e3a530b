//! The description of each layer that archives had before there were manifests. Docker still writes one beside each layer, as a
//! blob that nothing refers to. Source: Docker Image Specification v1.0.0, "Image JSON Description".

use std::collections::BTreeMap;

use cleat_proto::digest::Digest;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

/// The fields, in the order in which Docker writes them.
const FIELDS: [&str; 13] = [
    "id",
    "parent",
    "comment",
    "created",
    "container",
    "container_config",
    "docker_version",
    "author",
    "config",
    "architecture",
    "variant",
    "os",
    "Size",
];

/// What a layer below the topmost says of itself.
const LOWER: &str = r#"{"created":"1970-01-01T00:00:00Z","container_config":{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}}"#;

type Fields = BTreeMap<String, Box<RawValue>>;

/// Describes the layers of an image, given its config's text and the chain ids, the lowest first.
///
/// # Errors
/// If the config is no JSON object.
pub fn descriptions<'a>(
    config: &[u8],
    chain_ids: impl ExactSizeIterator<Item = &'a str>,
) -> serde_json::Result<Vec<String>> {
    let mut top: Fields = serde_json::from_slice(config)?;
    top.retain(|name, _| FIELDS.contains(&name.as_str()));
    let os = top.get("os").cloned();
    let last = chain_ids.len().saturating_sub(1);
    let mut parent: Option<Digest> = None;
    let mut all = Vec::new();
    for (number, chain_id) in chain_ids.enumerate() {
        let mut fields = if number == last { top.clone() } else { serde_json::from_str(LOWER)? };
        fields.remove("id");
        fields.insert("layer_id".to_owned(), to_raw_value(chain_id)?);
        if let Some(parent) = &parent {
            fields.insert("parent".to_owned(), to_raw_value(parent.as_str())?);
        }
        // The id is the hash of all that, keys in order.
        let id = Digest::from_sum(Sha256::digest(serde_json::to_vec(&fields)?));
        fields.remove("layer_id");
        if let Some(parent) = &parent {
            fields.insert("parent".to_owned(), to_raw_value(parent.hex())?);
        }
        fields.insert("id".to_owned(), to_raw_value(id.hex())?);
        if let Some(os) = &os {
            fields.insert("os".to_owned(), os.clone());
        }
        all.push(written(&fields)?);
        parent = Some(id);
    }
    Ok(all)
}

/// Writes the fields in Docker's order.
fn written(fields: &Fields) -> serde_json::Result<String> {
    let mut text = String::from("{");
    for name in FIELDS {
        if let Some(value) = fields.get(name) {
            let comma = if text.len() > 1 { "," } else { "" };
            text.push_str(&format!("{comma}{}:{}", serde_json::to_string(name)?, value.get()));
        }
    }
    text.push('}');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_names_the_one_below_it() {
        let config = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"created":"2020-01-01T00:00:00Z","rootfs":{"type":"layers"},"history":[]}"#;
        let all = descriptions(config, ["sha256:aa", "sha256:bb"].into_iter()).unwrap();
        let read: Vec<serde_json::Value> =
            all.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(read[1]["parent"], read[0]["id"]);
        assert_eq!(read[0]["created"], "1970-01-01T00:00:00Z");
        assert_eq!((&read[0]["os"], &read[1]["config"]["Cmd"][0]), (&"linux".into(), &"sh".into()));
        assert!(read[1].get("rootfs").is_none() && read[0].get("layer_id").is_none());
        assert!(
            all[1].starts_with("{\"id\":\"") && all[1].ends_with(",\"os\":\"linux\"}"),
            "{}",
            all[1]
        );
        assert_ne!(read[0]["id"], read[1]["id"]);
    }
}
