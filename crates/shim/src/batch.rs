//! Sends one batch to the database, answers and logs its items. If the batch fails, its items are sent singly.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::Row;

use crate::answer::{refuse, respond};
use crate::app::App;
use crate::database::Connection;
use crate::explain::describe;
use crate::item::{Item, Target};
use crate::logfmt::Level;
use crate::refusal::Refusal;
use crate::status::{Failure, classify};

/// Sends a batch and answers every item in it. The error says why the connection cannot be used any more.
pub(crate) async fn run(
    app: &App,
    connection: &mut Connection,
    target: Target,
    items: &mut Vec<Item>,
) -> Result<(), String> {
    let mut lines = Vec::new();
    if !connection.serves(target) {
        refuse_all(app, items.drain(..), Refusal::NotFound, &mut lines);
        app.log.write(&lines);
        return Ok(());
    }
    let mut call = Call {
        app,
        connection,
        target,
    };
    let result = match call.send(items).await {
        Ok(rows) => {
            respond(app, items.drain(..), &rows, &mut lines);
            Ok(())
        }
        Err(stop) if stop.is_for_all(items.len()) => {
            stop.settle(app, target, items.drain(..), &mut lines)
        }
        Err(_) => call.send_singly(items, &mut lines).await,
    };
    app.log.write(&lines);
    result
}

struct Call<'a> {
    app: &'a App,
    connection: &'a mut Connection,
    target: Target,
}

impl Call<'_> {
    async fn send(&mut self, items: &[Item]) -> Result<Vec<Row>, Stop> {
        let sent = Instant::now();
        // The server cancels a slow statement itself; this limit is for a server that has disappeared.
        let limit = self.app.config.statement_timeout + UNANSWERED;
        let result = timeout(limit, self.connection.call(self.target, items)).await;
        let metrics = &self.app.metrics;
        match result {
            Ok(Ok(rows)) => {
                metrics.committed(items.len(), sent.elapsed());
                self.app.health.good();
                Ok(rows)
            }
            Ok(Err(error)) => {
                metrics.failed_calls.fetch_add(1, Ordering::Relaxed);
                let error = self.connection.cause(error);
                Err(Stop {
                    failure: classify(&error),
                    text: describe(&error),
                })
            }
            Err(_) => Err(Stop {
                failure: Failure::Lost,
                text: "the database did not answer in time".into(),
            }),
        }
    }

    /// Sends the items singly, so that one that raises an error does not fail the others.
    async fn send_singly(
        &mut self,
        items: &mut Vec<Item>,
        lines: &mut Vec<u8>,
    ) -> Result<(), String> {
        let (app, target) = (self.app, self.target);
        let was_batch = items.len() > 1;
        let mut rest = items.drain(..);
        while let Some(item) = rest.next() {
            if item.received.elapsed() >= item.endpoint.deadline(app.config.deadline) {
                refuse(app, item, Refusal::DatabaseBusy, lines);
                continue;
            }
            let single = std::slice::from_ref(&item);
            let mut result = self.send(single).await;
            // An item that was a batch by itself has been tried already, so this is its second try.
            if was_batch && matches!(&result, Err(stop) if stop.failure == Failure::Contended) {
                result = self.send(single).await;
            }
            match result {
                Ok(rows) => respond(app, std::iter::once(item), &rows, lines),
                Err(stop) => {
                    if let Err(reason) = stop.settle(app, target, std::iter::once(item), lines) {
                        // The rest was not sent yet and can wait for the next connection.
                        app.queue.put_back(target, rest);
                        return Err(reason);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Why a call failed.
struct Stop {
    failure: Failure,
    text: String,
}

impl Stop {
    /// Whether the failure concerns all items, so that sending them singly would not help.
    fn is_for_all(&self, items: usize) -> bool {
        match self.failure {
            Failure::Terminated | Failure::Lost | Failure::Stale | Failure::Unavailable => true,
            Failure::Contended => false,
            Failure::Fault => items == 1,
        }
    }

    /// Refuses the items, or puts them back for the next connection. An error means that the connection must be
    /// closed.
    fn settle(
        self,
        app: &App,
        target: Target,
        items: impl DoubleEndedIterator<Item = Item>,
        lines: &mut Vec<u8>,
    ) -> Result<(), String> {
        let (level, refusal) = match self.failure {
            Failure::Terminated => {
                app.queue.put_back(target, items);
                return Err(self.text);
            }
            Failure::Lost | Failure::Stale => {
                refuse_all(app, items, Refusal::ConnectionLost, lines);
                return Err(self.text);
            }
            Failure::Contended | Failure::Unavailable => (Level::Warn, Refusal::DatabaseBusy),
            Failure::Fault => (Level::Error, Refusal::DatabaseError),
        };
        app.log.message(level, "call_failed", &self.text);
        refuse_all(app, items, refusal, lines);
        Ok(())
    }
}

fn refuse_all(app: &App, items: impl Iterator<Item = Item>, refusal: Refusal, lines: &mut Vec<u8>) {
    for item in items {
        refuse(app, item, refusal, lines);
    }
}

/// How long to wait for a response beyond the statement timeout.
const UNANSWERED: Duration = Duration::from_secs(3);
