//! The named values of a request, given as a form or as a JSON object. Each is taken once. A value that is not
//! taken is an error, so that a misspelt name does not send a message without that value.

use serde_json::{Map, Value};

use crate::tool::problem::Problem;

/// The values that are not taken yet.
#[derive(Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    is_form: bool,
}

impl Fields {
    pub(crate) fn parse_json(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(values)) => Ok(Self {
                values,
                is_form: false,
            }),
            Ok(_) => Err(Problem::unreadable("the body is not a JSON object", HINT)),
            Err(error) => {
                let detail = format!("the body is not JSON: {error}");
                Err(Problem::unreadable(detail, HINT))
            }
        }
    }

    pub(crate) fn parse_form(body: &[u8]) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(body).map_err(|error| {
            Problem::unreadable(format!("the body is not a form: {error}"), HINT)
        })?;
        let mut values = Map::new();
        for (name, value) in pairs {
            match values.get_mut(&name) {
                None => drop(values.insert(name, Value::String(value))),
                Some(Value::Array(all)) => all.push(value.into()),
                Some(first) => *first = Value::Array(vec![first.take(), value.into()]),
            }
        }
        Ok(Self {
            values,
            is_form: true,
        })
    }

    /// A text by any of its names. An empty text counts as none, because forms send every field.
    pub(crate) fn text(&mut self, names: &[&str]) -> Result<Option<String>, Problem> {
        match self.take(names)? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err(must_be(names, "text")),
        }
    }

    /// An address. In a form, an unescaped plus has become a space and is restored.
    pub(crate) fn address(&mut self, names: &[&str]) -> Result<Option<String>, Problem> {
        let text = self.text(names)?;
        Ok(text.map(|text| match text.strip_prefix(' ') {
            Some(rest) if self.is_form && rest.starts_with(|c: char| c.is_ascii_digit()) => {
                format!("+{rest}")
            }
            _ => text,
        }))
    }

    /// A list of texts; a single text counts as a list.
    pub(crate) fn texts(&mut self, names: &[&str]) -> Result<Option<Vec<String>>, Problem> {
        let values = match self.take(names)? {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(values)) => values,
            Some(value) => vec![value],
        };
        let texts = values.into_iter().filter_map(|value| match value {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(Ok(text)),
            _ => Some(Err(must_be(names, "a list of texts"))),
        });
        let texts: Vec<_> = texts.collect::<Result<_, _>>()?;
        Ok(Some(texts).filter(|texts| !texts.is_empty()))
    }

    /// Any JSON value, as text for the database; in a form the field holds that text.
    pub(crate) fn json(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(&[name])? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if self.is_form => {
                Ok(Some(text).filter(|text| !text.is_empty()))
            }
            Some(value) => Ok(Some(value.to_string())),
        }
    }

    /// A whole number, or its digits as text.
    pub(crate) fn id(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        let id = match self.take(&[name])? {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match id {
            Some(id) => Ok(Some(id)),
            None => Err(must_be(&[name], "a whole number")),
        }
    }

    /// True or false, or one of the words for them as text.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(&[name])? {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(is)) => Ok(is),
            Some(Value::String(text)) => match text.as_str() {
                "true" | "on" | "1" => Ok(true),
                "" | "false" | "off" | "0" => Ok(false),
                _ => Err(must_be(&[name], "true or false")),
            },
            Some(_) => Err(must_be(&[name], "true or false")),
        }
    }

    /// Fails if a value was not taken.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::unreadable(
                format!("there is no field \"{name:.40}\""),
                HINT,
            )),
        }
    }

    fn take(&mut self, names: &[&str]) -> Result<Option<Value>, Problem> {
        let mut found = names.iter().filter_map(|name| self.values.remove(*name));
        let first = found.next();
        match found.next() {
            None => Ok(first),
            Some(_) => Err(Problem::unreadable(
                format!("\"{}\" are two names of one field", names.join("\" and \"")),
                HINT,
            )),
        }
    }
}

/// Fails if a required field is missing.
pub(crate) fn required<T>(value: Option<T>, name: &str) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::unreadable(format!("field \"{name}\" is missing"), HINT))
}

fn must_be(names: &[&str], what: &str) -> Problem {
    let name = names.first().copied().unwrap_or_default();
    Problem::unreadable(format!("field \"{name}\" must be {what}"), HINT)
}

const HINT: &str = "See the table of fields in docs/shim.md.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let form = "recipient_number=%2B12025550123&body=a+%26+b&media_urls=u&media_urls=v&\
                    metadata=%7B%22a%22%3A1%7D&message_id=7&flag=true&empty=";
        let json = r#"{"recipient_number": "+12025550123", "body": "a & b",
            "media_urls": ["u", "v"], "metadata": {"a":1}, "message_id": 7, "flag": true,
            "empty": null}"#;
        let all = [
            Fields::parse_form(form.as_bytes()).unwrap(),
            Fields::parse_json(json.as_bytes()).unwrap(),
        ];
        for mut fields in all {
            let names = ["recipient_number", "to_address"];
            let to = fields.address(&names).unwrap();
            assert_eq!(to.as_deref(), Some("+12025550123"));
            assert_eq!(fields.text(&["body"]).unwrap().as_deref(), Some("a & b"));
            let urls = fields.texts(&["media_urls"]).unwrap();
            assert_eq!(urls, Some(vec!["u".to_owned(), "v".to_owned()]));
            let metadata = fields.json("metadata").unwrap();
            assert_eq!(metadata.as_deref(), Some("{\"a\":1}"));
            assert_eq!(fields.id("message_id").unwrap(), Some(7));
            assert!(fields.flag("flag").unwrap());
            assert_eq!(fields.text(&["empty"]).unwrap(), None);
            fields.finish().unwrap();
        }
    }

    #[test]
    fn a_plus_that_a_form_has_lost_is_put_back() {
        let address = |mut fields: Fields| fields.address(&["number"]).unwrap().unwrap();
        let form = |text: &str| address(Fields::parse_form(text.as_bytes()).unwrap());
        assert_eq!(form("number=+12025550123"), "+12025550123");
        assert_eq!(form("number=+whatsapp:x"), " whatsapp:x");
        let json = Fields::parse_json(br#"{"number": " 12025550123"}"#).unwrap();
        assert_eq!(address(json), " 12025550123");
    }

    #[test]
    fn malformed_fields_are_refused() {
        for body in ["", "[]", "1", "{", "\"x\""] {
            assert!(Fields::parse_json(body.as_bytes()).is_err(), "{body}");
        }
        let json = r#"{"a": 1, "b": "x", "c": "y", "d": [1], "e": "1.5", "f": "maybe"}"#;
        let fields = || Fields::parse_json(json.as_bytes()).unwrap();
        assert!(fields().text(&["a"]).is_err());
        assert!(fields().text(&["b", "c"]).is_err());
        assert!(fields().texts(&["d"]).is_err());
        assert!(fields().id("e").is_err());
        assert!(fields().flag("f").is_err());
        let detail = fields().finish().unwrap_err().detail;
        assert!(detail.contains("\"a\""), "{detail}");
    }
}
