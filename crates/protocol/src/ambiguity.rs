//! Checks that the signed text of a request has only one meaning.
//!
//! Twilio signs the URL and, for a form, the sorted parameters, names and values without separators. One
//! signed text can therefore be divided into other parameters, or read as another URL. A person who texts
//! `…From+12025550199MessageSidSM…` and sees the signature of that message could divide it into a message
//! of another person, or into a status callback of another message. A request is accepted only if its
//! kind, account, message, sender, recipient and status are the only ones that its signed text can have.
//!
//! The rule rests on four facts about Twilio's requests:
//! - Parameters are sorted, so that a person's text cannot be read as a parameter that sorts before the one that
//!   holds it.
//! - `AccountSid` sorts before every parameter that a person fills in, `SmsSid` and `To` behind all of them.
//! - A message's SID is not known before its text is written, and stands in a request more than once.
//! - Status callbacks hold no text of a person.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use thiserror::Error;

use crate::callback::{Callback, Kind};
use crate::callback_url::attempt;
use crate::form::Form;
use crate::sid;
use crate::signature::Payload;
use crate::status::{self, Provider};
use crate::url::{query, without_fragment};

/// Why the signed text of a request has, or may have, another meaning.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Ambiguity {
    /// The signed text can be divided into parameters in another way, in which this parameter differs.
    #[error("the signed text can be divided so that parameter {0} differs")]
    Divisible(&'static str),
    /// A parameter that decides what the request is about occurs twice, and only the order tells which counts.
    #[error("parameter {0} occurs more than once")]
    Repeated(&'static str),
    /// The SIDs of the message differ, so at least one of them belongs to another message.
    #[error("parameters MessageSid, SmsSid and SmsMessageSid differ")]
    Contradictory,
    /// The URL of a POST has a parameter of Twilio's in its query, as the URL of a GET has.
    #[error("the query of the URL has parameter {0}, which only a GET request has")]
    Query(&'static str),
    /// A parameter's name has a character that no name has, so part of a URL may have become a name.
    #[error("the name of a parameter has a character that separates the parts of a URL")]
    Name,
}

/// Refuses a request whose signed text may have another meaning than `callback`, which was read from `form`.
///
/// `target` is the request's path and query, or its absolute URL; `payload` is what is signed beside it, and `pairs`
/// are its parameters as [`Payload::signed`] returns them.
///
/// # Errors
///
/// The first reason found. The request may still be genuine; an operator may accept it.
pub fn check(
    target: &str,
    payload: &Payload<'_>,
    pairs: &[(&str, &str)],
    form: &Form<'_>,
    callback: &Callback<'_>,
) -> Result<(), Ambiguity> {
    let target = without_fragment(target);
    match payload {
        Payload::Form(_) => {
            refuse_query(target)?;
            if callback.kind == Kind::Status && is_plain(target, pairs, callback) {
                return Ok(());
            }
            refuse_contradiction(form)?;
            Signed::new(target, pairs)?.check(callback)
        }
        Payload::Empty => {
            refuse_repeats(form)?;
            refuse_contradiction(form)?;
            refuse_form_in_url(target, true)
        }
        Payload::Body(_) => check_url(target, payload),
    }
}

/// Refuses a request whose URL may be the signed text of a form or of a GET. Nothing else needs a check in two kinds of request:
/// a hash covers each byte of a JSON body, and the parameters of the debugger's webhook name no message.
///
/// # Errors
///
/// As [`check`].
pub fn check_url(target: &str, payload: &Payload<'_>) -> Result<(), Ambiguity> {
    let target = without_fragment(target);
    refuse_query(target)?;
    match payload {
        Payload::Form(form) => {
            (form.iter()).try_for_each(|(name, _)| match name.bytes().any(is_separator) {
                true => Err(Ambiguity::Name),
                false => Ok(()),
            })
        }
        Payload::Empty | Payload::Body(_) => refuse_form_in_url(target, false),
    }
}

/// A cheap check that most status callbacks pass: only names that Twilio sends, each once, and no value in which a
/// name could begin. [`Signed::check`] accepts all of these, so it can be skipped for them.
fn is_plain(target: &str, pairs: &[(&str, &str)], callback: &Callback<'_>) -> bool {
    let has_capital = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
    // Both lists are sorted and the iterator only advances, so a name that occurs twice is not found the second time.
    let mut known = KNOWN.iter();
    let is_plain = |&(name, value): &(&str, &str)| {
        known.any(|known| *known == name)
            && match name {
                ACCOUNT_SID => value == callback.account_sid,
                "MessageSid" | "SmsMessageSid" | "SmsSid" => value == callback.message_sid,
                "From" | "To" => is_number(value) && !has_capital(value),
                _ => !has_capital(value) || name.ends_with("Sid") && sid::is_any(value),
            }
    };
    !has_capital(target) && pairs.iter().all(is_plain)
}

/// Whether the query of a URL has a parameter that Twilio sends, so that each POST to it is ambiguous.
pub(crate) fn has_known_parameter(url: &str) -> bool {
    refuse_query(without_fragment(url)).is_err()
}

/// Refuses a GET that is replayed as a POST: its URL still has parameters of Twilio's.
fn refuse_query(target: &str) -> Result<(), Ambiguity> {
    if query(target).is_empty() {
        return Ok(());
    }
    let names = query(target).split('&').map(name_of);
    match names.filter_map(known).next() {
        Some(name) => Err(Ambiguity::Query(name)),
        None => Ok(()),
    }
}

/// Refuses a form that is replayed as a GET or as the URL of a JSON body: its `AccountSid` is in the path or in the value
/// of a query's parameter. Only if `is_query`, a person's text in a value may contain it.
fn refuse_form_in_url(target: &str, is_query: bool) -> Result<(), Ambiguity> {
    for at in SIDS.find_iter(target.as_bytes()) {
        let Some((ACCOUNT_SID, start)) = sid_before(target, at) else {
            continue;
        };
        let path_end = target.find('?').unwrap_or(target.len());
        let before = target.get(path_end + 1..start).unwrap_or_default();
        let piece = before.rsplit('&').next().unwrap_or_default();
        let is_text = is_query
            && piece.contains('=')
            && known(name_of(piece)).is_some_and(|name| !IDENTITY.contains(&name));
        if !is_text {
            return Err(Ambiguity::Divisible(ACCOUNT_SID));
        }
    }
    Ok(())
}

fn name_of(piece: &str) -> &str {
    piece.split_once('=').map_or(piece, |(name, _)| name)
}

fn refuse_repeats(form: &Form<'_>) -> Result<(), Ambiguity> {
    let pairs = form.sorted();
    match pairs
        .windows(2)
        .find_map(|two| repeated(two[0].0, two[1].0))
    {
        Some(name) => Err(Ambiguity::Repeated(name)),
        None => Ok(()),
    }
}

fn repeated(name: &str, next: &str) -> Option<&'static str> {
    if name == next { known(name) } else { None }
}

fn refuse_contradiction(form: &Form<'_>) -> Result<(), Ambiguity> {
    let mut sids = ["MessageSid", "SmsSid", "SmsMessageSid"]
        .into_iter()
        .filter_map(|name| form.filled(name));
    let first = sids.next();
    if sids.any(|sid| Some(sid) != first) {
        return Err(Ambiguity::Contradictory);
    }
    Ok(())
}

/// The signed text of a form, and the positions of its parameters.
struct Signed<'a> {
    text: String,
    places: Vec<Place<'a>>,
}

struct Place<'a> {
    name: &'a str,
    start: usize,
    value_start: usize,
    end: usize,
}

/// The name of a parameter in the signed text, with something behind it that could be its value.
struct Mark {
    name: &'static str,
    start: usize,
}

impl<'a> Signed<'a> {
    fn new(target: &str, pairs: &[(&'a str, &'a str)]) -> Result<Self, Ambiguity> {
        let len: usize = pairs.iter().map(|(n, v)| n.len() + v.len()).sum();
        let mut text = String::with_capacity(target.len() + len);
        text.push_str(target);
        let mut places: Vec<Place<'a>> = Vec::with_capacity(pairs.len());
        for &(name, value) in pairs {
            if name.bytes().any(is_separator) {
                return Err(Ambiguity::Name);
            }
            if let Some(name) = places.last().and_then(|place| repeated(place.name, name)) {
                return Err(Ambiguity::Repeated(name));
            }
            let start = text.len();
            text.push_str(name);
            let value_start = text.len();
            text.push_str(value);
            let end = text.len();
            places.push(Place {
                name,
                start,
                value_start,
                end,
            });
        }
        Ok(Self { text, places })
    }

    fn check(&self, callback: &Callback<'_>) -> Result<(), Ambiguity> {
        self.check_attempt()?;
        self.check_address("From", "MessageSid", callback.kind)?;
        self.check_address("To", "~", callback.kind)?;
        for name in ["MessageStatus", "SmsStatus"] {
            self.check_status(name)?;
        }
        match callback.kind {
            Kind::Status if self.place("From").is_none() && self.has_bare_sender() => {
                return Err(Ambiguity::Divisible("From"));
            }
            Kind::Inbound if self.place("Body").is_none() && self.text.contains("Body") => {
                return Err(Ambiguity::Divisible("Body"));
            }
            Kind::Status | Kind::Inbound => {}
        }
        if callback.kind == Kind::Inbound {
            self.check_media()?;
            self.check_text_end()?;
        }
        self.marks(|mark| self.check_mark(&mark, callback.kind))
    }

    /// Files are counted behind all texts that are signed before them, and an address holds no parameter's name.
    fn check_media(&self) -> Result<(), Ambiguity> {
        let is_media = |place: &&Place<'_>| known(place.name) == Some(MEDIA_URL);
        let mut media = self.places.iter().filter(is_media).peekable();
        let is_counted = (self.place("NumMedia")).is_none_or(|index| self.value(index) != "0");
        let has_text = TEXTS_BEFORE_MESSAGE_SID
            .iter()
            .any(|name| self.place(name).is_some());
        if media.peek().is_some() && !is_counted && has_text {
            return Err(Ambiguity::Divisible(MEDIA_URL));
        }
        let has_name = media.any(|place| {
            let url = &self.text[place.value_start..place.end];
            KNOWN
                .iter()
                .any(|known| known.len() >= MIN_NAME_BYTES && url.contains(known))
        });
        if has_name {
            Err(Ambiguity::Divisible(MEDIA_URL))
        } else {
            Ok(())
        }
    }

    /// Words behind a text do not become the name of a parameter, which has no blanks.
    fn check_text_end(&self) -> Result<(), Ambiguity> {
        let next = self
            .place("Body")
            .and_then(|index| self.places.get(index + 1));
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
        };
        match next {
            Some(next) if next.name < "From" && !is_name(next.name) => {
                Err(Ambiguity::Divisible("Body"))
            }
            _ => Ok(()),
        }
    }

    /// The end of a URL could have become a parameter. Of a URL, only the attempt that it names counts.
    fn check_attempt(&self) -> Result<(), Ambiguity> {
        let first = self
            .places
            .first()
            .map_or(self.text.len(), |place| place.start);
        let account = self
            .place(ACCOUNT_SID)
            .map_or(first, |index| self.places[index].start);
        if account > first && attempt(&self.text[..account]) != attempt(&self.text[..first]) {
            return Err(Ambiguity::Divisible(ACCOUNT_SID));
        }
        Ok(())
    }

    /// An address is a number. Another one has the characters of an address, a parameter of Twilio's follows
    /// it, and it holds the name of none that is signed behind it and before `limit`. A status
    /// callback may have an empty one while the messaging service has yet to choose the sender.
    fn check_address(&self, name: &'static str, limit: &str, kind: Kind) -> Result<(), Ambiguity> {
        let Some(index) = self.place(name) else {
            return Ok(());
        };
        let value = self.value(index);
        if is_number(value) {
            return Ok(());
        }
        // Status callbacks say nothing else of an address.
        let has_name = kind == Kind::Inbound
            && (KNOWN.iter())
                .filter(|known| **known > name && **known < limit)
                .any(|known| value.contains(known));
        let next = self.places.get(index + 1);
        // The name that follows could be part of a sender's name instead.
        let may_be_name = |next: &Place<'_>| {
            next.name.len() <= MAX_SENDER_NAME_BYTES && next.name != "MessageSid"
        };
        let is_missing = kind == Kind::Status && value.is_empty() && !next.is_some_and(may_be_name);
        if !(is_missing || is_identifier(value))
            || has_name
            || next.is_some_and(|next| known(next.name).is_none())
        {
            return Err(Ambiguity::Divisible(name));
        }
        Ok(())
    }

    /// A status has no capital behind a small letter, since names begin with one, and goes on in no name
    /// behind it.
    fn check_status(&self, name: &'static str) -> Result<(), Ambiguity> {
        let Some(index) = self.place(name) else {
            return Ok(());
        };
        let value = self.value(index);
        if status::lookup(Provider::Twilio, value).is_some() {
            return Ok(());
        }
        let has_hump = (value.as_bytes().windows(2))
            .any(|two| !two[0].is_ascii_uppercase() && two[1].is_ascii_uppercase());
        let goes_on = (self.places.get(index + 1))
            .is_some_and(|next| !next.name.starts_with(|c: char| c.is_ascii_uppercase()));
        if has_hump || goes_on {
            return Err(Ambiguity::Divisible(name));
        }
        Ok(())
    }

    /// The name of a sender can consist of letters alone, so that it does not make a mark.
    fn has_bare_sender(&self) -> bool {
        FROM.find_iter(self.text.as_bytes()).any(|at| {
            let next = self.text.as_bytes().get(at + "From".len());
            next.is_some_and(u8::is_ascii_alphanumeric)
                && !self.places.iter().any(|place| {
                    (place.start..place.value_start).contains(&at) && known(place.name).is_some()
                })
        })
    }

    /// Each mark stands at the start of the parameter that it names, or in a text that cannot have
    /// swallowed that parameter.
    fn check_mark(&self, mark: &Mark, kind: Kind) -> Result<(), Ambiguity> {
        let ambiguous = Err(Ambiguity::Divisible(mark.name));
        // Before the first parameter is the target. Whatever it has swallowed begins with the account.
        let index = self
            .places
            .partition_point(|place| place.start <= mark.start);
        let Some(index) = index.checked_sub(1) else {
            return if mark.name == ACCOUNT_SID {
                ambiguous
            } else {
                Ok(())
            };
        };
        let place = &self.places[index];
        let mark_end = mark.start + mark.name.len();
        if mark.start < place.value_start {
            // A longer name that ends with the mark could have been made up to hide it, unless it is Twilio's or
            // stands behind what it would hide.
            let is_own = mark.start == place.start
                || known(place.name).is_some()
                || mark.name == ACCOUNT_SID && self.may_hold(index, mark, kind);
            return if mark_end == place.value_start && is_own {
                Ok(())
            } else {
                ambiguous
            };
        }
        let is_inside = mark_end <= place.end;
        if is_inside && self.may_hold(index, mark, kind) {
            Ok(())
        } else {
            ambiguous
        }
    }

    /// Whether the value of the parameter `holder` may have a mark in it without having swallowed the
    /// parameter that the mark names.
    fn may_hold(&self, holder: usize, mark: &Mark, kind: Kind) -> bool {
        if mark.name == ACCOUNT_SID {
            return self.place(ACCOUNT_SID).is_some_and(|index| index < holder);
        }
        let is_behind = |name: &str| self.place(name).is_some_and(|index| index > holder);
        if kind == Kind::Status {
            // Twilio or the channel chose the words of these two.
            let wordings = ["ChannelStatusMessage", "ErrorMessage"];
            return wordings.contains(&self.places[holder].name) && self.place(mark.name).is_some();
        }
        if IDENTITY.contains(&self.places[holder].name) {
            return false;
        }
        match mark.name {
            "ErrorCode" | "MessageStatus" | "SmsStatus" => true,
            "From" => {
                let is_sure = match self.is_sender_repeated() {
                    Some(is_same) => is_same,
                    None => is_behind("From") && self.is_sender_sure(holder, mark),
                };
                is_sure || self.is_anchored(holder)
            }
            "MessageSid" => {
                is_behind("MessageSid") && self.is_sid_sure(holder, mark)
                    || self.is_anchored(holder)
            }
            // No text stands behind these, so what names one that sorts before them was not swallowed either.
            name => ORDERED
                .iter()
                .any(|other| *other <= name && is_behind(other)),
        }
    }

    /// Whether the message's SID stands before and behind a text. Then the one before belongs to the message, because
    /// the author of the text did not know it; so does everything before it.
    fn is_anchored(&self, holder: usize) -> bool {
        // An empty SID proves nothing: the author of the text may have written its name as well.
        let filled = |name| {
            self.place(name)
                .filter(|index| !self.value(*index).is_empty())
        };
        filled("MessageSid").is_some_and(|index| index < holder)
            && (["SmsMessageSid", "SmsSid"].into_iter())
                .any(|name| filled(name).is_some_and(|index| index > holder))
    }

    /// Whether `WaId`, which is signed behind all texts, names the sender. None where there is none to compare.
    fn is_sender_repeated(&self) -> Option<bool> {
        let value = |name| self.place(name).map(|index| self.value(index));
        let number = value("From")?.strip_prefix("whatsapp:+")?;
        Some(number == value("WaId")?.trim_start_matches('+'))
    }

    /// Whether the sender behind a text that names one is the message's own: a text further on could have
    /// brought it. Only channels have such texts.
    fn is_sender_sure(&self, holder: usize, mark: &Mark) -> bool {
        let has_channel = |name| {
            self.place(name)
                .is_some_and(|index| self.value(index).contains(':'))
        };
        !has_channel("From") && !has_channel("To")
            || !self.names_any(holder, mark, &TEXTS_BEFORE_MESSAGE_SID)
    }

    /// The same for the message's SID.
    fn is_sid_sure(&self, holder: usize, mark: &Mark) -> bool {
        ["SmsMessageSid", "SmsSid"]
            .iter()
            .any(|name| self.place(name).is_some())
            || !self.names_any(holder, mark, &TEXTS_BEHIND_MESSAGE_SID)
    }

    fn names_any(&self, holder: usize, mark: &Mark, names: &[&str]) -> bool {
        let rest = &self.text[mark.start..self.places[holder].end];
        names.iter().any(|name| rest.contains(name))
    }

    /// Calls `check` for each mark until one fails.
    fn marks(&self, check: impl Fn(Mark) -> Result<(), Ambiguity>) -> Result<(), Ambiguity> {
        let text = self.text.as_str();
        let bytes = text.as_bytes();
        for at in SIDS.find_iter(bytes) {
            if self.is_end_of_own_name(at + "Sid".len()) {
                continue;
            }
            let Some((name, start)) = sid_before(text, at) else {
                continue;
            };
            check(Mark { name, start })?;
            // `SmsMessageSid` ends as `MessageSid` does.
            if name == "SmsMessageSid" {
                let start = start + "Sms".len();
                check(Mark {
                    name: "MessageSid",
                    start,
                })?;
            }
        }
        for at in STATUSES.find_iter(bytes) {
            let next = bytes.get(at + "Status".len());
            if !next.is_some_and(u8::is_ascii_lowercase) {
                continue;
            }
            let name = ["MessageStatus", "SmsStatus"]
                .into_iter()
                .find(|name| text[..at + "Status".len()].ends_with(name));
            if let Some(name) = name {
                let start = at + "Status".len() - name.len();
                check(Mark { name, start })?;
            }
        }
        for start in CODES.find_iter(bytes) {
            let next = bytes.get(start + "ErrorCode".len());
            if next.is_some_and(u8::is_ascii_digit) {
                check(Mark {
                    name: "ErrorCode",
                    start,
                })?;
            }
        }
        for (name, finder) in [("From", &*FROM), ("To", &*TO)] {
            for start in finder.find_iter(bytes) {
                if begins_address(&bytes[start + name.len()..]) {
                    check(Mark { name, start })?;
                }
            }
        }
        Ok(())
    }

    /// Whether the name of a parameter ends here that is a mark's own, as nearly all marks are.
    fn is_end_of_own_name(&self, end: usize) -> bool {
        let index = self.places.partition_point(|place| place.value_start < end);
        self.places.get(index).is_some_and(|place| {
            // A longer name may begin in the value before.
            let is_longer = place.name == "MessageSid" && self.text[..place.start].ends_with("Sms");
            place.value_start == end && IDENTITY.contains(&place.name) && !is_longer
        })
    }

    fn place(&self, name: &str) -> Option<usize> {
        // Names of other lengths differ at once, which a binary search makes no use of.
        self.places.iter().position(|place| place.name == name)
    }

    fn value(&self, index: usize) -> &str {
        let place = &self.places[index];
        &self.text[place.value_start..place.end]
    }
}

/// The parameter of the request's own whose name ends with the `Sid` at `at`, if a SID follows, and where it starts.
fn sid_before(text: &str, at: usize) -> Option<(&'static str, usize)> {
    let end = at + "Sid".len();
    let follows = text.get(end..end + SID_LEN)?;
    let before = &text[..end];
    let name = if sid::is_account(follows) {
        [ACCOUNT_SID].as_slice()
    } else if sid::is_message(follows) {
        ["SmsMessageSid", "MessageSid", "SmsSid"].as_slice()
    } else {
        return None;
    };
    let name = name.iter().find(|name| before.ends_with(**name))?;
    Some((name, end - name.len()))
}

/// Whether a number, or an address with its channel, could begin here.
fn begins_address(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(b'+' | b'0'..=b'9') => true,
        Some(b'a'..=b'z') => bytes
            .iter()
            .take(MAX_CHANNEL_BYTES)
            .find(|byte| !byte.is_ascii_lowercase())
            .is_some_and(|byte| *byte == b':'),
        _ => false,
    }
}

/// Whether an address has digits only, behind a channel and a plus sign.
fn is_number(address: &str) -> bool {
    let bare = address.split_once(':').map_or(address, |(_, bare)| bare);
    let digits = bare.strip_prefix('+').unwrap_or(bare);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether an address could be the name of a sender, or a channel's own identifier.
fn is_identifier(address: &str) -> bool {
    let (is_short, bare) = match address.split_once(':') {
        Some((_, bare)) => (true, bare),
        None => (address.len() <= MAX_SENDER_NAME_BYTES, address),
    };
    // Punctuation is what a text has that is not an address.
    let is_plain = |byte: u8| !byte.is_ascii_punctuation() || b"-_+&.:".contains(&byte);
    is_short && !bare.is_empty() && bare.bytes().all(is_plain)
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'=' | b'&' | b'#' | b'+' | b':')
}

/// The name itself if Twilio sends a parameter of this name with messages.
fn known(name: &str) -> Option<&'static str> {
    // Files are numbered.
    let name = match name.strip_prefix("Media") {
        Some(_) => name.trim_end_matches(|c: char| c.is_ascii_digit()),
        None => name,
    };
    let index = KNOWN.binary_search(&name).ok()?;
    Some(KNOWN[index])
}

const ACCOUNT_SID: &str = "AccountSid";
const MEDIA_URL: &str = "MediaUrl";

/// Shorter names are words that an address of a file may have in it, such as `Body`.
const MIN_NAME_BYTES: usize = 8;

/// Characters of a SID.
const SID_LEN: usize = 34;

/// Longest name that a sender can have instead of a number.
const MAX_SENDER_NAME_BYTES: usize = 11;

/// Longest name of a channel that is looked for.
const MAX_CHANNEL_BYTES: usize = 24;

/// The parameters that say what a request is about.
const IDENTITY: [&str; 9] = [
    ACCOUNT_SID,
    "ErrorCode",
    "From",
    "MessageSid",
    "MessageStatus",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "To",
];

/// Of these the ones that every inbound message has, in the order in which they are signed.
const ORDERED: [&str; 5] = ["From", "MessageSid", "SmsMessageSid", "SmsSid", "To"];

/// Parameters with a person's text that are signed between `From` and `MessageSid`.
const TEXTS_BEFORE_MESSAGE_SID: [&str; 5] = [
    "InteractiveData",
    "Label",
    "ListDescription",
    "ListId",
    "ListTitle",
];

/// Parameters with a person's text that are signed between `MessageSid` and `SmsMessageSid`.
const TEXTS_BEHIND_MESSAGE_SID: [&str; 3] = ["ProfileName", "ReferralBody", "ReferralHeadline"];

/// The parameters that Twilio sends with messages, sorted; `MediaContentType` and `MediaUrl` without number.
///
/// <https://www.twilio.com/docs/messaging/guides/webhook-request>
/// <https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks>
const KNOWN: [&str; 68] = [
    "AccountSid",
    "AddOns",
    "Address",
    "ApiVersion",
    "Body",
    "ButtonPayload",
    "ButtonText",
    "ButtonType",
    "ChannelInstallSid",
    "ChannelMetadata",
    "ChannelPrefix",
    "ChannelStatusMessage",
    "ChannelToAddress",
    "ErrorCode",
    "ErrorMessage",
    "ErrorUrl",
    "EventType",
    "ExternalUserId",
    "FlowData",
    "Forwarded",
    "FrequentlyForwarded",
    "From",
    "FromCity",
    "FromCountry",
    "FromState",
    "FromZip",
    "InteractiveData",
    "Label",
    "Latitude",
    "ListDescription",
    "ListId",
    "ListTitle",
    "Longitude",
    "MediaContentType",
    "MediaUrl",
    "MessageSid",
    "MessageStatus",
    "MessageType",
    "MessagingServiceSid",
    "NumMedia",
    "NumSegments",
    "OptOutType",
    "OriginalRepliedMessageSender",
    "OriginalRepliedMessageSid",
    "Price",
    "PriceUnit",
    "ProfileName",
    "RawDlrDoneDate",
    "ReferralBody",
    "ReferralCtwaClid",
    "ReferralHeadline",
    "ReferralMediaContentType",
    "ReferralMediaId",
    "ReferralMediaUrl",
    "ReferralNumMedia",
    "ReferralSourceId",
    "ReferralSourceType",
    "ReferralSourceUrl",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "StructuredMessage",
    "To",
    "ToCity",
    "ToCountry",
    "ToState",
    "ToZip",
    "WaId",
];

static SIDS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Sid"));
static STATUSES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Status"));
static CODES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("ErrorCode"));
static FROM: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("From"));
static TO: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("To"));

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;

    const ACCOUNT: &str = "AccountSid=AC0123456789abcdef0123456789abcdef";
    const MESSAGE: &str = "MessageSid=SM0123456789abcdef0123456789abcdef";

    fn checked(body: &str) -> Result<(), Ambiguity> {
        let payload = Payload::new("POST", None, body.as_bytes());
        let form = Form::parse(body.as_bytes());
        let callback = Callback::parse(&form).unwrap();
        check(
            "/twilio/status",
            &payload,
            &payload.signed(),
            &form,
            &callback,
        )
    }

    #[test]
    fn names_are_sorted_and_identity_is_known() {
        assert!(KNOWN.is_sorted());
        assert!(IDENTITY.iter().all(|name| known(name).is_some()));
        assert!(
            TEXTS_BEFORE_MESSAGE_SID
                .iter()
                .all(|name| ("From".."MessageSid").contains(name))
        );
        assert!(
            TEXTS_BEHIND_MESSAGE_SID
                .iter()
                .all(|name| ("MessageSid".."SmsMessageSid").contains(name))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]
        #[test]
        fn a_plain_callback_passes_the_full_check(
            names in subsequence(KNOWN.to_vec(), 0..20),
            values in vec(
                "[+]1202555[0-9]{4}|sent|(rom|o|rror|ode|id|tatus|age)?[a-z0-9:/ ]{0,3}|(SM|MM|AC|MG|FE)[0-9a-fA-F]{32}",
                20,
            ),
            target in "/(twilio|f)?(/status|SM)?([?]attempt=[0-9]{1,2})?",
        ) {
            let values = values.iter().map(String::as_str);
            let mut given: BTreeMap<_, _> = names.into_iter().zip(values).collect();
            given.extend([
                (ACCOUNT_SID, "AC0123456789abcdef0123456789abcdef"),
                ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
                ("MessageStatus", "sent"),
            ]);
            let pairs: Vec<_> = given.into_iter().collect();
            let body = serde_urlencoded::to_string(&pairs).unwrap();
            let form = Form::parse(body.as_bytes());
            if let Ok(callback) = Callback::parse(&form) && is_plain(&target, &pairs, &callback) {
                let signed = Signed::new(&target, &pairs).unwrap();
                prop_assert_eq!(signed.check(&callback), Ok(()));
            }
        }
    }

    #[test]
    fn an_error_code_cannot_be_moved_into_another_parameter() {
        let start = format!(
            "{ACCOUNT}&{MESSAGE}&MessageStatus=failed&To=%2B12025550123&ApiVersion=2010-04-01"
        );
        for moved in [
            "&ErrorCode3=0003",
            "&ErrorCod=e30003",
            "&ErrorCode30003=",
            "&E=rrorCode30003",
            "&ApiVersio=n2010-04-01ErrorCode30003",
        ] {
            let found = checked(&format!("{start}{moved}"));
            assert_eq!(found, Err(Ambiguity::Divisible("ErrorCode")), "{moved}");
        }
        for plain in [
            "",
            "&ErrorCode=30003",
            "&ErrorCodeText=x",
            "&ErrorCode=",
            "&unknown=1",
        ] {
            assert_eq!(checked(&format!("{start}{plain}")), Ok(()), "{plain}");
        }
    }

    #[test]
    fn a_status_cannot_swallow_what_follows() {
        for moved in [
            "deliveredMessagingServiceSidMG0123456789abcdef0123456789abc",
            "deliveredRawDlrDoneDate2611211530",
        ] {
            let body = format!("{ACCOUNT}&{MESSAGE}&MessageStatus={moved}");
            assert_eq!(checked(&body), Err(Ambiguity::Divisible("MessageStatus")));
        }
        let body = format!("{ACCOUNT}&{MESSAGE}&MessageStatus=deliv&ered=");
        assert_eq!(checked(&body), Err(Ambiguity::Divisible("MessageStatus")));
        let body = format!(
            "{ACCOUNT}&{MESSAGE}&MessageStatus=sent&From=%2B1202MessageSidSM0123456789abcdef0123456789abcdef"
        );
        assert_eq!(checked(&body), Err(Ambiguity::Divisible("From")));
    }

    #[test]
    fn a_sender_that_is_yet_to_be_chosen_may_be_empty() {
        let body = format!(
            "{ACCOUNT}&{MESSAGE}&From=&MessagingServiceSid=MG0123456789abcdef0123456789abcdef"
        );
        assert_eq!(checked(&format!("{body}&MessageStatus=accepted")), Ok(()));
        // The unknown name could be part of a sender's name.
        assert_eq!(
            checked(&format!("{body}&MessageStatus=accepted&Gizmo=1")),
            Err(Ambiguity::Divisible("From"))
        );
        assert_eq!(
            checked(&format!("{body}&SmsStatus=received&Body=x")),
            Err(Ambiguity::Divisible("From"))
        );
    }

    #[test]
    fn a_parameter_that_counts_is_there_once() {
        let body = format!(
            "{ACCOUNT}&{MESSAGE}&SmsStatus=received&Body=x&From=%2B12025550123&From=%2B12025550100&To=%2B1"
        );
        assert_eq!(checked(&body), Err(Ambiguity::Repeated("From")));
        let body = format!(
            "{ACCOUNT}&{MESSAGE}&SmsSid=SM00000000000000000000000000000000&MessageStatus=sent"
        );
        assert_eq!(checked(&body), Err(Ambiguity::Contradictory));
    }
}
