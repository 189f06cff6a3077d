//! What the operations listener tells of the shim.

use crate::front::Front;
use crate::metrics::Gauges;

impl service::operations::Subject for Front {
    fn problem(&self) -> Option<String> {
        self.health.problem()
    }

    fn metrics(&self) -> String {
        self.metrics.render(&Gauges {
            queue_depth: self.queue.len(),
            requests_in_flight: self.budget.items(),
            bytes_in_flight: self.budget.bytes(),
            writers_connected: self.health.writers_connected(),
            unacknowledged: self.handover.len(),
            log_lines_dropped: self.log.dropped(),
            log_lines_left_out: self.noise.left_out(),
            connections_displaced: self.room.displaced(),
            connections_refused: self.room.refused(),
        })
    }
}
