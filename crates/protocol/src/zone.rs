//! The time zones that a number may be in, by country code and, in North America, by area code.
//!
//! People take their numbers along when they move, so this is where a number is from.

mod table;

use table::TABLE;

/// The longest known prefix of a number in E.164, with its plus sign, and the zones of numbers with it, by their names in the
/// tz database. `None` if no prefix of it is known.
pub fn lookup(number: &str) -> Option<(&str, impl Iterator<Item = &'static str>)> {
    let digits = number.strip_prefix('+')?;
    (1..=MAX_PREFIX.min(digits.len())).rev().find_map(|length| {
        let prefix = digits.get(..length)?;
        let (_, zones) = (TABLE.iter())
            .find(|(prefixes, _)| prefixes.split(' ').any(|known| known == prefix))?;
        Some((number.get(..=length)?, zones.split(' ')))
    })
}

/// Digits of the longest prefix.
const MAX_PREFIX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(number: &str) -> Vec<&'static str> {
        lookup(number).map_or(Vec::new(), |(_, zones)| zones.collect())
    }

    #[test]
    fn the_longest_prefix_counts() {
        assert_eq!(zones("+13035550123"), ["America/Denver"]);
        assert_eq!(zones("+4915112345678"), ["Europe/Berlin"]);
        assert_eq!(lookup("+35312345678").map(|found| found.0), Some("+353"));
        // An area code in several zones, and one that is not known: those of the country.
        assert_eq!(
            zones("+18505550123"),
            ["America/Chicago", "America/New_York"]
        );
        assert_eq!(lookup("+19995550123").map(|found| found.0), Some("+1"));
        assert!(zones("+19995550123").contains(&"Pacific/Honolulu"));
    }

    #[test]
    fn what_is_no_number_has_no_zone() {
        for text in [
            "",
            "+",
            "+0",
            "+8001234567",
            "13035550123",
            "+ü",
            "MG1",
            "+999",
        ] {
            assert_eq!(zones(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn each_prefix_is_there_once() {
        let mut prefixes: Vec<_> = TABLE.iter().flat_map(|line| line.0.split(' ')).collect();
        let all = prefixes.len();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), all);
        assert!(
            prefixes
                .iter()
                .all(|prefix| (1..=MAX_PREFIX).contains(&prefix.len()))
        );
        assert!(all > 600);
    }
}
