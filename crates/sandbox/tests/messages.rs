//! Twilio's Messages API: creates, broken answers, lists, changes, faults.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, too"
)]

mod support;

use serde_json::{Value, json};
use support::{
    ACCOUNT, Hook, SERVICE, Sandbox, TOKEN, basic, message_path, messages_path, twilio_user, until,
};

const KEY: &str = "SK0123456789abcdef0123456789abcdef";

fn create(sandbox: &Sandbox, to: &str) -> Option<support::Response> {
    sandbox.create(&[("To", to), ("From", "+12025550100"), ("Body", "x")])
}

#[test]
fn only_the_right_credentials_are_let_in() {
    let sandbox = Sandbox::start(&["--api-key", &format!("{KEY}:key secret")]);
    let fields = [
        ("To", "+12025550123"),
        ("From", "+12025550100"),
        ("Body", "x"),
    ];
    let status = |path: &str, user: &str| {
        let response = sandbox.post(path, user, &fields).unwrap();
        (response.status, response.json()["code"].as_u64())
    };
    let path = messages_path();
    assert_eq!(status(&path, &twilio_user()), (201, None));
    assert_eq!(status(&path, &basic(KEY, "key secret")), (201, None));
    assert_eq!(status(&path, &basic(ACCOUNT, "wrong")), (401, Some(20003)));
    assert_eq!(status(&path, &basic(KEY, TOKEN)), (401, Some(20003)));
    assert_eq!(status(&path, ""), (401, Some(20003)));
    let other = path.replace("AC0", "AC1");
    assert_eq!(status(&other, &twilio_user()), (401, Some(20003)));
    assert_eq!(
        status("/2010-04-01/Accounts/nobody/Messages.json", &twilio_user()),
        (404, Some(20404))
    );
    assert_eq!(status("/elsewhere", &twilio_user()), (404, Some(20404)));
}

#[test]
fn refusals_are_twilios_json() {
    let sandbox = Sandbox::start(&[]);
    let refused = sandbox
        .create(&[("From", "+12025550100"), ("Body", "x")])
        .unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json(),
        json!({
            "code": 21604,
            "message": "A 'To' phone number is required",
            "more_info": "https://www.twilio.com/docs/errors/21604",
            "status": 400,
        })
    );
    for (to, status, code) in [
        ("+1", 400, 21211),
        ("+150000001321610", 400, 21610),
        ("+15005550004", 400, 21610),
        ("+150000001000018", 403, 20005),
        ("+150000001000019", 401, 20003),
        ("+150000001000016", 503, 20503),
        ("+150000001000014", 500, 20500),
        ("+150000001000099", 400, 21211),
    ] {
        let response = create(&sandbox, to).unwrap();
        assert_eq!((response.status, response.code()), (status, code), "{to}");
    }
    let json = sandbox.json(
        "POST",
        &messages_path(),
        &twilio_user(),
        &json!({ "To": "+12025550123" }),
    );
    assert_eq!(json.unwrap().code(), 21604);
    assert_eq!(sandbox.control("/_counts")["accepted"], 0);
}

#[test]
fn senders_that_the_account_lacks_are_refused() {
    let sandbox = Sandbox::start(&["--sender", "+12025550100"]);
    assert_eq!(create(&sandbox, "+12025550123").unwrap().status, 201);
    let other = [
        ("To", "+12025550123"),
        ("From", "+12025550101"),
        ("Body", "x"),
    ];
    assert_eq!(sandbox.create(&other).unwrap().code(), 21606);
}

fn list(sandbox: &Sandbox, query: &str) -> Value {
    let response = sandbox.get(&format!("{}?{query}", messages_path()), &twilio_user());
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

fn bodies(page: &Value) -> Vec<&str> {
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["body"].as_str())
        .collect()
}

#[test]
fn lists_are_filtered_and_paged() {
    let sandbox = Sandbox::start(&[]);
    for n in 0..7 {
        let to = if n % 2 == 0 {
            "+12025550123"
        } else {
            "+12025550124"
        };
        let fields = [
            ("To", to),
            ("From", "+12025550100"),
            ("Body", &n.to_string()),
        ];
        assert_eq!(sandbox.create(&fields).unwrap().status, 201);
    }
    let first = list(&sandbox, "PageSize=3");
    assert_eq!(bodies(&first), ["6", "5", "4"]);
    assert!(first["previous_page_uri"].is_null());
    let next = |page: &Value, name: &str| {
        sandbox
            .get(page[name].as_str().unwrap(), &twilio_user())
            .json()
    };
    let second = next(&first, "next_page_uri");
    assert_eq!(bodies(&second), ["3", "2", "1"]);
    assert_eq!(
        (
            second["page"].as_u64(),
            second["start"].as_u64(),
            second["end"].as_u64()
        ),
        (Some(1), Some(3), Some(5))
    );
    let third = next(&second, "next_page_uri");
    assert_eq!(bodies(&third), ["0"]);
    assert!(third["next_page_uri"].is_null());
    assert_eq!(bodies(&next(&second, "previous_page_uri")), bodies(&first));
    assert_eq!(
        bodies(&list(&sandbox, "To=%2B12025550124")),
        ["5", "3", "1"]
    );
    assert_eq!(bodies(&list(&sandbox, "From=%2B12025550101")).len(), 0);
    until("all to be sent", || {
        bodies(&list(&sandbox, "DateSent%3E=2000-01-01")).len() == 7
    });
    assert_eq!(bodies(&list(&sandbox, "DateSent%3C=2000-01-01")).len(), 0);
    assert_eq!(bodies(&list(&sandbox, "DateSent=2000-01-01")).len(), 0);
    for query in ["PageSize=0", "DateSent=yesterday", "PageToken=PASM0"] {
        let refused = sandbox.get(&format!("{}?{query}", messages_path()), &twilio_user());
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[test]
fn only_scheduled_messages_can_be_canceled() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let cancel = |sid: &str| {
        sandbox
            .post(
                &message_path(sid),
                &twilio_user(),
                &[("Status", "canceled")],
            )
            .unwrap()
    };
    // Far enough ahead for every clock: between five minutes and 35 days from now.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let day = now.as_secs() / 86_400 + 7;
    let fields = [
        ("To", "+12025550123"),
        ("MessagingServiceSid", SERVICE),
        ("Body", "x"),
        ("ScheduleType", "fixed"),
        ("SendAt", &date(day)),
        ("StatusCallback", "https://hooks.example.com/x"),
    ];
    let scheduled = sandbox.create(&fields).unwrap().json();
    assert_eq!(scheduled["status"], "scheduled", "{scheduled}");
    let sid = scheduled["sid"].as_str().unwrap();
    assert_eq!(cancel(sid).json()["status"], "canceled");
    let request = &hook.about(sid, 1)[0];
    assert_eq!(
        request.parameter("MessageStatus").as_deref(),
        Some("canceled")
    );
    assert_eq!(cancel(sid).code(), 30409);
    let sent = sandbox.accepted("+12025550123", "https://hooks.example.com/x");
    let refused = cancel(sent["sid"].as_str().unwrap());
    assert_eq!((refused.status, refused.code()), (409, 30409));
}

/// A day since 1970 as a date, by counting years and months.
fn date(mut day: u64) -> String {
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}T12:00:00Z", day + 1)
}

#[test]
fn messages_are_redacted_and_deleted_once_they_are_through() {
    let sandbox = Sandbox::start(&[]);
    let waiting = create(&sandbox, "+150000001000005").unwrap().json();
    let sid = waiting["sid"].as_str().unwrap();
    let refused = sandbox
        .request("DELETE", &message_path(sid), &twilio_user(), "", "")
        .unwrap();
    assert_eq!((refused.status, refused.code()), (409, 20009));
    let sent = create(&sandbox, "+12025550123").unwrap().json();
    let sid = sent["sid"].as_str().unwrap();
    until("delivery", || sandbox.fetch(sid)["status"] == "delivered");
    let refused = sandbox
        .post(&message_path(sid), &twilio_user(), &[("Body", "new")])
        .unwrap();
    assert_eq!(refused.status, 400);
    let redacted = sandbox
        .post(&message_path(sid), &twilio_user(), &[("Body", "")])
        .unwrap();
    assert_eq!(redacted.json()["body"], "");
    assert_eq!(sandbox.fetch(sid)["body"], "");
    let deleted = sandbox
        .request("DELETE", &message_path(sid), &twilio_user(), "", "")
        .unwrap();
    assert_eq!(deleted.status, 204);
    assert_eq!(sandbox.fetch(sid)["code"], 20404);
}

#[test]
fn a_recipient_that_says_stop_gets_no_messages() {
    let hook = Hook::start();
    let sandbox = Sandbox::with_hook(&hook, &[]);
    let say = |word| {
        let fields = [
            ("url", "https://hooks.example.com/x"),
            ("From", "+12025550123"),
            ("To", "+12025550100"),
            ("Body", word),
        ];
        assert_eq!(sandbox.post("/_inbound", "", &fields).unwrap().status, 200);
    };
    say(" Stop ");
    assert_eq!(create(&sandbox, "+12025550123").unwrap().code(), 21610);
    assert_eq!(create(&sandbox, "+12025550124").unwrap().status, 201);
    say("START");
    assert_eq!(create(&sandbox, "+12025550123").unwrap().status, 201);
}

#[test]
fn requests_are_noted_with_their_times() {
    let sandbox = Sandbox::start(&[]);
    for n in 0..5 {
        let fields = [
            ("To", "+12025550123"),
            ("From", "+12025550100"),
            ("Body", &n.to_string()),
            ("Nonsense", "1"),
        ];
        sandbox.create(&fields);
    }
    let all = sandbox.control("/_requests");
    assert_eq!(all["count"], 5);
    let times: Vec<_> = all["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|r| r["received_us"].as_i64())
        .collect();
    assert!(times.is_sorted() && times.len() == 5, "{times:?}");
    let first = &all["requests"][0];
    assert_eq!(first["parameters"]["Body"], "0");
    assert_eq!(first["unknown_parameters"], json!(["Nonsense"]));
    assert!(!all.to_string().contains(TOKEN));
    assert_eq!(
        sandbox.control(&format!("/_requests?since={}", times[3]))["count"],
        2
    );
    assert_eq!(sandbox.control("/_requests?after=4")["count"], 1);
    assert_eq!(sandbox.control("/_requests?limit=2")["count"], 2);
    assert_eq!(sandbox.get("/_requests?colour=red", "").status, 400);
    assert_eq!(
        sandbox
            .request("DELETE", "/_requests", "", "", "")
            .unwrap()
            .status,
        204
    );
    assert_eq!(sandbox.control("/_requests")["count"], 0);
}
