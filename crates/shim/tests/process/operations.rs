//! The operations listener.

use crate::shim::{FORM, Shim, post, status};

#[test]
fn it_lives_but_is_not_ready_without_a_database() {
    let shim = Shim::start(&[]);
    let live = shim.operate("GET", "/live");
    assert_eq!(status(&live), 200);
    assert!(live.ends_with("\r\n\r\nlive\n"), "{live}");
    let ready = crate::shim::until("the first failure to connect", || {
        let ready = shim.operate("GET", "/ready");
        ready.contains("/nonexistent").then_some(ready)
    });
    assert_eq!(status(&ready), 503);
    assert!(
        ready.contains("\r\n\r\nno connection to the database: /nonexistent: "),
        "{ready}"
    );
}

#[test]
fn metrics_count_what_was_answered() {
    let shim = Shim::start(&[]);
    for _ in 0..2 {
        shim.exchange(post("/nowhere", FORM, ""));
    }
    shim.exchange(post("/twilio/status", FORM, "a=b"));
    let page = shim.operate("GET", "/metrics");
    assert_eq!(status(&page), 200);
    for line in [
        "twilio_callback_shim_requests_total{status=\"404\"} 2",
        "twilio_callback_shim_requests_total{status=\"503\"} 1",
        "twilio_callback_shim_refused_total{reason=\"not_found\"} 2",
        "twilio_callback_shim_refused_total{reason=\"deadline\"} 1",
        "twilio_callback_shim_answer_seconds_count 3",
        "twilio_callback_shim_writers_connected 0",
    ] {
        assert!(
            page.contains(&format!("\n{line}\n")),
            "{line} is not in {page}"
        );
    }
}

#[test]
fn other_paths_and_methods_are_refused() {
    let shim = Shim::start(&[]);
    assert_eq!(status(&shim.operate("GET", "/twilio/status")), 404);
    assert_eq!(status(&shim.operate("POST", "/metrics")), 405);
    let head = shim.operate("HEAD", "/live");
    assert_eq!(status(&head), 200);
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(
        status(&shim.exchange("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")),
        404
    );
}
