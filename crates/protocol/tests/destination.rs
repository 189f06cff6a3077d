//! URLs that decide where a request goes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use http::Uri;
use proptest::prelude::*;
use protocol::destination::{
    Destination, Fault, Host, check_callback, check_media, check_public_base,
};
use protocol::trust::Api;
use protocol::url::Url;

fn fault(url: &str) -> Option<Fault> {
    Destination::parse(url).err()
}

#[test]
fn a_destination_has_one_host_and_one_port() {
    for (url, host, port) in [
        ("https://api.twilio.com", "api.twilio.com", 443),
        ("HTTP://Api.Twilio.COM/x?y#z", "api.twilio.com", 80),
        ("http://127.0.0.1:4010/a", "127.0.0.1", 4010),
        ("https://[::1]:8443/", "[::1]", 8443),
        ("https://[0:0::FFFF:1.2.3.4]", "[::ffff:1.2.3.4]", 443),
        ("http://my_host:08080/", "my_host", 8080),
        (
            "https://xn--mnchen-3ya.example/ü",
            "xn--mnchen-3ya.example",
            443,
        ),
        ("https://1host.example.3com?x", "1host.example.3com", 443),
    ] {
        let to = Destination::parse(url).unwrap_or_else(|fault| panic!("{url}: {fault}"));
        assert_eq!(to.host().to_string(), host, "{url}");
        assert_eq!(to.port(), port, "{url}");
    }
}

#[test]
fn urls_that_parsers_disagree_on_are_refused() {
    for url in [
        "",
        "/x",
        "x",
        "a.example",
        "//a.example/x",
        "ftp://a.example",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://:443/",
        "https://a b/",
        "https://a\n/",
        "https://a.example/\u{7f}",
        "https://a.example\\@b.example/",
        "https://%61pi.twilio.com/",
        "https://api.twilio.com%2eevil.example/",
        "https://api.twilio.com%00.evil.example/",
        "https://äpi.twilio.com/",
        "https://api。twilio。com/",
        "https://[::1/",
        "https://::1]/",
        "https://::1/",
        "https://[[::1]]/",
        "https://[::1%25eth0]/",
    ] {
        assert!(
            matches!(
                fault(url),
                Some(Fault::Form | Fault::Brackets | Fault::Name)
            ),
            "{url}: {:?}",
            fault(url)
        );
    }
    for url in [
        "https://[127.0.0.1].twilio.com/",
        "https://[127.0.0.1].twilio.com:443/",
        "https://[127.0.0.1]/",
        "https://[::1].twilio.com/",
        "https://[::1]twilio.com/",
        "https://[]/",
        "https://[a.example]/",
        "https://a[::1]/",
        "https://[v1.x]/",
    ] {
        assert_eq!(fault(url), Some(Fault::Brackets), "{url}");
    }
    for url in [
        "https://user@api.twilio.com/",
        "https://user:password@api.twilio.com/",
        "https://@api.twilio.com/",
        "https://api.twilio.com@evil.example/",
        "https://api.twilio.com:443@evil.example/",
        "https://a@b@api.twilio.com/",
    ] {
        assert_eq!(fault(url), Some(Fault::User), "{url}");
    }
    for url in [
        "https://api.twilio.com./",
        "https://api..twilio.com/",
        "https://.twilio.com/",
        "https://127.0.0.1./",
        "https://a!b.example/",
        "https://a,b.example/",
        "https://*.twilio.com/",
    ] {
        assert_eq!(fault(url), Some(Fault::Name), "{url}");
    }
    for url in [
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://0X7F000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://1.2.3.4.5/",
        "http://256.0.0.1/",
        "http://a.example.0x/",
    ] {
        assert_eq!(fault(url), Some(Fault::Number), "{url}");
    }
    for url in [
        "https://a.example:/",
        "https://a.example:0/",
        "https://a.example:+443/",
        "https://a.example:65536/",
        "https://a.example:443443/",
        "https://a.example:x/",
        "https://[::1]:/",
    ] {
        assert_eq!(fault(url), Some(Fault::Port), "{url}");
    }
    let long = format!("https://{}a.example/", "a.".repeat(130));
    assert_eq!(fault(&long), Some(Fault::Name));
}

#[test]
fn a_callback_and_a_public_url_may_have_user_information() {
    for check in [check_callback, check_public_base] {
        assert_eq!(check("https://user:password@a.example:8443/x"), Ok(()));
        assert_eq!(check("https://[127.0.0.1]/x"), Err(Fault::Brackets));
        assert_eq!(
            check("https://user@[127.0.0.1].example/x"),
            Err(Fault::Brackets)
        );
        assert_eq!(check("https://a.example:x/x"), Err(Fault::Port));
    }
    assert_eq!(check_callback("https://a.example/x?y#z"), Ok(()));
    // Of paths and queries Twilio reads more than our client does.
    for check in [check_callback, check_media] {
        assert_eq!(check("https://a.example/<x>?y=\"z\"#@b.example"), Ok(()));
        assert_eq!(check("https://a.example?x@[1.2.3.4]/y"), Ok(()));
        assert_eq!(check("https://a.example/x y"), Err(Fault::Form));
        assert_eq!(check("https://[1.2.3.4].b.example/x"), Err(Fault::Brackets));
        assert_eq!(check("https:/a.example/"), Err(Fault::Form));
    }
    assert_eq!(check_media("https://user@a.example/"), Err(Fault::User));
    assert_eq!(
        check_callback("https://my_host.example/"),
        Err(Fault::Underscore)
    );
    for url in ["https://a.example/", "https://a.example?x", "https://a#x"] {
        assert_eq!(check_public_base(url), Err(Fault::Base), "{url}");
        assert_eq!(Destination::parse_base(url).err(), Some(Fault::Base));
    }
}

#[test]
fn paths_below_a_base_keep_its_origin() {
    let base = Destination::parse_base("https://a.example:8443/prefix").unwrap();
    for (path, expected) in [
        ("/x?y=z", Ok("https://a.example:8443/prefix/x?y=z")),
        (
            "//evil.example/x",
            Ok("https://a.example:8443/prefix//evil.example/x"),
        ),
        (
            "/@evil.example/",
            Ok("https://a.example:8443/prefix/@evil.example/"),
        ),
        ("@evil.example/", Err(Fault::Path)),
        (".evil.example/", Err(Fault::Path)),
        (":1/", Err(Fault::Path)),
        ("", Err(Fault::Path)),
        ("/a b", Err(Fault::Form)),
    ] {
        let below = base.below(path).map(|to| to.uri().to_string());
        assert_eq!(below, expected.map(str::to_owned), "{path}");
    }
    let root = Destination::parse_base("https://a.example").unwrap();
    let below = root.below("/x").unwrap();
    assert_eq!(below.uri().to_string(), "https://a.example/x");
}

#[test]
fn a_destination_shows_neither_path_nor_query() {
    let to = Destination::parse("https://a.example/hush?hush").unwrap();
    assert_eq!(format!("{to:?}"), "https://a.example:443");
}

/// Pieces from which hostile URLs are put together.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "api.twilio.com",
        "twilio.com",
        "evil.example",
        "127.0.0.1",
        "[127.0.0.1]",
        "[::1]",
        "[::ffff:1.2.3.4]",
        "[",
        "]",
        "@",
        ":",
        ":443",
        ":8443",
        ":0443",
        ".",
        "..",
        "/",
        "//",
        "\\",
        "?",
        "#",
        "%",
        "%2e",
        "%40",
        "0x7f.1",
        "2130706433",
        "0177.1",
        "localhost",
        "user",
        "user:pw@",
        "-",
        "_",
        "ä",
        "。",
        "\u{200b}",
        "\t",
        " ",
        "\n",
        "\0",
        "+",
        "*",
        "A",
        "1",
        ";",
        "&",
        "=",
    ];
    prop_oneof![
        8 => proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        1 => ".{0,3}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn we_and_the_http_client_agree_on_the_host(
        scheme in proptest::sample::select(vec!["https://", "http://", "HTTPS://", "https:/", ""]),
        pieces in proptest::collection::vec(piece(), 1..7),
    ) {
        let url = format!("{scheme}{}", pieces.concat());
        let Ok(to) = Destination::parse(&url) else { return Ok(()) };
        // The client's own reading.
        let uri: Uri = url.parse().unwrap();
        prop_assert_eq!(to.uri(), &uri);
        let host = uri.host().unwrap();
        prop_assert_eq!(Host::parse(host), Ok(to.host().clone()));
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        prop_assert_eq!(to.port(), uri.port_u16().unwrap_or(default_port));
        // There is nothing in the authority but host and port.
        let authority = uri.authority().unwrap().as_str();
        let port = uri.port().map(|port| format!(":{}", port.as_str())).unwrap_or_default();
        prop_assert_eq!(authority, format!("{host}{port}"));
        // An address for a resolver is one for us.
        let bare = host.trim_matches(['[', ']']);
        prop_assert_eq!(bare.parse().ok().map(Host::Address).is_some(), matches!(to.host(), Host::Address(_)));
        // The reader that signatures go by sees the same host.
        prop_assert_eq!(Url::parse(&url).unwrap().host, host);
        let api = Api::parse("https://api.twilio.com").unwrap();
        if api.trusted(&to).is_some() {
            let name = host.to_ascii_lowercase();
            prop_assert!(name == "twilio.com" || name.ends_with(".twilio.com"), "{url}");
            prop_assert!(to.port() == 443 && uri.scheme_str() == Some("https"), "{url}");
        }
    }

    #[test]
    fn a_path_never_changes_the_origin(path in ".{0,40}", pieces in proptest::collection::vec(piece(), 1..5)) {
        for path in [format!("/{path}"), pieces.concat()] {
            let base = Destination::parse_base("https://a.example/p").unwrap();
            if let Ok(below) = base.below(&path) {
                prop_assert!(below.has_origin_of(&base), "{path}");
                prop_assert!(below.uri().path().starts_with("/p/"), "{path}");
            }
        }
    }
}

#[test]
fn a_callback_has_no_parameter_of_twilios_in_its_query() {
    assert_eq!(
        check_callback("https://a.example/x?attempt=1&from=app"),
        Ok(())
    );
    for query in ["From=app", "a=1&Body", "MessageSid=&b", "MediaUrl0=x"] {
        let url = format!("https://a.example/x?{query}");
        assert_eq!(check_callback(&url), Err(Fault::Parameter), "{query}");
    }
}
