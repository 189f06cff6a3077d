//! The row of a message: what is read of it, what it is at first, and what a word about the message makes of it.

use pgrx::pg_sys::panic::ErrorReport;
use protocol::status::{self, Kind, Provider, Status};

use crate::heap::{Assignment, HeapTable, Text, Timestamp, Typed};
use crate::record::catalog::message_column;
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
    /// Columns with their new values.
    pub(super) columns: Vec<Assignment>,
    /// Whether the whole set of events has to be looked at for the rest.
    pub(super) needs_events: bool,
}

impl Message {
    /// The row that was found last.
    pub(super) fn read(row: &HeapTable) -> Self {
        let text = |column: Typed<Text>| row.get(column);
        let time = |column: Typed<Timestamp>| row.get(column);
        Self {
            id: row.get(message_column::MESSAGE_ID).unwrap_or_default(),
            account_sid: text(message_column::ACCOUNT_SID),
            provider: text(message_column::PROVIDER)
                .and_then(|name| Provider::from_name(&name))
                .unwrap_or(Provider::Twilio),
            status: text(message_column::STATUS).unwrap_or_default(),
            channel: text(message_column::CHANNEL),
            from_address: text(message_column::FROM_ADDRESS),
            to_address: text(message_column::TO_ADDRESS),
            messaging_service_sid: text(message_column::MESSAGING_SERVICE_SID),
            sent_at: time(message_column::SENT_AT),
            delivered_at: time(message_column::DELIVERED_AT),
            read_at: time(message_column::READ_AT),
            failed_at: time(message_column::FAILED_AT),
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
        // A list has the numbers of a message that was redacted.
        if !(item.source == "poll" && self.is_blank()) {
            self.adopt_addresses(&mut columns, row, item, is_advance);
        }
        Changes {
            columns,
            needs_events,
        }
    }

    /// No failure is in the set of events, so this is all that `twilio_internal.message_state` would find.
    fn advance(&self, columns: &mut Vec<Assignment>, status: &str, at: i64, is_advance: bool) {
        let earlier = |time: Option<i64>| time.is_none_or(|time| at < time);
        if is_advance {
            columns.push(message_column::STATUS.to(status));
        }
        match status {
            "sent" if earlier(self.sent_at) => columns.push(message_column::SENT_AT.to(at)),
            // The transaction that began first need not get the lock first, so a read may be the older.
            "delivered" if earlier(self.delivered_at) => {
                columns.push(message_column::DELIVERED_AT.to(at));
            }
            "read" => {
                columns.push(message_column::READ_AT.to(at));
                if self.delivered_at.is_none() {
                    columns.push(message_column::DELIVERED_AT.to(at));
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
        columns: &mut Vec<Assignment>,
        row: &HeapTable,
        item: &Item<'_>,
        is_advance: bool,
    ) {
        let mut adopt = |column: Typed<Text>, old: &Option<String>, new: Option<&str>| {
            let is_other = new.is_some() && new != old.as_deref();
            if is_other {
                columns.push(column.to(new));
            }
            is_other
        };
        if is_advance || self.from_address.is_none() || self.to_address.is_none() {
            let from = adopt(
                message_column::FROM_ADDRESS,
                &self.from_address,
                item.from_address,
            );
            if self.to_address.is_none() && !is_ours(row) {
                adopt(
                    message_column::TO_ADDRESS,
                    &self.to_address,
                    item.to_address,
                );
            }
            let is_other_to =
                item.to_address.is_some() && item.to_address != self.to_address.as_deref();
            if from || is_other_to {
                adopt(message_column::CHANNEL, &self.channel, item.channel);
            }
        }
        if self.messaging_service_sid.is_none() {
            adopt(
                message_column::MESSAGING_SERVICE_SID,
                &None,
                item.messaging_service_sid,
            );
        }
    }
}

/// Whether we made the message that this row, which was found last, is about: ours have an expiry.
fn is_ours(row: &HeapTable) -> bool {
    row.get(message_column::EXPIRES_AT).is_some()
}

/// A message that others made is as old as the oldest of its events, whichever is recorded first.
/// Our own have the time at which they were asked for.
fn antedate(columns: &mut Vec<Assignment>, row: &HeapTable, at: i64) {
    let created = row.get(message_column::CREATED_AT);
    if created.is_some_and(|created| at < created) && !is_ours(row) {
        columns.push(message_column::CREATED_AT.to(at));
    }
}

/// The row of a message that is heard of for the first time.
pub(super) fn first_row(
    id: i64,
    item: &Item<'_>,
    at: i64,
) -> Result<[Assignment; 25], ErrorReport> {
    let known = status::lookup(Provider::Twilio, item.status);
    let is_failure = known.is_some_and(|status| status.kind == Kind::Failure);
    let is = |names: &[&str]| names.contains(&item.status).then_some(at);
    let code = item.error_code.filter(|_| is_failure);
    let wording = match is_failure {
        true => statement::provider_error_text(item.params.jsonb()?)?,
        false => None,
    };
    let media = (!item.media_urls.is_empty()).then(|| item.media_urls.clone());
    Ok([
        message_column::MESSAGE_ID.to(id),
        message_column::ROOT_ID.to(id),
        message_column::STEP.to(0),
        message_column::TRY.to(1),
        message_column::MESSAGE_SID.to(item.message_sid),
        message_column::ACCOUNT_SID.to(item.account_sid),
        message_column::PROVIDER.to("twilio"),
        message_column::DIRECTION.to(item.direction.unwrap_or("outbound")),
        message_column::CHANNEL.to(item.channel.unwrap_or("sms")),
        message_column::FROM_ADDRESS.to(item.from_address),
        message_column::TO_ADDRESS.to(item.to_address),
        message_column::MESSAGING_SERVICE_SID.to(item.messaging_service_sid),
        message_column::BODY.to(item.body),
        message_column::MEDIA_URLS.to(media),
        message_column::STATUS.to(known.map_or("accepted", |status| status.name)),
        message_column::ERROR_CODE.to(code),
        message_column::ERROR_MESSAGE.to(wording.as_deref()),
        message_column::IS_CORRECTED.to(false),
        message_column::IS_BLOCKED.to(false),
        message_column::IS_SIMULATED.to(false),
        message_column::CREATED_AT.to(at),
        message_column::SENT_AT.to(is(&["sent"])),
        message_column::DELIVERED_AT.to(is(&["delivered", "read"])),
        message_column::READ_AT.to(is(&["read"])),
        message_column::FAILED_AT.to(is_failure.then_some(at)),
    ])
}
