-- Events of Event Streams that are not the state of a message, and what Twilio's debugger reports.

create function twilio_internal.event_person(event jsonb, name text)
returns text
language sql
immutable
-- Other shapes are no address, and longer texts none that an index could hold.
return case when jsonb_typeof(event #> array['data', name]) = 'string' then
    twilio.person_key(left(event #>> array['data', name], 256))
end;

comment on function twilio_internal.event_person(jsonb, text) is
    'Returns the key of the person that a member of an event''s data names, such as to; null if it is no text.';

create table twilio.provider_event (
    provider_event_id bigint generated always as identity primary key,
    account_sid text not null,
    event_sid text collate "C",
    type text not null,
    event_time timestamptz,
    received_at timestamptz not null default twilio.now(),
    message_sid text collate "C",
    event jsonb not null,
    problem text,
    constraint provider_event_is_stored_once unique (event_sid, account_sid)
);

create index provider_event_received on twilio.provider_event (received_at);
create index provider_event_message on twilio.provider_event (message_sid) where message_sid is not null;
create index provider_event_problem on twilio.provider_event (provider_event_id) where problem is not null;
-- For twilio.redact.
create index provider_event_to on twilio.provider_event (twilio_internal.event_person(event, 'to'));
create index provider_event_from on twilio.provider_event (twilio_internal.event_person(event, 'from'));

comment on table twilio.provider_event is 'Events of Event Streams that are not the state of a message, such as clicks on links, and events that could not be recorded.';
comment on column twilio.provider_event.provider_event_id is 'Our identifier.';
comment on column twilio.provider_event.account_sid is 'Account whose key signed the request.';
comment on column twilio.provider_event.event_sid is 'Identifier of the event, EZ… or another; null if it has none.';
comment on column twilio.provider_event.type is 'Type of the event, such as com.twilio.daptbt.link-shortening.link-clicked; unreadable if it is no event.';
comment on column twilio.provider_event.event_time is 'When Twilio says that it happened.';
comment on column twilio.provider_event.received_at is 'When it was received first.';
comment on column twilio.provider_event.message_sid is 'SID of the message that it names, if any.';
comment on column twilio.provider_event.event is 'The whole event; after twilio.redact without its data.';
comment on column twilio.provider_event.problem is 'Why it could not be recorded as the event of a message; null if it is none.';

select pg_catalog.pg_extension_config_dump('twilio.provider_event', '');
select pg_catalog.pg_extension_config_dump('twilio.provider_event_provider_event_id_seq', '');

create table twilio.provider_alert (
    alert_id bigint generated always as identity primary key,
    account_sid text not null,
    alert_sid text collate "C" not null,
    level text not null,
    error_code int,
    alerted_at timestamptz,
    received_at timestamptz not null default twilio.now(),
    resource_sid text collate "C",
    url text,
    http_status int,
    detail text,
    constraint provider_alert_is_stored_once unique (alert_sid, account_sid)
);

create index provider_alert_received on twilio.provider_alert (received_at);
create index provider_alert_resource on twilio.provider_alert (resource_sid) where detail is not null;

comment on table twilio.provider_alert is 'Errors and warnings that Twilio reports, by Event Streams or the debugger''s webhook.';
comment on column twilio.provider_alert.alert_id is 'Our identifier.';
comment on column twilio.provider_alert.account_sid is 'Account whose key signed the report.';
comment on column twilio.provider_alert.alert_sid is 'Twilio''s identifier, NO….';
comment on column twilio.provider_alert.level is 'ERROR, WARNING or another level.';
comment on column twilio.provider_alert.error_code is 'Twilio''s error code, such as 11200.';
comment on column twilio.provider_alert.alerted_at is 'When Twilio says that it happened.';
comment on column twilio.provider_alert.received_at is 'When it was received first.';
comment on column twilio.provider_alert.resource_sid is 'What it is about, such as the SID of a message.';
comment on column twilio.provider_alert.url is 'URL that Twilio called, without user information and query.';
comment on column twilio.provider_alert.http_status is 'HTTP status of the response that Twilio got.';
comment on column twilio.provider_alert.detail is 'Twilio''s wording; null after twilio.redact.';

select pg_catalog.pg_extension_config_dump('twilio.provider_alert', '');
select pg_catalog.pg_extension_config_dump('twilio.provider_alert_alert_id_seq', '');

create function twilio_internal.store_events(
    account_sids text[],
    event_sids text[],
    types text[],
    times_ms bigint[],
    message_sids text[],
    events text[],
    alerts text[],
    problems text[]
)
returns table (place int)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    -- The transaction gets its number before the events do: feed_tick relies on this order.
    perform pg_current_xact_id();
    return query
    with given as (
        -- Of what one call gives twice, the first counts.
        select distinct on (u.account_sid, u.alert ->> 'sid', u.event_sid, case when u.alert is null and u.event_sid is null then u.n end)
            u.n::int - 1 as place, nextval('twilio.provider_event_provider_event_id_seq') as id, u.account_sid, u.event_sid,
            -- A kind of the feed that is none of ours.
            case when u.type like 'com.twilio.%' then u.type else 'com.twilio.' || u.type end as type,
            to_timestamp(u.time_ms / 1000.0) as event_time, u.message_sid, m.message_id,
            -- Of a message that was redacted, nothing is kept.
            case when m.message_id is not null and num_nonnulls(m.from_address, m.to_address) = 0 then u.event::jsonb - 'data' else u.event::jsonb end as event,
            u.alert, u.problem
        from (
            select x.*, x.alert_text::jsonb as alert
            from unnest(account_sids, event_sids, types, times_ms, message_sids, events, alerts, problems)
                with ordinality x (account_sid, event_sid, type, time_ms, message_sid, event, alert_text, problem, n)
        ) u
        left join twilio.message m
            on m.message_sid = coalesce(u.message_sid, u.alert ->> 'resource_sid') and m.account_sid = u.account_sid
        order by u.account_sid, u.alert ->> 'sid', u.event_sid, case when u.alert is null and u.event_sid is null then u.n end, u.n
    ),
    stored as (
        insert into twilio.provider_event (provider_event_id, account_sid, event_sid, type, event_time, message_sid, event, problem)
        overriding system value
        select g.id, g.account_sid, g.event_sid, g.type, g.event_time, g.message_sid, g.event, g.problem
        from given g
        where g.alert is null
        order by g.event_sid, g.account_sid
        on conflict on constraint provider_event_is_stored_once do nothing
        returning provider_event_id
    ),
    alerted as (
        insert into twilio.provider_alert (
            account_sid, alert_sid, level, error_code, alerted_at, resource_sid, url, http_status, detail
        )
        select
            g.account_sid, a.sid, a.level, a.error_code, g.event_time, a.resource_sid, a.url, a.http_status, a.text
        from given g
        cross join lateral jsonb_to_record(g.alert) a (
            sid text, level text, error_code int, resource_sid text, url text, http_status int, text text
        )
        where g.alert is not null
        order by a.sid, g.account_sid
        on conflict on constraint provider_alert_is_stored_once do nothing
        returning account_sid, alert_sid
    ),
    fresh as (
        select g.place, g.type, g.message_id, g.id as provider_event_id, '{}'::jsonb as data
        from stored s
        join given g on g.id = s.provider_event_id
        union all
        -- Twilio's wording may quote a number.
        select g.place, g.type, g.message_id, null, g.alert - 'text'
        from alerted a
        join given g on g.account_sid = a.account_sid and g.alert ->> 'sid' = a.alert_sid
    ),
    published as (
        insert into twilio_internal.feed_event (kind, message_id, data, provider_event_id)
        select f.type, f.message_id, f.data, f.provider_event_id
        from fresh f
        order by f.place
    )
    select f.place from fresh f;
end
$$;

comment on function twilio_internal.store_events(text[], text[], text[], bigint[], text[], text[], text[], text[]) is
    'Stores events that are not the state of a message, and alerts, and adds them to the feed; returns the places, from 0, of those that had not come before.';

create function twilio.receive_events(
    url text,
    body bytea,
    signature text,
    content_type text default 'application/json',
    method text default 'POST',
    signature_settings text default null,
    source text default null
)
returns table (http_status int, reason text, events int, new_events int)
language c
volatile
-- As for twilio.receive.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'receive_events_wrapper';

comment on function twilio.receive_events(text, bytea, text, text, text, text, text) is
    'Receives one request of Event Streams or of the debugger''s webhook; url is as for sms_callback. Events of messages are recorded like callbacks, others are stored in provider_event and provider_alert.';

create function twilio_internal.purge_event_batch(received_before timestamptz, batch_rows int)
returns bigint
language plpgsql
volatile
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    removed bigint;
    alerts bigint;
begin
    delete from twilio.provider_event e
    where e.provider_event_id = any (array(
        select x.provider_event_id
        from twilio.provider_event x
        where x.received_at < received_before
        order by x.received_at
        limit batch_rows
        for update skip locked
    ));
    get diagnostics removed = row_count;
    delete from twilio.provider_alert a
    where a.alert_id = any (array(
        select x.alert_id
        from twilio.provider_alert x
        where x.received_at < received_before
        order by x.received_at
        limit batch_rows
        for update skip locked
    ));
    get diagnostics alerts = row_count;
    return removed + alerts;
end
$$;

comment on function twilio_internal.purge_event_batch(timestamptz, int) is
    'Deletes a batch of old rows of provider_event and provider_alert for twilio.purge, and returns their number.';

create function twilio_internal.redact_events(message_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: nested loop
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    update twilio.provider_event e
    set event = e.event - 'data'
    from twilio.message m
    where m.message_id = any (message_ids) and e.message_sid = m.message_sid and e.event ? 'data';
    update twilio.provider_alert a
    set detail = null
    from twilio.message m
    where m.message_id = any (message_ids) and a.resource_sid = m.message_sid and a.detail is not null;
end
$$;

comment on function twilio_internal.redact_events(bigint[]) is
    'Removes the data of the events that name one of these messages, for twilio.redact.';

create function twilio_internal.redact_events_of(person text, quiet_since timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    update twilio.provider_event e
    set event = e.event - 'data'
    where e.provider_event_id in (
            select x.provider_event_id
            from twilio.provider_event x
            where twilio_internal.event_person(x.event, 'to') = person
            union all
            select x.provider_event_id
            from twilio.provider_event x
            where twilio_internal.event_person(x.event, 'from') = person
            union all
            select x.provider_event_id
            from twilio.provider_event x
            cross join unnest(twilio_internal.number_forms(person)) f (form)
            where x.problem is not null and position(f.form in x.event::text) > 0
        )
        and e.received_at < quiet_since;
end
$$;

comment on function twilio_internal.redact_events_of(text, timestamptz) is
    'Removes the data of events that are to or from a person, and of events that could not be recorded and contain the person''s number.';

create function twilio_internal.redact_event_batch(after_id bigint, quiet_since timestamptz, batch_rows int)
returns bigint
language plpgsql
volatile
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    last_id bigint;
begin
    select max(x.provider_event_id)
    into last_id
    from (
        select e.provider_event_id
        from twilio.provider_event e
        where e.provider_event_id > after_id
        order by e.provider_event_id
        limit batch_rows
    ) x;
    update twilio.provider_event e
    set event = e.event - 'data'
    where e.provider_event_id > after_id and e.provider_event_id <= last_id and e.received_at < quiet_since and e.event ? 'data';
    if last_id is null then
        update twilio.provider_alert a set detail = null where a.received_at < quiet_since and a.detail is not null;
    end if;
    return last_id;
end
$$;

comment on function twilio_internal.redact_event_batch(bigint, timestamptz, int) is
    'Removes the data of a batch of old events for twilio.redact, and at the end the wordings of alerts; returns the last event that it examined, null at the end.';

create function twilio_internal.check_alerts()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    -- One line, however many there are: the codes say that Twilio could not deliver a request to us.
    select
        'alerts',
        case when count(*) > 0 then 'warning' else 'ok' end,
        case
            when count(*) = 0 then 'Twilio reported no error in the last hour'
            when sum(a.n) filter (where a.is_delivery) > 0 then format(
                'Twilio could not reach us %s times in the last hour: %s%s',
                sum(a.n) filter (where a.is_delivery),
                string_agg(
                    format('%s at %s', a.error_code, coalesce(a.url, 'an unknown URL')), ', ' order by a.n desc, a.url
                ) filter (where a.is_delivery and a.place <= 3),
                case when sum(a.n) filter (where not a.is_delivery) > 0 then
                    format('; and reported %s other errors', sum(a.n) filter (where not a.is_delivery))
                end
            )
            else format(
                'Twilio reported %s errors in the last hour: %s',
                sum(a.n),
                string_agg(distinct coalesce(a.error_code::text, 'without a code'), ', ') filter (where a.place <= 3)
            )
        end,
        case when count(*) > 0 then
            'See: select * from twilio.provider_alert order by received_at desc; https://www.twilio.com/docs/api/errors explains the codes.'
        end
    from (
        select g.*, row_number() over (order by g.is_delivery desc, g.n desc) as place
        from (
            select
                x.error_code,
                coalesce(x.error_code between 11200 and 11299 or x.error_code in (15003, 91308), false) as is_delivery,
                case when x.error_code between 11200 and 11299 or x.error_code in (15003, 91308) then x.url end as url,
                count(*) as n
            from twilio.provider_alert x
            where x.received_at > twilio.now() - interval '1 hour'
            group by 1, 2, 3
        ) g
    ) a;
end;

comment on function twilio_internal.check_alerts() is
    'The check of twilio.doctor about errors that Twilio reported in the last hour.';

create function twilio_internal.check_events()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select
        'events',
        case when count(*) > 0 then 'warning' else 'ok' end,
        case
            when count(*) = 0 then 'each event of Event Streams was recorded'
            else format(
                '%s events of Event Streams could not be recorded as events of messages, the last of %s: %s',
                count(*), to_char(max(e.received_at), 'YYYY-MM-DD HH24:MI:SSOF'),
                (array_agg(e.problem order by e.provider_event_id desc))[1]
            )
        end,
        case when count(*) > 0 then 'See: select * from twilio.provider_event where problem is not null order by provider_event_id desc;' end
    from (
        select x.*
        from twilio.provider_event x
        where x.problem is not null
        order by x.provider_event_id desc
        limit 1000
    ) e;
end;

comment on function twilio_internal.check_events() is
    'The check of twilio.doctor about events of Event Streams that could not be recorded; it counts up to 1,000.';
