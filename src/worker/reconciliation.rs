//! The worker's search for messages without a final status, in transactions of its own, so that an error there does not stop
//! sending.

use crate::extension::is_installed;
use crate::spi::log_once_a_minute;
use crate::spi::{first, transaction};

/// Queues messages that have had no final status for too long, so that their state is fetched.
pub(crate) fn examine() {
    let examined = transaction(|| {
        if is_installed()? {
            first::<String>("select twilio_internal.queue_daily_sweeps()::text", &[])?;
            first::<i64>("select twilio_internal.examine_messages()", &[])
        } else {
            Ok(None)
        }
    });
    if let Err(error) = examined {
        log_once_a_minute(&format!(
            "twilio_callback worker cannot look for messages without a final status: {error}"
        ));
    }
}
