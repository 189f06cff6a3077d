//! The parameters of a create, checked as Twilio checks them.
//!
//! <https://www.twilio.com/docs/messaging/api/message-resource#request-body-parameters>

use protocol::address::{Address, Kind};
use protocol::form::Form;
use protocol::sid;
use protocol::url::Url;
use serde_json::Value;

use crate::clock::{self, Moment};
use crate::error::Refusal;
use crate::number;
use crate::sandbox::Sandbox;

/// A message that may be created.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) to: String,
    pub(crate) from: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) body: String,
    pub(crate) media: Vec<String>,
    pub(crate) callback: Option<String>,
    pub(crate) send_at: Option<Moment>,
    pub(crate) has_feedback: bool,
}

impl New {
    /// Checks a request that came at `now`.
    pub(crate) fn check(form: &Form<'_>, now: Moment) -> Result<Self, Refusal> {
        let to = form.filled("To").ok_or(Refusal::new(21604))?;
        recipient(to)?;
        let service = form.filled("MessagingServiceSid");
        if service.is_some_and(|service| !sid::is_messaging_service(service)) {
            return Err(Refusal::new(21705));
        }
        let from = form.filled("From");
        if from.is_none() && service.is_none() {
            return Err(Refusal::new(21603));
        }
        if let Some(from) = from {
            sender(from, to)?;
        }
        let (body, media) = content(form)?;
        settings(form)?;
        Ok(Self {
            to: to.to_owned(),
            from: from.map(str::to_owned),
            service: service.map(str::to_owned),
            body,
            media,
            callback: callback(form)?,
            send_at: send_at(form, service, now)?,
            has_feedback: form.first("ProvideFeedback") == Some("true"),
        })
    }

    pub(crate) fn channel(&self) -> &str {
        protocol::address::channel(self.from.as_deref(), Some(&self.to))
    }

    /// The recipient without its channel.
    pub(crate) fn bare_to(&self) -> &str {
        protocol::address::split_channel(&self.to).1
    }
}

impl Sandbox {
    /// Checks that the account may send from this sender.
    pub(crate) fn check_sender(&self, new: &New) -> Result<(), Refusal> {
        let Some(from) = &new.from else { return Ok(()) };
        if let Some(code) = number::refusal_of_sender(from) {
            return Err(Refusal::new(code));
        }
        match (self.owns(from), new.channel()) {
            (true, _) => Ok(()),
            (false, "sms") => Err(Refusal::new(21606)),
            (false, _) => Err(Refusal::new(63007)),
        }
    }
}

/// Parameters that Twilio does not know and ignores.
pub(crate) fn unknown(form: &Form<'_>) -> Vec<String> {
    let unknown = form.iter().filter(|(name, _)| !NAMES.contains(name));
    unknown.map(|(name, _)| name.to_owned()).collect()
}

fn recipient(to: &str) -> Result<(), Refusal> {
    let invalid = || Refusal::with(21211, format!("Invalid 'To' Phone Number: {to}"));
    let address = Address::parse(to).map_err(|_| invalid())?;
    let is_known = address.channel == "sms" || CHANNELS.contains(&address.channel);
    (is_known && address.can_receive())
        .then_some(())
        .ok_or_else(invalid)
}

fn sender(from: &str, to: &str) -> Result<(), Refusal> {
    let invalid = || Refusal::with(21212, format!("Invalid From Number (caller ID): {from}"));
    let sender = Address::parse(from).map_err(|_| invalid())?;
    if sender.kind == Kind::MessagingService {
        return Err(invalid());
    }
    if from == to {
        return Err(Refusal::new(21266));
    }
    // An RCS agent may write to a plain number.
    let is_rcs = sender.channel == "rcs" && to.starts_with('+');
    if !is_rcs && sender.channel != protocol::address::split_channel(to).0 {
        return Err(Refusal::new(21910));
    }
    Ok(())
}

fn content(form: &Form<'_>) -> Result<(String, Vec<String>), Refusal> {
    let body = form.first("Body").unwrap_or_default();
    let media = form
        .iter()
        .filter(|(name, value)| *name == "MediaUrl" && !value.is_empty());
    let media: Vec<String> = media.map(|(_, url)| url.to_owned()).collect();
    let content_sid = form.filled("ContentSid");
    if body.is_empty() && media.is_empty() && content_sid.is_none() {
        return Err(Refusal::new(21602));
    }
    if body.chars().count() > 1600 {
        return Err(Refusal::new(21617));
    }
    if media.len() > 10 {
        return Err(Refusal::new(21623));
    }
    if !media.iter().all(|url| is_web_url(url)) {
        return Err(Refusal::new(21620));
    }
    let is_template = |sid: &str| {
        sid.strip_prefix("HX")
            .is_some_and(|d| d.len() == 32 && d.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if !content_sid.is_none_or(is_template) {
        return Err(Refusal::new(21655));
    }
    let is_object = |text: &str| matches!(serde_json::from_str(text), Ok(Value::Object(_)));
    if !form.filled("ContentVariables").is_none_or(is_object) {
        return Err(Refusal::new(21656));
    }
    Ok((body.to_owned(), media))
}

fn callback(form: &Form<'_>) -> Result<Option<String>, Refusal> {
    let Some(url) = form.filled("StatusCallback") else {
        return Ok(None);
    };
    // Twilio calls no host with an underscore.
    let has_host = Url::parse(url).is_some_and(|url| !url.host.contains('_'));
    (is_web_url(url) && has_host)
        .then(|| Some(url.to_owned()))
        .ok_or_else(|| Refusal::with(21609, format!("Invalid 'StatusCallback': {url}")))
}

/// <https://www.twilio.com/docs/messaging/features/message-scheduling>
fn send_at(form: &Form<'_>, service: Option<&str>, now: Moment) -> Result<Option<Moment>, Refusal> {
    match form.filled("ScheduleType") {
        None => return Ok(None),
        Some("fixed") => {}
        Some(other) => {
            return Err(Refusal::with(
                20001,
                format!("Invalid ScheduleType: {other}"),
            ));
        }
    }
    if service.is_none() {
        return Err(Refusal::new(35118));
    }
    let text = form.filled("SendAt").ok_or(Refusal::new(35111))?;
    let moment = clock::parse(text).ok_or(Refusal::new(35114))?;
    let ahead = (moment.0 - now.0) / 1_000_000;
    (300..=35 * 86_400)
        .contains(&ahead)
        .then_some(Some(moment))
        .ok_or(Refusal::new(35114))
}

fn settings(form: &Form<'_>) -> Result<(), Refusal> {
    for (name, values, code) in CHOICES {
        if let Some(value) = form.filled(name).filter(|value| !values.contains(value)) {
            return Err(Refusal::with(*code, format!("Invalid {name}: {value}")));
        }
    }
    let is_period = |text: &str| text.parse().is_ok_and(|n: u32| (1..=36_000).contains(&n));
    if !form.filled("ValidityPeriod").is_none_or(is_period) {
        return Err(Refusal::new(21624));
    }
    let is_price = |text: &str| text.parse::<f64>().is_ok();
    if !form.filled("MaxPrice").is_none_or(is_price) {
        return Err(Refusal::new(21627));
    }
    if form.filled("FallbackFrom").is_some() && form.filled("MessagingServiceSid").is_none() {
        return Err(Refusal::new(21664));
    }
    Ok(())
}

fn is_web_url(url: &str) -> bool {
    let is_http = Url::parse(url)
        .is_some_and(|parsed| parsed.is_https() || parsed.scheme.eq_ignore_ascii_case("http"));
    is_http && url.chars().all(|c| c > ' ' && c != '\u{7f}')
}

const CHANNELS: [&str; 3] = ["whatsapp", "rcs", "messenger"];
const BOOLEAN: &[&str] = &["true", "false"];

const CHOICES: &[(&str, &[&str], u32)] = &[
    ("ContentRetention", &["retain", "discard"], 30029),
    ("AddressRetention", &["retain", "obfuscate"], 30030),
    ("RiskCheck", &["enable", "disable"], 20001),
    ("TrafficType", &["free"], 20001),
    ("ProvideFeedback", BOOLEAN, 20001),
    ("ForceDelivery", BOOLEAN, 20001),
    ("SmartEncoded", BOOLEAN, 20001),
    ("ShortenUrls", BOOLEAN, 20001),
    ("SendAsMms", BOOLEAN, 20001),
];

const NAMES: &[&str] = &[
    "AddressRetention",
    "ApplicationSid",
    "Attempt",
    "Body",
    "ContentRetention",
    "ContentSid",
    "ContentVariables",
    "FallbackFrom",
    "ForceDelivery",
    "From",
    "MaxPrice",
    "MediaUrl",
    "MessagingServiceSid",
    "PersistentAction",
    "ProvideFeedback",
    "RiskCheck",
    "ScheduleType",
    "SendAsMms",
    "SendAt",
    "ShortenUrls",
    "SmartEncoded",
    "StatusCallback",
    "To",
    "TrafficType",
    "ValidityPeriod",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<New, u32> {
        New::check(&Form::parse(body.as_bytes()), Moment(0)).map_err(|refusal| refusal.code)
    }

    fn code(body: &str) -> u32 {
        check(body).map_or_else(|code| code, |_| 0)
    }

    const OK: &str = "To=%2B12025550123&From=%2B12025550100&Body=x";

    #[test]
    fn takes_what_twilio_takes() {
        for more in [
            "",
            "&StatusCallback=https://a.example/x?y%3D1%23rc%3D3",
            "&ValidityPeriod=36000&MaxPrice=0.5&RiskCheck=disable",
            "&MediaUrl=https://a.example/1.jpg&MediaUrl=https://a.example/2.jpg",
            "&Unheard=of",
        ] {
            assert_eq!(code(&format!("{OK}{more}")), 0, "{more}");
        }
        assert_eq!(
            code("To=whatsapp:%2B12025550123&From=whatsapp:%2B12025550100&Body=x"),
            0
        );
        assert_eq!(code("To=%2B12025550123&From=My+Shop&Body=x"), 0);
        assert_eq!(
            code(
                "To=%2B12025550123&MessagingServiceSid=MG0123456789abcdef0123456789abcdef&ContentSid=HX0123456789abcdef0123456789abcdef"
            ),
            0
        );
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(code("From=%2B12025550100&Body=x"), 21604);
        assert_eq!(code("To=%2B12025550123&Body=x"), 21603);
        assert_eq!(code("To=%2B12025550123&From=%2B12025550100"), 21602);
        assert_eq!(code("To=%2B12025550123&From=%2B12025550100&Body="), 21602);
    }

    #[test]
    fn refuses_what_is_wrong() {
        for (body, expected) in [
            ("To=12025550123&From=%2B12025550100&Body=x", 21211),
            ("To=My+Shop&From=%2B12025550100&Body=x", 21211),
            ("To=fax:%2B12025550123&From=%2B12025550100&Body=x", 21211),
            ("To=%2B12025550123&From=%2B1&Body=x", 21212),
            ("To=%2B12025550123&From=%2B12025550123&Body=x", 21266),
            (
                "To=%2B12025550123&From=whatsapp:%2B12025550100&Body=x",
                21910,
            ),
            ("To=%2B12025550123&MessagingServiceSid=MG1&Body=x", 21705),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
        for (more, expected) in [
            ("&StatusCallback=hooks.example.com", 21609),
            ("&StatusCallback=https://a_b.example/", 21609),
            ("&StatusCallback=ftp://a.example/", 21609),
            ("&MediaUrl=nowhere", 21620),
            ("&ValidityPeriod=0", 21624),
            ("&ValidityPeriod=36001", 21624),
            ("&MaxPrice=cheap", 21627),
            ("&ContentSid=HX1", 21655),
            ("&ContentVariables=[]", 21656),
            ("&FallbackFrom=%2B12025550101", 21664),
            ("&ScheduleType=fixed&SendAt=1970-01-01T01:00:00Z", 35118),
            ("&RiskCheck=maybe", 20001),
        ] {
            assert_eq!(code(&format!("{OK}{more}")), expected, "{more}");
        }
        assert_eq!(
            code(&format!(
                "{OK}{}",
                "&MediaUrl=https://a.example/".repeat(11)
            )),
            21623
        );
    }

    #[test]
    fn bodies_have_at_most_1600_characters() {
        let with = |body: String| {
            code(&format!(
                "To=%2B12025550123&From=%2B12025550100&Body={body}"
            ))
        };
        assert_eq!(with("😀".repeat(1600)), 0);
        assert_eq!(with("x".repeat(1601)), 21617);
    }

    #[test]
    fn schedules_between_five_minutes_and_35_days() {
        let service =
            "To=%2B12025550123&MessagingServiceSid=MG0123456789abcdef0123456789abcdef&Body=x";
        let at = |time: &str| code(&format!("{service}&ScheduleType=fixed&SendAt={time}"));
        assert_eq!(at("1970-01-01T00:05:00Z"), 0);
        assert_eq!(at("1970-01-01T00:04:59Z"), 35114);
        assert_eq!(at("1970-02-05T00:00:00Z"), 0);
        assert_eq!(at("1970-02-05T00:00:01Z"), 35114);
        assert_eq!(at("tomorrow"), 35114);
        assert_eq!(at(""), 35111);
    }

    #[test]
    fn unknown_names_are_noted() {
        let body = format!("{OK}&Unheard=of&body=y");
        assert_eq!(unknown(&Form::parse(body.as_bytes())), ["Unheard", "body"]);
    }
}
