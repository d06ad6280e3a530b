//! Go's `text/template`, as much of it as format strings use, with its error texts.
//!
//! Actions: values and pipelines, `if`, `range`, `with`, `else`, `break`, `continue`, variables, comments, white space trimming.
//! Left out: `define`, `block` and the bodies of `template`, which have no meaning in one line.

mod exec;
mod funcs;
mod lex;
mod parse;

use crate::value::Value;

/// A parsed template.
pub struct Template {
    nodes: Vec<parse::Node>,
    text: String,
}

impl Template {
    /// Parses a format string.
    ///
    /// # Errors
    /// In Go's words: `template: :1: unclosed action`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nodes = parse::parse(text)?;
        Ok(Self { nodes, text: text.to_owned() })
    }

    /// Executes the template on `dot`. With `strict`, a missing key of a map is an error.
    ///
    /// # Errors
    /// In Go's words: `template: :1:2: executing "" at <.Bad>: …`.
    pub fn execute(&self, dot: &Value, strict: bool) -> Result<String, String> {
        exec::execute(self, dot, strict)
    }

    /// Whether `.NAME` is used anywhere.
    pub fn uses(&self, name: &str) -> bool {
        parse::uses(&self.nodes, name)
    }

    /// Line and column of a byte, as errors name them.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at.min(self.text.len())];
        let column = before.rfind('\n').map_or(at, |newline| at - newline - 1);
        (1 + before.matches('\n').count(), column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        serde_json::from_str(
            r#"{"Name":"/web","Env":["A=1","B=2"],"Labels":{"n.o":"p","x":"y"},"State":{"Running":false,"Code":3},"N":null}"#,
        )
        .unwrap()
    }

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let result = Template::parse(template).and_then(|template| template.execute(&data(), true));
        assert_eq!(result.unwrap_or_else(|error| error), expected, "{template}");
    }

    #[test]
    fn fields_print_as_go_prints_them() {
        check(
            "{{.Name}} {{.Env}} {{.Labels}} {{.State.Code}} {{.N}}",
            "/web [A=1 B=2] map[n.o:p x:y] 3 <no value>",
        );
        check("a{{- .Name -}} b", "a/webb");
        check("{{5}} {{1.5}} {{`raw`}} {{\"a\\tb\"}} {{'a'}} {{/* c */}}|", "5 1.5 raw a\tb 97 |");
    }

    #[test]
    fn control_structures_nest() {
        check("{{range .Env}}{{println .}}{{end}}", "A=1\nB=2\n");
        check("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "n.o=p;x=y;");
        check("{{range $i, $e := .Env}}{{if $i}},{{end}}{{$e}}{{else}}none{{end}}", "A=1,B=2");
        check("{{with .State}}{{.Code}}{{end}}{{with .N}}x{{else}}y{{end}}", "3y");
        check("{{if eq .State.Code 1}}a{{else if gt .State.Code 2}}b{{else}}c{{end}}", "b");
        check("{{range .Env}}{{break}}{{end}}{{$x := 1}}{{$x = 2}}{{$x}}", "2");
    }

    #[test]
    fn functions_have_dockers_and_gos_set() {
        check(
            "{{join .Env \"|\"}} {{upper .Name}} {{title \"abc def\"}} {{split \"a-b\" \"-\"}}",
            "A=1|B=2 /WEB Abc Def [a b]",
        );
        check(
            "{{json .Env}} {{len .Env}} {{index .Labels \"n.o\"}} {{(index .Env 0)}}",
            "[\"A=1\",\"B=2\"] 2 p A=1",
        );
        check(
            "{{printf \"%s-%d|%5s|%-4d|%q|%v\" .Name 7 \"x\" 3 \"q\" .Env}}",
            "/web-7|    x|3   |\"q\"|[A=1 B=2]",
        );
        check(
            "{{not .State.Running}} {{and 1 2}} {{or 0 3}} {{.Name | printf \"%s!\"}} {{slice .Name 1 3}}",
            "true 2 3 /web! we",
        );
        check(
            "{{truncate .Name 3}}[{{pad .Name 2 1}}] {{print 1 2 \"x\" 3}}",
            "/we[  /web ] 1 2x3",
        );
    }

    #[test]
    fn parse_errors_have_gos_words() {
        for (template, expected) in [
            ("{{", "unclosed action"),
            ("{{bogus}}", "function \"bogus\" not defined"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{if}}", "missing value for if"),
            ("{{if .Name}}", "unexpected EOF"),
            ("{{}}", "missing value for command"),
            ("{{\"abc}}", "unterminated quoted string"),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{ .Name }", "unexpected \"}\" in operand"),
        ] {
            check(template, &format!("template: :1: {expected}"));
        }
    }

    #[test]
    fn execution_errors_name_the_place() {
        for (template, expected) in [
            ("{{.Bad}}", ":1:2: executing \"\" at <.Bad>: map has no entry for key \"Bad\""),
            (
                "{{.State.Bad.Worse}}",
                ":1:8: executing \"\" at <.State.Bad.Worse>: map has no entry for key \"Bad\"",
            ),
            (
                "{{index .Env 99}}",
                ":1:2: executing \"\" at <index .Env 99>: error calling index: index out of range: 99",
            ),
            (
                "{{template \"x\"}}",
                ":1:11: executing \"\" at <{{template \"x\"}}>: template \"x\" not defined",
            ),
            ("{{upper 3}}", ":1:8: executing \"\" at <3>: expected string; found 3"),
            (
                "{{split .Name}}",
                ":1:2: executing \"\" at <split>: wrong number of args for split: want 2 got 1",
            ),
        ] {
            check(template, &format!("template: {expected}"));
        }
    }
}
