//! Calls of users' functions: as the role that registered them, with its search path, within bounded time.

use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::argument::OpaqueJson;
use crate::error;

mod time_limit;
use time_limit::{Call, Limit};

/// Calls `function`, a quoted name, with one argument and returns its result as text. Whoever may execute
/// this can be anybody, so it is the owner's alone. `purpose`, `subject` and `detail` say what it is called for, as
/// `twilio_internal.record_overrun` takes them.
#[pg_extern]
fn call_function(
    function: &str,
    argument: OpaqueJson,
    run_as: &str,
    search_path: &str,
    purpose: Option<&str>,
    subject: Option<i64>,
    detail: Option<&str>,
) -> Result<Option<String>, ErrorReport> {
    // The name is quoted and the argument a parameter: nothing of a user's is parsed here.
    let statement = format!("select pg_catalog.concat({function}($1))");
    let call = Call {
        function: function.to_owned(),
        purpose: purpose.map(str::to_owned),
        subject,
        detail: detail.map(str::to_owned),
    };
    // SAFETY: an OpaqueJson holds the datum of a jsonb argument, which lives as long as this call.
    let argument = unsafe { DatumWithOid::new(argument.datum(), pg_sys::JSONBOID) };
    let text = run(&statement, argument, run_as, search_path, &call)?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// Reads the row of a message in `relation`, a quoted name, as JSON. The owner's alone, as the above.
#[pg_extern]
fn read_source_row(
    relation: &str,
    message_sid: &str,
    run_as: &str,
    purpose: Option<&str>,
    subject: Option<i64>,
) -> Result<Option<String>, ErrorReport> {
    let statement = format!(
        "select pg_catalog.to_jsonb(s)::pg_catalog.text from {relation} s \
         where s.message_sid operator(pg_catalog.=) $1 limit 1"
    );
    let call = Call {
        function: relation.to_owned(),
        purpose: purpose.map(str::to_owned),
        subject,
        detail: None,
    };
    let search_path = "pg_catalog, pg_temp";
    run(&statement, message_sid.into(), run_as, search_path, &call)
}

/// Runs a statement of one parameter and one value as a role, in a security-restricted operation: the worker is
/// a superuser, so nothing of the user's may outlive the call. Temporary tables, cursors that are held and
/// deferred triggers raise; settings go back.
fn run(
    statement: &str,
    argument: DatumWithOid<'_>,
    run_as: &str,
    search_path: &str,
    call: &Call,
) -> Result<Option<String>, ErrorReport> {
    let role = role(run_as)?;
    let search_path = CString::new(search_path).unwrap_or_default();
    // SAFETY: inside a transaction. An error unwinds to a (sub)transaction's abort, which restores the
    // role and the settings; the success path restores them below.
    unsafe {
        let mut previous = pg_sys::InvalidOid;
        let mut context = 0;
        pg_sys::GetUserIdAndSecContext(&mut previous, &mut context);
        let nest_level = pg_sys::NewGUCNestLevel();
        set_local(c"search_path", &search_path);
        // The worker plans its own look-ups in its own way, which is not that of anybody's tables.
        for (name, value) in PLANNING {
            set_local(name, value);
        }
        // Deferred triggers would run with our rights at the end of the transaction, so none is deferred.
        Spi::run("set constraints all immediate").map_err(error::internal)?;
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        let limit = Limit::start(call, previous);
        pg_sys::SetUserIdAndSecContext(role, context | flags.cast_signed());
        let result = PgTryBuilder::new(|| {
            Spi::connect_mut(|client| {
                let rows = client.update(statement, Some(1), &[argument])?;
                rows.into_iter()
                    .next()
                    .map_or(Ok(None), |row| row.get::<String>(1))
            })
        })
        .finally(|| limit.end())
        .execute();
        pg_sys::SetUserIdAndSecContext(previous, context);
        // As after an error: what the function set goes with it.
        pg_sys::AtEOXact_GUC(false, nest_level);
        result.map_err(error::internal)
    }
}

const PLANNING: [(&std::ffi::CStr, &std::ffi::CStr); 4] = [
    (c"enable_seqscan", c"on"),
    (c"enable_hashjoin", c"on"),
    (c"enable_mergejoin", c"on"),
    (c"plan_cache_mode", c"auto"),
];

fn role(name: &str) -> Result<pg_sys::Oid, ErrorReport> {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: a C string that lives through the call; with missing_ok it raises nothing.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    if role == pg_sys::InvalidOid {
        return Err(error::undefined_role(&name.to_string_lossy()));
    }
    Ok(role)
}

/// Sets a setting until the nest level ends.
unsafe fn set_local(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: both are C strings; an invalid value raises an error, which is the caller's to unwind.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}
