//! The tables of messages and events in the catalog: their columns, sequences and indexes.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::table::{Layout, relation};

/// Columns of `twilio.message`, in the order of [`MESSAGE`].
#[derive(Clone, Copy)]
pub(crate) enum M {
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

const MESSAGE: [&CStr; 26] = [
    c"message_id",
    c"root_id",
    c"step",
    c"try",
    c"message_sid",
    c"account_sid",
    c"provider",
    c"direction",
    c"channel",
    c"from_address",
    c"to_address",
    c"messaging_service_sid",
    c"body",
    c"media_urls",
    c"status",
    c"error_code",
    c"error_message",
    c"is_corrected",
    c"is_blocked",
    c"is_simulated",
    c"created_at",
    c"sent_at",
    c"delivered_at",
    c"read_at",
    c"failed_at",
    c"expires_at",
];

/// Columns of `twilio.message_event`, in the order of [`EVENT`].
#[derive(Clone, Copy)]
pub(crate) enum E {
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

const EVENT: [&CStr; 11] = [
    c"event_id",
    c"message_id",
    c"status",
    c"error_code",
    c"source",
    c"is_advance",
    c"received_at",
    c"key_id",
    c"public_url",
    c"params",
    c"xid",
];

/// The two tables in the catalog.
#[derive(Clone)]
pub(crate) struct Catalog {
    pub(crate) messages: Layout,
    pub(crate) events: Layout,
    pub(crate) indexes: Indexes,
}

thread_local! {
    static CATALOG: RefCell<Option<Catalog>> = const { RefCell::new(None) };
    /// Counts what may concern us: what was looked up while it rose is not kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

impl Catalog {
    /// Looked up once in a connection, and again whenever one of the two tables was altered or replaced.
    /// Raises 42703 for a table that lost one of our columns.
    pub(crate) fn current() -> Result<Self, ErrorReport> {
        if let Some(catalog) = CATALOG.with_borrow(Clone::clone) {
            return Ok(catalog);
        }
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        // SAFETY: a callback of the right type, registered once in the life of the process.
        REGISTERED.call_once(|| unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
        });
        let before = CHANGES.get();
        let catalog = Self {
            messages: Layout::of(c"message", &MESSAGE, c"message_message_id_seq")?,
            events: Layout::of(c"message_event", &EVENT, c"message_event_event_id_seq")?,
            indexes: Indexes {
                by_id: relation(c"message_pkey"),
                by_sid: relation(c"message_message_sid_key"),
                said: relation(c"message_event_is_said_once"),
            },
        };
        if before == CHANGES.get() {
            CATALOG.set(Some(catalog.clone()));
        }
        Ok(catalog)
    }

    /// Whether nothing was altered since it was looked up.
    pub(crate) fn is_known() -> bool {
        CATALOG.with_borrow(Option::is_some)
    }
}

/// Called by PostgreSQL for each relation that changed in the catalog, 0 for all; must not fail.
unsafe extern "C-unwind" fn forget(_: pg_sys::Datum, relation: pg_sys::Oid) {
    CATALOG.with_borrow_mut(|catalog| {
        let is_ours =
            |catalog: &Catalog| [catalog.messages.table, catalog.events.table].contains(&relation);
        if relation == pg_sys::InvalidOid || catalog.as_ref().is_none_or(is_ours) {
            *catalog = None;
            CHANGES.set(CHANGES.get() + 1);
        }
    });
}

#[derive(Clone, Copy)]
pub(crate) struct Indexes {
    pub(crate) by_id: pg_sys::Oid,
    pub(crate) by_sid: pg_sys::Oid,
    pub(crate) said: pg_sys::Oid,
}
