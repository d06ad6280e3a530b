//! Columns as Go's tabwriter aligns them: a column is as wide as its widest cell in a run of lines that have it.

/// At least this wide, padding included.
const MIN_WIDTH: usize = 10;

/// Aligns lines of tab-separated cells. The last cell of a line belongs to no column.
pub fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, 3)
}

/// [`align`] with another minimal width and padding.
pub fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let trailing = text.ends_with('\n');
    let body = if trailing { &text[..text.len() - 1] } else { text };
    let lines: Vec<Vec<&str>> = body.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    measure(&lines, &mut widths, 0, 0..lines.len(), min_width, padding);
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(width(cell))));
            }
        }
    }
    if trailing {
        out.push('\n');
    }
    out
}

/// Finds the runs of lines that have `column` as a terminated cell, and their width; then the columns inside each run.
fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    column: usize,
    range: std::ops::Range<usize>,
    min_width: usize,
    padding: usize,
) {
    let mut start = range.start;
    while start < range.end {
        if column + 1 >= lines[start].len() {
            start += 1;
            continue;
        }
        let end =
            (start..range.end).find(|line| column + 1 >= lines[*line].len()).unwrap_or(range.end);
        let widest = lines[start..end].iter().map(|cells| width(cells[column])).max().unwrap_or(0);
        let wide = min_width.max(widest + padding);
        for line in &mut widths[start..end] {
            line[column] = wide;
        }
        measure(lines, widths, column + 1, start..end, min_width, padding);
        start = end;
    }
}

/// Columns on the terminal: East Asian wide characters take two.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(character: char) -> usize {
    match character as u32 {
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0x33ff
        | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff
        | 0xa000..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Cuts text to `limit` columns, the last of them an ellipsis.
pub fn ellipsis(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut wide = 0;
    for character in text.chars() {
        wide += char_width(character);
        if wide > limit.saturating_sub(1) {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_a_minimal_width_and_a_gap() {
        let text = align("ID\tNAME\tX\nabcdefghijklm\tb\tc\n");
        assert_eq!(text, "ID              NAME      X\nabcdefghijklm   b         c\n");
    }

    #[test]
    fn a_line_without_the_column_ends_its_run() {
        assert_eq!(align_with("aaaa\tb\nx\nc\td\n", 0, 1), "aaaa b\nx\nc d\n");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
