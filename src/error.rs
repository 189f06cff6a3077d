//! Errors of the layers below as PostgreSQL reports: SQLSTATE, message, detail and hint.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use protocol::signature::UnknownAlgorithm;

use crate::secret::SecretError;

/// 22023 with a hint: a parameter has a value that it cannot have.
pub(crate) fn invalid(message: String, hint: &str) -> ErrorReport {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, "").set_hint(hint)
}

/// 22023: an algorithm that Twilio does not have.
pub(crate) fn unknown_algorithm(error: UnknownAlgorithm) -> ErrorReport {
    invalid(
        error.to_string(),
        "Twilio signs with HMAC_SHA1 and HMAC_SHA256.",
    )
}

/// A secret that cannot be read. Neither the secret nor the directory is named.
pub(crate) fn secret(error: SecretError) -> ErrorReport {
    let (code, hint) = match &error {
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

/// XX000: SPI did what it cannot do unless the extension's own SQL is broken.
pub(crate) fn internal(error: pgrx::spi::Error) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("twilio_callback cannot use its own functions: {error}"),
        "",
    )
    .set_hint("Run: alter extension twilio_callback update; and report it if that does not help.")
}
