//! End-to-end encryption of texts and numbers: AES-256 in CBC mode, with a key derived from a passphrase that the
//! phone has too.
//!
//! <https://docs.sms-gate.app/privacy/encryption/>

use std::ops::RangeInclusive;

use aes::Aes256;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use base64::prelude::{BASE64_STANDARD, Engine};
use sha1::Sha1;
use thiserror::Error;

/// Encrypts a text with a key that is derived from the passphrase and the salt in `iterations` rounds, 1,000 to
/// 1,000,000.
///
/// The salt is also the initialization vector, so each text needs a new random one. A round takes about a quarter of
/// a microsecond.
pub fn encrypt(passphrase: &[u8], salt: &[u8; SALT], iterations: u32, text: &str) -> String {
    let key = key(passphrase, salt, iterations);
    let cipher = cbc::Encryptor::<Aes256>::new(&key.into(), &(*salt).into());
    let sealed = cipher.encrypt_padded_vec::<Pkcs7>(text.as_bytes());
    let [salt, sealed] = [&salt[..], &sealed].map(|bytes| BASE64_STANDARD.encode(bytes));
    format!("${ALGORITHM}$i={iterations}${salt}${sealed}")
}

/// Decrypts a text that [`encrypt`] or a client of SMSGate encrypted.
///
/// # Errors
///
/// If the text has another form, asks for too few or too many rounds, or was encrypted with another passphrase.
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

/// Whether a text has the form of an encrypted one. A phone number never has.
pub fn is_sealed(text: &str) -> bool {
    text.strip_prefix('$')
        .is_some_and(|rest| rest.starts_with(ALGORITHM))
}

/// Why a text cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecryptError {
    /// The text has another form.
    #[error("text is not encrypted, or in an unknown form")]
    Form,
    /// The number of rounds is out of range.
    #[error("iterations are not 1000 to 1000000")]
    Iterations,
    /// The text was encrypted with another passphrase, or damaged.
    #[error("passphrase is wrong")]
    Passphrase,
}

fn key(passphrase: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha1>(passphrase, salt, iterations, &mut key);
    key
}

/// The accepted numbers of rounds, as in SMSGate's own clients.
const ITERATIONS: RangeInclusive<u32> = 1_000..=1_000_000;

/// The length of a salt in bytes.
pub const SALT: usize = 16;

const ALGORITHM: &str = "aes-256-cbc/pbkdf2-sha1";
