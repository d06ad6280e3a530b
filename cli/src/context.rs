//! Stored contexts: `contexts/meta/SHA256(NAME)/meta.json` in the configuration directory.

use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::go;
use crate::value::Value;

/// A named address of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// Where the daemon is.
    pub host: String,
}

/// The contexts of a configuration directory.
pub struct Store {
    directory: PathBuf,
}

/// Checks the name of a stored context.
///
/// # Errors
/// Empty, reserved, or with other signs than letters, digits and `_.+-`.
pub fn validate_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("context name cannot be empty".into());
    }
    if name == "default" {
        return Err("\"default\" is a reserved context name".into());
    }
    let valid = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c));
    if valid {
        return Ok(());
    }
    let quoted = go::quote(name);
    Err(format!(
        "context name {quoted} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    ))
}

impl Store {
    /// The contexts below a configuration directory.
    pub fn new(configuration: &Path) -> Self {
        Self { directory: configuration.join("contexts") }
    }

    fn path(&self, part: &str, name: &str) -> PathBuf {
        let hash: String =
            Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(part).join(hash)
    }

    /// Reads a context.
    ///
    /// # Errors
    /// There is none, or its file is broken.
    pub fn load(&self, name: &str) -> Result<Context, String> {
        let file = self.path("meta", name).join("meta.json");
        let content = std::fs::read(&file).map_err(|error| {
            let reason = go::path_error("open", &file.to_string_lossy(), &error);
            format!("context {}: context not found: {reason}", go::quote(name))
        })?;
        parse(&content)
    }

    /// All contexts whose files can be read.
    pub fn all(&self) -> Vec<Context> {
        let Ok(entries) = std::fs::read_dir(self.directory.join("meta")) else { return Vec::new() };
        let files =
            entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("meta.json")).ok());
        files.filter_map(|content| parse(&content).ok()).collect()
    }

    /// Writes a context.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn save(&self, context: &Context) -> Result<(), String> {
        let directory = self.path("meta", &context.name);
        let failed =
            |error: std::io::Error| go::path_error("mkdir", &directory.to_string_lossy(), &error);
        std::fs::create_dir_all(&directory).map_err(failed)?;
        write_atomically(&directory.join("meta.json"), Self::metadata(context).as_bytes())
    }

    /// What is kept of a context, as JSON.
    pub fn metadata(context: &Context) -> String {
        let mut metadata = serde_json::Map::new();
        if !context.description.is_empty() {
            metadata.insert("Description".into(), context.description.as_str().into());
        }
        let meta = json!({
            "Name": context.name,
            "Metadata": metadata,
            "Endpoints": {"docker": {"Host": context.host, "SkipTLSVerify": false}},
        });
        meta.to_string()
    }

    /// Removes a context; there may be none.
    ///
    /// # Errors
    /// Its directory cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        for part in ["meta", "tls"] {
            let path = self.path(part, name);
            if let Err(error) = std::fs::remove_dir_all(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(go::path_error("unlinkat", &path.to_string_lossy(), &error));
            }
        }
        Ok(())
    }

    /// What `context inspect` shows of it, as JSON.
    pub fn describe(&self, context: &Context) -> String {
        let quote = |text: &str| Value::from(text).json();
        let description = match context.description.as_str() {
            "" => String::new(),
            text => format!("\"Description\":{}", quote(text)),
        };
        let (meta, tls) = match context.name.as_str() {
            "default" => ("<IN MEMORY>".into(), "<IN MEMORY>".into()),
            name => (self.path("meta", name), self.path("tls", name)),
        };
        format!(
            "{{\"Name\":{},\"Metadata\":{{{description}}},\"Endpoints\":{{\"docker\":{{\"Host\":{},\"SkipTLSVerify\":false}}}},\
             \"TLSMaterial\":{{}},\"Storage\":{{\"MetadataPath\":{},\"TLSPath\":{}}}}}",
            quote(&context.name),
            quote(&context.host),
            quote(&meta.to_string_lossy()),
            quote(&tls.to_string_lossy())
        )
    }
}

/// Reads what is kept of a context.
///
/// # Errors
/// It is no JSON.
pub fn parse(content: &[u8]) -> Result<Context, String> {
    let meta: Value = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Ok(Context {
        name: meta.at("Name").text().to_owned(),
        description: meta.at("Metadata").at("Description").text().to_owned(),
        host: meta.at("Endpoints").at("docker").at("Host").text().to_owned(),
    })
}

/// Writes a file so that it is there whole or not at all, for its owner alone: some hold credentials.
///
/// # Errors
/// The directory cannot be written to.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), String> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let failed = |error: std::io::Error| go::path_error("open", &path.to_string_lossy(), &error);
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file =
        options.write(true).create(true).truncate(true).open(&temporary).map_err(failed)?;
    std::io::Write::write_all(&mut file, content).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_context_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let context =
            Context { name: "one".into(), description: "the one".into(), host: "unix:///a".into() };
        store.save(&context).unwrap();
        assert_eq!(store.load("one"), Ok(context.clone()));
        assert_eq!(store.all(), [context]);
        store.remove("one").unwrap();
        assert!(store.load("one").is_err_and(|text| text.contains("context not found")));
    }

    #[test]
    fn names_are_checked() {
        assert!(validate_name("a-b.c").is_ok());
        assert_eq!(validate_name("default"), Err("\"default\" is a reserved context name".into()));
        assert!(validate_name("bad/name").is_err());
    }
}
