//! `POST …/Messages.json`: a message is checked, accepted or not, and answered as its recipient says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::answer::Answer;
use crate::clock::Moment;
use crate::course;
use crate::error::Refusal;
use crate::message::{Media, Message, Status, segments};
use crate::outcome::{Outcome, Reply};
use crate::record::Heard;
use crate::request::{self, New};
use crate::route::Asked;
use crate::sandbox::Sandbox;

pub(crate) async fn answer(sandbox: &Arc<Sandbox>, asked: &Asked, account_sid: &str) -> Answer {
    let form = asked.form();
    let mut heard = Heard {
        to: form.filled("To").map(str::to_owned),
        unknown: request::unknown(&form),
        ..asked.heard("twilio")
    };
    let checked = New::check(&form, asked.at)
        .and_then(|new| sandbox.check_sender(&new).map(|()| new))
        .and_then(|new| {
            Ok((
                Outcome::of(new.channel(), new.bare_to()).ok_or(no_meaning(&new))?,
                new,
            ))
        });
    let answer = match checked {
        Ok((outcome, new)) => {
            heard.outcome = outcome.label();
            follow(sandbox, new, outcome, account_sid, &mut heard).await
        }
        Err(refusal) => {
            heard.outcome = "refused".to_owned();
            refuse(&refusal, &mut heard)
        }
    };
    let wait = answer.wait.max(sandbox.latency);
    heard.status = answer.status();
    sandbox.requests().push(heard);
    answer.after(wait)
}

async fn follow(
    sandbox: &Arc<Sandbox>,
    new: New,
    outcome: Outcome,
    account_sid: &str,
    heard: &mut Heard,
) -> Answer {
    let tries = sandbox.store().count_try(&new.to);
    let wait = match outcome.reply {
        Reply::Refused(code) => return refuse(&refusal(code, &new), heard),
        Reply::TooMany(count) if tries <= count => {
            let answer = refuse(&Refusal::new(20429), heard);
            return match sandbox.retry_after {
                Some(seconds) => answer.with_header("retry-after", &seconds.to_string()),
                None => answer,
            };
        }
        Reply::Broken {
            is_accepted: false,
            how,
        } => return Answer::broken(how, &Value::Null),
        Reply::Slow(millis) => Duration::from_millis(millis.into()),
        Reply::AfterCallbacks => Duration::ZERO,
        Reply::Created | Reply::TooMany(_) | Reply::Broken { .. } => sandbox.latency,
    };
    let message = accept(sandbox, &new, account_sid);
    heard.is_accepted = true;
    heard.id = Some(message.sid.clone());
    let created = message.to_json();
    let steps = course::steps(outcome.course, message.channel(), message.service.is_some());
    let pause = sandbox.pause_until(new.send_at);
    let life = tokio::spawn(course::run(
        sandbox.clone(),
        message.sid,
        steps,
        wait + pause,
    ));
    match outcome.reply {
        Reply::Broken { how, .. } => Answer::broken(how, &created),
        Reply::AfterCallbacks => {
            let _ = tokio::time::timeout(LONGEST_LIFE, life).await;
            Answer::json(201, &created)
        }
        _ => Answer::json(201, &created).after(wait),
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

fn refuse(refusal: &Refusal, heard: &mut Heard) -> Answer {
    heard.code = Some(refusal.code);
    Answer::refusal(refusal)
}

/// The refusal in words that name the number, where Twilio does so.
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

/// Longer than any course with its callbacks should take.
const LONGEST_LIFE: Duration = Duration::from_secs(60);
