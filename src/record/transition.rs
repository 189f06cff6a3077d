//! The row of a message: what is read of it, what it is at first, and what a word about the message makes of it.

use pgrx::IntoDatum;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::status::{self, Kind, Provider, Status};

use crate::heap::{HeapTable, Value, text};
use crate::record::catalog::MessageColumn;
use crate::record::item::Item;
use crate::statement;

/// The columns that are read from a message's row.
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(super) account_sid: Option<String>,
    pub(crate) provider: Provider,
    pub(super) status: String,
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

/// The changes to a row.
pub(super) struct Changes {
    /// Columns by their place in the layout, with their values.
    pub(super) columns: Vec<(usize, Value)>,
    /// Whether the whole set of events has to be looked at for the rest.
    pub(super) needs_events: bool,
}

impl Message {
    /// The row that was found last.
    pub(super) fn read(row: &HeapTable) -> Self {
        let text = |column: MessageColumn| row.get::<String>(column as usize);
        let time = |column: MessageColumn| row.get::<i64>(column as usize);
        Self {
            id: row
                .get(MessageColumn::MessageId as usize)
                .unwrap_or_default(),
            account_sid: text(MessageColumn::AccountSid),
            provider: text(MessageColumn::Provider)
                .and_then(|name| Provider::from_name(&name))
                .unwrap_or(Provider::Twilio),
            status: text(MessageColumn::Status).unwrap_or_default(),
            channel: text(MessageColumn::Channel),
            from_address: text(MessageColumn::FromAddress),
            to_address: text(MessageColumn::ToAddress),
            messaging_service_sid: text(MessageColumn::MessagingServiceSid),
            sent_at: time(MessageColumn::SentAt),
            delivered_at: time(MessageColumn::DeliveredAt),
            read_at: time(MessageColumn::ReadAt),
            failed_at: time(MessageColumn::FailedAt),
            is_made: false,
        }
    }

    /// A message that is heard of for the first time.
    pub(super) fn first(id: i64, item: &Item<'_>, at: i64) -> Self {
        let status = status::lookup(Provider::Twilio, item.status);
        let is_failure = status.is_some_and(|status| status.kind == Kind::Failure);
        Self {
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
        }
    }

    /// Whether it has no address, as after `twilio.redact`.
    pub(super) fn is_blank(&self) -> bool {
        self.from_address.is_none() && self.to_address.is_none()
    }

    /// The changes that a report makes to the row. `None` stands for an unknown status.
    pub(super) fn changes(
        &self,
        row: &HeapTable,
        item: &Item<'_>,
        status: Option<&Status>,
        at: i64,
        is_advance: bool,
    ) -> Changes {
        let mut columns = Vec::with_capacity(8);
        antedate(&mut columns, row, at);
        let Some(status) = status else {
            return Changes {
                columns,
                needs_events: false,
            };
        };
        let needs_events = item.error_code.is_some()
            || self.failed_at.is_some()
            || self.read_at.is_some()
            || status.kind == Kind::Failure;
        if !needs_events {
            self.advance(&mut columns, item.status, at, is_advance);
        }
        self.adopt_addresses(&mut columns, row, item, is_advance);
        Changes {
            columns,
            needs_events,
        }
    }

    /// No failure is in the set of events, so this is all that `twilio_internal.message_state` would find.
    fn advance(&self, columns: &mut Vec<(usize, Value)>, status: &str, at: i64, is_advance: bool) {
        let earlier = |time: Option<i64>| time.is_none_or(|time| at < time);
        if is_advance {
            columns.push((MessageColumn::Status as usize, Some(text(status))));
        }
        match status {
            "sent" if earlier(self.sent_at) => {
                columns.push((MessageColumn::SentAt as usize, Some(at.into())))
            }
            // The transaction that began first need not get the lock first, so a read may be the older.
            "delivered" if earlier(self.delivered_at) => {
                columns.push((MessageColumn::DeliveredAt as usize, Some(at.into())));
            }
            "read" => {
                columns.push((MessageColumn::ReadAt as usize, Some(at.into())));
                if self.delivered_at.is_none() {
                    columns.push((MessageColumn::DeliveredAt as usize, Some(at.into())));
                }
            }
            _ => {}
        }
    }

    /// Twilio may choose the sender, even the channel, on the way: what comes with the status counts. The recipient
    /// stays the one that was asked for, and in a message that others made the one of its first event: a channel
    /// may report the same person in another spelling, to which no other channel leads.
    fn adopt_addresses(
        &self,
        columns: &mut Vec<(usize, Value)>,
        row: &HeapTable,
        item: &Item<'_>,
        is_advance: bool,
    ) {
        let mut adopt = |column: MessageColumn, old: &Option<String>, new: Option<&str>| {
            let is_other = new.is_some() && new != old.as_deref();
            if is_other {
                columns.push((column as usize, new.map(text)));
            }
            is_other
        };
        if is_advance || self.from_address.is_none() || self.to_address.is_none() {
            let from = adopt(
                MessageColumn::FromAddress,
                &self.from_address,
                item.from_address,
            );
            if self.to_address.is_none() && !is_ours(row) {
                adopt(MessageColumn::ToAddress, &self.to_address, item.to_address);
            }
            let is_other_to =
                item.to_address.is_some() && item.to_address != self.to_address.as_deref();
            if from || is_other_to {
                adopt(MessageColumn::Channel, &self.channel, item.channel);
            }
        }
        if self.messaging_service_sid.is_none() {
            adopt(
                MessageColumn::MessagingServiceSid,
                &None,
                item.messaging_service_sid,
            );
        }
    }
}

/// Whether we made the message that this row, which was found last, is about: ours have an expiry.
fn is_ours(row: &HeapTable) -> bool {
    row.get::<i64>(MessageColumn::ExpiresAt as usize).is_some()
}

/// A message that others made is as old as the oldest of its events, whichever is recorded first.
/// Our own have the time at which they were asked for.
fn antedate(columns: &mut Vec<(usize, Value)>, row: &HeapTable, at: i64) {
    let created = row.get::<i64>(MessageColumn::CreatedAt as usize);
    if created.is_some_and(|created| at < created) && !is_ours(row) {
        columns.push((MessageColumn::CreatedAt as usize, Some(at.into())));
    }
}

/// The row of a message that is heard of for the first time.
pub(super) fn first_row(
    id: i64,
    item: &Item<'_>,
    at: i64,
) -> Result<[(usize, Value); 25], ErrorReport> {
    let known = status::lookup(Provider::Twilio, item.status);
    let is_failure = known.is_some_and(|status| status.kind == Kind::Failure);
    let is = |names: &[&str]| names.contains(&item.status).then(|| at.into());
    let code = item.error_code.filter(|_| is_failure);
    let wording = match is_failure {
        true => statement::provider_error_text(item.params.jsonb()?)?,
        false => None,
    };
    let no = Some(false.into());
    let media = (!item.media_urls.is_empty()).then(|| item.media_urls.clone());
    Ok([
        (MessageColumn::MessageId as usize, Some(id.into())),
        (MessageColumn::RootId as usize, Some(id.into())),
        (MessageColumn::Step as usize, 0_i16.into_datum()),
        (MessageColumn::Try as usize, 1_i16.into_datum()),
        (
            MessageColumn::MessageSid as usize,
            item.message_sid.map(text),
        ),
        (
            MessageColumn::AccountSid as usize,
            item.account_sid.map(text),
        ),
        (MessageColumn::Provider as usize, Some(text("twilio"))),
        (
            MessageColumn::Direction as usize,
            Some(text(item.direction.unwrap_or("outbound"))),
        ),
        (
            MessageColumn::Channel as usize,
            Some(text(item.channel.unwrap_or("sms"))),
        ),
        (
            MessageColumn::FromAddress as usize,
            item.from_address.map(text),
        ),
        (MessageColumn::ToAddress as usize, item.to_address.map(text)),
        (
            MessageColumn::MessagingServiceSid as usize,
            item.messaging_service_sid.map(text),
        ),
        (MessageColumn::Body as usize, item.body.map(text)),
        (
            MessageColumn::MediaUrls as usize,
            media.and_then(IntoDatum::into_datum),
        ),
        (
            MessageColumn::Status as usize,
            Some(text(known.map_or("accepted", |status| status.name))),
        ),
        (
            MessageColumn::ErrorCode as usize,
            code.and_then(IntoDatum::into_datum),
        ),
        (
            MessageColumn::ErrorMessage as usize,
            wording.as_deref().map(text),
        ),
        (MessageColumn::IsCorrected as usize, no),
        (MessageColumn::IsBlocked as usize, no),
        (MessageColumn::IsSimulated as usize, no),
        (MessageColumn::CreatedAt as usize, Some(at.into())),
        (MessageColumn::SentAt as usize, is(&["sent"])),
        (
            MessageColumn::DeliveredAt as usize,
            is(&["delivered", "read"]),
        ),
        (MessageColumn::ReadAt as usize, is(&["read"])),
        (
            MessageColumn::FailedAt as usize,
            is_failure.then(|| at.into()),
        ),
    ])
}
