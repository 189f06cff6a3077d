-- Steps of the worker with many messages at once. If a lock or a user's trigger prevents the step for one of them, each is
-- processed on its own.

create function twilio_internal.run_step(
    step text,
    message_ids bigint[],
    until timestamptz,
    statuses text[],
    reasons text[]
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    writable bigint[];
begin
    case step
        when 'note' then
            perform twilio_internal.record_decision(message_ids, statuses, reasons);
        when 'settle' then
            perform twilio_internal.discard_settled(message_ids);
            return array(
                select i.id
                from unnest(message_ids) i (id)
                where not exists (select from twilio_internal.outbox o where o.message_id = i.id)
            );
        when 'lease' then
            return twilio_internal.lease(message_ids, until);
        when 'put off' then
            update twilio_internal.outbox o
            set due_at = greatest(o.due_at, until)
            where o.message_id = any (message_ids) and o.lease_token is null;
        when 'probe' then
            -- A probe does not count as a try of the message.
            update twilio_internal.outbox o
            set due_at = least(o.due_at, until), tries = greatest(o.tries - 1, 1)
            where o.message_id = any (message_ids);
        when 'take back' then
            perform twilio_internal.requeue_orphaned(message_ids);
        when 'leave' then
            update twilio_internal.outbox o
            set lease_until = until
            where o.message_id = any (message_ids) and o.lease_token is not null;
        when 'ask for original' then
            update twilio_internal.fallback f
            -- The lease ends at due_at: without a result until then, its holder counts as crashed.
            set lease_token = gen_random_uuid(), due_at = until, tries = f.tries + 1
            where f.message_id = any (message_ids);
        when 'ask for original again' then
            update twilio_internal.fallback f
            set lease_token = null, due_at = until
            where f.message_id = any (message_ids);
        when 'ask for original no more' then
            update twilio_internal.fallback f
            set is_preparing = false, lease_token = null, due_at = 'infinity'
            where f.message_id = any (message_ids);
        when 'make text' then
            -- An update without a change, since a user's function is only called for rows that can be written afterwards.
            with held as (
                update twilio_internal.fallback f
                set due_at = f.due_at
                where f.message_id = any (message_ids)
                returning f.message_id
            )
            select coalesce(array_agg(h.message_id), '{}') into writable from held h;
            return writable;
        when 'lease for phone' then
            return twilio_internal.lease_for_smsgate(message_ids, until);
        when 'ask phone' then
            update twilio_internal.smsgate_message p
            set lease_token = gen_random_uuid(), due_at = until, tries = least(p.tries + 1, 1000)
            where p.message_id = any (message_ids);
        when 'ask phone again' then
            update twilio_internal.smsgate_message p
            set lease_token = null, due_at = until
            where p.message_id = any (message_ids);
        when 'ask phone no more' then
            update twilio_internal.smsgate_message p
            set is_open = false, lease_token = null, due_at = 'infinity'
            where p.message_id = any (message_ids);
    end case;
    return message_ids;
end
$$;

comment on function twilio_internal.run_step(text, bigint[], timestamptz, text[], text[]) is
    'Does a step of the worker with messages whose rows it has locked, and returns those that proceed.';

create function twilio_internal.lock_tables(step text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Lock only the tables that this step writes. Some steps settle messages on the way, which is a step 'note' of its own.
    case
        when step = 'note' then
            lock table twilio.message, twilio.message_event in row exclusive mode;
        when step in ('lease', 'settle') then
            lock table twilio_internal.outbox, twilio_internal.attempt in row exclusive mode;
        when step = 'take back' then
            lock table twilio.message, twilio.message_event, twilio_internal.outbox, twilio_internal.attempt in row exclusive mode;
        when step in ('put off', 'probe', 'leave') then
            lock table twilio_internal.outbox in row exclusive mode;
        when step = 'lease for phone' then
            lock table twilio_internal.outbox, twilio_internal.attempt, twilio_internal.smsgate_message in row exclusive mode;
        when step in ('ask phone', 'ask phone again', 'ask phone no more') then
            lock table twilio_internal.smsgate_message in row exclusive mode;
        else
            lock table twilio_internal.fallback in row exclusive mode;
    end case;
end
$$;

comment on function twilio_internal.lock_tables(text) is 'Locks the tables that a step of twilio_internal.run_step writes, as writing to them does.';

create function twilio_internal.run_isolated(
    step text,
    message_ids bigint[],
    until timestamptz default null,
    statuses text[] default null,
    reasons text[] default null,
    out done bigint[],
    out hindered bigint[],
    out untried bigint[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
-- Do not wait long for other transactions.
set lock_timeout = '200ms'
as $$
declare
    give_up_at timestamptz;
    place int;
begin
    done := '{}';
    hindered := '{}';
    untried := '{}';
    if message_ids = '{}' then
        return;
    end if;
    begin
        perform twilio_internal.lock_tables(step);
    exception
        when lock_not_available then
            -- A lock on a whole table prevents the step for all of them.
            raise warning '% messages are left for later: "%" waits for a lock on a table',
                cardinality(message_ids), step;
            untried := message_ids;
            return;
    end;
    if cardinality(message_ids) > 1 then
        begin
            done := twilio_internal.run_step(step, message_ids, until, statuses, reasons);
            return;
        exception
            when others then
                -- A lock or a user's trigger prevents the step for one of them.
                null;
        end;
    end if;
    -- The first one is tried without regard to the time, so that each call makes progress.
    give_up_at := clock_timestamp() + interval '2 seconds';
    for place in
        select i.n from unnest(message_ids) with ordinality i (id, n) order by i.id
    loop
        if clock_timestamp() >= give_up_at then
            untried := untried || message_ids[place];
            continue;
        end if;
        begin
            done := done || twilio_internal.run_step(
                step, message_ids[place:place], until, statuses[place:place], reasons[place:place]
            );
        exception
            when others then
                -- Without the error's text, which may quote the message.
                raise warning 'message % is left for later: "%" failed with SQLSTATE %',
                    message_ids[place], concat_ws(' ', step, statuses[place]), sqlstate;
                hindered := hindered || message_ids[place];
        end;
    end loop;
end
$$;

comment on function twilio_internal.run_isolated(text, bigint[], timestamptz, text[], text[]) is
    'Does a step like twilio_internal.run_step, but a message that fails does not block the others: hindered are the failed ones, done those that it returns, untried those that were not reached in time.';

create function twilio_internal.lock_due_for(step text, at_most int, but_for bigint[])
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := twilio.now();
begin
    case step
        when 'lease' then
            return twilio_internal.lock_due(at_most, 'twilio', but_for);
        when 'lease for phone' then
            return twilio_internal.lock_due(at_most, 'smsgate', but_for);
        when 'ask for original' then
            return array(
                select f.message_id
                from twilio_internal.fallback f
                where f.is_preparing and f.stage = 'twilio' and f.due_at <= moment
                    and not f.message_id = any (but_for)
                order by f.due_at
                limit at_most
                for update skip locked
            );
        when 'ask phone' then
            return array(
                select p.message_id
                from twilio_internal.smsgate_message p
                where p.is_open and p.due_at <= moment and not p.message_id = any (but_for)
                order by p.due_at
                limit at_most
                for update skip locked
            );
        when 'settle' then
            -- Messages of paused accounts and slow senders expire too.
            return array(
                select o.message_id
                from twilio_internal.outbox o
                where o.state = 'waiting' and o.expires_at <= moment and o.lease_token is null
                    and not o.message_id = any (but_for)
                order by o.expires_at
                limit at_most
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
                    and not o.message_id = any (but_for)
                limit at_most
                for update of o skip locked
            );
    end case;
end
$$;

comment on function twilio_internal.lock_due_for(text, int, bigint[]) is
    'Locks the rows that are due for a step of twilio_internal.run_step, except those of but_for, and returns their messages.';

create function twilio_internal.claim_due(step text, at_most int, until timestamptz default null)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    began constant timestamptz := clock_timestamp();
    seen bigint[] := '{}';
    taken bigint[] := '{}';
    batch bigint[];
    result record;
begin
    loop
        batch := twilio_internal.lock_due_for(step, at_most - cardinality(taken), seen);
        exit when batch = '{}';
        if step in ('lease', 'lease for phone') then
            perform twilio_internal.require_durability();
        end if;
        select e.* into result from twilio_internal.run_isolated(step, batch, until) e;
        taken := taken || result.done;
        if step in ('lease', 'lease for phone') and result.hindered || result.untried <> '{}' then
            perform twilio_internal.postpone(result.hindered, result.untried);
        end if;
        seen := seen || batch;
        exit when cardinality(taken) >= at_most
            or result.untried <> '{}'
            or result.hindered = '{}' and taken <> '{}' and step <> 'settle'
            -- Other messages replace those that need not be sent any more or could not be leased.
            or result.hindered = '{}' and clock_timestamp() >= began + interval '250 ms'
            or clock_timestamp() >= began + interval '2 s';
    end loop;
    return taken;
end
$$;

comment on function twilio_internal.claim_due(text, int, timestamptz) is
    'Does a step of twilio_internal.run_step with due messages, and with others in place of those that fail; returns the messages that proceed.';
