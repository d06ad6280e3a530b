//! A number of CPUs as an exact decimal, in billionths.

/// Reads `1.5` as 1 500 000 000.
///
/// # Errors
/// Not a number, or finer than a billionth.
pub fn parse(text: &str) -> Result<i64, String> {
    let refused = || format!("failed to parse {text} as a rational number");
    if let Some((above, below)) = text.split_once('/') {
        let (above, below): (i128, i128) =
            (above.parse().map_err(|_| refused())?, below.parse().map_err(|_| refused())?);
        if below <= 0 {
            return Err(refused());
        }
        let scaled = above * 1_000_000_000;
        return if scaled % below == 0 {
            Ok((scaled / below) as i64)
        } else {
            Err("value is too precise".into())
        };
    }
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().map_err(|_| refused())?),
        None => (text, 0),
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let mut value: i128 = digits.parse().map_err(|_| refused())?;
    let shift = 9 + exponent - fraction.len() as i32;
    if shift.abs() > 30 {
        return if value == 0 { Ok(0) } else { Err("value is too precise".into()) };
    }
    if shift >= 0 {
        value *= 10i128.pow(shift as u32);
    } else {
        let divisor = 10i128.pow(-shift as u32);
        if value % divisor != 0 {
            return Err("value is too precise".into());
        }
        value /= divisor;
    }
    Ok(if negative { -value as i64 } else { value as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_billionths() {
        assert_eq!(parse("1.5"), Ok(1_500_000_000));
        assert_eq!(parse("2"), Ok(2_000_000_000));
        assert_eq!(parse("1/2"), Ok(500_000_000));
        assert_eq!(parse("0.0000000001"), Err("value is too precise".into()));
        assert_eq!(parse("a"), Err("failed to parse a as a rational number".into()));
    }
}
