-- Steps of the worker with many messages at once. If a lock or a user's trigger prevents the step for one of them, each is
-- processed on its own.

create function twilio_internal.run_isolated(
    step text,
    statement text,
    message_ids bigint[],
    until timestamptz default null,
    out done bigint[],
    out failed bigint[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
-- Do not wait long for other transactions.
set lock_timeout = '100ms'
as $$
declare
    first_id bigint;
    give_up_at timestamptz;
    id bigint;
    are_all_locked boolean := true;
begin
    done := '{}';
    failed := '{}';
    if message_ids = '{}' then
        return;
    end if;
    if cardinality(message_ids) > 1 then
        begin
            for id in execute statement using message_ids, until loop
                done := done || id;
            end loop;
            return;
        exception
            when others then
                done := '{}';
        end;
        -- The batch has waited. Each time begins elsewhere, so that locked messages, however many, do not stop the others.
        perform set_config('lock_timeout', '10ms', true);
    end if;
    first_id := message_ids[1 + floor(random() * cardinality(message_ids))];
    give_up_at := clock_timestamp() + interval '500 ms';
    for id in select i.id from unnest(message_ids) i (id) order by i.id < first_id, i.id loop
        declare
            single bigint;
        begin
            for single in execute statement using array[id], until loop
                done := done || single;
            end loop;
            are_all_locked := false;
        exception
            when others then
                failed := failed || id;
                are_all_locked := are_all_locked and sqlstate = '55P03';
                -- Without the error's text, which may quote the message.
                raise warning 'message % is left for later: "%" failed with SQLSTATE %', id, step, sqlstate;
        end;
        exit when clock_timestamp() >= give_up_at;
    end loop;
    -- A lock on a whole table is no message's fault.
    if are_all_locked and cardinality(message_ids) > 1 then
        failed := '{}';
    end if;
end
$$;

comment on function twilio_internal.run_isolated(text, text, bigint[], timestamptz) is
    'Runs a statement for all messages ($1) at once, with a time ($2), and if it fails, once for each of them. Returns the messages that the statement returned, and those for which it failed; messages not reached within half a second are in neither, nor are any if all of them are locked.';

create function twilio_internal.claim_due(
    step text,
    due text,
    statement text,
    at_most int,
    until timestamptz default null,
    is_send boolean default false
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    give_up_at constant timestamptz := clock_timestamp() + interval '500 ms';
    seen bigint[] := '{}';
    taken bigint[] := '{}';
    batch bigint[];
    result record;
begin
    loop
        execute due into batch using at_most - cardinality(taken), seen;
        exit when batch = '{}';
        select r.* into result from twilio_internal.run_isolated(step, statement, batch, until) r;
        taken := taken || result.done;
        seen := seen || batch;
        if is_send and cardinality(result.done) < cardinality(batch) then
            perform twilio_internal.return_tokens(batch);
            perform twilio_internal.postpone(result.failed, twilio.now() + interval '10 seconds');
        end if;
        -- Other messages replace those that failed or need not be sent any more.
        exit when cardinality(result.done) = cardinality(batch) or cardinality(taken) >= at_most
            or clock_timestamp() >= give_up_at;
    end loop;
    return taken;
end
$$;

comment on function twilio_internal.claim_due(text, text, text, int, timestamptz, boolean) is
    'Runs a statement like twilio_internal.run_isolated for messages that are due, and for others in place of those that do not proceed; returns the messages that proceed. The query due locks up to $1 of them, except those of $2, and returns their array. If is_send, failed messages are postponed, and senders get back the tokens of those that were not leased.';
