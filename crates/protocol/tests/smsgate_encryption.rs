//! Encryption for SMSGate's phones.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::smsgate::encryption::{DecryptError, decrypt, encrypt, is_sealed};

/// The vector of SMSGate's own library.
const SEALED: &str =
    "$aes-256-cbc/pbkdf2-sha1$i=75000$obSTW6ittQvTtdAxonQKIw==$g3QFAC9CtBcPxoKlouqsyQ==";
const SALT: [u8; 16] = [
    0xa1, 0xb4, 0x93, 0x5b, 0xa8, 0xad, 0xb5, 0x0b, 0xd3, 0xb5, 0xd0, 0x31, 0xa2, 0x74, 0x0a, 0x23,
];

#[test]
fn the_known_text_is_encrypted_and_decrypted() {
    assert_eq!(encrypt(b"passphrase", &SALT, 75_000, "hello"), SEALED);
    assert_eq!(decrypt(b"passphrase", SEALED).as_deref(), Ok("hello"));
    assert!(is_sealed(SEALED));
    assert!(!is_sealed("+12025550123"));
}

#[test]
fn decryption_errors_are_distinguished() {
    let result = |sealed: &str| decrypt(b"passphrase", sealed);
    for sealed in [
        "",
        "hello",
        "$",
        "$$$$",
        "$rsa-oaep-aes-256-gcm$v=1$k=1$AA==$AA==$AA==",
        &SEALED[1..],
        &SEALED.replace("sha1", "sha2"),
        &SEALED.replace("obST", "ob"),
        &SEALED.replace("obSTW6", "!!"),
        &SEALED.replace("g3QF", "!"),
        &format!("{SEALED}$"),
    ] {
        assert_eq!(result(sealed), Err(DecryptError::Form), "{sealed}");
    }
    for iterations in ["i=999", "i=1000001", "i=", "i=-1", "x=75000", "i=75000,x=1"] {
        let sealed = SEALED.replace("i=75000", iterations);
        assert_eq!(result(&sealed), Err(DecryptError::Iterations), "{sealed}");
    }
    let short = encrypt(b"passphrase", &SALT, 1000, "hello");
    assert_eq!(decrypt(b"another", &short), Err(DecryptError::Passphrase));
    // No whole blocks are left of it.
    let (head, _) = short.rsplit_once('$').unwrap();
    for data in ["", "AAAAAAAAAAAAAAAAAAAA"] {
        let cut = format!("{head}${data}");
        assert_eq!(decrypt(b"passphrase", &cut), Err(DecryptError::Passphrase));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn encrypted_text_is_decrypted(passphrase in ".{1,40}", salt: [u8; 16], text in ".{0,200}") {
        let sealed = encrypt(passphrase.as_bytes(), &salt, 1000, &text);
        prop_assert!(is_sealed(&sealed));
        prop_assert_eq!(decrypt(passphrase.as_bytes(), &sealed), Ok(text));
    }

    #[test]
    fn anything_is_survived(sealed in ".*", tail in "[$=i0-9A-Za-z+/]{0,60}") {
        prop_assert!(decrypt(b"x", &sealed).is_err());
        let almost = format!("$aes-256-cbc/pbkdf2-sha1$i=1000${tail}");
        prop_assert!(decrypt(b"x", &almost).is_err());
    }
}
