//! Time in microseconds since 1970, and the forms in which the APIs write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) i64);

/// The fields of a moment, in UTC.
struct Parts {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micro: i64,
    weekday: usize,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |d| d.as_micros() as i64))
    }

    /// Days since 1970-01-01, in UTC.
    pub(crate) fn day(self) -> i64 {
        self.0.div_euclid(86_400_000_000)
    }

    /// `Thu, 24 Aug 2023 05:01:45 +0000`
    pub(crate) fn rfc2822(self) -> String {
        let p = self.parts();
        let (weekday, month) = (WEEKDAYS[p.weekday], MONTHS[p.month as usize - 1]);
        let Parts {
            year,
            day,
            hour,
            minute,
            second,
            ..
        } = p;
        format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
    }

    /// `2023-08-24T05:01:45.123456Z`
    pub(crate) fn rfc3339(self) -> String {
        let Parts {
            year,
            month,
            day,
            hour,
            minute,
            second,
            micro,
            ..
        } = self.parts();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
    }

    /// `2023-08-24T05:01:45.123Z`, as events carry it.
    pub(crate) fn millis(self) -> String {
        format!("{}Z", &self.rfc3339()[..23])
    }

    /// `2023-08-24T05:01:45Z`, as newer APIs than that of messages write it.
    pub(crate) fn seconds(self) -> String {
        format!("{}Z", &self.rfc3339()[..19])
    }

    /// `2023-08-24T07:01:45.123+02:00`, as a phone two hours east of UTC writes it.
    pub(crate) fn phone(self) -> String {
        let local = Self(self.0 + 2 * 3_600_000_000).rfc3339();
        format!("{}+02:00", &local[..23])
    }

    /// `2308240501`, as carriers write the date of a delivery report.
    pub(crate) fn carrier(self) -> String {
        let Parts {
            year,
            month,
            day,
            hour,
            minute,
            ..
        } = self.parts();
        format!("{:02}{month:02}{day:02}{hour:02}{minute:02}", year % 100)
    }

    fn parts(self) -> Parts {
        let micros = self.0.rem_euclid(86_400_000_000);
        let seconds = micros / 1_000_000;
        let (year, month, day) = civil(self.day());
        Parts {
            year,
            month,
            day,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micro: micros % 1_000_000,
            weekday: (self.day() + 4).rem_euclid(7) as usize,
        }
    }
}

/// Parses `2023-08-24`, or a date and time as in RFC 3339, with `T` or a space, in UTC unless an offset is given.
pub(crate) fn parse(text: &str) -> Option<Moment> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let is_mark =
        |at: usize, marks: &[u8]| text.as_bytes().get(at).is_some_and(|b| marks.contains(b));
    if !is_mark(4, b"-") || !is_mark(7, b"-") {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let midnight = days(year, month, day).filter(|_| civil_is(year, month, day))? * 86_400;
    if text.len() == 10 {
        return Some(Moment(midnight * 1_000_000));
    }
    if !is_mark(10, b"Tt ") || !is_mark(13, b":") || !is_mark(16, b":") {
        return None;
    }
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, zone) = fraction(text.get(19..)?)?;
    let seconds = midnight + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(Moment(seconds * 1_000_000 + micros))
}

fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(after) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = after
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(after.len());
    let digits: String = after[..end]
        .chars()
        .chain("000000".chars())
        .take(6)
        .collect();
    (end > 0).then(|| Some((digits.parse().ok()?, &after[end..])))?
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let is_pair = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
    if !is_pair(hours) || !is_pair(minutes) {
        return None;
    }
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

fn civil_is(year: i64, month: i64, day: i64) -> bool {
    days(year, month, day).is_some_and(|n| civil(n) == (year, month, day))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    Some(365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - DAYS_TO_1970)
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let era = days.div_euclid(146_097);
    let in_era = days.rem_euclid(146_097);
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + carry, month, day)
}

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_twilio_writes() {
        let moment = Moment(1_692_853_305_000_000);
        assert_eq!(moment.rfc2822(), "Thu, 24 Aug 2023 05:01:45 +0000");
        assert_eq!(moment.rfc3339(), "2023-08-24T05:01:45.000000Z");
        assert_eq!(moment.millis(), "2023-08-24T05:01:45.000Z");
        assert_eq!(moment.seconds(), "2023-08-24T05:01:45Z");
        assert_eq!(moment.carrier(), "2308240501");
    }

    #[test]
    fn reads_dates_and_times() {
        let moment = parse("2023-08-24T05:01:45Z").unwrap();
        assert_eq!(moment, Moment(1_692_853_305_000_000));
        assert_eq!(
            parse("2023-08-24 07:01:45.5+02:00"),
            Some(Moment(moment.0 + 500_000))
        );
        assert_eq!(
            parse("2000-02-29").map(|m| m.rfc2822()).as_deref(),
            Some("Tue, 29 Feb 2000 00:00:00 +0000")
        );
        for text in [
            "",
            "2023-02-29",
            "2023-13-01",
            "2023-1-1",
            "2023-08-24T",
            "2023-08-24T25:00:00Z",
            "2023-08-24T05:01:45é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_is_itself() {
        for day in -73_000..73_000 {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), Some(day));
        }
    }
}
