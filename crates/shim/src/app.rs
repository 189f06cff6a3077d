//! The state that all parts of the process share.

use std::sync::Arc;

use daemon::room::Room;
use tokio::sync::watch;

use crate::acknowledgement::Acknowledgements;
use crate::admission::Admission;
use crate::config::Config;
use crate::health::Health;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::noise::Noise;
use crate::queue::Queue;
use crate::reply::ReplyRequests;
use crate::request_id::RequestIds;
use crate::tool::Tools;

/// The shared state; one per process.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) admission: Arc<Admission>,
    pub(crate) queue: Queue,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) reply_requests: ReplyRequests,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
    pub(crate) ids: RequestIds,
    pub(crate) tools: Option<Tools>,
    /// The client connections that may be open.
    pub(crate) room: Arc<Room>,
    pub(crate) noise: Noise,
    /// Becomes true when the process has to stop.
    pub(crate) stop: watch::Sender<bool>,
}

impl App {
    pub(crate) fn new(config: Config, log: Log, reply_requests: ReplyRequests) -> Self {
        Self {
            admission: Arc::new(Admission::new(
                config.max_in_flight,
                config.max_in_flight_bytes,
            )),
            queue: Queue::default(),
            acknowledgements: Acknowledgements::default(),
            reply_requests,
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

    /// Waits until the process has to stop.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as self, so the wait cannot fail.
        let _ = self.stop.subscribe().wait_for(|&is| is).await;
    }
}
