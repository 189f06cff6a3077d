-- Messages, everything that was ever said about them, and the one function that changes their state.

-- This table and its log have no check constraints: PostgreSQL parses each of them anew for every
-- statement, which took a sixth of the ingest. Only functions that check their arguments write here.
create table twilio.message (
    message_id bigint generated always as identity primary key,
    message_sid text collate "C" unique,
    account_sid text collate "C",
    provider text not null default 'twilio',
    direction text not null default 'outbound',
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
    step smallint not null default 0,
    try smallint not null default 1,
    created_at timestamptz not null default twilio.now(),
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
    is_simulated boolean not null default false,
    constraint message_chain_is_a_line unique (root_id, step, try)
)
-- Room for the later states of a row on its own page: updates stay HOT.
with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create unique index message_idempotency_key on twilio.message (idempotency_key)
where idempotency_key is not null;

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
comment on column twilio.message.send_at is 'When it is to be sent; null for at once.';
comment on column twilio.message.expires_at is 'From when on it is not to be sent any more.';
comment on column twilio.message.idempotency_key is 'The caller''s own key: a second message of the same key is not made.';
comment on column twilio.message.metadata is 'Whatever the caller wants to keep with it.';
comment on column twilio.message.twilio_parameters is 'Further parameters of Twilio''s that it is created with.';
comment on column twilio.message.status_callback is 'The caller''s own StatusCallback, or null for ours.';
comment on column twilio.message.num_segments is 'Segments that Twilio counts.';
comment on column twilio.message.price is 'Price, as Twilio gives it: negative.';
comment on column twilio.message.price_unit is 'Currency of the price.';
comment on column twilio.message.is_simulated is 'Whether it is never really sent.';

select pg_catalog.pg_extension_config_dump('twilio.message', '');
select pg_catalog.pg_extension_config_dump('twilio.message_message_id_seq', '');

create table twilio.message_event (
    event_id bigint generated always as identity primary key,
    -- No foreign key: it costs a fifth of the ingest, and only twilio.record and purge write here.
    message_id bigint not null,
    status text not null,
    error_code int,
    source text not null,
    is_advance boolean not null,
    received_at timestamptz not null,
    key_id text,
    public_url text,
    params jsonb not null,
    xid xid8 not null default pg_current_xact_id(),
    constraint message_event_is_said_once unique nulls not distinct (message_id, status, error_code)
)
with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

comment on table twilio.message_event is 'Log of everything ever said about a message; rows are added, never changed.';
comment on column twilio.message_event.event_id is 'Order of recording.';
comment on column twilio.message_event.message_id is 'Message that it is about.';
comment on column twilio.message_event.status is 'Reported status, known to us or not.';
comment on column twilio.message_event.error_code is 'Reported error code.';
comment on column twilio.message_event.source is 'callback, poll, api (an answer of Twilio''s), outbox (our own decision), smsgate or simulated.';
comment on column twilio.message_event.is_advance is 'Whether it brought the message further than anything before.';
comment on column twilio.message_event.received_at is 'When it was received.';
comment on column twilio.message_event.key_id is 'Signing key that vouched for it.';
comment on column twilio.message_event.public_url is 'Base URL that it was signed for.';
comment on column twilio.message_event.params is 'All parameters; a repeated name holds an array.';
comment on column twilio.message_event.xid is 'Transaction that recorded it, for the feed; means nothing in a restored database.';

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

create function twilio.error_wording(params jsonb)
returns text
language sql
immutable
return coalesce(params ->> 'ErrorMessage', params ->> 'ChannelStatusMessage');

comment on function twilio.error_wording(jsonb) is 'Picks the provider''s wording of an error from the parameters of an event.';

create function twilio.error_message_of(message_id bigint, error_code int)
returns text
language sql
stable
begin atomic
    -- An unknown status has no rank and decides nothing, its wording included.
    select twilio.error_wording(e.params)
    from twilio.message_event e
    join twilio.message m on m.message_id = e.message_id
    where e.message_id = error_message_of.message_id and e.error_code = error_message_of.error_code
        and twilio.status_rank(m.provider, e.status) is not null
    order by twilio.status_rank(m.provider, e.status) desc
    limit 1;
end;

comment on function twilio.error_message_of(bigint, int) is
    'Returns the wording of the event that gives a failed message its error code.';

create function twilio.apply_state(message_ids bigint[])
returns void
language plpgsql
volatile
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    update twilio.message m
    set status = s.status,
        error_code = s.error_code,
        error_message = twilio.error_message_of(m.message_id, s.error_code),
        is_corrected = s.is_corrected,
        sent_at = s.sent_at,
        delivered_at = s.delivered_at,
        read_at = s.read_at,
        failed_at = s.failed_at
    from twilio.message_state(message_ids) s
    where m.message_id = s.message_id
        and (m.status, m.error_code, m.is_corrected, m.sent_at, m.delivered_at, m.read_at, m.failed_at)
            is distinct from
            (s.status, s.error_code, s.is_corrected, s.sent_at, s.delivered_at, s.read_at, s.failed_at);
end
$$;

comment on function twilio.apply_state(bigint[]) is
    'Brings the state of messages, which the caller has locked, to what their events say.';

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
-- index may be chosen then. One short statement a step costs less than statements over arrays: those pay
-- for sorts and windows, and all of it again for a batch of one.
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    ids bigint[] := array_fill(null::bigint, array[cardinality(statuses)]);
    events bigint[] := ids;
    news boolean[] := array_fill(false, array[cardinality(statuses)]);
    added bigint[] := '{}';
    has_consequence boolean := false;
    failed bigint[];
    corrected bigint[];
    item record;
    now_is record;
    is_inserted boolean;
    is_advance boolean;
    event bigint;
    new_id bigint;
    rank smallint;
    kind text;
begin
    -- Rows are locked in one order everywhere: those named by id, then those named by SID, both sorted.
    for item in
        select i.*, coalesce(i.received_at, moment) as at
        from unnest(
            message_ids, account_sids, message_sids, directions, channels, from_addresses, to_addresses,
            messaging_service_sids, bodies, media_urls, statuses, error_codes, sources, key_ids,
            public_urls, params, record.received_at
        ) with ordinality i (
            id, account, sid, direction, channel, sender, recipient, service, body, media, status, code,
            source, key_id, public_url, params, received_at, n
        )
        order by i.id nulls last, i.sid collate "C", i.n
    loop
        is_inserted := false;
        -- (1) The row: found and locked, or inserted in its first state.
        if item.id is not null then
            select m.message_id, m.account_sid, m.provider, m.status, m.from_address, m.to_address, m.failed_at,
                m.read_at, m.messaging_service_sid
            into now_is
            from twilio.message m
            where m.message_id = item.id
            for no key update;
        else
            select m.message_id, m.account_sid, m.provider, m.status, m.from_address, m.to_address, m.failed_at,
                m.read_at, m.messaging_service_sid
            into now_is
            from twilio.message m
            where m.message_sid = item.sid
            for no key update;
        end if;
        if not found and item.id is null then
            kind := twilio.status_kind('twilio', item.status);
            new_id := nextval('twilio.message_message_id_seq');
            -- "do update … where false" locks a row that came meanwhile; "do nothing" would lose the item
            -- when a purge takes that row away again.
            insert into twilio.message as m (
                message_id, root_id, message_sid, account_sid, direction, channel, from_address, to_address,
                messaging_service_sid, body, media_urls, status, error_code, error_message, created_at,
                sent_at, delivered_at, read_at, failed_at
            )
            overriding system value
            values (
                new_id, new_id, item.sid, item.account, item.direction, item.channel, item.sender, item.recipient,
                item.service, item.body,
                case when item.media is not null then
                    array(select jsonb_array_elements_text(item.media::jsonb))
                end,
                case when kind is null then 'accepted' else item.status end,
                case when kind = 'failure' then item.code end,
                case when kind = 'failure' and item.code is not null then
                    twilio.error_wording(item.params::jsonb)
                end,
                item.at,
                case when item.status = 'sent' then item.at end,
                case when item.status in ('delivered', 'read') then item.at end,
                case when item.status = 'read' then item.at end,
                case when kind = 'failure' then item.at end
            )
            on conflict (message_sid) do update set message_sid = excluded.message_sid where false
            returning m.message_id, m.account_sid, m.provider, m.status, m.from_address, m.to_address,
                m.failed_at, m.read_at, m.messaging_service_sid
            into now_is;
            is_inserted := found;
            if not is_inserted then
                select m.message_id, m.account_sid, m.provider, m.status, m.from_address, m.to_address,
                    m.failed_at, m.read_at, m.messaging_service_sid
                into now_is
                from twilio.message m
                where m.message_sid = item.sid;
            end if;
        end if;
        -- A SID that another account holds is nobody's here.
        continue when now_is.message_id is null or item.id is null and now_is.account_sid <> item.account;

        -- (2) The log. What was said before is said already: the constraint makes repeats harmless.
        rank := twilio.status_rank(now_is.provider, item.status);
        is_advance := rank is not null
            and (is_inserted or rank > twilio.status_rank(now_is.provider, now_is.status));
        insert into twilio.message_event as e (
            message_id, status, error_code, source, is_advance, received_at, key_id, public_url, params
        )
        values (
            now_is.message_id, item.status, item.code, item.source, is_advance, item.at, item.key_id,
            item.public_url, item.params::jsonb
        )
        on conflict do nothing
        returning e.event_id into event;
        ids[item.n] := now_is.message_id;
        if event is null then
            select e.event_id into event
            from twilio.message_event e
            where e.message_id = now_is.message_id and e.status = item.status
                and e.error_code is not distinct from item.code;
            events[item.n] := event;
            continue;
        end if;
        events[item.n] := event;
        news[item.n] := true;
        added := added || event;
        has_consequence := has_consequence or item.code is not null or item.direction = 'inbound';
        if item.status in ('undelivered', 'failed', 'refused', 'expired') then
            failed := failed || now_is.message_id;
        elsif now_is.failed_at is not null and item.status in ('delivered', 'read') then
            corrected := corrected || now_is.message_id;
        end if;

        -- (3) The state. A row that was inserted for this item is right already.
        continue when is_inserted or rank is null;
        if item.code is null and now_is.failed_at is null and now_is.read_at is null
            and twilio.status_kind(now_is.provider, item.status) <> 'failure' then
            -- No failure is in the set, so all that message_state would find is this.
            update twilio.message m
            set status = case when is_advance then item.status else m.status end,
                sent_at = case when item.status = 'sent' then least(m.sent_at, item.at) else m.sent_at end,
                -- Whose transaction began first need not be whose lock comes first, so a read may be the older.
                delivered_at = case item.status
                    when 'delivered' then least(m.delivered_at, item.at)
                    when 'read' then coalesce(m.delivered_at, item.at)
                    else m.delivered_at
                end,
                read_at = case when item.status = 'read' then item.at end
            where m.message_id = now_is.message_id
                and (is_advance or item.status in ('sent', 'delivered'));
        else
            perform twilio.apply_state(array[now_is.message_id]);
        end if;

        -- Twilio may choose the sender, even the channel, on the way: what comes with the status counts.
        if (item.sender is distinct from now_is.from_address or item.recipient is distinct from now_is.to_address)
            and (is_advance or now_is.from_address is null or now_is.to_address is null) then
            update twilio.message m
            set from_address = coalesce(item.sender, m.from_address),
                to_address = coalesce(item.recipient, m.to_address),
                channel = coalesce(item.channel, m.channel),
                messaging_service_sid = coalesce(m.messaging_service_sid, item.service)
            where m.message_id = now_is.message_id;
        elsif now_is.messaging_service_sid is null and item.service is not null then
            update twilio.message m
            set messaging_service_sid = item.service
            where m.message_id = now_is.message_id;
        end if;
    end loop;

    -- (4) What follows for consent, before anything may be planned on it.
    if has_consequence then
        perform twilio.note_consent(added);
    end if;
    -- (5) What is to be tried instead.
    if failed is not null then
        perform twilio.plan_fallback(failed);
    end if;
    if corrected is not null then
        perform twilio.withdraw_fallback(corrected);
    end if;
    return query select r.id, r.event, r.is_new from unnest(ids, events, news) r (id, event, is_new);
end
$$;

comment on function twilio.record(
    bigint[], text[], text[], text[], text[], text[], text[], text[], text[], text[], text[], int[],
    text[], text[], text[], text[], timestamptz[]
) is
    'Logs what was said about messages and brings their state up to date; the only writer of message state. One row per item, in order; message_id is null where the SID belongs to another account.';
