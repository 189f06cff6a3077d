//! Routing keys of events.

use std::str::FromStr;

use crate::event::Facts;

/// The template of the routing key for the kinds that match a pattern.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pattern: String,
    key: String,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, key) = text
            .split_once('=')
            .filter(|(pattern, key)| !pattern.is_empty() && !key.is_empty())
            .ok_or("expected KIND=KEY, such as message.received=sms.in")?;
        let rest = ["{provider}", "{channel}", "{status}", "{kind}"]
            .iter()
            .fold(key.to_owned(), |rest, name| rest.replace(name, ""));
        if rest.contains(['{', '}']) {
            return Err(
                "a key may only contain {provider}, {channel}, {status} and {kind} in braces"
                    .into(),
            );
        }
        if key.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("a key has at most {MAX_TEMPLATE_BYTES} characters"));
        }
        Ok(Self {
            pattern: pattern.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl Route {
    /// The default routes, used if no other matches.
    pub(crate) fn defaults() -> impl Iterator<Item = Self> {
        DEFAULTS.iter().map(|(pattern, key)| Self {
            pattern: (*pattern).to_owned(),
            key: (*key).to_owned(),
        })
    }

    fn matches(&self, kind: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => kind == self.pattern,
        }
    }
}

/// The routing key of an event, from the first route that matches it.
pub(crate) fn key(routes: &[Route], kind: &str, facts: &Facts) -> String {
    let full_kind = match &facts.suppression {
        Some(suppression) => format!("{kind}.{suppression}"),
        None => kind.to_owned(),
    };
    let template = routes
        .iter()
        .find(|route| route.matches(&full_kind))
        .map_or("source.twilio.{kind}", |route| route.key.as_str());
    template
        .replace("{kind}", &words(kind))
        .replace("{provider}", &word(facts.provider.as_deref()))
        .replace("{channel}", &word(facts.channel.as_deref()))
        .replace("{status}", &word(facts.status.as_deref()))
}

/// One word of a routing key. A status may be any text of a provider, so dots and other characters are replaced.
fn word(text: Option<&str>) -> String {
    words(text.unwrap_or("unknown")).replace('.', "_")
}

fn words(text: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = text.chars().map(|c| if is_plain(&c) { c } else { '_' });
    plain.take(MAX_WORD_BYTES).collect()
}

const DEFAULTS: [(&str, &str); 8] = [
    ("message.received", "source.{provider}.{channel}.incoming"),
    (
        "message.handler_failed",
        "source.{provider}.{channel}.handler_failed",
    ),
    ("message.*", "source.{provider}.{channel}.status.{status}"),
    ("suppression.began.block", "source.twilio.ban"),
    ("suppression.ended.block", "source.twilio.unban"),
    ("suppression.began.*", "source.twilio.opt_out"),
    ("suppression.ended.*", "source.twilio.opt_in"),
    ("*", "source.twilio.{kind}"),
];
/// A routing key has at most 255 bytes: those of its template and of the words that are filled in.
const MAX_TEMPLATE_BYTES: usize = 120;
const MAX_WORD_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(status: &str, suppression: Option<&str>) -> Facts {
        Facts {
            provider: Some("twilio".into()),
            channel: Some("sms".into()),
            status: Some(status.into()),
            suppression: suppression.map(str::to_owned),
            ..Facts::default()
        }
    }

    #[test]
    fn default_routes_depend_on_channel_and_status() {
        let routes: Vec<_> = Route::defaults().collect();
        for (kind, status, suppression, expected) in [
            (
                "message.received",
                "received",
                None,
                "source.twilio.sms.incoming",
            ),
            (
                "message.delivered",
                "delivered",
                None,
                "source.twilio.sms.status.delivered",
            ),
            ("suppression.began", "", Some("block"), "source.twilio.ban"),
            (
                "suppression.ended",
                "",
                Some("block"),
                "source.twilio.unban",
            ),
            (
                "suppression.began",
                "",
                Some("opt_out"),
                "source.twilio.opt_out",
            ),
            (
                "suppression.ended",
                "",
                Some("learnt"),
                "source.twilio.opt_in",
            ),
            ("number.bought", "", None, "source.twilio.number.bought"),
        ] {
            assert_eq!(key(&routes, kind, &facts(status, suppression)), expected);
        }
    }

    #[test]
    fn configured_routes_come_first_and_words_stay_words() {
        let own: Route = "message.*=a.{status}.{channel}".parse().unwrap();
        let routes: Vec<_> = std::iter::once(own).chain(Route::defaults()).collect();
        let found = key(&routes, "message.x", &facts("a.b #*é", None));
        assert_eq!(found, "a.a_b____.sms");
        let long = key(&routes, "message.x", &facts(&"x".repeat(999), None));
        assert!(long.len() < 255);
    }

    #[test]
    fn malformed_routes_are_refused() {
        for text in [
            "",
            "a",
            "=a",
            "a=",
            "a={b}",
            &format!("a={}", "x".repeat(121)),
        ] {
            assert!(text.parse::<Route>().is_err(), "{text:?} was accepted");
        }
    }
}
