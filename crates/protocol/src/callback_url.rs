//! URLs of status callbacks: adding the attempt that a callback is about, and reading it.

use crate::form::Form;
use crate::spelling::name_of;
use crate::url::query;

/// Adds a parameter to the query of a URL, before its fragment, and sorts the parameters by name. It adds the attempt
/// that a status callback is about. Twilio signs the query, but not the fragment.
///
/// Twilio has been observed to sign a query in the given order but to request it sorted, so that its signature does not
/// match. A sorted query does not change. Names are compared decoded and bytewise; parameters of one name keep their
/// order, behind an added one of that name. <https://github.com/twilio/twilio-php/issues/790>
///
/// ```
/// use protocol::callback_url::with_parameter;
///
/// let url = with_parameter("https://a.example/status?b=1#rc=5", "attempt", "x");
/// assert_eq!(url, "https://a.example/status?attempt=x&b=1#rc=5");
/// ```
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let (base, fragment) = match url.split_once('#') {
        Some((base, fragment)) => (base, Some(fragment)),
        None => (url, None),
    };
    let (path, query) = base.split_once('?').unwrap_or((base, ""));
    let pair = serde_urlencoded::to_string([(name, value)]).unwrap_or_default();
    let mut pieces = vec![pair.as_str()];
    pieces.extend(query.split('&').filter(|piece| !piece.is_empty()));
    pieces.sort_by_cached_key(|piece| name_of(piece));
    let query = pieces.join("&");
    let fragment = fragment.map(|text| format!("#{text}")).unwrap_or_default();
    format!("{path}?{query}{fragment}")
}

/// The attempt that a status callback is about, from the query of its URL: a UUID in its usual form, or none.
pub fn attempt(url: &str) -> Option<String> {
    let query = query(url);
    // A cheap check first: callbacks of messages that other programs sent have no attempt.
    if !query.contains(ATTEMPT) {
        return None;
    }
    let form = Form::parse(query.as_bytes());
    form.filled(ATTEMPT)
        .filter(|text| is_uuid(text))
        .map(str::to_owned)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(n, b)| match n {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// The parameter of a status callback's URL that names the attempt.
pub const ATTEMPT: &str = "attempt";
