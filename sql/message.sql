-- Messages, everything that was ever said about them, and the one function that changes their state.

create table twilio.message (
    message_id bigint generated always as identity primary key,
    message_sid text collate "C" unique,
    account_sid text collate "C",
    provider text not null default 'twilio'
        constraint provider_is_known check (provider in ('twilio', 'smsgate')),
    direction text not null default 'outbound'
        constraint direction_is_known check (direction in ('outbound', 'inbound')),
    channel text not null default 'sms',
    from_address text,
    to_address text,
    messaging_service_sid text,
    body text,
    media_urls text[],
    status text not null,
    error_code int,
    error_message text,
    is_corrected boolean not null default false,
    is_blocked boolean not null default false,
    root_id bigint not null,
    step smallint not null default 0
        constraint step_is_not_negative check (step >= 0),
    try smallint not null default 1
        constraint try_is_positive check (try > 0),
    created_at timestamptz not null default twilio.now(),
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    constraint message_chain_is_a_line unique (root_id, step, try)
)
-- Room for the later states of a row on its own page: updates stay HOT.
with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

comment on table twilio.message is 'Messages: one row per create at one provider, from the moment it is asked for or first heard of.';
comment on column twilio.message.message_id is 'Our identifier.';
comment on column twilio.message.message_sid is 'Twilio''s identifier; null until a provider accepted the message.';
comment on column twilio.message.account_sid is 'Account that the message belongs to; null for SMSGate.';
comment on column twilio.message.provider is 'twilio or smsgate.';
comment on column twilio.message.direction is 'outbound or inbound.';
comment on column twilio.message.channel is 'sms, whatsapp, rcs, messenger, …, as the addresses say.';
comment on column twilio.message.from_address is 'Sender, with its channel prefix.';
comment on column twilio.message.to_address is 'Recipient, with its channel prefix.';
comment on column twilio.message.messaging_service_sid is 'Messaging service that was used, or null.';
comment on column twilio.message.body is 'Text, where it is known: callbacks do not carry it.';
comment on column twilio.message.media_urls is 'Addresses of the media, in order.';
comment on column twilio.message.status is 'The highest status in the set of events.';
comment on column twilio.message.error_code is 'Error code of a failed message.';
comment on column twilio.message.error_message is 'The provider''s wording of the error, where it gave one.';
comment on column twilio.message.is_corrected is 'Whether both a failure and a delivery were reported.';
comment on column twilio.message.is_blocked is 'Whether an inbound message came from a blocked sender: it is kept and not passed on.';
comment on column twilio.message.root_id is 'First message of the chain: itself, or the one that it stands in for.';
comment on column twilio.message.step is 'Place in the chain of fallbacks, from 0.';
comment on column twilio.message.try is 'Which create of this step it is, from 1.';
comment on column twilio.message.created_at is 'When the message was asked for, or first heard of.';
comment on column twilio.message.sent_at is 'When it was first reported as sent.';
comment on column twilio.message.delivered_at is 'When it was first reported as delivered, or as read if that came alone.';
comment on column twilio.message.read_at is 'When it was first reported as read.';
comment on column twilio.message.failed_at is 'When a failure was first reported.';

select pg_catalog.pg_extension_config_dump('twilio.message', '');
select pg_catalog.pg_extension_config_dump('twilio.message_message_id_seq', '');

create table twilio.message_event (
    event_id bigint generated always as identity primary key,
    -- No foreign key: it costs a fifth of the ingest, and only twilio.record and purge write here.
    message_id bigint not null,
    status text not null,
    error_code int,
    source text not null
        constraint source_is_known check (source in ('callback', 'poll', 'api', 'smsgate', 'simulated')),
    is_advance boolean not null,
    received_at timestamptz not null,
    key_id text,
    public_url text,
    params jsonb not null,
    constraint message_event_is_said_once unique nulls not distinct (message_id, status, error_code)
)
with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

comment on table twilio.message_event is 'Log of everything ever said about a message; rows are added, never changed.';
comment on column twilio.message_event.event_id is 'Order of recording.';
comment on column twilio.message_event.message_id is 'Message that it is about.';
comment on column twilio.message_event.status is 'Reported status, known to us or not.';
comment on column twilio.message_event.error_code is 'Reported error code.';
comment on column twilio.message_event.source is 'callback, poll, api (the answer to a create), smsgate or simulated.';
comment on column twilio.message_event.is_advance is 'Whether it brought the message further than anything before.';
comment on column twilio.message_event.received_at is 'When it was received.';
comment on column twilio.message_event.key_id is 'Signing key that vouched for it.';
comment on column twilio.message_event.public_url is 'Base URL that it was signed for.';
comment on column twilio.message_event.params is 'All parameters; a repeated name holds an array.';

select pg_catalog.pg_extension_config_dump('twilio.message_event', '');
select pg_catalog.pg_extension_config_dump('twilio.message_event_event_id_seq', '');

create function twilio.message_state(message_ids bigint[])
returns table (
    message_id bigint,
    status text,
    error_code int,
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
        twilio.status_name(s.provider, s.top),
        -- Rank and code travel as one number: the highest rank that has a code, there the lowest code.
        case when s.kind = 'failure' then 2147483647 - (s.code & 2147483647)::int end,
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
            twilio.status_kind(m.provider, twilio.status_name(m.provider, max(r.rank))) as kind,
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
                twilio.status_rank(m.provider, e.status) as rank,
                twilio.status_kind(m.provider, e.status) as kind
        ) r
        where e.message_id = any (message_state.message_ids) and r.rank is not null
        group by e.message_id, m.provider
    ) s;
end;

comment on function twilio.message_state(bigint[]) is
    'Computes the state of these messages from their events; messages without a known status are left out.';

create function twilio.record(
    message_ids bigint[],
    account_sids text[],
    message_sids text[],
    directions text[],
    channels text[],
    from_addresses text[],
    to_addresses text[],
    messaging_service_sids text[],
    bodies text[],
    media_urls text[],
    statuses text[],
    error_codes int[],
    sources text[],
    key_ids text[],
    public_urls text[],
    params text[],
    received_at timestamptz[]
)
returns table (message_id bigint, event_id bigint, is_new boolean)
language plpgsql
volatile
rows 64
-- Plans are kept for the life of a connection and may be made on empty tables: nothing but look-ups by
-- index may be chosen then.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    ids bigint[];
    ranks smallint[];
    inserted bigint[];
    known bigint[];
    added bigint[];
    is_moved boolean;
begin
    -- (0) Rows named by their id. Locks are taken in one order everywhere: ids, then SIDs, both sorted.
    if array_remove(message_ids, null) <> '{}' then
        perform from twilio.message m
        where m.message_id = any (record.message_ids)
        order by m.message_id
        for update;
    end if;

    -- (1) Rows named by their SID: each is inserted in its first state, or locked. "do update … where
    -- false" locks without writing; "do nothing" would lose an item when a purge commits in between.
    with new as (
        insert into twilio.message as m (
            message_id, root_id, message_sid, account_sid, direction, channel, from_address, to_address,
            messaging_service_sid, body, media_urls, status, error_code, error_message, created_at,
            sent_at, delivered_at, read_at, failed_at
        )
        overriding system value
        select
            n.id, n.id, n.sid, n.account, n.direction, n.channel, n.sender, n.recipient, n.service,
            n.body,
            case when n.media is not null then array(select jsonb_array_elements_text(n.media::jsonb)) end,
            case when k.kind is null then 'accepted' else n.status end,
            case when k.kind = 'failure' then n.code end,
            case when k.kind = 'failure' and n.code is not null then
                coalesce(n.params::jsonb ->> 'ErrorMessage', n.params::jsonb ->> 'ChannelStatusMessage')
            end,
            n.at,
            case when n.status = 'sent' then n.at end,
            case when n.status in ('delivered', 'read') then n.at end,
            case when n.status = 'read' then n.at end,
            case when k.kind = 'failure' then n.at end
        from (
            select nextval('twilio.message_message_id_seq') as id, d.*
            from (
                select distinct on (i.sid) i.*, coalesce(i.received_at, moment) as at
                from unnest(
                    message_ids, account_sids, message_sids, directions, channels, from_addresses,
                    to_addresses, messaging_service_sids, bodies, media_urls, statuses, error_codes,
                    params, record.received_at
                ) with ordinality i (
                    message_id, account, sid, direction, channel, sender, recipient, service, body,
                    media, status, code, params, received_at, n
                )
                where i.message_id is null
                order by i.sid, i.n
            ) d
        ) n
        cross join lateral (select twilio.status_kind('twilio', n.status) as kind) k
        on conflict (message_sid) do update set message_sid = excluded.message_sid where false
        returning m.message_id
    )
    select array_agg(new.message_id) into inserted from new;

    -- (2) Which row each item is about. A SID that another account holds is nobody's here.
    select
        array_agg(m.message_id order by i.n),
        array_agg(
            case when m.message_id = any (inserted) then 0 else twilio.status_rank(m.provider, m.status) end
            order by i.n
        ),
        array_agg(m.message_id) filter (where not coalesce(m.message_id = any (inserted), false)),
        bool_or(m.from_address is distinct from i.sender or m.to_address is distinct from i.recipient)
    into ids, ranks, known, is_moved
    from unnest(message_ids, account_sids, message_sids, from_addresses, to_addresses)
        with ordinality i (message_id, account, sid, sender, recipient, n)
    left join lateral (
        select x.message_id, x.provider, x.status, x.from_address, x.to_address
        from twilio.message x
        where i.message_id is null and x.message_sid = i.sid and x.account_sid = i.account
        union all
        select x.message_id, x.provider, x.status, x.from_address, x.to_address
        from twilio.message x
        where x.message_id = i.message_id
    ) m on true;

    -- (3) The log. What was said before is said already: the constraint makes repeats harmless.
    with said as (
        select
            i.*,
            twilio.status_rank('twilio', i.status) as rank
        from unnest(
            ids, ranks, statuses, error_codes, sources, key_ids, public_urls, params, record.received_at
        ) with ordinality i (id, before, status, code, source, key_id, public_url, params, received_at, n)
        where i.id is not null
    ),
    new as (
        insert into twilio.message_event as e (
            message_id, status, error_code, source, is_advance, received_at, key_id, public_url, params
        )
        select
            s.id, s.status, s.code, s.source,
            coalesce(s.rank > greatest(s.before, max(s.rank) over earlier), false),
            coalesce(s.received_at, moment), s.key_id, s.public_url, s.params::jsonb
        from said s
        window earlier as (partition by s.id order by s.n rows between unbounded preceding and 1 preceding)
        order by s.n
        on conflict do nothing
        returning e.event_id
    )
    select array_agg(new.event_id) into added from new;

    -- (4) The state, where it changed. A row that was inserted for its only item is right already.
    if cardinality(ids) > coalesce(cardinality(inserted), 0) + coalesce(cardinality(known), 0) then
        known := ids;
    end if;
    if added is not null and known is not null then
        update twilio.message m
        set status = s.status,
            error_code = s.error_code,
            error_message = case when s.error_code is not null then (
                select coalesce(e.params ->> 'ErrorMessage', e.params ->> 'ChannelStatusMessage')
                from twilio.message_event e
                where e.message_id = m.message_id and e.error_code = s.error_code
                order by twilio.status_rank(m.provider, e.status) desc
                limit 1
            ) end,
            is_corrected = s.is_corrected,
            sent_at = s.sent_at,
            delivered_at = s.delivered_at,
            read_at = s.read_at,
            failed_at = s.failed_at
        from twilio.message_state(known) s
        where m.message_id = s.message_id
            and (m.status, m.error_code, m.is_corrected, m.sent_at, m.delivered_at, m.read_at, m.failed_at)
                is distinct from
                (s.status, s.error_code, s.is_corrected, s.sent_at, s.delivered_at, s.read_at, s.failed_at);

        -- Twilio may choose the sender, even the channel, on the way: what comes with the status counts.
        if is_moved then
            update twilio.message m
            set from_address = coalesce(l.sender, m.from_address),
                to_address = coalesce(l.recipient, m.to_address),
                channel = coalesce(l.channel, m.channel),
                messaging_service_sid = coalesce(l.service, m.messaging_service_sid)
            from (
                select distinct on (i.id) i.*
                from unnest(ids, from_addresses, to_addresses, channels, messaging_service_sids, statuses)
                    with ordinality i (id, sender, recipient, channel, service, status, n)
                order by i.id, twilio.status_rank('twilio', i.status) desc nulls last, i.n
            ) l
            where m.message_id = l.id
                and (l.status = m.status or m.from_address is null or m.to_address is null);
        end if;
    end if;

    -- (5) What follows for consent, before anything may be planned on it.
    if added is not null and ('inbound' = any (directions) or array_remove(error_codes, null) <> '{}') then
        perform twilio.note_consent(added);
    end if;

    -- Where all is new, the events are in the order of the items.
    if cardinality(added) = cardinality(ids) then
        return query select n.id, n.event, true from unnest(ids, added) n (id, event);
        return;
    end if;
    return query
    select i.id, e.event_id, coalesce(e.event_id = any (added), false)
    from unnest(ids, statuses, error_codes) with ordinality i (id, status, code, n)
    left join lateral (
        select x.event_id
        from twilio.message_event x
        where x.message_id = i.id and x.status = i.status and x.error_code is not distinct from i.code
        limit 1
    ) e on true
    order by i.n;
end
$$;

comment on function twilio.record(
    bigint[], text[], text[], text[], text[], text[], text[], text[], text[], text[], text[], int[],
    text[], text[], text[], text[], timestamptz[]
) is
    'Logs what was said about messages and brings their state up to date; the only writer of message state. One row per item, in order; message_id is null where the SID belongs to another account.';
