//! One batch through the database: called, answered and logged, item by item where it must be.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::Row;

use crate::answer::{refuse, respond};
use crate::database::Connection;
use crate::explain::describe;
use crate::front::Front;
use crate::item::{Item, Lane};
use crate::line::Level;
use crate::refusal::Refusal;
use crate::status::{Failure, classify};

/// Sends a batch and answers every item in it. Returns why, if the connection is of no more use.
pub(crate) async fn run(
    front: &Front,
    connection: &mut Connection,
    lane: Lane,
    items: &mut Vec<Item>,
) -> Result<(), String> {
    let mut lines = Vec::new();
    if !connection.serves(lane) {
        refuse_all(front, items.drain(..), Refusal::NotFound, &mut lines);
        front.log.write(&lines);
        return Ok(());
    }
    let mut call = Call {
        front,
        connection,
        lane,
    };
    let result = match call.send(items).await {
        Ok(rows) => {
            respond(front, items.drain(..), &rows, &mut lines);
            Ok(())
        }
        Err(stop) if stop.is_for_all(items.len()) => {
            stop.settle(front, lane, items.drain(..), &mut lines)
        }
        Err(_) => call.send_singly(items, &mut lines).await,
    };
    front.log.write(&lines);
    result
}

struct Call<'a> {
    front: &'a Front,
    connection: &'a mut Connection,
    lane: Lane,
}

impl Call<'_> {
    async fn send(&mut self, items: &[Item]) -> Result<Vec<Row>, Stop> {
        let sent = Instant::now();
        // The server ends the statement itself; this is for a server that is no longer there.
        let limit = self.front.config.statement_timeout + UNANSWERED;
        let result = timeout(limit, self.connection.call(self.lane, items)).await;
        let metrics = &self.front.metrics;
        match result {
            Ok(Ok(rows)) => {
                metrics.committed(items.len(), sent.elapsed());
                self.front.health.good();
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

    /// Sends what was a batch item by item, so that one that raises costs the others nothing.
    async fn send_singly(
        &mut self,
        items: &mut Vec<Item>,
        lines: &mut Vec<u8>,
    ) -> Result<(), String> {
        let (front, lane) = (self.front, self.lane);
        let was_batch = items.len() > 1;
        let mut rest = items.drain(..);
        while let Some(item) = rest.next() {
            if item.received.elapsed() >= front.config.deadline {
                refuse(front, item, Refusal::DatabaseBusy, lines);
                continue;
            }
            let single = std::slice::from_ref(&item);
            let mut result = self.send(single).await;
            // What was alone from the start has had its second try by now.
            if was_batch && matches!(&result, Err(stop) if stop.failure == Failure::Contended) {
                result = self.send(single).await;
            }
            match result {
                Ok(rows) => respond(front, std::iter::once(item), &rows, lines),
                Err(stop) => {
                    if let Err(reason) = stop.settle(front, lane, std::iter::once(item), lines) {
                        // Not sent yet, so they lose nothing by waiting for a connection.
                        front.queue.put_back(lane, rest);
                        return Err(reason);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Why a call came to nothing.
struct Stop {
    failure: Failure,
    text: String,
}

impl Stop {
    /// Whether sending the items singly could not help.
    fn is_for_all(&self, items: usize) -> bool {
        match self.failure {
            Failure::Terminated | Failure::Lost | Failure::Stale | Failure::Unavailable => true,
            Failure::Contended => false,
            Failure::Fault => items == 1,
        }
    }

    /// Answers the items without a row, or keeps them for the next connection; an error if this
    /// one must go.
    fn settle(
        self,
        front: &Front,
        lane: Lane,
        items: impl DoubleEndedIterator<Item = Item>,
        lines: &mut Vec<u8>,
    ) -> Result<(), String> {
        let (level, refusal) = match self.failure {
            Failure::Terminated => {
                front.queue.put_back(lane, items);
                return Err(self.text);
            }
            Failure::Lost | Failure::Stale => {
                refuse_all(front, items, Refusal::ConnectionLost, lines);
                return Err(self.text);
            }
            Failure::Contended | Failure::Unavailable => (Level::Warn, Refusal::DatabaseBusy),
            Failure::Fault => (Level::Error, Refusal::DatabaseError),
        };
        front.log.message(level, "call_failed", &self.text);
        refuse_all(front, items, refusal, lines);
        Ok(())
    }
}

fn refuse_all(
    front: &Front,
    items: impl Iterator<Item = Item>,
    refusal: Refusal,
    lines: &mut Vec<u8>,
) {
    for item in items {
        refuse(front, item, refusal, lines);
    }
}

/// What is waited for beyond the statement timeout.
const UNANSWERED: Duration = Duration::from_secs(3);
