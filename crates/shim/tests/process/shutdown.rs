//! The end on a signal.

use std::io::Write;

use crate::shim::{FORM, Shim, SocketPath, connect, post, read_to_end, status, until};

#[test]
fn a_signal_ends_it_with_0() {
    for name in ["TERM", "INT"] {
        let mut shim = Shim::start(&[]);
        // An idle connection is no reason to wait.
        let _idle = connect(&shim.address);
        shim.signal(name);
        assert_eq!(shim.wait_for_end().code(), Some(0), "{}", shim.log());
        shim.wait_for_log("all requests are answered");
    }
}

#[test]
fn an_open_request_is_answered_first() {
    let mut shim = Shim::start(&["--deadline", "2s"]);
    let mut stream = connect(&shim.address);
    stream
        .write_all(post("/twilio/status", FORM, "a=b").as_bytes())
        .unwrap();
    until("the request in flight", || {
        shim.operate("GET", "/metrics")
            .contains("\ntwilio_callback_shim_requests_in_flight 1\n")
            .then_some(())
    });
    shim.signal("TERM");
    shim.wait_for_log("event=stopping ");
    let ready = shim.operate("GET", "/ready");
    assert!(ready.ends_with("\r\n\r\nstopping\n"), "{ready}");
    assert_eq!(status(&read_to_end(&mut stream)), 503);
    assert_eq!(shim.wait_for_end().code(), Some(0), "{}", shim.log());
}

#[test]
fn requests_that_outlive_the_grace_period_are_cut_off_and_reported() {
    let limits = [
        "--deadline",
        "60s",
        "--statement-timeout",
        "50s",
        "--grace",
        "200ms",
    ];
    let mut shim = Shim::start(&limits);
    let mut stream = connect(&shim.address);
    stream
        .write_all(post("/twilio/status", FORM, "a=b").as_bytes())
        .unwrap();
    until("the request in flight", || {
        shim.operate("GET", "/metrics")
            .contains("\ntwilio_callback_shim_requests_in_flight 1\n")
            .then_some(())
    });
    shim.signal("TERM");
    assert_eq!(shim.wait_for_end().code(), Some(1));
    shim.wait_for_log("after the grace period with 1 connection");
}

#[test]
fn its_socket_goes_with_it() {
    let socket = SocketPath::new();
    let mut shim = Shim::start_on(&format!("unix:{}", socket.path().display()), &[]);
    assert!(socket.path().exists());
    shim.signal("TERM");
    assert_eq!(shim.wait_for_end().code(), Some(0));
    assert!(!socket.path().exists());
}
