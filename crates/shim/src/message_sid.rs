//! Finds a callback's MessageSid without parsing the form, for the log only.

/// The first `MessageSid` of the body, else of the query, if it looks like one.
pub(crate) fn find<'a>(url: &'a str, body: &'a [u8]) -> Option<&'a str> {
    let query = || Some(url.split_once('?')?.1.as_bytes());
    find_in(body).or_else(|| find_in(query()?))
}

fn find_in(form: &[u8]) -> Option<&str> {
    let value = form
        .split(|&byte| byte == b'&')
        .find_map(|pair| pair.strip_prefix(b"MessageSid="))?;
    let is_plain = (1..=MAX_LENGTH).contains(&value.len())
        && value.iter().all(|byte| byte.is_ascii_alphanumeric());
    str::from_utf8(value).ok().filter(|_| is_plain)
}

const MAX_LENGTH: usize = 34;

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "SM0123456789abcdef0123456789abcdef";

    #[test]
    fn finds_it_in_the_body_or_the_query() {
        let body = format!("From=%2B1&MessageSid={SID}&To=x");
        assert_eq!(find("/twilio/status", body.as_bytes()), Some(SID));
        assert_eq!(find(&format!("/sms?MessageSid={SID}"), b""), Some(SID));
        assert_eq!(find("/sms?MessageSid=other", body.as_bytes()), Some(SID));
    }

    #[test]
    fn takes_nothing_that_could_spoil_a_log_line() {
        for body in [
            "",
            "MessageSid=",
            "OtherMessageSid=SM1",
            "MessageSid=SM%0A",
            "MessageSid=SM 1",
            "MessageSid=0123456789012345678901234567890123x",
            "MessageSid=\u{fc}",
        ] {
            assert_eq!(find("/sms", body.as_bytes()), None, "{body}");
        }
        assert_eq!(find("/sms", b"MessageSid=\xff"), None);
    }
}
