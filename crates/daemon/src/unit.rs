//! Durations and sizes as they are written in flags: `500ms`, `8s`, `64KiB`.

use std::time::Duration;

/// Parses `500ms`, `8s`, `2m` or a bare number of seconds.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(daemon::unit::parse_duration("500ms"), Ok(Duration::from_millis(500)));
/// assert_eq!(daemon::unit::parse_duration("8"), Ok(Duration::from_secs(8)));
/// ```
///
/// # Errors
///
/// A message if the text has another form, is 0, or is more than a day.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("unit \"{unit}\" must be ms, s or m")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number, such as 8s")?;
    let total = number
        .checked_mul(milliseconds)
        .ok_or("the duration is too long")?;
    match total {
        0 => Err("must be more than zero".into()),
        // Timers and statement_timeout can both hold this.
        1..=86_400_000 => Ok(Duration::from_millis(total)),
        _ => Err("must be at most 1440m".into()),
    }
}

/// Parses `64KiB`, `16MiB`, `1GiB` or a bare number of bytes.
///
/// # Errors
///
/// A message if the text has another form or does not fit into a `usize`.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let factor: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("unit \"{unit}\" must be B, KiB, MiB or GiB")),
    };
    let number: usize = number
        .parse()
        .map_err(|_| "expected a number, such as 16MiB")?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "the size is too large".into())
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_with_and_without_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("8s"), Ok(Duration::from_secs(8)));
        assert_eq!(parse_duration("8"), Ok(Duration::from_secs(8)));
        assert_eq!(parse_duration(" 2 m "), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn refuses_durations_that_mean_nothing() {
        for text in [
            "",
            "s",
            "-1s",
            "0",
            "0ms",
            "1h",
            "1.5s",
            "99999999999999999999",
            "1441m",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse_duration(&format!("{}m", u64::MAX)).is_err());
    }

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("16 MiB"), Ok(16 << 20));
        assert!(parse_size("1MB").is_err());
        assert!(parse_size("x").is_err());
        assert!(parse_size(&format!("{}GiB", usize::MAX)).is_err());
    }
}
