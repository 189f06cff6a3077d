//! Who may see credentials, and where redirects may lead.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use protocol::destination::{Destination, Fault};
use protocol::trust::{Api, Gateway};

const API: &str = "https://api.twilio.com";
const SANDBOX: &str = "http://127.0.0.1:8080";

fn is_trusted(url: &str, api_url: &str) -> bool {
    let api = Api::parse(api_url).unwrap();
    Destination::parse(url).is_ok_and(|to| api.trusted(&to).is_some())
}

#[test]
fn credentials_go_to_twilio_and_to_nobody_else() {
    for url in [
        "https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME",
        "https://API.Twilio.com:443/x",
        "HTTPS://api.dublin.ie1.twilio.com/x",
        "https://twilio.com/x",
    ] {
        assert!(is_trusted(url, API), "{url}");
    }
    for url in [
        "http://api.twilio.com/x",
        "http://api.twilio.com:443/x",
        "https://api.twilio.com:8443/x",
        "https://api.twilio.com:443443/x",
        "https://api.twilio.com./x",
        "https://user@api.twilio.com/x",
        "https://user:password@api.twilio.com/x",
        "https://api.twilio.com@evil.example/x",
        "https://api.twilio.com:443@evil.example/x",
        "https://evil.example\\@api.twilio.com/x",
        "https://evil.example#@api.twilio.com/x",
        "https://evil.example?.twilio.com/x",
        "https://evil.example/.twilio.com",
        "https://eviltwilio.com/x",
        "https://evil-twilio.com/x",
        "https://api-twilio.com/x",
        "https://twilio.com.evil/x",
        "https://api.twilio.com.evil.example/x",
        "https://api.twilio.com%2f.evil.example/x",
        "https://api%2etwilio.com/x",
        "https://evil.example%23.twilio.com/x",
        "https://evil.example%00.twilio.com/x",
        "https://äpi.twilio.com/x",
        "https://twilıo.com/x",
        "https://api.twilio。com/x",
        "https://[127.0.0.1].twilio.com/x",
        "https://[127.0.0.1].twilio.com:443/x",
        "https://[1.2.3.4]twilio.com/x",
        "https://[::1].twilio.com/x",
        "https://[::ffff:1.2.3.4].twilio.com/x",
        "https://[::ffff:1.2.3.4]/x",
        "https://[::1]/x",
        "https://1.2.3.4/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://0177.0.0.1/x",
        "https://localhost/x",
        "https://media.twiliocdn.com/x",
        "https://s3.amazonaws.com/x",
        "http://127.0.0.1:8080/x",
        "//api.twilio.com/x",
        "/x",
        "",
    ] {
        assert!(!is_trusted(url, API), "{url}");
    }
}

#[test]
fn a_sandbox_is_trusted_at_its_own_origin() {
    for (url, api_url) in [
        ("http://127.0.0.1:8080/x", SANDBOX),
        ("http://LOCALHOST:8080/x", "http://localhost:8080/twilio"),
        ("http://[::1]:8080/x", "http://[0::1]:8080"),
        (
            "https://twilio.internal.example:8443/x",
            "https://twilio.internal.example:8443",
        ),
        ("http://sandbox:8080/x", "http://Sandbox:8080"),
    ] {
        assert!(is_trusted(url, api_url), "{url}");
    }
    for url in [
        "http://127.0.0.1:8081/x",
        "https://127.0.0.1:8080/x",
        "http://127.0.0.1/x",
        "http://localhost:8080/x",
        "http://127.0.0.2:8080/x",
        "http://127.1:8080/x",
        "http://[::ffff:127.0.0.1]:8080/x",
        "http://127.0.0.1:8080@10.0.0.1/x",
        "http://10.0.0.1:8080/x",
    ] {
        assert!(!is_trusted(url, SANDBOX), "{url}");
    }
}

#[test]
fn an_api_is_a_name_or_on_loopback() {
    for (api_url, fault) in [
        ("https://10.0.0.1", Fault::Literal),
        ("http://10.0.0.1:8080", Fault::Literal),
        ("https://[2001:db8::1]:8443/x", Fault::Literal),
        ("https://[::ffff:127.0.0.1]", Fault::Literal),
        ("https://[127.0.0.1].twilio.com", Fault::Brackets),
        ("https://user:password@api.twilio.com", Fault::User),
        ("https://api.twilio.com.", Fault::Name),
        ("https://0x7f.1", Fault::Number),
        ("https://api.twilio.com/", Fault::Base),
        ("https://api.twilio.com?x", Fault::Base),
        ("https://api.twilio.com:", Fault::Port),
        ("ftp://api.twilio.com", Fault::Form),
        ("", Fault::Form),
    ] {
        assert_eq!(Api::parse(api_url).err(), Some(fault), "{api_url}");
    }
    // A phone is often known by its address.
    let gateway = Gateway::parse("http://192.168.1.5:8080/3rdparty/v1").unwrap();
    let to = gateway.at("/messages").unwrap().into_destination();
    assert_eq!(
        to.uri().to_string(),
        "http://192.168.1.5:8080/3rdparty/v1/messages"
    );
    for (base_url, fault) in [
        ("http://[192.168.1.5]:8080", Fault::Brackets),
        ("http://user:password@192.168.1.5:8080", Fault::User),
        ("http://3232235781:8080", Fault::Number),
    ] {
        assert_eq!(Gateway::parse(base_url).err(), Some(fault), "{base_url}");
    }
}

#[test]
fn only_a_sandbox_on_loopback_has_files_beside_it() {
    let is_beside = |url, api_url| {
        let api = Api::parse(api_url).unwrap();
        Destination::parse(url).is_ok_and(|file| api.is_beside(&file))
    };
    assert!(is_beside("http://127.0.0.1:9/x", SANDBOX));
    assert!(is_beside("http://localhost/x", "https://LocalHost:8443"));
    for (url, api_url) in [
        ("http://localhost:8080/x", SANDBOX),
        ("http://127.0.0.2:8080/x", SANDBOX),
        ("http://127.0.0.1.example/x", SANDBOX),
        ("http://127.0.0.1@10.0.0.1/x", SANDBOX),
        ("http://10.0.0.1@127.0.0.1/x", SANDBOX),
        ("http://127.1/x", SANDBOX),
        ("/x", SANDBOX),
        ("", SANDBOX),
        ("http://sandbox:9/x", "http://sandbox:8080"),
        ("https://api.twilio.com/x", API),
    ] {
        assert!(!is_beside(url, api_url), "{url} beside {api_url}");
    }
}

#[test]
fn redirects_lead_to_where_twilio_keeps_files() {
    let redirected = |from: &str, location: &str, api_url: &str| {
        let api = Api::parse(api_url).unwrap();
        let next = api.redirected(&Destination::parse(from).unwrap(), location);
        next.map(|next| next.uri().to_string())
    };
    let from = "https://api.twilio.com/a/Media/ME";
    for (location, expected) in [
        ("/b", Some("https://api.twilio.com/b")),
        (
            "https://mms.twiliocdn.com/b",
            Some("https://mms.twiliocdn.com/b"),
        ),
        (
            "https://s3-external-1.amazonaws.com/media.twiliocdn.com/AC/b",
            Some("https://s3-external-1.amazonaws.com/media.twiliocdn.com/AC/b"),
        ),
        ("http://mms.twiliocdn.com/b", None),
        ("https://mms.twiliocdn.com:8443/b", None),
        ("https://mms.twiliocdn.com./b", None),
        ("https://evil.example/b", None),
        ("//evil.example/b", None),
        (
            "/\\evil.example/b",
            Some("https://api.twilio.com/\\evil.example/b"),
        ),
        ("https://eviltwiliocdn.com/b", None),
        ("https://[127.0.0.1].twiliocdn.com/b", None),
        ("https://[127.0.0.1].amazonaws.com/b", None),
        ("https://[127.0.0.1].twilio.com/b", None),
        ("https://user@mms.twiliocdn.com/b", None),
        ("http://127.0.0.1/b", None),
        ("http://169.254.169.254/latest", None),
        ("file:///etc/passwd", None),
        ("b", None),
        ("", None),
    ] {
        let next = redirected(from, location, API);
        assert_eq!(next.as_deref(), expected, "{location}");
    }
    // A sandbox leads to this machine, whatever it is called, and not to others.
    let at_sandbox = "http://127.0.0.1:8080/a";
    let next = redirected(at_sandbox, "http://localhost:8080/b", SANDBOX);
    assert_eq!(next.as_deref(), Some("http://localhost:8080/b"));
    for location in ["http://10.0.0.1/b", "http://sandbox:8080/b"] {
        assert_eq!(
            redirected(at_sandbox, location, SANDBOX),
            None,
            "{location}"
        );
    }
    // An API without TLS elsewhere is not a sandbox.
    let elsewhere = "http://sandbox:8080/a";
    let api_url = "http://sandbox:8080";
    assert_eq!(redirected(elsewhere, "http://10.0.0.1/b", api_url), None);
    assert_eq!(redirected(elsewhere, "http://127.0.0.1/b", api_url), None);
}

#[test]
fn credentials_are_shown_for_files_of_the_account_alone() {
    let account = "AC0123456789abcdef0123456789abcdef";
    let api = Api::parse("https://api.twilio.com").unwrap();
    let sandbox = Api::parse("http://127.0.0.1:4010").unwrap();
    let message = "MM0123456789abcdef0123456789abcdef";
    let file = |account: &str| {
        format!(
            "/2010-04-01/Accounts/{account}/Messages/{message}/Media/ME0123456789abcdef0123456789abcdef"
        )
    };
    let is_file = |api: &Api, url: String| {
        let to = Destination::parse(&url).unwrap();
        api.file(account, &to).is_some()
    };
    assert!(is_file(
        &api,
        format!("https://api.twilio.com{}", file(account))
    ));
    assert!(is_file(&sandbox, "http://127.0.0.1:4010/x".to_owned()));
    for path in [
        format!("/2010-04-01/Accounts/{account}.json"),
        format!("/2010-04-01/Accounts/{account}/Messages/{message}.json"),
        format!("{}?x=1", file(account)),
        format!("{}.json", file(account)),
        format!("{}/..", file(account)),
        file("AC0123456789abcdef0123456789abcdee"),
    ] {
        assert!(
            !is_file(&api, format!("https://api.twilio.com{path}")),
            "{path}"
        );
    }
}
