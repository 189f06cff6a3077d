-- Messages, the log of their events, and the one function that changes their state.
-- No search_path in apply_state: it is on the hot path, and the functions that receive requests set it once for all.

-- This table and its log have no check constraints: PostgreSQL parses each of them again for every
-- statement, which took a sixth of the ingest. Only functions that check their arguments write here.
create table twilio.message (
    -- Columns of fixed width that are never null come first, then indexed ones: an update compares the indexed columns in both
    -- versions of a row, and finds them without decoding others. Collation "C" compares bytes.
    message_id bigint generated always as identity primary key,
    root_id bigint not null,
    created_at timestamptz not null default twilio.now(),
    step smallint not null default 0,
    try smallint not null default 1,
    is_corrected boolean not null default false,
    is_blocked boolean not null default false,
    is_simulated boolean not null default false,
    direction text not null default 'outbound',
    message_sid text collate "C" unique,
    from_address text collate "C",
    account_sid text collate "C",
    provider text not null default 'twilio',
    channel text not null default 'sms',
    to_address text collate "C",
    messaging_service_sid text,
    body text,
    media_urls text[],
    status text not null,
    error_code int,
    error_message text,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    send_at timestamptz,
    expires_at timestamptz,
    idempotency_key text collate "C",
    metadata jsonb,
    twilio_parameters jsonb,
    status_callback text,
    num_segments smallint,
    price numeric,
    price_unit text,
    constraint message_chain_is_a_line unique (root_id, step, try)
)
-- Room for the later states of a row on its own page: updates stay HOT.
with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create unique index message_idempotency_key on twilio.message (idempotency_key)
where idempotency_key is not null;

comment on table twilio.message is 'Messages: one row per create request at one provider, from when it was requested or first reported.';
comment on column twilio.message.message_id is 'Our identifier.';
comment on column twilio.message.root_id is 'First message of the chain: itself, or the original that it is a fallback of.';
comment on column twilio.message.created_at is 'When the message was requested, or first reported.';
comment on column twilio.message.step is 'Place in the chain of fallbacks, from 0.';
comment on column twilio.message.try is 'Number of the create request of this step, from 1.';
comment on column twilio.message.is_corrected is 'Whether both a failure and a delivery were reported.';
comment on column twilio.message.is_blocked is 'Whether an inbound message came from a blocked sender: it is stored, but not delivered to consumers.';
comment on column twilio.message.is_simulated is 'Whether it is simulated and not sent.';
comment on column twilio.message.direction is 'outbound or inbound.';
comment on column twilio.message.message_sid is 'Twilio''s identifier; null until a provider accepted the message.';
comment on column twilio.message.from_address is 'Sender, with its channel prefix.';
comment on column twilio.message.account_sid is 'Account that the message belongs to; null for SMSGate.';
comment on column twilio.message.provider is 'twilio or smsgate.';
comment on column twilio.message.channel is 'sms, whatsapp, rcs, messenger, …, by the prefix of the addresses.';
comment on column twilio.message.to_address is 'Recipient, with its channel prefix: the requested one, or that of the first event if others created the message.';
comment on column twilio.message.messaging_service_sid is 'Messaging service that was used, or null.';
comment on column twilio.message.body is 'Text, if it is known: callbacks do not contain it.';
comment on column twilio.message.media_urls is 'Addresses of the media, in order.';
comment on column twilio.message.status is 'The highest status in the set of events.';
comment on column twilio.message.error_code is 'Error code of a failed message.';
comment on column twilio.message.error_message is 'Why the message failed, in the words of the provider or of the worker, with or without an error code.';
comment on column twilio.message.sent_at is 'When it was first reported as sent.';
comment on column twilio.message.delivered_at is 'When it was first reported as delivered, or as read if that was reported alone.';
comment on column twilio.message.read_at is 'When it was first reported as read.';
comment on column twilio.message.failed_at is 'When a failure was first reported.';
comment on column twilio.message.send_at is 'When it is to be sent; null for at once.';
comment on column twilio.message.expires_at is 'When it expires: it is not sent any more from then on.';
comment on column twilio.message.idempotency_key is 'The caller''s own key: a second message with the same key is not created.';
comment on column twilio.message.metadata is 'The caller''s own data.';
comment on column twilio.message.twilio_parameters is 'Further parameters of the create request at Twilio.';
comment on column twilio.message.status_callback is 'The caller''s own StatusCallback, or null for ours.';
comment on column twilio.message.num_segments is 'Segments that Twilio counts.';
comment on column twilio.message.price is 'Price, as Twilio gives it: negative.';
comment on column twilio.message.price_unit is 'Currency of the price.';

select pg_catalog.pg_extension_config_dump('twilio.message', '');
select pg_catalog.pg_extension_config_dump('twilio.message_message_id_seq', '');

create table twilio.message_event (
    event_id bigint generated always as identity primary key,
    -- No foreign key: it costs a fifth of the ingest, and only our functions write here: record, bind, purge and redact.
    message_id bigint not null,
    received_at timestamptz not null,
    xid xid8 not null default pg_current_xact_id(),
    is_advance boolean not null,
    error_code int,
    status text not null,
    source text not null,
    key_id text,
    public_url text,
    params jsonb not null,
    event_time timestamptz,
    constraint message_event_is_said_once unique nulls not distinct (message_id, status, error_code)
)
with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

comment on table twilio.message_event is 'Log of all events of messages. A repeated event only adds parameters to its row; redact blanks parameters, and messages that turn out to be one are merged.';
comment on column twilio.message_event.event_id is 'Order of recording.';
comment on column twilio.message_event.message_id is 'Message that it is about.';
comment on column twilio.message_event.received_at is 'When it was received.';
comment on column twilio.message_event.xid is 'Transaction that recorded it, for the feed; meaningless in a restored database.';
comment on column twilio.message_event.is_advance is 'Whether its status was the highest of the message so far.';
comment on column twilio.message_event.error_code is 'Reported error code.';
comment on column twilio.message_event.status is 'Reported status, known to us or not.';
comment on column twilio.message_event.event_time is 'When the provider says that it happened; null if only callbacks reported it, which have no time.';
comment on column twilio.message_event.source is 'callback, stream (an event of Event Streams), poll, api (a response of Twilio), outbox (our own decision), smsgate or simulated.';
comment on column twilio.message_event.key_id is 'Key that signed its request.';
comment on column twilio.message_event.public_url is 'Base URL that it was signed for.';
comment on column twilio.message_event.params is 'All parameters of the event and of its repeats, with the first value of each name; a name that one request repeats has an array.';

select pg_catalog.pg_extension_config_dump('twilio.message_event', '');
select pg_catalog.pg_extension_config_dump('twilio.message_event_event_id_seq', '');

create table twilio_internal.purged_message (
    sid_digest uuid primary key
);

comment on table twilio_internal.purged_message is 'Digests of purged messages whose callbacks count as repeats: incoming messages, and failed ones whose recipient refuses messages.';
comment on column twilio_internal.purged_message.sid_digest is 'The first 128 bits of the SHA-256 of the message''s SID.';

-- A restored copy must recognise them too.
select pg_catalog.pg_extension_config_dump('twilio_internal.purged_message', '');

create function twilio_internal.sid_digest(message_sid text)
returns uuid
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'sid_digest_wrapper';

comment on function twilio_internal.sid_digest(text) is 'Returns the key of a message in purged_message.';
create function twilio_internal.is_purged(message_sid text)
returns boolean
language c
volatile
strict
as 'MODULE_PATHNAME', 'is_purged_wrapper';

comment on function twilio_internal.is_purged(text) is 'Returns whether purged_message has a message of this SID, as the table is now.';

create function twilio_internal.status_rank(provider text, status text)
returns smallint
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'status_rank_wrapper';

comment on function twilio_internal.status_rank(text, text) is
    'Returns the rank of a provider''s status; null if the status is not known.';

create function twilio_internal.status_name(provider text, rank smallint)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'status_name_wrapper';

comment on function twilio_internal.status_name(text, smallint) is
    'Returns the status of a provider by its rank.';

create function twilio_internal.status_kind(provider text, status text)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'status_kind_wrapper';

comment on function twilio_internal.status_kind(text, text) is
    'Returns the kind of a provider''s status: pending, success, failure or withdrawn; null if the status is not known.';

create function twilio_internal.provider_error_text(params jsonb)
returns text
language sql
immutable
return coalesce(nullif(params ->> 'ErrorMessage', ''), nullif(params ->> 'ChannelStatusMessage', ''));

comment on function twilio_internal.provider_error_text(jsonb) is 'Returns the wording of an error in the parameters of an event.';

create function twilio_internal.error_message_of(message_id bigint, error_code int)
returns text
language sql
stable
begin atomic
    -- An unknown status has no rank, so its wording does not count either. The wording of another code is not shown for this
    -- one; that of a failure without a code may belong to any.
    select twilio_internal.provider_error_text(e.params)
    from twilio.message_event e
    join twilio.message m on m.message_id = e.message_id
    where e.message_id = error_message_of.message_id
        and twilio_internal.provider_error_text(e.params) is not null
        and case
            when e.error_code is null then twilio_internal.status_kind(m.provider, e.status) = 'failure'
            else e.error_code = error_message_of.error_code and twilio_internal.status_rank(m.provider, e.status) is not null
        end
    -- Ranks are distinct, so this is one event.
    order by e.error_code is null, twilio_internal.status_rank(m.provider, e.status) desc
    limit 1;
end;

comment on function twilio_internal.error_message_of(bigint, int) is
    'Returns the wording of a failed message''s error: of the events with its error code, else of failures without a code.';

create function twilio_internal.message_state(message_ids bigint[])
returns table (
    message_id bigint,
    status text,
    error_code int,
    error_message text,
    is_corrected boolean,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz
)
language sql
stable
begin atomic
    -- State is a function of the set of events, so neither order nor repeats can matter.
    select
        s.message_id,
        twilio_internal.status_name(s.provider, s.top),
        c.code,
        case when s.kind = 'failure' then twilio_internal.error_message_of(s.message_id, c.code) end,
        s.is_corrected,
        s.sent_at,
        coalesce(s.delivered_at, s.read_at),
        s.read_at,
        s.failed_at
    from (
        select
            e.message_id,
            m.provider,
            max(r.rank) as top,
            twilio_internal.status_kind(m.provider, twilio_internal.status_name(m.provider, max(r.rank))) as kind,
            max((r.rank::bigint << 31) + (2147483647 - e.error_code)) as code,
            bool_or(r.kind = 'failure') and bool_or(r.kind = 'success') as is_corrected,
            min(e.received_at) filter (where e.status = 'sent') as sent_at,
            min(e.received_at) filter (where e.status = 'delivered') as delivered_at,
            min(e.received_at) filter (where e.status = 'read') as read_at,
            min(e.received_at) filter (where r.kind = 'failure') as failed_at
        from twilio.message_event e
        join twilio.message m on m.message_id = e.message_id
        cross join lateral (
            select
                twilio_internal.status_rank(m.provider, e.status) as rank,
                twilio_internal.status_kind(m.provider, e.status) as kind
        ) r
        where e.message_id = any (message_state.message_ids) and r.rank is not null
        group by e.message_id, m.provider
    ) s
    cross join lateral (
        -- Rank and code are one number: that of the highest rank with a code, and there of the lowest code.
        select case when s.kind = 'failure' then 2147483647 - (s.code & 2147483647)::int end as code
    ) c;
end;

comment on function twilio_internal.message_state(bigint[]) is
    'Computes the state of messages from their events; messages without a known status are left out.';

create function twilio_internal.apply_state(message_ids bigint[])
returns void
language plpgsql
volatile
-- plan profile: nested loop
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    update twilio.message m
    set status = s.status,
        error_code = s.error_code,
        error_message = s.error_message,
        is_corrected = s.is_corrected,
        sent_at = s.sent_at,
        delivered_at = s.delivered_at,
        read_at = s.read_at,
        failed_at = s.failed_at
    from twilio_internal.message_state(message_ids) s
    where m.message_id = s.message_id
        and (
            m.status, m.error_code, m.error_message, m.is_corrected, m.sent_at, m.delivered_at, m.read_at, m.failed_at
        ) is distinct from (
            s.status, s.error_code, s.error_message, s.is_corrected, s.sent_at, s.delivered_at, s.read_at, s.failed_at
        );
end
$$;

comment on function twilio_internal.apply_state(bigint[]) is
    'Writes the state that follows from the events of messages; the caller has locked them.';

create type twilio_internal.report as (
    message_id bigint,
    account_sid text,
    message_sid text,
    direction text,
    channel text,
    from_address text,
    to_address text,
    body text,
    media_urls text,
    status text,
    error_code int,
    source text,
    params text,
    received_at timestamptz,
    messaging_service_sid text,
    event_time timestamptz
);

comment on type twilio_internal.report is
    'A report about a message: of a stored message by its id and direction, of another by its SID and what it is made of. media_urls and params are JSON; without received_at it is received now.';

create function twilio_internal.make_report(
    status text,
    source text default 'callback',
    message_id bigint default null,
    error_code int default null,
    params text default '{}',
    received_at timestamptz default null,
    account_sid text default null,
    message_sid text default null,
    direction text default null,
    channel text default null,
    from_address text default null,
    to_address text default null,
    body text default null,
    media_urls text default null,
    messaging_service_sid text default null,
    event_time timestamptz default null
)
returns twilio_internal.report
language sql
immutable
return row(
    message_id, account_sid, message_sid, direction, channel, from_address, to_address,
    body, media_urls, status, error_code, source, params, received_at, messaging_service_sid, event_time
)::twilio_internal.report;

comment on function twilio_internal.make_report(
    text, text, bigint, int, text, timestamptz, text, text, text, text, text, text, text, text, text, timestamptz
) is
    'Makes a report for twilio_internal.record.';

create function twilio_internal.record(reports twilio_internal.report[])
returns table (message_id bigint, event_id bigint, is_new boolean)
language c
volatile
strict
as 'MODULE_PATHNAME', 'record_reports_wrapper';

comment on function twilio_internal.record(twilio_internal.report[]) is
    'Records events of messages and updates the state of the messages; the only writer of message state. Returns one row per item, in order; message_id is null where the SID belongs to another account or to a purged message.';
