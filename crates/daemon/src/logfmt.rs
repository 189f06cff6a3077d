//! Writes one structured line of the log. No value can start a new line or a new pair.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The format of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// `key=value` pairs.
    Logfmt,
    /// A JSON object.
    Json,
}

/// The level of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// Normal operation.
    Info,
    /// An operator may have to act.
    Warn,
    /// An operator has to act.
    Error,
}

/// One line being written: `key=value` pairs or members of a JSON object.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl<'a> Line<'a> {
    /// Starts a line with its time, level and event.
    pub fn new(
        out: &'a mut Vec<u8>,
        format: Format,
        now: SystemTime,
        level: Level,
        event: &str,
    ) -> Self {
        match format {
            Format::Logfmt => out.extend_from_slice(b"ts="),
            Format::Json => out.extend_from_slice(b"{\"ts\":\""),
        }
        push_time(out, now);
        if format == Format::Json {
            out.push(b'"');
        }
        let level = match level {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        Line { out, format }
            .word("level", level)
            .word("event", event)
    }

    /// Adds a value of letters, digits and `-.:_/`; any other byte becomes `_`, and an empty value `-`.
    pub fn word(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        let is_json = self.format == Format::Json;
        if is_json {
            self.out.push(b'"');
        }
        if value.is_empty() {
            self.out.push(b'-');
        }
        self.out.extend(value.bytes().map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b':' | b'_' | b'/' => byte,
            _ => b'_',
        }));
        if is_json {
            self.out.push(b'"');
        }
        self
    }

    /// Adds a whole number.
    pub fn number(mut self, key: &str, value: u64) -> Self {
        self.key(key);
        push_number(self.out, value, 1);
        self
    }

    /// Adds true or false.
    pub fn flag(mut self, key: &str, value: bool) -> Self {
        self.key(key);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// Adds a duration in milliseconds with two decimals.
    pub fn milliseconds(mut self, key: &str, value: Duration) -> Self {
        self.key(key);
        let hundredths = u64::try_from(value.as_micros() / 10).unwrap_or(u64::MAX);
        push_number(self.out, hundredths / 100, 1);
        self.out.push(b'.');
        push_number(self.out, hundredths % 100, 2);
        self
    }

    /// Adds any text in quotes, without control characters and cut to 400 characters.
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.out.push(b'"');
        let mut encoded = [0; 4];
        let printable = value.chars().map(|c| if c == '\n' { ' ' } else { c });
        for c in printable
            .filter(|c| !c.is_control())
            .take(MAX_TEXT_CHARACTERS)
        {
            if c == '"' || c == '\\' {
                self.out.push(b'\\');
            }
            self.out
                .extend_from_slice(c.encode_utf8(&mut encoded).as_bytes());
        }
        self.out.push(b'"');
        self
    }

    /// Ends the line.
    pub fn end(self) {
        match self.format {
            Format::Logfmt => self.out.push(b'\n'),
            Format::Json => self.out.extend_from_slice(b"}\n"),
        }
    }

    fn key(&mut self, key: &str) {
        match self.format {
            Format::Logfmt => {
                self.out.push(b' ');
                self.out.extend_from_slice(key.as_bytes());
                self.out.push(b'=');
            }
            Format::Json => {
                self.out.extend_from_slice(b",\"");
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
        }
    }
}

fn push_time(out: &mut Vec<u8>, now: SystemTime) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3_600 % 24, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
        (u64::from(since_epoch.subsec_millis()), 3, b'Z'),
    ] {
        push_number(out, value, width);
        out.push(after);
    }
}

/// The Gregorian date of a day since 1970, counted in years that start in March so that the leap
/// day is the last one.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn push_number(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while value > 0 {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits[start.min(digits.len() - width)..]);
}

const MAX_TEXT_CHARACTERS: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format, build: impl FnOnce(Line<'_>) -> Line<'_>) -> String {
        let mut out = Vec::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        build(Line::new(&mut out, format, now, Level::Info, "callback")).end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_both_formats() {
        fn build(line: Line<'_>) -> Line<'_> {
            line.word("id", "a-1")
                .number("status", 204)
                .flag("new", true)
                .milliseconds("ms", Duration::from_micros(12_059))
                .text("msg", "a \"b\" \\ ü")
        }
        assert_eq!(
            line(Format::Logfmt, build),
            "ts=2024-02-29T12:34:56.007Z level=info event=callback id=a-1 status=204 new=true \
             ms=12.05 msg=\"a \\\"b\\\" \\\\ ü\"\n"
        );
        assert_eq!(
            line(Format::Json, build),
            "{\"ts\":\"2024-02-29T12:34:56.007Z\",\"level\":\"info\",\"event\":\"callback\",\
             \"id\":\"a-1\",\"status\":204,\"new\":true,\"ms\":12.05,\
             \"msg\":\"a \\\"b\\\" \\\\ ü\"}\n"
        );
    }

    #[test]
    fn no_value_starts_a_line_or_a_pair() {
        for format in [Format::Logfmt, Format::Json] {
            let text = line(format, |line| {
                line.word("id", "a\nts=x b=\"c\u{85}")
                    .text("msg", "a\r\nb\u{1b}[31m\u{0}")
            });
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(
                text.chars().filter(|c| c.is_control()).count() == 1,
                "{text}"
            );
            assert!(text.contains("a_ts_x_b__c__"), "{text}");
        }
    }

    #[test]
    fn long_text_is_cut() {
        let text = line(Format::Logfmt, |line| line.text("msg", &"x".repeat(5_000)));
        assert!(text.len() < 500);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_date(days), date, "day {days}");
        }
    }
}
