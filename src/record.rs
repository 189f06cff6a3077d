//! The only writer of message state: logs events, updates the rows of their messages, and
//! starts what follows from them.

pub(crate) mod catalog;
mod item;
pub(crate) mod jsonb;
pub(crate) mod purged;
mod transition;
pub(crate) mod writer;

use pgrx::datum::UnboxDatum;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AllocatedByRust, Array, PgMemoryContexts};
use protocol::status::Status;

use crate::config_cache;
use crate::error;
use crate::function::table_iterator::TableIterator;
use crate::record::catalog::Catalog;
use crate::record::writer::{Message, Writer};
use crate::setting;
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
        // SAFETY: of what take returns nothing lies in this memory: it owns its texts. Scans and slots are in memory of the session,
        // and the assignments of an item are dropped with it.
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
                if result.news.has_files {
                    consequences.files.extend(result.event_id);
                }
                if result.news.has_consent {
                    consequences.events.extend(result.event_id);
                    consequences.concerns_consent = true;
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
    files: Vec<i64>,
}

impl Consequences {
    fn note(&mut self, item: &Item<'_>, message: &Message, status: Option<&Status>, event: i64) {
        self.events.push(event);
        // A message of other software that only Twilio's list told of: whoever sent it has seen to what became of it.
        let is_foreign = message.is_made && item.source == "poll";
        self.made
            .extend((message.is_made && !is_foreign).then_some(message.id));
        self.concerns_consent |= item.may_change_consent();
        if is_foreign {
            return;
        }
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
        if !self.files.is_empty() && setting::fetch_media() {
            statement::queue_media(self.files)?;
        }
        Ok(())
    }
}

/// Reports of SQL callers. Those of a known message need no addresses: the row has them.
#[pg_extern]
fn record_reports(
    reports: Array<'_, pgrx::composite_type!("twilio_internal.report")>,
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
    // A result without a report can be finished even if the tables were altered.
    if reports.is_empty() {
        return Ok(TableIterator::new(Vec::new()));
    }
    // Rows are written without a statement, whose rights would be checked.
    let catalog = Catalog::current()?;
    if !(catalog.messages.may_be_written() && catalog.events.may_be_written()) {
        return Err(error::may_not_record());
    }
    let reports: Vec<_> = (reports.iter())
        .map(|report| report.ok_or_else(error::no_status))
        .collect::<Result<_, _>>()?;
    let media: Vec<Vec<String>> = (reports.iter())
        .map(|report| {
            let list = field(report, "media_urls")?.unwrap_or("[]");
            serde_json::from_str(list).map_err(error::media)
        })
        .collect::<Result<_, _>>()?;
    let items: Vec<_> = (reports.iter().zip(&media))
        .map(|(report, media)| {
            Ok(Item {
                message_id: field(report, "message_id")?,
                account_sid: field(report, "account_sid")?,
                message_sid: field(report, "message_sid")?,
                direction: field(report, "direction")?,
                channel: field(report, "channel")?,
                from_address: field(report, "from_address")?,
                to_address: field(report, "to_address")?,
                messaging_service_sid: field(report, "messaging_service_sid")?,
                body: field(report, "body")?,
                media_urls: media.iter().map(String::as_str).collect(),
                status: field(report, "status")?.ok_or_else(error::no_status)?,
                error_code: field(report, "error_code")?,
                source: field(report, "source")?.unwrap_or_default(),
                key_id: None,
                public_url: None,
                params: Params::Json(field(report, "params")?.unwrap_or("{}")),
                received_at: field::<TimestampWithTimeZone>(report, "received_at")?.map(i64::from),
                event_time: field::<TimestampWithTimeZone>(report, "event_time")?.map(i64::from),
            })
        })
        .collect::<Result<_, ErrorReport>>()?;
    let rows: Vec<_> = (record(&items)?.into_iter())
        .map(|r| (r.message_id, r.event_id, r.is_new))
        .collect();
    Ok(TableIterator::new(rows))
}

/// A field of a report. Texts lie in the report.
fn field<'a, T>(
    report: &'a PgHeapTuple<'_, AllocatedByRust>,
    name: &str,
) -> Result<Option<T>, ErrorReport>
where
    T: FromDatum + IntoDatum + UnboxDatum<As<'a> = T> + 'a,
{
    (report.get_by_name(name)).map_err(|error| error::internal(error.into()))
}
