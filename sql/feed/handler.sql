-- Consumers of the feed, and calls of their handlers.
-- No search_path in create_consumer, which stores its caller's for the handler, nor in run_handlers, which commits. Both
-- qualify all names.

create function twilio_internal.function_of_jsonb(function text, run_as text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_as text;
    reason text;
begin
    select
        format('%I.%I', n.nspname, p.proname),
        case
            when p.proretset or p.prokind <> 'f' then 'it is not a plain function'
            when not has_function_privilege(run_as, p.oid, 'execute') then format('%s may not execute it', run_as)
        end
    into found_as, reason
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where p.oid = to_regprocedure(function || '(jsonb)');
    if found_as is null or reason is not null then
        raise exception using
            errcode = 'undefined_function',
            message = format('%s(jsonb) cannot be called', function),
            detail = coalesce(reason, 'There is no such function'),
            hint = 'Give a function of one jsonb with its schema, such as app.on_event.';
    end if;
    return found_as;
end
$$;

comment on function twilio_internal.function_of_jsonb(text, text) is
    'Returns the quoted name of a function of one jsonb that a role may execute; raises an error if there is none.';

create function twilio.create_consumer(
    name text,
    handler text default null,
    kinds text[] default null,
    from_start boolean default false,
    lease interval default '30 s',
    max_tries int default 20,
    run_as name default current_user
)
returns void
language plpgsql
volatile
as $$
declare
    found_as text;
    now_tick bigint;
begin
    if name is null or name operator(pg_catalog.!~) '^[A-Za-z0-9_.-]{1,63}$' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = pg_catalog.format('invalid consumer name: "%s"', pg_catalog.left(name, 64)),
            hint = 'Use up to 63 letters, digits, dots, dashes and underscores.';
    end if;
    if handler is not null then
        if not pg_catalog.pg_has_role(current_user, run_as, 'member') then
            raise exception using
                errcode = 'insufficient_privilege',
                message = pg_catalog.format('must be member of role "%s"', run_as),
                hint = 'A handler runs as you, or as a role that you are a member of.';
        end if;
        found_as := twilio_internal.function_of_jsonb(handler, run_as::pg_catalog.text);
    end if;
    insert into twilio.feed_consumer (consumer, handler, run_as, search_path, kinds, lease, max_tries)
    values (
        name, found_as,
        case when found_as is not null then run_as end,
        case when found_as is not null then pg_catalog.current_setting('search_path') end,
        kinds, lease, max_tries
    );
    perform twilio_internal.wake_worker();
    if from_start then
        return;
    end if;
    -- Events that commit from now on are new to the consumer, even if they have their number already.
    now_tick := twilio.feed_tick(is_forced => true);
    if now_tick is not null then
        insert into twilio_internal.feed_position (consumer, tick_id, target_tick_id, after_event_id)
        values (name, now_tick, now_tick, 0);
        update twilio.feed_consumer c
        set safe_event_id = t.safe_event_id
        from twilio_internal.tick t
        where c.consumer operator(pg_catalog.=) create_consumer.name
            and t.tick_id operator(pg_catalog.=) now_tick;
    else
        update twilio.feed_consumer c
        set safe_event_id = twilio_internal.last_event_number()
        where c.consumer operator(pg_catalog.=) create_consumer.name;
    end if;
end
$$;

comment on function twilio.create_consumer(text, text, text[], boolean, interval, int, name) is
    'Creates a consumer of the feed, from now on or from the start of the log. The worker calls its handler, a function of one jsonb, with each event; without a handler, read the events with feed_read.';

create function twilio.drop_consumer(name text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from twilio.feed_consumer c where c.consumer = name;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('consumer "%s" does not exist', name),
            hint = 'See: select consumer from twilio.feed_lag.';
    end if;
end
$$;

comment on function twilio.drop_consumer(text) is
    'Drops a consumer with its deliveries and dead letters.';

create function twilio_internal.has_consumer()
returns boolean
language sql
stable
begin atomic
    select exists (select from twilio.feed_consumer) or twilio_internal.has_text();
end;

comment on function twilio_internal.has_consumer() is 'Returns whether the worker must serve consumers or make texts of fallbacks.';

create function twilio_internal.has_handler()
returns boolean
language sql
stable
begin atomic
    select exists (select from twilio.feed_consumer c where c.handler is not null) or twilio_internal.has_text();
end;

comment on function twilio_internal.has_handler() is 'Returns whether users'' functions must be called.';

create function twilio_internal.fail_handler(consumer text, event_id bigint, problem text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    update twilio_internal.feed_delivery d
    set tries = d.tries + 1
    where d.consumer = consumer and d.event_id = event_id;
    perform twilio.feed_nack(consumer, event_id, problem);
end
$$;

comment on function twilio_internal.fail_handler(text, bigint, text) is
    'Records a failed attempt of a consumer''s handler.';

create function twilio_internal.run_handler()
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted twilio.feed_consumer;
    item twilio.feed_item;
    id bigint;
    problem text;
begin
    for wanted in
        select c.*
        from twilio.feed_consumer c
        where c.handler is not null
        -- In random order, so that the backlog of one consumer does not delay the others.
        order by random()
        for update skip locked
    loop
        select x into id from twilio_internal.feed_due(wanted.consumer, 1) x;
        continue when id is null;
        select i.* into item from twilio.feed_item i where i.event_id = id;
        begin
            if found then
                perform twilio_internal.call_function(
                    wanted.handler, twilio_internal.feed_payload(item), wanted.run_as, wanted.search_path,
                    'handler', id, wanted.consumer
                );
            end if;
            delete from twilio_internal.feed_delivery d where d.consumer = wanted.consumer and d.event_id = id;
        exception
            -- If a user's function fails in any way, running too long included, the failure is recorded and the call repeated.
            when query_canceled or assert_failure or others then
                get stacked diagnostics problem = message_text;
                perform twilio_internal.fail_handler(wanted.consumer, id, problem);
        end;
        return true;
    end loop;
    return false;
end
$$;

comment on function twilio_internal.run_handler() is
    'Calls a handler with the next due event and records the result; returns false if none is due. It handles one event per transaction.';

create function twilio_internal.run_function(drafts_first boolean)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if drafts_first then
        return twilio_internal.run_text() or twilio_internal.run_handler();
    end if;
    return twilio_internal.run_handler() or twilio_internal.run_text();
end
$$;

comment on function twilio_internal.run_function(boolean) is
    'Calls one function of a user: for the text of a fallback, or a handler; returns false if none is due. The caller alternates drafts_first.';

create function twilio_internal.handler_step(worker_pid int, drafts_first boolean)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not (twilio_internal.is_work_wanted(worker_pid) and twilio_internal.is_worker(worker_pid))
        or not exists (select from twilio.feed_consumer c where c.handler is not null)
            and not twilio_internal.has_text()
    then
        return 'end';
    end if;
    return case when twilio_internal.run_function(drafts_first) then 'called' else 'idle' end;
end
$$;

comment on function twilio_internal.handler_step(int, boolean) is
    'Calls the next function of a user in the handler process, and returns called, idle (none is due) or end (the worker that started the process has ended, or there is no function to call).';

create procedure twilio.run_handlers(n int default 100)
language plpgsql
as $$
begin
    for i in 1 .. n loop
        exit when not twilio_internal.run_handler();
        commit;
    end loop;
end
$$;

comment on procedure twilio.run_handlers(int) is
    'Calls handlers with up to n due events, each in a transaction of its own.';
