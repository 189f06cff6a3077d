//! The gateway's messages: which phone gets one, and their form in the API.

use std::sync::Arc;

use super::message::{Sms, State};
use super::outcome::{NO_DEVICE, Outcome};
use super::phone::Phone;
use super::submission::{Plain, Submission};
use super::{Gateway, Refused, Result, lifecycle};
use crate::answer::Answer;
use crate::clock::Moment;
use crate::http_request::HttpRequest;
use crate::sandbox::Sandbox;

impl Gateway {
    /// A phone: the given one, or else any that was active within this many hours.
    pub(crate) fn choose(
        &self,
        id: Option<&str>,
        within: Option<i64>,
        now: Moment,
        sandbox: &Sandbox,
    ) -> Result<Arc<Phone>> {
        let is_active = |phone: &&Arc<Phone>| {
            let since = within
                .filter(|hours| *hours > 0)
                .map(|hours| now.0.saturating_sub(hours.saturating_mul(3_600_000_000)));
            !phone.is_removed() && since.is_none_or(|since| phone.last_seen().0 >= since)
        };
        let phones: Vec<_> = self
            .phones
            .iter()
            .filter(is_active)
            .filter(|phone| id.is_none_or(|id| phone.id == id))
            .collect();
        if phones.is_empty() {
            return Err(Refused::new(400, NO_DEVICE));
        }
        let index = sandbox.random().below(phones.len());
        Ok(phones[index].clone())
    }

    /// Text and numbers as a phone reads them, and the outcome of the message; `None` if the first number has the
    /// sandbox's form without a meaning. A message that cannot be decrypted fails at the phone.
    pub(crate) fn read(&self, submission: &Submission) -> (Plain, Option<Outcome>) {
        let Some(plain) = submission.open(self.passphrase.as_deref()) else {
            let plain = Plain {
                content: submission.content.clone(),
                numbers: submission.numbers.clone(),
            };
            return (plain, Some(Outcome::UNREADABLE));
        };
        let outcome = Outcome::of(plain.numbers.first().map_or("", String::as_str));
        (plain, outcome)
    }

    pub(crate) fn check_queue(&self, phone: &Phone) -> Result<()> {
        let pending = self
            .state()
            .waiting
            .get(&phone.id)
            .map_or(0, |waiting| waiting.len());
        if pending < self.queue_limit {
            return Ok(());
        }
        let text = format!(
            "failed to enqueue message: queue limits exceeded: too many pending messages: {pending} / {}",
            self.queue_limit
        );
        Err(Refused::new(503, text))
    }

    pub(crate) fn accept(
        &self,
        sandbox: &Sandbox,
        phone: &Phone,
        (submission, plain): (Submission, Plain),
        outcome: Outcome,
        now: Moment,
    ) -> Result<Sms> {
        let id = submission.id.clone();
        let id = id.unwrap_or_else(|| sandbox.random().nanoid(21));
        let mut state = self.state();
        // The index is over id and device: the same id at another device is another message.
        let is_known = state
            .find(&id)
            .iter()
            .any(|n| state.messages[n].device_id == phone.id);
        if is_known {
            return Err(Refused::new(409, "message with the same ID already exists"));
        }
        let scheduled = submission.schedule_at;
        let mut sms = Sms::new(id, &phone.id, (submission, plain), outcome, now);
        sms.due = lifecycle::due(outcome.course, &sms, scheduled, sandbox.late_delay);
        state.insert(sms.clone());
        Ok(sms)
    }

    pub(crate) fn fetch(&self, id: &str, now: Moment) -> Result<Answer> {
        let state = self.state();
        match state.find(id).as_slice() {
            [] => Err(Refused::new(404, "message not found")),
            [number] => {
                let sms = &state.messages[number];
                Ok(Answer::json(
                    200,
                    &sms.to_json(true, self.is_hashed(sms, now)),
                ))
            }
            // The real server gets into the same trouble.
            _ => Err(Refused::new(
                500,
                "failed to get message: multiple messages found",
            )),
        }
    }

    pub(crate) fn cancel(&self, id: &str, now: Moment) -> Result<Answer> {
        let mut state = self.state();
        let number = match state.find(id).as_slice() {
            [number] => *number,
            [] => return Err(Refused::new(404, "message not found")),
            _ => {
                return Err(Refused::new(
                    500,
                    "failed to get message: multiple messages found",
                ));
            }
        };
        let sms = state
            .messages
            .get_mut(&number)
            .ok_or_else(|| Refused::new(404, "message not found"))?;
        if sms.state() != State::Pending {
            return Err(Refused::new(409, "message is not pending"));
        }
        sms.set_all(State::Cancelling, None, now);
        let json = sms.to_json(true, false);
        if let Some(phone) = self.phone(&sms.device_id) {
            phone.wake.notify_one();
        }
        Ok(Answer::json(200, &json))
    }

    pub(crate) fn list(&self, request: &HttpRequest) -> Result<Answer> {
        let query = request.query();
        let bad = |name: &str| Refused::new(400, format!("{name} is not valid"));
        let number = |name: &str, default: usize| {
            query
                .filled(name)
                .map_or(Ok(default), |text| text.parse().map_err(|_| bad(name)))
        };
        let moment = |name: &str| {
            let text = query.filled(name);
            text.map(|text| crate::clock::parse(text).ok_or_else(|| bad(name)))
                .transpose()
        };
        let limit = Some(number("limit", 50)?).filter(|limit| (1..=100).contains(limit));
        let (limit, offset) = (limit.ok_or_else(|| bad("limit"))?, number("offset", 0)?);
        let (from, to) = (moment("from")?, moment("to")?);
        let has_content = query.first("includeContent") == Some("true");
        let state = self.state();
        let mut found: Vec<&Sms> = state
            .messages
            .values()
            .filter(|sms| {
                query
                    .filled("state")
                    .is_none_or(|wanted| wanted == sms.state().as_str())
            })
            .filter(|sms| {
                query
                    .filled("deviceId")
                    .is_none_or(|wanted| wanted == sms.device_id)
            })
            .filter(|sms| {
                from.is_none_or(|from| sms.created >= from) && to.is_none_or(|to| sms.created <= to)
            })
            .collect();
        match query.filled("sort").unwrap_or("-created_at") {
            "created_at" => {}
            "-created_at" => found.reverse(),
            _ => return Err(bad("sort")),
        }
        let total = found.len().to_string();
        let page = found.iter().skip(offset).take(limit);
        let page = page.map(|sms| sms.to_json(has_content, self.is_hashed(sms, request.at)));
        Ok(
            Answer::json(200, &page.collect::<Vec<_>>().into())
                .with_header("x-total-count", &total),
        )
    }

    pub(crate) fn is_hashed(&self, sms: &Sms, now: Moment) -> bool {
        let after = self.hash_after.as_micros() as i64;
        sms.left_pending()
            .is_some_and(|left| left.0 + after <= now.0)
    }
}

impl super::State {
    /// Counts a request for `to`, this one included.
    pub(crate) fn count_try(&mut self, to: &str) -> u32 {
        let tries = self.tries.entry(to.to_owned()).or_default();
        *tries += 1;
        *tries
    }
}
