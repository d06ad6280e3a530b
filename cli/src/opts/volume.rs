//! `-v [SOURCE:]TARGET[:OPTIONS]`: what is sent as a bind, and what as a volume without a name.

use std::collections::BTreeMap;

use cleat_proto::docker::container::Empty;

use crate::go;

/// What `-v` becomes in the request.
#[derive(Debug, Default, PartialEq)]
pub struct Volumes {
    /// `HostConfig.Binds`.
    pub binds: Option<Vec<String>>,
    /// `Config.Volumes`.
    pub anonymous: BTreeMap<String, Empty>,
}

/// Sorts the volumes of `-v` into binds and anonymous ones. The same text twice counts once.
///
/// # Errors
/// An empty text, an empty part, or too many parts.
pub fn parse(texts: &[String]) -> Result<Volumes, String> {
    let mut volumes = Volumes::default();
    for text in texts {
        match source(text)? {
            None => {
                volumes.anonymous.insert(text.clone(), Empty {});
            }
            Some(source) => {
                let bind = match (text.split_once(':'), go::absolute_path(source)) {
                    (Some((_, rest)), Some(absolute)) if source.starts_with('.') => {
                        format!("{absolute}:{rest}")
                    }
                    _ => text.clone(),
                };
                let binds = volumes.binds.get_or_insert_default();
                if !binds.contains(&bind) {
                    binds.push(bind);
                }
            }
        }
    }
    Ok(volumes)
}

/// The part before the first colon, if there is one.
fn source(text: &str) -> Result<Option<&str>, String> {
    match text.len() {
        0 => return Err("invalid empty volume spec".into()),
        1 | 2 => return Ok(None),
        _ => {}
    }
    let mut parts: Vec<&str> = text.split(':').collect();
    let drive = |part: &str| part.len() == 1 && part.starts_with(|c: char| c.is_alphabetic());
    // A single letter before a colon is taken for a drive, as in `c:\dir`; it belongs to the part after it.
    let mut index = 0;
    while index + 1 < parts.len() {
        if drive(parts[index]) {
            let start = parts[index].as_ptr() as usize - text.as_ptr() as usize;
            let end = parts[index + 1].as_ptr() as usize - text.as_ptr() as usize
                + parts[index + 1].len();
            parts[index] = &text[start..end];
            parts.remove(index + 1);
        }
        index += 1;
    }
    let invalid = |reason: &str| Err(format!("invalid spec: {text}: {reason}"));
    for (index, part) in parts.iter().enumerate() {
        if part.is_empty() {
            return invalid("empty section between colons");
        }
        if index == 2 && parts.len() > 3 {
            return invalid("too many colons");
        }
    }
    Ok((parts.len() > 1).then(|| parts[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_path_is_an_anonymous_volume() {
        let volumes = parse(&["/anonymous".into(), "v:/vol:nocopy".into()]).unwrap();
        assert!(volumes.anonymous.contains_key("/anonymous"));
        assert_eq!(volumes.binds, Some(vec!["v:/vol:nocopy".into()]));
    }

    #[test]
    fn a_relative_path_becomes_absolute() {
        let volumes = parse(&["./rel:/dst".into()]).unwrap();
        let expected = format!("{}/rel:/dst", std::env::current_dir().unwrap().display());
        assert_eq!(volumes.binds, Some(vec![expected]));
    }

    #[test]
    fn refusals_quote_the_whole_text() {
        assert_eq!(parse(&[String::new()]), Err("invalid empty volume spec".into()));
        assert_eq!(parse(&["::".into()]).unwrap().binds, None);
        assert_eq!(
            parse(&["/a:/b:ro:rw".into()]),
            Err("invalid spec: /a:/b:ro:rw: too many colons".into())
        );
        assert_eq!(
            parse(&["/a::/b".into()]),
            Err("invalid spec: /a::/b: empty section between colons".into())
        );
    }
}
