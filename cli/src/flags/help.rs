//! The flag list of `--help`: names in one column, explanations wrapped in another.

use super::{Flag, Kind};

/// Renders the listed flags for a terminal `width` columns wide.
pub fn flag_usages(table: &[&'static [Flag]], width: usize) -> String {
    let mut flags: Vec<&Flag> =
        table.iter().flat_map(|part| part.iter()).filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.name);
    let lines: Vec<(String, String)> = flags.iter().map(|flag| (left(flag), right(flag))).collect();
    let column = lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for (left, right) in lines {
        let padding = column - left.chars().count();
        text.push_str(&left);
        text.push_str(&" ".repeat(padding));
        text.push_str(&wrapped(&right, column, width.saturating_sub(1)));
        text.push('\n');
    }
    text
}

fn left(flag: &Flag) -> String {
    let mut text = if flag.short == '\0' {
        format!("      --{}", flag.name)
    } else {
        format!("  -{}, --{}", flag.short, flag.name)
    };
    if flag.kind != Kind::Bool {
        text.push(' ');
        text.push_str(flag.kind.name());
    }
    text
}

fn right(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (_, "") | (Kind::Bool, "false") => flag.help.to_owned(),
        (Kind::Text, default) => format!("{} (default \"{default}\")", flag.help),
        (_, default) => format!("{} (default {default})", flag.help),
    }
}

/// Breaks `text` at spaces so that it fits between `indent` and `width`; further lines are indented.
fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let room = width.saturating_sub(indent).max(24);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}
