//! Verifying: which live key of a request's account signed it, and for which of our URLs.

use std::collections::HashSet;

use pgrx::pg_sys::panic::ErrorReport;
use protocol::ambiguity;
use protocol::callback::{Callback, Malformed, form_of_json};
use protocol::callback_url::attempt;
use protocol::event_stream::{self, Event};
use protocol::foreign::{self, Product};
use protocol::form::{Form, TooManyParameters};
use protocol::request::Request;
use protocol::sid::is_account;
use protocol::signature::{Algorithm, Key, Payload, is_json, parse_settings, verify_signed};
use protocol::spelling;
use protocol::url::{Base, SignedUrl, query};

use crate::config_cache;
use crate::credential::SigningKey;
use crate::heap::Difference;

/// A request whose parameters are decoded and whose signature is not verified yet.
pub(crate) struct Decoded<'a> {
    payload: Payload<'a>,
    /// Parameters that are not the payload's own: those of a query or of a JSON body.
    other: Option<Form<'a>>,
    /// What of Event Streams the body has.
    stream: Option<StreamBody>,
}

/// A body of Event Streams.
struct StreamBody {
    /// The account that its first event names.
    account_sid: Option<String>,
}

/// A callback that a key vouches for, or an event that says the same.
pub(crate) struct Verified<'a> {
    pub(crate) arrival: usize,
    pub(crate) callback: Callback<'a>,
    pub(crate) form: &'a Form<'a>,
    pub(crate) attempt: Option<String>,
    pub(crate) key_id: &'a str,
    pub(crate) public_url: &'a str,
    pub(crate) source: &'static str,
    /// Twilio's own time of it, in milliseconds since 1970; callbacks have none.
    pub(crate) event_time: Option<i64>,
}

/// A request with events that a key vouches for. The key vouches for events of its own account only.
pub(crate) struct VerifiedStream<'a> {
    pub(crate) arrival: usize,
    pub(crate) account_sid: &'a str,
    pub(crate) key_id: &'a str,
    pub(crate) public_url: &'a str,
    pub(crate) events: Vec<Event>,
}

pub(crate) struct Refusal {
    pub(crate) http_status: i32,
    pub(crate) reason: String,
    pub(crate) is_plausible: bool,
    /// The account that the request names, if it has no live key: the request is plausible only if we know it.
    pub(crate) unkeyed_account: Option<String>,
}

/// The keys and public URLs to verify these requests with.
pub(crate) fn keys_and_urls(
    decoded: &[Decoded<'_>],
) -> Result<(Vec<SigningKey>, Vec<String>), ErrorReport> {
    let accounts: HashSet<_> = decoded.iter().filter_map(Decoded::named_account).collect();
    let is_anonymous = decoded.iter().any(|d| d.account().is_none());
    config_cache::keys_and_urls(accounts.into_iter().collect(), is_anonymous)
}

impl<'a> Decoded<'a> {
    pub(crate) fn new(request: &Request<'a>) -> Self {
        let payload = request.payload();
        let other = match &payload {
            Payload::Form(_) => None,
            Payload::Empty => Some(Form::parse(query(request.url).as_bytes())),
            Payload::Body(body) => Some(
                (request.headers.content_type.is_some_and(is_json))
                    .then(|| form_of_json(body).ok())
                    .flatten()
                    .unwrap_or_default(),
            ),
        };
        let mut decoded = Self {
            payload,
            other,
            stream: None,
        };
        if let Payload::Body(body) = decoded.payload
            && decoded.form().filled("AccountSid").is_none()
            && event_stream::has_events(body)
        {
            decoded.stream = Some(StreamBody {
                account_sid: event_stream::account_of(body),
            });
        }
        decoded
    }

    fn form(&self) -> &Form<'a> {
        match (&self.payload, &self.other) {
            (_, Some(form)) | (Payload::Form(form), None) => form,
            (Payload::Empty | Payload::Body(_), None) => &EMPTY_FORM,
        }
    }

    /// How many parameters are held in memory.
    pub(crate) fn len(&self) -> usize {
        self.form().len()
    }

    fn is_cut(&self) -> bool {
        self.payload.is_cut() || self.other.as_ref().is_some_and(Form::is_cut)
    }

    pub(crate) fn account(&self) -> Option<&str> {
        // Anything else names no account, and is not worth asking the database for.
        match &self.stream {
            Some(stream) => stream.account_sid.as_deref(),
            None => (self.form().filled("AccountSid")).filter(|text| is_account(text)),
        }
    }

    /// Whether it has events, in a body of Event Streams or in a call of the debugger's webhook.
    pub(crate) fn has_events(&self) -> bool {
        self.stream.is_some()
            || matches!(&self.payload, Payload::Form(form) if foreign::is_of_debugger(form))
    }

    /// The account, also where it is named as webhooks name it that are not about messages. Unlike the other it
    /// makes nothing plausible that no key signed.
    pub(crate) fn named_account(&self) -> Option<&str> {
        (self.account()).or_else(|| foreign::account_of(self.form()))
    }

    fn events(&self) -> Vec<Event> {
        match self.payload {
            Payload::Body(body) => Event::all(body),
            Payload::Form(_) | Payload::Empty => vec![Event::of_debugger(self.form())],
        }
    }

    fn callback(&self) -> Result<Callback<'_>, Refusal> {
        Callback::parse(self.form())
            .map_err(|malformed| Refusal::malformed(self.reason(&malformed)))
    }

    /// Refuses a request whose signed text may have another meaning; `url` is the signed URL.
    fn check_meaning(
        &self,
        url: &str,
        pairs: &[(&str, &str)],
        callback: &Callback<'_>,
    ) -> Result<(), Refusal> {
        ambiguity::check(url, &self.payload, pairs, self.form(), callback)
            .map_err(|ambiguity| Refusal::malformed(format!("ambiguous: {ambiguity}")))
    }

    /// Why this request would be refused although `url` was signed, or none.
    pub(crate) fn objection(&self, url: &str) -> Option<String> {
        if self.has_events() {
            let ambiguity = ambiguity::check_url(url, &self.payload).err()?;
            return Some(format!("ambiguous: {ambiguity}"));
        }
        let pairs = self.payload.signed();
        let result = (self.callback()).and_then(|call| self.check_meaning(url, &pairs, &call));
        result.err().map(|refusal| refusal.reason)
    }

    /// Why a signed request is no callback, where `malformed` alone would say what a callback lacks.
    fn reason(&self, malformed: &Malformed) -> String {
        Product::of_form(self.form()).map_or_else(
            || malformed.to_string(),
            |product| format!("a webhook of {product}, not of a message"),
        )
    }
}

/// The keys and base URLs that count now.
pub(crate) struct Keyring<'a> {
    keys: Vec<Row<'a>>,
    urls: Vec<(&'a str, Base<'a>)>,
    accepts_ambiguous: bool,
}

impl<'a> Keyring<'a> {
    pub(crate) fn new(keys: &'a [SigningKey], urls: &'a [String]) -> Self {
        let keys = keys.iter().map(|row| {
            let key = (row.algorithm.parse::<Algorithm>())
                .map_err(|_| format!("unknown algorithm {}", row.algorithm))
                .and_then(|algorithm| {
                    let secret = row.secret.resolve().map_err(|e| e.to_string())?;
                    Ok(Key::new(algorithm, &secret))
                })
                .map_err(|e| format!("signing key {}: {e}", row.key_id));
            (row, key)
        });
        let urls = urls
            .iter()
            .filter_map(|url| Some((url.as_str(), Base::parse(url)?)));
        Self {
            keys: keys.collect(),
            urls: urls.collect(),
            accepts_ambiguous: false,
        }
    }

    /// For requests whose meaning a person vouches for, where the signature alone does not.
    pub(crate) fn accepting_ambiguous(self) -> Self {
        Self {
            accepts_ambiguous: true,
            ..self
        }
    }

    pub(crate) fn check<'b>(
        &'b self,
        arrival: usize,
        request: &Request<'b>,
        decoded: &'b Decoded<'b>,
    ) -> Result<Verified<'b>, Refusal> {
        // A missing signature is reported before anything else that is wrong.
        if decoded.is_cut() && request.headers.signature.is_some_and(|s| !s.is_empty()) {
            return Err(Refusal::new(400, TooManyParameters.to_string(), false));
        }
        let pairs = decoded.payload.signed();
        let found = self.find(request, decoded, &pairs)?;
        let url = found.spelling.as_deref().unwrap_or(request.url);
        let callback = decoded.callback()?;
        if !self.accepts_ambiguous {
            decoded.check_meaning(url, &pairs, &callback)?;
        }
        Ok(Verified {
            arrival,
            callback,
            form: decoded.form(),
            attempt: attempt(url),
            key_id: &found.key.key_id,
            public_url: found.public_url,
            source: "callback",
            event_time: None,
        })
    }

    /// Verifies a request with events. What they say cannot be wrong enough to refuse it: Twilio forgets refused events.
    pub(crate) fn check_stream<'b>(
        &'b self,
        arrival: usize,
        request: &Request<'b>,
        decoded: &Decoded<'b>,
    ) -> Result<VerifiedStream<'b>, Refusal> {
        let pairs = decoded.payload.signed();
        let found = self.find(request, decoded, &pairs)?;
        let url = found.spelling.as_deref().unwrap_or(request.url);
        if !self.accepts_ambiguous {
            ambiguity::check_url(url, &decoded.payload)
                .map_err(|ambiguity| Refusal::malformed(format!("ambiguous: {ambiguity}")))?;
        }
        Ok(VerifiedStream {
            arrival,
            account_sid: &found.key.account_sid,
            key_id: &found.key.key_id,
            public_url: found.public_url,
            events: decoded.events(),
        })
    }

    /// The key that signed the request, and the URL that it signed.
    fn find<'b>(
        &'b self,
        request: &Request<'b>,
        decoded: &Decoded<'b>,
        pairs: &[(&str, &str)],
    ) -> Result<Found<'b>, Refusal> {
        let account = decoded.account();
        let rows: Vec<_> = (self.keys.iter())
            .filter(|(row, _)| account.is_none_or(|sid| row.account_sid == sid))
            .collect();
        let signature = request.headers.signature.unwrap_or_default();
        let has_length = [Algorithm::HmacSha1, Algorithm::HmacSha256]
            .iter()
            .any(|algorithm| algorithm.signature_len() == signature.len());
        let is_plausible = has_length && account.is_some();
        let refuse = |reason: &str| {
            Err(Refusal {
                unkeyed_account: account.filter(|_| rows.is_empty()).map(str::to_owned),
                ..Refusal::forbidden(reason.to_owned(), is_plausible)
            })
        };
        if signature.is_empty() {
            return refuse("signature is missing");
        }
        if let Err(unknown) = parse_settings(request.headers.settings) {
            return refuse(&unknown.to_string());
        }
        if let Some((key, public_url)) =
            self.find_signed(&rows, request.url, decoded, pairs, signature)
        {
            return Ok(Found {
                key,
                public_url,
                spelling: None,
            });
        }
        let is_respelled =
            has_length && !rows.is_empty() && request.size() <= spelling::MAX_REQUEST_BYTES;
        let spellings = if is_respelled {
            spelling::accepted(request.url)
        } else {
            Vec::new()
        };
        for spelling in spellings {
            if let Some((key, public_url)) =
                self.find_signed(&rows, &spelling, decoded, pairs, signature)
            {
                return Ok(Found {
                    key,
                    public_url,
                    spelling: Some(spelling),
                });
            }
        }
        if let Some(unreadable) = rows.iter().find_map(|(_, key)| key.as_ref().err()) {
            return refuse(unreadable);
        }
        let mut signed = (self.urls.iter()).flat_map(|(_, base)| base.signed_urls(request.url));
        refuse(match (rows.is_empty(), signed.next()) {
            (true, _) => "account is not known or has no live key",
            (_, None) => "URL is below no public URL",
            (false, Some(_)) => "signature does not match",
        })
    }

    /// The first of these keys that signed `url`, and the public URL that it lies below.
    fn find_signed<'b>(
        &'b self,
        rows: &[&'b Row<'a>],
        url: &str,
        decoded: &Decoded<'_>,
        pairs: &[(&str, &str)],
        signature: &str,
    ) -> Option<(&'b SigningKey, &'b str)> {
        let urls: Vec<_> = (self.urls.iter())
            .flat_map(|(text, base)| base.signed_urls(url).map(move |url| (*text, url)))
            .collect();
        let signed: Vec<SignedUrl<'_>> = urls.iter().map(|(_, url)| *url).collect();
        // Each key is tried alone, so that one that cannot be read does not hide the others.
        (rows.iter())
            .filter_map(|(row, key)| Some((*row, key.as_ref().ok()?)))
            .find_map(|(row, key)| {
                let keys = std::slice::from_ref(key);
                let (_, url) = verify_signed(keys, &signed, &decoded.payload, pairs, signature)?;
                Some((row, urls[url].0))
            })
    }
}

/// A signing key with its secret, or why the secret cannot be read.
type Row<'a> = (&'a SigningKey, Result<Key, String>);

/// The key that signed a request, and the URL that it signed.
struct Found<'a> {
    key: &'a SigningKey,
    public_url: &'a str,
    /// The signed URL, if its spelling differs from that of the request's URL.
    spelling: Option<String>,
}

impl Refusal {
    fn new(http_status: i32, reason: String, is_plausible: bool) -> Self {
        Self {
            http_status,
            reason,
            is_plausible,
            unkeyed_account: None,
        }
    }

    /// A request of which a part is larger than anything that is looked at here.
    pub(crate) fn too_large() -> Self {
        Self::new(413, TOO_LARGE.to_owned(), false)
    }

    /// A request whose row a trigger of the user's dropped.
    pub(crate) fn dropped(reason: String) -> Self {
        Self::new(422, reason, true)
    }

    /// A request that verifies and cannot be recorded until a table is repaired.
    pub(crate) fn unrecorded(differences: &[Difference]) -> Self {
        let mut fatal = differences.iter().filter(|difference| difference.is_fatal);
        let subject = fatal
            .next()
            .map_or("a table", |first| first.subject.as_str());
        let reason =
            format!("not recorded: the definition of {subject} was altered; see twilio.doctor()");
        Self::new(503, reason, true)
    }

    pub(crate) fn forbidden(reason: String, is_plausible: bool) -> Self {
        Self::new(403, reason, is_plausible)
    }

    /// A request that is signed and is not a callback.
    fn malformed(reason: String) -> Self {
        Self::new(400, reason, true)
    }
}

pub(crate) const TOO_LARGE: &str = "request is larger than twilio_callback.max_request_size";

static EMPTY_FORM: Form<'static> = Form::empty();
