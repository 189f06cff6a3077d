//! The tables of messages and events in the catalog: their columns, sequences and indexes, as they are and as they
//! must be.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::heap::{self, Column, Examination, IndexExpressions, Key, Layout, Nulls, Shape, Typed};
use crate::record::item::Unrecorded;

/// Makes a module with a typed constant for each column, and the list of the same columns that is compared with the catalog.
macro_rules! columns {
    ($module:ident $list:ident $table:literal $($name:ident $type:ident $need:ident $column:literal;)*) => {
        pub(crate) mod $module {
            use crate::heap::{self, Typed};

            #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "the names of the constants below")]
            enum Place {
                $($name,)*
            }

            $(pub(crate) const $name: Typed<heap::$type> = Typed::new($table, Place::$name as usize);)*
        }

        const $list: &[Column] = &[$(Typed::<heap::$type>::described($column, columns!($need)),)*];
    };
    (required) => { false };
    (optional) => { true };
}

columns! {
    message_column MESSAGE c"message"
    MESSAGE_ID Int8 required c"message_id";
    ROOT_ID Int8 required c"root_id";
    STEP Int2 required c"step";
    TRY Int2 required c"try";
    MESSAGE_SID Text optional c"message_sid";
    ACCOUNT_SID Text optional c"account_sid";
    PROVIDER Text required c"provider";
    DIRECTION Text required c"direction";
    CHANNEL Text required c"channel";
    FROM_ADDRESS Text optional c"from_address";
    TO_ADDRESS Text optional c"to_address";
    MESSAGING_SERVICE_SID Text optional c"messaging_service_sid";
    BODY Text optional c"body";
    MEDIA_URLS TextArray optional c"media_urls";
    STATUS Text required c"status";
    ERROR_CODE Int4 optional c"error_code";
    ERROR_MESSAGE Text optional c"error_message";
    IS_CORRECTED Bool required c"is_corrected";
    IS_BLOCKED Bool required c"is_blocked";
    IS_SIMULATED Bool required c"is_simulated";
    CREATED_AT Timestamp required c"created_at";
    SENT_AT Timestamp optional c"sent_at";
    DELIVERED_AT Timestamp optional c"delivered_at";
    READ_AT Timestamp optional c"read_at";
    FAILED_AT Timestamp optional c"failed_at";
    EXPIRES_AT Timestamp optional c"expires_at";
}

columns! {
    event_column EVENT c"message_event"
    EVENT_ID Int8 required c"event_id";
    MESSAGE_ID Int8 required c"message_id";
    STATUS Text required c"status";
    ERROR_CODE Int4 optional c"error_code";
    SOURCE Text required c"source";
    IS_ADVANCE Bool required c"is_advance";
    RECEIVED_AT Timestamp required c"received_at";
    KEY_ID Text optional c"key_id";
    PUBLIC_URL Text optional c"public_url";
    PARAMS Jsonb required c"params";
    XID Xid8 required c"xid";
    EVENT_TIME Timestamp optional c"event_time";
}

const MESSAGES: Shape = Shape {
    name: c"message",
    columns: MESSAGE,
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
    columns: EVENT,
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
    pub(crate) expressions: Rc<IndexExpressions>,
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
            expressions: Rc::new(IndexExpressions::new()),
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
