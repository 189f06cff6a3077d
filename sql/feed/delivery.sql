-- Delivery of events to consumers: batches between ticks, leases, acknowledgements.

create function twilio_internal.feed_fill(consumer text, at_most int)
returns boolean
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
    at twilio_internal.feed_position;
    wanted twilio.feed_consumer;
    before twilio_internal.tick;
    target twilio_internal.tick;
    base bigint;
    low bigint;
    reached bigint;
    looked int;
begin
    -- The caller holds the consumer's row.
    select c.* into strict wanted from twilio.feed_consumer c where c.consumer = consumer;
    select p.* into at from twilio_internal.feed_position p where p.consumer = consumer;
    if not found then
        -- New with from_start, or restored: it starts after safe_event_id, up to which it has all events.
        insert into twilio_internal.feed_position (consumer, target_tick_id, after_event_id)
        select consumer, t.tick_id, wanted.safe_event_id
        from twilio_internal.tick t
        order by t.tick_id desc
        limit 1
        returning * into at;
        if not found then
            return false;
        end if;
    end if;
    select t.* into before from twilio_internal.tick t where t.tick_id = at.tick_id;
    if at.tick_id = at.target_tick_id then
        select t.tick_id into at.target_tick_id
        from twilio_internal.tick t
        where t.tick_id > at.tick_id
        -- A step covers about 10000 events; a consumer that is far behind takes several steps.
        order by t.high_event_id >= before.high_event_id + 10000 desc, case
            when t.high_event_id >= before.high_event_id + 10000 then t.tick_id
            else -t.tick_id
        end
        limit 1;
        if not found then
            return false;
        end if;
        at.after_event_id := 0;
    end if;
    select t.* into strict target from twilio_internal.tick t where t.tick_id = at.target_tick_id;
    select s.base_event_id into strict base from twilio_internal.feed_state s;

    -- New events were written by transactions that had not ended at the last tick, but have ended by the target. The latest
    -- tick before the first of these transactions gives the number that all their events exceed.
    low := at.after_event_id;
    if at.tick_id is not null then
        select greatest(low, coalesce(max(t.low_event_id), base)) into low
        from twilio_internal.tick t
        where t.xid < (
            select least(
                pg_snapshot_xmax(before.snapshot),
                (
                    select min(x.xid)
                    from pg_snapshot_xip(before.snapshot) x (xid)
                    where pg_visible_in_snapshot(x.xid, target.snapshot)
                )
            )
        );
    end if;

    with news as (
        select i.event_id, i.message_id, i.kind
        from twilio.feed_item i
        where i.event_id > low
            and i.event_id <= target.high_event_id
            and (i.event_id <= base or pg_visible_in_snapshot(i.xid, target.snapshot))
            and (
                at.tick_id is null
                or i.event_id > base and not pg_visible_in_snapshot(i.xid, before.snapshot)
            )
        order by i.event_id
        limit at_most
    ),
    added as (
        insert into twilio_internal.feed_delivery (consumer, event_id, message_id, due_at)
        select consumer, n.event_id, n.message_id, twilio.now()
        from news n
        where wanted.kinds is null or n.kind like any (wanted.kinds)
        on conflict do nothing
    )
    select count(*), max(n.event_id) into looked, reached from news n;

    if looked < at_most then
        update twilio_internal.feed_position p
        set tick_id = at.target_tick_id, target_tick_id = at.target_tick_id, after_event_id = 0
        where p.consumer = consumer;
        update twilio.feed_consumer c
        set safe_event_id = target.safe_event_id
        where c.consumer = consumer and c.safe_event_id < target.safe_event_id;
    else
        update twilio_internal.feed_position p
        set target_tick_id = at.target_tick_id, after_event_id = reached
        where p.consumer = consumer;
    end if;
    return true;
end
$$;

comment on function twilio_internal.feed_fill(text, int) is
    'Enters the next events of the feed into a consumer''s deliveries; returns false if all events up to the last tick are there.';

create function twilio_internal.feed_due(consumer text, at_most int)
returns setof bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Read the primary key in order, up to the limit: a plan made on an empty table would sort, and compare each delivery
-- with all others.
-- plan profile: index order, nested loop
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    wanted twilio.feed_consumer;
    due bigint[];
begin
    -- One reader at a time looks for due events, so that no two readers take events of the same message.
    select c.* into wanted from twilio.feed_consumer c where c.consumer = consumer for update;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('consumer "%s" does not exist', consumer),
            hint = 'Create it with: select twilio.create_consumer(name).';
    end if;
    loop
        select array_agg(s.event_id order by s.event_id) into due
        from (
            select d.event_id
            from twilio_internal.feed_delivery d
            where d.consumer = consumer
                and d.due_at <= twilio.now()
                -- Earlier events of the same message go first, even if they wait for a retry.
                and not exists (
                    select
                    from twilio_internal.feed_delivery e
                    where e.consumer = d.consumer
                        and e.message_id = d.message_id
                        and e.event_id < d.event_id
                        and e.due_at > twilio.now()
                )
            order by d.event_id
            limit at_most
        ) s;
        -- A consumer that never acknowledges an event, perhaps because it crashes, must not get it forever.
        with dead as (
            delete from twilio_internal.feed_delivery d
            where d.consumer = consumer and d.event_id = any (due) and d.tries >= wanted.max_tries
            returning d.*
        )
        insert into twilio.feed_dead_letter (consumer, event_id, message_id, tries, error)
        select d.consumer, d.event_id, d.message_id, d.tries, coalesce(d.error, 'never acknowledged')
        from dead d
        on conflict do nothing;
        continue when found;
        exit when coalesce(cardinality(due), 0) >= at_most
            or not twilio_internal.feed_fill(consumer, greatest(at_most, 1000));
    end loop;
    return query select unnest(due);
end
$$;

comment on function twilio_internal.feed_due(text, int) is
    'Returns the events that a consumer may get now, in order; the consumer''s row stays locked until the transaction ends.';

create function twilio.feed_read(consumer text, n int default 100)
returns table (event_id bigint, message_id bigint, kind text, tries int, event jsonb)
language plpgsql
volatile
-- Callers with grant_relay have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
-- Without statistics a plan may look expensive enough to be compiled.
set jit = off
as $$
#variable_conflict use_column
declare
    due bigint[];
begin
    perform twilio_internal.check_size(octet_length(consumer)::bigint);
    if n is null or n not between 1 and 10000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'n must be between 1 and 10000',
            hint = 'Read 1 to 10000 at a time.';
    end if;
    if exists (select from twilio.feed_consumer c where c.consumer = feed_read.consumer and c.handler is not null) then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('consumer "%s" has a handler', feed_read.consumer),
            detail = 'The worker calls it with each event.';
    end if;
    -- A statement of its own, so that the next one sees the deliveries that it makes.
    select array_agg(x) into due from twilio_internal.feed_due(feed_read.consumer, n) x;
    -- The event was purged after it was entered.
    delete from twilio_internal.feed_delivery d
    where d.consumer = feed_read.consumer
        and d.event_id = any (due)
        and d.event_id <> all (array(select i.event_id from twilio.feed_item i where i.event_id = any (due)));
    return query
    with given as (
        update twilio_internal.feed_delivery d
        set tries = d.tries + 1, due_at = twilio.now() + c.lease
        from twilio.feed_consumer c
        where c.consumer = feed_read.consumer
            and d.consumer = c.consumer
            and d.event_id = any (due)
        returning d.event_id, d.tries
    )
    select g.event_id, (l.item).message_id, (l.item).kind, g.tries, twilio_internal.feed_payload(l.item)
    from given g
    -- One by one: a join would read the whole view.
    cross join lateral (
        select i as item from twilio.feed_item i where i.event_id = g.event_id offset 0
    ) l
    order by g.event_id;
end
$$;

comment on function twilio.feed_read(text, int) is
    'Returns the next events of a consumer, in order. Each is reserved for this reader until the consumer''s lease ends; acknowledge it with feed_ack.';

create function twilio_internal.feed_payload(item twilio.feed_item)
returns jsonb
language sql
stable
begin atomic
    select jsonb_build_object(
        'event_id', (item).event_id,
        'kind', (item).kind,
        'message_id', (item).message_id,
        'received_at', (item).received_at
    ) || (item).data;
end;

comment on function twilio_internal.feed_payload(twilio.feed_item) is
    'Returns an event in the form that consumers get.';

create function twilio.feed_ack(consumer text, event_ids bigint[])
returns int
language plpgsql
volatile
-- Callers with grant_relay have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    done int;
begin
    perform twilio_internal.check_size(8::bigint * cardinality(event_ids));
    delete from twilio_internal.feed_delivery d
    where d.consumer = consumer and d.event_id = any (event_ids) and d.tries > 0;
    get diagnostics done = row_count;
    return done;
end
$$;

comment on function twilio.feed_ack(text, bigint[]) is
    'Acknowledges events: the consumer does not get them again. Returns how many were open.';

create function twilio.feed_ack(consumer text, event_id bigint)
returns int
language sql
volatile
-- Callers with grant_relay have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select twilio.feed_ack(consumer, array[event_id]);
end;

comment on function twilio.feed_ack(text, bigint) is
    'Acknowledges an event.';

create function twilio.feed_nack(
    consumer text,
    event_id bigint,
    error text default null,
    delay interval default null
)
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    again_at timestamptz;
begin
    with dead as (
        delete from twilio_internal.feed_delivery d
        using twilio.feed_consumer c
        where c.consumer = consumer
            and d.consumer = consumer
            and d.event_id = event_id
            and d.tries >= c.max_tries
        returning d.*
    )
    insert into twilio.feed_dead_letter (consumer, event_id, message_id, tries, error)
    select d.consumer, d.event_id, d.message_id, d.tries, coalesce(error, d.error)
    from dead d
    on conflict do nothing;
    update twilio_internal.feed_delivery d
    set due_at = twilio.now() + coalesce(delay, least(interval '1 hour', interval '1 s' * 2 ^ (d.tries - 1))),
        error = coalesce(left(error, 1000), d.error)
    where d.consumer = consumer and d.event_id = event_id and d.tries > 0
    returning d.due_at into again_at;
    return again_at;
end
$$;

comment on function twilio.feed_nack(text, bigint, text, interval) is
    'Reports that processing an event failed. It is delivered again after the delay, by default after 1, 2, 4, … seconds up to an hour; after max_tries it becomes a dead letter. Returns when it is delivered again, null if it is a dead letter.';

create function twilio_internal.feed_forget(message_ids bigint[])
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
    delete from twilio_internal.feed_delivery d
    where d.message_id = any (message_ids);
    delete from twilio.feed_dead_letter l
    where l.message_id = any (message_ids);
    delete from twilio_internal.feed_event e
    where e.message_id = any (message_ids);
end
$$;

comment on function twilio_internal.feed_forget(bigint[]) is
    'Removes the events of purged messages from the feed, open deliveries and dead letters included.';

create function twilio.feed_release(consumer text, event_ids bigint[])
returns int
language plpgsql
volatile
-- Callers with grant_relay have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    released int;
begin
    perform twilio_internal.check_size(8::bigint * cardinality(event_ids));
    update twilio_internal.feed_delivery d
    set tries = d.tries - 1, due_at = twilio.now()
    where d.consumer = consumer and d.event_id = any (event_ids) and d.tries > 0;
    get diagnostics released = row_count;
    return released;
end
$$;

comment on function twilio.feed_release(text, bigint[]) is
    'Releases events that were read but not processed: they can be read again at once, and the try does not count. Returns how many.';

create function twilio.feed_revive(consumer text, event_ids bigint[] default null)
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    revived int;
begin
    with live as (
        delete from twilio.feed_dead_letter l
        where l.consumer = consumer and (event_ids is null or l.event_id = any (event_ids))
        returning l.*
    )
    insert into twilio_internal.feed_delivery (consumer, event_id, message_id, due_at, error)
    select l.consumer, l.event_id, l.message_id, twilio.now(), l.error
    from live l
    on conflict do nothing;
    get diagnostics revived = row_count;
    return revived;
end
$$;

comment on function twilio.feed_revive(text, bigint[]) is
    'Delivers dead letters of a consumer again, all or the given ones; returns how many.';
