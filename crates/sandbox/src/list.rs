//! `GET …/Messages.json`: the list of messages, filtered and in pages, newest first.
//!
//! <https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources>

use std::ops::Range;

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
        let wanted = |range: Range<u64>| {
            store
                .newest(self.to.as_deref(), range)
                .filter(|message| message.account_sid == account_sid && self.matches(message))
        };
        let number = |sid: &str| store.number(sid).ok_or(Refusal::new(21481));
        // A token leads to its place, so that the last page takes no longer than the first.
        let mut page: Vec<&Message> = match &self.token {
            // A page without a token is counted from the start.
            None => wanted(0..u64::MAX)
                .skip(self.start())
                .take(self.size)
                .collect(),
            Some(Token::After(sid)) => wanted(0..number(sid)?).take(self.size).collect(),
            Some(Token::Before(sid)) => wanted(number(sid)? + 1..u64::MAX)
                .rev()
                .take(self.size)
                .collect(),
        };
        page.sort_unstable_by_key(|message| std::cmp::Reverse(message.number));
        let next = page
            .last()
            .filter(|last| wanted(0..last.number).next().is_some());
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::clock::Moment;
    use crate::random::Generator;

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const DAY: i64 = 86_400_000_000;

    /// Messages to seven recipients, a third of them on each of three days.
    fn store(count: i64) -> Store {
        let mut store = Store::new(count as usize);
        let mut random = Generator::new(1);
        for number in 0..count {
            let at = Moment(DAY * (20_000 + number * 3 / count));
            store.insert(Message {
                sid: random.sid("SM"),
                account_sid: ACCOUNT.to_owned(),
                to: format!("+1202555012{}", number % 7),
                ..Message::example(at)
            });
        }
        store
    }

    /// The SIDs of all pages.
    fn sweep(store: &Store, query: &str) -> Vec<String> {
        let mut sids = Vec::new();
        let mut query = Some(query.to_owned());
        while let Some(text) = query.take() {
            let parsed = Query::parse(&Form::parse(text.as_bytes())).unwrap();
            let page = parsed.page(store, ACCOUNT, "/x").unwrap();
            let messages = page["messages"].as_array().unwrap();
            sids.extend(messages.iter().map(|m| m["sid"].to_string()));
            let next = page["next_page_uri"].as_str();
            query = next.map(|uri| uri.trim_start_matches("/x?").to_owned());
        }
        sids
    }

    #[test]
    fn the_pages_of_a_day_hold_each_message_once() {
        let store = store(3_000);
        for (query, expected) in [
            ("DateSent=2024-10-04&PageSize=100", 1_000),
            ("DateSent=2024-10-05&PageSize=1000", 1_000),
            ("DateSent%3E=2024-10-05&PageSize=7", 2_000),
            ("DateSent%3C=2024-10-03&PageSize=999", 0),
            ("PageSize=1000", 3_000),
            ("To=%2B12025550123&PageSize=10", 429),
        ] {
            let sids = sweep(&store, query);
            let distinct: HashSet<&String> = sids.iter().collect();
            assert_eq!(
                (sids.len(), distinct.len()),
                (expected, expected),
                "{query}"
            );
        }
    }

    #[test]
    fn a_page_leads_back_to_the_one_before_it() {
        let store = store(30);
        let read = |query: &str| {
            let query = query.trim_start_matches("/x?");
            let parsed = Query::parse(&Form::parse(query.as_bytes())).unwrap();
            parsed.page(&store, ACCOUNT, "/x").unwrap()
        };
        let first = read("PageSize=10");
        let second = read(first["next_page_uri"].as_str().unwrap());
        let back = read(second["previous_page_uri"].as_str().unwrap());
        assert_eq!(back["messages"], first["messages"]);
        assert_eq!(back["next_page_uri"], first["next_page_uri"]);
    }
}
