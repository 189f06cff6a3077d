//! Whether a text is a well-formed XML document without a document type, as Twilio reads it.
//!
//! <https://www.w3.org/TR/xml/>

use std::collections::BTreeSet;

use thiserror::Error;

/// Why a text is not a well-formed document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The document has no element.
    #[error("there is no root element")]
    NoElement,
    /// It has more after its one element, or text before it.
    #[error("there is content outside the root element")]
    Outside,
    /// It has a character that XML does not allow.
    #[error("it holds U+{0:04X}, which XML does not allow")]
    Character(u32),
    /// A reference is to a character that XML does not allow, or to an entity that only a document type could
    /// define.
    #[error("a reference (&…;) is incomplete, or names an unknown entity or an illegal character")]
    Reference,
    /// A tag cannot be read.
    #[error("a tag is malformed")]
    Tag,
    /// An element has two attributes of one name.
    #[error("an element has the same attribute twice")]
    Attribute,
    /// Elements do not end in the order in which they began.
    #[error("start and end tags do not match")]
    Nesting,
    /// A comment, a CDATA section, a processing instruction or the declaration is malformed or misplaced.
    #[error("a comment, section, instruction or declaration is malformed or misplaced")]
    Markup,
}

/// The name of a document's one element.
pub(crate) fn root(xml: &str) -> Result<&str, Malformed> {
    if let Some(illegal) = xml.chars().find(|c| !is_legal(*c)) {
        return Err(Malformed::Character(illegal.into()));
    }
    let mut rest = skip_declaration(xml)?;
    let mut root = None;
    let mut open = Vec::new();
    while let Some(at) = rest.find('<') {
        let (text, markup) = rest.split_at(at);
        check_text(text, open.is_empty())?;
        rest = if let Some(comment) = markup.strip_prefix("<!--") {
            let (_, rest) = comment.split_once("--").ok_or(Malformed::Markup)?;
            rest.strip_prefix('>').ok_or(Malformed::Markup)?
        } else if let Some(section) = markup.strip_prefix("<![CDATA[") {
            let end = section.split_once("]]>").filter(|_| !open.is_empty());
            end.ok_or(Malformed::Markup)?.1
        } else if let Some(instruction) = markup.strip_prefix("<?") {
            skip_instruction(instruction)?
        } else if let Some(tag) = markup.strip_prefix("</") {
            let (name, rest) = name(tag)?;
            if open.pop() != Some(name) {
                return Err(Malformed::Nesting);
            }
            let rest = rest.trim_start_matches(SPACE);
            rest.strip_prefix('>').ok_or(Malformed::Tag)?
        } else {
            let (name, rest) = name(&markup[1..])?;
            if open.is_empty() && root.replace(name).is_some() {
                return Err(Malformed::Outside);
            }
            let (_, rest) = attributes(rest)?;
            match rest.strip_prefix("/>") {
                Some(rest) => rest,
                None => {
                    open.push(name);
                    rest.strip_prefix('>').ok_or(Malformed::Tag)?
                }
            }
        };
    }
    if !open.is_empty() {
        return Err(Malformed::Nesting);
    }
    let root = root.ok_or(Malformed::NoElement)?;
    check_text(rest, true)?;
    Ok(root)
}

/// <https://www.w3.org/TR/xml/#charsets>
pub(crate) fn is_legal(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

fn skip_declaration(xml: &str) -> Result<&str, Malformed> {
    match xml.strip_prefix("<?xml") {
        Some(declaration) if declaration.starts_with(SPACE) => {
            let (names, rest) = attributes(declaration).map_err(|_| Malformed::Markup)?;
            let is_known = matches!(
                names[..],
                ["version"]
                    | ["version", "encoding"]
                    | ["version", "standalone"]
                    | ["version", "encoding", "standalone"]
            );
            let rest = rest.strip_prefix("?>").filter(|_| is_known);
            rest.ok_or(Malformed::Markup)
        }
        _ => Ok(xml),
    }
}

fn skip_instruction(instruction: &str) -> Result<&str, Malformed> {
    let (target, rest) = name(instruction).map_err(|_| Malformed::Markup)?;
    let is_allowed = !target.eq_ignore_ascii_case("xml");
    let end = rest
        .split_once("?>")
        .filter(|(data, _)| is_allowed && (data.is_empty() || data.starts_with(SPACE)));
    Ok(end.ok_or(Malformed::Markup)?.1)
}

/// The name at the start, and what comes after it.
fn name(text: &str) -> Result<(&str, &str), Malformed> {
    let end = text.find(|c| !is_in_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.starts_with(is_name_start) {
        Ok((name, rest))
    } else {
        Err(Malformed::Tag)
    }
}

/// The names of the attributes at the start, and what comes after them.
fn attributes(mut rest: &str) -> Result<(Vec<&str>, &str), Malformed> {
    let mut names = Vec::new();
    loop {
        let after = rest.trim_start_matches(SPACE);
        // Between two attributes there is a space.
        if after.starts_with(['>', '/', '?']) || after.len() == rest.len() {
            rest = after;
            break;
        }
        let (name, after) = name(after)?;
        let after = after.trim_start_matches(SPACE).strip_prefix('=');
        let after = after.ok_or(Malformed::Tag)?.trim_start_matches(SPACE);
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let quote = quote.ok_or(Malformed::Tag)?;
        let (value, after) = after[1..].split_once(quote).ok_or(Malformed::Tag)?;
        if value.contains('<') {
            return Err(Malformed::Tag);
        }
        check_references(value)?;
        names.push(name);
        rest = after;
    }
    match names.iter().collect::<BTreeSet<_>>().len() == names.len() {
        true => Ok((names, rest)),
        false => Err(Malformed::Attribute),
    }
}

fn check_text(text: &str, is_outside: bool) -> Result<(), Malformed> {
    if is_outside && !text.trim_matches(SPACE).is_empty() {
        return Err(Malformed::Outside);
    }
    if text.contains("]]>") {
        return Err(Malformed::Markup);
    }
    check_references(text)
}

fn check_references(text: &str) -> Result<(), Malformed> {
    let is_reference = |after: &str| {
        let Some((reference, _)) = after.split_once(';') else {
            return false;
        };
        let number = match reference.strip_prefix('#') {
            None => return matches!(reference, "amp" | "lt" | "gt" | "quot" | "apos"),
            Some(number) => match number.strip_prefix('x') {
                Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    u32::from_str_radix(hex, 16)
                }
                None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse(),
                _ => return false,
            },
        };
        number.ok().and_then(char::from_u32).is_some_and(is_legal)
    };
    match text.split('&').skip(1).all(is_reference) {
        true => Ok(()),
        false => Err(Malformed::Reference),
    }
}

/// <https://www.w3.org/TR/xml/#NT-NameStartChar>
fn is_name_start(c: char) -> bool {
    matches!(c,
        ':' | '_' | 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}'
        | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}'
        | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

fn is_in_name(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
