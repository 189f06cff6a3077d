//! A Message resource to change and read, for the tests of answers and lists.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use serde_json::{Value, json};

pub const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";
/// 2026-02-18 02:15:00 UTC, a second before the resource was created.
pub const NOW: i64 = 1_771_380_900_000;

pub fn resource(changes: &[(&str, Value)]) -> Value {
    let mut value = json!({
        "sid": "SM0123456789abcdef0123456789abcdef",
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "body": "Your table is ready",
        "date_created": "Wed, 18 Feb 2026 02:15:01 +0000",
        "date_sent": null,
        "date_updated": "Wed, 18 Feb 2026 02:15:01 +0000",
        "direction": "outbound-api",
        "error_code": null,
        "error_message": null,
        "from": "+12025550100",
        "messaging_service_sid": null,
        "num_media": "0",
        "num_segments": "1",
        "price": null,
        "price_unit": "USD",
        "status": "queued",
        "to": "+12025550123",
        "uri": "/2010-04-01/…",
    });
    for (name, change) in changes {
        value[*name] = change.clone();
    }
    value
}
