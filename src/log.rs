//! The tables of messages and events while something is recorded: one row of state and one event an item.
//!
//! State is a function of the set of events. What needs the whole set (failures, corrections) is computed
//! by `twilio.apply_state`; what the row alone decides is decided here, without a statement.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::status::{self, Kind, Provider, Status};

use crate::call;
use crate::columns::{Catalog, E, Indexes, M};
use crate::function;
use crate::record::{Item, Recorded};
use crate::table::{Insertion, Lookup, Session, Table, Value, text};

/// What is read of a message's row.
pub(crate) struct Message {
    pub(crate) id: i64,
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
    pub(crate) failed_at: Option<i64>,
    /// Whether its row was made for this item.
    pub(crate) is_made: bool,
}

/// The tables of messages and events, open for one call.
pub(crate) struct Log {
    session: Session,
    messages: Table,
    by_id: Option<Lookup>,
    by_sid: Option<Lookup>,
    events: Table,
    said: Option<Lookup>,
    indexes: Indexes,
    now: i64,
}

impl Log {
    /// Raises 42703 for a table that lost one of our columns.
    pub(crate) fn open() -> Result<Self, ErrorReport> {
        loop {
            let catalog = Catalog::current()?;
            let mut session = Session::open();
            let messages = session.table(&catalog.messages, true);
            let events = session.table(&catalog.events, false);
            // From here on nobody can alter the tables; who did while we waited for them is noticed.
            if !Catalog::is_known() {
                session.close([messages, events]);
                continue;
            }
            return Ok(Self {
                session,
                messages,
                by_id: None,
                by_sid: None,
                events,
                said: None,
                indexes: catalog.indexes,
                now: function::now_in_microseconds(),
            });
        }
    }

    pub(crate) fn close(self) {
        for lookup in [self.by_id, self.by_sid, self.said].into_iter().flatten() {
            lookup.end();
        }
        self.session.close([self.messages, self.events]);
    }

    /// Records one item. With what it recorded comes the message, if there is an event that is new.
    pub(crate) fn take(
        &mut self,
        item: &Item<'_>,
    ) -> Result<(Recorded, Option<Message>), ErrorReport> {
        let Some((message, is_inserted)) = self.message_of(item)? else {
            return Ok((Recorded::default(), None));
        };
        let other = (message.account_sid.as_deref().zip(item.account_sid))
            .is_some_and(|(holder, account)| holder != account);
        if item.message_id.is_none() && other {
            // A SID that another account holds is nobody's here.
            return Ok((Recorded::default(), None));
        }
        let status = status::lookup(message.provider, item.status);
        let is_advance = status.is_some_and(|status| {
            let current = status::lookup(message.provider, &message.status);
            is_inserted || current.is_none_or(|current| status.rank > current.rank)
        });
        let message_id = Some(message.id);
        if !is_inserted && let Some(event) = self.said_before(&message, item)? {
            let recorded = Recorded {
                message_id,
                event_id: Some(event),
                is_new: false,
            };
            return Ok((recorded, None));
        }
        let Some(event) = self.add_event(&message, item, is_advance)? else {
            // A user's trigger would not have the event, so it was not said.
            let recorded = Recorded {
                message_id,
                ..Recorded::default()
            };
            return Ok((recorded, None));
        };
        // A row that was inserted for this item is right already.
        if !is_inserted {
            self.apply(&message, item, status, is_advance)?;
        }
        let recorded = Recorded {
            message_id,
            event_id: Some(event),
            is_new: true,
        };
        Ok((recorded, Some(message)))
    }

    /// The item's row, locked; inserted in its first state if it is not there.
    fn message_of(&mut self, item: &Item<'_>) -> Result<Option<(Message, bool)>, ErrorReport> {
        loop {
            pgrx::check_for_interrupts!();
            let is_found = match item.message_id {
                Some(id) => {
                    let lookup = opened(&mut self.by_id, &self.messages, self.indexes.by_id)?;
                    self.messages
                        .find(lookup, &[(pg_sys::F_INT8EQ, id.into_datum())])
                }
                None => {
                    let lookup = opened(&mut self.by_sid, &self.messages, self.indexes.by_sid)?;
                    let sid = item.message_sid.map(text);
                    sid.is_some() && self.messages.find(lookup, &[(pg_sys::F_TEXTEQ, sid)])
                }
            };
            if is_found {
                if self.messages.lock()? {
                    return Ok(Some((self.found(), false)));
                }
                // It went away or moved on in the moment between: a purge, or another callback.
                continue;
            }
            if item.message_id.is_some() {
                return Ok(None);
            }
            let (insertion, message) = self.first_state(item)?;
            match insertion {
                Insertion::Done => return Ok(Some((message, true))),
                Insertion::Suppressed => return Ok(None),
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
            is_made: false,
        }
    }

    /// Inserts the row of a message that is heard of for the first time, unless somebody else just did.
    fn first_state(&mut self, item: &Item<'_>) -> Result<(Insertion, Message), ErrorReport> {
        let id = self.messages.next_number();
        let at = item.received_at.unwrap_or(self.now);
        let known = status::lookup(Provider::Twilio, item.status);
        let is_failure = known.is_some_and(|status| status.kind == Kind::Failure);
        let is = |names: &[&str]| names.contains(&item.status).then(|| at.into());
        let code = item.error_code.filter(|_| is_failure);
        let wording = match code {
            Some(_) => call::error_wording(item.params.jsonb()?)?,
            None => None,
        };
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
            (M::ErrorMessage as usize, wording.as_deref().map(text)),
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
            is_made: true,
        };
        Ok((insertion, message))
    }

    /// The event that says the same of this message. Its row is locked, so nobody else is adding one.
    fn said_before(
        &mut self,
        message: &Message,
        item: &Item<'_>,
    ) -> Result<Option<i64>, ErrorReport> {
        let lookup = opened(&mut self.said, &self.events, self.indexes.said)?;
        let key = [
            (pg_sys::F_INT8EQ, message.id.into_datum()),
            (pg_sys::F_TEXTEQ, Some(text(item.status))),
            (
                pg_sys::F_INT4EQ,
                item.error_code.and_then(IntoDatum::into_datum),
            ),
        ];
        let is_found = self.events.find(lookup, &key);
        Ok(is_found
            .then(|| self.events.get(E::EventId as usize))
            .flatten())
    }

    /// None where a user's trigger would not have the row.
    fn add_event(
        &mut self,
        message: &Message,
        item: &Item<'_>,
        is_advance: bool,
    ) -> Result<Option<i64>, ErrorReport> {
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
            (E::Params as usize, item.params.jsonb()?),
            (E::Xid as usize, Some(transaction.value.into())),
        ]);
        let insertion = self.events.insert();
        // SAFETY: what was written becomes visible to the items that follow.
        unsafe { pg_sys::CommandCounterIncrement() };
        Ok((insertion == Insertion::Done).then_some(id))
    }

    /// Brings a row that was there before to what its events say now.
    fn apply(
        &mut self,
        message: &Message,
        item: &Item<'_>,
        status: Option<&Status>,
        is_advance: bool,
    ) -> Result<(), ErrorReport> {
        let at = item.received_at.unwrap_or(self.now);
        let mut changes = Vec::with_capacity(8);
        self.antedate(&mut changes, at);
        // An unknown status changes nothing else.
        let has_failure = status.is_some_and(|status| {
            item.error_code.is_some()
                || message.failed_at.is_some()
                || message.read_at.is_some()
                || status.kind == Kind::Failure
        });
        if status.is_some() {
            if !has_failure {
                advance(&mut changes, message, item.status, at, is_advance);
            }
            adopt_addresses(&mut changes, message, item, is_advance);
        }
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

    /// A message that others made is as old as the oldest word about it, whichever is recorded first.
    /// Our own have an expiry, and the time at which they were asked for.
    fn antedate(&self, changes: &mut Vec<(usize, Value)>, at: i64) {
        let time = |column: M| self.messages.get::<i64>(column as usize);
        if time(M::CreatedAt).is_some_and(|created| at < created) && time(M::ExpiresAt).is_none() {
            changes.push((M::CreatedAt as usize, Some(at.into())));
        }
    }
}

/// The scan of an index, begun when it is needed first.
fn opened<'a>(
    lookup: &'a mut Option<Lookup>,
    table: &Table,
    index: pg_sys::Oid,
) -> Result<&'a mut Lookup, ErrorReport> {
    match lookup {
        Some(lookup) => Ok(lookup),
        none => Ok(none.insert(table.lookup(index)?)),
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
