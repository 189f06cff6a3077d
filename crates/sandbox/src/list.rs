//! `GET …/Messages.json`: the list of messages, filtered and in pages, newest first.
//!
//! <https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources>

use protocol::form::Form;
use serde_json::{Value, json};

use crate::clock;
use crate::error::Refusal;
use crate::message::Message;
use crate::store::Store;

/// One page's request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    to: Option<String>,
    from: Option<String>,
    sent_on: Option<i64>,
    sent_until: Option<i64>,
    sent_since: Option<i64>,
    size: usize,
    page: u64,
    token: Option<Token>,
}

/// Where a page begins: after the message with this SID, or before it.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    After(String),
    Before(String),
}

impl Query {
    pub(crate) fn parse(query: &Form<'_>) -> Result<Self, Refusal> {
        // Twilio compares days in UTC, also where a time is given.
        let day = |name: &str| -> Result<Option<i64>, Refusal> {
            let text = query.filled(name).map(|text| text.trim_start_matches('='));
            text.map(|text| {
                clock::parse(text)
                    .map(clock::Moment::day)
                    .ok_or_else(|| invalid(name, text))
            })
            .transpose()
        };
        let number = |name: &str, default: u64| -> Result<u64, Refusal> {
            query.filled(name).map_or(Ok(default), |text| {
                text.parse().map_err(|_| invalid(name, text))
            })
        };
        let token = query
            .filled("PageToken")
            .map(|text| Token::parse(text).ok_or(Refusal::new(21481)));
        let size = number("PageSize", 50)?;
        if size == 0 {
            return Err(invalid("PageSize", "0"));
        }
        Ok(Self {
            to: query.filled("To").map(str::to_owned),
            from: query.filled("From").map(str::to_owned),
            sent_on: day("DateSent")?,
            sent_until: day("DateSent<")?,
            sent_since: day("DateSent>")?,
            size: size.min(1000) as usize,
            page: number("Page", 0)?,
            token: token.transpose()?,
        })
    }

    /// The page as JSON; `path` is the resource's.
    pub(crate) fn page(
        &self,
        store: &Store,
        account_sid: &str,
        path: &str,
    ) -> Result<Value, Refusal> {
        let is_wanted =
            |message: &&Message| message.account_sid == account_sid && self.matches(message);
        let all = || store.newest(self.to.as_deref()).filter(is_wanted);
        let number = |sid: &str| store.number(sid).ok_or(Refusal::new(21481));
        let mut page: Vec<&Message> = match &self.token {
            // A page without a token is counted from the start.
            None => all().skip(self.start()).take(self.size).collect(),
            Some(Token::After(sid)) => {
                let last = number(sid)?;
                all()
                    .filter(|message| message.number < last)
                    .take(self.size)
                    .collect()
            }
            Some(Token::Before(sid)) => {
                let first = number(sid)?;
                all()
                    .rev()
                    .filter(|message| message.number > first)
                    .take(self.size)
                    .collect()
            }
        };
        page.sort_unstable_by_key(|message| std::cmp::Reverse(message.number));
        let next = page.last().filter(|last| {
            all()
                .next_back()
                .is_some_and(|end| end.number < last.number)
        });
        let previous = page.first().filter(|_| self.page > 0);
        let start = self.start();
        Ok(json!({
            "end": start.saturating_add(page.len().saturating_sub(1)),
            "first_page_uri": self.uri(path, 0, ""),
            "messages": page.iter().map(|message| message.to_json()).collect::<Vec<_>>(),
            "next_page_uri": next.map(|m| self.uri(path, self.page.saturating_add(1), &format!("PA{}", m.sid))),
            "page": self.page,
            "page_size": self.size,
            "previous_page_uri": previous.map(|m| self.uri(path, self.page - 1, &format!("PB{}", m.sid))),
            "start": start,
            "uri": self.uri(path, self.page, ""),
        }))
    }

    fn start(&self) -> usize {
        (self.page as usize).saturating_mul(self.size)
    }

    fn matches(&self, message: &Message) -> bool {
        let day = message.sent.map(clock::Moment::day);
        let is_day = |wanted: Option<i64>, holds: fn(i64, i64) -> bool| {
            wanted.is_none_or(|wanted| day.is_some_and(|day| holds(day, wanted)))
        };
        self.to.as_ref().is_none_or(|to| *to == message.to)
            && self
                .from
                .as_ref()
                .is_none_or(|from| message.from.as_ref() == Some(from))
            && is_day(self.sent_on, |day, wanted| day == wanted)
            && is_day(self.sent_until, |day, wanted| day <= wanted)
            && is_day(self.sent_since, |day, wanted| day >= wanted)
    }

    fn uri(&self, path: &str, page: u64, token: &str) -> String {
        let date = |day: Option<i64>| {
            day.map(|day| clock::Moment(day * 86_400_000_000).rfc3339()[..10].to_owned())
        };
        let mut pairs = vec![
            ("To", self.to.clone()),
            ("From", self.from.clone()),
            ("DateSent", date(self.sent_on)),
            ("DateSent<", date(self.sent_until)),
            ("DateSent>", date(self.sent_since)),
            ("PageSize", Some(self.size.to_string())),
            ("Page", Some(page.to_string())),
            (
                "PageToken",
                Some(token.to_owned()).filter(|token| !token.is_empty()),
            ),
        ];
        pairs.retain(|(_, value)| value.is_some());
        format!(
            "{path}?{}",
            serde_urlencoded::to_string(&pairs).unwrap_or_default()
        )
    }
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let (kind, sid) = text.split_at_checked(2)?;
        match kind {
            "PA" => Some(Self::After(sid.to_owned())),
            "PB" => Some(Self::Before(sid.to_owned())),
            _ => None,
        }
    }
}

fn invalid(name: &str, value: &str) -> Refusal {
    Refusal::with(20001, format!("Invalid {name}: {value}"))
}
