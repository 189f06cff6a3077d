//! Inbound messages in every shape that Twilio is known to send them in, and what is to be read of each.

use serde_json::{Map, Value, json};

use crate::server::database::ACCOUNT_SID;

/// One shape.
pub struct Shape {
    /// Its kind.
    pub name: &'static str,
    /// Its parameters beside those that every message has.
    pub params: Value,
    /// The columns of `twilio.inbound_message` that are not null, beside those that every message has.
    pub columns: Value,
}

impl Shape {
    /// All parameters of the message with this SID.
    pub fn params_of(&self, sid: &str) -> Map<String, Value> {
        let mut all = json!({
            "MessageSid": sid, "SmsSid": sid, "SmsMessageSid": sid, "AccountSid": ACCOUNT_SID,
            "SmsStatus": "received", "ApiVersion": "2010-04-01", "NumSegments": "1", "NumMedia": "0",
        });
        merge(&mut all, &self.params)
    }

    /// All columns that are to be there.
    pub fn columns_of(&self, sid: &str) -> Map<String, Value> {
        let mut all = json!({
            "message_sid": sid, "account_sid": ACCOUNT_SID, "api_version": "2010-04-01",
            "num_segments": 1, "num_media": 0, "is_blocked": false,
        });
        merge(&mut all, &self.columns)
    }
}

/// All shapes.
pub fn all() -> Vec<Shape> {
    [sms(), media(), whatsapp(), answers(), others(), odd()]
        .into_iter()
        .flatten()
        .collect()
}

fn sms() -> Vec<Shape> {
    vec![
        Shape {
            name: "a text, its places partly empty",
            params: json!({
                "From": "+12025550123", "To": "+12025550100", "Body": "Hello & 50% off + more = ?",
                "FromCity": "", "FromState": "DC", "FromZip": "20001", "FromCountry": "US",
                "ToCity": "WASHINGTON", "ToState": "DC", "ToZip": "", "ToCountry": "US",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550123", "to_address": "+12025550100",
                "body": "Hello & 50% off + more = ?", "from_state": "DC", "from_zip": "20001",
                "from_country": "US", "to_city": "WASHINGTON", "to_state": "DC", "to_country": "US",
            }),
        },
        Shape {
            name: "emoji and line breaks, through a messaging service",
            params: json!({
                "From": "+12025550124", "To": "+12025550100", "Body": "👩‍👩‍👧\r\nñ 中文 𝄞\n",
                "MessagingServiceSid": "MG00000000000000000000000000000001",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550124", "to_address": "+12025550100",
                "body": "👩‍👩‍👧\r\nñ 中文 𝄞\n",
                "messaging_service_sid": "MG00000000000000000000000000000001",
            }),
        },
        Shape {
            name: "an empty text, to a short code",
            params: json!({"From": "+12025550125", "To": "72345", "Body": ""}),
            columns: json!({
                "channel": "sms", "from_address": "+12025550125", "to_address": "72345", "body": "",
            }),
        },
        Shape {
            name: "an add-on's results",
            params: json!({
                "From": "+12025550126", "To": "+12025550100", "Body": "hi",
                "AddOns": "{\"status\":\"successful\",\"results\":{\"x\":{\"code\":null}}}",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550126", "to_address": "+12025550100", "body": "hi",
                "add_ons": "{\"status\":\"successful\",\"results\":{\"x\":{\"code\":null}}}",
            }),
        },
    ]
}

fn media() -> Vec<Shape> {
    let url = |n: usize| {
        format!("https://api.twilio.com/2010-04-01/Accounts/AC0/Messages/MM0/Media/ME{n}")
    };
    let mut ten =
        json!({"From": "+12025550127", "To": "+12025550100", "Body": "ten", "NumMedia": "10"});
    for n in 0..10 {
        ten[format!("MediaUrl{n}")] = url(n).into();
        ten[format!("MediaContentType{n}")] = "image/png".into();
    }
    vec![
        Shape {
            name: "MMS with two files and no text",
            params: json!({
                "From": "+12025550127", "To": "+12025550100", "Body": "", "NumMedia": "2",
                "MediaUrl0": url(0), "MediaContentType0": "image/jpeg",
                "MediaUrl1": url(1), "MediaContentType1": "text/x-vcard",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550127", "to_address": "+12025550100", "body": "",
                "num_media": 2, "media_urls": [url(0), url(1)],
                "media_content_types": ["image/jpeg", "text/x-vcard"],
            }),
        },
        Shape {
            name: "MMS with as many files as there can be",
            params: ten,
            columns: json!({
                "channel": "sms", "from_address": "+12025550127", "to_address": "+12025550100",
                "body": "ten", "num_media": 10, "media_urls": (0..10).map(url).collect::<Vec<_>>(),
                "media_content_types": vec!["image/png"; 10],
            }),
        },
        Shape {
            name: "a WhatsApp document, whose text is the file's name",
            params: whatsapp_params(json!({
                "Body": "menu.pdf", "NumMedia": "1", "MessageType": "document",
                "MediaUrl0": url(3), "MediaContentType0": "application/pdf",
            })),
            columns: whatsapp_columns(json!({
                "body": "menu.pdf", "num_media": 1, "message_type": "document",
                "media_urls": [url(3)], "media_content_types": ["application/pdf"],
            })),
        },
        Shape {
            name: "a voice message, without a text of any kind",
            params: whatsapp_params(json!({
                "NumMedia": "1", "MessageType": "audio",
                "MediaUrl0": url(4), "MediaContentType0": "audio/ogg",
            })),
            columns: whatsapp_columns(json!({
                "num_media": 1, "message_type": "audio",
                "media_urls": [url(4)], "media_content_types": ["audio/ogg"],
            })),
        },
    ]
}

fn whatsapp() -> Vec<Shape> {
    let long = "ä".repeat(1_075);
    let context = r#"{"type":"whatsapp","data":{"context":{"ProfileName":"René 👋"}}}"#;
    vec![
        Shape {
            name: "a long WhatsApp text is one segment",
            params: whatsapp_params(json!({
                "Body": &long, "MessageType": "text", "ChannelMetadata": context,
            })),
            columns: whatsapp_columns(json!({
                "body": &long, "message_type": "text", "channel_metadata": context,
            })),
        },
        Shape {
            name: "a place",
            params: whatsapp_params(json!({
                "Body": "", "MessageType": "location", "Latitude": "38.8976633", "Longitude": "-77.0365739",
                "Address": "1600 Pennsylvania Ave NW", "Label": "The White House",
            })),
            columns: whatsapp_columns(json!({
                "body": "", "message_type": "location", "latitude": 38.897_663_3, "longitude": -77.036_573_9,
                "location_address": "1600 Pennsylvania Ave NW", "location_label": "The White House",
            })),
        },
        Shape {
            name: "an advertisement",
            params: whatsapp_params(json!({
                "Body": "Hi", "ReferralBody": "Book now", "ReferralHeadline": "Tables & chairs",
                "ReferralSourceId": "120", "ReferralSourceType": "ad",
                "ReferralSourceUrl": "https://fb.me/a?b=c&d", "ReferralMediaId": "ME8",
                "ReferralMediaContentType": "image/jpeg", "ReferralMediaUrl": "https://a.example/b",
                "ReferralNumMedia": "1", "ReferralCtwaClid": "ARAk",
            })),
            columns: whatsapp_columns(json!({
                "body": "Hi", "referral_body": "Book now", "referral_headline": "Tables & chairs",
                "referral_source_id": "120", "referral_source_type": "ad",
                "referral_source_url": "https://fb.me/a?b=c&d", "referral_media_id": "ME8",
                "referral_media_content_type": "image/jpeg", "referral_media_url": "https://a.example/b",
                "referral_num_media": 1, "referral_ctwa_clid": "ARAk",
            })),
        },
        Shape {
            name: "a forwarded message",
            params: whatsapp_params(json!({
                "Body": "pass it on", "Forwarded": "true", "FrequentlyForwarded": "false",
            })),
            columns: whatsapp_columns(json!({
                "body": "pass it on", "is_forwarded": true, "is_frequently_forwarded": false,
            })),
        },
        Shape {
            name: "a user who hides his number",
            params: json!({
                "From": "whatsapp:US.13491208655302741918", "To": "whatsapp:+12025550100", "Body": "hi",
                "ExternalUserId": "US.13491208655302741918", "ProfileName": "",
            }),
            columns: json!({
                "channel": "whatsapp", "from_address": "whatsapp:US.13491208655302741918",
                "to_address": "whatsapp:+12025550100", "body": "hi",
                "external_user_id": "US.13491208655302741918",
            }),
        },
    ]
}

fn answers() -> Vec<Shape> {
    vec![
        Shape {
            name: "a button of a message of ours",
            params: whatsapp_params(json!({
                "Body": "Yes, please", "MessageType": "button", "ButtonText": "Yes, please",
                "ButtonPayload": "yes_1", "ButtonType": "REPLY",
                "OriginalRepliedMessageSid": "SM0000000000000000000000000000000f",
                "OriginalRepliedMessageSender": "whatsapp:+12025550100",
            })),
            columns: whatsapp_columns(json!({
                "body": "Yes, please", "message_type": "button", "button_text": "Yes, please",
                "button_payload": "yes_1", "button_type": "REPLY",
                "original_replied_message_sid": "SM0000000000000000000000000000000f",
                "original_replied_message_sender": "whatsapp:+12025550100",
            })),
        },
        Shape {
            name: "a flow and what is interactive",
            params: whatsapp_params(json!({
                "Body": "", "MessageType": "interactive",
                "InteractiveData": "{\"type\":\"list_reply\"}", "FlowData": "{\"a\":\"\\u0000\"}",
            })),
            columns: whatsapp_columns(json!({
                "body": "", "message_type": "interactive",
                "interactive_data": "{\"type\":\"list_reply\"}", "flow_data": "{\"a\":\"\\u0000\"}",
            })),
        },
        Shape {
            name: "a suggestion of an RCS message",
            params: json!({
                "From": "rcs:+12025550123", "To": "rcs:brand_agent", "Body": "Call us",
                "ButtonText": "Call us", "ButtonPayload": "call", "ButtonType": "ACTION",
                "ChannelMetadata": "{\"type\":\"rcs\"}",
                "MessagingServiceSid": "MG00000000000000000000000000000001",
            }),
            columns: json!({
                "channel": "rcs", "from_address": "rcs:+12025550123", "to_address": "rcs:brand_agent",
                "body": "Call us", "button_text": "Call us", "button_payload": "call",
                "button_type": "ACTION", "channel_metadata": "{\"type\":\"rcs\"}",
                "messaging_service_sid": "MG00000000000000000000000000000001",
            }),
        },
    ]
}

fn others() -> Vec<Shape> {
    let opt_out = |word: &'static str, kind: &'static str, action: &'static str| Shape {
        name: kind,
        params: json!({
            "From": "+12025550128", "To": "+12025550100", "Body": word, "OptOutType": kind,
            "MessagingServiceSid": "MG00000000000000000000000000000001",
        }),
        columns: json!({
            "channel": "sms", "from_address": "+12025550128", "to_address": "+12025550100", "body": word,
            "opt_out_type": kind, "keyword": action,
            "messaging_service_sid": "MG00000000000000000000000000000001",
        }),
    };
    vec![
        opt_out("arrêt", "STOP", "stop"),
        opt_out("Info", "HELP", "help"),
        opt_out("encore", "START", "start"),
        Shape {
            name: "Messenger",
            params: json!({"From": "messenger:4242", "To": "messenger:77", "Body": "hi"}),
            columns: json!({
                "channel": "messenger", "from_address": "messenger:4242", "to_address": "messenger:77",
                "body": "hi",
            }),
        },
    ]
}

fn odd() -> Vec<Shape> {
    vec![
        Shape {
            name: "parameters that nobody knows, one of them repeated",
            params: json!({
                "From": "+12025550129", "To": "+12025550100", "Body": "b", "New.Name": "x", "naïve 😀": "",
                "Repeated": ["1", "2", "3"], "body": "another",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550129", "to_address": "+12025550100", "body": "b",
            }),
        },
        Shape {
            name: "numbers that are none, and a character that a database cannot hold",
            params: json!({
                "From": "+12025550129", "To": "+12025550100", "Body": "a\u{0}b", "NumMedia": "many",
                "NumSegments": "", "Latitude": "1.2.3", "Longitude": "east",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550129", "to_address": "+12025550100",
                "body": "a\u{fffd}b", "num_media": null, "num_segments": null,
            }),
        },
        Shape {
            name: "first heard of by the fallback URL",
            params: json!({
                "From": "+12025550129", "To": "+12025550100", "Body": "hello", "ErrorCode": "11200",
                "ErrorUrl": "https://hooks.example.com/old?a=b",
            }),
            columns: json!({
                "channel": "sms", "from_address": "+12025550129", "to_address": "+12025550100",
                "body": "hello", "handler_error_code": 11200,
                "handler_error_url": "https://hooks.example.com/old?a=b",
            }),
        },
    ]
}

fn whatsapp_params(mut more: Value) -> Value {
    let mut all = json!({
        "From": "whatsapp:+12025550123", "To": "whatsapp:+12025550100", "ProfileName": "René 👋",
        "WaId": "12025550123",
    });
    merge(&mut all, &more.take()).into()
}

fn whatsapp_columns(mut more: Value) -> Value {
    let mut all = json!({
        "channel": "whatsapp", "from_address": "whatsapp:+12025550123",
        "to_address": "whatsapp:+12025550100", "profile_name": "René 👋", "wa_id": "12025550123",
    });
    merge(&mut all, &more.take()).into()
}

/// Adds members, or removes those that are null.
fn merge(all: &mut Value, more: &Value) -> Map<String, Value> {
    let mut all = all.as_object_mut().map(std::mem::take).unwrap_or_default();
    for (name, value) in more.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(all.remove(name)),
            value => drop(all.insert(name.clone(), value.clone())),
        }
    }
    all
}
