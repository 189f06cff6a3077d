//! End-to-end encryption for phones. A message is encrypted once and stored before it is sent, so that a
//! repeat is the same request.

use pgrx::pg_sys;
use protocol::smsgate::Sealed;
use protocol::smsgate::encryption::{SALT, encrypt};

use super::{Job, Task};
use crate::secret::Secret;
use crate::spi::{self, first, transaction};

/// Whether and how a message is encrypted.
#[derive(Default)]
pub(super) enum Encryption {
    /// It is sent as it is.
    #[default]
    None,
    /// It is to be encrypted yet.
    Wanted {
        passphrase: Secret,
        iterations: u32,
        /// Of the gateway's row that has them.
        version: String,
    },
    /// It cannot be encrypted, and is not sent.
    Failed(String),
    /// It is encrypted.
    Done { to: String, text: String },
}

impl Encryption {
    /// The encrypted recipient and text, or the reason why the message must not be sent.
    pub(super) fn sealed(&self) -> Result<Option<Sealed<'_>>, String> {
        match self {
            Self::None => Ok(None),
            Self::Wanted { .. } => Err("it is not encrypted yet".to_owned()),
            Self::Failed(reason) => Err(reason.clone()),
            Self::Done { to, text } => Ok(Some(Sealed { to, text })),
        }
    }
}

/// Encrypts a message that is to be encrypted and stores the result. Called outside a transaction, since it takes
/// a while and must hold no lock meanwhile.
pub(super) fn seal(job: &mut Job) {
    let phone = &job.phone;
    if let Encryption::Wanted {
        passphrase,
        iterations,
        version,
    } = &phone.encryption
        && job.task == Task::Send
    {
        job.phone.encryption = sealed(passphrase, *iterations, &phone.to, &phone.text)
            .and_then(|[to, text]| {
                // Another try would send something else.
                match keep(job.id, version, &to, &text) {
                    Ok(true) => Ok(Encryption::Done { to, text }),
                    Ok(false) => Err("its passphrase was changed meanwhile".to_owned()),
                    Err(error) => Err(format!("it cannot be kept: {error}")),
                }
            })
            .unwrap_or_else(Encryption::Failed);
    }
}

/// Stores an encrypted message; false if the gateway's passphrase was changed meanwhile.
fn keep(message_id: i64, version: &str, to: &str, text: &str) -> Result<bool, String> {
    transaction(|| {
        spi::limit_lock_wait()?;
        let arguments = [message_id.into(), version.into(), to.into(), text.into()];
        let query = "select twilio_internal.store_encrypted($1, $2, $3, $4)";
        first::<bool>(query, &arguments).map(|is_kept| is_kept.unwrap_or(false))
    })
}

fn sealed(
    passphrase: &Secret,
    iterations: u32,
    to: &str,
    text: &str,
) -> Result<[String; 2], String> {
    let passphrase = (passphrase.resolve()).map_err(|error| format!("passphrase: {error}"))?;
    Ok([
        encrypt(&passphrase, &salt()?, iterations, to),
        encrypt(&passphrase, &salt()?, iterations, text),
    ])
}

fn salt() -> Result<[u8; SALT], String> {
    let mut salt = [0; SALT];
    // SAFETY: as many bytes are written as there are.
    let is_random = unsafe { pg_sys::pg_strong_random(salt.as_mut_ptr().cast(), SALT) };
    is_random
        .then_some(salt)
        .ok_or_else(|| "the server has no randomness to encrypt with".to_owned())
}
