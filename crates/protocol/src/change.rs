//! Changes of a URL between Twilio, which signed it, and the request's arrival.

/// How path or query were changed between Twilio and the request's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// A slash was removed from the end of the path.
    SlashRemoved,
    /// A slash was added at the end of the path.
    SlashAdded,
    /// A query was added behind the path.
    QueryAdded,
    /// Segments were added before the path.
    PrefixAdded,
    /// Characters of the query were escaped in another way.
    QueryEscaped,
    /// The parameters of the query were put in another order.
    QueryOrdered,
    /// The query was escaped in another way and its parameters were put in another order.
    QueryEscapedAndOrdered,
}

impl Change {
    /// Describes the change.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlashRemoved => "a slash at the end of the path was removed on the way",
            Self::SlashAdded => "a slash at the end of the path was added on the way",
            Self::QueryAdded => "a query was added on the way",
            Self::PrefixAdded => "the path got a prefix on the way",
            Self::QueryEscaped => "the query was escaped differently on the way",
            Self::QueryOrdered => {
                "the parameters of the query were put in another order on the way"
            }
            Self::QueryEscapedAndOrdered => {
                "the query was escaped differently and its parameters were put in another order on the way"
            }
        }
    }

    /// How the user can avoid the change.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::SlashRemoved | Self::SlashAdded | Self::QueryAdded | Self::PrefixAdded => HAND_ON,
            Self::QueryEscaped | Self::QueryOrdered | Self::QueryEscapedAndOrdered => {
                "Let the proxy pass the query on unchanged. Twilio itself may sort and escape the parameters after it has \
                 signed them: give it a URL from twilio.status_callback_url(…), which sorts and escapes them."
            }
        }
    }
}

/// The remedy if a proxy changed what was signed.
pub const HAND_ON: &str = "Let the proxy hand on method, path, query and media type as they came, or give Twilio the \
                           URL as it arrives here.";
