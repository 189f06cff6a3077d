//! The tools do nothing without the token, and accept it in one place alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use end_to_end::client::request::Request;
use end_to_end::peer::shim::Shim;
use end_to_end::peer::tools::{TOKEN, Tools, with_token};
use end_to_end::server::database::FRONT_ROLE;
use end_to_end::server::environment::fresh_directory;
use serde_json::json;

use crate::tools::{TO, assert_problem, cluster, json_of};

#[test]
fn nothing_is_done_without_the_token() {
    let database = cluster().database();
    let tools = Tools::start(&database, &[]);
    let message = json!({"recipient_number": TO, "body": "hi"}).to_string();
    let bare = Request::post("/send", "application/json", message.as_str());
    let refused = [
        bare.clone(),
        bare.clone().header("Authorization", TOKEN),
        bare.clone().header("Authorization", "Bearer "),
        bare.clone()
            .header("Authorization", &format!("Bearer {}", &TOKEN[1..])),
        bare.clone()
            .header("Authorization", &format!("Basic {TOKEN}")),
        with_token(with_token(bare.clone())),
        bare.clone()
            .header("Cookie", &format!("access_token={TOKEN}")),
        Request::post(
            &format!("/send?access_token={TOKEN}"),
            "application/json",
            message.as_str(),
        ),
        // In a body, only in a form: a browser sends other bodies only with permission.
        Request::post(
            "/send",
            "application/json",
            json!({
                "recipient_number": TO, "body": "hi", "access_token": TOKEN
            })
            .to_string(),
        ),
    ];
    for request in refused {
        let answer = tools.send(&request);
        assert_problem(&answer, 401, "");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }
    // A page of another site sends a preflight request, and gets no permission.
    let preflight = Request::new("OPTIONS", "/send").header("Origin", "https://evil.example");
    let preflight = tools.send(&preflight);
    assert_eq!(
        (preflight.status, preflight.header("allow")),
        (405, Some("GET, POST"))
    );
    assert_eq!(preflight.header("access-control-allow-origin"), None);
    for (request, status) in [
        (Request::new("GET", "/block?number=x"), 405),
        (Request::new("GET", "/sendx"), 404),
        (Request::new("POST", "/twilio/status"), 404),
        (with_token(Request::post("/send", "text/plain", "x")), 415),
        (
            with_token(Request::post("/send", "application/json", "[1]")),
            400,
        ),
        (
            with_token(Request::post(
                "/send",
                "application/json",
                "x".repeat(70_000),
            )),
            413,
        ),
    ] {
        assert_problem(&tools.send(&request), status, "");
    }
    assert_eq!(database.counts(), (0, 0));

    let wrong = tools.post(
        "/send",
        &json!({"recipient_number": TO, "body": "x", "To": "y"}),
    );
    assert!(
        json_of(&wrong)["detail"]
            .as_str()
            .unwrap()
            .contains("\"To\"")
    );
    assert_eq!(
        tools.shim.send(&with_token(bare)).status,
        404,
        "callbacks have tools"
    );
    assert!(!tools.shim.read_log().contains(TOKEN));
    assert!(!tools.shim.read_log().contains(TO));
}

#[test]
fn a_changed_token_counts_at_once_and_an_unreadable_one_refuses_all() {
    let database = cluster().database();
    let tools = Tools::start(&database, &[]);
    let with = |token: &str| {
        let request = Request::form("/block", &[("number", TO)]);
        tools.send(&request.header("Authorization", &format!("bearer {token}")))
    };
    assert_eq!(with(TOKEN).status, 200);
    let next = TOKEN.replace("e2e", "new");
    tools.write_token(&next, 0o600);
    assert_problem(&with(TOKEN), 401, "");
    assert_eq!(with(&next).status, 200);
    tools.write_token(&next, 0o644);
    assert_problem(&with(&next), 503, "");
    tools.write_token("short", 0o600);
    assert_problem(&with("short"), 503, "");
    tools.write_token(&next, 0o600);
    assert_eq!(with(&next).status, 200);
}

#[test]
fn an_unsuitable_role_or_token_is_refused_at_the_start() {
    let database = cluster().database();
    let directory = fresh_directory();
    let token = directory.join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    database
        .connect()
        .batch_execute("create role powerless login")
        .unwrap();
    let open = directory.join("open");
    fs::write(&open, TOKEN).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let listen = format!("unix:{}", directory.join("tools").display());
    for (role, token, expected) in [
        ("powerless", &token, "may not call twilio"),
        (FRONT_ROLE, &token, "the same database role"),
        ("postgres", &open, "everybody may use it (its mode is 644)"),
        ("postgres", &directory.join("none"), "No such file"),
    ] {
        let at = |name: &str| format!("unix:{}", directory.join(name).display());
        let output = Shim::command(&["--database-url", &database.url(FRONT_ROLE)])
            .args(["--listen", &at("http"), "--ops-listen", "none"])
            .args(["--tools-listen", &listen])
            .args(["--tools-database-url", &database.url(role)])
            .arg("--tools-token-file")
            .arg(token)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected) && text.contains("hint: "), "{text}");
        assert!(!text.contains(TOKEN));
    }
    fs::remove_dir_all(directory).unwrap();
}
