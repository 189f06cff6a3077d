//! Twilio's webhooks that are not about a message. They are sometimes sent to the wrong URL, signed like callbacks, and
//! are recognized so that the refusal can name them.
//!
//! <https://www.twilio.com/docs/messaging/features/link-shortening>
//! <https://www.twilio.com/docs/usage/monitor-debugger-webhook>
//! <https://www.twilio.com/docs/conversations/conversations-webhooks>
//! <https://www.twilio.com/docs/voice/twiml>
//! <https://www.twilio.com/docs/verify/api/webhooks>

use std::fmt;

use crate::form::Form;
use crate::sid;

/// The Twilio product that a webhook belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Event Streams: one CloudEvent or an array of them.
    EventStreams,
    /// Clicks on shortened links.
    LinkShortening,
    /// Errors and warnings of an account.
    Debugger,
    /// Conversations, and Programmable Chat before it.
    Conversations,
    /// Calls.
    Voice,
    /// Factors and challenges of Verify.
    Verify,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventStreams => "Event Streams",
            Self::LinkShortening => "link shortening",
            Self::Debugger => "the debugger",
            Self::Conversations => "Conversations",
            Self::Voice => "Voice",
            Self::Verify => "Verify",
        })
    }
}

impl Product {
    /// Recognizes the parameters of a form, a query or a flat JSON object.
    pub fn of_form(form: &Form<'_>) -> Option<Self> {
        let is_sid = |name, kind| (form.filled(name)).is_some_and(|text| sid::is_sid(text, kind));
        let has = |name| form.filled(name).is_some();
        if form.filled("type").is_some_and(is_event) && has("specversion") {
            Some(Self::EventStreams)
        } else if is_of_debugger(form) {
            Some(Self::Debugger)
        } else if has("EventType")
            && (is_sid("ConversationSid", "CH") || is_sid("ChannelSid", "CH"))
        {
            Some(Self::Conversations)
        } else if is_sid("CallSid", "CA") {
            Some(Self::Voice)
        } else if is_sid("service_sid", "VA") {
            Some(Self::Verify)
        } else if form.filled("event_type") == Some("click") && (has("link") || has("sms_sid")) {
            Some(Self::LinkShortening)
        } else {
            None
        }
    }
}

/// Whether a form is a call of the debugger's webhook: it has that webhook's parameters, each once, and no other. So a signed
/// text of another form cannot be divided into it: behind the account comes a parameter that this form does not have.
pub fn is_of_debugger(form: &Form<'_>) -> bool {
    // First what other forms lack, since each callback is asked.
    (form.filled("Sid")).is_some_and(|text| sid::is_sid(text, "NO"))
        && form.filled("AccountSid").is_some_and(sid::is_account)
        && form.iter().enumerate().all(|(place, (name, _))| {
            DEBUGGER.contains(&name) && form.iter().skip(place + 1).all(|(other, _)| other != name)
        })
}

const DEBUGGER: [&str; 7] = [
    "AccountSid",
    "Level",
    "ParentAccountSid",
    "Payload",
    "PayloadType",
    "Sid",
    "Timestamp",
];

/// The account of a form that names it like Twilio's newer products.
pub fn account_of<'a>(form: &'a Form<'_>) -> Option<&'a str> {
    form.filled("account_sid")
        .filter(|text| sid::is_account(text))
}

fn is_event(name: &str) -> bool {
    name.starts_with("com.twilio.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

    fn product(body: &str) -> Option<Product> {
        let digits = "0123456789abcdef0123456789abcdef";
        Product::of_form(&Form::parse(body.replace('#', digits).as_bytes()))
    }

    #[test]
    fn recognises_products_by_their_parameters() {
        for (body, expected) in [
            (
                "AccountSid=AC#&Sid=NO#&Level=ERROR&PayloadType=application%2Fjson&Payload=%7B%22error_code%22%3A%2211200%22%7D",
                Product::Debugger,
            ),
            (
                "AccountSid=AC#&EventType=onMessageAdded&ConversationSid=CH#&MessageSid=IM#&Body=Hi&MessagingBinding.Address=a&MessagingBinding.Address=b",
                Product::Conversations,
            ),
            (
                "AccountSid=AC#&EventType=onMessageSent&ChannelSid=CH#&InstanceSid=IS#",
                Product::Conversations,
            ),
            (
                "AccountSid=AC#&CallSid=CA#&CallStatus=ringing&From=%2B1&To=%2B2",
                Product::Voice,
            ),
            (
                "type=factor.verified&account_sid=AC#&service_sid=VA#&factor_sid=YF#",
                Product::Verify,
            ),
            (
                "event_type=click&sms_sid=SM#&account_sid=AC#&link=https%3A%2F%2Fexample.com",
                Product::LinkShortening,
            ),
        ] {
            assert_eq!(product(body), Some(expected), "{body}");
        }
        for body in [
            "",
            "AccountSid=AC#&MessageSid=SM#&MessageStatus=sent",
            "AccountSid=AC#&MessageSid=SM#&SmsStatus=received&Body=Level&From=%2B1",
            "CallSid=x&Level=1&Sid=NO1&EventType=a&event_type=click&type=com.twilio.x",
        ] {
            assert_eq!(product(body), None, "{body}");
        }
    }

    #[test]
    fn finds_the_account() {
        let form = format!("account_sid={ACCOUNT}");
        assert_eq!(account_of(&Form::parse(form.as_bytes())), Some(ACCOUNT));
        assert_eq!(account_of(&Form::parse(b"account_sid=x")), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Product::of_form(&Form::parse(&body));
        }
    }
}
