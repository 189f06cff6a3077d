-- Results of claimed messages: recorded, then removed from the queue or returned to it.

create function twilio_internal.finish(
    message_ids bigint[],
    lease_tokens uuid[],
    outcomes text[],
    message_sids text[],
    statuses text[],
    http_statuses int[],
    error_codes int[],
    reasons text[],
    responses text[],
    retry_after_ms bigint[],
    are_away boolean[] default '{}'
)
returns int
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
#variable_conflict use_column
declare
    parsed constant jsonb[] := responses::jsonb[];
    -- One element per item: the message if its lease is still held, else null.
    held bigint[];
    -- A look-up belongs to the attempt before it.
    attempts constant uuid[] := array(
        select coalesce(
            (select t.attempt_id from twilio_internal.attempt t where t.attempt_id = i.token),
            (
                select t.attempt_id
                from twilio_internal.attempt t
                where t.message_id = i.id
                order by t.started_at desc, t.attempt_id desc
                limit 1
            )
        )
        from unnest(message_ids, lease_tokens) with ordinality i (id, token, n)
        order by i.n
    );
begin
    perform twilio_internal.require_durability();
    -- Only the holder of the lease may end the work. The reported status is recorded in any case.
    perform from twilio_internal.outbox o
    where o.message_id = any (message_ids)
    order by o.message_id
    for update;
    held := array(
        select (select o.message_id from twilio_internal.outbox o where o.message_id = i.id and o.lease_token = i.token)
        from unnest(message_ids, lease_tokens) with ordinality i (id, token, n)
        order by i.n
    );
    -- Lock all of them now and in order, since bind and record each lock some of them.
    perform from twilio.message m
    where m.message_id = any (message_ids)
    order by m.message_id
    for update;
    if 'accepted' = any (outcomes) then
        perform twilio_internal.bind(
            array_agg(i.attempt), array_agg(m.account_sid), array_agg(i.sid),
            -- Values of another form are ignored and raise no error.
            array_agg(case when i.response ->> 'num_segments' ~ '^[1-9][0-9]{0,3}$' then
                (i.response ->> 'num_segments')::int
            end),
            array_agg(case when i.response ->> 'price' ~ '^-?[0-9]{1,9}([.][0-9]{1,9})?$' then
                (i.response ->> 'price')::numeric
            end),
            array_agg(left(i.response ->> 'price_unit', 16))
        )
        from unnest(message_ids, attempts, message_sids, outcomes, parsed) i (id, attempt, sid, outcome, response)
        join twilio.message m on m.message_id = i.id
        where i.outcome = 'accepted' and i.sid is not null;
    end if;
    perform twilio_internal.record_outcomes(
        message_ids, held, outcomes, message_sids, statuses, error_codes, reasons, http_statuses
    );
    -- A look-up changes only the outcome of an attempt: the time of its end and its response stay.
    update twilio_internal.attempt t
    set finished_at = coalesce(t.finished_at, twilio.now()),
        outcome = i.outcome,
        http_status = coalesce(t.http_status, i.http_status),
        error_code = i.error_code,
        reason = i.reason,
        response = coalesce(t.response, i.response)
    from unnest(attempts, outcomes, http_statuses, error_codes, reasons, parsed)
        i (attempt, outcome, http_status, error_code, reason, response)
    where t.attempt_id = i.attempt and i.outcome in ('accepted', 'refused', 'not_processed', 'unknown');
    -- A provider that refuses can be reached too; but 5xx may come from a proxy of a provider that cannot.
    if outcomes && '{accepted,refused}' then
        perform twilio_internal.mark_reachable(array(
            select distinct o.sender_id
            from unnest(held, outcomes, http_statuses) i (id, outcome, http_status)
            join twilio_internal.outbox o on o.message_id = i.id
            where i.outcome = 'accepted' or i.outcome = 'refused' and i.http_status < 500
        ));
    end if;
    delete from twilio_internal.outbox o
    using unnest(held, outcomes) i (id, outcome)
    where o.message_id = i.id and i.outcome in ('accepted', 'refused');
    perform twilio_internal.requeue(held, outcomes, reasons, retry_after_ms, parsed);
    if true = any (are_away) then
        perform twilio_internal.mark_unreachable(array(
            select i.id from unnest(held, are_away) i (id, is_away) where i.is_away
        ));
    end if;
    return cardinality(array_remove(held, null));
end
$$;

comment on function twilio_internal.finish(
    bigint[], uuid[], text[], text[], text[], int[], int[], text[], text[], bigint[], boolean[]
) is
    'Records the results of claimed messages: accepted, refused, not_processed, unknown, again (repeat the look-up), absent (the look-up shows that it was not sent) or open (a look-up cannot settle it). Returns for how many the lease was still held.';

create function twilio_internal.record_outcomes(
    message_ids bigint[],
    held bigint[],
    outcomes text[],
    message_sids text[],
    statuses text[],
    error_codes int[],
    reasons text[],
    http_statuses int[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from twilio_internal.record(array(
        select twilio_internal.make_report(
            i.status, 'api', m.message_id, i.code,
            jsonb_strip_nulls(jsonb_build_object(
                'MessageStatus', i.status,
                'MessageSid', m.message_sid,
                'ErrorCode', i.code::text,
                'ErrorMessage', i.reason,
                'HttpStatus', i.http_status::text
            ))::text,
            direction => m.direction
        )
        from unnest(message_ids, held, outcomes, message_sids, statuses, error_codes, reasons, http_statuses)
            i (id, held, outcome, sid, status, code, reason, http_status)
        join twilio.message m on m.message_id = i.id
        where i.status is not null
            and case when i.outcome = 'accepted' then m.message_sid = i.sid else i.held is not null end
        order by m.message_id
    ));
end
$$;

comment on function twilio_internal.record_outcomes(
    bigint[], bigint[], text[], text[], text[], int[], text[], int[]
) is
    'Records the statuses that follow from outcomes.';

create function twilio_internal.requeue(
    held bigint[],
    outcomes text[],
    reasons text[],
    retry_after_ms bigint[],
    responses jsonb[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    late bigint[];
    ends text[];
    causes text[];
    codes int[];
    item record;
begin
    if not outcomes && '{not_processed,unknown,again,open,absent}' then
        return;
    end if;
    update twilio_internal.outbox o
    set state = case when i.outcome = 'unknown' then 'unknown' else o.state end,
        -- Without retry_after_ms it is not due again.
        due_at = coalesce(moment + i.after_ms * interval '1 millisecond', 'infinity'),
        tries = case when i.outcome = 'unknown' then 0 else o.tries end,
        lease_token = null,
        lease_until = null,
        is_provider_away = false,
        looked_up_at = case when o.state = 'unknown' then moment end,
        candidates = case when o.state = 'unknown' and i.response ? 'candidates' then
            array(select c.sid from jsonb_array_elements_text(i.response -> 'candidates') c (sid))
        end,
        problem = case when o.state = 'unknown' then i.reason end
    from unnest(held, outcomes, reasons, retry_after_ms, responses) i (id, outcome, reason, after_ms, response)
    where o.message_id = i.id and i.outcome in ('not_processed', 'unknown', 'again', 'open', 'absent');

    -- A message that cannot be sent before it expires ends now.
    select array_agg(o.message_id)
    into late
    from unnest(held, outcomes) i (id, outcome)
    join twilio_internal.outbox o on o.message_id = i.id
    where i.outcome = 'not_processed' and o.state = 'waiting'
        and o.due_at >= o.expires_at;
    if late is not null then
        delete from twilio_internal.outbox o where o.message_id = any (late);
        -- An error that lasts longer than the message is its refusal, which rules go by.
        select
            array_agg(case when e.error_code is not null then 'refused' else 'expired' end order by l.n),
            array_agg('given up: ' || i.reason order by l.n),
            array_agg(e.error_code order by l.n)
        into ends, causes, codes
        from unnest(late) with ordinality l (id, n)
        join unnest(held, reasons) i (id, reason) on i.id = l.id
        join twilio.message m on m.message_id = l.id
        left join lateral (
            select t.error_code
            from twilio_internal.attempt t
            where t.message_id = l.id
            order by t.started_at desc
            limit 1
        ) t on true
        left join twilio.error_code e
            on e.error_code = t.error_code and moment + e.retry_after_s * interval '1 second' >= m.expires_at;
        perform twilio_internal.record_decision(late, ends, causes, codes);
    end if;

    -- Twilio's list, read to its end, does not contain it, so it was not sent. With at_least_once it is sent again.
    for item in
        select o.*
        from unnest(held, outcomes) i (id, outcome)
        join twilio_internal.outbox o on o.message_id = i.id
        where i.outcome = 'absent' and o.state = 'unknown'
            -- A callback may have reported the SID since the list was read.
            and exists (select from twilio.message m where m.message_id = o.message_id and m.message_sid is null)
    loop
        -- A timed rule may have sent a fallback meanwhile.
        if item.is_repeatable and item.expires_at > moment and not twilio_internal.has_active_fallback(item.message_id) then
            delete from twilio_internal.outbox o where o.message_id = item.message_id;
            perform twilio_internal.create_retry(
                item.message_id, item.sender_id, true, item.expires_at - moment, item.crashes
            );
        else
            perform twilio_internal.settle_unsent(item.message_id, 'not sent: Twilio''s list of messages does not show it');
        end if;
    end loop;
end
$$;

comment on function twilio_internal.requeue(bigint[], text[], text[], bigint[], jsonb[]) is
    'Makes unfinished messages due again at their time, ends those that expire before, and repeats or ends those that were not sent.';

create function twilio_internal.probe(sender_id int, until timestamptz)
returns void
language sql
volatile
-- Read only the first row in the order of the index, whatever the planner expects.
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
begin atomic
    -- A probe does not count as a try of the message.
    select twilio_internal.run_isolated(
        'probe',
        $$update twilio_internal.outbox o
        set due_at = least(o.due_at, $2), tries = greatest(o.tries - 1, 1)
        where o.message_id = any ($1)
        returning o.message_id$$,
        array(
            select o.message_id
            from twilio_internal.outbox o
            where o.sender_id = probe.sender_id and o.is_provider_away and o.state = 'waiting' and o.lease_token is null
            order by o.due_at
            limit 1
            for update skip locked
        ),
        until
    );
end;

comment on function twilio_internal.probe(int, timestamptz) is
    'Makes one message of a sender due at the latest by a time, to probe whether the provider is back; none if none waits for its provider.';

create function twilio_internal.mark_unreachable(message_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    moment constant timestamptz := twilio.now();
    origin int;
begin
    for origin in
        with failed as (
            update twilio_internal.outbox o
            set is_provider_away = true
            where o.message_id = any (message_ids) and o.state = 'waiting'
            returning o.sender_id
        )
        select distinct f.sender_id from failed f order by 1
    loop
        update twilio.sender s
        set away_since = moment
        where s.away_since is null
            -- SKIP LOCKED: a claim may hold this row while it waits for a message that is locked here.
            and s.sender_id in (select x.sender_id from twilio.sender x where x.sender_id = origin for no key update skip locked);
        perform twilio_internal.probe(origin, moment + interval '15 seconds');
    end loop;
end
$$;

comment on function twilio_internal.mark_unreachable(bigint[]) is
    'Records that the provider of these messages could not be reached, and makes one message of each sender due within 15 seconds.';

create function twilio_internal.mark_reachable(sender_ids int[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    moment constant timestamptz := twilio.now();
    origin twilio.sender;
    -- Limits the time of one finish. The next accepted message releases the rest.
    room int := 1000;
    released int;
begin
    -- All senders of an account share one provider; each gateway of phones is a provider of its own.
    for origin in
        select x.*
        from twilio.sender x
        where x.away_since is not null
            and exists (
                select
                from twilio.sender y
                where y.sender_id = any (sender_ids) and (y.sender_id = x.sender_id or y.account_sid = x.account_sid)
            )
        for no key update of x skip locked
    loop
        -- If only some of many connections fail, each message waits for its own time.
        if origin.away_since <= moment - interval '5 seconds' then
            -- They are sent as fast as their senders' rates allow.
            update twilio_internal.outbox o
            set due_at = moment, tries = 1, is_provider_away = false
            where o.message_id = any (array(
                select x.message_id
                from twilio_internal.outbox x
                where x.sender_id = origin.sender_id and x.is_provider_away and x.state = 'waiting'
                    and x.lease_token is null
                order by x.due_at
                limit room
                for update skip locked
            ));
            get diagnostics released = row_count;
            room := room - released;
            exit when room = 0;
        end if;
        update twilio.sender s set away_since = null where s.sender_id = origin.sender_id;
    end loop;
end
$$;

comment on function twilio_internal.mark_reachable(int[]) is
    'Makes messages that wait for the provider of these senders due at once, up to a thousand per call, since it has answered.';

create function twilio_internal.watch_unreachable()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    soon constant timestamptz := twilio.now() + interval '15 seconds';
    origin int;
    first_due timestamptz;
begin
    for origin in
        select s.sender_id from twilio.sender s where s.away_since is not null order by 1
    loop
        -- Messages under way were due before.
        select o.due_at into first_due
        from twilio_internal.outbox o
        where o.sender_id = origin and o.is_provider_away and o.state = 'waiting'
        order by o.due_at
        limit 1;
        if not found then
            update twilio.sender s
            set away_since = null
            where s.sender_id in (select x.sender_id from twilio.sender x where x.sender_id = origin for no key update skip locked);
        elsif first_due > soon then
            -- The last probe may have ended in another way: refused, expired, canceled or postponed by the provider.
            perform twilio_internal.probe(origin, soon);
        end if;
    end loop;
end
$$;

comment on function twilio_internal.watch_unreachable() is
    'Makes one message of each sender whose provider is away due soon, if none is; ends this state for senders without waiting messages.';
