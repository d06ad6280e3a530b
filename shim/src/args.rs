//! The command line, in the form of Go's flags, as containerd gives it (runtime v2 README, "Flags").

use std::path::PathBuf;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub namespace: String,
    pub id: String,
    /// containerd's own gRPC socket.
    pub address: String,
    pub publish_binary: String,
    pub bundle: PathBuf,
    pub socket: PathBuf,
    pub debug: bool,
    pub version: bool,
    pub info: bool,
    pub action: String,
}

/// Reads `args`, the program's name not included.
///
/// # Errors
/// A message about a flag that is unknown or lacks its value.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg
            .strip_prefix("--")
            .or_else(|| arg.strip_prefix('-'))
            .filter(|flag| !flag.is_empty())
        else {
            // Flags may follow the action as well.
            parsed.action = arg;
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if let Some(switch) = parsed.switch(name) {
            *switch = value.is_none_or(|value| {
                matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
            });
            continue;
        }
        let value = value.or_else(|| args.next());
        let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
        match name {
            "namespace" => parsed.namespace = value,
            "id" => parsed.id = value,
            "address" => parsed.address = value,
            "publish-binary" => parsed.publish_binary = value,
            "bundle" => parsed.bundle = value.into(),
            "socket" => parsed.socket = value.into(),
            _ => return Err(format!("flag provided but not defined: -{name}")),
        }
    }
    Ok(parsed)
}

impl Args {
    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "debug" => Some(&mut self.debug),
            "v" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Args, String> {
        parse(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn containerds_command_line_is_understood() {
        let args = words(
            "-namespace default -address /run/c.sock -publish-binary /bin/c -id web -debug start",
        )
        .unwrap();
        assert_eq!(
            (&*args.namespace, &*args.id, &*args.action, args.debug),
            ("default", "web", "start", true)
        );
        let args = words("--namespace=k8s.io -id=web -bundle=/b -debug=false delete").unwrap();
        assert_eq!(
            (&*args.namespace, args.bundle, &*args.action, args.debug),
            ("k8s.io", "/b".into(), "delete", false)
        );
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert_eq!(words("-x y start"), Err("flag provided but not defined: -x".to_owned()));
        assert_eq!(words("-id"), Err("flag needs an argument: -id".to_owned()));
    }
}
