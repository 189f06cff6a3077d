//! Twilio's own library for Python takes the sandbox for Twilio.

use end_to_end::client::library::run_python;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::database::{ACCOUNT_SID, AUTH_TOKEN};
use end_to_end::server::environment::free_port;
use serde_json::json;

#[test]
fn the_library_finds_the_whole_messages_resource() {
    // There is no listener for callbacks.
    let sandbox = Sandbox::start(free_port(), &["--callback-delay", "5"]);
    let found = run_python(
        "twilio_messages.py",
        &json!({
            "url": sandbox.url(),
            "account_sid": ACCOUNT_SID,
            "auth_token": AUTH_TOKEN,
        }),
    );
    let expected = json!({
        "created": ["MM", "queued", "+12025550123", "+12025550100", "first 🎉", "outbound-api", "1", null, "datetime"],
        "fetched": true,
        "listed": [8, 3, 8],
        "to": true,
        "from": [8, 0],
        "sent_today": [1, 0],
        "pages": [3, 3, 0],
        "scheduled": "scheduled",
        "canceled": "canceled",
        "cancel_twice": [409, 30409],
        "failed": ["failed", 30005, true],
        "redacted": "",
        "media": 1,
        "one_media": "image/png",
        "feedback": "confirmed",
        "deleted": [true, [404, 20404]],
        "bad_number": [400, 21211],
        "no_body": [400, 21602],
        "too_long": [400, 21617],
        "stopped": [400, 21610],
        "throttled": [429, 20429],
        "unknown": [404, 20404],
        "stranger": [401, 20003],
    });
    assert_eq!(found, expected);
}
