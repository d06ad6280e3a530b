//! The log option `tag`: a text with fields of the container in it, such as `{{.ImageName}}/{{.Name}}/{{.ID}}`.
//!
//! Of Go's templates there is what a tag is made of: text, and fields, also with the trim marks `{{-` and `-}}`, a comment, and
//! the index of a label (`{{index .ContainerLabels "app"}}`). A pipeline, a function or a branch is refused by name.
//! Source: Docker's documentation "Customize log driver output", and Go's `text/template`.

use crate::container::Record;

/// How many characters of an id are shown.
const SHORT: usize = 12;

/// Puts the container's fields into `template`.
///
/// # Errors
/// Go's words for what is no template and for a field that is not there; ours for what we do not have of it.
pub(super) fn expand(template: &str, record: &Record, log_path: &str) -> Result<String, String> {
    let mut out = String::new();
    let (mut rest, mut trims) = (template, false);
    loop {
        let (mut text, action) = match rest.split_once("{{") {
            Some((text, action)) => (text, Some(action)),
            None => (rest, None),
        };
        if trims {
            text = text.trim_start();
        }
        let Some(action) = action else {
            out.push_str(text);
            return Ok(out);
        };
        let (inside, after) =
            action.split_once("}}").ok_or("template: log-tag:1: unclosed action")?;
        let opened =
            inside.strip_prefix("- ").inspect(|_| text = text.trim_end()).unwrap_or(inside);
        let closed = opened.strip_suffix(" -");
        out.push_str(text);
        out.push_str(&field(closed.unwrap_or(opened).trim(), record, log_path)?);
        (rest, trims) = (after, closed.is_some());
    }
}

fn field(action: &str, record: &Record, log_path: &str) -> Result<String, String> {
    let short = |id: &str| id.get(..SHORT).unwrap_or(id).to_owned();
    if action.starts_with("/*") && action.ends_with("*/") {
        return Ok(String::new());
    }
    if let Some(label) = action.strip_prefix("index .ContainerLabels ") {
        let name: String = serde_json::from_str(label.trim())
            .map_err(|_| format!("template: log-tag:1: {label:?} is no quoted name of a label"))?;
        let labels = record.config.labels.as_ref();
        return Ok(labels.and_then(|labels| labels.get(&name)).cloned().unwrap_or_default());
    }
    let name = match action.strip_prefix('.') {
        Some(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !name.is_empty() => {
            name
        }
        _ if action.is_empty() => {
            return Err("template: log-tag:1: missing value for command".to_owned());
        }
        _ => {
            return Err(format!(
                "template: log-tag: {{{{{action}}}}} is not implemented by cleat yet: only fields and index .ContainerLabels are"
            ));
        }
    };
    Ok(match name {
        "ID" => short(record.id.as_str()),
        "FullID" | "ContainerID" => record.id.to_string(),
        "Name" => record.name.clone(),
        "ContainerName" => format!("/{}", record.name),
        "ImageID" => short(&record.image_id),
        "ImageFullID" | "ContainerImageID" => record.image_id.clone(),
        "ImageName" | "ContainerImageName" => record.config.image.clone(),
        "ContainerEntrypoint" => record.path.clone(),
        "Command" => {
            std::iter::once(&record.path).chain(&record.args).cloned().collect::<Vec<_>>().join(" ")
        }
        "Hostname" => nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        "DaemonName" => "docker".to_owned(),
        "LogPath" => log_path.to_owned(),
        _ => {
            return Err(format!(
                "template: log-tag:1:2: executing \"log-tag\" at <.{name}>: can't evaluate field {name} in type *logger.Info"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: Result<&str, &str>) {
        let mut record = Record::of_test("web");
        record.config.image = "busybox:1".into();
        record.image_id = format!("sha256:{}", "b".repeat(64));
        record.config.labels = Some([("app".to_owned(), "front".to_owned())].into());
        record.path = "sleep".into();
        record.args = vec!["1".into()];
        let expected =
            expected.map(|text| text.replace("<id>", record.id.short())).map_err(str::to_owned);
        assert_eq!(expand(template, &record, "/log"), expected, "{template}");
    }

    #[test]
    fn fields_are_put_into_the_text() {
        check("plain", Ok("plain"));
        check("{{.ImageName}}/{{ .Name }}/{{.ID}}", Ok("busybox:1/web/<id>"));
        check(
            "{{.ImageID}} {{.ContainerName}} {{.DaemonName}} {{.LogPath}}",
            Ok("sha256:bbbbb /web docker /log"),
        );
        check("{{.Command}}", Ok("sleep 1"));
        check("{{index .ContainerLabels \"app\"}}{{index .ContainerLabels \"x\"}}", Ok("front"));
    }

    #[test]
    fn marks_trim_the_text_beside_them() {
        check("a {{- .Name -}} b {{.Name}} c", Ok("awebb web c"));
        check("a{{/* nothing */}}b", Ok("ab"));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        check("{{.Name", Err("template: log-tag:1: unclosed action"));
        check(
            "{{.Nope}}",
            Err(
                "template: log-tag:1:2: executing \"log-tag\" at <.Nope>: can't evaluate field Nope in type *logger.Info",
            ),
        );
        check("{{}}", Err("template: log-tag:1: missing value for command"));
        check(
            "{{.Name | upper}}",
            Err(
                "template: log-tag: {{.Name | upper}} is not implemented by cleat yet: only fields and index .ContainerLabels are",
            ),
        );
    }
}
