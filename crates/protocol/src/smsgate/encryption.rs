//! Texts and numbers that only the phone can read: AES-256 in CBC mode, with a key made from a passphrase that
//! the phone has too.
//!
//! <https://docs.sms-gate.app/privacy/encryption/>

use std::ops::RangeInclusive;

use aes::Aes256;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use base64::prelude::{BASE64_STANDARD, Engine};
use sha1::Sha1;
use thiserror::Error;

/// Encrypts a text with a key that `iterations` rounds make from the passphrase and the salt.
///
/// The salt is the initialization vector as well, so each text needs one of its own, fresh and random. Takes about
/// a quarter of a microsecond a round.
pub fn encrypt(passphrase: &[u8], salt: &[u8; SALT], iterations: u32, text: &str) -> String {
    let key = key(passphrase, salt, iterations);
    let cipher = cbc::Encryptor::<Aes256>::new(&key.into(), &(*salt).into());
    let sealed = cipher.encrypt_padded_vec::<Pkcs7>(text.as_bytes());
    let [salt, sealed] = [&salt[..], &sealed].map(|bytes| BASE64_STANDARD.encode(bytes));
    format!("${ALGORITHM}$i={iterations}${salt}${sealed}")
}

/// Decrypts what [`encrypt`] or a client of SMSGate's made.
pub fn decrypt(passphrase: &[u8], sealed: &str) -> Result<String, DecryptError> {
    let parts: Vec<_> = sealed.split('$').collect();
    let ["", ALGORITHM, parameters, salt, data] = parts[..] else {
        return Err(DecryptError::Form);
    };
    let iterations = parameters
        .strip_prefix("i=")
        .and_then(|digits| digits.parse().ok())
        .filter(|iterations| ITERATIONS.contains(iterations))
        .ok_or(DecryptError::Iterations)?;
    let decode = |text| BASE64_STANDARD.decode(text).map_err(|_| DecryptError::Form);
    let salt: [u8; SALT] = decode(salt)?.try_into().map_err(|_| DecryptError::Form)?;
    let key = key(passphrase, &salt, iterations);
    let cipher = cbc::Decryptor::<Aes256>::new(&key.into(), &salt.into());
    let text = cipher
        .decrypt_padded_vec::<Pkcs7>(&decode(data)?)
        .map_err(|_| DecryptError::Passphrase)?;
    String::from_utf8(text).map_err(|_| DecryptError::Passphrase)
}

/// Whether a text is encrypted, by its form. No phone number is.
pub fn is_sealed(text: &str) -> bool {
    text.strip_prefix('$')
        .is_some_and(|rest| rest.starts_with(ALGORITHM))
}

/// Why something cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecryptError {
    /// It has another form.
    #[error("it is not encrypted, or in another way")]
    Form,
    /// It asks for more work, or for less, than anybody should do.
    #[error("iterations are not 1000 to 1000000")]
    Iterations,
    /// Another passphrase made it, or it was damaged.
    #[error("the passphrase is another")]
    Passphrase,
}

fn key(passphrase: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha1>(passphrase, salt, iterations, &mut key);
    key
}

/// How many rounds may make a key; SMSGate's own clients take no others.
pub const ITERATIONS: RangeInclusive<u32> = 1_000..=1_000_000;

/// Bytes of a salt.
pub const SALT: usize = 16;

const ALGORITHM: &str = "aes-256-cbc/pbkdf2-sha1";
