//! SQL functions that write and check TwiML.

use pgrx::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::twiml::{self, Message};

use crate::argument::Bounded;
use crate::error;

#[pg_extern(immutable, parallel_safe)]
fn twiml_message(
    body: Option<Bounded<&str>>,
    media_urls: default!(Option<Bounded<Array<'_, &str>>>, "NULL"),
    to_address: default!(Option<Bounded<&str>>, "NULL"),
    from_address: default!(Option<Bounded<&str>>, "NULL"),
    status_callback: default!(Option<Bounded<&str>>, "NULL"),
) -> Result<String, ErrorReport> {
    let media: Vec<&str> = (media_urls.iter())
        .flat_map(|urls| urls.iter().flatten())
        .collect();
    twiml::response(&[Message {
        body: body.map(Bounded::value),
        media_urls: &media,
        to: to_address.map(Bounded::value),
        from: from_address.map(Bounded::value),
        status_callback: status_callback.map(Bounded::value),
    }])
    .map_err(error::twiml)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn check_twiml(twiml: Bounded<&str>) -> Result<(), ErrorReport> {
    twiml::check(twiml.value()).map_err(error::twiml)
}
