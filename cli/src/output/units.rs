//! Sizes and durations in words, as docker's go-units has them.

use crate::go;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

fn scaled(mut size: f64, base: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut index = 0;
    while size >= base && index < units.len() - 1 {
        size /= base;
        index += 1;
    }
    (size, units[index])
}

/// A size with decimal units and `precision` significant digits: `2.062MB`.
pub fn human_size_with(size: f64, precision: usize) -> String {
    let (size, unit) = scaled(size, 1000.0, &DECIMAL);
    format!("{}{unit}", go::format_g(size, precision))
}

/// A size with decimal units: four significant digits.
pub fn human_size(size: f64) -> String {
    human_size_with(size, 4)
}

/// A size with binary units: `1.5MiB`.
pub fn bytes_size(size: f64) -> String {
    let (size, unit) = scaled(size, 1024.0, &BINARY);
    format!("{}{unit}", go::format_g(size, 4))
}

/// A duration in one rough unit: `About a minute`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as i64);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        assert_eq!(human_size(2_062_123.0), "2.062MB");
        assert_eq!(human_size(0.0), "0B");
        assert_eq!(human_size_with(1_234_567.0, 3), "1.23MB");
        assert_eq!(bytes_size(1_572_864.0), "1.5MiB");
    }

    #[test]
    fn durations_are_rough() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (5400, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
