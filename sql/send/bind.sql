-- Binds messages to the SIDs that Twilio gave them. A message stays one row whether its callback or its response comes first.
-- No search_path: these functions are on the hot path, and the functions that receive requests set it once for all.

create function twilio_internal.merge(message_id bigint, other_id bigint)
returns void
language plpgsql
volatile
as $$
#variable_conflict use_variable
declare
    kept twilio.message;
    gone twilio.message;
begin
    select m.* into kept from twilio.message m where m.message_id = message_id;
    select m.* into gone from twilio.message m where m.message_id = other_id;
    -- An event of both rows is kept once, with the parameters of both; where they differ, those of the earlier event count.
    update twilio.message_event e
    set params = case when x.event_id < e.event_id then e.params || x.params else x.params || e.params end,
        event_time = coalesce(e.event_time, x.event_time)
    from twilio.message_event x
    where e.message_id = message_id and x.message_id = other_id and x.status = e.status
        and x.error_code is not distinct from e.error_code;
    update twilio.message_event e
    set message_id = message_id
    where e.message_id = other_id
        and not exists (
            select from twilio.message_event x
            where x.message_id = message_id and x.status = e.status
                and x.error_code is not distinct from e.error_code
        );
    delete from twilio.message_event e where e.message_id = other_id;
    -- Its fallbacks become fallbacks of the kept message, after the existing ones.
    update twilio.message c
    set root_id = kept.root_id,
        step = kept.step + c.step - gone.step,
        try = c.try + coalesce((
            select max(x.try)
            from twilio.message x
            where x.root_id = kept.root_id and x.step = kept.step + c.step - gone.step
        ), 0)
    where c.root_id = gone.root_id and c.step > gone.step;
    delete from twilio.message m where m.message_id = other_id;
    update twilio.message m
    set from_address = coalesce(gone.from_address, m.from_address),
        messaging_service_sid = coalesce(m.messaging_service_sid, gone.messaging_service_sid)
    where m.message_id = message_id;
end
$$;

comment on function twilio_internal.merge(bigint, bigint) is
    'Merges two rows about one message; the caller has locked both.';

create function twilio_internal.bind_locked(
    message_ids bigint[],
    account_sids text[],
    message_sids text[],
    segments int[],
    prices numeric[],
    price_units text[]
)
returns bigint[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    item record;
    merged bigint[];
begin
    -- A callback without our attempt has made a row of its own. A row that belongs to another attempt of ours is left alone.
    for item in
        select i.id, o.message_id as other_id
        from unnest(message_ids, account_sids, message_sids) i (id, account, sid)
        cross join lateral (
            select x.message_id
            from twilio.message x
            where x.message_sid = i.sid and x.account_sid = i.account and x.message_id <> i.id
            offset 0
        ) o
        where (
                select m.message_sid is null and m.account_sid = i.account
                from twilio.message m
                where m.message_id = i.id
            )
            and not exists (select from twilio_internal.attempt t where t.message_id = o.message_id)
        order by i.id
    loop
        perform twilio_internal.merge(item.id, item.other_id);
        merged := merged || item.id::bigint;
    end loop;
    update twilio.message m
    set message_sid = i.sid,
        num_segments = coalesce(i.segments, m.num_segments),
        price = coalesce(i.price, m.price),
        price_unit = coalesce(i.price_unit, m.price_unit)
    from unnest(message_ids, account_sids, message_sids, segments, prices, price_units)
        i (id, account, sid, segments, price, price_unit)
    where m.message_id = i.id and coalesce(m.message_sid, '') = '' and m.account_sid = i.account
        and i.sid is not null
        and not exists (select from twilio.message x where x.message_sid = i.sid);
    return merged;
end
$$;

comment on function twilio_internal.bind_locked(bigint[], text[], text[], int[], numeric[], text[]) is
    'Does the work of twilio_internal.bind on rows that it has locked; returns the messages that were merged with another row.';

create function twilio_internal.bind(
    attempts uuid[],
    account_sids text[],
    message_sids text[],
    segments int[] default null,
    prices numeric[] default null,
    price_units text[] default null
)
returns table (message_id bigint)
language plpgsql
volatile
rows 64
-- plan profile: nested loop
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    -- One element an item; null where the attempt is not ours.
    ids constant bigint[] := array(
        select (select t.message_id from twilio_internal.attempt t where t.attempt_id = i.attempt)
        from unnest(attempts) with ordinality i (attempt, n)
        order by i.n
    );
    merged bigint[];
begin
    -- Lock all rows by their id first, then rows by their SID, in the order of twilio_internal.record.
    perform from twilio.message m
    where m.message_id = any (ids)
    order by m.message_id
    for update;
    -- Written so that the index of SIDs cannot be chosen: it is full of nulls while many messages wait.
    if exists (
        select from twilio.message m where m.message_id = any (ids) and coalesce(m.message_sid, '') = ''
    ) then
        for round in 1..3 loop
            perform from twilio.message m
            where m.message_sid = any (message_sids)
            order by m.message_sid
            for update;
            begin
                merged := twilio_internal.bind_locked(ids, account_sids, message_sids, segments, prices, price_units);
                exit;
            exception
                -- A callback without the attempt has just made a row: repeat.
                when unique_violation then
                    if round = 3 then
                        raise;
                    end if;
            end;
        end loop;
        if merged is not null then
            perform twilio_internal.apply_state(merged);
        end if;
    end if;
    return query
    select (
        select m.message_id
        from twilio.message m
        where m.message_id = i.id and m.account_sid = i.account and m.message_sid = i.sid
    )
    from unnest(ids, account_sids, message_sids) with ordinality i (id, account, sid, n)
    order by i.n;
end
$$;

comment on function twilio_internal.bind(uuid[], text[], text[], int[], numeric[], text[]) is
    'Sets the SIDs of messages by their attempts, and returns the messages, null where the attempt is not ours. Besides the inserts of twilio_internal.record, only this function writes message_sid.';
