//! Taking what is due: the rows that the database gives, as errands.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::{self, SpiHeapTupleData};
use protocol::message::message_path;

use super::encryption::Sealing;
use super::{Errand, Pass, Phone, Task, Webhook};
use crate::credential::{credential, gateway};
use crate::secret::Secret;
use crate::spi::rows;

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
    let mut errands = rows(
        "select message_id, lease_token::text, tries, account_sid, message_sid, api_url \
         from twilio.claim_preparation($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let mut errand = errand(&row, Task::Prepare)?;
            errand.user = text(&row, 4)?;
            errand.name = message_path(&errand.user, &text(&row, 5)?);
            errand.base_url = text(&row, 6)?;
            Ok(errand)
        },
    )?;
    for errand in &mut errands {
        if let Some(credential) = credential(&errand.user)? {
            // From one row: a secret that is new goes to no API that is old.
            errand.base_url.clone_from(&credential.api_url);
            (errand.user, errand.secret) = credential.into_user_and_secret();
        }
    }
    Ok(errands)
}

fn phones(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    let mut errands = rows(
        "select message_id, lease_token::text, tries, sender_id, reference, task, device_id, to_address, body, \
         sim_number, priority, with_delivery_report, skip_phone_validation, ttl_s, version, sealed_to, sealed_body \
         from twilio.claim_phone($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let task = match text(&row, 6)?.as_str() {
                "send" => Task::Send,
                "look" => Task::Look,
                "withdraw" => Task::Withdraw,
                _ => Task::Ask,
            };
            let kept = row.get(16)?.zip(row.get(17)?);
            let errand = Errand {
                name: text(&row, 5)?,
                phone: phone(&row)?,
                ..errand(&row, task)?
            };
            Ok((errand, row.get(4)?, text(&row, 15)?, kept))
        },
    )?;
    for (errand, sender_id, version, kept) in &mut errands {
        let passphrase = enter_gateway(errand, *sender_id)?;
        errand.phone.sealing = match (passphrase, kept.take()) {
            (None, _) => Sealing::None,
            (_, Some((to, text))) => Sealing::Done { to, text },
            (Some((passphrase, iterations)), None) => Sealing::Wanted {
                passphrase,
                iterations,
                version: std::mem::take(version),
            },
        };
    }
    Ok(errands.into_iter().map(|(errand, ..)| errand).collect())
}

fn phone(row: &SpiHeapTupleData<'_>) -> Result<Phone, spi::Error> {
    let flag = |column| row.get::<bool>(column).map(Option::unwrap_or_default);
    Ok(Phone {
        device_id: row.get(7)?,
        to: text(row, 8)?,
        text: text(row, 9)?,
        sim_number: row.get::<i32>(10)?.and_then(|n| u8::try_from(n).ok()),
        priority: row
            .get::<i32>(11)?
            .and_then(|n| i8::try_from(n).ok())
            .unwrap_or(0),
        with_delivery_report: flag(12)?,
        skip_phone_validation: flag(13)?,
        ttl: unsigned(row.get(14)?),
        sealing: Sealing::None,
    })
}

fn webhooks(at_most: usize, lease_s: f64) -> Result<Vec<Errand>, ErrorReport> {
    let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
    let mut errands = rows(
        "select webhook_id, lease_token::text, tries, sender_id, reference, is_wanted, url, event, device_id \
         from twilio.claim_webhook($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let task = match row.get(6)?.unwrap_or(false) {
                true => Task::Register,
                false => Task::Unregister,
            };
            let errand = Errand {
                name: text(&row, 5)?,
                webhook: Webhook {
                    url: text(&row, 7)?,
                    event: text(&row, 8)?,
                    device_id: row.get(9)?,
                },
                ..errand(&row, task)?
            };
            Ok((errand, row.get(4)?))
        },
    )?;
    for (errand, sender_id) in &mut errands {
        enter_gateway(errand, *sender_id)?;
    }
    Ok(errands.into_iter().map(|(errand, _)| errand).collect())
}

/// Enters what the gateway's row has: address, user and password together, so that a password that is new goes to
/// no address that is old. Returns the passphrase and its iterations.
fn enter_gateway(
    errand: &mut Errand,
    sender_id: Option<i32>,
) -> Result<Option<(Secret, u32)>, ErrorReport> {
    let Some(gateway) = gateway(sender_id.unwrap_or_default())? else {
        return Ok(None);
    };
    errand.base_url = gateway.base_url;
    errand.user = gateway.user;
    errand.secret = Some(gateway.password);
    errand.pass = Pass::new(gateway.uses_tokens);
    let iterations = unsigned(Some(gateway.iterations));
    Ok(gateway
        .passphrase
        .map(|passphrase| (passphrase, iterations)))
}

/// What all errands have: the first three columns.
fn errand(row: &SpiHeapTupleData<'_>, task: Task) -> Result<Errand, spi::Error> {
    Ok(Errand {
        id: row.get(1)?.unwrap_or_default(),
        lease_token: text(row, 2)?,
        task,
        tries: unsigned(row.get(3)?),
        base_url: String::new(),
        user: String::new(),
        secret: None,
        name: String::new(),
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
