//! The PostgreSQL extension `twilio_callback`: what it consists of and in which order it is installed.

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);
