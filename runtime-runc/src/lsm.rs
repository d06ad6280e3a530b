//! Security modules: the profile or label the program gets at `execve`, written through the host's procfs; see `procfs.rs`.

use crate::error::{Context, Error, Result};
use crate::procfs::Procfs;
use crate::spec::Process;
use std::path::Path;

/// Asks for the profile and the label of `process`.
///
/// # Errors
/// [`Error::Invalid`] where the host has no such module, in runc's words.
pub fn apply(process: &Process, procfs: &Procfs) -> Result<()> {
    if !process.apparmor_profile.is_empty() && process.apparmor_profile != "unconfined" {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            return Err(Error::Invalid(
                "apparmor: config provided but apparmor not supported".to_owned(),
            ));
        }
        let own = "self/attr/apparmor/exec";
        let path = if procfs.has(own) { own } else { "self/attr/exec" };
        let text = format!("exec {}", process.apparmor_profile);
        procfs.write(path, &text).context(|| "unable to apply apparmor profile".to_owned())?;
    }
    if !process.selinux_label.is_empty() {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            let text =
                "selinux label is specified in config, but selinux is disabled or not supported";
            return Err(Error::Invalid(text.to_owned()));
        }
        procfs
            .write("self/attr/exec", &process.selinux_label)
            .context(|| "can't set process label".to_owned())?;
    }
    Ok(())
}
