//! The statuses of a message and their order, which makes late and repeated reports harmless.

/// The provider of a message. Providers share names of statuses, but not their ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Twilio's Messages resource.
    Twilio,
    /// An Android phone running SMSGate.
    SmsGate,
}

/// What a status means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The message is on its way.
    Pending,
    /// The message reached the recipient.
    Success,
    /// The message did not reach the recipient.
    Failure,
    /// The message was canceled.
    Withdrawn,
}

/// A known status of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The name, in lower case.
    pub name: &'static str,
    /// Its place in the order: the message's status is the one with the highest rank that was ever reported.
    pub rank: i16,
    /// What the status means.
    pub kind: Kind,
}

impl Status {
    /// Whether fallback rules apply to a message with this status: it failed, other than by suppression. A suppressed
    /// recipient must not get the message in another way either.
    pub fn starts_fallback(&self) -> bool {
        self.kind == Kind::Failure && self.name != SUPPRESSED
    }

    /// Whether the provider confirms that the recipient has the message. It withdraws the fallback of a message that
    /// was reported as failed before.
    pub fn is_delivery(&self) -> bool {
        self.kind == Kind::Success && self.name != RECEIVED
    }
}

impl Provider {
    /// The name in the column `provider`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Twilio => "twilio",
            Self::SmsGate => "smsgate",
        }
    }

    /// The provider of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Twilio, Self::SmsGate]
            .into_iter()
            .find(|provider| provider.as_str() == name)
    }

    /// All statuses of this provider's messages, including those that the extension sets itself.
    pub fn statuses(self) -> impl Iterator<Item = &'static Status> {
        let own = match self {
            Self::Twilio => TWILIO,
            Self::SmsGate => SMSGATE,
        };
        own.iter().chain(OURS)
    }
}

/// The status `name` of `provider`; `None` if it is unknown. An unknown status is logged and otherwise ignored.
pub fn lookup(provider: Provider, name: &str) -> Option<&'static Status> {
    provider.statuses().find(|status| status.name == name)
}

/// The name of the status for a state of SMSGate: the state in lower case, with Twilio's spelling of canceled.
pub fn from_smsgate(state: &str) -> String {
    match state.to_ascii_lowercase().as_str() {
        "cancelled" => "canceled".to_owned(),
        lower => lower.to_owned(),
    }
}

const fn status(name: &'static str, rank: i16, kind: Kind) -> Status {
    Status { name, rank, kind }
}

/// Twilio's enumeration, <https://www.twilio.com/docs/messaging/api/message-resource#message-status-values>.
/// Ranks are distinct, so that the highest rank identifies the status. A message is either accepted or scheduled first,
/// so the order of these two does not matter.
const TWILIO: &[Status] = &[
    status("accepted", 10, Kind::Pending),
    status("scheduled", 11, Kind::Pending),
    status("receiving", 12, Kind::Pending),
    status("queued", 20, Kind::Pending),
    status("sending", 30, Kind::Pending),
    status("sent", 40, Kind::Pending),
    status("partially_delivered", 45, Kind::Pending),
    status(RECEIVED, 46, Kind::Success),
    status("undelivered", 50, Kind::Failure),
    status("failed", 60, Kind::Failure),
    status("canceled", 70, Kind::Withdrawn),
    status("delivered", 80, Kind::Success),
    status("read", 90, Kind::Success),
];

/// SMSGate's states. A phone may report a failure after a delivery, so failed ranks above delivered.
/// <https://docs.sms-gate.app/features/status-tracking/>
const SMSGATE: &[Status] = &[
    status("pending", 20, Kind::Pending),
    status("cancelling", 25, Kind::Pending),
    status("processed", 30, Kind::Pending),
    status("sent", 40, Kind::Pending),
    status(RECEIVED, 46, Kind::Success),
    status("canceled", 70, Kind::Withdrawn),
    status("delivered", 80, Kind::Success),
    status("failed", 85, Kind::Failure),
];

/// Statuses that the extension sets itself, before or instead of the provider's.
const OURS: &[Status] = &[
    status("waiting", 1, Kind::Pending),
    status("unknown", 2, Kind::Pending),
    status("expired", 61, Kind::Failure),
    status(SUPPRESSED, 62, Kind::Failure),
    status("refused", 63, Kind::Failure),
];

/// Of an incoming message.
const RECEIVED: &str = "received";
/// Of a message that was not sent because its recipient is suppressed.
const SUPPRESSED: &str = "suppressed";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn covers_twilios_enumeration() {
        for name in [
            "queued",
            "sending",
            "sent",
            "failed",
            "delivered",
            "undelivered",
            "receiving",
            "received",
            "accepted",
            "scheduled",
            "read",
            "partially_delivered",
            "canceled",
        ] {
            assert!(lookup(Provider::Twilio, name).is_some(), "{name}");
        }
    }

    #[test]
    fn ranks_and_names_are_unique_per_provider() {
        for provider in [Provider::Twilio, Provider::SmsGate] {
            let ranks: HashSet<_> = provider.statuses().map(|s| s.rank).collect();
            let names: HashSet<_> = provider.statuses().map(|s| s.name).collect();
            assert_eq!(ranks.len(), provider.statuses().count());
            assert_eq!(names.len(), ranks.len());
        }
    }

    #[test]
    fn orders_as_documented() {
        let order = [
            "waiting",
            "unknown",
            "accepted",
            "queued",
            "sending",
            "sent",
            "undelivered",
            "failed",
            "canceled",
            "delivered",
            "read",
        ];
        let ranks: Vec<_> = order
            .iter()
            .map(|name| lookup(Provider::Twilio, name).unwrap().rank)
            .collect();
        assert!(ranks.is_sorted());
        let rank = |name| lookup(Provider::SmsGate, name).unwrap().rank;
        assert!(rank("delivered") < rank("failed"));
    }

    #[test]
    fn statuses_with_consequences() {
        let names = |provider: Provider, has: fn(&Status) -> bool| {
            let found = provider.statuses().filter(|status| has(status));
            found.map(|status| status.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Provider::Twilio, Status::starts_fallback),
            ["undelivered", "failed", "expired", "refused"]
        );
        assert_eq!(
            names(Provider::SmsGate, Status::starts_fallback),
            ["failed", "expired", "refused"]
        );
        let delivered = names(Provider::Twilio, Status::is_delivery);
        assert_eq!(delivered, ["delivered", "read"]);
        let delivered = names(Provider::SmsGate, Status::is_delivery);
        assert_eq!(delivered, ["delivered"]);
    }

    #[test]
    fn an_unknown_status_has_no_rank() {
        assert_eq!(lookup(Provider::Twilio, "teleported"), None);
        assert_eq!(lookup(Provider::Twilio, "Sent"), None);
        assert_eq!(lookup(Provider::Twilio, ""), None);
    }
}
