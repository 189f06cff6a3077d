//! Taking what is due: the rows that the database gives, as errands.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::{self, SpiHeapTupleData};
use protocol::message::message_path;

use super::sealing::Sealing;
use super::{Errand, Pass, Phone, Task, Webhook};
use crate::queue::rows;

/// Takes due errands.
pub(crate) fn claim(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let mut errands = prepare(at_most, lease_s)?;
    let room = at_most.saturating_sub(errands.len());
    if room > 0 {
        errands.extend(phones(room, lease_s)?);
    }
    let room = at_most.saturating_sub(errands.len());
    if room > 0 {
        errands.extend(webhooks(room, lease_s)?);
    }
    Ok(errands)
}

fn prepare(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    rows(
        "select message_id, lease_token::text, tries, api_url, user_name, secret, account_sid, message_sid \
         from twilio.claim_preparation($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let mut errand = errand(&row, Task::Prepare)?;
            errand.name = message_path(&errand.name, &text(&row, 8)?);
            Ok(errand)
        },
    )
}

fn phones(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    rows(
        "select message_id, lease_token::text, tries, base_url, username, password, reference, task, device_id, \
         to_address, body, sim_number, priority, with_delivery_report, skip_phone_validation, ttl_s, \
         passphrase, iterations, sealed_to, sealed_body, uses_tokens from twilio.claim_phone($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let task = match text(&row, 8)?.as_str() {
                "send" => Task::Send,
                "look" => Task::Look,
                "withdraw" => Task::Withdraw,
                _ => Task::Ask,
            };
            Ok(Errand {
                phone: phone(&row)?,
                pass: Pass::new(row.get(21)?.unwrap_or(false)),
                ..errand(&row, task)?
            })
        },
    )
}

fn phone(row: &SpiHeapTupleData<'_>) -> Result<Phone, spi::Error> {
    let flag = |column| row.get::<bool>(column).map(Option::unwrap_or_default);
    Ok(Phone {
        device_id: row.get(9)?,
        to: text(row, 10)?,
        text: text(row, 11)?,
        sim_number: row.get::<i32>(12)?.and_then(|n| u8::try_from(n).ok()),
        priority: row
            .get::<i32>(13)?
            .and_then(|n| i8::try_from(n).ok())
            .unwrap_or(0),
        with_delivery_report: flag(14)?,
        skip_phone_validation: flag(15)?,
        ttl: unsigned(row.get(16)?),
        sealing: match (row.get(17)?, row.get(19)?, row.get(20)?) {
            (None, ..) => Sealing::None,
            (_, Some(to), Some(text)) => Sealing::Done { to, text },
            (Some(passphrase), ..) => Sealing::Wanted {
                passphrase,
                iterations: unsigned(row.get(18)?),
            },
        },
    })
}

fn webhooks(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    rows(
        "select webhook_id, lease_token::text, tries, base_url, username, password, reference, is_wanted, url, \
         event, device_id, uses_tokens from twilio.claim_webhook($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let task = match row.get(8)?.unwrap_or(false) {
                true => Task::Register,
                false => Task::Unregister,
            };
            Ok(Errand {
                webhook: Webhook {
                    url: text(&row, 9)?,
                    event: text(&row, 10)?,
                    device_id: row.get(11)?,
                },
                pass: Pass::new(row.get(12)?.unwrap_or(false)),
                ..errand(&row, task)?
            })
        },
    )
}

/// What all errands have: the first seven columns.
fn errand(row: &SpiHeapTupleData<'_>, task: Task) -> Result<Errand, spi::Error> {
    Ok(Errand {
        id: row.get(1)?.unwrap_or_default(),
        lease_token: text(row, 2)?,
        task,
        tries: unsigned(row.get(3)?),
        base_url: text(row, 4)?,
        user: text(row, 5)?,
        secret: row.get(6)?,
        name: text(row, 7)?,
        phone: Phone::default(),
        webhook: Webhook::default(),
        pass: Pass::default(),
    })
}

fn text(row: &SpiHeapTupleData<'_>, column: usize) -> Result<String, spi::Error> {
    row.get(column).map(Option::unwrap_or_default)
}

fn unsigned(number: Option<i32>) -> u32 {
    number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}
