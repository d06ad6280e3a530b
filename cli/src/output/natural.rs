//! The natural order of names: numbers in them count as numbers, so that `a2` comes before `a10`.

use std::cmp::Ordering;

/// Compares naturally.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        match (left.first(), right.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(a), Some(b)) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let (a, left_rest) = number(left);
                let (b, right_rest) = number(right);
                let order = a.len().cmp(&b.len()).then_with(|| a.cmp(b));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (left_rest, right_rest);
            }
            (Some(a), Some(b)) if a != b => return a.cmp(b),
            _ => (left, right) = (&left[1..], &right[1..]),
        }
    }
}

/// The digits at the beginning without leading zeros, and what follows.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let start = text[..end].iter().position(|byte| *byte != b'0').unwrap_or(end);
    (&text[start..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["a10", "a2", "a", "b1"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["a", "a2", "a10", "b1"]);
    }
}
