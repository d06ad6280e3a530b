//! Signals as users write them: `SIGTERM`, `term`, `15`, `RTMIN+3`.

/// Linux's signals by name, `SIG` left out. Source: `signal(7)`, x86 and arm.
const NAMES: [(&str, i32); 37] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
    ("UNUSED", 31),
];

/// The first real-time signal that the C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// SIGTERM's number.
pub const TERM: i32 = 15;
/// SIGKILL's number.
pub const KILL: i32 = 9;

/// Reads a signal; `None` if there is no such one.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return Some(RTMIN + offset.parse::<i32>().ok()?).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    if let Some(offset) = name.strip_prefix("RTMAX-") {
        return Some(RTMAX - offset.parse::<i32>().ok()?).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_by_number() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("64", Some(64)),
            ("65", None),
            ("0", None),
            ("", None),
            ("SIGNOPE", None),
            ("RTMIN+40", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
