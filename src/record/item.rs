//! Items to record, and their results.

use std::borrow::Cow;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::form::{Form, storable};

use crate::heap::{Difference, Value};
use crate::record::jsonb::{self, Names};

/// One report about one message.
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
    pub(crate) params: Params<'a>,
    /// Microseconds of PostgreSQL's calendar; none for now.
    pub(crate) received_at: Option<i64>,
    /// The provider's own time of it, in the same unit.
    pub(crate) event_time: Option<i64>,
}

impl Item<'_> {
    /// Whether it can change consent: an incoming message, or a failure.
    pub(crate) fn may_change_consent(&self) -> bool {
        self.error_code.is_some() || self.direction == Some("inbound")
    }
}

/// All parameters of a report.
#[derive(Clone, Copy)]
pub(crate) enum Params<'a> {
    Form(&'a Form<'a>),
    /// The text of a JSON object.
    Json(&'a str),
}

impl Params<'_> {
    pub(crate) fn jsonb(self) -> Result<Value, ErrorReport> {
        match self {
            Self::Form(form) => jsonb::of_form(form),
            Self::Json(text) => Ok(jsonb::of_text(text)),
        }
    }

    /// Whether a form has a value of this name that `reported` lacks, the payload of a stored object.
    pub(crate) fn has_beyond(self, reported: &[u8], name: &str) -> bool {
        match self {
            Self::Form(form) => form.filled(name).is_some() && !Names::of(reported).is_filled(name),
            Self::Json(_) => false,
        }
    }

    /// Those of them that have a value here and none in `reported`, the payload of a stored object; none if there are
    /// none, which costs no allocation but that of the stored names.
    pub(crate) fn beyond(self, reported: &[u8]) -> Result<Value, ErrorReport> {
        let names = Names::of(reported);
        match self {
            Self::Form(form) => {
                let pairs: Vec<_> = (form.iter())
                    .filter(|(name, value)| !value.is_empty() && !names.is_filled(&storable(name)))
                    .map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value)))
                    .collect();
                match pairs.is_empty() {
                    true => Ok(None),
                    false => jsonb::of_form(&Form::from_pairs(pairs)),
                }
            }
            Self::Json(text) => {
                let members = serde_json::from_str::<serde_json::Map<_, _>>(text);
                let mut members = members.unwrap_or_default();
                let is_empty = |value: &serde_json::Value| value.is_null() || value == "";
                members.retain(|name, value| !is_empty(value) && !names.is_filled(name));
                match members.is_empty() {
                    true => Ok(None),
                    false => Ok(jsonb::of_text(
                        &serde_json::Value::Object(members).to_string(),
                    )),
                }
            }
        }
    }
}

/// The result of one item.
#[derive(Clone, Default)]
pub(crate) struct Recorded {
    /// Null where the SID belongs to another account or to a purged message, or the id to no message.
    pub(crate) message_id: Option<i64>,
    pub(crate) event_id: Option<i64>,
    pub(crate) is_new: bool,
    /// What a repeat brought.
    pub(crate) news: News,
    /// Whether the message was purged, and what comes again of it counts as a repeat.
    pub(crate) is_purged: bool,
    /// Why there is no row, if a user's trigger dropped it.
    pub(crate) dropped_by: Option<String>,
}

/// What a repeat brought that has consequences.
#[derive(Clone, Copy, Default)]
pub(crate) struct News {
    /// The files of an incoming message.
    pub(crate) has_files: bool,
    /// Twilio's word that its sender opted out or in.
    pub(crate) has_consent: bool,
}

/// Why nothing was recorded.
pub(crate) enum Unrecorded {
    /// The tables are not what they must be. No row was touched.
    Altered(Vec<Difference>),
    Error(ErrorReport),
}

impl From<ErrorReport> for Unrecorded {
    fn from(error: ErrorReport) -> Self {
        Self::Error(error)
    }
}

impl From<Unrecorded> for ErrorReport {
    fn from(unrecorded: Unrecorded) -> Self {
        match unrecorded {
            Unrecorded::Altered(differences) => altered(&differences),
            Unrecorded::Error(error) => error,
        }
    }
}

/// 55000: `message` or `message_event` was altered, so that its rows cannot be written without SQL.
fn altered(differences: &[Difference]) -> ErrorReport {
    let fatal = || differences.iter().filter(|difference| difference.is_fatal);
    let lines: Vec<_> = fatal().map(Difference::describe).collect();
    let remedies: Vec<_> = fatal()
        .map(|difference| difference.remedy.as_str())
        .collect();
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the tables of messages and events are not defined as twilio_callback requires",
        "",
    )
    .set_detail(lines.join("\n"))
    .set_hint(format!(
        "{}\nThen take in the callbacks that were kept: select * from twilio.reverify_rejected();",
        remedies.join("\n")
    ))
}
