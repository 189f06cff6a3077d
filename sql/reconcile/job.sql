-- Jobs of the worker that fetch the state of messages from Twilio, and what is made of the answers.

create function twilio_internal.claim_reconciliation(at_most int, lease interval default '60 seconds')
returns table (
    message_id bigint,
    lease_token uuid,
    tries int,
    account_sid text,
    api_url text,
    message_sid text
)
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
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    after constant interval := twilio_internal.reconcile_after();
    rate constant int := current_setting('twilio_callback.reconcile_rate')::int;
    give_up_at constant timestamptz := clock_timestamp() + interval '50 ms';
    -- Three of four places for requests are kept for messages.
    room int := least(at_most, greatest(1, current_setting('twilio_callback.max_in_flight')::int / 4) - (
        select count(*) from twilio_internal.reconciliation r where r.lease_token is not null and r.due_at > moment
    )::int);
    origin record;
    share int;
    batch bigint[];
    settled bigint[];
    asked bigint[];
    taken bigint[] := '{}';
begin
    if after is null or room < 1 or not twilio.is_sending() then
        return;
    end if;
    for origin in
        select a.account_sid, coalesce(p.failures, 0) as failures
        from twilio.account a
        left join twilio_internal.reconciliation_account p on p.account_sid = a.account_sid
        where coalesce(p.next_at, '-infinity') <= moment
            and exists (
                select from twilio_internal.reconciliation r where r.account_sid = a.account_sid and r.due_at <= moment
            )
    loop
        -- One request at a time up to 5 a second, more only for higher rates. After a failure one request tries whether
        -- Twilio answers again.
        share := least(room - cardinality(taken), case when origin.failures > 0 then 1 else greatest(1, rate / 5) end);
        exit when share < 1;
        loop
            batch := array(
                select r.message_id
                from twilio_internal.reconciliation r
                where r.account_sid = origin.account_sid and r.due_at <= moment
                order by r.due_at
                limit greatest(100, share)
                for update skip locked
            );
            exit when batch = '{}';
            delete from twilio_internal.reconciliation r
            where r.message_id = any (batch)
                and not exists (
                    select
                    from twilio.message m
                    where m.message_id = r.message_id and twilio_internal.is_reconcilable(m)
                        -- Without a SID, only a message that is still to be sent can get one.
                        and (m.message_sid is not null or exists (select from twilio_internal.outbox o where o.message_id = m.message_id))
                );
            -- What is given up is looked at once a day, without a request; what is not at Twilio yet, later.
            update twilio_internal.reconciliation r
            set due_at = case
                    when r.ended_at is not null then moment + interval '1 day'
                    else greatest(moment, m.send_at, least(o.due_at, moment + interval '1 day')) + after
                end,
                since = greatest(moment, m.send_at),
                lease_token = null
            from twilio.message m
            left join twilio_internal.outbox o on o.message_id = m.message_id
            where r.message_id = any (batch) and m.message_id = r.message_id
                and (r.ended_at is not null or m.send_at > moment or m.message_sid is null or o.message_id is not null);
            asked := array(
                select r.message_id
                from unnest(batch) with ordinality b (id, n)
                join twilio_internal.reconciliation r on r.message_id = b.id
                where r.due_at <= moment
                order by b.n
                limit share
            );
            exit when asked <> '{}' or clock_timestamp() >= give_up_at;
        end loop;
        continue when asked is null or asked = '{}';
        -- The lease ends at due_at: without a result until then, its holder counts as crashed.
        update twilio_internal.reconciliation r
        set lease_token = gen_random_uuid(), due_at = moment + lease, tries = least(r.tries + 1, 1000)
        where r.message_id = any (asked);
        insert into twilio_internal.reconciliation_account as p (account_sid, next_at)
        values (origin.account_sid, moment + cardinality(asked) * interval '1 second' / rate)
        on conflict on constraint reconciliation_account_pkey do update set next_at = excluded.next_at;
        taken := taken || asked;
        asked := null;
    end loop;
    return query
    select r.message_id, r.lease_token, r.tries::int, m.account_sid, a.api_url, m.message_sid
    from twilio_internal.reconciliation r
    join twilio.message m on m.message_id = r.message_id
    join twilio.account a on a.account_sid = m.account_sid
    where r.message_id = any (taken);
end
$$;

comment on function twilio_internal.claim_reconciliation(int, interval) is
    'Takes messages whose state is to be fetched from Twilio under a lease, the oldest first, up to the rate of each account; those that have a final status by now are removed.';

create function twilio_internal.next_reconciliation()
returns double precision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    if twilio_internal.reconcile_after() is null or not twilio.is_sending() then
        return null;
    end if;
    return (
        select extract(epoch from min(greatest(d.due_at, p.next_at)) - twilio.now())
        from twilio.account a
        cross join lateral (
            select r.due_at from twilio_internal.reconciliation r where r.account_sid = a.account_sid order by r.due_at limit 1
        ) d
        left join twilio_internal.reconciliation_account p on p.account_sid = a.account_sid
    );
end
$$;

comment on function twilio_internal.next_reconciliation() is
    'Returns the seconds until the state of a message may be fetched next, negative if one is due already; null if there is none.';

create function twilio_internal.release_reconciliation(moment timestamptz)
returns void
language sql
volatile
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
begin atomic
    update twilio_internal.reconciliation r
    set lease_token = null, due_at = release_reconciliation.moment, tries = greatest(r.tries - 1, 0)
    where r.lease_token is not null;
    update twilio_internal.message_sweep s
    set lease_token = null, due_at = release_reconciliation.moment, tries = greatest(s.tries - 1, 0)
    where s.lease_token is not null;
    -- A clock that was ahead: no pause is longer than an hour.
    update twilio_internal.reconciliation_account p
    set next_at = release_reconciliation.moment
    where p.next_at > release_reconciliation.moment + interval '1 hour';
end;

comment on function twilio_internal.release_reconciliation(timestamptz) is
    'Makes messages and pages due at once that the last worker was fetching.';

create function twilio_internal.record_resources(account_sid text, resources jsonb)
returns bigint
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
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    reported bigint;
    priced bigint;
begin
    select count(*) filter (where r.is_new)
    into reported
    from twilio_internal.record(array(
        select twilio_internal.make_report(
            i.status, 'poll', null, i.error_code,
            jsonb_strip_nulls(jsonb_build_object(
                'MessageSid', i.sid,
                'AccountSid', account_sid,
                'MessageStatus', i.status,
                'From', i.from_address,
                'To', i.to_address,
                'Body', case when i.direction = 'inbound' then i.body end,
                'NumMedia', case when i.direction = 'inbound' then i.num_media::text end,
                'ErrorCode', i.error_code::text,
                'ErrorMessage', i.error_message
            ))::text,
            -- A message that is first heard of is as old as Twilio says.
            case when not exists (select from twilio.message m where m.message_sid = i.sid) then
                least(moment, to_timestamp(coalesce(i.sent_at, i.created_at) / 1000.0))
            end,
            account_sid, i.sid, i.direction, i.channel, i.from_address, i.to_address, nullif(i.body, ''),
            messaging_service_sid => i.messaging_service_sid,
            -- When it was sent: what followed from it later is not undone.
            event_time => to_timestamp(coalesce(i.sent_at, i.created_at) / 1000.0)
        )
        from jsonb_to_recordset(resources) i (
            sid text, status text, direction text, channel text, from_address text, to_address text, body text, num_media int,
            error_code int, error_message text, sent_at bigint, created_at bigint, messaging_service_sid text
        )
        where i.status is not null
        order by i.sid
    )) r;
    update twilio.message m
    set num_segments = coalesce(i.num_segments, m.num_segments),
        price = coalesce(i.price, m.price),
        price_unit = coalesce(i.price_unit, m.price_unit)
    from jsonb_to_recordset(resources) i (sid text, num_segments smallint, price numeric, price_unit text)
    where m.message_sid = i.sid and m.account_sid = record_resources.account_sid
        and (m.num_segments, m.price, m.price_unit)
            is distinct from (coalesce(i.num_segments, m.num_segments), coalesce(i.price, m.price), coalesce(i.price_unit, m.price_unit));
    get diagnostics priced = row_count;
    return greatest(reported, priced);
end
$$;

comment on function twilio_internal.record_resources(text, jsonb) is
    'Records messages of an account as Twilio''s API shows them: states by twilio_internal.record, with the same consequences as those of callbacks, and prices and segments. Returns about how many messages changed.';

create function twilio_internal.pause_reconciliation(account_sid text, reason text, retry_after_ms bigint)
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    asked_for constant interval := retry_after_ms * interval '1 millisecond';
    later timestamptz;
begin
    -- Requests that were under way together fail for one reason, so they count as one failure.
    insert into twilio_internal.reconciliation_account as p (account_sid, next_at, failures, problem)
    values (account_sid, moment + greatest(asked_for, interval '5 seconds'), 1, reason)
    on conflict on constraint reconciliation_account_pkey do update
    set next_at = greatest(p.next_at, moment + greatest(
            asked_for, least(interval '5 seconds' * power(2, least(p.failures, 10)), interval '10 minutes')
        )),
        failures = case when p.problem is not null and p.next_at > moment + interval '1 second' then p.failures else least(p.failures + 1, 100) end,
        problem = excluded.problem
    returning p.next_at into later;
    return later;
end
$$;

comment on function twilio_internal.pause_reconciliation(text, text, bigint) is
    'Leaves an account alone after a failed request, the longer the more failed in a row, and at least as long as Twilio asks for. Returns until when.';

create function twilio_internal.note_answer(account_sid text)
returns void
language sql
volatile
begin atomic
    update twilio_internal.reconciliation_account p
    set failures = 0, problem = null
    where p.account_sid = note_answer.account_sid and p.problem is not null
        -- In a pause this answer is one to an earlier request.
        and p.next_at <= twilio.now() + interval '1 second';
end;

comment on function twilio_internal.note_answer(text) is
    'Ends the counting of failed requests of an account, since one was answered.';

create function twilio_internal.finish_reconciliation(
    message_id bigint,
    lease_token uuid,
    outcome text,
    resource jsonb default null,
    reason text default null,
    retry_after_ms bigint default null
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    after constant interval := coalesce(twilio_internal.reconcile_after(), interval '15 minutes');
    job twilio_internal.reconciliation;
    message twilio.message;
    later timestamptz;
    is_over boolean;
begin
    perform from twilio.message m where m.message_id = message_id for update;
    select r.* into job
    from twilio_internal.reconciliation r
    where r.message_id = message_id and r.lease_token = lease_token
    for update;
    if not found then
        return false;
    end if;
    if outcome = 'failed' then
        later := twilio_internal.pause_reconciliation(job.account_sid, reason, retry_after_ms);
        update twilio_internal.reconciliation r
        set lease_token = null, due_at = later, tries = greatest(r.tries - 1, 0), problem = reason
        where r.message_id = message_id;
        return true;
    end if;
    perform twilio_internal.note_answer(job.account_sid);
    if resource is not null then
        perform twilio_internal.record_resources(job.account_sid, jsonb_build_array(resource));
    end if;
    select m.* into message from twilio.message m where m.message_id = message_id;
    if not found or not twilio_internal.is_reconcilable(message) then
        delete from twilio_internal.reconciliation r where r.message_id = message_id;
        return true;
    end if;
    later := moment + least(after * power(2, least(job.tries, 10)), interval '1 day');
    is_over := outcome = 'missing' or later > job.since + interval '4 days';
    update twilio_internal.reconciliation r
    set lease_token = null,
        due_at = case when is_over then moment + interval '1 day' else later end,
        ended_at = case when is_over then moment end,
        problem = case
            when outcome = 'missing' then 'Twilio does not have the message'
            when outcome = 'found' then format('Twilio reports the status %s', coalesce(resource ->> 'status', message.status))
            else reason
        end
    where r.message_id = message_id;
    return true;
end
$$;

comment on function twilio_internal.finish_reconciliation(bigint, uuid, text, jsonb, text, bigint) is
    'Records the result of fetching the state of a message from Twilio: found, missing, unclear (only this message is fetched again later) or failed (so is the whole account); false if the lease has ended.';

create function twilio_internal.check_reconciliation()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := twilio.now();
    after constant interval := twilio_internal.reconcile_after();
    oldest timestamptz;
    missing bigint;
    status record;
begin
    if not exists (select from twilio.account) then
        return;
    end if;
    select coalesce(sum(s.waiting), 0) as waiting, coalesce(sum(s.due), 0) as due, coalesce(sum(s.ended), 0) as ended,
        max(s.done_at) as done_at, min(s.account_sid) filter (where s.problem is not null) as failing, min(s.problem) as problem
    into status
    from twilio.reconciliation_status s;
    select min(k.marked_at) into oldest from twilio_internal.reconciliation_mark k where not k.is_examined;
    select count(*) into missing
    from twilio.unreconciled_message u
    where u.reason = 'Twilio does not have the message' and u.ended_at > moment - interval '7 days';
    return query select
        'reconciliation',
        case
            when after is null or status.failing is not null or oldest < moment - after - interval '10 minutes'
                or status.done_at > moment + interval '1 hour' or missing > 0 then 'warning'
            else 'ok'
        end,
        case
            when after is null then 'off: a message whose callback is lost keeps its status'
            when status.failing is not null then format('account %s: %s', status.failing, status.problem)
            when oldest < moment - after - interval '10 minutes' then format('messages created since %s are not examined yet', to_char(oldest, 'YYYY-MM-DD HH24:MI:SSOF'))
            when status.done_at > moment + interval '1 hour' then format('messages that are due: %s, which takes until %s', status.due, to_char(status.done_at, 'YYYY-MM-DD HH24:MI:SSOF'))
            when missing > 0 then format('messages that Twilio does not have, of the last 7 days: %s', missing)
            else format('messages without a final status: %s wait, %s were given up', status.waiting, status.ended)
        end,
        case
            when after is null then 'alter system set twilio_callback.reconcile_after = ''15min''; select pg_reload_conf();'
            when status.failing is not null then 'Correct the credentials or wait; twilio.reconciliation_status shows until when.'
            when oldest < moment - after - interval '10 minutes' then
                'Start the worker, and end transactions that have been open for long: select * from pg_stat_activity where backend_xid is not null order by xact_start;'
            when status.done_at > moment + interval '1 hour' then 'alter system set twilio_callback.reconcile_rate = 20; select pg_reload_conf();'
            when missing > 0 then 'select * from twilio.unreconciled_message;'
        end;
end
$$;

comment on function twilio_internal.check_reconciliation() is
    'The check of twilio.doctor about messages whose callbacks did not come; no row without an account.';
