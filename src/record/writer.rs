//! The tables of messages and events while something is recorded: one row of state and one event an item.
//!
//! State is a function of the set of events. State that needs the whole set (failures, corrections) is computed
//! by `twilio_internal.apply_state`; state that follows from the row alone is computed here, without a statement.

use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::status::{self, Status};

use crate::error;
use crate::function;
use crate::heap::{HeapTable, IndexScan, Insertion, JsonbDatum, WriteSession};
use crate::record::catalog::{Catalog, event_column, message_column};
use crate::record::item::{Item, News, Params, Recorded, Unrecorded};
use crate::record::jsonb;
use crate::record::purged;
use crate::statement;

pub(crate) use crate::record::transition::Message;
use crate::record::transition::{self, Changes};

/// The tables of messages and events, open for one call.
pub(crate) struct Writer {
    session: WriteSession,
    messages: HeapTable,
    by_id: Option<IndexScan>,
    by_sid: Option<IndexScan>,
    events: HeapTable,
    reported: Option<IndexScan>,
    catalog: Rc<Catalog>,
    now: i64,
}

/// The message of a new event, as it was before, and the status if it is known.
type New = (Message, Option<&'static Status>);

/// The message that an item belongs to.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, which a box would cost an allocation"
)]
enum Holder {
    /// The message, locked, and whether its row was inserted for the item.
    Message(Message, bool),
    /// A message whose row a trigger of the user's dropped.
    Dropped,
    /// A message that was purged.
    Purged,
    None,
}

impl Writer {
    pub(crate) fn open() -> Result<Self, Unrecorded> {
        loop {
            pgrx::check_for_interrupts!();
            let catalog = Catalog::current()?;
            let mut session = WriteSession::open(Rc::clone(&catalog.expressions));
            let messages = session.table(&catalog.messages);
            let events = session.table(&catalog.events);
            // The tables are locked now. If they were altered while we waited for the locks, start again.
            if !Catalog::is_known() {
                // SAFETY: the two tables of the session, without a scan.
                unsafe { session.close([messages, events]) };
                continue;
            }
            return Ok(Self {
                session,
                messages,
                by_id: None,
                by_sid: None,
                events,
                reported: None,
                catalog,
                now: function::now_in_microseconds(),
            });
        }
    }

    pub(crate) fn close(self) {
        for lookup in [self.by_id, self.by_sid, self.reported]
            .into_iter()
            .flatten()
        {
            lookup.end();
        }
        // SAFETY: the two tables of the session, whose scans have ended above.
        unsafe { self.session.close([self.messages, self.events]) };
    }

    /// Records one item. With what it recorded come the message and the known status, if there is an event that is new.
    pub(crate) fn take(&mut self, item: &Item<'_>) -> Result<(Recorded, Option<New>), ErrorReport> {
        let (message, is_inserted) = match self.message_of(item)? {
            Holder::Message(message, is_inserted) => (message, is_inserted),
            Holder::Dropped => return Ok((dropped(None, &self.messages), None)),
            Holder::None => return Ok((Recorded::default(), None)),
            Holder::Purged => {
                let recorded = Recorded {
                    is_purged: true,
                    ..Recorded::default()
                };
                return Ok((recorded, None));
            }
        };
        let other = (message.account_sid.as_deref().zip(item.account_sid))
            .is_some_and(|(holder, account)| holder != account);
        if item.message_id.is_none() && other {
            // A SID of another account belongs to no message here.
            return Ok((Recorded::default(), None));
        }
        let status = status::lookup(message.provider, item.status);
        let is_advance = status.is_some_and(|status| {
            let current = status::lookup(message.provider, &message.status);
            is_inserted || current.is_none_or(|current| status.rank > current.rank)
        });
        let message_id = Some(message.id);
        if !is_inserted && let Some(event) = self.reported_before(&message, item)? {
            let news = self.complete(&message, item)?;
            let recorded = Recorded {
                message_id,
                event_id: Some(event),
                news,
                ..Recorded::default()
            };
            return Ok((recorded, None));
        }
        let Some((event, is_disturbed)) = self.add_event(&message, item, is_advance)? else {
            return Ok((dropped(message_id, &self.events), None));
        };
        // A row that was inserted for this item is right already.
        if !is_inserted {
            let at = item.received_at.unwrap_or(self.now);
            let reread = match is_disturbed {
                true => Some(self.reread(message.id)?),
                false => None,
            };
            // A trigger may also have removed the row.
            let current = reread.as_ref().map_or(Some(&message), Option::as_ref);
            if let Some(current) = current {
                let changes = current.changes(&self.messages, item, status, at, is_advance);
                self.apply(message.id, &changes)?;
            }
        }
        let recorded = Recorded {
            message_id,
            event_id: Some(event),
            is_new: true,
            ..Recorded::default()
        };
        Ok((recorded, Some((message, status))))
    }

    /// The item's row, locked; inserted in its first state if it is not there.
    fn message_of(&mut self, item: &Item<'_>) -> Result<Holder, ErrorReport> {
        loop {
            pgrx::check_for_interrupts!();
            let is_found = match item.message_id {
                Some(id) => {
                    let lookup =
                        opened(&mut self.by_id, &self.messages, &self.catalog.indexes.by_id)?;
                    self.messages
                        .find(lookup, &[message_column::MESSAGE_ID.to(id)])
                }
                None => {
                    let lookup = opened(
                        &mut self.by_sid,
                        &self.messages,
                        &self.catalog.indexes.by_sid,
                    )?;
                    item.message_sid.is_some_and(|sid| {
                        self.messages
                            .find(lookup, &[message_column::MESSAGE_SID.to(sid)])
                    })
                }
            };
            if is_found {
                if self.messages.lock()? {
                    let message = Message::read(&self.messages);
                    return Ok(Holder::Message(message, false));
                }
                // It went away or moved on in the moment between: a purge, or another callback.
                continue;
            }
            if item.message_id.is_some() {
                return Ok(Holder::None);
            }
            // After the message itself was looked for: a purge removes it and remembers it at once.
            if item.may_change_consent()
                && let Some(sid) = item.message_sid
                && purged::is_purged(sid)?
            {
                return Ok(Holder::Purged);
            }
            let (insertion, message) = self.first_state(item)?;
            match insertion {
                Insertion::Done => return Ok(Holder::Message(message, true)),
                Insertion::Dropped => return Ok(Holder::Dropped),
                Insertion::Taken => {}
            }
        }
    }

    /// The row of a message as it is after a trigger may have written to it; none if it went away.
    fn reread(&mut self, message_id: i64) -> Result<Option<Message>, ErrorReport> {
        let lookup = opened(&mut self.by_id, &self.messages, &self.catalog.indexes.by_id)?;
        let key = [message_column::MESSAGE_ID.to(message_id)];
        while self.messages.find(lookup, &key) {
            if self.messages.lock()? {
                return Ok(Some(Message::read(&self.messages)));
            }
        }
        Ok(None)
    }

    /// Inserts the row of a new message, unless another session has just inserted it.
    fn first_state(&mut self, item: &Item<'_>) -> Result<(Insertion, Message), ErrorReport> {
        let id = self.messages.next_number();
        let at = item.received_at.unwrap_or(self.now);
        self.messages.fill(&transition::first_row(id, item, at)?);
        let insertion = self
            .messages
            .insert_unless_taken(&self.catalog.indexes.by_sid);
        next_command();
        Ok((insertion, Message::first(id, item, at)))
    }

    /// The same event of this message, if it is recorded. The message's row is locked, so no other session adds one.
    fn reported_before(
        &mut self,
        message: &Message,
        item: &Item<'_>,
    ) -> Result<Option<i64>, ErrorReport> {
        let lookup = opened(
            &mut self.reported,
            &self.events,
            &self.catalog.indexes.reported,
        )?;
        let key = [
            event_column::MESSAGE_ID.to(message.id),
            event_column::STATUS.to(item.status),
            event_column::ERROR_CODE.to(item.error_code),
        ];
        let is_found = self.events.find(lookup, &key);
        Ok(is_found
            .then(|| self.events.get(event_column::EVENT_ID))
            .flatten())
    }

    /// Adds to the event that was found last, and to its message, what a repeat of it says beyond it. The first value of a
    /// name stays. Returns what an incoming message's repeat brought that its event lacked: events of Event Streams say less.
    fn complete(&mut self, message: &Message, item: &Item<'_>) -> Result<News, ErrorReport> {
        let mut news = News::default();
        // A repeat does not restore redacted parameters.
        if message.is_blank() {
            return Ok(news);
        }
        news.has_files = !item.media_urls.is_empty()
            && item.direction == Some("inbound")
            && self.messages.get(message_column::MEDIA_URLS).is_none();
        if news.has_files {
            let media = Some(item.media_urls.clone());
            self.messages
                .update(&[message_column::MEDIA_URLS.to(media)])?;
            next_command();
        }
        let mut changes = Vec::new();
        let said = self.events.bytes(event_column::PARAMS);
        let additions = said.map_or(Ok(None), |said| item.params.beyond(said))?;
        news.has_consent = item.direction == Some("inbound")
            && said.is_some_and(|said| item.params.has_beyond(said, "OptOutType"));
        let is_timed = self.events.get(event_column::EVENT_TIME).is_some();
        if item.event_time.is_some() && !is_timed {
            changes.push(event_column::EVENT_TIME.to(item.event_time));
        }
        // Its message is locked, so only a statement of the user's can have changed it meanwhile.
        if additions.is_none() && changes.is_empty() || !self.events.lock()? {
            return Ok(news);
        }
        if let Some((additions, said)) = additions.zip(self.events.get(event_column::PARAMS)) {
            // SAFETY: merged returns the datum of a jsonb.
            let merged =
                jsonb::merged(said, additions).map(|merged| unsafe { JsonbDatum::new(merged) });
            changes.push(event_column::PARAMS.to(merged));
        }
        self.events.update(&changes)?;
        next_command();
        if additions.is_some() && message.failed_at.is_some() {
            // It may have brought the wording of the error.
            statement::apply_state(message.id)?;
        }
        Ok(news)
    }

    /// The event's number, and whether something else was written meanwhile: by a trigger of the user's. None where
    /// such a trigger would not have the row.
    fn add_event(
        &mut self,
        message: &Message,
        item: &Item<'_>,
        is_advance: bool,
    ) -> Result<Option<(i64, bool)>, ErrorReport> {
        let id = self.events.next_number();
        // SAFETY: inside a transaction, which gets its number here if it has none yet.
        let transaction = unsafe { pg_sys::GetTopFullTransactionId() };
        let params = match item.source == "poll" && !message.is_made && message.is_blank() {
            // A list has the numbers and texts of messages that were redacted.
            true => Params::Json("{}"),
            false => item.params,
        };
        // SAFETY: Params::jsonb returns the datum of a jsonb.
        let params = (params.jsonb()?).map(|params| unsafe { JsonbDatum::new(params) });
        self.events.fill(&[
            event_column::EVENT_ID.to(id),
            event_column::MESSAGE_ID.to(message.id),
            event_column::STATUS.to(item.status),
            event_column::ERROR_CODE.to(item.error_code),
            event_column::SOURCE.to(item.source),
            event_column::IS_ADVANCE.to(is_advance),
            event_column::RECEIVED_AT.to(item.received_at.unwrap_or(self.now)),
            event_column::KEY_ID.to(item.key_id),
            event_column::PUBLIC_URL.to(item.public_url),
            event_column::PARAMS.to(params),
            event_column::XID.to(transaction.value.cast_signed()),
            event_column::EVENT_TIME.to(item.event_time),
        ]);
        // SAFETY: the number of the current command, which rises with each that writes.
        let command = || unsafe { pg_sys::GetCurrentCommandId(false) };
        let before = command();
        let insertion = self.events.insert();
        let is_disturbed = command() != before;
        next_command();
        Ok((insertion == Insertion::Done).then_some((id, is_disturbed)))
    }

    /// Brings a row that was there before to what its events say now.
    fn apply(&mut self, message_id: i64, changes: &Changes) -> Result<(), ErrorReport> {
        if !changes.columns.is_empty() {
            self.messages.update(&changes.columns)?;
            next_command();
        }
        if changes.needs_events {
            statement::apply_state(message_id)?;
        }
        Ok(())
    }
}

/// Makes what was written visible to the items that follow.
fn next_command() {
    // SAFETY: a plain call inside the transaction that opened the tables; no scan that depends on the command is under way.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// The result for an item whose row a user's trigger dropped.
fn dropped(message_id: Option<i64>, table: &HeapTable) -> Recorded {
    Recorded {
        message_id,
        dropped_by: Some(table.dropped_by()),
        ..Recorded::default()
    }
}

/// The scan of an index, begun when it is needed first.
fn opened<'a>(
    lookup: &'a mut Option<IndexScan>,
    table: &HeapTable,
    indexes: &[pg_sys::Oid],
) -> Result<&'a mut IndexScan, ErrorReport> {
    match (lookup, indexes.first()) {
        (Some(lookup), _) => Ok(lookup),
        (none, Some(index)) => Ok(none.insert(table.index_scan(*index)?)),
        (None, None) => Err(error::missing_index()),
    }
}
