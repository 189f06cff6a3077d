//! One key for one person, however a number is spelled.
//!
//! The key of a number in E.164 is the number, except in the countries of [`VARIANTS`]. Only other
//! spellings need the tables of `phonenumber`.

use std::borrow::Cow;
use std::str::FromStr;

use phonenumber::metadata::DATABASE;
use phonenumber::{Metadata, Mode, country};
use thiserror::Error;

use crate::address::{has_numbers, is_e164, split_channel};

/// A country that a national number belongs to, as ISO 3166-1 alpha-2 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Country(country::Id);

/// A text that is not a country's code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{0}\" is not a country's code")]
pub struct UnknownCountry(String);

impl FromStr for Country {
    type Err = UnknownCountry;

    fn from_str(text: &str) -> Result<Self, UnknownCountry> {
        let unknown = || UnknownCountry(text.chars().take(16).collect());
        let id = text.to_ascii_uppercase().parse().map_err(|_| unknown())?;
        if text.len() == 2 && DATABASE.by_id(country::Id::as_ref(&id)).is_some() {
            Ok(Self(id))
        } else {
            Err(unknown())
        }
    }
}

/// The key of the person behind an address: the same for all spellings and channels of a number.
///
/// The key of an address that is not a number is the address without the channel prefix. `country` is the country of
/// national numbers; numbers with a country code do not need it.
///
/// `whatsapp:+5215511112222` has the key `+525511112222`, `0012025584322` has `+12025584322`, `(202) 555-0143` of the
/// United States has `+12025550143`, and `messenger:12025550143` has `12025550143`.
///
/// ```
/// use protocol::person::key;
///
/// assert_eq!(key("whatsapp:+5215511112222", None), "+525511112222");
/// assert_eq!(key("0012025584322", None), "+12025584322");
/// ```
pub fn key(address: &str, country: Option<Country>) -> Cow<'_, str> {
    let (channel, bare) = split(address);
    if is_e164(bare) {
        return fold(bare);
    }
    match read_on(channel, bare, country) {
        Some(number) => Cow::Owned(fold(&number).into_owned()),
        None => Cow::Borrowed(bare),
    }
}

/// The number of a text in E.164, as it is dialled today; none if it is not a number of a possible length in its
/// country.
///
/// A number of [`VARIANTS`] becomes the form that receives SMS. Mexican numbers with a 1 behind the country code do not:
/// <https://www.twilio.com/en/guidelines/mx/sms>. Brazilian mobile numbers all have nine digits:
/// <https://support.gupshup.io/hc/en-us/articles/4407840924953>. Argentine mobile numbers keep the 9 if they have it:
/// it is part of their E.164 form, and reports disagree about whether SMS needs it: <https://github.com/AfterShip/phone/pull/253> and
/// <https://github.com/blinkbitcoin/blink-mobile/issues/2796>.
pub fn normalize(number: &str, country: Option<Country>) -> Option<String> {
    let (channel, bare) = split(number);
    read_on(channel, bare, country).filter(|number| is_possible(&number[1..]))
}

/// The digits of all numbers in E.164 with this key; a key that is not a number is returned unchanged.
pub fn forms(key: &str) -> Vec<String> {
    let digits = key.strip_prefix('+').unwrap_or(key);
    let mut forms = vec![digits.to_owned()];
    if is_e164(key) && VARIANTS.iter().any(|(code, _)| digits.starts_with(code)) {
        let (code, national) = digits.split_at(2);
        let others = (0..=4.min(national.len())).flat_map(|at| {
            let (area, rest) = national.split_at(at);
            let added = ["1", "9", "15"].map(|inserted| format!("{code}{area}{inserted}{rest}"));
            let removed = rest
                .strip_prefix('9')
                .map(|rest| format!("{code}{area}{rest}"));
            added.into_iter().chain(removed)
        });
        forms.extend(others.filter(|form| {
            let number = format!("+{form}");
            is_e164(&number) && fold(&number) == key
        }));
        forms.sort_unstable();
        forms.dedup();
    }
    forms
}

/// Whether a provider may show a recipient's address in another spelling than it was sent: WhatsApp and other channels
/// go by the form in use when an account was made, and SMS goes to the number as it is dialled today.
pub fn may_be_respelled(address: &str) -> bool {
    let (_, bare) = split(address);
    let key = key(address, None);
    key != bare || (bare != address && forms(&key).len() > 1)
}

/// Countries in which one person has several numbers in E.164, with how a national number is written
/// today. WhatsApp keeps the form that was in use when an account was made, and Twilio passes it on.
///
/// - Mexico: mobile numbers had a 1 behind the country code until August 2019, and 044 or 045 inside
///   the country. <https://faq.whatsapp.com/1294841057948784>,
///   <https://github.com/chatwoot/chatwoot/issues/14048>
/// - Brazil: mobile numbers got a ninth digit, 9, from 2012 to 2016. WhatsApp has it in area codes
///   11 to 28 and leaves it out elsewhere. Numbers that begin with 2 to 5 are landlines and have none.
///   <https://green-api.com/en/docs/faq/features-of-sending-and-receiving-messages-from-different-countries>,
///   <https://github.com/chatwoot/chatwoot/pull/14264>
/// - Argentina: mobile numbers have a 9 behind the country code when they are called from abroad or
///   on WhatsApp, and 15 behind the area code inside the country.
///   <https://faq.whatsapp.com/1294841057948784>, <https://github.com/chatwoot/chatwoot/pull/14264>
const VARIANTS: [(&str, fn(&str) -> Option<String>); 3] =
    [("52", mexican), ("55", brazilian), ("54", argentine)];

fn mexican(national: &str) -> Option<String> {
    let rest = ["1", "01", "044", "045"].into_iter();
    (rest.filter_map(|prefix| national.strip_prefix(prefix)))
        .find(|rest| rest.len() == 10)
        .map(str::to_owned)
}

fn brazilian(national: &str) -> Option<String> {
    let is_mobile = national.len() == 10 && matches!(national.as_bytes()[2], b'6'..=b'9');
    is_mobile.then(|| format!("{}9{}", &national[..2], &national[2..]))
}

fn argentine(national: &str) -> Option<String> {
    let core = national.strip_prefix('9').unwrap_or(national);
    match core.len() {
        10 => (core != national).then(|| national.to_owned()),
        // Area codes have two digits in Buenos Aires, three or four elsewhere: 15 stands in one place only.
        12 => (if core.starts_with("11") { 2..3 } else { 3..5 })
            .find(|at| core[*at..].starts_with("15"))
            .map(|at| format!("9{}{}", &core[..at], &core[at + 2..])),
        _ => None,
    }
}

/// A number in E.164 without what tells its variants apart.
fn fold(number: &str) -> Cow<'_, str> {
    for (code, variant) in VARIANTS {
        let Some(national) = number[1..].strip_prefix(code) else {
            continue;
        };
        return match variant(national) {
            // Whether the recipient's landline or mobile form was used does not matter: both are one line.
            Some(changed) if code == "54" => Cow::Owned(format!("+54{}", &changed[1..])),
            Some(changed) => Cow::Owned(format!("+{code}{changed}")),
            None => Cow::Borrowed(number),
        };
    }
    Cow::Borrowed(number)
}

/// Country code and national number as they are written today, in E.164.
fn today(code: &str, national: &str) -> String {
    let variant = VARIANTS.iter().find(|(country, _)| *country == code);
    let changed = variant.and_then(|(_, variant)| variant(national));
    format!("+{code}{}", changed.as_deref().unwrap_or(national))
}

fn split(address: &str) -> (&str, &str) {
    let address = address.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
    match address.split_once(':') {
        Some((channel, bare))
            if (2..=20).contains(&channel.len())
                && channel.bytes().all(|b| b.is_ascii_alphabetic()) =>
        {
            (channel, bare.trim_start())
        }
        _ => split_channel(address),
    }
}

fn read_on(channel: &str, bare: &str, country: Option<Country>) -> Option<String> {
    let (has_plus, digits) = digits(bare)?;
    if has_plus {
        international(&digits)
    } else if has_numbers(&channel.to_ascii_lowercase()) {
        without_plus(&digits, country)
    } else {
        None
    }
}

/// The digits of a written number and whether a plus sign is before them; none if there is anything else.
fn digits(text: &str) -> Option<(bool, String)> {
    let (mut has_plus, mut digits) = (false, String::new());
    for c in text.chars() {
        if let Some(digit) = decimal(c) {
            digits.push(digit);
        } else if matches!(c, '+' | '\u{ff0b}') && digits.is_empty() && !has_plus {
            has_plus = true;
        } else if !(c.is_whitespace() || is_invisible(c) || is_separator(c)) {
            return None;
        }
    }
    // No number is that long, even with prefixes.
    (!digits.is_empty() && digits.len() <= 32).then_some((has_plus, digits))
}

/// The digit that a character stands for in the scripts that phones write numbers in.
fn decimal(c: char) -> Option<char> {
    const ZEROS: [u32; 9] = [
        0x30, 0x660, 0x6f0, 0x966, 0x9e6, 0xe50, 0xff10, 0x1040, 0x17e0,
    ];
    let value = ZEROS
        .into_iter()
        .find_map(|zero| u32::from(c).checked_sub(zero).filter(|d| *d < 10))?;
    char::from_digit(value, 10)
}

fn is_separator(c: char) -> bool {
    matches!(
        c,
        '(' | ')' | '[' | ']' | '-' | '.' | '/' | '\u{ff08}' | '\u{ff09}' | '\u{ff0d}' | '\u{ff0e}'
    ) || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{b7}')
}

/// Characters that are not shown: joiners, marks of direction, soft hyphens.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn without_plus(digits: &str, country: Option<Country>) -> Option<String> {
    // Short codes are numbers of their own.
    if digits.len() <= 6 {
        return None;
    }
    let abroad = country.and_then(|country| dialled_abroad(digits, country));
    if let Some(number) = abroad {
        return Some(number);
    }
    if let Some(rest) = digits.strip_prefix("00").filter(|r| !r.starts_with('0')) {
        return international(rest);
    }
    let at_home = country.and_then(|country| national(digits, country));
    // Networks and exports leave out the plus sign. Fewer than ten digits are a national number or a short code.
    let elsewhere = if digits.len() >= 10 && !digits.starts_with('0') {
        international(digits)
    } else {
        None
    };
    let is_valid = |number: &String| is_valid(number);
    let is_possible = |number: &String| is_possible(&number[1..]);
    // Without the trunk prefix that the country writes, eleven digits are more likely to begin with a country code.
    let is_home_style = country.is_some_and(|country| is_written_so(digits, country));
    if digits.len() >= 11
        && !is_home_style
        && let Some(number) = elsewhere.clone().filter(is_valid)
    {
        return Some(number);
    }
    at_home
        .or_else(|| elsewhere.clone().filter(is_valid))
        .or_else(|| elsewhere.filter(|number| digits.len() >= 11 && is_possible(number)))
        .or_else(|| parsed(digits, country).filter(is_possible))
}

/// Whether the digits are those of the number as the country's own people write it.
fn is_written_so(digits: &str, country: Country) -> bool {
    phonenumber::parse(Some(country.0), digits).is_ok_and(|number| {
        let written = number.format().mode(Mode::National).to_string();
        (written.bytes().filter(u8::is_ascii_digit)).eq(digits.bytes())
    })
}

/// A number behind the country's own prefix for calls abroad, such as 011 in the United States.
fn dialled_abroad(digits: &str, country: Country) -> Option<String> {
    let prefix = DATABASE.by_id(country.0.as_ref())?.international_prefix()?;
    let found = prefix.find(digits).filter(|found| found.start() == 0)?;
    international(&digits[found.end()..]).filter(|number| is_valid(number))
}

/// A valid number of the country, with or without its trunk prefix or the country code.
fn national(digits: &str, country: Country) -> Option<String> {
    let code = DATABASE.by_id(country.0.as_ref())?.country_code();
    [
        parsed(digits, Some(country)),
        Some(today(&code.to_string(), digits)),
    ]
    .into_iter()
    .flatten()
    .find(|number| is_valid(number))
}

fn international(digits: &str) -> Option<String> {
    let (code, national) = split_code(digits)?;
    let number = today(code, national);
    if !national.starts_with('0') && is_e164(&number) && is_possible(&number[1..]) {
        return Some(number);
    }
    // A trunk prefix may stand behind the country code, as in +44 (0)20 7946 0000.
    let parsed = parsed(&format!("+{digits}"), main_country(code)).filter(|n| is_possible(&n[1..]));
    parsed.or_else(|| is_e164(&number).then_some(number))
}

/// The country that a country code is first of all for.
fn main_country(code: &str) -> Option<Country> {
    let countries = DATABASE.by_code(&code.parse::<u16>().ok()?)?;
    let main = countries.iter().find(|c| c.is_main_country_for_code());
    main.or(countries.first())?.id().parse().ok()
}

fn parsed(text: &str, country: Option<Country>) -> Option<String> {
    let number = phonenumber::parse(country.map(|country| country.0), text).ok()?;
    let number = number.format().mode(Mode::E164).to_string();
    let (code, national) = split_code(number.strip_prefix('+')?)?;
    Some(today(code, national)).filter(|number| is_e164(number))
}

fn is_valid(number: &str) -> bool {
    phonenumber::parse(None, number).is_ok_and(|number| number.is_valid())
}

/// Whether numbers of that many digits are in use under the country code.
fn is_possible(digits: &str) -> bool {
    split_code(digits).is_some_and(|(code, national)| {
        let countries = code
            .parse()
            .ok()
            .and_then(|code: u16| DATABASE.by_code(&code));
        (countries.unwrap_or_default().iter()).any(|country| has_length(country, national.len()))
    })
}

fn has_length(country: &Metadata, length: usize) -> bool {
    let kinds = country.descriptors();
    [
        kinds.fixed_line(),
        kinds.mobile(),
        kinds.toll_free(),
        kinds.premium_rate(),
        kinds.shared_cost(),
        kinds.personal_number(),
        kinds.voip(),
        kinds.pager(),
        kinds.uan(),
    ]
    .into_iter()
    .flatten()
    .any(|kind| {
        kind.possible_length()
            .iter()
            .any(|l| usize::from(*l) == length)
    })
}

/// Splits a number into country code and national number: no country code begins with another one.
fn split_code(digits: &str) -> Option<(&str, &str)> {
    (1..=3.min(digits.len()))
        .map(|at| digits.split_at(at))
        .find(|(code, _)| {
            let code = code.parse().ok();
            code.is_some_and(|code: u16| DATABASE.by_code(&code).is_some())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key, country, and spellings of one person; `=` marks those that name the country themselves.
    ///
    /// Numbers: for fiction by NANPA (555-0100 to 0199), Ofcom (7700 900xxx), ACMA (0491 570 006), ARCEP
    /// (06 39 98 xx xx); for the others examples of libphonenumber's metadata. Ways of writing: ITU-T
    /// E.123 and the countries' numbering plans at <https://www.itu.int/oth/T0202.aspx>; spellings that
    /// phones and exports use: capcom6/android-sms-gateway issues 28 and 300, logto-io/logto issue 8380.
    const SPELLINGS: &[(&str, &str, &[&str])] = &[
        (
            "+12025550143",
            "US",
            &[
                "=+12025550143",
                "=whatsapp:+12025550143",
                "=whatsapp:12025550143",
                "=WhatsApp:+1 202 555 0143",
                "=rcs:+12025550143",
                "=sms:12025550143",
                "=12025550143",
                "=0012025550143",
                "=+1 (202) 555-0143",
                "=\u{ff0b}1\u{a0}202.555.0143",
                "=\u{202a}+1 202\u{2011}555\u{2011}0143\u{202c}",
                "=+\u{661}\u{662}\u{660}\u{662}\u{665}\u{665}\u{665}\u{660}\u{661}\u{664}\u{663}",
                "=+12025550143\n",
                "2025550143",
                "(202) 555-0143",
                "1-202-555-0143",
                "01112025550143",
            ],
        ),
        (
            "+525511112222",
            "MX",
            &[
                "=+525511112222",
                "=whatsapp:+5215511112222",
                "=+52 1 55 1111 2222",
                "=5215511112222",
                "=525511112222",
                "=00525511112222",
                "5511112222",
                "15511112222",
                "0445511112222",
                "0455511112222",
                "015511112222",
            ],
        ),
        (
            "+5531987654321",
            "BR",
            &[
                "=+5531987654321",
                "=whatsapp:+553187654321",
                "=+55 (31) 98765-4321",
                "=553187654321",
                "=5531987654321",
                "31987654321",
                "3187654321",
                "031987654321",
            ],
        ),
        (
            "+541123456789",
            "AR",
            &[
                "=+541123456789",
                "=whatsapp:+5491123456789",
                "=+54 9 11 2345-6789",
                "=+54 11 15 2345-6789",
                "=5491123456789",
                "=541123456789",
                "1123456789",
                "011 15 2345-6789",
                "11 15 2345 6789",
            ],
        ),
        (
            "+542214567890",
            "AR",
            &[
                "=+54 9 221 456-7890",
                "=+54 221 15 456-7890",
                "0221 15 456-7890",
            ],
        ),
        (
            "+542954123456",
            "AR",
            &["=+54 9 2954 12-3456", "=+54 2954 15 12-3456"],
        ),
        (
            "+447700900123",
            "GB",
            &[
                "=+447700900123",
                "=+44 (0)7700 900123",
                "447700900123",
                "=00447700900123",
                "07700 900123",
            ],
        ),
        (
            "+447400123456",
            "GB",
            &["=+447400123456", "=447400123456", "07400 123456"],
        ),
        (
            "+61491570006",
            "AU",
            &[
                "=+61 491 570 006",
                "=+61(0)491570006",
                "=61491570006",
                "0491 570 006",
                "0011 61 491 570 006",
            ],
        ),
        (
            "+33639981234",
            "FR",
            &[
                "=+33 6 39 98 12 34",
                "=+33 (0)6 39 98 12 34",
                "06.39.98.12.34",
                "33639981234",
            ],
        ),
        (
            "+4915123456789",
            "DE",
            &[
                "=+49 1512 3456789",
                "=+49 (0)1512 3456789",
                "=004915123456789",
                "0151/23456789",
                "4915123456789",
            ],
        ),
        (
            "+390612345678",
            "IT",
            &["=+39 06 1234 5678", "=00390612345678", "06 1234 5678"],
        ),
        (
            "+393123456789",
            "IT",
            &["=+39 312 345 6789", "312 345 6789", "393123456789"],
        ),
        (
            "+919876543210",
            "IN",
            &[
                "=+91 98765 43210",
                "=919876543210",
                "098765 43210",
                "9876543210",
            ],
        ),
        (
            "+79123456789",
            "RU",
            &["=+7 912 345-67-89", "=79123456789", "8 (912) 345-67-89"],
        ),
        (
            "+6581234567",
            "SG",
            &["=+65 8123 4567", "6581234567", "8123 4567"],
        ),
        (
            "+8613812345678",
            "CN",
            &["=+86 138 1234 5678", "=8613812345678", "138 1234 5678"],
        ),
        (
            "+2348031234567",
            "NG",
            &["=+234 803 123 4567", "=2348031234567", "0803 123 4567"],
        ),
        (
            "+819012345678",
            "JP",
            &["=+81 90-1234-5678", "090-1234-5678", "010 81 90 1234 5678"],
        ),
        (
            "+4532123456",
            "DK",
            &["=+45 32 12 34 56", "4532123456", "32123456"],
        ),
    ];

    fn country(code: &str) -> Option<Country> {
        Some(code.parse().unwrap())
    }

    #[test]
    fn keys_are_as_documented() {
        let country = "US".parse().ok();
        assert_eq!(key("whatsapp:+5215511112222", None), "+525511112222");
        assert_eq!(key("0012025584322", None), "+12025584322");
        assert_eq!(key("(202) 555-0143", country), "+12025550143");
        assert_eq!(key("messenger:12025550143", None), "12025550143");
    }

    #[test]
    fn all_spellings_of_a_person_have_one_key() {
        let mut spellings_seen = 0;
        for (expected, code, spellings) in SPELLINGS {
            for spelling in *spellings {
                spellings_seen += 1;
                let (text, countries) = match spelling.strip_prefix('=') {
                    Some(text) => (
                        text,
                        vec![None, country(code), country("US"), country("DE")],
                    ),
                    None => (*spelling, vec![country(code)]),
                };
                for country in countries {
                    assert_eq!(key(text, country), *expected, "{text} in {country:?}");
                }
            }
        }
        // Ten digits are taken for a national number first.
        assert_eq!(key("6581234567", None), "+6581234567");
        assert_eq!(key("447700900123", None), "+447700900123");
        assert!(spellings_seen >= 40, "{spellings_seen}");
    }

    #[test]
    fn different_people_keep_different_keys() {
        for text in [
            // Landlines in Brazil, which a ninth digit would turn into another recipient's mobile number.
            "+551133334444",
            "+5511933334444",
            // Short codes, senders and identifiers are their own keys, whatever the country.
            "12345",
            "82555",
            "SUPPORT",
            "messenger:12025550143",
            "rcs:brand_agent",
            "MG0123456789abcdef0123456789abcdef",
            // National numbers, while their country is unknown.
            "2025550143",
            "07700900123",
            "98765432",
            "",
            "+",
        ] {
            let (_, bare) = split(text);
            assert_eq!(key(text, None), bare);
        }
        assert_eq!(key("12345", country("US")), "12345");
        assert_ne!(key("+525511112222", None), key("+525511112223", None));
    }

    #[test]
    fn numbers_are_normalized_to_how_they_are_dialled() {
        for (text, code, expected) in [
            ("(202) 555-0143", Some("US"), Some("+12025550143")),
            ("whatsapp:12025550143", None, Some("+12025550143")),
            ("+61(0)491570006", None, Some("+61491570006")),
            ("+44 20 7946 0000", None, Some("+442079460000")),
            ("+52 1 55 1111 2222", None, Some("+525511112222")),
            ("+55 31 8765-4321", None, Some("+5531987654321")),
            ("011 15 2345-6789", Some("ar"), Some("+5491123456789")),
            ("+54 11 2345-6789", None, Some("+541123456789")),
            ("(202) 555-0143", None, None),
            ("+1 202 555", None, None),
            ("+999 123 456 789", None, None),
            ("12345", Some("US"), None),
            ("1-800-FLOWERS", Some("US"), None),
            ("SUPPORT", None, None),
            ("messenger:12025550143", None, None),
            ("", None, None),
        ] {
            let country = code.map(|code| code.parse().unwrap());
            assert_eq!(normalize(text, country).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_in_use_stay_as_they_are() {
        let mut seen = 0;
        for country in DATABASE.iter() {
            let kinds = country.descriptors();
            let kinds = [kinds.mobile(), kinds.fixed_line(), kinds.voip()];
            for example in kinds
                .into_iter()
                .flatten()
                .filter_map(|kind| kind.example())
            {
                let number = format!("+{}{example}", country.country_code());
                if !(country.id() == "MX" && example.starts_with('1')) {
                    assert_eq!(normalize(&number, None).as_deref(), Some(number.as_str()));
                    seen += 1;
                }
            }
        }
        assert!(seen >= 400, "{seen}");
    }

    #[test]
    fn all_forms_of_a_key_are_known() {
        assert_eq!(forms("+525511112222"), ["5215511112222", "525511112222"]);
        assert_eq!(forms("+5531987654321"), ["553187654321", "5531987654321"]);
        assert_eq!(
            forms("+542214567890"),
            [
                "54221154567890",
                "54221415567890",
                "542214567890",
                "5492214567890"
            ]
        );
        assert_eq!(forms("+12025550143"), ["12025550143"]);
        assert_eq!(forms("brand_agent"), ["brand_agent"]);
    }

    #[test]
    fn addresses_that_come_back_in_another_spelling_are_known() {
        for (address, expected) in [
            ("whatsapp:+525511112222", true),
            ("whatsapp:+5215511112222", true),
            ("whatsapp:+553187654321", true),
            ("whatsapp:+5531987654321", true),
            ("whatsapp:+5491123456789", true),
            ("rcs:+541123456789", true),
            ("+5215511112222", true),
            ("+553187654321", true),
            ("+525511112222", false),
            ("+5531987654321", false),
            ("whatsapp:+12025550143", false),
            ("whatsapp:+551133334444", false),
            ("messenger:12025550143", false),
            ("+12025550143", false),
            ("12345", false),
        ] {
            assert_eq!(may_be_respelled(address), expected, "{address}");
        }
    }

    #[test]
    fn countries_are_those_of_iso_3166() {
        for code in ["UK", "EU", "", "U", "USA", "001", "\u{fc}"] {
            assert!(code.parse::<Country>().is_err(), "{code}");
        }
        assert!("de".parse::<Country>().is_ok());
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(text in "\\PC{0,24}|(whatsapp:|sms:)?\\+?(00)?(1|52|54|55|44)?[0-9 ()-]{3,14}") {
            for country in [None, country("US"), country("AR"), country("MX"), country("BR")] {
                let once = key(&text, country).into_owned();
                if once.starts_with('+') {
                    prop_assert_eq!(&key(&once, None), &once);
                }
                if let Some(number) = normalize(&text, country) {
                    prop_assert!(is_e164(&number));
                    prop_assert_eq!(key(&number, None), once);
                }
            }
        }
    }
}
