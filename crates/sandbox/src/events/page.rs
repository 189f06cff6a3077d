//! What the Events API's resources share: pages of lists, and refusals.

use protocol::form::Form;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::http_request::HttpRequest;

/// The page of `all` that the query asks for, with Twilio's `meta`; `key` is the list's name.
pub(super) fn page(request: &HttpRequest, key: &str, all: Vec<Value>) -> Result<Value, Refusal> {
    let query = request.query();
    let number = |name: &str, default: usize| -> Result<usize, Refusal> {
        let bad = |text: &str| invalid(&format!("Invalid {name}: {text}"));
        query
            .filled(name)
            .map_or(Ok(default), |text| text.parse().map_err(|_| bad(text)))
    };
    let size = number("PageSize", 50)?;
    if !(1..=1000).contains(&size) {
        return Err(invalid(&format!("Invalid PageSize: {size}")));
    }
    let page = number("Page", 0)?;
    let uri = |page: usize| {
        let own = |name: &&str| !["Page", "PageSize", "PageToken"].contains(name);
        let filters = query.iter().filter(|(name, _)| own(name));
        let mut pairs: Vec<(&str, String)> = filters
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        pairs.push(("PageSize", size.to_string()));
        pairs.push(("Page", page.to_string()));
        let (host, path) = (request.host(), request.head.uri.path());
        let query = serde_urlencoded::to_string(&pairs).unwrap_or_default();
        format!("http://{host}{path}?{query}")
    };
    let start = page.saturating_mul(size);
    let has_more = all.len() > start.saturating_add(size);
    let list: Vec<Value> = all.into_iter().skip(start).take(size).collect();
    Ok(json!({
        key: list,
        "meta": {
            "page": page,
            "page_size": size,
            "first_page_url": uri(0),
            "previous_page_url": page.checked_sub(1).map(uri),
            "url": uri(page),
            "next_page_url": has_more.then(|| uri(page + 1)),
            "key": key,
        },
    }))
}

pub(super) fn required(form: &Form<'_>, name: &str) -> Result<String, Refusal> {
    form.filled(name)
        .map(str::to_owned)
        .ok_or_else(|| missing(name))
}

pub(super) fn missing(name: &str) -> Refusal {
    invalid(&format!("Missing required parameter {name}"))
}

pub(super) fn in_use(sink_sid: &str) -> Refusal {
    invalid(&format!("Sink with SID {sink_sid} is in use"))
}

pub(super) fn invalid(text: &str) -> Refusal {
    Refusal::with(20001, text)
}
