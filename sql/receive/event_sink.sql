-- Sinks of Event Streams at Twilio, which the worker makes, subscribes, tries and removes.

create table twilio.event_sink (
    sink_id bigint generated always as identity primary key,
    account_sid text collate "C" not null,
    url text not null
        constraint url_is_short check (length(url) <= 1024),
    types text[] not null
        constraint types_are_not_empty check (cardinality(types) between 1 and 100),
    is_wanted boolean not null default true,
    step text not null default 'find sink'
        constraint step_is_known check (step in (
            'find sink', 'make sink', 'find subscription', 'make subscription', 'test', 'await test', 'validate', 'check sink',
            'check subscription', 'add type', 'remove subscription', 'remove sink'
        )),
    sink_sid text,
    subscription_sid text,
    tested_at timestamptz,
    test_id text,
    lacking_type text,
    active_at timestamptz,
    checked_at timestamptz,
    due_at timestamptz not null default twilio.now(),
    tries int not null default 0,
    lease_token uuid,
    problem text,
    constraint event_sink_is_made_once unique (account_sid, url)
);

create index event_sink_due_at on twilio.event_sink (due_at);

comment on table twilio.event_sink is 'Sinks of Event Streams at Twilio that deliver to us, with their subscriptions, and sinks to be removed.';
comment on column twilio.event_sink.sink_id is 'Our identifier.';
comment on column twilio.event_sink.account_sid is 'Account whose events it delivers.';
comment on column twilio.event_sink.url is 'URL that it delivers to.';
comment on column twilio.event_sink.types is 'Types of event that it is to deliver, each with the version of its schema behind a slash.';
comment on column twilio.event_sink.is_wanted is 'Whether it should be there; false to remove it.';
comment on column twilio.event_sink.step is 'What the worker does next: an active sink is checked once a day.';
comment on column twilio.event_sink.sink_sid is 'Twilio''s identifier of the sink, DG….';
comment on column twilio.event_sink.subscription_sid is 'Twilio''s identifier of the subscription, DF….';
comment on column twilio.event_sink.tested_at is 'When Twilio was asked for the last test event.';
comment on column twilio.event_sink.test_id is 'Identifier in the test event that arrived.';
comment on column twilio.event_sink.lacking_type is 'Type of event that the subscription lacks, which is added next.';
comment on column twilio.event_sink.active_at is 'When its test event had arrived and was confirmed; null before.';
comment on column twilio.event_sink.checked_at is 'When Twilio last said that sink and subscription are as they should be.';
comment on column twilio.event_sink.due_at is 'When the next request to Twilio is due, or when the lease of one under way ends.';
comment on column twilio.event_sink.tries is 'Number of requests of this step.';
comment on column twilio.event_sink.lease_token is 'Lease of the request under way; null if there is none.';
comment on column twilio.event_sink.problem is 'Why the last request had no success, or what differs at Twilio.';

select pg_catalog.pg_extension_config_dump('twilio.event_sink', '');
select pg_catalog.pg_extension_config_dump('twilio.event_sink_sink_id_seq', '');

create function twilio_internal.default_event_types()
returns text[]
language sql
immutable
return array[
    'com.twilio.messaging.message.queued/8', 'com.twilio.messaging.message.sent/8', 'com.twilio.messaging.message.delivered/8',
    'com.twilio.messaging.message.undelivered/8', 'com.twilio.messaging.message.failed/8', 'com.twilio.messaging.message.read/8',
    'com.twilio.messaging.inbound-message.received/6', 'com.twilio.error-logs.error.logged/2'
];

comment on function twilio_internal.default_event_types() is
    'Returns the types of event that a sink delivers unless others are given, with the versions of their schemas that are known here.';

create function twilio.add_event_sink(account_sid text default null, url text default null, types text[] default null)
returns bigint
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    account constant text := coalesce(
        account_sid, (select min(a.account_sid) from twilio.account a having count(*) = 1)
    );
    target constant text := coalesce(
        url, (select p.url || '/twilio/events' from twilio.public_url p order by p.created_at, p.url limit 1)
    );
    wanted constant text[] := coalesce(types, twilio_internal.default_event_types());
    id bigint;
begin
    if account is null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'account_sid must be given unless there is one account',
            hint = 'See: select account_sid from twilio.account.';
    elsif not exists (select from twilio.account a where a.account_sid = account) then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s does not exist', account),
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    elsif target is null or not exists (
        select from twilio.public_url p where starts_with(target, p.url || '/') and target !~ '[[:space:]#?]'
    ) or length(target) > 1024 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid URL of a sink: "%s"', coalesce(left(target, 300), 'null')),
            detail = 'Requests are verified for the URLs of twilio.public_url.',
            hint = 'Give a URL below one of twilio.public_url that leads to /twilio/events at the shim.';
    elsif cardinality(wanted) not between 1 and 100 or exists (
        select from unnest(wanted) t (type) where (t.type ~ '^com[.]twilio[.][a-z0-9.-]{1,100}(/[1-9][0-9]{0,3})?$') is not true
    ) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'types must be 1 to 100 types of event',
            hint = 'Give names such as com.twilio.messaging.message.delivered, with the version of the schema as in …delivered/8 or without for the newest.';
    end if;
    insert into twilio.event_sink as s (account_sid, url, types)
    values (account, target, wanted)
    on conflict on constraint event_sink_is_made_once do update
    set is_wanted = true, types = coalesce(add_event_sink.types, s.types), step = 'find sink', tries = 0, lease_token = null,
        problem = null, active_at = null,
        -- What a request under way may make is found afterwards.
        due_at = case when s.lease_token is not null then s.due_at else twilio.now() end
    returning s.sink_id into id;
    perform twilio_internal.wake_worker();
    return id;
end
$$;

comment on function twilio.add_event_sink(text, text, text[]) is
    'Makes the worker create a sink of Event Streams at Twilio with its subscription and try it; returns its number in event_sink. Called again, it confirms what is there.';

create function twilio.remove_event_sink(account_sid text default null, url text default null)
returns int
language plpgsql
volatile
-- As twilio.add_event_sink.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    wanted int;
begin
    update twilio.event_sink s
    -- As in add_event_sink.
    set is_wanted = false, step = 'find sink', tries = 0, lease_token = null, problem = null, active_at = null,
        due_at = case when s.lease_token is not null then s.due_at else twilio.now() end
    where s.account_sid = coalesce(account_sid, s.account_sid) and s.url = coalesce(url, s.url);
    get diagnostics wanted = row_count;
    perform twilio_internal.wake_worker();
    return wanted;
end
$$;

comment on function twilio.remove_event_sink(text, text) is
    'Makes the worker remove sinks that it made, with their subscriptions, and returns their number.';

create function twilio_internal.sink_request(
    sink twilio.event_sink,
    out method text,
    out path text,
    out form jsonb
)
language sql
stable
begin atomic
    select
        case when (sink).step like 'remove %' then 'DELETE' when (sink).step in ('make sink', 'make subscription', 'test', 'validate', 'add type') then 'POST' else 'GET' end,
        '/v1/' || case (sink).step
            when 'find sink' then 'Sinks?PageSize=100'
            when 'make sink' then 'Sinks'
            when 'find subscription' then 'Subscriptions?PageSize=100&SinkSid=' || (sink).sink_sid
            when 'make subscription' then 'Subscriptions'
            when 'test' then 'Sinks/' || (sink).sink_sid || '/Test'
            when 'validate' then 'Sinks/' || (sink).sink_sid || '/Validate'
            when 'check sink' then 'Sinks/' || (sink).sink_sid
            when 'check subscription' then 'Subscriptions/' || (sink).subscription_sid || '/SubscribedEvents?PageSize=100'
            when 'add type' then 'Subscriptions/' || (sink).subscription_sid || '/SubscribedEvents'
            when 'remove subscription' then 'Subscriptions/' || (sink).subscription_sid
            when 'remove sink' then 'Sinks/' || (sink).sink_sid
        end,
        case (sink).step
            when 'make sink' then jsonb_build_array(
                jsonb_build_array('Description', 'twilio_callback'),
                jsonb_build_array('SinkType', 'webhook'),
                jsonb_build_array(
                    'SinkConfiguration',
                    jsonb_build_object('destination', (sink).url, 'method', 'POST', 'batch_events', true)::text
                )
            )
            when 'make subscription' then jsonb_build_array(
                jsonb_build_array('Description', 'twilio_callback'), jsonb_build_array('SinkSid', (sink).sink_sid)
            ) || (
                -- One parameter a type: Twilio refuses a list.
                select jsonb_agg(jsonb_build_array('Types', jsonb_strip_nulls(jsonb_build_object(
                    'type', split_part(t.type, '/', 1), 'schema_version', nullif(split_part(t.type, '/', 2), '')::int
                ))::text) order by t.n)
                from unnest((sink).types) with ordinality t (type, n)
            )
            when 'validate' then jsonb_build_array(jsonb_build_array('TestId', (sink).test_id))
            when 'add type' then jsonb_build_array(jsonb_build_array('Type', split_part((sink).lacking_type, '/', 1)))
                || case when (sink).lacking_type like '%/%' then
                    jsonb_build_array(jsonb_build_array('SchemaVersion', split_part((sink).lacking_type, '/', 2)))
                else '[]' end
        end;
end;

comment on function twilio_internal.sink_request(twilio.event_sink) is
    'Returns the request to Twilio''s Events API that a sink''s step needs: method, path and pairs of the form.';

create function twilio_internal.claim_event_sink(at_most int, lease interval default '60 seconds')
returns table (sink_id bigint, lease_token uuid, tries int, account_sid text, method text, path text, form text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
begin
    if not twilio.is_sending() then
        return;
    end if;
    -- The test event comes like any other.
    update twilio.event_sink s
    set step = case when e.test_id is not null then 'validate' else 'test' end,
        test_id = e.test_id,
        due_at = case when e.test_id is not null then moment else moment + least(power(2, s.tries), 3600) * interval '1 second' end,
        tries = case when e.test_id is not null then 0 else s.tries end,
        problem = case when e.test_id is null then 'Twilio''s test event did not arrive at ' || s.url end
    from twilio.event_sink w
    cross join lateral (
        select (
            select x.event #>> '{data,test_id}'
            from twilio.provider_event x
            where x.account_sid = w.account_sid and x.type = 'com.twilio.eventstreams.test-event'
                and x.received_at >= w.tested_at - interval '1 minute' and x.event #>> '{data,test_id}' is distinct from w.test_id
            order by x.received_at desc
            limit 1
        ) as test_id
    ) e
    where s.sink_id = w.sink_id and s.step = 'await test' and s.due_at <= moment
        and (e.test_id is not null or s.tested_at < moment - interval '30 seconds');
    update twilio.event_sink s
    set due_at = moment + interval '1 second'
    where s.step = 'await test' and s.due_at <= moment;
    return query
    with taken as (
        update twilio.event_sink s
        -- The lease ends at due_at: without a result until then, its holder counts as crashed.
        set lease_token = gen_random_uuid(), due_at = moment + lease, tries = least(s.tries + 1, 1000),
            -- The last request may have made something although its answer was lost.
            step = case when s.lease_token is not null then replace(s.step, 'make', 'find') else s.step end
        where s.sink_id in (
            select x.sink_id
            from twilio.event_sink x
            where x.due_at <= moment
                -- Test events do not say which sink they try.
                and not (x.step = 'test' and exists (
                    select
                    from twilio.event_sink y
                    where y.account_sid = x.account_sid and y.sink_id <> x.sink_id and y.step = 'await test'
                ))
            order by x.due_at
            limit at_most
            for update skip locked
        )
        returning s as sink
    )
    select (t.sink).sink_id, (t.sink).lease_token, (t.sink).tries, (t.sink).account_sid, r.method, r.path, r.form::text
    from taken t
    cross join lateral twilio_internal.sink_request(t.sink) r;
end
$$;

comment on function twilio_internal.claim_event_sink(int, interval) is
    'Takes sinks whose next request is due under a lease.';

create function twilio_internal.finish_event_sink(
    sink_id bigint,
    lease_token uuid,
    http_status int,
    response text,
    reason text,
    retry_after_ms bigint
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    -- A sink and a subscription that are as they should be are looked at again.
    look_again constant interval := '1 day';
    sink twilio.event_sink;
    answer constant jsonb := response::jsonb;
    is_success constant boolean := coalesce(http_status between 200 and 299, false);
    is_missing constant boolean := coalesce(http_status = 404, false);
    existing text;
    lacking text;
    last_problem text;
begin
    select s.* into sink
    from twilio.event_sink s
    where s.sink_id = sink_id and s.lease_token = lease_token
    for update;
    if not found then
        return false;
    end if;
    last_problem := sink.problem;
    sink.lease_token := null;
    sink.problem := null;
    sink.due_at := moment;
    if sink.step = 'find sink' and is_success then
        select e.value ->> 'sid' into existing
        from jsonb_array_elements(case when jsonb_typeof(answer -> 'sinks') = 'array' then answer -> 'sinks' else '[]' end) e
        where e.value #>> '{sink_configuration,destination}' = sink.url and e.value ->> 'sid' ~ '^DG[0-9a-f]{32}$'
        limit 1;
        sink.sink_sid := existing;
        sink.subscription_sid := null;
        if existing is null and not sink.is_wanted then
            delete from twilio.event_sink s where s.sink_id = sink_id;
            return true;
        end if;
        sink.step := case when existing is not null then 'find subscription' else 'make sink' end;
    elsif sink.step = 'make sink' and is_success and answer ->> 'sid' ~ '^DG[0-9a-f]{32}$' then
        sink.sink_sid := answer ->> 'sid';
        sink.step := 'make subscription';
    elsif sink.step = 'find subscription' and is_success then
        select e.value ->> 'sid' into existing
        from jsonb_array_elements(case when jsonb_typeof(answer -> 'subscriptions') = 'array' then answer -> 'subscriptions' else '[]' end) e
        where e.value ->> 'sink_sid' = sink.sink_sid and e.value ->> 'sid' ~ '^DF[0-9a-f]{32}$'
        limit 1;
        sink.subscription_sid := existing;
        sink.step := case
            when existing is not null and sink.is_wanted then 'test'
            when existing is not null then 'remove subscription'
            when sink.is_wanted then 'make subscription'
            else 'remove sink'
        end;
    elsif sink.step = 'make subscription' and is_success and answer ->> 'sid' ~ '^DF[0-9a-f]{32}$' then
        sink.subscription_sid := answer ->> 'sid';
        sink.step := 'test';
    elsif sink.step = 'test' and is_success then
        -- What is known of the last try stays until the event comes.
        sink.problem := last_problem;
        sink.tested_at := moment;
        sink.step := 'await test';
        sink.due_at := moment + interval '1 second';
    elsif sink.step = 'validate' and is_success then
        sink.active_at := moment;
        sink.step := 'check sink';
    elsif sink.step = 'check sink' and is_success then
        if answer ->> 'status' = 'failed' then
            sink.problem := 'Twilio says that the sink failed';
            sink.step := 'test';
            sink.due_at := moment + interval '1 minute';
        else
            sink.step := 'check subscription';
        end if;
    elsif sink.step = 'check subscription' and is_success then
        select t.type into lacking
        from unnest(sink.types) with ordinality t (type, n)
        where not exists (
            select
            from jsonb_array_elements(case when jsonb_typeof(answer -> 'types') = 'array' then answer -> 'types' else '[]' end) e
            where e.value ->> 'type' = split_part(t.type, '/', 1)
        )
        order by t.n
        limit 1;
        sink.problem := 'Twilio does not deliver ' || split_part(lacking, '/', 1);
        sink.checked_at := case when lacking is null then moment else sink.checked_at end;
        -- A type that was just added and is still missing is left for the next day.
        sink.step := case when lacking is null or lacking = sink.lacking_type then 'check sink' else 'add type' end;
        sink.due_at := case when sink.step = 'add type' then moment else moment + look_again end;
        sink.lacking_type := case when sink.step = 'add type' then lacking end;
    elsif sink.step = 'add type' and is_success then
        sink.step := 'check subscription';
    elsif sink.step = 'add type' and http_status between 400 and 499 and http_status not in (401, 403, 429) then
        sink.problem := left(format('Twilio does not deliver %s: %s', split_part(sink.lacking_type, '/', 1), answer ->> 'message'), 1000);
        sink.step := 'check sink';
        sink.due_at := moment + look_again;
    elsif sink.step = 'validate' and http_status between 400 and 499 and http_status not in (401, 403, 429) then
        -- It was the test event of another try.
        sink.problem := left(coalesce(answer ->> 'message', 'HTTP status ' || http_status), 1000);
        sink.step := 'test';
        sink.due_at := moment + interval '1 minute';
    elsif sink.step in ('check sink', 'check subscription') and is_missing then
        sink.problem := format('Twilio does not have the %s any more', substring(sink.step from 'check (.*)'));
        sink.active_at := null;
        sink.step := 'check sink';
        sink.due_at := moment + look_again;
    elsif sink.step = 'remove subscription' and (is_success or is_missing) then
        sink.subscription_sid := null;
        sink.step := 'remove sink';
    elsif sink.step = 'remove sink' and (is_success or is_missing) then
        -- Until none is found: a lost answer may have left another one.
        sink.sink_sid := null;
        sink.step := 'find sink';
    else
        sink.problem := left(coalesce(answer ->> 'message', reason, 'HTTP status ' || http_status), 1000);
        -- Only a refusal says that nothing was made.
        if (http_status between 400 and 499) is not true then
            sink.step := replace(sink.step, 'make', 'find');
        end if;
        sink.due_at := moment + greatest(
            retry_after_ms, least(power(2, least(sink.tries, 12)), 3600) * 1000
        ) * interval '1 millisecond';
    end if;
    update twilio.event_sink s
    set step = sink.step, sink_sid = sink.sink_sid, subscription_sid = sink.subscription_sid, tested_at = sink.tested_at,
        lacking_type = sink.lacking_type, active_at = sink.active_at, checked_at = sink.checked_at, due_at = sink.due_at, lease_token = null, problem = sink.problem,
        tries = case when s.step = sink.step or sink.problem is not null or sink.step = 'await test' then s.tries else 0 end
    where s.sink_id = sink_id;
    return true;
end
$$;

comment on function twilio_internal.finish_event_sink(bigint, uuid, int, text, text, bigint) is
    'Records Twilio''s response about a sink and decides on the next step; false if the lease has ended.';

create function twilio_internal.next_event_sink()
returns double precision
language sql
stable
begin atomic
    select extract(epoch from min(s.due_at) - twilio.now())
    from twilio.event_sink s
    where twilio.is_sending();
end;

comment on function twilio_internal.next_event_sink() is
    'Returns the seconds until the next request about a sink is due, negative if it is due already; null if there is none.';

create function twilio_internal.check_event_sinks()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select
        'event sinks',
        case when count(*) filter (where s.is_bad) > 0 then 'warning' else 'ok' end,
        case
            when count(*) = 0 then 'none: a callback that Twilio cannot deliver is found by reconciliation alone'
            when count(*) filter (where s.is_bad) > 0 then string_agg(
                format('%s of %s: %s', s.url, s.account_sid, coalesce(s.problem, 'step ' || s.step || ' is late')), '; ' order by s.sink_id
            ) filter (where s.is_bad)
            else format('%s active, %s being made or removed', count(s.active_at), count(*) - count(s.active_at))
        end,
        case when count(*) filter (where s.is_bad) > 0 then format(
            'The worker tries again; see twilio.event_sink. To make it anew: select twilio.add_event_sink(%L, %L);',
            min(s.account_sid) filter (where s.is_bad), min(s.url) filter (where s.is_bad)
        ) end
    from (
        select
            x.*,
            x.problem is not null
            or x.is_wanted and x.active_at is null and x.tested_at < twilio.now() - interval '5 minutes'
            or x.is_wanted and x.due_at < twilio.now() - interval '5 minutes'
            or x.is_wanted and x.active_at is not null and coalesce(x.checked_at, x.active_at) < twilio.now() - interval '2 days' as is_bad
        from twilio.event_sink x
    ) s;
end;

comment on function twilio_internal.check_event_sinks() is
    'The check of twilio.doctor that compares the sinks with what Twilio has.';
