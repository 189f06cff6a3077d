//! The PostgreSQL extension `twilio_callback`. What SQL sees of it is declared in `sql/`; a test compares the declarations with
//! the functions here.

mod argument;
mod clock;
mod config_cache;
mod credential;
mod error;
mod extension;
mod function;
mod heap;
mod provider;
mod receive;
mod record;
mod secret;
mod setting;
mod spi;
mod statement;
mod worker;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

/// Runs when a server process loads the library.
#[pg_guard]
extern "C-unwind" fn _PG_init() {
    error::disable_backtraces();
    setting::define();
    worker::launcher::register();
}
