//! The only writer of message state: logs events, updates the rows of their messages, and
//! starts what follows from them.

pub(crate) mod catalog;
mod item;
pub(crate) mod jsonb;
pub(crate) mod purged;
mod transition;
pub(crate) mod writer;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Array, PgMemoryContexts};
use protocol::status::Status;

use crate::config_cache;
use crate::error;
use crate::function::table_iterator::TableIterator;
use crate::record::catalog::Catalog;
use crate::record::writer::{Message, Writer};
use crate::statement;

pub(crate) use crate::record::item::{Item, Params, Recorded, Unrecorded};

/// Records items. Returns the result of each, in their order.
pub(crate) fn record(items: &[Item<'_>]) -> Result<Vec<Recorded>, Unrecorded> {
    let mut recorded = vec![Recorded::default(); items.len()];
    if items.is_empty() {
        return Ok(recorded);
    }
    // Rows are locked in one order everywhere: those named by id, then those named by SID, both sorted.
    let mut order: Vec<_> = (0..items.len()).collect();
    order.sort_by_key(|&place| {
        let item = &items[place];
        let sid = item.message_id.is_none().then_some(item.message_sid);
        (item.message_id.unwrap_or(i64::MAX), sid, place)
    });
    let mut writer = Writer::open()?;
    let mut consequences = Consequences::default();
    let mut outcome = Ok(());
    // Memory that PostgreSQL allocates for an item is freed with it, so that a batch needs no more than one item.
    let mut memory = PgMemoryContexts::new("twilio_callback item");
    for place in order {
        let item = &items[place];
        // SAFETY: what outlives the item lives in memory of Rust's, or of the tables' session.
        let taken = unsafe {
            let taken = memory.switch_to(|_| writer.take(item));
            memory.reset();
            taken
        };
        match taken {
            Ok((result, message)) => {
                if let (Some(event), Some((message, status))) = (result.event_id, message) {
                    consequences.note(item, &message, status, event);
                }
                recorded[place] = result;
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    writer.close();
    outcome?;
    consequences.carry_out()?;
    Ok(recorded)
}

/// The consequences of the events, once all of them are recorded.
#[derive(Default)]
struct Consequences {
    made: Vec<i64>,
    events: Vec<i64>,
    concerns_consent: bool,
    failed: Vec<i64>,
    corrected: Vec<i64>,
}

impl Consequences {
    fn note(&mut self, item: &Item<'_>, message: &Message, status: Option<&Status>, event: i64) {
        self.events.push(event);
        self.made.extend(message.is_made.then_some(message.id));
        self.concerns_consent |= item.may_change_consent();
        if status.is_some_and(Status::starts_fallback) {
            self.failed.push(message.id);
        } else if message.failed_at.is_some() && status.is_some_and(Status::is_delivery) {
            self.corrected.push(message.id);
        }
    }

    /// Consent comes first, before anything may be planned on it.
    fn carry_out(self) -> Result<(), ErrorReport> {
        if self.concerns_consent {
            statement::record_consent(self.events)?;
        }
        if !self.made.is_empty() && config_cache::has_timed_rules()? {
            statement::watch_for_timeout(self.made)?;
        }
        if !self.failed.is_empty() {
            statement::plan_fallback(self.failed)?;
        }
        if !self.corrected.is_empty() {
            statement::withdraw_fallback(self.corrected)?;
        }
        Ok(())
    }
}

/// The arrays of the SQL function are columns with one element for each item; arrays of
/// columns that are null for all items may be empty.
#[pg_extern]
#[expect(
    clippy::too_many_arguments,
    reason = "one argument a column of what is recorded"
)]
fn record_arrays(
    message_ids: Array<'_, i64>,
    account_sids: Array<'_, &str>,
    message_sids: Array<'_, &str>,
    directions: Array<'_, &str>,
    channels: Array<'_, &str>,
    from_addresses: Array<'_, &str>,
    to_addresses: Array<'_, &str>,
    messaging_service_sids: Array<'_, &str>,
    bodies: Array<'_, &str>,
    media_urls: Array<'_, &str>,
    statuses: Array<'_, &str>,
    error_codes: Array<'_, i32>,
    sources: Array<'_, &str>,
    key_ids: Array<'_, &str>,
    public_urls: Array<'_, &str>,
    params: Array<'_, &str>,
    received_at: Array<'_, TimestampWithTimeZone>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(message_id, Option<i64>),
            name!(event_id, Option<i64>),
            name!(is_new, bool),
        ),
    >,
    ErrorReport,
> {
    // Rows are written without a statement, whose rights would be checked.
    let catalog = Catalog::current()?;
    if !(catalog.messages.may_be_written() && catalog.events.may_be_written()) {
        return Err(error::may_not_record());
    }
    if statuses.iter().any(|status| status.is_none()) {
        return Err(error::no_status());
    }
    let media: Vec<Vec<String>> = (media_urls.iter())
        .map(|list| serde_json::from_str(list.unwrap_or("[]")).map_err(error::media))
        .collect::<Result<_, _>>()?;
    let items: Vec<_> = (statuses.iter().enumerate())
        .map(|(place, status)| Item {
            message_id: message_ids.get(place).flatten(),
            account_sid: account_sids.get(place).flatten(),
            message_sid: message_sids.get(place).flatten(),
            direction: directions.get(place).flatten(),
            channel: channels.get(place).flatten(),
            from_address: from_addresses.get(place).flatten(),
            to_address: to_addresses.get(place).flatten(),
            messaging_service_sid: messaging_service_sids.get(place).flatten(),
            body: bodies.get(place).flatten(),
            media_urls: (media.get(place).into_iter().flatten())
                .map(String::as_str)
                .collect(),
            status: status.unwrap_or_default(),
            error_code: error_codes.get(place).flatten(),
            source: sources.get(place).flatten().unwrap_or_default(),
            key_id: key_ids.get(place).flatten(),
            public_url: public_urls.get(place).flatten(),
            params: Params::Json(params.get(place).flatten().unwrap_or("{}")),
            received_at: (received_at.get(place).flatten()).map(i64::from),
        })
        .collect();
    let rows: Vec<_> = (record(&items)?.into_iter())
        .map(|r| (r.message_id, r.event_id, r.is_new))
        .collect();
    Ok(TableIterator::new(rows))
}
