//! The outcome of a create and of its message.

/// The outcome of one create and of the message it creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// An error code, a count or milliseconds; 0 where the outcome takes none.
    pub(crate) argument: u32,
    pub(crate) reply: Reply,
    pub(crate) course: Course,
}

/// The response to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 201 with the message.
    Created,
    /// An error with this code; nothing is accepted.
    Refused(u32),
    /// 429 for this many creates to the recipient, then 201.
    TooMany(u32),
    /// Accepted at once, answered after this many milliseconds.
    Slow(u32),
    /// Answered after the last callback.
    AfterCallbacks,
    /// No valid response.
    Broken { is_accepted: bool, how: Breakage },
}

/// The kinds of broken responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// The connection is closed.
    Close,
    /// No response, and the connection stays open.
    Hang,
    /// 500 with Twilio's error 20500.
    ServerError,
    /// 503 with Twilio's error 20503.
    Unavailable,
    /// 502 with a proxy's HTML.
    Proxy,
    /// 201 with a body that is cut short.
    Garbled,
}

/// What happens to an accepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Delivered,
    /// As delivered, then read. SMS has no status read.
    Read,
    /// Stays sent: the carrier reports nothing.
    Sent,
    /// As delivered, after the late delay.
    Late,
    /// Stays in its first status; no callbacks.
    Silent,
    /// As delivered, without callbacks.
    Lost,
    /// The callback `delivered` comes before `sent`.
    Disorder,
    /// Every callback is sent three times.
    Repeated,
    /// With an unknown status and unknown parameters.
    Novel,
    Undelivered(u32),
    Failed(u32),
    /// Undelivered, and after the late delay delivered after all.
    Corrected(u32),
    /// Undelivered and failed are both reported.
    Both(u32),
    /// As undelivered, without callbacks.
    LostFailure(u32),
}

/// What a fault does to one report, a callback for example. The message itself is not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disruption {
    /// It is never made.
    Drop,
    /// It is made after the late delay, and later ones do not wait for it.
    Late,
    /// It is made three times.
    Repeated,
}

impl Disruption {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let all = [Self::Drop, Self::Late, Self::Repeated];
        all.into_iter()
            .find(|disruption| disruption.as_str() == name)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Late => "late",
            Self::Repeated => "repeated",
        }
    }
}

/// One half of an outcome; the other half is as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Reply(Reply),
    Course(Course),
}

impl Outcome {
    /// The outcome of ordinary numbers.
    pub(crate) const DELIVERED: Self = Self {
        name: "delivered",
        argument: 0,
        reply: Reply::Created,
        course: Course::Delivered,
    };

    /// This outcome with one half replaced: the one in which `other` differs from the usual.
    pub(crate) fn overlaid_by(self, other: Self) -> Self {
        if other.reply == Reply::Created {
            Self {
                name: other.name,
                argument: other.argument,
                course: other.course,
                ..self
            }
        } else {
            Self {
                name: other.name,
                argument: other.argument,
                reply: other.reply,
                ..self
            }
        }
    }

    /// The name with its argument.
    pub(crate) fn label(&self) -> String {
        match self.argument {
            0 => self.name.to_owned(),
            argument => format!("{} {argument}", self.name),
        }
    }

    pub(crate) fn named(name: &'static str, argument: u32, half: Half) -> Self {
        let (reply, course) = match half {
            Half::Reply(reply) => (reply, Course::Delivered),
            Half::Course(course) => (Reply::Created, course),
        };
        Self {
            name,
            argument,
            reply,
            course,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_reply_keeps_the_course() {
        let failing = Outcome::from_name("undelivered", 30003).unwrap();
        let dropped = failing.overlaid_by(Outcome::from_name("drop", 0).unwrap());
        assert_eq!(dropped.course, Course::Undelivered(30003));
        assert_eq!(
            dropped.reply,
            Reply::Broken {
                is_accepted: true,
                how: Breakage::Close
            }
        );
    }
}
