//! Answers to inbound messages.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use protocol::destination::Fault;
use protocol::twiml::{EMPTY, Message, TwimlError, check, response};
use protocol::xml::Malformed;

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
fn no_messages_give_an_empty_response() {
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
fn twiml_of_users_is_checked() {
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
        "<html><Response/></html>",
        "<!--<Response/>-->",
    ] {
        assert_eq!(check(xml), Err(TwimlError::NotAResponse), "{xml}");
    }
    assert_eq!(
        check("<Response>\0</Response>"),
        Err(TwimlError::Illegal(0))
    );
    for (xml, malformed) in [
        ("<Response>", Malformed::Nesting),
        ("<Response", Malformed::Tag),
        ("<?xml <Response/>", Malformed::Markup),
        ("<Response/>ok", Malformed::Outside),
    ] {
        assert_eq!(check(xml), Err(TwimlError::Malformed(malformed)), "{xml}");
    }
    let large = format!("<Response>{}</Response>", " ".repeat(65_536));
    assert!(matches!(check(&large), Err(TwimlError::TooLarge(_))));
}

#[test]
fn twiml_that_twilio_cannot_parse_is_refused() {
    for inside in [
        "<Message>&amp;&lt;&gt;&quot;&apos;&#65;&#x1F600;&#xD;</Message>",
        "<Message to='+1' from=\"+2\"\n action = 'a&amp;b'><Body>ä > b</Body></Message>",
        "<!-- <x a=1 &bogus; - --><Message>x</Message>",
        "<Message><![CDATA[<x & ]] > &#0;]]></Message>",
        "<?php <x ?><Message >x</Message\n>",
        "<ä:b.c-1 _a=''/><Redirect method=\"GET\">https://a/?x=1&amp;y=2</Redirect>",
    ] {
        let xml = format!(
            "<?xml version='1.0' encoding='UTF-8' ?><!--x-->\n<Response>{inside}</Response>\n<?x?>"
        );
        assert_eq!(check(&xml), Ok(()), "{inside}");
    }
    for (inside, malformed) in [
        ("&#0;", Malformed::Reference),
        ("&#x0;", Malformed::Reference),
        ("&#8;", Malformed::Reference),
        ("&#xD800;", Malformed::Reference),
        ("&#xFFFE;", Malformed::Reference),
        ("&#1114112;", Malformed::Reference),
        ("&#99999999999999999999;", Malformed::Reference),
        ("&#;", Malformed::Reference),
        ("&#x;", Malformed::Reference),
        ("&#X41;", Malformed::Reference),
        ("&#+65;", Malformed::Reference),
        ("&bogus;", Malformed::Reference),
        ("&AMP;", Malformed::Reference),
        ("&amp", Malformed::Reference),
        ("a & b", Malformed::Reference),
        ("&&amp;", Malformed::Reference),
        ("<Message to='&bogus;'/>", Malformed::Reference),
        ("<Message to='&#0;'/>", Malformed::Reference),
        ("<Message to='1' to='2'/>", Malformed::Attribute),
        (
            "<Message to='1' from='2' to=\"1\">x</Message>",
            Malformed::Attribute,
        ),
        ("<Message to='1'from='2'/>", Malformed::Tag),
        ("<Message to/>", Malformed::Tag),
        ("<Message to=1/>", Malformed::Tag),
        ("<Message to='1/>", Malformed::Tag),
        ("<Message to='<'/>", Malformed::Tag),
        ("<Message / >", Malformed::Tag),
        ("< Message/>", Malformed::Tag),
        ("<1/>", Malformed::Tag),
        ("<>", Malformed::Tag),
        ("a < b", Malformed::Tag),
        ("<Message>", Malformed::Nesting),
        ("</Message>", Malformed::Nesting),
        ("<a><b></a></b>", Malformed::Nesting),
        ("</Response><Response>", Malformed::Outside),
        ("]]>", Malformed::Markup),
        ("<!-- -- -->", Malformed::Markup),
        ("<!-- ", Malformed::Markup),
        ("<![CDATA[", Malformed::Markup),
        ("<?xml version='1.0'?>", Malformed::Markup),
        ("<!DOCTYPE Response>", Malformed::Tag),
    ] {
        let xml = format!("<Response>{inside}</Response>");
        assert_eq!(
            check(&xml),
            Err(TwimlError::Malformed(malformed)),
            "{inside}"
        );
    }
    for (xml, malformed) in [
        ("<Response a='1' a='2'/>", Malformed::Attribute),
        (
            "<!DOCTYPE Response [<!ENTITY bogus 'x'>]><Response>&bogus;</Response>",
            Malformed::Tag,
        ),
        (" <?xml version='1.0'?><Response/>", Malformed::Markup),
        ("<?xml encoding='UTF-8'?><Response/>", Malformed::Markup),
        ("<Response/><Response/>", Malformed::Outside),
        ("<Response/><![CDATA[x]]>", Malformed::Markup),
    ] {
        assert_eq!(check(xml), Err(TwimlError::Malformed(malformed)), "{xml}");
    }
    // The size is bounded, and so is the time.
    let many: String = (0..6000).map(|n| format!(" a{n}='x'")).collect();
    assert_eq!(check(&format!("<Response{many}/>")), Ok(()));
    assert_eq!(
        check(&format!("<Response>{}", "<a>".repeat(20_000))),
        Err(TwimlError::Malformed(Malformed::Nesting))
    );
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
