//! The tables of messages and events in the catalog: their columns, sequences and indexes, as they are and as they
//! must be.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::heap::{Column, Examination, Key, Layout, Nulls, Shape};
use crate::record::item::Unrecorded;

/// Columns of `twilio.message`, in the order of [`MESSAGE`].
#[derive(Clone, Copy)]
pub(crate) enum MessageColumn {
    MessageId,
    RootId,
    Step,
    Try,
    MessageSid,
    AccountSid,
    Provider,
    Direction,
    Channel,
    FromAddress,
    ToAddress,
    MessagingServiceSid,
    Body,
    MediaUrls,
    Status,
    ErrorCode,
    ErrorMessage,
    IsCorrected,
    IsBlocked,
    IsSimulated,
    CreatedAt,
    SentAt,
    DeliveredAt,
    ReadAt,
    FailedAt,
    ExpiresAt,
}

const MESSAGE: [Column; 26] = [
    required(c"message_id", pg_sys::INT8OID),
    required(c"root_id", pg_sys::INT8OID),
    required(c"step", pg_sys::INT2OID),
    required(c"try", pg_sys::INT2OID),
    optional(c"message_sid", pg_sys::TEXTOID),
    optional(c"account_sid", pg_sys::TEXTOID),
    required(c"provider", pg_sys::TEXTOID),
    required(c"direction", pg_sys::TEXTOID),
    required(c"channel", pg_sys::TEXTOID),
    optional(c"from_address", pg_sys::TEXTOID),
    optional(c"to_address", pg_sys::TEXTOID),
    optional(c"messaging_service_sid", pg_sys::TEXTOID),
    optional(c"body", pg_sys::TEXTOID),
    optional(c"media_urls", pg_sys::TEXTARRAYOID),
    required(c"status", pg_sys::TEXTOID),
    optional(c"error_code", pg_sys::INT4OID),
    optional(c"error_message", pg_sys::TEXTOID),
    required(c"is_corrected", pg_sys::BOOLOID),
    required(c"is_blocked", pg_sys::BOOLOID),
    required(c"is_simulated", pg_sys::BOOLOID),
    required(c"created_at", pg_sys::TIMESTAMPTZOID),
    optional(c"sent_at", pg_sys::TIMESTAMPTZOID),
    optional(c"delivered_at", pg_sys::TIMESTAMPTZOID),
    optional(c"read_at", pg_sys::TIMESTAMPTZOID),
    optional(c"failed_at", pg_sys::TIMESTAMPTZOID),
    optional(c"expires_at", pg_sys::TIMESTAMPTZOID),
];

/// Columns of `twilio.message_event`, in the order of [`EVENT`].
#[derive(Clone, Copy)]
pub(crate) enum EventColumn {
    EventId,
    MessageId,
    Status,
    ErrorCode,
    Source,
    IsAdvance,
    ReceivedAt,
    KeyId,
    PublicUrl,
    Params,
    Xid,
}

const EVENT: [Column; 11] = [
    required(c"event_id", pg_sys::INT8OID),
    required(c"message_id", pg_sys::INT8OID),
    required(c"status", pg_sys::TEXTOID),
    optional(c"error_code", pg_sys::INT4OID),
    required(c"source", pg_sys::TEXTOID),
    required(c"is_advance", pg_sys::BOOLOID),
    required(c"received_at", pg_sys::TIMESTAMPTZOID),
    optional(c"key_id", pg_sys::TEXTOID),
    optional(c"public_url", pg_sys::TEXTOID),
    required(c"params", pg_sys::JSONBOID),
    required(c"xid", pg_sys::XID8OID),
];

const MESSAGES: Shape = Shape {
    name: c"message",
    columns: &MESSAGE,
    identity: c"message_id",
    sequence: c"message_message_id_seq",
    keys: &[
        Key {
            name: c"message_pkey",
            columns: &[c"message_id"],
            nulls: Nulls::Absent,
            is_primary: true,
        },
        Key {
            name: c"message_message_sid_key",
            columns: &[c"message_sid"],
            nulls: Nulls::Distinct,
            is_primary: false,
        },
    ],
};

const EVENTS: Shape = Shape {
    name: c"message_event",
    columns: &EVENT,
    identity: c"event_id",
    sequence: c"message_event_event_id_seq",
    keys: &[Key {
        name: c"message_event_is_said_once",
        columns: &[c"message_id", c"status", c"error_code"],
        nulls: Nulls::Equal,
        is_primary: false,
    }],
};

/// The two tables in the catalog.
pub(crate) struct Catalog {
    pub(crate) messages: Layout,
    pub(crate) events: Layout,
    pub(crate) indexes: Indexes,
}

/// For each key the indexes of its definition, the first of which is valid.
pub(crate) struct Indexes {
    pub(crate) by_id: Vec<pg_sys::Oid>,
    pub(crate) by_sid: Vec<pg_sys::Oid>,
    pub(crate) reported: Vec<pg_sys::Oid>,
}

thread_local! {
    static CATALOG: RefCell<Option<Rc<Catalog>>> = const { RefCell::new(None) };
    /// Counts what may concern us: what was looked up while it rose is not kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

impl Catalog {
    /// Looked up and compared with what is expected once in a connection, and again whenever one of the two
    /// tables or their indexes was altered or replaced.
    pub(crate) fn current() -> Result<Rc<Self>, Unrecorded> {
        if let Some(catalog) = CATALOG.with_borrow(Clone::clone) {
            return Ok(catalog);
        }
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        // SAFETY: a callback of the right type, registered once in the life of the process.
        REGISTERED.call_once(|| unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
        });
        let before = CHANGES.get();
        // The lock that writing takes anyway.
        let [messages, events] =
            [MESSAGES, EVENTS].map(|shape| (shape.examine(pg_sys::RowExclusiveLock), shape));
        let is_unfit = |(found, _): &(Examination, Shape)| found.is_unfit();
        if [&messages, &events].into_iter().any(is_unfit) {
            let differences = [messages.0, events.0].map(|found| found.differences);
            return Err(Unrecorded::Altered(
                differences.into_iter().flatten().collect(),
            ));
        }
        let (messages, mut by_key) = laid_out(messages)?;
        let (events, mut of_events) = laid_out(events)?;
        let catalog = Rc::new(Self {
            messages,
            events,
            indexes: Indexes {
                by_id: std::mem::take(&mut by_key[0]),
                by_sid: std::mem::take(&mut by_key[1]),
                reported: std::mem::take(&mut of_events[0]),
            },
        });
        if before == CHANGES.get() {
            CATALOG.set(Some(Rc::clone(&catalog)));
        }
        Ok(catalog)
    }

    /// Whether nothing was altered since it was looked up.
    pub(crate) fn is_known() -> bool {
        CATALOG.with_borrow(Option::is_some)
    }

    fn concerns(&self, relation: pg_sys::Oid) -> bool {
        let Indexes {
            by_id,
            by_sid,
            reported,
        } = &self.indexes;
        [self.messages.table, self.events.table].contains(&relation)
            || [by_id, by_sid, reported]
                .iter()
                .any(|indexes| indexes.contains(&relation))
    }
}

fn laid_out(
    (found, shape): (Examination, Shape),
) -> Result<(Layout, Vec<Vec<pg_sys::Oid>>), ErrorReport> {
    let names: Vec<_> = shape.columns.iter().map(|column| column.name).collect();
    let layout = Layout::of(shape.name, &names, shape.sequence)?;
    Ok((layout.with_defaults(found.defaults), found.indexes))
}

/// Called by PostgreSQL for each relation that changed in the catalog, 0 for all; must not fail.
unsafe extern "C-unwind" fn forget(_: pg_sys::Datum, relation: pg_sys::Oid) {
    CATALOG.with_borrow_mut(|catalog| {
        let is_ours = |catalog: &Rc<Catalog>| catalog.concerns(relation);
        if relation == pg_sys::InvalidOid || catalog.as_ref().is_none_or(is_ours) {
            *catalog = None;
            CHANGES.set(CHANGES.get() + 1);
        }
    });
}

/// Compares the tables that are written below SQL with their definition: one row for each difference.
#[pg_extern]
fn table_differences() -> TableIterator<
    'static,
    (
        name!(is_fatal, bool),
        name!(difference, String),
        name!(remedy, String),
    ),
> {
    let found = [MESSAGES, EVENTS].map(|shape| shape.examine(pg_sys::AccessShareLock));
    let differences = found.into_iter().flat_map(|found| found.differences);
    let rows: Vec<_> = differences
        .map(|difference| {
            (
                difference.is_fatal,
                difference.describe(),
                difference.remedy,
            )
        })
        .collect();
    TableIterator::new(rows)
}

const fn required(name: &'static CStr, data_type: pg_sys::Oid) -> Column {
    Column {
        name,
        data_type,
        may_be_null: false,
    }
}

const fn optional(name: &'static CStr, data_type: pg_sys::Oid) -> Column {
    Column {
        name,
        data_type,
        may_be_null: true,
    }
}
