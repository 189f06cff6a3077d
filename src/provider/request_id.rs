//! Identifiers of requests. One sender carries requests of all kinds, so each kind has a range of its own:
//! messages, jobs, webhooks, files, tokens, sinks, reconciliations and sweeps are each numbered from 1.

/// The subject of a request.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A message at Twilio; its requests bear its own number.
    Message = 0,
    /// A job for a message, other than creating it at Twilio.
    Job = 1,
    /// The registration of a webhook.
    Webhook = 2,
    /// A file of an incoming message.
    Media = 3,
    /// A gateway's token.
    Token = 4,
    /// A sink of Event Streams.
    EventSink = 5,
    /// The state of a message at Twilio.
    Reconciliation = 6,
    /// A page of an account's list of messages.
    Sweep = 7,
}

impl Kind {
    /// The id of the request about this kind's item of that number.
    pub(crate) const fn request_id(self, number: i64) -> i64 {
        (number & MAX_NUMBER) | (self as i64) << BITS
    }
}

/// No sequence ever comes that far.
const BITS: u32 = 60;
const MAX_NUMBER: i64 = (1 << BITS) - 1;

// Checked when this is compiled: the ranges follow one another, whatever the number.
const _: () = {
    assert!(Kind::Message.request_id(7) == 7);
    assert!(Kind::Message.request_id(i64::MAX) < Kind::Job.request_id(0));
    assert!(Kind::Job.request_id(i64::MAX) < Kind::Webhook.request_id(0));
    assert!(Kind::Webhook.request_id(i64::MAX) < Kind::Media.request_id(0));
    assert!(Kind::Media.request_id(i64::MAX) < Kind::Token.request_id(0));
    assert!(Kind::Token.request_id(i64::MAX) < Kind::EventSink.request_id(0));
    assert!(Kind::EventSink.request_id(i64::MAX) < Kind::Reconciliation.request_id(0));
    assert!(Kind::Reconciliation.request_id(i64::MAX) < Kind::Sweep.request_id(0));
    assert!(Kind::Sweep.request_id(0) < Kind::Sweep.request_id(MAX_NUMBER));
};
