//! SMSGate's own library for Python takes the sandbox for SMSGate.

use end_to_end::client::library::run_python;
use end_to_end::peer::sandbox::Sandbox;
use end_to_end::server::environment::free_port;
use serde_json::json;

#[test]
fn the_library_sends_reads_cancels_and_lists() {
    let flags = "--callback-delay 5 --smsgate-user user --smsgate-password password \
        --device phone-1:key-1 --device phone-2:key-2";
    // There is no listener for webhooks.
    let sandbox = Sandbox::start(free_port(), &flags.split_whitespace().collect::<Vec<_>>());
    let webhook = "https://hooks.example.com/smsgate";
    let found = run_python(
        "smsgate_client.py",
        &json!({
            "url": format!("{}/3rdparty/v1", sandbox.url()),
            "username": "user",
            "password": "password",
            "device_id": "phone-2",
            "webhook": webhook,
        }),
    );

    let number = "+12025550123";
    let error = "Send result: RESULT_ERROR_GENERIC_FAILURE";
    let expected = json!({
        "sent": ["first", "phone-2", "Pending", [[number, "Pending", null]]],
        "delivered": ["first", "phone-2", "Delivered", [[number, "Delivered", null]]],
        "states": ["Delivered", "Pending", "Processed", "Sent"],
        "failed": ["second", "phone-2", "Failed", [["+150100001000002", "Failed", error]]],
        "cancelled": "Cancelled",
        "page": 2,
        "failed_ones": ["second"],
        "again": ["APIError", 409, { "message": "message with the same ID already exists" }],
        "unknown": ["NotFoundError", 404],
        "no_device": ["BadRequestError", 400, { "message": "failed to select device: record not found" }],
        "devices": ["phone-1", "phone-2"],
        "webhooks": [0, [[true, webhook, "sms:delivered"]], 0],
        "tokens": ["Delivered", ["ForbiddenError", 403]],
        "health": "pass",
        "stranger": ["UnauthorizedError", 401],
    });
    assert_eq!(found, expected);
    let text = "Grüße 🎉\nsecond line ".to_owned();
    assert_eq!(sandbox.sent(), [(number.to_owned(), text)]);
}
