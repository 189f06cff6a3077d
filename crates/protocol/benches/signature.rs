//! What a check of a signature costs: one key, one URL, ten parameters, body decoded and all.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protocol::signature::{Algorithm, Key, Payload, verify};
use protocol::url::SignedUrl;

const URL: &str = "https://hooks.example.com/twilio/status";
const BODY: &[u8] =
    b"MessageSid=SM0123456789abcdef0123456789abcdef&SmsSid=SM0123456789abcdef0123456789abcdef\
    &MessageStatus=delivered&SmsStatus=delivered&AccountSid=AC0123456789abcdef0123456789abcdef\
    &MessagingServiceSid=MG0123456789abcdef0123456789abcdef&From=%2B12025550100&To=%2B12025550123\
    &ApiVersion=2010-04-01&RawDlrDoneDate=2611211530";

fn check(criterion: &mut Criterion) {
    let key = Key::new(Algorithm::HmacSha1, b"0123456789abcdef0123456789abcdef");
    let signature = key.sign(URL, &Payload::new("POST", None, BODY));
    let keys = [key];
    criterion.bench_function("signature of ten parameters", |bencher| {
        bencher.iter(|| {
            let payload = Payload::new("POST", None, black_box(BODY));
            let urls: Vec<_> = SignedUrl::parse(black_box(URL)).into_iter().collect();
            assert!(verify(&keys, &urls, &payload, black_box(&signature)).is_some());
        });
    });
}

criterion_group!(benches, check);
criterion_main!(benches);
