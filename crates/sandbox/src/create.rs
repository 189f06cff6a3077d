//! `POST …/Messages.json`: checks a message, and accepts and answers it by the outcome of its recipient.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::answer::Answer;
use crate::clock::Moment;
use crate::error::Refusal;
use crate::fault::Scope;
use crate::http_request::HttpRequest;
use crate::lifecycle;
use crate::message::{Media, Message, Status, segments};
use crate::outcome::{Outcome, Reply};
use crate::record::Heard;
use crate::request::{self, New};
use crate::sandbox::Sandbox;

pub(crate) async fn answer(
    sandbox: &Arc<Sandbox>,
    request: &HttpRequest,
    account_sid: &str,
) -> Answer {
    let form = request.form();
    let mut heard = Heard {
        to: form.filled("To").map(str::to_owned),
        unknown: request::unknown(&form),
        ..request.heard("twilio")
    };
    let checked = New::check(&form, request.at)
        .and_then(|new| sandbox.check_sender(&new).map(|()| new))
        .and_then(|new| sandbox.choose(&new).map(|outcome| (outcome, new)));
    let (answer, life) = match checked {
        Ok((outcome, new)) => {
            heard.outcome = outcome.label();
            follow(sandbox, new, outcome, account_sid, &mut heard)
        }
        Err(refusal) => {
            heard.outcome = "refused".to_owned();
            (refuse(sandbox, &refusal, &mut heard), None)
        }
    };
    heard.status = answer.status();
    // Recorded before waiting: a client that disconnects does not undo the create.
    sandbox.requests().push(heard);
    if let Some(life) = life {
        let _ = tokio::time::timeout(MAX_LIFETIME, life).await;
    }
    let wait = answer.wait.max(sandbox.latency);
    answer.after(wait)
}

impl Sandbox {
    /// The outcome of a message: that of its recipient, unless a fault is switched on.
    fn choose(&self, new: &New) -> Result<Outcome, Refusal> {
        let outcome = Outcome::of(new.channel(), new.bare_to()).ok_or_else(|| no_meaning(new))?;
        let sender = new.service.as_ref().or(new.from.as_ref());
        let is_opted_out = sender.is_some_and(|sender| self.store().is_opted_out(&new.to, sender));
        // A messaging service notices only when it chooses a number: https://www.twilio.com/docs/api/errors/21610
        let opted_out = match (is_opted_out, &new.service) {
            (false, _) => None,
            (true, None) => return Err(Refusal::new(21610)),
            (true, Some(_)) => Outcome::from_name("failed", 21610),
        };
        let outcome = opted_out.unwrap_or(outcome);
        let fault = self.fault(Scope::Create, Some(&new.to));
        Ok(fault.map_or(outcome, |fault| outcome.overlaid_by(fault)))
    }
}

/// Answers by `outcome`. If the answer comes after the callbacks, the task that sends them is returned too.
fn follow(
    sandbox: &Arc<Sandbox>,
    new: New,
    outcome: Outcome,
    account_sid: &str,
    heard: &mut Heard,
) -> (Answer, Option<JoinHandle<()>>) {
    let tries = sandbox.store().count_try(&new.to);
    let refused = match outcome.reply {
        Reply::Refused(code) => Some(refusal(code, &new)),
        Reply::TooMany(count) if tries <= count => Some(Refusal::new(20429)),
        Reply::Broken {
            is_accepted: false,
            how,
        } => {
            return (Answer::broken(how, &Value::Null), None);
        }
        _ => None,
    };
    if let Some(refusal) = refused {
        return (refuse(sandbox, &refusal, heard), None);
    }
    let wait = match outcome.reply {
        Reply::Slow(millis) => Duration::from_millis(millis.into()),
        Reply::AfterCallbacks => Duration::ZERO,
        _ => sandbox.latency,
    };
    let message = accept(sandbox, &new, account_sid);
    heard.is_accepted = true;
    heard.id = Some(message.sid.clone());
    let created = message.to_json();
    let steps = lifecycle::steps(outcome.course, message.channel(), message.service.is_some());
    let pause = wait + sandbox.pause_until(new.send_at);
    let life = tokio::spawn(lifecycle::run(sandbox.clone(), message.sid, steps, pause));
    match outcome.reply {
        Reply::Broken { how, .. } => (Answer::broken(how, &created), None),
        Reply::AfterCallbacks => (Answer::json(201, &created), Some(life)),
        _ => (Answer::json(201, &created).after(wait), None),
    }
}

fn accept(sandbox: &Sandbox, new: &New, account_sid: &str) -> Message {
    let now = Moment::now();
    let status = match (&new.service, new.send_at) {
        (Some(_), Some(_)) => Status::Scheduled,
        (Some(_), None) => Status::Accepted,
        (None, _) => Status::Queued,
    };
    let mut random = sandbox.random();
    let message = Message {
        number: 0,
        sid: random.sid(if new.media.is_empty() { "SM" } else { "MM" }),
        account_sid: account_sid.to_owned(),
        direction: "outbound-api",
        from: new.from.clone(),
        to: new.to.clone(),
        service: new.service.clone(),
        body: new.body.clone(),
        media: new
            .media
            .iter()
            .map(|url| Media::new(random.sid("ME"), url))
            .collect(),
        status,
        error: None,
        created: now,
        updated: now,
        sent: None,
        segments: if new.service.is_some() {
            0
        } else {
            segments(new.channel(), &new.body)
        },
        price: None,
        callback: new.callback.clone(),
        has_feedback: new.has_feedback,
    };
    sandbox.store().insert(message.clone());
    message
}

fn refuse(sandbox: &Sandbox, refusal: &Refusal, heard: &mut Heard) -> Answer {
    heard.code = Some(refusal.code);
    sandbox.refusal(refusal)
}

/// The refusal, with a message that names the number where Twilio's does.
fn refusal(code: u32, new: &New) -> Refusal {
    match code {
        21211 => Refusal::with(code, format!("Invalid 'To' Phone Number: {}", new.to)),
        _ => Refusal::new(code),
    }
}

fn no_meaning(new: &New) -> Refusal {
    let text = format!(
        "Invalid 'To' Phone Number: {}, see the sandbox's --help",
        new.to
    );
    Refusal::with(21211, text)
}

/// Longer than a message with its callbacks should take.
const MAX_LIFETIME: Duration = Duration::from_secs(60);
