//! Resource limits: `NAME=SOFT[:HARD]`, -1 for none.

use cleat_proto::docker::container::Ulimit;

use crate::go;

const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads a limit.
///
/// # Errors
/// An unknown name, no number, or a soft limit above the hard one.
pub fn parse(value: &str) -> Result<Ulimit, String> {
    let (name, limits) =
        value.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {value}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let parts: Vec<&str> = limits.split(':').collect();
    if parts.len() > 2 {
        return Err(format!(
            "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        ));
    }
    let number =
        |text: &str| go::parse_int(text, 10, 64).map_err(|fault| fault.message("ParseInt", text));
    let hard = parts.get(1).map(|text| number(text)).transpose()?;
    let soft = number(parts[0])?;
    let hard = hard.unwrap_or(soft);
    if hard != -1 {
        let rule = "ulimit soft limit must be less than or equal to hard limit";
        if soft == -1 {
            return Err(format!("{rule}: soft: -1 (unlimited), hard: {hard}"));
        }
        if soft > hard {
            return Err(format!("{rule}: {soft} > {hard}"));
        }
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_stands_for_a_missing_hard_one() {
        let limit = parse("nofile=100").unwrap();
        assert_eq!((limit.soft, limit.hard), (100, 100));
    }

    #[test]
    fn refusals_name_the_part_that_is_wrong() {
        assert_eq!(parse("nofile"), Err("invalid ulimit argument: nofile".into()));
        assert_eq!(parse("bogus=1"), Err("invalid ulimit type: bogus".into()));
        assert!(parse("nofile=2:1").is_err_and(|text| text.ends_with("2 > 1")));
    }
}
