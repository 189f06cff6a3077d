-- The queue of messages to be sent, and their attempts.

create table twilio_internal.outbox (
    message_id bigint primary key,
    sender_id int not null,
    state text not null default 'waiting'
        constraint state_is_known check (state in ('waiting', 'unknown', 'dead')),
    is_repeatable boolean not null,
    due_at timestamptz not null,
    expires_at timestamptz not null,
    lease_token uuid,
    lease_until timestamptz,
    tries smallint not null default 0
        constraint tries_is_not_negative check (tries >= 0),
    crashes smallint not null default 0
        constraint crashes_is_not_negative check (crashes >= 0),
    is_provider_away boolean not null default false,
    has_hours boolean not null default true,
    quiet_until timestamptz,
    quiet_from timestamptz,
    looked_up_at timestamptz,
    candidates text[],
    problem text,
    constraint lease_is_whole check ((lease_token is null) = (lease_until is null)),
    constraint dead_is_never_due check (state <> 'dead' or due_at = 'infinity')
)
-- Rows live for seconds: room for their updates, and a vacuum as soon as there is something to gain.
with (
    fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- Claims and finishes change neither, so their updates stay HOT.
create index outbox_sender_due on twilio_internal.outbox (sender_id, due_at);
create index outbox_expires_at on twilio_internal.outbox (expires_at);
create index outbox_unknown on twilio_internal.outbox (message_id) where state in ('unknown', 'dead');
-- Holds rows only while a provider is away.
create index outbox_provider_away on twilio_internal.outbox (sender_id, due_at) where is_provider_away;

comment on table twilio_internal.outbox is 'Messages with open work; a row is deleted when its work has ended.';
comment on column twilio_internal.outbox.message_id is 'The message.';
comment on column twilio_internal.outbox.sender_id is 'Sender of the message.';
comment on column twilio_internal.outbox.state is 'waiting (to be sent), unknown (may have been sent) or dead (given up, since the worker crashed on it).';
comment on column twilio_internal.outbox.is_repeatable is 'Whether it is sent again when its outcome stays unknown: at_least_once.';
comment on column twilio_internal.outbox.due_at is 'When it is due next; infinity for never.';
comment on column twilio_internal.outbox.expires_at is 'When it expires: it is not sent any more from then on.';
comment on column twilio_internal.outbox.lease_token is 'Lease: the id of the attempt, or a token for other work; null if it is not leased.';
comment on column twilio_internal.outbox.lease_until is 'When the lease ends; after that its holder counts as crashed.';
comment on column twilio_internal.outbox.tries is 'Number of tries in this state.';
comment on column twilio_internal.outbox.crashes is 'Number of crashes of the worker while it had the lease.';
comment on column twilio_internal.outbox.is_provider_away is 'Whether it waits because its provider could not be reached; it is due at once when the provider is reached again.';
comment on column twilio_internal.outbox.has_hours is 'Whether there may be local hours in which alone it may be sent: its own, or of the rule of a fallback.';
comment on column twilio_internal.outbox.quiet_until is 'When the quiet hours of its recipient end, if it waits for that; null or past if it does not.';
comment on column twilio_internal.outbox.quiet_from is 'When the next quiet hours of its recipient begin, as of the last claim; null if it may be sent at any hour.';
comment on column twilio_internal.outbox.looked_up_at is 'When an unknown outcome was last looked up at Twilio.';
comment on column twilio_internal.outbox.candidates is 'SIDs of the messages at Twilio that may be this one, as of looked_up_at; null if there are none.';
comment on column twilio_internal.outbox.problem is 'Why the look-up did not settle the outcome.';

select pg_catalog.pg_extension_config_dump('twilio_internal.outbox', '');

create table twilio_internal.attempt (
    attempt_id uuid primary key,
    -- No foreign key: its check would lock messages in another order than twilio_internal.record does.
    message_id bigint not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    outcome text
        constraint outcome_is_known check (outcome in ('accepted', 'refused', 'not_processed', 'unknown')),
    http_status int,
    error_code int,
    reason text,
    response jsonb,
    constraint attempt_is_finished_with_an_outcome check ((finished_at is null) = (outcome is null))
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create index attempt_message on twilio_internal.attempt (message_id);

comment on table twilio_internal.attempt is 'Attempts to send messages; a row is written before the request is sent.';
comment on column twilio_internal.attempt.attempt_id is 'Identifier that the StatusCallback carries as parameter attempt; ordered by time.';
comment on column twilio_internal.attempt.message_id is 'The message.';
comment on column twilio_internal.attempt.started_at is 'When it was claimed.';
comment on column twilio_internal.attempt.finished_at is 'When its outcome was recorded.';
comment on column twilio_internal.attempt.outcome is 'accepted, refused, not_processed (safe to repeat) or unknown (may have been sent).';
comment on column twilio_internal.attempt.http_status is 'HTTP status of the response, if there was one.';
comment on column twilio_internal.attempt.error_code is 'Twilio''s error code.';
comment on column twilio_internal.attempt.reason is 'Reason of a failure, in words.';
comment on column twilio_internal.attempt.response is 'JSON of the response, or its beginning as a string if it was not JSON.';

select pg_catalog.pg_extension_config_dump('twilio_internal.attempt', '');

create function twilio_internal.new_attempt_id()
returns uuid
language sql
volatile
begin atomic
    -- RFC 9562's version 7: milliseconds first, so that the index grows at one end, and 74 random bits.
    select encode(
        set_bit(
            set_bit(
                overlay(
                    uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6
                ),
                52, 1
            ),
            53, 1
        ),
        'hex'
    )::uuid;
end;

comment on function twilio_internal.new_attempt_id() is 'Returns a new identifier for an attempt: a UUID of version 7.';
