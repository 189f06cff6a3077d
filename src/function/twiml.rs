//! SQL functions that write and check TwiML.

use pgrx::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::twiml::{self, Message};

use crate::argument::Bounded;
use crate::error;

#[pg_extern]
fn twiml_message(
    body: Option<Bounded<&str>>,
    media_urls: Option<Bounded<Array<'_, &str>>>,
    to_address: Option<Bounded<&str>>,
    from_address: Option<Bounded<&str>>,
    status_callback: Option<Bounded<&str>>,
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

#[pg_extern]
fn check_twiml(twiml: Bounded<&str>) -> Result<(), ErrorReport> {
    twiml::check(twiml.value()).map_err(error::twiml)
}
