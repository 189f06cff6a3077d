//! Tokens of SMSGate's API, for gateways that are not to be shown the password at each request. They are kept in the
//! memory of this process alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use protocol::smsgate::error_message;
use protocol::smsgate::token::{REFRESH_PATH, TOKEN_PATH, Token, request};
use sender::{Authorization, FailureKind, Method, Outcome, Request};

use super::request::{ask, at_gateway};
use super::response::{BUSY_MS, blocked, not_before};
use super::{Job, JobResult};
use crate::clock::Now;
use crate::provider::request_id::Kind;
use crate::secret::Secret;

/// The tokens of this process, and the jobs that wait for one.
#[derive(Default)]
pub(crate) struct Tokens {
    cached: HashMap<Gateway, CachedToken>,
    pending: HashMap<i64, PendingToken>,
    last_number: i64,
}

/// The owner of a token. The password is compared as it is stored: another one gets a token of its own, and the content of a file
/// that changed counts once the gateway rejects the token.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Gateway {
    base_url: String,
    user: String,
    secret: Secret,
}

struct CachedToken {
    access: Authorization,
    refresh: Option<String>,
    renew_at: Instant,
}

/// A request for a token that is under way.
struct PendingToken {
    gateway: Gateway,
    is_refresh: bool,
    waiting: Vec<Job>,
}

/// The next step of a job.
pub(crate) enum Step {
    /// Send the request of this job.
    Send(Job),
    /// Send this request for a token.
    RequestToken(Request),
    /// Save this result.
    Finish(JobResult),
}

impl Tokens {
    /// The number of jobs that wait for a token.
    pub(crate) fn waiting(&self) -> usize {
        self.pending
            .values()
            .map(|pending| pending.waiting.len())
            .sum()
    }

    /// Lets a job proceed, or lets it wait for a token.
    pub(crate) fn admit(&mut self, mut job: Job, now: &Now) -> Option<Step> {
        let Some(gateway) = Gateway::of(&job) else {
            return Some(Step::Send(job));
        };
        if let Some(pending) = self.pending.values_mut().find(|a| a.gateway == gateway) {
            pending.waiting.push(job);
            return None;
        }
        let refresh = match self.cached.get(&gateway) {
            Some(cached) if cached.renew_at > Instant::now() => {
                job.token_auth.bearer = Some(cached.access.clone());
                return Some(Step::Send(job));
            }
            Some(_) => self
                .cached
                .remove(&gateway)
                .and_then(|cached| cached.refresh),
            None => None,
        };
        match self.ask(gateway, refresh, vec![job]) {
            Ok(request) => Some(Step::RequestToken(request)),
            Err((reason, mut waiting)) => waiting
                .pop()
                .map(|job| Step::Finish(blocked(&job, reason, None, now))),
        }
    }

    /// Takes the outcome of a request for a token; `None` if the request was for something else.
    pub(crate) fn take(&mut self, id: i64, outcome: &Outcome, now: &Now) -> Option<Vec<Step>> {
        let pending = self.pending.remove(&id)?;
        let refusal = match classify(outcome, now) {
            Ok(cached) => {
                let access = cached.access.clone();
                self.cached.insert(pending.gateway, cached);
                let go = |mut job: Job| {
                    job.token_auth.bearer = Some(access.clone());
                    Step::Send(job)
                };
                return Some(pending.waiting.into_iter().map(go).collect());
            }
            Err(refusal) => refusal,
        };
        // A lost response may have used the refresh token up. The password still works.
        if pending.is_refresh && refusal.is_final {
            return Some(match self.ask(pending.gateway, None, pending.waiting) {
                Ok(request) => vec![Step::RequestToken(request)],
                Err((reason, waiting)) => postpone_all(&waiting, &reason, None, false, now),
            });
        }
        let (reason, not_before) = match refusal.is_final {
            // That may change, but not soon.
            true => (
                format!("the gateway gives no token: {}", refusal.reason),
                refusal.not_before.or(Some(now.unix_ms + BUSY_MS)),
            ),
            false => (refusal.reason, refusal.not_before),
        };
        let is_away = refusal.is_away;
        Some(postpone_all(
            &pending.waiting,
            &reason,
            not_before,
            is_away,
            now,
        ))
    }

    /// Retries the jobs that wait for a request that could not be sent.
    pub(crate) fn fail(&mut self, id: i64, reason: &str, now: &Now) -> Vec<JobResult> {
        let waiting = self.pending.remove(&id).map(|pending| pending.waiting);
        let waiting = waiting.unwrap_or_default();
        let blocked = |job| blocked(job, reason.to_owned(), None, now);
        waiting.iter().map(blocked).collect()
    }

    /// Retries all waiting jobs.
    pub(crate) fn end(&mut self, now: &Now) -> Vec<JobResult> {
        let ids: Vec<_> = self.pending.keys().copied().collect();
        ids.into_iter()
            .flat_map(|id| self.fail(id, "the worker ended", now))
            .collect()
    }

    /// Whether the response rejects the token and a new token may help. That is tried once.
    pub(crate) fn is_rejected(&mut self, job: &mut Job, outcome: &Outcome) -> bool {
        let is_refused = matches!(outcome, Outcome::Response(response) if response.status == 401);
        let (Some(used), true) = (
            job.token_auth.bearer.take(),
            is_refused && !job.token_auth.is_renewed,
        ) else {
            return false;
        };
        job.token_auth.is_renewed = true;
        if let Some(gateway) = Gateway::of(job)
            && (self.cached.get(&gateway)).is_some_and(|cached| cached.access == used)
        {
            self.cached.remove(&gateway);
        }
        true
    }

    fn ask(
        &mut self,
        gateway: Gateway,
        refresh: Option<String>,
        waiting: Vec<Job>,
    ) -> Result<Request, (String, Vec<Job>)> {
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
        let pending = PendingToken {
            gateway,
            is_refresh,
            waiting,
        };
        self.pending.insert(id, pending);
        Ok(made)
    }
}

impl Gateway {
    /// The gateway of a job, if it uses tokens.
    fn of(job: &Job) -> Option<Self> {
        let secret = job.secret.clone().filter(|_| job.token_auth.is_wanted)?;
        Some(Self {
            base_url: job.base_url.clone(),
            user: job.user.clone(),
            secret,
        })
    }
}

/// Why there is no token.
struct Refusal {
    reason: String,
    /// Whether the gateway refuses a token, rather than being busy or out of reach.
    is_final: bool,
    /// Before when it does not want to be pending again.
    not_before: Option<i64>,
    /// Whether the gateway could not be reached.
    is_away: bool,
}

/// The token in a response, or the reason why there is none.
fn classify(outcome: &Outcome, now: &Now) -> Result<CachedToken, Refusal> {
    let response = match outcome {
        Outcome::NotProcessed(failure) | Outcome::Unknown(failure) => {
            return Err(Refusal {
                is_away: failure.kind != FailureKind::Stopped,
                reason: failure.to_string(),
                is_final: false,
                not_before: None,
            });
        }
        Outcome::Response(response) => response,
    };
    let refusal = |reason, is_final| Refusal {
        reason,
        is_final,
        not_before: not_before(response, now),
        is_away: false,
    };
    if !(200..=299).contains(&response.status) {
        let reason = error_message(&response.body);
        let reason = reason.unwrap_or_else(|| format!("HTTP status {}", response.status));
        let is_busy = matches!(response.status, 408 | 425 | 429);
        let is_refused = matches!(response.status, 400..=499 | 501);
        return Err(refusal(reason, is_refused && !is_busy));
    }
    let token = Token::parse(&response.body)
        .ok_or_else(|| refusal("its answer holds none".to_owned(), true))?;
    // A token is renewed before its end, so that it does not expire on the way.
    let life = u64::try_from(token.life(response.header("date"))).unwrap_or(0);
    Ok(CachedToken {
        access: Authorization::bearer(&token.access),
        refresh: token.refresh,
        renew_at: Instant::now() + Duration::from_millis(life / 10 * 9),
    })
}

/// Postpones the jobs that wait for a token, since there is none.
fn postpone_all(
    waiting: &[Job],
    reason: &str,
    not_before: Option<i64>,
    is_away: bool,
    now: &Now,
) -> Vec<Step> {
    waiting
        .iter()
        .map(|job| {
            Step::Finish(JobResult {
                is_away,
                ..blocked(job, reason.to_owned(), not_before, now)
            })
        })
        .collect()
}
