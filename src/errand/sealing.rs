//! What only the phone is to read: encrypted once for each message, in the transaction that takes it, and kept, so
//! that a repeat is the same request.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::smsgate::Sealed;
use protocol::smsgate::encryption::{SALT, encrypt};

use super::{Errand, Task};
use crate::queue::first;
use crate::secret;

/// Whether and how a message is encrypted.
#[derive(Default)]
pub(super) enum Sealing {
    /// It is sent as it is.
    #[default]
    None,
    /// It is to be encrypted yet.
    Wanted {
        /// As stored.
        passphrase: String,
        iterations: u32,
    },
    /// It cannot be encrypted, and is not sent.
    Failed(String),
    /// It is encrypted.
    Done { to: String, text: String },
}

impl Sealing {
    /// What goes out in place of recipient and text; why nothing may.
    pub(super) fn sealed(&self) -> Result<Option<Sealed<'_>>, String> {
        match self {
            Self::None => Ok(None),
            Self::Wanted { .. } => Err("it is not encrypted yet".to_owned()),
            Self::Failed(reason) => Err(reason.clone()),
            Self::Done { to, text } => Ok(Some(Sealed { to, text })),
        }
    }
}

/// Encrypts what is to be sent and is not encrypted yet, within the caller's transaction.
pub(super) fn seal(errands: &mut [Errand]) -> Result<(), ErrorReport> {
    // Whoever else locks several goes by that.
    errands.sort_unstable_by_key(|errand| errand.id);
    for errand in errands
        .iter_mut()
        .filter(|errand| errand.task == Task::Send)
    {
        let Sealing::Wanted {
            passphrase,
            iterations,
        } = &errand.phone.sealing
        else {
            continue;
        };
        errand.phone.sealing = match sealed(
            passphrase,
            *iterations,
            &errand.phone.to,
            &errand.phone.text,
        ) {
            Ok([to, text]) => {
                first::<i32>(
                    "select 1 from twilio.keep_sealed($1, $2, $3)",
                    &[errand.id.into(), to.as_str().into(), text.as_str().into()],
                )?;
                Sealing::Done { to, text }
            }
            Err(reason) => Sealing::Failed(reason),
        };
    }
    Ok(())
}

fn sealed(passphrase: &str, iterations: u32, to: &str, text: &str) -> Result<[String; 2], String> {
    let passphrase = secret::resolve(passphrase).map_err(|error| format!("passphrase: {error}"))?;
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
