//! Parameters that can be divided otherwise under the same signature.

use crate::callback::Malformed;
use crate::form::Form;

/// Refuses a status callback whose parameters can be divided otherwise under the same signature.
///
/// Names and values are signed without separators, so `ErrorCode=30003` respelled as `ErrorCode3=0003`,
/// or a value that swallows the parameters behind it, keeps the signature. A status callback has no text
/// of a user's in which a parameter's name could stand by chance, except in the wording of an error.
pub(crate) fn refuse(form: &Form<'_>) -> Result<(), Malformed> {
    if form.first(CODE).is_none() && hides_a_code(form) {
        return Err(Malformed::Moved(CODE));
    }
    for name in ["From", "To", "MessageStatus", "SmsStatus"] {
        let value = form.first(name).unwrap_or_default();
        // Names begin with a capital, which hardly any of these values has.
        if value.bytes().any(|b| b.is_ascii_uppercase())
            && let Some(swallowed) = SWALLOWED.iter().find(|other| value.contains(**other))
        {
            return Err(Malformed::Moved(swallowed));
        }
    }
    Ok(())
}

/// Whether what is signed could be divided so that it holds an error code.
fn hides_a_code(form: &Form<'_>) -> bool {
    // The name's own E stands nowhere else in it, so it has to be in one of the texts.
    let has_start = |text: &str| text.as_bytes().contains(&CODE.as_bytes()[0]);
    if !form.iter().any(|(n, v)| has_start(n) || has_start(v)) {
        return false;
    }
    let pairs = form.sorted().into_iter();
    let signed: String = pairs.flat_map(|(n, v)| [n, v]).collect();
    (signed.match_indices(CODE))
        .any(|(at, _)| signed[at + CODE.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

const CODE: &str = "ErrorCode";
/// Names of the parameters that can stand behind those that are looked at.
const SWALLOWED: [&str; 11] = [
    "ApiVersion",
    "ChannelPrefix",
    "ChannelToAddress",
    "EventType",
    "ExternalUserId",
    "MessageSid",
    "MessageStatus",
    "MessagingServiceSid",
    "RawDlrDoneDate",
    "SmsSid",
    "SmsStatus",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_swallowed_begins_with_a_capital() {
        assert!(
            SWALLOWED
                .iter()
                .all(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
        );
    }

    proptest! {
        #[test]
        fn a_code_is_found_wherever_parameters_are_divided(body in "(Error|Code|rrorCode|E|[0-9]|a|=|&){0,12}") {
            let form = Form::parse(body.as_bytes());
            let signed: String = form.sorted().into_iter().flat_map(|(n, v)| [n, v]).collect();
            let is_there = (0..10).any(|digit| signed.contains(&format!("{CODE}{digit}")));
            prop_assert_eq!(hides_a_code(&form), is_there);
        }
    }
}
