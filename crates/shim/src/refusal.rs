//! Responses that the shim gives by itself, without a row of the database.

use hyper::StatusCode;

/// Why a request never reached the database, or its answer never reached the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    NotFound,
    MethodNotAllowed,
    TooLarge,
    MediaType,
    BadBody,
    BodyTimeout,
    Overload,
    DatabaseAway,
    ConnectionLost,
    DatabaseBusy,
    DatabaseError,
    Deadline,
    Unacknowledged,
}

impl Refusal {
    pub(crate) const ALL: [Self; 13] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::MediaType,
        Self::BadBody,
        Self::BodyTimeout,
        Self::Overload,
        Self::DatabaseAway,
        Self::ConnectionLost,
        Self::DatabaseBusy,
        Self::DatabaseError,
        Self::Deadline,
        Self::Unacknowledged,
    ];

    /// The name in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::BadBody => "bad_body",
            Self::BodyTimeout => "body_timeout",
            Self::Overload => "overload",
            Self::DatabaseAway => "database_away",
            Self::ConnectionLost => "connection_lost",
            Self::DatabaseBusy => "database_busy",
            Self::DatabaseError => "database_error",
            Self::Deadline => "deadline",
            Self::Unacknowledged => "unacknowledged",
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadBody => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Overload
            | Self::DatabaseAway
            | Self::ConnectionLost
            | Self::DatabaseBusy
            | Self::Deadline
            | Self::Unacknowledged => StatusCode::SERVICE_UNAVAILABLE,
            Self::DatabaseError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
