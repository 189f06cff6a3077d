//! The form at `GET /send`. It shows nothing of the request and has no effect by itself.

use std::hash::{BuildHasher, Hasher, RandomState};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
};

/// The page. Each has an idempotency key of its own, so that a form submitted twice sends one message.
pub(crate) fn send() -> Response<Full<Bytes>> {
    let random = || RandomState::new().build_hasher().finish();
    let key = format!("form:{:016x}{:016x}", random(), random());
    let mut response = Response::new(Full::new(PAGE.replace("{key}", &key).into()));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

// The action is relative because a proxy may put the tools below any path. The token is typed in because a form
// cannot set a header; a site that lures a browser here does not know it.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Send a message</title>
</head>
<body>
<h1>Send a message</h1>
<form method="post" action="send" accept-charset="utf-8" autocomplete="off">
<input type="hidden" name="idempotency_key" value="{key}">
<p><label>To<br><input name="recipient_number" required placeholder="+12025550123"></label></p>
<p><label>From, if not the default<br><input name="from_address"></label></p>
<p><label>Text<br><textarea name="body" required rows="5" cols="60" maxlength="1600"></textarea></label></p>
<p><label>Token<br><input name="access_token" type="password" required></label></p>
<p><button>Send</button></p>
</form>
</body>
</html>
"#;
