//! Faults that are switched on for a time, in addition to the outcomes of recipients.

use serde_json::{Value, json};

use crate::outcome::{Disruption, Outcome, Reply};
use crate::random::Generator;
use crate::smsgate::outcome as smsgate;

/// All faults that are switched on.
#[derive(Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    last_id: u64,
}

struct Fault {
    id: u64,
    effect: Effect,
    scope: Scope,
    to: Option<String>,
    /// The number of requests it still applies to; without limit if none.
    left: Option<u32>,
    percent: usize,
    hits: u32,
}

/// The effect of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Twilio(Outcome),
    SmsGate(smsgate::Outcome),
    Disruption(Disruption),
}

/// The requests that a fault applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Creates of Twilio messages.
    Create,
    /// All other requests to Twilio's API.
    Read,
    /// Messages given to SMSGate.
    SmsGate,
    /// Status callbacks.
    Callback,
    /// Events for sinks.
    Event,
}

impl Faults {
    /// Switches on a fault as `POST /_faults` describes it.
    pub(crate) fn add(&mut self, fields: &[(String, String)]) -> Result<Value, String> {
        let mut fault = Fault::new(fields)?;
        self.last_id += 1;
        fault.id = self.last_id;
        let shown = fault.to_json();
        self.list.push(fault);
        Ok(shown)
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn to_json(&self) -> Value {
        let list: Vec<Value> = self.list.iter().map(Fault::to_json).collect();
        json!({ "count": list.len(), "faults": list })
    }

    /// The fault that applies to a request, the oldest first. Its count is reduced by one.
    pub(crate) fn take(
        &mut self,
        scope: Scope,
        to: Option<&str>,
        random: &mut Generator,
    ) -> Option<Effect> {
        let fault = self.list.iter_mut().find(|fault| {
            fault.scope == scope
                && fault.left != Some(0)
                && fault.to.as_deref().is_none_or(|wanted| to == Some(wanted))
                && (fault.percent == 100 || random.below(100) < fault.percent)
        })?;
        fault.left = fault.left.map(|left| left - 1);
        fault.hits += 1;
        Some(fault.effect)
    }
}

impl Fault {
    fn new(fields: &[(String, String)]) -> Result<Self, String> {
        let mut name = None;
        let mut argument = 0;
        let mut fault = Self {
            id: 0,
            effect: Effect::Twilio(Outcome::DELIVERED),
            scope: Scope::Create,
            to: None,
            left: Some(1),
            percent: 100,
            hits: 0,
        };
        for (field, value) in fields {
            let bad = || format!("{field} {value} is not understood");
            match field.as_str() {
                "outcome" => name = Some(value.as_str()),
                "argument" => argument = value.parse().map_err(|_| bad())?,
                "to" => fault.to = Some(value.clone()),
                "count" if value == "unlimited" => fault.left = None,
                "count" => fault.left = Some(value.parse().map_err(|_| bad())?),
                "percent" => {
                    fault.percent = value.parse().ok().filter(|p| *p <= 100).ok_or_else(bad)?
                }
                "on" => fault.scope = Scope::parse(value).ok_or_else(bad)?,
                _ => return Err(bad()),
            }
        }
        let name = name.ok_or("outcome is missing")?;
        let effect = Effect::from_name(fault.scope, name, argument);
        fault.effect = effect.ok_or_else(|| format!("no outcome is called {name}"))?;
        Ok(fault)
    }

    fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "outcome": self.effect.label(),
            "on": self.scope.as_str(),
            "to": self.to,
            "left": self.left,
            "percent": self.percent,
            "hits": self.hits,
        })
    }
}

impl Effect {
    fn from_name(scope: Scope, name: &str, argument: u32) -> Option<Self> {
        match scope {
            Scope::SmsGate => return smsgate::Outcome::from_name(name).map(Self::SmsGate),
            Scope::Callback | Scope::Event => return Disruption::parse(name).map(Self::Disruption),
            Scope::Create | Scope::Read => {}
        }
        let mut outcome = Outcome::from_name(name, argument)?;
        // A fault counts its hits itself, so each of them is a 429.
        if let Reply::TooMany(_) = outcome.reply {
            outcome.reply = Reply::TooMany(u32::MAX);
        }
        Some(Self::Twilio(outcome))
    }

    fn label(&self) -> String {
        match self {
            Self::Twilio(outcome) => outcome.label(),
            Self::SmsGate(outcome) => outcome.name.to_owned(),
            Self::Disruption(disruption) => disruption.as_str().to_owned(),
        }
    }
}

impl Scope {
    fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Create,
            Self::Read,
            Self::SmsGate,
            Self::Callback,
            Self::Event,
        ];
        all.into_iter().find(|scope| scope.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::SmsGate => "smsgate",
            Self::Callback => "callback",
            Self::Event => "event",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_fault_is_used_up() {
        let mut faults = Faults::default();
        let mut random = Generator::new(1);
        faults
            .add(&fields(&[("outcome", "drop"), ("count", "2")]))
            .unwrap();
        let mut hit = |to| faults.take(Scope::Create, Some(to), &mut random).is_some();
        assert_eq!([hit("+1"), hit("+2"), hit("+3")], [true, true, false]);
    }

    #[test]
    fn a_fault_keeps_to_its_recipient_and_scope() {
        let mut faults = Faults::default();
        let mut random = Generator::new(1);
        faults
            .add(&fields(&[
                ("outcome", "busy"),
                ("to", "+1"),
                ("on", "read"),
            ]))
            .unwrap();
        assert!(faults.take(Scope::Read, Some("+2"), &mut random).is_none());
        assert!(
            faults
                .take(Scope::Create, Some("+1"), &mut random)
                .is_none()
        );
        let effect = faults.take(Scope::Read, Some("+1"), &mut random);
        let Some(Effect::Twilio(outcome)) = effect else {
            panic!("{effect:?}")
        };
        assert_eq!(outcome.reply, Reply::TooMany(u32::MAX));
    }

    #[test]
    fn callbacks_have_outcomes_of_their_own() {
        let mut faults = Faults::default();
        let mut random = Generator::new(1);
        faults
            .add(&fields(&[("on", "callback"), ("outcome", "drop")]))
            .unwrap();
        assert!(faults.take(Scope::Create, None, &mut random).is_none());
        assert_eq!(
            faults.take(Scope::Callback, Some("+1"), &mut random),
            Some(Effect::Disruption(Disruption::Drop))
        );
        let busy = fields(&[("on", "callback"), ("outcome", "busy")]);
        assert!(faults.add(&busy).is_err());
    }

    #[test]
    fn percent_hits_about_so_many() {
        let mut faults = Faults::default();
        let mut random = Generator::new(1);
        faults
            .add(&fields(&[
                ("outcome", "drop"),
                ("count", "unlimited"),
                ("percent", "30"),
            ]))
            .unwrap();
        let hits = (0..1000)
            .filter(|_| faults.take(Scope::Create, None, &mut random).is_some())
            .count();
        assert!((250..350).contains(&hits), "{hits}");
    }

    #[test]
    fn nonsense_is_refused() {
        for list in [
            &[("outcome", "nonsense")][..],
            &[("count", "1")],
            &[("outcome", "drop"), ("percent", "101")],
            &[("outcome", "drop"), ("on", "never")],
            &[("outcome", "drop"), ("colour", "red")],
        ] {
            assert!(Faults::default().add(&fields(list)).is_err(), "{list:?}");
        }
    }
}
