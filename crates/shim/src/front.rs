//! What every part of the process shares.

use std::sync::Arc;

use service::room::Room;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::config::Config;
use crate::handover::Handover;
use crate::health::Health;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::noise::Noise;
use crate::queue::Queue;
use crate::reply::Wishes;
use crate::request_id::RequestIds;
use crate::tool::Tools;

/// The shared state; one per process.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) config: Config,
    pub(crate) budget: Arc<Budget>,
    pub(crate) queue: Queue,
    pub(crate) handover: Handover,
    pub(crate) wishes: Wishes,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
    pub(crate) ids: RequestIds,
    pub(crate) tools: Option<Tools>,
    /// The client connections that may be open.
    pub(crate) room: Arc<Room>,
    pub(crate) noise: Noise,
    /// Becomes true when the process shall stop.
    pub(crate) stop: watch::Sender<bool>,
}

impl Front {
    pub(crate) fn new(config: Config, log: Log, wishes: Wishes) -> Self {
        Self {
            budget: Arc::new(Budget::new(
                config.max_in_flight,
                config.max_in_flight_bytes,
            )),
            queue: Queue::default(),
            handover: Handover::default(),
            wishes,
            health: Health::new(),
            metrics: Metrics::new(),
            ids: RequestIds::new(),
            tools: config.tools.clone().map(Tools::new),
            room: Room::new(config.max_connections, config.max_connections_per_client),
            noise: Noise::new(config.log_refused_rate),
            stop: watch::Sender::new(false),
            log,
            config,
        }
    }

    /// Waits until the process shall stop.
    pub(crate) async fn stopped(&self) {
        // The sender lives in self, so this ends by the value alone.
        let _ = self.stop.subscribe().wait_for(|&is| is).await;
    }
}
