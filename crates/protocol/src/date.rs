//! Dates as the two APIs write them, read as milliseconds since 1970-01-01 00:00 UTC.

/// Reads the date of a mail or HTTP header, such as `Tue, 18 Aug 2015 20:01:40 +0000` or
/// `Sun, 06 Nov 1994 08:49:37 GMT`. The day of the week may be missing and is not checked.
///
/// <https://www.rfc-editor.org/rfc/rfc5322#section-3.3>
pub(crate) fn parse_mail(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_ascii_whitespace();
    let day = number(words.next()?, 1..=2)?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(name))? as i64 + 1;
    let year = number(words.next()?, 4..=4)?;
    let time = time(words.next()?)?;
    let offset = match words.next()? {
        "GMT" | "UTC" | "UT" | "Z" => 0,
        zone => offset(zone)?,
    };
    if words.next().is_some() {
        return None;
    }
    Some((days(year, month, day)? * DAY + time) - offset)
}

/// Reads an ISO 8601 date with time, such as `2026-02-18T02:15:00.000+07:00` or `…Z`. Minutes of the
/// offset may be a single digit, as old Android phones write them.
pub(crate) fn parse_iso(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4..=4)?;
    let month = number(parts.next()?, 2..=2)?;
    let day = number(parts.next()?, 2..=2)?;
    if parts.next().is_some() {
        return None;
    }
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let offset = if zone.eq_ignore_ascii_case("z") {
        0
    } else {
        offset(zone)?
    };
    Some(days(year, month, day)? * DAY + time(clock)? - offset)
}

/// Days since 1970-01-01 of a date of the years 1970 to 9999.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    Some(era * 146_097 + of_era - 719_468)
}

/// Milliseconds of `hh:mm:ss`, `hh:mm:ss.fff…` or `hh:mm`.
fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let hour = number(parts.next()?, 2..=2).filter(|h| *h < 24)?;
    let minute = number(parts.next()?, 2..=2).filter(|m| *m < 60)?;
    // A leap second counts as the next one.
    let second = parts
        .next()
        .map_or(Some(0), |text| number(text, 2..=2))
        .filter(|s| *s <= 60)?;
    if parts.next().is_some() || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let millis: i64 = fraction
        .bytes()
        .zip([100, 10, 1])
        .map(|(digit, weight)| i64::from(digit.wrapping_sub(b'0')) * weight)
        .sum();
    let is_decimal = fraction.bytes().all(|b| b.is_ascii_digit());
    is_decimal.then_some(((hour * 60 + minute) * 60 + second) * SECOND + millis)
}

/// Milliseconds that `+hhmm`, `+hh:mm`, `+hh` or `+hh:m` are ahead of UTC.
fn offset(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None => (digits.get(..2)?, digits.get(2..)?),
    };
    let hours = number(hours, 2..=2).filter(|h| *h < 24)?;
    let minutes = if minutes.is_empty() {
        0
    } else {
        number(minutes, 1..=2).filter(|m| *m < 60)?
    };
    Some(sign * (hours * 60 + minutes) * 60 * SECOND)
}

fn number(text: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let is_number = lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

const SECOND: i64 = 1000;
const DAY: i64 = 86_400 * SECOND;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes `2026-02-18T02:15:00Z`, whole seconds rounded down; `None` outside the years 1970 to 9999.
    fn format_iso(millis: i64) -> Option<String> {
        let (day, rest) = (millis.div_euclid(DAY), millis.rem_euclid(DAY) / SECOND);
        // Civil date from days, by H. Hinnant's algorithm for years that begin in March.
        let shifted = day + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = (shifted_month + 2) % 12 + 1;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (1970..=9999).contains(&year).then(|| {
            format!(
                "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
                rest / 3600,
                rest / 60 % 60,
                rest % 60
            )
        })
    }

    #[test]
    fn reads_the_dates_of_the_standards() {
        // RFC 9110 section 5.6.7, and a date of Twilio's documentation.
        let http = parse_mail("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http, Some(784_111_777_000));
        let twilio = parse_mail("Tue, 18 Aug 2015 20:01:40 +0000");
        assert_eq!(twilio, Some(1_439_928_100_000));
        assert_eq!(parse_mail("18 Aug 2015 22:01:40 +0200"), twilio);
        assert_eq!(parse_iso("2015-08-18T20:01:40Z"), twilio);
        assert_eq!(parse_iso("2015-08-18T22:01:40.000+02:00"), twilio);
        assert_eq!(
            parse_iso("2015-08-18T15:01:40.25-05:0"),
            twilio.map(|t| t + 250)
        );
        assert_eq!(parse_iso("1970-01-01 00:00:00+00"), Some(0));
    }

    #[test]
    fn refuses_text_that_is_not_a_date() {
        for text in [
            "",
            "Tue",
            "Tue, 31 Feb 2015 20:01:40 +0000",
            "Tue, 18 Aug 2015 24:01:40 +0000",
            "Tue, 18 Aug 2015 20:01:40",
            "Tue, 18 Aug 2015 20:01:40 +0000 x",
            "Tue, 18 Aug 1899 20:01:40 +0000",
            "Tue, +8 Aug 2015 20:01:40 +0000",
        ] {
            assert_eq!(parse_mail(text), None, "{text}");
        }
        for text in [
            "2015-08-18",
            "2015-08-18T20:01:40",
            "2015-13-18T20:01:40Z",
            "2015-02-29T20:01:40Z",
            "2015-08-18T20:01:40.Z",
            "2015-08-18T20:01:40.x1Z",
            "2015-08-18T20:61:40Z",
            "2015-08-18T20:01:40+é",
            "99999-08-18T20:01:40Z",
        ] {
            assert_eq!(parse_iso(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(seconds in 0..253_402_300_800i64) {
            let text = format_iso(seconds * SECOND).unwrap();
            prop_assert_eq!(parse_iso(&text), Some(seconds * SECOND));
        }

        #[test]
        fn any_number_and_text_is_survived(millis in any::<i64>(), text in ".*") {
            let _ = format_iso(millis);
            let _ = parse_iso(&text);
            let _ = parse_mail(&text);
        }

        #[test]
        fn almost_dates_are_survived(text in "[0-9T:.+Z -]{0,40}", mail in "[0-9A-z:+, -]{0,40}") {
            let _ = parse_iso(&text);
            let _ = parse_mail(&mail);
        }
    }
}
