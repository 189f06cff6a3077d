//! SQL functions that write and check TwiML.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use protocol::twiml::{self, Message};

use crate::error;

#[pg_extern(immutable, parallel_safe)]
fn twiml_message(
    body: Option<&str>,
    media_urls: default!(Option<Vec<Option<String>>>, "NULL"),
    to_address: default!(Option<&str>, "NULL"),
    from_address: default!(Option<&str>, "NULL"),
    status_callback: default!(Option<&str>, "NULL"),
) -> Result<String, ErrorReport> {
    let media: Vec<String> = media_urls.into_iter().flatten().flatten().collect();
    let media: Vec<&str> = media.iter().map(String::as_str).collect();
    twiml::response(&[Message {
        body,
        media_urls: &media,
        to: to_address,
        from: from_address,
        status_callback,
    }])
    .map_err(error::twiml)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn check_twiml(twiml: &str) -> Result<(), ErrorReport> {
    twiml::check(twiml).map_err(error::twiml)
}
