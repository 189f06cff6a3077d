//! The codes themselves, ascending; the constructors say what kind of failure each is.

use super::Class::{Configuration, Consent, Recipient, Request, Transient, Uncertain};
use super::Fallback::{Careful, No, Yes};
use super::Retry::{After, Later, Never, Slower};
use super::{Advice, Class, ErrorCode, Fallback, Retry};

// One line a code, whatever its length.
#[rustfmt::skip]
pub(super) const TABLE: &[ErrorCode] = &[
    account(10001, "The account is not active"),
    wrong(11751, "The media are larger than the provider takes"),
    wrong(12300, "The answer to a webhook has a content type that Twilio does not know"),
    wrong(14107, "Too many automatic replies to one number within half a minute"),
    wrong(14109, "Automatic replies were stopped to break a loop"),
    account(20003, "The credentials are wrong or lack a permission"),
    account(20005, "The account is not active"),
    wrong(20404, "There is no such resource: the path or an identifier is wrong"),
    wrong(20410, "The resource is gone"),
    entry(20429, "Too many requests; this one was not processed", Transient, Slower, No),
    entry(20500, "Twilio failed; the request may have been processed", Uncertain, Never, No),
    entry(20503, "Twilio was away; the request may have been processed", Uncertain, Never, No),
    unreachable(21211, "The recipient's number is not valid"),
    wrong(21212, "The sender's number is not valid"),
    unreachable(21214, "The recipient's number cannot be reached"),
    unreachable(21217, "The number does not look like one that exists"),
    wrong(21218, "The application's identifier is not valid"),
    account(21219, "The recipient's number is not verified, which a trial account needs"),
    wrong(21266, "Sender and recipient are the same number"),
    unreachable(21268, "The recipient's number belongs to a premium or information service"),
    sender(21408, "The account may not send to the recipient's region"),
    account(21470, "The account's identifier is not valid"),
    account(21471, "The account does not exist"),
    account(21472, "The account is not active"),
    wrong(21601, "The number cannot receive messages"),
    wrong(21602, "The message has neither text nor media nor a content template"),
    wrong(21603, "The message has no sender and no messaging service"),
    wrong(21604, "The message has no recipient"),
    wrong(21605, "The text is longer than the old interface takes"),
    sender(21606, "The sender cannot send messages to this destination"),
    account(21607, "A trial account must send from its sandbox number"),
    account(21608, "The recipient's number is not verified, which a trial account needs"),
    wrong(21609, "The status callback's URL is not valid"),
    unwanted(21610, "The recipient has opted out of messages from this sender"),
    limited(21611, "The sender's queue is full", Slower),
    unreachable(21612, "No route leads from this sender to this recipient"),
    unreachable(21614, "The recipient's number is not a mobile number"),
    wrong(21616, "The sender matches several numbers of the account"),
    wrong(21617, "The text is longer than 1600 characters"),
    wrong(21618, "The text cannot be sent"),
    wrong(21619, "The message could not be created from this request"),
    wrong(21620, "A media URL is not valid"),
    sender(21621, "The sender cannot send media"),
    sender(21622, "The account cannot send media"),
    wrong(21623, "The message has more media than allowed"),
    wrong(21624, "The validity period is out of range"),
    wrong(21626, "The status callback's event is not valid"),
    wrong(21627, "The maximum price is not a number"),
    unreachable(21635, "The recipient's number cannot receive messages"),
    wrong(21652, "The subject is longer than 40 characters"),
    wrong(21653, "The message has more recipients than allowed"),
    wrong(21654, "The message has no content template, which its parameters need"),
    wrong(21655, "The content template's identifier is not valid"),
    wrong(21656, "The content template's variables are not valid"),
    wrong(21657, "The sender's identifier is not valid"),
    wrong(21658, "A parameter is longer than allowed"),
    sender(21659, "The sender is not a number of Twilio's, or of another country's short codes"),
    sender(21660, "The sender belongs to another account"),
    wrong(21664, "A fallback sender needs a messaging service that has an RCS sender"),
    wrong(21666, "A fallback sender cannot be combined with this sender"),
    wrong(21667, "The fallback sender is not valid"),
    sender(21701, "The messaging service does not exist"),
    sender(21702, "The messaging service cannot send at present"),
    sender(21703, "The messaging service has no number that suits the recipient"),
    sender(21704, "The messaging service has no numbers"),
    sender(21705, "The messaging service's identifier is not valid"),
    sender(21708, "The alphanumeric sender is missing"),
    sender(21709, "The messaging service may not use this alphanumeric sender"),
    sender(21711, "The sender does not belong to the messaging service"),
    sender(21712, "The sender belongs to another messaging service"),
    sender(21715, "The sender lacks what the messaging service needs"),
    sender(21717, "The brand of the 10DLC campaign is not registered"),
    sender(21729, "The 10DLC campaign is suspended"),
    busy(21730, "Twilio is under maintenance"),
    wrong(21902, "The invoice tag is longer than 32 characters"),
    wrong(21910, "Sender and recipient are not on the same channel"),
    account(23001, "Redaction of messages conflicts with STOP filtering of long codes"),
    account(23002, "Redaction of messages conflicts with STOP filtering of short codes"),
    account(23003, "Redaction of messages conflicts with sticky senders"),
    account(23004, "Redaction of messages conflicts with advanced opt-out"),
    account(23005, "Redaction of numbers conflicts with fallback to a long code"),
    account(23006, "Redaction conflicts with inbound webhooks by GET"),
    limited(30001, "The sender's queue overflowed", Slower),
    account(30002, "The account was suspended"),
    entry(30003, "The handset is off, away or not able to receive", Recipient, HALF_HOUR, Yes),
    unwanted(30004, "The recipient or the carrier blocks messages from this sender"),
    unreachable(30005, "The number is unknown or no longer in use"),
    unreachable(30006, "The number is a landline or its carrier cannot be reached"),
    banned(30007, "The message was filtered for its content or the sender's conduct"),
    unsure(30008, "The carrier gave no reason", HALF_HOUR),
    wrong(30009, "A part of an inbound message is missing"),
    unfit(30010, "The price is above the maximum that was given"),
    unfit(30011, "The recipient's number cannot receive media"),
    wrong(30012, "The validity period is too short"),
    wrong(30013, "The validity period is too long"),
    wrong(30014, "The recipient's attributes are not valid"),
    wrong(30015, "The channel is not supported"),
    wrong(30016, "Sender and recipient are on channels that do not fit"),
    busy(30017, "The carrier's network is congested"),
    sender(30018, "The carrier wants the sender registered beforehand"),
    unfit(30019, "The message is larger than the carrier takes"),
    busy(30020, "Twilio failed to schedule the message"),
    busy(30021, "Twilio failed inside its messaging service"),
    limited(30022, "The 10DLC campaign sends faster than its carrier allows", Slower),
    limited(30023, "The 10DLC brand has used up its day's messages", DAY),
    sender(30024, "The numeric sender is not provisioned with the carrier"),
    limited(30027, "The 10DLC brand has used up its day's messages to T-Mobile", DAY),
    wrong(30028, "The version of the interface is not valid"),
    wrong(30029, "The content retention is not valid"),
    wrong(30030, "The address retention is not valid"),
    wrong(30031, "The maximum rate is not valid"),
    sender(30032, "The toll-free sender has not been verified"),
    sender(30033, "The 10DLC campaign is suspended"),
    sender(30034, "The sender is not registered for 10DLC"),
    sender(30035, "The sender is still being set up"),
    busy(30036, "The message was still waiting when its validity period ended"),
    wrong(30038, "A one-time password in an inbound message was redacted"),
    wrong(30039, "The message was stopped to break a loop"),
    quiet(30047, "Quiet hours at the recipient, and Twilio could not send the message later"),
    wrong(30103, "Links could not be shortened"),
    account(30106, "Links cannot be shortened: the account has no domain for it"),
    account(30107, "Links cannot be shortened: the domain has no certificate"),
    banned(30110, "The domain of a link is blocked"),
    banned(30111, "A link is on a block list"),
    account(30124, "The messaging service's identifier is empty"),
    account(30127, "The messaging service's identifier is not valid"),
    wrong(30400, "The parameters are not valid"),
    wrong(30404, "There is no such message"),
    wrong(30409, "The message can no longer be canceled"),
    unsure(30410, "The provider did not answer in time; Twilio gave up to avoid doubles", Never),
    limited(30450, "Taken for an attack by message pumping and blocked for a while", HALF_HOUR),
    busy(30500, "The message failed for a reason that will pass"),
    quiet(30610, "Quiet hours at the recipient, in which marketing messages are not allowed"),
    wrong(35111, "A scheduled message has no time to be sent at"),
    wrong(35114, "The time to send at is too near or too far away"),
    wrong(35115, "The time to send at is too near, too far away or not in UTC"),
    wrong(35117, "The time to send at is too near or too far away"),
    wrong(35118, "A scheduled message needs a messaging service"),
    account(35125, "The account has as many scheduled messages as allowed"),
    wrong(35126, "The schedule's type is not supported on this channel"),
    sender(63001, "The channel did not accept the credentials"),
    sender(63002, "The channel does not know the sender"),
    unreachable(63003, "The recipient is not on this channel"),
    banned(63005, "The channel did not accept the content"),
    banned(63006, "The content cannot be put into the channel's form"),
    sender(63007, "The sender is not set up for this channel"),
    sender(63008, "The channel is not set up correctly"),
    unsure(63009, "The channel's provider failed", Later),
    unsure(63010, "Twilio failed while handling the message", Later),
    unsure(63011, "Twilio failed while handling the request", Later),
    unsure(63012, "The channel's provider failed inside", Later),
    banned(63013, "The message breaks the channel's policy"),
    unwanted(63014, "The recipient blocks the sender on this channel"),
    account(63015, "The recipient has not joined the channel's sandbox"),
    unfit(63016, "Outside the 24-hour window only templates may be sent"),
    limited(63017, "The channel is sent to faster than allowed", Slower),
    limited(63018, "The channel's rate or the recipient's share is used up", Slower),
    unfit(63019, "The media could not be downloaded"),
    sender(63020, "The account with Meta's Business Manager is at fault"),
    banned(63021, "The channel finds the content invalid"),
    sender(63022, "The certificate of the sender's name is not valid"),
    unsure(63023, "The channel gave no reason", Later),
    unreachable(63024, "The recipient is not valid on this channel"),
    unfit(63025, "The media exist already"),
    banned(63026, "The channel takes the content for spam"),
    unfit(63027, "There is no template in this language"),
    unfit(63028, "The number of template variables is wrong"),
    busy(63029, "The recipient's device could not load the template"),
    unfit(63030, "A parameter is not supported for this kind of message"),
    wrong(63031, "Sender and recipient are the same"),
    unreachable(63032, "WhatsApp takes part of its users out of messages like this one"),
    unwanted(63033, "The recipient is blocked from receiving messages"),
    unfit(63034, "The media are larger than the channel takes"),
    sender(63035, "The RCS agent has not been launched"),
    unreachable(63036, "The recipient cannot be reached by RCS at present"),
    busy(63037, "The media could not be uploaded to the channel"),
    limited(63038, "The account has used up its day's messages", DAY),
    banned(63039, "The channel warns that messages like this annoy people"),
    unfit(63040, "The template was rejected"),
    unfit(63041, "The template is paused for its quality"),
    unfit(63042, "The template is disabled"),
    unreachable(63049, "Meta chose not to deliver this marketing message"),
    sender(63051, "The WhatsApp Business account is locked"),
    sender(63062, "The terms of WhatsApp's marketing interface have not been accepted"),
    sender(63112, "The WhatsApp Business account was disabled"),
    wrong(90001, "The message's identifier is not valid"),
    wrong(90007, "The validity period is out of range"),
    wrong(90009, "A message of this identifier exists already"),
    account(90010, "The account is not active"),
    wrong(90014, "The validity period is not a positive whole number"),
    wrong(92001, "The content template has no types"),
    wrong(92002, "The content template has too many variables"),
    wrong(92003, "The content template has no language"),
    wrong(92004, "The content template's language is not valid"),
    wrong(92005, "The content template's identifier is missing"),
    wrong(92006, "The content template's identifier is not valid"),
    wrong(92007, "The content template's variables are not valid"),
    wrong(92008, "The content type is not supported"),
];

const fn entry(
    code: i32,
    meaning: &'static str,
    class: Class,
    retry: Retry,
    fallback: Fallback,
) -> ErrorCode {
    ErrorCode {
        code,
        meaning,
        advice: Advice {
            class,
            retry,
            fallback,
        },
    }
}

/// Wrong everywhere.
const fn wrong(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Request, Never, No)
}

/// Wrong for this channel, where another may take it.
const fn unfit(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Request, Never, Yes)
}

/// Against rules of a carrier or of Twilio, which apply to other channels too.
const fn banned(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Request, Never, Careful)
}

/// Not to be reached in this way.
const fn unreachable(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Recipient, Never, Yes)
}

/// Does not want it, on any channel.
const fn unwanted(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Consent, Never, No)
}

/// The account needs its owner.
const fn account(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Configuration, Never, No)
}

/// The sender or its channel needs its owner; another can do it.
const fn sender(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Configuration, Never, Yes)
}

/// Too busy at the moment.
const fn busy(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Transient, Later, Yes)
}

/// Too fast or too much.
const fn limited(code: i32, meaning: &'static str, retry: Retry) -> ErrorCode {
    entry(code, meaning, Transient, retry, Yes)
}

/// At the wrong time of day, by any way.
const fn quiet(code: i32, meaning: &'static str) -> ErrorCode {
    entry(code, meaning, Transient, HOUR, No)
}

/// May have arrived.
const fn unsure(code: i32, meaning: &'static str, retry: Retry) -> ErrorCode {
    entry(code, meaning, Uncertain, retry, Careful)
}

const HALF_HOUR: Retry = After(1_800);
const HOUR: Retry = After(3_600);
const DAY: Retry = After(86_400);
