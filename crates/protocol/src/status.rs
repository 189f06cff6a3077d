//! The statuses of a message and their order: a lattice, so that late and repeated news changes nothing.

/// Who gave a status its meaning: names are shared, ranks are not.
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
    /// On its way.
    Pending,
    /// It reached the recipient.
    Success,
    /// It did not reach the recipient.
    Failure,
    /// It was withdrawn.
    Withdrawn,
}

/// A known status of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The name, in lower case.
    pub name: &'static str,
    /// Its place in the order: the highest rank that was ever reported is the message's status.
    pub rank: i16,
    /// What it means.
    pub kind: Kind,
    /// Whether nothing else is expected to follow, corrections excepted.
    pub is_final: bool,
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

    /// All statuses that this provider's messages can have, ours included.
    pub fn statuses(self) -> impl Iterator<Item = &'static Status> {
        let own = match self {
            Self::Twilio => TWILIO,
            Self::SmsGate => SMSGATE,
        };
        own.iter().chain(OURS)
    }
}

impl Status {
    /// Whether rules by status look at it: a failure, except that a suppressed recipient is not texted another way.
    pub fn starts_fallback(&self) -> bool {
        self.kind == Kind::Failure && self.name != "suppressed"
    }

    /// Whether it reports that a message of ours arrived: then its fallback is no longer wanted.
    pub fn is_delivery(&self) -> bool {
        self.kind == Kind::Success && self.name != "received"
    }
}

/// The status `name` of `provider`, or `None` if it is not known: then it is logged and changes nothing.
pub fn lookup(provider: Provider, name: &str) -> Option<&'static Status> {
    provider.statuses().find(|status| status.name == name)
}

/// Our name of a state that SMSGate reports: its own in lower case, with Twilio's spelling of canceled.
pub fn from_smsgate(state: &str) -> String {
    match state.to_ascii_lowercase().as_str() {
        "cancelled" => "canceled".to_owned(),
        lower => lower.to_owned(),
    }
}

const fn status(name: &'static str, rank: i16, kind: Kind, is_final: bool) -> Status {
    Status {
        name,
        rank,
        kind,
        is_final,
    }
}

/// Twilio's enumeration, <https://www.twilio.com/docs/messaging/api/message-resource#message-status-values>.
/// Ranks are distinct, so that the highest rank alone names the status; accepted and scheduled are
/// equals that never both come in another order.
const TWILIO: &[Status] = &[
    status("accepted", 10, Kind::Pending, false),
    status("scheduled", 11, Kind::Pending, false),
    status("receiving", 12, Kind::Pending, false),
    status("queued", 20, Kind::Pending, false),
    status("sending", 30, Kind::Pending, false),
    status("sent", 40, Kind::Pending, false),
    status("partially_delivered", 45, Kind::Pending, false),
    status("received", 46, Kind::Success, true),
    status("undelivered", 50, Kind::Failure, true),
    status("failed", 60, Kind::Failure, true),
    status("canceled", 70, Kind::Withdrawn, true),
    status("delivered", 80, Kind::Success, true),
    status("read", 90, Kind::Success, true),
];

/// SMSGate's states. A phone may take a delivery back, so failed stands above delivered.
/// <https://docs.sms-gate.app/features/status-tracking/>
const SMSGATE: &[Status] = &[
    status("pending", 20, Kind::Pending, false),
    status("cancelling", 25, Kind::Pending, false),
    status("processed", 30, Kind::Pending, false),
    status("sent", 40, Kind::Pending, false),
    status("received", 46, Kind::Success, true),
    status("canceled", 70, Kind::Withdrawn, true),
    status("delivered", 80, Kind::Success, true),
    status("failed", 85, Kind::Failure, true),
];

/// Our own: what is so before, instead of or about a provider's answer.
const OURS: &[Status] = &[
    status("waiting", 1, Kind::Pending, false),
    status("unknown", 2, Kind::Pending, false),
    status("expired", 61, Kind::Failure, true),
    status("suppressed", 62, Kind::Failure, true),
    status("refused", 63, Kind::Failure, true),
];

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
    fn covers_smsgates_states() {
        for state in [
            "Pending",
            "Cancelling",
            "Cancelled",
            "Processed",
            "Sent",
            "Delivered",
            "Failed",
        ] {
            let name = from_smsgate(state);
            assert!(lookup(Provider::SmsGate, &name).is_some(), "{state}");
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
    fn failures_start_a_fallback_and_deliveries_end_it() {
        let names = |test: fn(&Status) -> bool| -> HashSet<_> {
            [Provider::Twilio, Provider::SmsGate]
                .into_iter()
                .flat_map(Provider::statuses)
                .filter(|status| test(status))
                .map(|status| status.name)
                .collect()
        };
        let starts = ["undelivered", "failed", "refused", "expired"];
        assert_eq!(names(Status::starts_fallback), HashSet::from(starts));
        let ends = ["delivered", "read"];
        assert_eq!(names(Status::is_delivery), HashSet::from(ends));
    }

    #[test]
    fn an_unknown_status_has_no_rank() {
        assert_eq!(lookup(Provider::Twilio, "teleported"), None);
        assert_eq!(lookup(Provider::Twilio, "Sent"), None);
        assert_eq!(lookup(Provider::Twilio, ""), None);
    }
}
