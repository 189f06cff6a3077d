//! Answers to inbound messages.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::destination::Fault;
use protocol::twiml::{EMPTY, Message, TwimlError, check, response};

fn text(body: &str) -> Message<'_> {
    Message {
        body: Some(body),
        ..Message::default()
    }
}

/// What stands inside the only element of that name, with escapes undone.
fn inner(xml: &str, name: &str) -> String {
    let start = xml.split_once(&format!("<{name}>")).unwrap().1;
    let inside = start.split_once(&format!("</{name}>")).unwrap().0;
    inside
        .replace("&#xD;", "\r")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[test]
fn nothing_to_say_is_an_empty_response() {
    assert_eq!(response(&[]).unwrap(), EMPTY);
    assert_eq!(
        EMPTY,
        r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#
    );
}

#[test]
fn messages_are_written_in_order() {
    let media = ["https://a.example/1.png?a=1&b=2"];
    let full = Message {
        body: Some("Tom & <Jerry> \"]]>\"\r\n"),
        media_urls: &media,
        to: Some("+12025550123"),
        from: Some("My \"Shop\""),
        status_callback: Some("https://hooks.example.com/?a=1&b=2"),
    };
    assert_eq!(
        response(&[text("first"), full]).unwrap(),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>\
         <Message><Body>first</Body></Message>\
         <Message to=\"+12025550123\" from=\"My &quot;Shop&quot;\" \
         action=\"https://hooks.example.com/?a=1&amp;b=2\" \
         statusCallback=\"https://hooks.example.com/?a=1&amp;b=2\">\
         <Body>Tom &amp; &lt;Jerry&gt; \"]]&gt;\"&#xD;\n</Body>\
         <Media>https://a.example/1.png?a=1&amp;b=2</Media></Message></Response>"
    );
    // An action before the end would make what follows unreachable.
    let early = response(&[full, text("last")]).unwrap();
    assert!(!early.contains("action="), "{early}");
}

#[test]
fn illegal_characters_are_left_out() {
    let xml = response(&[text("a\0b\u{b}c\u{1f}d\u{fffe}e\u{ffff}f\tg\u{85}😀é")]).unwrap();
    assert_eq!(inner(&xml, "Body"), "abcdef\tg\u{85}😀é");
    assert_eq!(response(&[text("\0\u{1}")]), Err(TwimlError::Empty));
}

#[test]
fn content_is_checked() {
    assert_eq!(response(&[Message::default()]), Err(TwimlError::Empty));
    assert_eq!(response(&[text("")]), Err(TwimlError::Empty));
    let long = "é".repeat(1601);
    assert_eq!(response(&[text(&long)]), Err(TwimlError::TooLong(1601)));
    assert!(response(&[text(&long[2..])]).is_ok());
    let media = |media_urls| {
        response(&[Message {
            media_urls,
            ..Message::default()
        }])
    };
    assert!(media(&["https://a.example/"; 10]).is_ok());
    assert_eq!(
        media(&["https://a.example/"; 11]),
        Err(TwimlError::TooManyMedia(11))
    );
    for url in [
        "",
        "a.example",
        "javascript:x",
        "https://a b/",
        "https://a\u{0}/",
    ] {
        let urls = [url];
        let message = Message {
            media_urls: &urls,
            ..Message::default()
        };
        let expected = Err(TwimlError::Url(Fault::Form));
        assert_eq!(response(&[message]), expected, "{url}");
        let message = Message {
            status_callback: Some(url),
            ..text("x")
        };
        let expected = Err(TwimlError::Url(Fault::Form));
        assert_eq!(response(&[message]), expected, "{url}");
    }
}

#[test]
fn the_whole_is_bounded() {
    let body = "<".repeat(1600);
    let messages: Vec<_> = (0..20).map(|_| text(&body)).collect();
    assert!(matches!(response(&messages), Err(TwimlError::TooLarge(_))));
    assert!(response(&messages[..9]).is_ok());
}

#[test]
fn what_others_wrote_is_checked() {
    for xml in [
        EMPTY,
        "<Response/>",
        "<Response></Response>",
        " <Response><Message>hi</Message></Response>\n",
        "<?xml version=\"1.0\"?>\n<Response>\n<Redirect>https://a/</Redirect>\n</Response>",
        "<Response a=\"b\" />",
    ] {
        assert_eq!(check(xml), Ok(()), "{xml}");
    }
    for xml in [
        "",
        "ok",
        "{}",
        "<response/>",
        "<Responses/>",
        "<Response>",
        "<Response",
        "<?xml <Response/>",
        "<html><Response/></html>",
        "<Response/>ok",
    ] {
        assert_eq!(check(xml), Err(TwimlError::NotAResponse), "{xml}");
    }
    assert_eq!(
        check("<Response>\0</Response>"),
        Err(TwimlError::Illegal(0))
    );
    let large = format!("<Response>{}</Response>", " ".repeat(65_536));
    assert!(matches!(check(&large), Err(TwimlError::TooLarge(_))));
}

proptest! {
    #[test]
    fn texts_come_back(body in "[^\0-\x08\x0b\x0c\x0e-\x1f\u{fffe}\u{ffff}]{1,300}") {
        let xml = response(&[text(&body)]).unwrap();
        prop_assert_eq!(inner(&xml, "Body"), body);
        prop_assert_eq!(check(&xml), Ok(()));
    }

    #[test]
    fn whatever_is_written_is_twiml(
        body in ".{0,100}", to in ".{0,30}", url in ".{0,30}", media in proptest::bool::ANY,
    ) {
        let urls = [url.as_str()];
        let message = Message {
            body: Some(&body),
            media_urls: if media { &urls } else { &[] },
            to: Some(&to),
            ..Message::default()
        };
        if let Ok(xml) = response(&[message, message]) {
            prop_assert_eq!(check(&xml), Ok(()));
            // Nothing but our own tags: a stranger's text cannot make one.
            prop_assert_eq!(xml.matches("<Message").count(), 2);
        }
    }

    #[test]
    fn anything_can_be_checked(xml in ".*") {
        let _ = check(&xml);
    }
}
