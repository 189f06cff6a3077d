//! Errors of the layers below as PostgreSQL reports: SQLSTATE, message, detail and hint.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportWithLevel};
use protocol::form::TooManyParameters;
use protocol::message::DraftError;
use protocol::person::UnknownCountry;
use protocol::signature::UnknownAlgorithm;

use crate::secret::SecretError;

/// 22023 with a hint: a parameter has a value that it cannot have.
pub(crate) fn invalid(message: String, hint: &str) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, "").set_hint(hint)
}

/// 22023: a country that does not exist.
pub(crate) fn country(error: UnknownCountry) -> ErrorReport {
    invalid(
        error.to_string(),
        "Give the two letters of ISO 3166-1, such as US or GB.",
    )
}

/// 42501: only the owner calls `record`; other roles use the functions that call it.
pub(crate) fn may_not_record() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied for table message",
        "",
    )
    .set_hint("Callbacks are recorded by twilio.receive, trials by twilio.simulate_callback.")
}

/// 22004: an item has no status.
pub(crate) fn no_status() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        "status is null",
        "",
    )
    .set_hint("Give each item the status that was reported.")
}

/// 22P02: media that are no array of texts.
pub(crate) fn media(_: serde_json::Error) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
        "media_urls is not a JSON array of texts",
        "",
    )
    .set_hint("Write them as [\"https://…\"], or null for none.")
}

/// 54000: parameters of more than 256 MiB.
pub(crate) fn too_many_parameters() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "parameters are too long for jsonb",
        "",
    )
    .set_hint("Twilio sends some kilobytes; let the front refuse what is longer.")
}

/// 54000: an argument is larger than the server is to spend memory on.
pub(crate) fn argument_too_long(number: usize, size: usize, limit: usize) -> ErrorReport {
    too_long(
        format!("argument {number} is too long"),
        format!("It has {size} bytes; at most {limit} are allowed."),
    )
}

/// 54000: a value is larger than the server is to spend memory on.
pub(crate) fn value_too_long(size: i64, limit: usize) -> ErrorReport {
    too_long(
        "value is too long".to_owned(),
        format!("It has {size} bytes; at most {limit} are allowed."),
    )
}

/// 54000: the requests of a batch are larger than the server is to spend memory on.
pub(crate) fn batch_too_large(size: usize, limit: usize) -> ErrorReport {
    too_long(
        "batch is too large".to_owned(),
        format!("Its requests have {size} bytes; at most {limit} are allowed."),
    )
}

fn too_long(message: String, detail: String) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message, "")
        .set_detail(detail)
        .set_hint("Pass smaller values, or let a superuser raise twilio_callback.max_request_size.")
}

/// 54000: a batch of too many requests.
pub(crate) fn batch_too_long(count: usize, limit: usize) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "batch has too many requests",
        "",
    )
    .set_detail(format!(
        "It has {count} requests; at most {limit} are allowed."
    ))
    .set_hint("Split the batch into several calls.")
}

/// 54000: the requests of a batch have too many parameters in all.
pub(crate) fn too_many_pairs_in_batch(limit: usize) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("batch has more than {limit} parameters"),
        "",
    )
    .set_hint("Make several calls.")
}

/// 54000: a form of more parameters than anybody sends.
pub(crate) fn too_many_pairs() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        TooManyParameters.to_string(),
        "",
    )
    .set_hint("Twilio sends fewer than 100.")
}

/// 42703: a table was altered and lacks a column.
pub(crate) fn missing_column(table: &str, column: &str) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("column \"{column}\" of table {table} is missing"),
        "",
    )
    .set_hint("Add it again, as create extension makes it; columns of your own do no harm.")
}

/// 42804: a table was altered and a column has another type.
pub(crate) fn altered_column(table: &str, column: &str) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!("column \"{column}\" of table {table} has the wrong type"),
        "",
    )
    .set_hint("Restore the type that create extension gave it.")
}

/// XX000: an index that was found a moment ago is not open.
pub(crate) fn missing_index() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        "could not open an index of twilio.message or twilio.message_event",
        "",
    )
}

/// 42704: the key of `twilio_internal.purged_message` is gone or altered.
pub(crate) fn missing_purged_key() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        "table twilio_internal.purged_message has no primary key on sid_digest",
        "",
    )
    .set_hint(
        "Create it again: alter table twilio_internal.purged_message add primary key (sid_digest).",
    )
}

/// 40001: a transaction with one snapshot for all of its statements found a row that changed since.
pub(crate) fn serialization() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent update",
        "",
    )
    .set_hint("Try the transaction again.")
}

/// 27000: a user's trigger changed the row that it was fired for.
pub(crate) fn changed_by_trigger() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        "a trigger changed the row of twilio.message that is being recorded",
        "",
    )
    .set_hint("Let the trigger change new, or be an after trigger on another table.")
}

/// 22023: an algorithm that Twilio does not have.
pub(crate) fn unknown_algorithm(_: UnknownAlgorithm) -> ErrorReport {
    // Its name is not repeated: it may be a secret in the wrong place.
    invalid(
        "algorithm must be HMAC_SHA1 or HMAC_SHA256".to_owned(),
        "Leave it out for an auth token; SharedKeys sign with HMAC_SHA256.",
    )
}

/// 22023: further parameters that are no object of plain values.
pub(crate) fn parameters() -> ErrorReport {
    invalid(
        "twilio_parameters are not names and values".to_owned(),
        "Write them as {\"ContentSid\": \"HX…\", \"MaxPrice\": \"0.05\"}: texts, numbers, booleans or arrays of these.",
    )
}

/// 22023: parameters that PostgreSQL can hold and HTTP cannot send.
pub(crate) fn unreadable_parameters(error: &serde_json::Error) -> ErrorReport {
    invalid(
        "twilio_parameters cannot be read".to_owned(),
        "Numbers must be below 1e308 and nesting below 127 levels. Pass larger numbers as strings.",
    )
    .set_detail(format!("The JSON could not be parsed: {error}."))
}

/// A message that cannot be sent as it is: 22P02 for what has a form of its own, 22001 and 54000 for
/// what is too long or too many, else 22023.
pub(crate) fn draft(error: DraftError) -> ErrorReport {
    use DraftError as D;
    use PgSqlErrorCode as Code;
    let (code, hint) = match &error {
        D::Recipient | D::Sender => (
            Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
            "Write numbers with + and country code, without spaces: +12025550123 or whatsapp:+12025550123.",
        ),
        D::MessagingService => (
            Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
            "A messaging service is MG and 32 hexadecimal digits.",
        ),
        D::Url(..) | D::LongUrl(_) => (
            Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
            "Give an absolute http or https URL that Twilio can reach.",
        ),
        D::NoSender => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Name one with from_address, or add a default with twilio.add_sender(address).",
        ),
        D::ToItself => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Twilio refuses messages from a number to itself.",
        ),
        D::Channels { .. } => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Write the channel before the recipient's number too, or name a sender of the recipient's channel.",
        ),
        D::Empty => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Give a body, media_urls or, in twilio_parameters, a ContentSid.",
        ),
        D::Null(_) => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Take the null character out.",
        ),
        D::TooLong(_) => (
            Code::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
            "Send it in parts, or put the rest behind a link.",
        ),
        D::TooManyMedia(_) => (
            Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            "Spread them over several messages.",
        ),
        D::ValidityPeriod(_) => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Use expires_after and send_at: a message waits here until its time.",
        ),
        D::Parameter(_) => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "Names are Twilio's; addresses, body, media, times and status callback are arguments of twilio.send_message itself.",
        ),
    };
    ErrorReport::new(code, error.to_string(), "").set_hint(hint)
}

/// 53400: the server has no room for another background worker.
pub(crate) fn no_worker_slot() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "no worker could be started",
        "",
    )
    .set_hint("Raise max_worker_processes, or see the server's log.")
}

/// A secret that cannot be read. Neither the secret nor the directory is named.
pub(crate) fn secret(error: SecretError) -> ErrorReport {
    let (code, hint) = match &error {
        SecretError::Null => (
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "Give the secret itself, or file:name.",
        ),
        SecretError::Empty => (
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "Give the secret, or file:name for a file below twilio_callback.secret_directory.",
        ),
        SecretError::Name => (
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "A name after file: is one path component of letters, digits, dots, dashes and underscores.",
        ),
        SecretError::Directory => (
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "A superuser sets it: alter system set twilio_callback.secret_directory = '/etc/…'; select pg_reload_conf();",
        ),
        SecretError::File { .. } => (
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "It must be a regular file, no link, of 1 to 4096 bytes, that the server's account can read.",
        ),
    };
    ErrorReport::new(code, error.to_string(), "").set_hint(hint)
}

/// 55000: a function that stores a secret was called by itself, without one.
pub(crate) fn nothing_given() -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "this function can be called only by the function that stores a secret",
        "",
    )
    .set_hint(
        "Call twilio.add_account, rotate_auth_token, add_shared_key, add_smsgate or add_smsgate_key.",
    )
}

/// A constraint's error without its detail, which shows the row and the secret in it.
pub(crate) fn without_row(report: &ErrorReportWithLevel) -> ErrorReport {
    let hint = report.hint().unwrap_or(
        "The row is not shown, since it holds a secret. See the constraints of the table.",
    );
    ErrorReport::new(report.sql_error_code(), report.message().to_owned(), "").set_hint(hint)
}

/// XX000: SPI did what it cannot do unless the extension's own SQL is broken.
pub(crate) fn internal(error: pgrx::spi::Error) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("twilio_callback cannot use its own functions: {error}"),
        "",
    )
    .set_hint("Run: alter extension twilio_callback update; and report it if that does not help.")
}

/// 42704: a role that registered something is there no more.
pub(crate) fn undefined_role(name: &str) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("role \"{name}\" does not exist"),
        "",
    )
    .set_hint("Register the function again as a role that exists.")
}

/// 22023: an answer that Twilio would not take.
pub(crate) fn twiml(error: protocol::twiml::TwimlError) -> ErrorReport {
    invalid(
        error.to_string(),
        "An answer is <Response> with messages of up to 1600 characters and 10 media, 64 kB in all.",
    )
}

/// Has no error carry a stack trace, which pgrx would put into the detail that the client sees wherever the server's
/// environment has `RUST_BACKTRACE`.
pub(crate) fn disable_backtraces() {
    const VARIABLE: &str = "RUST_LIB_BACKTRACE";
    let given = std::env::var_os(VARIABLE);
    // SAFETY: while a process of the server loads the library it has one thread; the worker's begin later.
    unsafe { std::env::set_var(VARIABLE, "0") };
    // The library reads its environment at the first capture only, and keeps what it found.
    drop(std::backtrace::Backtrace::capture());
    // SAFETY: still the only thread. Processes that the server starts later have the environment that it was given.
    unsafe {
        match given {
            Some(value) => std::env::set_var(VARIABLE, value),
            None => std::env::remove_var(VARIABLE),
        }
    }
}
