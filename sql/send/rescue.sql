-- Rescue of messages whose worker crashed, and the end of those that expired or were settled by callbacks.

create function twilio_internal.requeue_orphaned(message_ids bigint[])
returns bigint[]
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
    sent bigint[];
begin
    -- It is not known whether the request was sent. SMSGate takes our own id, so there it may be repeated.
    select array_agg(o.message_id)
    into sent
    from twilio_internal.outbox o
    join twilio.message m on m.message_id = o.message_id
    where o.message_id = any (message_ids) and o.state = 'waiting' and m.provider = 'twilio';
    if sent is not null then
        perform twilio_internal.record_decision(
            sent, array_fill('unknown'::text, array[cardinality(sent)]),
            array_fill('the worker ended while it was sending'::text, array[cardinality(sent)])
        );
    end if;
    update twilio_internal.attempt t
    set finished_at = moment, outcome = 'unknown', reason = 'the worker ended while it was sending'
    from twilio_internal.outbox o
    where o.message_id = any (message_ids) and t.attempt_id = o.lease_token and t.finished_at is null;
    update twilio_internal.outbox o
    set state = case
            when f.is_fatal then 'dead'
            when o.message_id = any (sent) then 'unknown'
            else o.state
        end,
        due_at = case
            when f.is_fatal then 'infinity'
            when o.crashes >= 2 then moment + interval '10 minutes'
            else moment
        end,
        tries = case when o.message_id = any (sent) then 0 else o.tries end,
        crashes = o.crashes + 1,
        lease_token = null,
        lease_until = null,
        is_provider_away = false
    from (
        -- Most messages under way when a worker crashes did not cause it. A look-up is harmless, and settles a message
        -- that must not be sent again: it is postponed before it is given up.
        select x.message_id, x.crashes >= case when x.state = 'unknown' then 5 else 2 end as is_fatal
        from twilio_internal.outbox x
        where x.message_id = any (message_ids)
    ) f
    where o.message_id = f.message_id;
    return message_ids;
end
$$;

comment on function twilio_internal.requeue_orphaned(bigint[]) is
    'Does the work of twilio_internal.rescue_orphaned for messages whose rows of the outbox are locked by the caller.';

create function twilio_internal.rescue_orphaned(is_start boolean default false)
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Not a plan profile: leases have no index, and the table is as small as the number of waiting messages.
set enable_seqscan = on
as $$
declare
    moment constant timestamptz := twilio.now();
    lost bigint[];
    result record;
begin
    -- A worker that starts is the only one, so the holders of all leases have crashed.
    if is_start then
        -- A poll may be repeated at once.
        perform twilio_internal.release_reconciliation(moment);
        perform twilio_internal.run_isolated(
            'requeue fetch',
            $q$update twilio_internal.fallback f set lease_token = null, due_at = $2 where f.message_id = any ($1) returning f.message_id$q$,
            array(
                select f.message_id
                from twilio_internal.fallback f
                where f.is_preparing and f.lease_token is not null
                for update skip locked
            ),
            moment
        );
        perform twilio_internal.run_isolated(
            'requeue poll',
            $q$update twilio_internal.smsgate_message p set lease_token = null, due_at = $2 where p.message_id = any ($1) returning p.message_id$q$,
            array(
                select p.message_id
                from twilio_internal.smsgate_message p
                where p.is_open and p.lease_token is not null
                for update skip locked
            ),
            moment
        );
    end if;
    lost := array(
        select x.message_id
        from twilio_internal.outbox x
        where x.lease_token is not null and (is_start or x.lease_until < moment)
        order by x.message_id
        for update skip locked
    );
    if lost = '{}' then
        return 0;
    end if;
    perform twilio_internal.require_durability();
    select r.* into result
    from twilio_internal.run_isolated('requeue', 'select unnest(twilio_internal.requeue_orphaned($1))', lost) r;
    perform twilio_internal.postpone(result.failed, moment + interval '1 minute');
    return cardinality(result.done);
end
$$;

comment on function twilio_internal.rescue_orphaned(boolean) is
    'Requeues messages whose worker crashed: those that may have been sent become unknown. A message is given up after three crashes, a look-up after six.';

create function twilio_internal.expire_due(at_most int default 1000)
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.watch_unreachable();
    return cardinality(twilio_internal.claim_due(
        'settle',
        $q$select
            -- Messages of paused accounts and slow senders expire too.
            array(
                select o.message_id
                from twilio_internal.outbox o
                where o.state = 'waiting' and o.expires_at <= twilio.now() and o.lease_token is null
                    and not o.message_id = any ($2)
                order by o.expires_at
                limit $1
                for update skip locked
            ) || array(
                -- A late callback may have settled an open outcome.
                select o.message_id
                from twilio_internal.outbox o
                cross join lateral (
                    select x.* from twilio.message x where x.message_id = o.message_id offset 0
                ) m
                where o.state in ('unknown', 'dead') and o.lease_token is null
                    and (m.message_sid is not null or m.provider = 'smsgate' and twilio_internal.has_smsgate_event(m.message_id))
                    and not o.message_id = any ($2)
                limit $1
                for update of o skip locked
            )$q$,
        'select unnest($1) except select unnest(twilio_internal.discard_settled($1))',
        at_most
    ));
end
$$;

comment on function twilio_internal.expire_due(int) is
    'Ends messages that expired before they were due, and unknown outcomes that a callback has settled; keeps probing providers that are away.';
