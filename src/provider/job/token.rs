//! Tokens of SMSGate's API, for gateways that are not to be shown the password at each request. They are kept in the
//! memory of this process alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use protocol::smsgate::error_message;
use protocol::smsgate::token::{REFRESH_PATH, TOKEN_PATH, Token, request};
use sender::{Authorization, FailureKind, Method, Outcome, Request};

use super::request::{ask, at_gateway};
use super::response::{BUSY_MS, asked_for, hindered};
use super::{Errand, Finding};
use crate::clock::Moment;
use crate::provider::request_id::Kind;
use crate::secret::Secret;

/// The tokens that this process has, and who waits for one.
#[derive(Default)]
pub(crate) struct Tokens {
    held: HashMap<Gateway, Held>,
    asked: HashMap<i64, Asked>,
    last_number: i64,
}

/// Whose token it is. The password is named as it is stored: another one gets a token of its own, and what a file
/// holds since counts once the gateway takes the token no longer.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Gateway {
    base_url: String,
    user: String,
    secret: Secret,
}

struct Held {
    access: Authorization,
    refresh: Option<String>,
    renew_at: Instant,
}

/// A request for a token that is under way.
struct Asked {
    gateway: Gateway,
    is_refresh: bool,
    waiting: Vec<Errand>,
}

/// What is to be done next.
pub(crate) enum Step {
    /// Send this errand's own request.
    Go(Errand),
    /// Send this request for a token.
    Ask(Request),
    /// Write this down.
    End(Finding),
}

impl Tokens {
    /// How many errands wait for a token.
    pub(crate) fn waiting(&self) -> usize {
        self.asked.values().map(|asked| asked.waiting.len()).sum()
    }

    /// Lets an errand go, or has it wait for a token.
    pub(crate) fn admit(&mut self, mut errand: Errand, moment: &Moment) -> Option<Step> {
        let Some(gateway) = Gateway::of(&errand) else {
            return Some(Step::Go(errand));
        };
        if let Some(asked) = self.asked.values_mut().find(|a| a.gateway == gateway) {
            asked.waiting.push(errand);
            return None;
        }
        let refresh = match self.held.get(&gateway) {
            Some(held) if held.renew_at > Instant::now() => {
                errand.pass.bearer = Some(held.access.clone());
                return Some(Step::Go(errand));
            }
            Some(_) => self.held.remove(&gateway).and_then(|held| held.refresh),
            None => None,
        };
        match self.ask(gateway, refresh, vec![errand]) {
            Ok(request) => Some(Step::Ask(request)),
            Err((reason, mut waiting)) => waiting
                .pop()
                .map(|errand| Step::End(hindered(&errand, reason, None, moment))),
        }
    }

    /// Takes what came of a request for a token; `None` if it was for something else.
    pub(crate) fn take(
        &mut self,
        id: i64,
        outcome: &Outcome,
        moment: &Moment,
    ) -> Option<Vec<Step>> {
        let asked = self.asked.remove(&id)?;
        let refusal = match judge(outcome, moment) {
            Ok(held) => {
                let access = held.access.clone();
                self.held.insert(asked.gateway, held);
                let go = |mut errand: Errand| {
                    errand.pass.bearer = Some(access.clone());
                    Step::Go(errand)
                };
                return Some(asked.waiting.into_iter().map(go).collect());
            }
            Err(refusal) => refusal,
        };
        // A refresh token may have been used up by an answer that was lost: the password still counts.
        if asked.is_refresh && refusal.is_final {
            return Some(match self.ask(asked.gateway, None, asked.waiting) {
                Ok(request) => vec![Step::Ask(request)],
                Err((reason, waiting)) => ends(&waiting, &reason, None, false, moment),
            });
        }
        let (reason, not_before) = match refusal.is_final {
            // That may change, but not soon.
            true => (
                format!("the gateway gives no token: {}", refusal.reason),
                refusal.asked_for.or(Some(moment.now + BUSY_MS)),
            ),
            false => (refusal.reason, refusal.asked_for),
        };
        let is_away = refusal.is_away;
        Some(ends(&asked.waiting, &reason, not_before, is_away, moment))
    }

    /// Has those who wait for a request that could not be sent come again.
    pub(crate) fn fail(&mut self, id: i64, reason: &str, moment: &Moment) -> Vec<Finding> {
        let waiting = self.asked.remove(&id).map(|asked| asked.waiting);
        let waiting = waiting.unwrap_or_default();
        let hindered = |errand| hindered(errand, reason.to_owned(), None, moment);
        waiting.iter().map(hindered).collect()
    }

    /// Has all that wait come again.
    pub(crate) fn end(&mut self, moment: &Moment) -> Vec<Finding> {
        let ids: Vec<_> = self.asked.keys().copied().collect();
        ids.into_iter()
            .flat_map(|id| self.fail(id, "the worker ended", moment))
            .collect()
    }

    /// Whether an answer says that the token is good no more, and another one may be. That is tried once.
    pub(crate) fn is_spent(&mut self, errand: &mut Errand, outcome: &Outcome) -> bool {
        let is_refused = matches!(outcome, Outcome::Response(response) if response.status == 401);
        let (Some(used), true) = (
            errand.pass.bearer.take(),
            is_refused && !errand.pass.is_renewed,
        ) else {
            return false;
        };
        errand.pass.is_renewed = true;
        if let Some(gateway) = Gateway::of(errand)
            && (self.held.get(&gateway)).is_some_and(|held| held.access == used)
        {
            self.held.remove(&gateway);
        }
        true
    }

    fn ask(
        &mut self,
        gateway: Gateway,
        refresh: Option<String>,
        waiting: Vec<Errand>,
    ) -> Result<Request, (String, Vec<Errand>)> {
        let is_refresh = refresh.is_some();
        let authorization = match refresh {
            Some(token) => Authorization::bearer(&token),
            None => match gateway.secret.basic(&gateway.user) {
                Ok(authorization) => authorization,
                Err(reason) => return Err((reason, waiting)),
            },
        };
        let (path, body) = match is_refresh {
            true => (REFRESH_PATH, None),
            false => (TOKEN_PATH, Some(request())),
        };
        let to = match at_gateway(&gateway.base_url, path) {
            Ok(to) => to,
            Err(reason) => return Err((reason, waiting)),
        };
        self.last_number += 1;
        let id = Kind::Token.request_id(self.last_number);
        let made = ask(id, Method::Post, to, authorization, body);
        let asked = Asked {
            gateway,
            is_refresh,
            waiting,
        };
        self.asked.insert(id, asked);
        Ok(made)
    }
}

impl Gateway {
    /// The gateway of an errand, if that gives tokens.
    fn of(errand: &Errand) -> Option<Self> {
        let secret = errand.secret.clone().filter(|_| errand.pass.is_wanted)?;
        Some(Self {
            base_url: errand.base_url.clone(),
            user: errand.user.clone(),
            secret,
        })
    }
}

/// Why there is no token.
struct Refusal {
    reason: String,
    /// Whether the gateway refuses one, and is not merely busy or out of reach.
    is_final: bool,
    /// Before when it does not want to be asked again.
    asked_for: Option<i64>,
    /// Whether the gateway could not be reached.
    is_away: bool,
}

/// The token that an answer holds, or why there is none.
fn judge(outcome: &Outcome, moment: &Moment) -> Result<Held, Refusal> {
    let response = match outcome {
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            return Err(Refusal {
                is_away: failure.kind != FailureKind::Stopped,
                reason: failure.to_string(),
                is_final: false,
                asked_for: None,
            });
        }
        Outcome::Response(response) => response,
    };
    let refusal = |reason, is_final| Refusal {
        reason,
        is_final,
        asked_for: asked_for(response, moment),
        is_away: false,
    };
    if !(200..=299).contains(&response.status) {
        let said = error_message(&response.body);
        let said = said.unwrap_or_else(|| format!("HTTP status {}", response.status));
        let is_busy = matches!(response.status, 408 | 425 | 429);
        let is_refused = matches!(response.status, 400..=499 | 501);
        return Err(refusal(said, is_refused && !is_busy));
    }
    let token = Token::parse(&response.body)
        .ok_or_else(|| refusal("its answer holds none".to_owned(), true))?;
    // Before its end, so that none is refused on the way.
    let life = u64::try_from(token.life(response.header("date"))).unwrap_or(0);
    Ok(Held {
        access: Authorization::bearer(&token.access),
        refresh: token.refresh,
        renew_at: Instant::now() + Duration::from_millis(life / 10 * 9),
    })
}

/// Ends all that wait for a token, of which there is none.
fn ends(
    waiting: &[Errand],
    reason: &str,
    asked: Option<i64>,
    is_away: bool,
    moment: &Moment,
) -> Vec<Step> {
    waiting
        .iter()
        .map(|errand| {
            Step::End(Finding {
                is_away,
                ..hindered(errand, reason.to_owned(), asked, moment)
            })
        })
        .collect()
}
