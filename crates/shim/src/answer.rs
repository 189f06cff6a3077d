//! Turns the database's rows, or their absence, into responses and log lines.

use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use tokio_postgres::Row;

use crate::app::App;
use crate::arguments::LogCallbacks;
use crate::item::{Answer, Item};
use crate::logfmt::Level;
use crate::message_sid;
use crate::refusal::Refusal;

/// Answers each item with its row. Must only be called once the transaction is durable.
pub(crate) fn respond(
    app: &App,
    items: impl ExactSizeIterator<Item = Item>,
    rows: &[Row],
    lines: &mut Vec<u8>,
) {
    if rows.len() != items.len() {
        let text = format!("{} rows came back for {} requests", rows.len(), items.len());
        app.log.message(Level::Error, "bad_result", &text);
        for item in items {
            refuse(app, item, Refusal::DatabaseError, lines);
        }
        return;
    }
    for (item, row) in items.zip(rows) {
        match Outcome::read(row) {
            Ok(outcome) => outcome.deliver(app, item, lines),
            Err(text) => {
                app.log.message(Level::Error, "bad_result", &text);
                refuse(app, item, Refusal::DatabaseError, lines);
            }
        }
    }
}

/// Answers an item without a row.
pub(crate) fn refuse(app: &App, item: Item, refusal: Refusal, lines: &mut Vec<u8>) {
    app.metrics.refused(refusal);
    let outcome = Outcome {
        answer: Answer::bare(refusal.status()),
        reason: refusal.name(),
        message_id: None,
        event_id: None,
        is_new: None,
    };
    outcome.deliver(app, item, lines);
}

/// One row of the result.
struct Outcome<'a> {
    answer: Answer,
    reason: &'a str,
    message_id: Option<i64>,
    event_id: Option<i64>,
    is_new: Option<bool>,
}

impl<'a> Outcome<'a> {
    fn read(row: &'a Row) -> Result<Self, String> {
        let status: i32 = column(row, 0)?;
        let content_type: Option<&str> = column(row, 1)?;
        let body: Option<&str> = column(row, 2)?;
        let reason: Option<&str> = column(row, 3)?;
        let message_id = column(row, 4)?;
        let wait_ms: Option<i32> = column(row, 7)?;
        let wait = match (message_id, wait_ms) {
            (Some(id), Some(1..)) => Some((id, milliseconds(wait_ms))),
            _ => None,
        };
        Ok(Self {
            answer: Answer {
                status: parse_status(status)?,
                content_type: content_type.map(parse_content_type).transpose()?,
                body: body.map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.as_bytes())),
                wait,
                // A media type without a body means that a user's function has to produce the body.
                to_be_made: message_id.filter(|_| content_type.is_some() && body.is_none()),
            },
            reason: reason.unwrap_or_default(),
            message_id,
            event_id: column(row, 5)?,
            is_new: column(row, 6)?,
        })
    }

    fn deliver(self, app: &App, item: Item, lines: &mut Vec<u8>) {
        let status = self.answer.status;
        let wait = self.answer.wait;
        let Item {
            endpoint,
            head,
            body,
            source,
            id,
            received,
            answer,
            reservation,
            ..
        } = item;
        drop(reservation);
        let is_answered = answer.send(self.answer).is_ok();
        let is_wanted = match app.config.log_callbacks {
            LogCallbacks::Off => false,
            LogCallbacks::Refused => status.as_u16() >= 400,
            LogCallbacks::All => true,
        };
        // Requests that are stored or answered 400 had a valid signature.
        let is_vouched_for = status.is_success() || status == StatusCode::BAD_REQUEST;
        if !is_wanted || !(is_vouched_for || app.noise.admits()) {
            return;
        }
        let sid = message_sid::find(head.url(), &body).unwrap_or_default();
        let mut line = app
            .log
            .line(lines, Level::Info, "callback")
            .word("id", id.as_str())
            .word("endpoint", endpoint.name())
            .word("sid", sid)
            .word("decision", self.reason)
            .number("status", status.as_u16().into());
        for (key, value) in [("message_id", self.message_id), ("event_id", self.event_id)] {
            if let Some(Ok(value)) = value.map(u64::try_from) {
                line = line.number(key, value);
            }
        }
        if let Some(is_new) = self.is_new {
            line = line.flag("new", is_new);
        }
        if let Some((_, wait)) = wait {
            line = line.milliseconds("wait_ms", wait);
        }
        if let Some(source) = &source {
            line = line.word("source", source);
        }
        if !is_answered {
            // The client left, or was answered 503 at its deadline.
            line = line.flag("answered", false);
        }
        line.milliseconds("ms", received.elapsed()).end();
    }
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, String> {
    row.try_get(index)
        .map_err(|error| format!("column {} of the result: {error}", index + 1))
}

fn milliseconds(value: Option<i32>) -> Duration {
    Duration::from_millis(value.and_then(|value| value.try_into().ok()).unwrap_or(0))
}

fn parse_status(status: i32) -> Result<StatusCode, String> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("http_status {status} is not a final status"))
}

fn parse_content_type(text: &str) -> Result<HeaderValue, String> {
    match text {
        // The type of every response to an inbound message, not copied each time.
        "text/xml" => Ok(HeaderValue::from_static("text/xml")),
        text => HeaderValue::from_str(text)
            .map_err(|_| "content_type is not a valid header value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_statuses_are_answered() {
        assert_eq!(parse_status(204), Ok(StatusCode::NO_CONTENT));
        for status in [-1, 0, 100, 199, 600, 70_000] {
            assert!(parse_status(status).is_err(), "{status}");
        }
    }

    #[test]
    fn a_content_type_cannot_break_the_answer() {
        assert!(parse_content_type("text/xml; charset=utf-8").is_ok());
        assert!(parse_content_type("text/xml\r\nx: y").is_err());
    }
}
