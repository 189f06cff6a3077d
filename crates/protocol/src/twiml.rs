//! TwiML: the response to an inbound message.
//!
//! <https://www.twilio.com/docs/messaging/twiml>

use thiserror::Error;

use crate::destination::{self, Fault};
use crate::xml::{self, Malformed};

/// A message to send as a reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Text, at most 1,600 characters; may be missing if there are media.
    pub body: Option<&'a str>,
    /// URLs of media, at most 10.
    pub media_urls: &'a [&'a str],
    /// Recipient, if other than the sender of the inbound message.
    pub to: Option<&'a str>,
    /// Sender, if other than the recipient of the inbound message.
    pub from: Option<&'a str>,
    /// URL of the status callbacks.
    pub status_callback: Option<&'a str>,
}

/// Why a reply or its TwiML is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TwimlError {
    /// A message has neither text nor media.
    #[error("message has neither text nor media")]
    Empty,
    /// A text is too long.
    #[error("text has {0} characters, at most 1600 are allowed")]
    TooLong(usize),
    /// A message has too many media.
    #[error("message has {0} media, at most 10 are allowed")]
    TooManyMedia(usize),
    /// A URL cannot be called by Twilio.
    #[error("media or status callback is not a URL that Twilio can call: {0}")]
    Url(Fault),
    /// The whole is larger than Twilio reads.
    #[error("TwiML has {0} bytes, at most 65536 are allowed")]
    TooLarge(usize),
    /// It is not one `Response` element.
    #[error("TwiML is not a Response element")]
    NotAResponse,
    /// It holds a character that XML does not allow.
    #[error("TwiML holds U+{0:04X}, which XML does not allow")]
    Illegal(u32),
    /// It is not well-formed.
    #[error("TwiML is not well-formed XML: {0}")]
    Malformed(Malformed),
}

/// The TwiML that sends `messages`, in order. Characters that XML does not allow are left out.
///
/// # Errors
///
/// The first rule that a message breaks, or [`TwimlError::TooLarge`] for more than 64 KiB.
pub fn response(messages: &[Message<'_>]) -> Result<String, TwimlError> {
    let Some((last, _)) = messages.split_last() else {
        return Ok(EMPTY.to_owned());
    };
    let mut xml = String::from(DECLARATION);
    xml.push_str("<Response>");
    for message in messages {
        push_message(&mut xml, message, std::ptr::eq(message, last))?;
    }
    xml.push_str("</Response>");
    check_size(&xml)?;
    Ok(xml)
}

/// Checks TwiML that a user wrote: at most 64 KiB, well-formed, and one `Response` element. The elements inside are not
/// checked.
///
/// # Errors
///
/// The first rule that the text breaks.
pub fn check(xml: &str) -> Result<(), TwimlError> {
    check_size(xml)?;
    match xml::root(xml) {
        Ok("Response") => Ok(()),
        Ok(_) | Err(Malformed::NoElement) => Err(TwimlError::NotAResponse),
        Err(Malformed::Character(illegal)) => Err(TwimlError::Illegal(illegal)),
        Err(malformed) => Err(TwimlError::Malformed(malformed)),
    }
}

fn push_message(xml: &mut String, message: &Message<'_>, is_last: bool) -> Result<(), TwimlError> {
    let body: Option<String> = message
        .body
        .map(|text| text.chars().filter(|c| xml::is_legal(*c)).collect())
        .filter(|text: &String| !text.is_empty());
    if body.is_none() && message.media_urls.is_empty() {
        return Err(TwimlError::Empty);
    }
    let length = body.as_deref().map_or(0, |text| text.chars().count());
    if length > MAX_CHARACTERS {
        return Err(TwimlError::TooLong(length));
    }
    if message.media_urls.len() > MAX_MEDIA {
        return Err(TwimlError::TooManyMedia(message.media_urls.len()));
    }
    for url in message.media_urls {
        destination::check_media(url).map_err(TwimlError::Url)?;
    }
    if let Some(url) = message.status_callback {
        destination::check_callback(url).map_err(TwimlError::Url)?;
    }
    xml.push_str("<Message");
    push_attribute(xml, "to", message.to);
    push_attribute(xml, "from", message.from);
    // Twilio reports media to the one attribute and texts to the other. It ignores verbs behind an `action`.
    push_attribute(xml, "action", message.status_callback.filter(|_| is_last));
    push_attribute(xml, "statusCallback", message.status_callback);
    xml.push('>');
    if let Some(body) = &body {
        push_element(xml, "Body", body);
    }
    for url in message.media_urls {
        push_element(xml, "Media", url);
    }
    xml.push_str("</Message>");
    Ok(())
}

fn push_attribute(xml: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        xml.push(' ');
        xml.push_str(name);
        xml.push_str("=\"");
        push_escaped(xml, value, true);
        xml.push('"');
    }
}

fn push_element(xml: &mut String, name: &str, text: &str) {
    xml.push('<');
    xml.push_str(name);
    xml.push('>');
    push_escaped(xml, text, false);
    xml.push_str("</");
    xml.push_str(name);
    xml.push('>');
}

/// A raw carriage return would be read as a line feed.
fn push_escaped(xml: &mut String, text: &str, is_attribute: bool) {
    for c in text.chars().filter(|c| xml::is_legal(*c)) {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' if is_attribute => xml.push_str("&quot;"),
            '\r' => xml.push_str("&#xD;"),
            c => xml.push(c),
        }
    }
}

fn check_size(xml: &str) -> Result<(), TwimlError> {
    if xml.len() > MAX_BYTES {
        return Err(TwimlError::TooLarge(xml.len()));
    }
    Ok(())
}

/// The TwiML that sends nothing.
pub const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

/// The media type of TwiML. Twilio would send a response of plain text as a message.
pub const CONTENT_TYPE: &str = "text/xml";

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
const MAX_CHARACTERS: usize = 1600;
const MAX_MEDIA: usize = 10;
const MAX_BYTES: usize = 64 * 1024;
