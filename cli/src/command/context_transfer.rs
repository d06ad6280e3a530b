//! `context export` and `context import`: a context as a tar archive, `meta.json` and the directory `tls`.
//!
//! Left out: TLS material, as contexts here have none, and zip files.

use std::io::{Read, Write};

use tar::{Archive, Builder, EntryType, Header};

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::context::{Store, validate_name};
use crate::error::{Error, Outcome};
use crate::{go, print, terminal};

pub static EXPORT: Command = Command {
    usage: "CONTEXT [FILE|-]",
    about: "Write a context to a tar archive",
    names: "",
    arity: Arity::Between(1, 2),
    options_first: false,
    flags: &[],
    run: handler!(export),
};

pub static IMPORT: Command = Command {
    usage: "CONTEXT FILE|-",
    about: "Make a context of a tar archive",
    names: "",
    arity: Arity::Exactly(2),
    options_first: false,
    flags: &[],
    run: handler!(import),
};

const META: &str = "meta.json";
/// The largest archive that is read, docker's.
const MAX_ARCHIVE_BYTES: u64 = 10 << 20;

async fn export(call: Call) -> Outcome {
    let name = call.arg(0);
    if name != "default" {
        validate_name(name)?;
    }
    let content = Store::metadata(&super::context::find(&call, name)?);
    let archive = pack(content.as_bytes())?;
    let file = match call.arg(1) {
        "" => format!("{name}.dockercontext"),
        "-" if terminal::stdout_is() => {
            return Err("cowardly refusing to export to a terminal, specify a file path".into());
        }
        "-" => {
            print::bytes(&archive);
            return Ok(());
        }
        file => file.to_owned(),
    };
    let failed = |error: std::io::Error| Error::Message(go::path_error("open", &file, &error));
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(&file);
    let mut target = opened.map_err(failed)?;
    set_private(&target)?;
    target.write_all(&archive)?;
    print::err(&format!("Written file {}\n", go::quote(&file)));
    Ok(())
}

fn set_private(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn pack(meta: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |name: &str, kind: EntryType, mode: u32, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content)
    };
    add(META, EntryType::Regular, 0o644, meta)?;
    add("tls", EntryType::Directory, 0o700, &[])?;
    builder.into_inner()
}

async fn import(call: Call) -> Outcome {
    let (name, source) = (call.arg(0), call.arg(1));
    validate_name(name)?;
    let store = super::context::store(&call);
    if store.load(name).is_ok() {
        return Err(Error::Message(format!("context {} already exists", go::quote(name))));
    }
    let archive: Box<dyn Read> = match source {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(
            std::fs::File::open(path)
                .map_err(|error| Error::Message(go::path_error("open", path, &error)))?,
        ),
    };
    unpack(&store, name, archive)?;
    print::line(name);
    print::err(&format!("Successfully imported context {}\n", go::quote(name)));
    Ok(())
}

/// Reads an archive, and keeps the context in it under `name`.
fn unpack(store: &Store, name: &str, archive: impl Read) -> Result<(), String> {
    let damaged = |error: std::io::Error| error.to_string();
    let mut archive = Archive::new(archive.take(MAX_ARCHIVE_BYTES));
    let mut context = None;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        check_path(&path).map_err(|reason| format!("{path}: {reason}"))?;
        if path.starts_with("tls/") {
            return Err("TLS is not supported by this client yet: use a unix socket".into());
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(damaged)?;
        context = Some(crate::context::parse(&content)?);
    }
    let mut context = context.ok_or("invalid context: no metadata found")?;
    name.clone_into(&mut context.name);
    store.save(&context)
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path != META && !path.starts_with("tls/") {
        return Err("unexpected context file");
    }
    if go::clean_path(path) != path {
        return Err("unexpected path format");
    }
    if path.contains('\\') {
        return Err("unexpected '\\' in path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    #[test]
    fn what_was_exported_is_imported_under_its_new_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let context =
            Context { name: "one".into(), description: "the one".into(), host: "unix:///a".into() };
        let archive = pack(Store::metadata(&context).as_bytes()).unwrap();
        unpack(&store, "two", &*archive).unwrap();
        assert_eq!(store.load("two"), Ok(Context { name: "two".into(), ..context }));
    }

    #[test]
    fn an_archive_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_ustar();
        header.set_size(2);
        builder.append_data(&mut header, "etc/passwd", &b"{}"[..]).unwrap();
        let archive = builder.into_inner().unwrap();
        let refused = unpack(&store, "two", &*archive);
        assert_eq!(refused, Err("etc/passwd: unexpected context file".into()));
        assert_eq!(
            unpack(&store, "two", &[0; 1024][..]),
            Err("invalid context: no metadata found".into())
        );
        assert!(store.all().is_empty());
    }
}
