//! Answers that users' functions make, asked for after the commit on a connection of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::explain::describe;
use crate::front::Front;
use crate::line::Level;
use crate::side::Side;

/// A request for one message's answer.
#[derive(Debug)]
pub(crate) struct Wish {
    message_id: i64,
    asked: Instant,
    answer: oneshot::Sender<Option<String>>,
}

/// Where wishes go.
pub(crate) type Wishes = mpsc::UnboundedSender<Wish>;

/// The answer of a message, or an empty one: a slow or failing function costs the reply only.
pub(crate) async fn ask(front: &Front, message_id: i64) -> String {
    let (answer, receiver) = oneshot::channel();
    let wish = Wish {
        message_id,
        asked: Instant::now(),
        answer,
    };
    // The receiver ends with the process.
    let _ = front.wishes.send(wish);
    match timeout(front.config.reply_timeout + LATE, receiver).await {
        Ok(Ok(Some(twiml))) => twiml,
        _ => EMPTY.to_owned(),
    }
}

/// Asks for one answer at a time, from when the first is wished for.
pub(crate) async fn run(front: Arc<Front>, mut wishes: mpsc::UnboundedReceiver<Wish>) {
    let limit = front.config.reply_timeout;
    let setup = format!("set statement_timeout = {}", limit.as_millis());
    let mut side: Option<Side> = None;
    while let Some(wish) = wishes.recv().await {
        if is_too_late(&front, &wish) {
            continue;
        }
        if side.as_ref().is_none_or(|side| side.client.is_closed()) {
            side = match Side::open(&front.config.database, &setup).await {
                Ok(side) => Some(side),
                Err(error) => {
                    warn(&front, &error.to_string());
                    continue;
                }
            };
            if is_too_late(&front, &wish) {
                continue;
            }
        }
        let Some(open) = &side else { continue };
        let ids = vec![wish.message_id];
        let asked = async { open.client.query_opt(ANSWER, &[&ids]).await };
        match timeout(limit + UNANSWERED, asked).await {
            Ok(Ok(row)) => {
                let twiml = row.and_then(|row| row.try_get(0).ok());
                // It is kept for when Twilio asks again, which it seldom does.
                if wish.answer.send(twiml).is_err() {
                    warn(&front, "it came too late");
                }
            }
            Ok(Err(error)) => {
                warn(&front, &describe(&error));
                // The server ends a session whose function goes on after its time.
                side = None;
            }
            Err(_) => {
                warn(&front, "the database does not answer");
                side = None;
            }
        }
    }
}

/// Whoever waited for so long behind slow functions has been answered; then no function is called.
fn is_too_late(front: &Front, wish: &Wish) -> bool {
    let is_late = wish.asked.elapsed() >= front.config.reply_timeout;
    if is_late {
        warn(front, "its turn did not come in time");
    } else if wish.answer.is_closed() {
        warn(front, "nobody waits for it");
    }
    is_late || wish.answer.is_closed()
}

fn warn(front: &Front, reason: &str) {
    front.metrics.missed_replies.fetch_add(1, Ordering::Relaxed);
    let text = format!("a reply was not made: {reason}");
    front.log.message(Level::Warn, "no_reply", &text);
}

const ANSWER: &str = "select twiml from twilio.answer($1)";
/// TwiML that says nothing.
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";
const LATE: Duration = Duration::from_millis(250);
const UNANSWERED: Duration = Duration::from_secs(2);
