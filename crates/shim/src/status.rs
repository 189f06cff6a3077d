//! What an SQLSTATE means for the requests of a failed call: one table for callbacks, one for the tools.

use hyper::StatusCode;
use tokio_postgres::error::Error;

/// How to continue after a failed call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The server ended the connection in an orderly way, as for a restart. Nothing was stored, so the requests are
    /// sent again on the next connection.
    Terminated,
    /// The connection was lost, so it is unknown whether the requests were stored: 503, reconnect.
    Lost,
    /// The functions have changed since they were prepared: 503, reconnect and check again.
    Stale,
    /// Another transaction was in the way: retry singly, once more each, then 503.
    Contended,
    /// The database cannot do it now: 503.
    Unavailable,
    /// The call itself is at fault: retry singly, then 500 for the item that raises the error.
    Fault,
}

/// Classifies the error of a call.
pub(crate) fn classify(error: &Error) -> Failure {
    match error.code() {
        Some(state) => classify_code(state.code()),
        // Without a SQLSTATE, the error is the connection's or the protocol's.
        None => Failure::Lost,
    }
}

fn classify_code(code: &str) -> Failure {
    match code {
        "57P01" => Failure::Terminated,
        "57P02" | "57P03" | "57P04" | "57P05" => Failure::Lost,
        "40P01" | "40001" | "55P03" => Failure::Contended,
        // A cached plan whose result type changed, and a function that was dropped or replaced.
        "0A000" | "26000" | "3F000" | "42883" => Failure::Stale,
        // The server became a standby: a new connection may find the primary.
        "25006" => Failure::Stale,
        _ => match code.get(..2) {
            Some("08") => Failure::Lost,
            Some("40" | "53" | "57") => Failure::Unavailable,
            _ => Failure::Fault,
        },
    }
}

/// What a tool answers when the database raises an error with this code.
pub(crate) fn of_tool(code: &str) -> StatusCode {
    match code {
        "P0002" => StatusCode::NOT_FOUND,
        "55000" => StatusCode::CONFLICT,
        "55P03" => StatusCode::SERVICE_UNAVAILABLE,
        "25006" => StatusCode::SERVICE_UNAVAILABLE,
        _ => match code.get(..2) {
            Some("0A" | "22" | "54") => StatusCode::BAD_REQUEST,
            Some("23") => StatusCode::CONFLICT,
            Some("08" | "40" | "53" | "57") => StatusCode::SERVICE_UNAVAILABLE,
            // Privileges, missing functions and bugs: the caller cannot correct these.
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_meaning() {
        for (code, failure) in [
            ("08006", Failure::Lost),
            ("57P01", Failure::Terminated),
            ("57P02", Failure::Lost),
            ("40P01", Failure::Contended),
            ("40001", Failure::Contended),
            ("55P03", Failure::Contended),
            ("40003", Failure::Unavailable),
            ("53100", Failure::Unavailable),
            ("57014", Failure::Unavailable),
            ("42883", Failure::Stale),
            ("25006", Failure::Stale),
            ("22P02", Failure::Fault),
            ("XX000", Failure::Fault),
            ("42501", Failure::Fault),
            ("", Failure::Fault),
        ] {
            assert_eq!(classify_code(code), failure, "{code}");
        }
    }

    #[test]
    fn a_tool_s_caller_is_told_what_he_can_help() {
        for (code, status) in [
            ("22023", 400),
            ("22P02", 400),
            ("0A000", 400),
            ("54000", 400),
            ("23505", 409),
            ("23514", 409),
            ("55000", 409),
            ("P0002", 404),
            ("55P03", 503),
            ("40001", 503),
            ("57014", 503),
            ("57P01", 503),
            ("25006", 503),
            ("42501", 500),
            ("42883", 500),
            ("XX000", 500),
            ("", 500),
        ] {
            assert_eq!(of_tool(code).as_u16(), status, "{code}");
        }
    }
}
