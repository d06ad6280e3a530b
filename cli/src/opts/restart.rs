//! Restart policies: `no`, `always`, `unless-stopped`, `on-failure[:N]`.

use cleat_proto::docker::container::RestartPolicy;

use crate::go;

/// Reads a policy; whether it exists is for the daemon to say.
///
/// # Errors
/// No name before the colon, or no number after it.
pub fn parse(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() && text.contains(':') {
        return Err("invalid restart policy format: no policy provided before colon".into());
    }
    let maximum_retry_count = match count {
        "" => 0,
        count => go::atoi(count)
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}
