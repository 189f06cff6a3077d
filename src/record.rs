//! The only writer of message state: logs what was said about messages and brings their rows up to date.
//!
//! State is a function of the set of events. What needs the whole set (failures, corrections) is computed
//! by `twilio.apply_state`; what the row alone decides is decided here, without a statement.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::status::{self, Kind, Provider, Status};

use crate::call;
use crate::error;
use crate::function;
use crate::table::{Insertion, Layout, Lookup, Session, Table, Value, jsonb, relation, text};

/// One thing that was said about one message.
#[derive(Default)]
pub(crate) struct Item<'a> {
    /// Our id, where the message is known by it.
    pub(crate) message_id: Option<i64>,
    pub(crate) account_sid: Option<&'a str>,
    pub(crate) message_sid: Option<&'a str>,
    pub(crate) direction: Option<&'a str>,
    pub(crate) channel: Option<&'a str>,
    pub(crate) from_address: Option<&'a str>,
    pub(crate) to_address: Option<&'a str>,
    pub(crate) messaging_service_sid: Option<&'a str>,
    pub(crate) body: Option<&'a str>,
    pub(crate) media_urls: Vec<&'a str>,
    pub(crate) status: &'a str,
    pub(crate) error_code: Option<i32>,
    pub(crate) source: &'a str,
    pub(crate) key_id: Option<&'a str>,
    pub(crate) public_url: Option<&'a str>,
    /// All parameters as a JSON object.
    pub(crate) params: &'a str,
    /// Microseconds of PostgreSQL's calendar; none for now.
    pub(crate) received_at: Option<i64>,
}

/// What became of one item.
#[derive(Clone, Copy, Default)]
pub(crate) struct Recorded {
    /// Null where the SID belongs to another account, or the id to no message.
    pub(crate) message_id: Option<i64>,
    pub(crate) event_id: Option<i64>,
    pub(crate) is_new: bool,
}

/// Records items; what became of each, in their order.
pub(crate) fn record(items: &[Item<'_>]) -> Result<Vec<Recorded>, ErrorReport> {
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
    let mut log = Log::open();
    let mut consequences = Consequences::default();
    let mut outcome = Ok(());
    for place in order {
        match log.take(&items[place], &mut consequences) {
            Ok(result) => recorded[place] = result,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    log.close();
    outcome?;
    consequences.carry_out()?;
    Ok(recorded)
}

/// The provider's wording of an error, as `twilio.error_wording` picks it.
fn wording(params: &str) -> Option<String> {
    let params: serde_json::Value = serde_json::from_str(params).ok()?;
    ["ErrorMessage", "ChannelStatusMessage"]
        .into_iter()
        .find_map(|name| params.get(name)?.as_str().map(str::to_owned))
}

/// What follows from what was said, once all of it is recorded.
#[derive(Default)]
struct Consequences {
    events: Vec<i64>,
    concerns_consent: bool,
    failed: Vec<i64>,
    corrected: Vec<i64>,
}

impl Consequences {
    fn note(&mut self, item: &Item<'_>, message: &Message, event: i64) {
        self.events.push(event);
        self.concerns_consent |= item.error_code.is_some() || item.direction == Some("inbound");
        if ["undelivered", "failed", "refused", "expired"].contains(&item.status) {
            self.failed.push(message.id);
        } else if message.failed_at.is_some() && ["delivered", "read"].contains(&item.status) {
            self.corrected.push(message.id);
        }
    }

    /// Consent comes first, before anything may be planned on it.
    fn carry_out(self) -> Result<(), ErrorReport> {
        if self.concerns_consent {
            call::note_consent(self.events)?;
        }
        if !self.failed.is_empty() {
            call::plan_fallback(self.failed)?;
        }
        if !self.corrected.is_empty() {
            call::withdraw_fallback(self.corrected)?;
        }
        Ok(())
    }
}

/// What is read of a message's row.
struct Message {
    id: i64,
    account_sid: Option<String>,
    provider: Provider,
    status: String,
    channel: Option<String>,
    from_address: Option<String>,
    to_address: Option<String>,
    messaging_service_sid: Option<String>,
    sent_at: Option<i64>,
    delivered_at: Option<i64>,
    read_at: Option<i64>,
    failed_at: Option<i64>,
}

/// The tables of messages and events, open for one call.
struct Log {
    session: Session,
    messages: Table,
    by_id: Option<Lookup>,
    by_sid: Option<Lookup>,
    events: Table,
    said: Option<Lookup>,
    indexes: Indexes,
    now: i64,
}

#[derive(Clone, Copy)]
struct Indexes {
    by_id: pg_sys::Oid,
    by_sid: pg_sys::Oid,
    said: pg_sys::Oid,
}

impl Log {
    fn open() -> Self {
        let catalog = Catalog::current();
        let mut session = Session::open();
        let messages = session.table(&catalog.messages, true);
        let events = session.table(&catalog.events, false);
        Self {
            session,
            messages,
            by_id: None,
            by_sid: None,
            events,
            said: None,
            indexes: catalog.indexes,
            now: function::now_in_microseconds(),
        }
    }

    fn close(self) {
        for lookup in [self.by_id, self.by_sid, self.said].into_iter().flatten() {
            lookup.end();
        }
        self.session.close([self.messages, self.events]);
    }

    fn take(
        &mut self,
        item: &Item<'_>,
        consequences: &mut Consequences,
    ) -> Result<Recorded, ErrorReport> {
        let Some((message, is_inserted)) = self.message_of(item) else {
            return Ok(Recorded::default());
        };
        let other = (message.account_sid.as_deref().zip(item.account_sid))
            .is_some_and(|(holder, account)| holder != account);
        if item.message_id.is_none() && other {
            // A SID that another account holds is nobody's here.
            return Ok(Recorded::default());
        }
        let status = status::lookup(message.provider, item.status);
        let is_advance = status.is_some_and(|status| {
            let current = status::lookup(message.provider, &message.status);
            is_inserted || current.is_none_or(|current| status.rank > current.rank)
        });
        let message_id = Some(message.id);
        if !is_inserted && let Some(event) = self.said_before(&message, item) {
            return Ok(Recorded {
                message_id,
                event_id: Some(event),
                is_new: false,
            });
        }
        let event = self.add_event(&message, item, is_advance);
        consequences.note(item, &message, event);
        // A row that was inserted for this item is right already; an unknown status changes nothing.
        if let (Some(status), false) = (status, is_inserted) {
            self.apply(&message, item, status, is_advance)?;
        }
        Ok(Recorded {
            message_id,
            event_id: Some(event),
            is_new: true,
        })
    }

    /// The item's row, locked; inserted in its first state if it is not there.
    fn message_of(&mut self, item: &Item<'_>) -> Option<(Message, bool)> {
        loop {
            pgrx::check_for_interrupts!();
            let is_found = match item.message_id {
                Some(id) => {
                    let lookup = (self.by_id)
                        .get_or_insert_with(|| self.messages.lookup(self.indexes.by_id));
                    self.messages
                        .find(lookup, &[(pg_sys::F_INT8EQ, id.into_datum())])
                }
                None => {
                    let lookup = (self.by_sid)
                        .get_or_insert_with(|| self.messages.lookup(self.indexes.by_sid));
                    let sid = item.message_sid.map(text);
                    sid.is_some() && self.messages.find(lookup, &[(pg_sys::F_TEXTEQ, sid)])
                }
            };
            if is_found {
                if self.messages.lock() {
                    return Some((self.found(), false));
                }
                // It went away or moved on in the moment between: a purge, or another callback.
                continue;
            }
            if item.message_id.is_some() {
                return None;
            }
            let (insertion, message) = self.first_state(item);
            match insertion {
                Insertion::Done => return Some((message, true)),
                Insertion::Suppressed => return None,
                Insertion::Taken => {}
            }
        }
    }

    fn found(&self) -> Message {
        let row = &self.messages;
        let text = |column: M| row.get::<String>(column as usize);
        let time = |column: M| row.get::<i64>(column as usize);
        Message {
            id: row.get(M::MessageId as usize).unwrap_or_default(),
            account_sid: text(M::AccountSid),
            provider: text(M::Provider)
                .and_then(|name| Provider::from_name(&name))
                .unwrap_or(Provider::Twilio),
            status: text(M::Status).unwrap_or_default(),
            channel: text(M::Channel),
            from_address: text(M::FromAddress),
            to_address: text(M::ToAddress),
            messaging_service_sid: text(M::MessagingServiceSid),
            sent_at: time(M::SentAt),
            delivered_at: time(M::DeliveredAt),
            read_at: time(M::ReadAt),
            failed_at: time(M::FailedAt),
        }
    }

    /// Inserts the row of a message that is heard of for the first time, unless somebody else just did.
    fn first_state(&mut self, item: &Item<'_>) -> (Insertion, Message) {
        let id = self.messages.next_number();
        let at = item.received_at.unwrap_or(self.now);
        let known = status::lookup(Provider::Twilio, item.status);
        let is_failure = known.is_some_and(|status| status.kind == Kind::Failure);
        let is = |names: &[&str]| names.contains(&item.status).then(|| at.into());
        let code = item.error_code.filter(|_| is_failure);
        let no = Some(false.into());
        let media = (!item.media_urls.is_empty()).then(|| item.media_urls.clone());
        self.messages.fill(&[
            (M::MessageId as usize, Some(id.into())),
            (M::RootId as usize, Some(id.into())),
            (M::Step as usize, 0_i16.into_datum()),
            (M::Try as usize, 1_i16.into_datum()),
            (M::MessageSid as usize, item.message_sid.map(text)),
            (M::AccountSid as usize, item.account_sid.map(text)),
            (M::Provider as usize, Some(text("twilio"))),
            (
                M::Direction as usize,
                Some(text(item.direction.unwrap_or("outbound"))),
            ),
            (
                M::Channel as usize,
                Some(text(item.channel.unwrap_or("sms"))),
            ),
            (M::FromAddress as usize, item.from_address.map(text)),
            (M::ToAddress as usize, item.to_address.map(text)),
            (
                M::MessagingServiceSid as usize,
                item.messaging_service_sid.map(text),
            ),
            (M::Body as usize, item.body.map(text)),
            (M::MediaUrls as usize, media.and_then(IntoDatum::into_datum)),
            (
                M::Status as usize,
                Some(text(known.map_or("accepted", |status| status.name))),
            ),
            (M::ErrorCode as usize, code.and_then(IntoDatum::into_datum)),
            (
                M::ErrorMessage as usize,
                code.and_then(|_| wording(item.params)).map(|t| text(&t)),
            ),
            (M::IsCorrected as usize, no),
            (M::IsBlocked as usize, no),
            (M::IsSimulated as usize, no),
            (M::CreatedAt as usize, Some(at.into())),
            (M::SentAt as usize, is(&["sent"])),
            (M::DeliveredAt as usize, is(&["delivered", "read"])),
            (M::ReadAt as usize, is(&["read"])),
            (M::FailedAt as usize, is_failure.then(|| at.into())),
        ]);
        let insertion = self.messages.insert_unless_taken(self.indexes.by_sid);
        // SAFETY: what was written becomes visible to the items that follow.
        unsafe { pg_sys::CommandCounterIncrement() };
        let message = Message {
            id,
            account_sid: item.account_sid.map(str::to_owned),
            provider: Provider::Twilio,
            status: item.status.to_owned(),
            channel: None,
            from_address: None,
            to_address: None,
            messaging_service_sid: None,
            sent_at: None,
            delivered_at: None,
            read_at: None,
            failed_at: is_failure.then_some(at),
        };
        (insertion, message)
    }

    /// The event that says the same of this message. Its row is locked, so nobody else is adding one.
    fn said_before(&mut self, message: &Message, item: &Item<'_>) -> Option<i64> {
        let lookup = self
            .said
            .get_or_insert_with(|| self.events.lookup(self.indexes.said));
        let key = [
            (pg_sys::F_INT8EQ, message.id.into_datum()),
            (pg_sys::F_TEXTEQ, Some(text(item.status))),
            (
                pg_sys::F_INT4EQ,
                item.error_code.and_then(IntoDatum::into_datum),
            ),
        ];
        (self.events.find(lookup, &key)).then(|| self.events.get(E::EventId as usize))?
    }

    fn add_event(&mut self, message: &Message, item: &Item<'_>, is_advance: bool) -> i64 {
        let id = self.events.next_number();
        // SAFETY: inside a transaction, which gets its number here if it has none yet.
        let transaction = unsafe { pg_sys::GetTopFullTransactionId() };
        self.events.fill(&[
            (E::EventId as usize, Some(id.into())),
            (E::MessageId as usize, Some(message.id.into())),
            (E::Status as usize, Some(text(item.status))),
            (
                E::ErrorCode as usize,
                item.error_code.and_then(IntoDatum::into_datum),
            ),
            (E::Source as usize, Some(text(item.source))),
            (E::IsAdvance as usize, Some(is_advance.into())),
            (
                E::ReceivedAt as usize,
                Some(item.received_at.unwrap_or(self.now).into()),
            ),
            (E::KeyId as usize, item.key_id.map(text)),
            (E::PublicUrl as usize, item.public_url.map(text)),
            (E::Params as usize, jsonb(item.params)),
            (E::Xid as usize, Some(transaction.value.into())),
        ]);
        self.events.insert();
        // SAFETY: what was written becomes visible to the items that follow.
        unsafe { pg_sys::CommandCounterIncrement() };
        id
    }

    /// Brings a row that was there before to what its events say now.
    fn apply(
        &mut self,
        message: &Message,
        item: &Item<'_>,
        status: &Status,
        is_advance: bool,
    ) -> Result<(), ErrorReport> {
        let has_failure = item.error_code.is_some()
            || message.failed_at.is_some()
            || message.read_at.is_some()
            || status.kind == Kind::Failure;
        let mut changes = Vec::with_capacity(8);
        if !has_failure {
            let at = item.received_at.unwrap_or(self.now);
            advance(&mut changes, message, item.status, at, is_advance);
        }
        adopt_addresses(&mut changes, message, item, is_advance);
        if !changes.is_empty() {
            self.messages.update(&changes);
            // SAFETY: what was written becomes visible to the items that follow.
            unsafe { pg_sys::CommandCounterIncrement() };
        }
        if has_failure {
            call::apply_state(message.id)?;
        }
        Ok(())
    }
}

/// No failure is in the set of events, so this is all that `twilio.message_state` would find.
fn advance(
    changes: &mut Vec<(usize, Value)>,
    message: &Message,
    status: &str,
    at: i64,
    is_advance: bool,
) {
    let earlier = |time: Option<i64>| time.is_none_or(|time| at < time);
    if is_advance {
        changes.push((M::Status as usize, Some(text(status))));
    }
    match status {
        "sent" if earlier(message.sent_at) => changes.push((M::SentAt as usize, Some(at.into()))),
        // Whose transaction began first need not be whose lock comes first, so a read may be the older.
        "delivered" if earlier(message.delivered_at) => {
            changes.push((M::DeliveredAt as usize, Some(at.into())));
        }
        "read" => {
            changes.push((M::ReadAt as usize, Some(at.into())));
            if message.delivered_at.is_none() {
                changes.push((M::DeliveredAt as usize, Some(at.into())));
            }
        }
        _ => {}
    }
}

/// Twilio may choose the sender, even the channel, on the way: what comes with the status counts.
fn adopt_addresses(
    changes: &mut Vec<(usize, Value)>,
    message: &Message,
    item: &Item<'_>,
    is_advance: bool,
) {
    let mut adopt = |column: M, old: &Option<String>, new: Option<&str>| {
        let is_other = new.is_some() && new != old.as_deref();
        if is_other {
            changes.push((column as usize, new.map(text)));
        }
        is_other
    };
    if is_advance || message.from_address.is_none() || message.to_address.is_none() {
        let from = adopt(M::FromAddress, &message.from_address, item.from_address);
        let to = adopt(M::ToAddress, &message.to_address, item.to_address);
        if from || to {
            adopt(M::Channel, &message.channel, item.channel);
        }
    }
    if message.messaging_service_sid.is_none() {
        adopt(M::MessagingServiceSid, &None, item.messaging_service_sid);
    }
}

/// Columns of `twilio.message`, in the order of [`MESSAGE`].
#[derive(Clone, Copy)]
enum M {
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
}

const MESSAGE: [&CStr; 25] = [
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
];

/// Columns of `twilio.message_event`, in the order of [`EVENT`].
#[derive(Clone, Copy)]
enum E {
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
struct Catalog {
    messages: Layout,
    events: Layout,
    indexes: Indexes,
}

thread_local! {
    static CATALOG: RefCell<Option<Catalog>> = const { RefCell::new(None) };
}

impl Catalog {
    /// Looked up once in a connection, and again whenever one of the two tables was altered or replaced.
    fn current() -> Self {
        if let Some(catalog) = CATALOG.with_borrow(Clone::clone) {
            return catalog;
        }
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        // SAFETY: a callback of the right type, registered once in the life of the process.
        REGISTERED.call_once(|| unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
        });
        let catalog = Self {
            messages: Layout::of(c"message", &MESSAGE, c"message_message_id_seq"),
            events: Layout::of(c"message_event", &EVENT, c"message_event_event_id_seq"),
            indexes: Indexes {
                by_id: relation(c"message_pkey"),
                by_sid: relation(c"message_message_sid_key"),
                said: relation(c"message_event_is_said_once"),
            },
        };
        CATALOG.set(Some(catalog.clone()));
        catalog
    }
}

/// Called by PostgreSQL for each relation that changed in the catalog, 0 for all; must not fail.
unsafe extern "C-unwind" fn forget(_: pg_sys::Datum, relation: pg_sys::Oid) {
    CATALOG.with_borrow_mut(|catalog| {
        if catalog.as_ref().is_some_and(|catalog| {
            relation == pg_sys::InvalidOid
                || [catalog.messages.table, catalog.events.table].contains(&relation)
        }) {
            *catalog = None;
        }
    });
}

/// The arrays of the SQL function are the columns of what was said, with one element an item; arrays of
/// what nobody said may be empty.
#[pg_extern(name = "record", volatile, parallel_unsafe)]
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
    let table = Catalog::current().messages;
    if !table.may_be_written() {
        return Err(error::may_not_record());
    }
    let media: Vec<Vec<String>> = (media_urls.iter())
        .map(|list| serde_json::from_str(list.unwrap_or("[]")).unwrap_or_default())
        .collect();
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
            params: params.get(place).flatten().unwrap_or("{}"),
            received_at: (received_at.get(place).flatten()).map(i64::from),
        })
        .collect();
    let rows: Vec<_> = (record(&items)?.into_iter())
        .map(|r| (r.message_id, r.event_id, r.is_new))
        .collect();
    Ok(TableIterator::new(rows))
}
