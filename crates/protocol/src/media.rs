//! Which files can be sent. [`crate::trust`] decides from where the files of a message may be fetched.

/// Types of files that can be sent.
const TYPES: [&str; 8] = [
    "image/jpeg",
    "image/png",
    "image/gif",
    "video/mp4",
    "video/3gpp",
    "audio/mpeg",
    "audio/ogg",
    "application/pdf",
];

/// Largest file that can be sent, in bytes: 5 MB.
const MAX_BYTES: u64 = 5 * 1024 * 1024;

/// Why a file cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The response has no Content-Type.
    #[error("it has no type")]
    NoType,
    /// The file has another type; the beginning of its Content-Type.
    #[error("its type is {0:?}, which is none of {list}", list = TYPES.join(", "))]
    Type(String),
    /// The Content-Length is not a number.
    #[error("its length is {0:?}, which is not a number")]
    NoLength(String),
    /// The file is larger than 5 MB.
    #[error("it has {0} bytes, at most {MAX_BYTES} are allowed")]
    TooLarge(u64),
}

/// Checks by Content-Type and Content-Length whether a file can be sent. The length may be missing.
///
/// # Errors
///
/// If the type is missing or not one that can be sent, or the file is larger than 5 MB.
pub fn fits(content_type: Option<&str>, content_length: Option<&str>) -> Result<(), Unfit> {
    let shown = |text: &str| text.chars().take(MAX_SHOWN).collect();
    let told = content_type.map(str::trim).filter(|told| !told.is_empty());
    let told = told.ok_or(Unfit::NoType)?;
    let essence = told.split(';').next().unwrap_or_default().trim_end();
    if !TYPES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(essence))
    {
        return Err(Unfit::Type(shown(told)));
    }
    let Some(told) = content_length.map(str::trim) else {
        return Ok(());
    };
    let is_number = !told.is_empty() && told.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(Unfit::NoLength(shown(told)));
    }
    // Digits that do not fit into a u64 are a number that is too large.
    match told.parse().unwrap_or(u64::MAX) {
        length if length > MAX_BYTES => Err(Unfit::TooLarge(length)),
        _ => Ok(()),
    }
}

/// Characters of a header that an error quotes.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_types_can_be_sent() {
        for known in TYPES {
            assert_eq!(fits(Some(known), None), Ok(()), "{known}");
            let spelled = format!(" {} ; q=1", known.to_uppercase());
            assert_eq!(fits(Some(&spelled), Some("1")), Ok(()), "{spelled}");
        }
        for none in [None, Some(""), Some(" ")] {
            assert_eq!(fits(none, Some("1")), Err(Unfit::NoType), "{none:?}");
        }
        for other in [
            "text/html",
            "image/webp",
            "image/*",
            "image/jpegx",
            "video/3gpp2",
            "application/octet-stream",
            "text/html; image/jpeg",
            "image/jpeg, text/html",
            ";image/jpeg",
        ] {
            let expected = Err(Unfit::Type(other.to_owned()));
            assert_eq!(fits(Some(other), Some("1")), expected, "{other}");
        }
        let long = fits(Some(&"é".repeat(5000)), None);
        assert_eq!(long, Err(Unfit::Type("é".repeat(MAX_SHOWN))));
        let said = Unfit::Type("a\0\nb".to_owned()).to_string();
        assert!(!said.contains(['\0', '\n']), "{said}");
        assert!(said.ends_with("audio/ogg, application/pdf"), "{said}");
    }

    #[test]
    fn five_megabytes_can_be_sent() {
        let jpeg = Some("image/jpeg");
        for length in [None, Some("0"), Some("5242880"), Some(" 12 ")] {
            assert_eq!(fits(jpeg, length), Ok(()), "{length:?}");
        }
        assert_eq!(fits(jpeg, Some("5242881")), Err(Unfit::TooLarge(5_242_881)));
        let more_than_any = fits(jpeg, Some(&"9".repeat(40)));
        assert_eq!(more_than_any, Err(Unfit::TooLarge(u64::MAX)));
        for text in ["", "-1", "+1", "1, 1", "1.5", "0x10"] {
            let expected = Err(Unfit::NoLength(text.to_owned()));
            assert_eq!(fits(jpeg, Some(text)), expected, "{text}");
        }
    }
}
