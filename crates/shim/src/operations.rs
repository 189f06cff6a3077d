//! What the operations listener reports about the shim.

use crate::app::App;
use crate::metrics::Gauges;

impl daemon::operations::Subject for App {
    fn problem(&self) -> Option<String> {
        self.health.problem()
    }

    fn metrics(&self) -> String {
        self.metrics.render(&Gauges {
            queue_depth: self.queue.len(),
            requests_in_flight: self.admission.items(),
            bytes_in_flight: self.admission.bytes(),
            writers_connected: self.health.writers_connected(),
            unacknowledged: self.acknowledgements.len(),
            log_lines_dropped: self.log.dropped(),
            log_lines_left_out: self.noise.left_out(),
            connections_displaced: self.room.displaced(),
            connections_refused: self.room.refused(),
        })
    }
}
