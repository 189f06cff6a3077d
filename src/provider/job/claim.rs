//! Claims jobs that are due.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::{self, SpiHeapTupleData};
use protocol::form::encode;
use protocol::message::message_path;

use super::encryption::Encryption;
use super::{Job, Phone, SMSGATE_TASKS, SinkRequest, Task, TokenAuth, Webhook};
use crate::credential::{credential, gateway};
use crate::secret::Secret;
use crate::spi::rows;

/// Takes due jobs.
pub(crate) fn claim(at_most: usize, lease_s: f64) -> Result<Vec<Job>, ErrorReport> {
    let mut jobs = Vec::new();
    for take in [
        original_fetches,
        smsgate_messages,
        webhooks,
        event_sinks,
        reconciliations,
    ] {
        let room = at_most.saturating_sub(jobs.len());
        if room > 0 {
            jobs.extend(take(i32::try_from(room).unwrap_or(i32::MAX), lease_s)?);
        }
    }
    Ok(jobs)
}

fn original_fetches(at_most: i32, lease_s: f64) -> Result<Vec<Job>, ErrorReport> {
    let claim = "select message_id, lease_token::text, tries, account_sid, message_sid, api_url \
                 from twilio_internal.claim_original_fetch($1, $2 * interval '1 second')";
    fetches(claim, Task::FetchOriginal, at_most, lease_s)
}

fn reconciliations(at_most: i32, lease_s: f64) -> Result<Vec<Job>, ErrorReport> {
    let claim = "select message_id, lease_token::text, tries, account_sid, message_sid, api_url \
                 from twilio_internal.claim_reconciliation($1, $2 * interval '1 second')";
    fetches(claim, Task::FetchState, at_most, lease_s)
}

/// Messages to fetch from Twilio, with the credentials of their accounts.
fn fetches(
    claim: &'static str,
    task: Task,
    at_most: i32,
    lease_s: f64,
) -> Result<Vec<Job>, ErrorReport> {
    let mut jobs = rows(claim, &[at_most.into(), lease_s.into()], |row| {
        let mut job = job(&row, task)?;
        job.user = text(&row, 4)?;
        job.name = message_path(&job.user, &text(&row, 5)?);
        job.base_url = text(&row, 6)?;
        Ok(job)
    })?;
    for job in &mut jobs {
        if let Some(credential) = credential(&job.user)? {
            // From one row: a secret that is new goes to no API that is old.
            job.base_url.clone_from(&credential.api_url);
            (job.user, job.secret) = credential.into_user_and_secret();
        }
    }
    Ok(jobs)
}

fn smsgate_messages(at_most: i32, lease_s: f64) -> Result<Vec<Job>, ErrorReport> {
    let mut jobs = rows(
        "select message_id, lease_token::text, tries, sender_id, reference, task, device_id, to_address, body, \
         sim_number, priority, with_delivery_report, skip_phone_validation, ttl_s, version, sealed_to, sealed_body \
         from twilio_internal.claim_smsgate($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let name = text(&row, 6)?;
            let task = SMSGATE_TASKS.iter().find(|(known, _)| *known == name);
            let task = task.map_or(Task::Poll, |(_, task)| *task);
            let kept = row.get(16)?.zip(row.get(17)?);
            let job = Job {
                name: text(&row, 5)?,
                phone: phone(&row)?,
                ..job(&row, task)?
            };
            Ok((job, row.get(4)?, text(&row, 15)?, kept))
        },
    )?;
    for (job, sender_id, version, kept) in &mut jobs {
        let passphrase = enter_gateway(job, *sender_id)?;
        job.phone.encryption = match (passphrase, kept.take()) {
            (None, _) => Encryption::None,
            (_, Some((to, text))) => Encryption::Done { to, text },
            (Some((passphrase, iterations)), None) => Encryption::Wanted {
                passphrase,
                iterations,
                version: std::mem::take(version),
            },
        };
    }
    Ok(jobs.into_iter().map(|(job, ..)| job).collect())
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
        encryption: Encryption::None,
    })
}

fn webhooks(at_most: i32, lease_s: f64) -> Result<Vec<Job>, ErrorReport> {
    let mut jobs = rows(
        "select webhook_id, lease_token::text, tries, sender_id, reference, is_wanted, url, event, device_id \
         from twilio_internal.claim_webhook($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let task = match row.get(6)?.unwrap_or(false) {
                true => Task::Register,
                false => Task::Unregister,
            };
            let job = Job {
                name: text(&row, 5)?,
                webhook: Webhook {
                    url: text(&row, 7)?,
                    event: text(&row, 8)?,
                    device_id: row.get(9)?,
                },
                ..job(&row, task)?
            };
            Ok((job, row.get(4)?))
        },
    )?;
    for (job, sender_id) in &mut jobs {
        enter_gateway(job, *sender_id)?;
    }
    Ok(jobs.into_iter().map(|(job, _)| job).collect())
}

fn event_sinks(at_most: i32, lease_s: f64) -> Result<Vec<Job>, ErrorReport> {
    let mut jobs = rows(
        "select sink_id, lease_token::text, tries, account_sid, method, path, form \
         from twilio_internal.claim_event_sink($1, $2 * interval '1 second')",
        &[at_most.into(), lease_s.into()],
        |row| {
            let pairs = row
                .get::<&str>(7)?
                .map(serde_json::from_str::<Vec<(String, String)>>);
            let pairs = pairs.and_then(Result::ok);
            Ok(Job {
                user: text(&row, 4)?,
                name: text(&row, 6)?,
                sink: SinkRequest {
                    method: text(&row, 5)?,
                    form: pairs.map(|pairs| encode(&pairs)),
                },
                ..job(&row, Task::EventSink)?
            })
        },
    )?;
    for job in &mut jobs {
        if let Some(credential) = credential(&job.user)? {
            job.base_url.clone_from(&credential.api_url);
            (job.user, job.secret) = credential.into_user_and_secret();
        }
    }
    Ok(jobs)
}

/// Enters what the gateway's row has: address, user and password together, so that a password that is new goes to
/// no address that is old. Returns the passphrase and its iterations.
fn enter_gateway(
    job: &mut Job,
    sender_id: Option<i32>,
) -> Result<Option<(Secret, u32)>, ErrorReport> {
    let Some(gateway) = gateway(sender_id.unwrap_or_default())? else {
        return Ok(None);
    };
    job.base_url = gateway.base_url;
    job.user = gateway.user;
    job.secret = Some(gateway.password);
    job.token_auth = TokenAuth::new(gateway.uses_tokens);
    let iterations = unsigned(Some(gateway.iterations));
    Ok(gateway
        .passphrase
        .map(|passphrase| (passphrase, iterations)))
}

/// A job with the first three columns, which all jobs have.
fn job(row: &SpiHeapTupleData<'_>, task: Task) -> Result<Job, spi::Error> {
    Ok(Job {
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
        sink: SinkRequest::default(),
        token_auth: TokenAuth::default(),
    })
}

fn text(row: &SpiHeapTupleData<'_>, column: usize) -> Result<String, spi::Error> {
    row.get(column).map(Option::unwrap_or_default)
}

fn unsigned(number: Option<i32>) -> u32 {
    number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}
