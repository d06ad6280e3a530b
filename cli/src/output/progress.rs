//! The progress of pull, push, import and load: JSON lines from the daemon, as text.
//!
//! On a terminal each layer has a line of its own that is drawn over; elsewhere only plain statuses are printed.

use std::collections::HashMap;

use crate::client::Response;
use crate::error::{Error, Outcome};
use crate::output::units;
use crate::value::Value;
use crate::{print, terminal};

/// Where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Sink {
    Stdout,
    Stderr,
    Nowhere,
}

impl Sink {
    fn write(self, text: &str) {
        match self {
            Self::Stdout => print::out(text),
            Self::Stderr => print::err(text),
            Self::Nowhere => {}
        }
    }

    fn columns(self) -> Option<usize> {
        let size = match self {
            Self::Stdout => terminal::size(std::io::stdout()),
            Self::Stderr => terminal::size(std::io::stderr()),
            Self::Nowhere => None,
        };
        size.map(|(columns, _)| usize::from(columns))
    }
}

/// Shows the stream to its end.
///
/// # Errors
/// The connection broke, or the daemon reports an error in the stream.
pub async fn display(response: Response, sink: Sink) -> Outcome {
    let columns = sink.columns();
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut chunks = response.chunks();
    while let Some(message) = chunks.next_value().await? {
        if *message.at("aux") != Value::Nil {
            continue;
        }
        let id = message.at("id").text();
        let mut up = 0;
        if columns.is_some() && !id.is_empty() && *message.at("progressDetail") != Value::Nil {
            let total = lines.len();
            let line = *lines.entry(id.to_owned()).or_insert_with(|| {
                sink.write("\n");
                total
            });
            up = lines.len() - line;
            sink.write(&format!("\x1b[{up}A"));
        } else if columns.is_some() && id.is_empty() {
            lines.clear();
        }
        one(&message, sink, columns)?;
        if up > 0 {
            sink.write(&format!("\x1b[{up}B"));
        }
    }
    Ok(())
}

fn one(message: &Value, sink: Sink, columns: Option<usize>) -> Outcome {
    let detail = message.at("errorDetail");
    if *detail != Value::Nil {
        let text = detail.at("message").text();
        if detail.at("code").int() == 401 {
            return Err("authentication is required".into());
        }
        return Err(Error::Message(text.to_owned()));
    }
    let error = message.at("error").text();
    if !error.is_empty() {
        return Err(Error::Message(error.to_owned()));
    }
    let progress = message.at("progressDetail");
    let current = progress.at("current").int();
    let mut text = String::new();
    let mut end = "";
    match columns {
        Some(_) if message.at("stream").text().is_empty() && *progress != Value::Nil => {
            text.push_str("\x1b[2K\r");
            end = "\r";
        }
        // Moving bars make no sense where nothing can be drawn over.
        None if current > 0 || progress.at("total").int() > 0 => return Ok(()),
        _ => {}
    }
    let id = message.at("id").text();
    if !id.is_empty() {
        text.push_str(&format!("{id}: "));
    }
    let status = message.at("status").text();
    let stream = message.at("stream").text();
    match columns {
        Some(columns) if current > 0 || progress.at("total").int() > 0 => {
            text.push_str(&format!("{status} {}{end}", bar(progress, columns)));
        }
        _ if !stream.is_empty() => text.push_str(&format!("{stream}{end}")),
        _ => text.push_str(&format!("{status}{end}\n")),
    }
    sink.write(&text);
    Ok(())
}

/// `[====>    ]  1MB/2MB`; the bar only where there is room.
fn bar(progress: &Value, columns: usize) -> String {
    let (current, total) = (progress.at("current").int(), progress.at("total").int());
    let size = |bytes: i64| units::human_size(bytes as f64);
    if total <= 0 {
        return format!("{:>8}", size(current));
    }
    let percent = ((current as f64 / total as f64) * 100.0).min(100.0) as usize / 2;
    let mut text = String::new();
    if columns > 110 {
        text = format!("[{}>{}] ", "=".repeat(percent), " ".repeat(50 - percent.min(50)));
    }
    if current <= total {
        text.push_str(&format!("{:>8}/{}", size(current), size(total)));
    } else {
        text.push_str(&format!("{:>8}", size(current)));
    }
    text
}
