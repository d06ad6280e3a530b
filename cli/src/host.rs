//! Where the daemon is: `unix://PATH`, `tcp://HOST:PORT`, or a bare `HOST:PORT`.

/// The socket where none is named.
pub const DEFAULT: &str = "unix:///var/run/docker.sock";

/// Completes an address as a user writes it.
///
/// # Errors
/// A scheme nobody serves, or an address that is none; in docker's words.
pub fn parse(text: &str, tls: bool) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(if tls { "tcp://localhost:2376".into() } else { DEFAULT.into() });
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "tcp" => tcp(rest),
        "unix" => simple(scheme, rest, "/var/run/docker.sock"),
        "npipe" => simple(scheme, rest, "//./pipe/docker_engine"),
        "fd" | "ssh" => Ok(text.to_owned()),
        _ => Err(format!("invalid bind address format: {text}")),
    }
}

fn simple(scheme: &str, rest: &str, default: &str) -> Result<String, String> {
    if rest.contains("://") {
        return Err(format!("invalid proto, expected {scheme}: {rest}"));
    }
    Ok(format!("{scheme}://{}", if rest.is_empty() { default } else { rest }))
}

fn tcp(rest: &str) -> Result<String, String> {
    if rest.is_empty() {
        return Ok("tcp://localhost:2375".into());
    }
    if rest.contains("://") {
        return Err(format!("invalid proto, expected tcp: {rest}"));
    }
    let invalid = || format!("invalid bind address format: {rest}");
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').ok_or_else(invalid)?;
            (host, after.strip_prefix(':').unwrap_or(""))
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                let last = authority.rsplit(':').next().unwrap_or_default();
                if last.bytes().any(|byte| !byte.is_ascii_digit()) {
                    return Err(format!(
                        "parse {}: invalid port {} after host",
                        crate::go::quote(&format!("tcp://{rest}")),
                        crate::go::quote(&format!(":{last}"))
                    ));
                }
                return Err(invalid());
            }
            Some((host, port)) => (host, port),
            None => (authority, ""),
        },
    };
    if port.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Err(format!(
            "parse {}: invalid port {} after host",
            crate::go::quote(&format!("tcp://{rest}")),
            crate::go::quote(&format!(":{port}"))
        ));
    }
    let host = if host.is_empty() { "localhost" } else { host };
    let port = if port.is_empty() { "2375" } else { port };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Ok(format!("tcp://{host}:{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_completed() {
        assert_eq!(parse("", false), Ok(DEFAULT.into()));
        assert_eq!(parse("tcp://", false), Ok("tcp://localhost:2375".into()));
        assert_eq!(parse("127.0.0.1:1", false), Ok("tcp://127.0.0.1:1".into()));
        assert_eq!(parse("[::1]", false), Ok("tcp://[::1]:2375".into()));
    }

    #[test]
    fn unknown_schemes_are_refused() {
        assert_eq!(parse("bogus://x", false), Err("invalid bind address format: bogus://x".into()));
    }
}
