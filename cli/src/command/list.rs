//! What the commands have in common that list things.

use crate::cli::Call;
use crate::error::Outcome;
use crate::flags::{Flag, Kind, flag};
use crate::output::{format::Format, natural};
use crate::print;
use crate::value::Value;

/// `--format` of a list.
pub const FORMAT: Flag = flag(
    "format",
    Kind::Text,
    "How to print them: 'table', 'table TEMPLATE', 'json' or a Go template",
);

/// `--format` of one thing that has a table.
pub const FORMAT_OF_ONE: Flag = flag(
    "format",
    Kind::Text,
    "How to print it: 'table', 'table TEMPLATE', 'json' or a Go template",
);

/// `--no-trunc`.
pub const NO_TRUNC: Flag = flag("no-trunc", Kind::Bool, "Print everything in full");

/// The templates that a list's own words stand for.
pub struct Formats<'f> {
    /// The configuration's, empty for none.
    pub configured: &'f str,
    /// `table`.
    pub table: &'static str,
    /// `table` with `--quiet`.
    pub quiet_table: &'static str,
    /// `raw`.
    pub raw: &'static str,
    /// `raw` with `--quiet`.
    pub quiet_raw: &'static str,
}

/// What to print by: the flag's format, or the configuration's where more than names is asked for, or a table.
pub fn source<'c>(call: &'c Call, configured: &'c str) -> &'c str {
    match call.flags.text("format") {
        "" if !configured.is_empty() && !call.flags.on("quiet") => configured,
        "" => "table",
        format => format,
    }
}

/// Prints a list's rows.
pub fn print(
    call: &Call,
    formats: &Formats<'_>,
    headers: &[(&'static str, &'static str)],
    rows: &[Value],
) -> Outcome {
    let quiet = call.flags.on("quiet");
    let format = match source(call, formats.configured) {
        "table" if quiet => formats.quiet_table,
        "table" => formats.table,
        "raw" if quiet => formats.quiet_raw,
        "raw" => formats.raw,
        custom => custom,
    };
    print::out(&Format::new(format)?.render(headers, rows)?);
    Ok(())
}

/// Sorts things by name, as people count.
pub fn by_name(items: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = items.iter().collect();
    sorted.sort_by(|a, b| natural::compare(a.at("Name").text(), b.at("Name").text()));
    sorted
}
