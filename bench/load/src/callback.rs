//! The callbacks: for each message sent, then delivered, as Twilio words them, some of them twice.

use protocol::signature::{Algorithm, Key, Payload};
use protocol::url::Url;

use crate::Options;

/// How many callbacks lie between a message's sent and its delivered, as on a busy account.
const DISTANCE: usize = 500;

/// All requests of the run, ready to be written to a socket.
pub(crate) fn requests(options: &Options) -> Vec<Vec<u8>> {
    let key = Key::new(Algorithm::HmacSha1, options.auth_token.as_bytes());
    let target = Url::parse(&options.url).map_or("/", |url| url.rest);
    let repeat_every = 100usize
        .checked_div(options.duplicates)
        .unwrap_or(usize::MAX);
    let mut requests: Vec<Vec<u8>> = Vec::with_capacity(options.count);
    let (mut sent, mut delivered) = (0, 0);
    while requests.len() < options.count {
        let index = requests.len();
        if index > DISTANCE && index.is_multiple_of(repeat_every) {
            requests.push(requests[index - DISTANCE].clone());
            continue;
        }
        let (message, status) =
            if sent < delivered + DISTANCE && index.is_multiple_of(2) || sent < DISTANCE {
                sent += 1;
                (sent, "sent")
            } else {
                delivered += 1;
                (delivered, "delivered")
            };
        let body = body(options, options.first + message as u64, status);
        let signature = key.sign(&options.url, &Payload::new("POST", None, body.as_bytes()));
        requests.push(
            format!(
                "POST {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n\
                 Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n\
                 X-Twilio-Signature: {signature}\r\n\
                 I-Twilio-Idempotency-Token: 00000000-0000-4000-8000-{index:012x}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                options.connect,
                body.len()
            )
            .into_bytes(),
        );
    }
    requests
}

fn body(options: &Options, message: u64, status: &str) -> String {
    // Twilio's SIDs are random, and so are recipients: random keys are what an index has to bear.
    let sid = format!("SM{:032x}", scatter(message));
    let done = if status == "delivered" {
        "&RawDlrDoneDate=2611211530"
    } else {
        ""
    };
    format!(
        "MessageSid={sid}&SmsSid={sid}&MessageStatus={status}&SmsStatus={status}&AccountSid={}\
         &MessagingServiceSid=MG0123456789abcdef0123456789abcdef&From=%2B12025550100\
         &To=%2B1202{:07}&ApiVersion=2010-04-01{done}",
        options.account_sid,
        scatter(message) % 10_000_000
    )
}

/// A number of 128 bits that looks random and is different for each `message`.
fn scatter(message: u64) -> u128 {
    let mix = |value: u64| {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    (u128::from(mix(message.wrapping_add(0x9e37_79b9_7f4a_7c15))) << 64) | u128::from(mix(message))
}
