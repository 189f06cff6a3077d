//! Twilio's string identifiers: two capitals that name the kind, and 32 hexadecimal digits.

use sha2::{Digest, Sha256};

/// Whether `text` identifies a message: `SM` or `MM` and 32 hexadecimal digits.
///
/// <https://www.twilio.com/docs/messaging/api/message-resource>
pub fn is_message(text: &str) -> bool {
    is_sid(text, "SM") || is_sid(text, "MM")
}

/// Whether `text` identifies an account or a subaccount: `AC` and 32 hexadecimal digits.
pub fn is_account(text: &str) -> bool {
    is_sid(text, "AC")
}

/// Whether `text` identifies a messaging service: `MG` and 32 hexadecimal digits.
pub fn is_messaging_service(text: &str) -> bool {
    is_sid(text, "MG")
}

/// Whether `text` identifies an API key: `SK` and 32 hexadecimal digits.
pub fn is_api_key(text: &str) -> bool {
    is_sid(text, "SK")
}

/// The first 128 bits of the SHA-256 of an identifier: enough to recognise it, a fraction of its size.
pub fn digest(text: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    digest
}

/// Whether `text` identifies a file of a message: `ME` and 32 hexadecimal digits.
pub fn is_media(text: &str) -> bool {
    is_sid(text, "ME")
}

/// Whether `text` is the SID of anything.
pub(crate) fn is_any(text: &str) -> bool {
    let kind = text.get(..2).unwrap_or_default();
    kind.bytes().all(|byte| byte.is_ascii_uppercase()) && is_sid(text, kind)
}

pub(crate) fn is_sid(text: &str, kind: &str) -> bool {
    text.strip_prefix(kind)
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_kinds_apart() {
        let digits = "0123456789abcdefABCDEF0123456789";
        assert!(is_message(&format!("SM{digits}")));
        assert!(is_message(&format!("MM{digits}")));
        assert!(!is_message(&format!("AC{digits}")));
        assert!(is_account(&format!("AC{digits}")));
        assert!(is_messaging_service(&format!("MG{digits}")));
        assert!(is_api_key(&format!("SK{digits}")));
    }

    #[test]
    fn digests_are_the_beginning_of_sha256() {
        // The example of FIPS 180-2.
        let expected = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23,
        ];
        assert_eq!(digest("abc"), expected);
    }

    #[test]
    fn refuses_other_lengths_and_digits() {
        for text in ["", "SM", "SM0", "sm0123456789abcdef0123456789abcdef"] {
            assert!(!is_message(text), "{text}");
        }
        assert!(!is_message("SM0123456789abcdef0123456789abcdeg"));
        assert!(!is_message("SM0123456789abcdef0123456789abcdef0"));
        assert!(!is_message("SMé123456789abcdef0123456789abcde"));
    }
}
