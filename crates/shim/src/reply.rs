//! Replies that users' functions produce, fetched after the commit on a connection of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::app::App;
use crate::aux_connection::AuxConnection;
use crate::explain::describe;
use crate::logfmt::Level;

/// A request for the reply to one message.
#[derive(Debug)]
pub(crate) struct ReplyRequest {
    message_id: i64,
    asked: Instant,
    answer: oneshot::Sender<Option<String>>,
}

/// Where requests for replies go.
pub(crate) type ReplyRequests = mpsc::UnboundedSender<ReplyRequest>;

/// The reply to a message. If the function is slow or fails, the reply is empty.
pub(crate) async fn ask(app: &App, message_id: i64) -> String {
    let (answer, receiver) = oneshot::channel();
    let request = ReplyRequest {
        message_id,
        asked: Instant::now(),
        answer,
    };
    // The receiver ends with the process.
    let _ = app.reply_requests.send(request);
    match timeout(app.config.reply_timeout + LATE, receiver).await {
        Ok(Ok(Some(twiml))) => twiml,
        _ => EMPTY.to_owned(),
    }
}

/// Fetches one reply at a time, and connects with the first request.
pub(crate) async fn run(app: Arc<App>, mut requests: mpsc::UnboundedReceiver<ReplyRequest>) {
    let limit = app.config.reply_timeout;
    let setup = format!("set statement_timeout = {}", limit.as_millis());
    let mut connection: Option<AuxConnection> = None;
    while let Some(request) = requests.recv().await {
        if is_too_late(&app, &request) {
            continue;
        }
        if connection
            .as_ref()
            .is_none_or(|connection| connection.client.is_closed())
        {
            connection = match AuxConnection::open(&app.config.database, &setup).await {
                Ok(connection) => Some(connection),
                Err(error) => {
                    warn(&app, &error.to_string());
                    continue;
                }
            };
            if is_too_late(&app, &request) {
                continue;
            }
        }
        let Some(open) = &connection else { continue };
        let ids = vec![request.message_id];
        let asked = async { open.client.query_opt(ANSWER, &[&ids]).await };
        match timeout(limit + UNANSWERED, asked).await {
            Ok(Ok(row)) => {
                let twiml = row.and_then(|row| row.try_get(0).ok());
                // The database keeps the reply in case Twilio repeats the request, which it seldom does.
                if request.answer.send(twiml).is_err() {
                    warn(&app, "it came too late");
                }
            }
            Ok(Err(error)) => {
                warn(&app, &describe(&error));
                // The server ends the session of a function that runs over its time.
                connection = None;
            }
            Err(_) => {
                warn(&app, "the database does not answer");
                connection = None;
            }
        }
    }
}

/// Whether the request has been answered because it waited too long behind slow functions. If so, its function
/// is not called.
fn is_too_late(app: &App, request: &ReplyRequest) -> bool {
    let is_late = request.asked.elapsed() >= app.config.reply_timeout;
    if is_late {
        warn(app, "its turn did not come in time");
    } else if request.answer.is_closed() {
        warn(app, "the request has been answered already");
    }
    is_late || request.answer.is_closed()
}

fn warn(app: &App, reason: &str) {
    app.metrics.missed_replies.fetch_add(1, Ordering::Relaxed);
    let text = format!("a reply was not made: {reason}");
    app.log.message(Level::Warn, "no_reply", &text);
}

const ANSWER: &str = "select twiml from twilio.answer($1)";
/// TwiML without an instruction.
const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";
const LATE: Duration = Duration::from_millis(250);
const UNANSWERED: Duration = Duration::from_secs(2);
