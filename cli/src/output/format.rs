//! Lists of rows by a `--format`: `table`, `table TEMPLATE`, `json`, `TEMPLATE`.

use super::table;
use super::template::Template;
use crate::error::{Error, Outcome};
use crate::value::{Field, Record, Value};

/// A format string as it is given or configured.
pub struct Format {
    template: Template,
    is_table: bool,
}

impl Format {
    /// Prepares a format.
    ///
    /// # Errors
    /// `template parsing error: …`.
    pub fn new(text: &str) -> Outcome<Self> {
        let is_table = text.starts_with("table");
        let body = match text {
            "json" => "{{json .}}",
            text => text.strip_prefix("table").unwrap_or(text),
        };
        let body = body.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        let template =
            Template::parse(&body).map_err(|error| format!("template parsing error: {error}"))?;
        Ok(Self { template, is_table })
    }

    /// Renders rows, under `headers` if it is a table.
    ///
    /// # Errors
    /// `template parsing error: …` of the first row that fails.
    pub fn render(&self, headers: &[(&'static str, &str)], rows: &[Value]) -> Outcome<String> {
        let mut out = String::new();
        if self.is_table {
            out.push_str(&self.template.execute(&header(headers), false).unwrap_or_default());
            out.push('\n');
        }
        for row in rows {
            out.push_str(&self.row(row)?);
        }
        Ok(if self.is_table { table::align(&out) } else { out })
    }

    /// Renders one row, with its newline.
    ///
    /// # Errors
    /// `template parsing error: …`.
    pub fn row(&self, row: &Value) -> Outcome<String> {
        match self.template.execute(row, false) {
            Ok(mut text) => {
                text.push('\n');
                Ok(text)
            }
            Err(error) => Err(Error::Message(format!("template parsing error: {error}"))),
        }
    }
}

fn header(headers: &[(&'static str, &str)]) -> Value {
    let fields = headers.iter().map(|(name, title)| Field {
        name,
        json: name,
        omit_empty: false,
        value: Value::from(*title),
    });
    Record { fields: fields.collect(), is_header: true, ..Record::default() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Value {
        let mut record = Record::row(
            "*formatter.ContainerContext",
            vec![("Names", "a".into()), ("ID", "1".into())],
        );
        record.labels =
            Some(crate::value::Map { of_text: true, entries: vec![("x.y".into(), "v".into())] });
        record.into()
    }

    #[track_caller]
    fn check(format: &str, expected: &str) {
        let text = Format::new(format).and_then(|format| {
            format.render(&[("ID", "CONTAINER ID"), ("Names", "NAMES")], &[row()])
        });
        assert_eq!(text.unwrap_or_else(|error| error.to_string()), expected, "{format}");
    }

    #[test]
    fn a_table_has_the_titles_of_its_fields() {
        check("table {{.ID}}\\t{{.Names}}", "CONTAINER ID   NAMES\n1              a\n");
        check("table {{.Names}} {{.Label \"x.y\"}}", "NAMES y\na v\n");
    }

    #[test]
    fn json_has_all_fields_by_name() {
        check("json", "{\"ID\":\"1\",\"Names\":\"a\"}\n");
        check("{{.ID}}", "1\n");
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        check(
            "{{.Bad}}",
            "template parsing error: template: :1:2: executing \"\" at <.Bad>: can't evaluate field Bad in type *formatter.ContainerContext",
        );
    }
}
