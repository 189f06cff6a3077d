//! Events in the envelope of CloudEvents, as Event Streams send them.
//!
//! <https://www.twilio.com/docs/events/event-types>

use serde_json::{Value, json};

use crate::clock::Moment;
use crate::debugger::Alert;
use crate::message::{API_VERSION, Message, Status};

/// A type of events and the schema of their data.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    schema: &'static str,
    /// The newest version of the schema.
    pub(crate) version: u32,
}

/// An event without the version of its schema, which each subscription chooses.
pub(crate) struct Draft {
    kind: &'static Kind,
    id: String,
    source: String,
    data: Value,
    at: Moment,
    about: String,
    to: String,
}

/// An event as a sink is sent it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    /// The message that it is about; of a test, its type.
    pub(crate) about: String,
    pub(crate) to: String,
    pub(crate) text: Box<str>,
}

impl Kind {
    /// The type of the event of a new status; none for statuses that Event Streams do not know.
    pub(crate) fn of_status(status: Status) -> Option<&'static Self> {
        let status = status.as_str();
        let mut all = STATUSES.iter();
        all.find(|kind| kind.name.rsplit('.').next() == Some(status))
    }

    /// The type called `name`, if the sandbox sends it.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        let mut all = STATUSES.iter().chain([&INBOUND, &ERROR]);
        all.find(|kind| kind.name == name)
    }
}

impl Draft {
    pub(crate) fn status(kind: &'static Kind, id: String, message: &Message) -> Self {
        let at = message.updated.millis();
        let is_sms = message.channel() == "sms";
        let is_reported = matches!(message.status, Status::Delivered | Status::Undelivered);
        let data = json!({
            "messageSid": message.sid,
            "accountSid": message.account_sid,
            "timestamp": at,
            "eventName": kind.name,
            "apiVersion": API_VERSION,
            "from": message.from.as_deref().unwrap_or_default(),
            "to": message.to,
            "messageStatus": message.status.as_str().to_ascii_uppercase(),
            "messagingServiceSid": message.service,
            "errorCode": message.error,
            "body": message.body,
            "statusCallBackUrl": message.callback,
            "tags": {},
            "mcc": is_sms.then_some("310"),
            "mnc": is_sms.then_some("090"),
            "rawDlrDoneDate": (is_sms && is_reported).then(|| message.updated.carrier()),
            "numberOfSegments": message.segments,
            "dateUpdated": at,
        });
        Self::about(kind, id, message, data)
    }

    pub(crate) fn inbound(
        id: String,
        message: &Message,
        recipients: &[String],
        opt_out: Option<&str>,
    ) -> Self {
        let data = json!({
            "messageSid": message.sid,
            "accountSid": message.account_sid,
            "messagingServiceSid": message.service,
            "timestamp": message.created.millis(),
            "eventName": INBOUND.name,
            "from": message.from,
            "to": message.to,
            "body": message.body,
            "numMedia": message.media.len(),
            "numSegments": message.segments,
            "recipients": recipients,
            "optOutType": opt_out,
        });
        Self::about(&INBOUND, id, message, data)
    }

    pub(crate) fn alert(alert: &Alert, sid: &str, at: Moment, payload: &str) -> Self {
        let data = json!({
            "sid": sid,
            "account_sid": alert.account_sid,
            "date_created": at.millis(),
            "level": alert.level,
            "master_account_sid": alert.account_sid,
            "correlation_sid": alert.resource_sid,
            "product_name": "Programmable Messaging",
            "error_code": alert.code.to_string(),
            "payload": payload,
        });
        Self {
            kind: &ERROR,
            id: sid.to_owned(),
            source: format!("/v1/Alerts/{sid}"),
            data,
            at,
            about: alert.resource_sid.clone(),
            to: String::new(),
        }
    }

    /// The event with data of this version of the schema.
    pub(crate) fn event(&self, version: u32) -> Event {
        let schema = format!(
            "https://events-schemas.twilio.com/{}/{version}",
            self.kind.schema
        );
        Event {
            id: self.id.clone(),
            about: self.about.clone(),
            to: self.to.clone(),
            text: envelope(
                self.kind.name,
                &self.source,
                &self.id,
                &schema,
                self.at,
                &self.data,
            ),
        }
    }

    fn about(kind: &'static Kind, id: String, message: &Message, mut data: Value) -> Self {
        // Twilio leaves out what does not apply.
        if let Some(data) = data.as_object_mut() {
            data.retain(|_, value| !value.is_null());
        }
        Self {
            kind,
            id,
            source: format!("{}.json", message.uri()),
            data,
            at: message.updated,
            about: message.sid.clone(),
            to: message.to.clone(),
        }
    }
}

impl Event {
    /// The event of a sink's test, as captured from Twilio.
    pub(crate) fn test(account_sid: &str, test_id: &str) -> Self {
        let schema = "https://events-schemas.twilio.com/EventStreams.TestSink/1.json";
        Self {
            id: account_sid.to_owned(),
            about: TEST.to_owned(),
            to: String::new(),
            text: envelope(
                TEST,
                "Sink",
                account_sid,
                schema,
                Moment::now(),
                &json!({ "test_id": test_id }),
            ),
        }
    }

    pub(crate) fn is_test(&self) -> bool {
        self.about == TEST
    }
}

fn envelope(
    kind: &str,
    source: &str,
    id: &str,
    schema: &str,
    at: Moment,
    data: &Value,
) -> Box<str> {
    let event = json!({
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "id": id,
        "dataschema": schema,
        "datacontenttype": "application/json",
        "time": at.millis(),
        "data": data,
    });
    event.to_string().into()
}

const fn status(name: &'static str) -> Kind {
    Kind {
        name,
        schema: "Messaging.MessageStatus",
        version: 8,
    }
}

static STATUSES: [Kind; 6] = [
    status("com.twilio.messaging.message.queued"),
    status("com.twilio.messaging.message.sent"),
    status("com.twilio.messaging.message.delivered"),
    status("com.twilio.messaging.message.undelivered"),
    status("com.twilio.messaging.message.failed"),
    status("com.twilio.messaging.message.read"),
];

pub(crate) static INBOUND: Kind = Kind {
    name: "com.twilio.messaging.inbound-message.received",
    schema: "Messaging.InboundMessageV1",
    version: 6,
};

pub(crate) static ERROR: Kind = Kind {
    name: "com.twilio.error-logs.error.logged",
    schema: "ErrorLogs.Error",
    version: 2,
};

const TEST: &str = "com.twilio.eventstreams.test-event";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_what_applies_to_its_message() {
        let mut message = Message::example(Moment(1_692_853_305_000_000));
        message.status = Status::Undelivered;
        message.error = Some(30003);
        let kind = Kind::of_status(message.status).unwrap();
        let event = Draft::status(kind, "EZ1".to_owned(), &message).event(7);
        let event: Value = serde_json::from_str(&event.text).unwrap();
        let name = "com.twilio.messaging.message.undelivered";
        let expected = json!({
            "specversion": "1.0",
            "type": name,
            "source": format!("{}.json", message.uri()),
            "id": "EZ1",
            "dataschema": "https://events-schemas.twilio.com/Messaging.MessageStatus/7",
            "datacontenttype": "application/json",
            "time": "2023-08-24T05:01:45.000Z",
            "data": {
                "messageSid": message.sid,
                "accountSid": message.account_sid,
                "timestamp": "2023-08-24T05:01:45.000Z",
                "eventName": name,
                "apiVersion": "2010-04-01",
                "from": "+12025550100",
                "to": "+12025550123",
                "messageStatus": "UNDELIVERED",
                "errorCode": 30003,
                "body": "Your table is ready",
                "tags": {},
                "mcc": "310",
                "mnc": "090",
                "rawDlrDoneDate": "2308240501",
                "numberOfSegments": 1,
                "dateUpdated": "2023-08-24T05:01:45.000Z",
            },
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn statuses_that_event_streams_lack_are_no_events() {
        let name = |status| Kind::of_status(status).map(|kind| kind.name);
        assert_eq!(
            name(Status::Read),
            Some("com.twilio.messaging.message.read")
        );
        for status in [Status::Accepted, Status::Sending, Status::Canceled] {
            assert_eq!(name(status), None, "{status:?}");
        }
    }
}
