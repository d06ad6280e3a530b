//! GPUs: `all`, a count, or `device=…,driver=…,capabilities=…,options=…`.

use std::collections::BTreeMap;

use cleat_proto::docker::container::DeviceRequest;

use super::csv;
use crate::go;

fn count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    go::atoi(text).map_err(|fault| {
        format!(
            "invalid count ({text}): value must be either \"all\" or an integer: {}",
            fault.text()
        )
    })
}

/// Reads a request of `--gpus`.
///
/// # Errors
/// A key given twice or unknown, or a bad count.
pub fn parse(value: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut seen: Vec<String> = Vec::new();
    for field in csv::fields(value)? {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        if seen.iter().any(|one| one == key) {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.to_owned());
        let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match (key, value) {
            (number, None) => {
                seen.push("count".into());
                request.count = count(number)?;
            }
            ("driver", Some(value)) => value.clone_into(&mut request.driver),
            ("count", Some(value)) => request.count = count(value)?,
            ("device", Some(value)) => request.device_ids = Some(split(value)),
            ("capabilities", Some(value)) => {
                let mut capabilities = split(value);
                capabilities.push("gpu".into());
                request.capabilities = Some(vec![capabilities]);
            }
            ("options", Some(value)) => {
                let words = csv::fields(value)
                    .map_err(|reason| format!("failed to read gpu options: {reason}"))?;
                request.options = Some(super::pairs_to_map(&words));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !seen.iter().any(|key| key == "count") && request.device_ids.is_none() {
        request.count = 1;
    }
    request.options.get_or_insert_with(BTreeMap::new);
    request.capabilities.get_or_insert_with(|| vec![vec!["gpu".into()]]);
    Ok(request)
}
