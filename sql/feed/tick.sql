-- Ticks of the feed: each is a snapshot, and the events that became visible between two ticks are a batch.

create table twilio_internal.feed_event (
    event_id bigint primary key default nextval('twilio.message_event_event_id_seq'),
    xid xid8 not null default pg_current_xact_id(),
    kind text not null,
    message_id bigint,
    data jsonb not null,
    created_at timestamptz not null default twilio.now(),
    provider_event_id bigint
);

create index feed_event_message on twilio_internal.feed_event (message_id);

comment on table twilio_internal.feed_event is 'Events of the feed besides message_event: suppressions that begin or end, files that are fetched.';
comment on column twilio_internal.feed_event.event_id is 'Numbered together with message_event.';
comment on column twilio_internal.feed_event.xid is 'Transaction that recorded it; meaningless in a restored database.';
comment on column twilio_internal.feed_event.kind is 'Kind of event, such as suppression.began.';
comment on column twilio_internal.feed_event.message_id is 'Message that it is about, if any.';
comment on column twilio_internal.feed_event.data is 'Data of the event.';
comment on column twilio_internal.feed_event.created_at is 'When it happened.';
comment on column twilio_internal.feed_event.provider_event_id is 'The event of Twilio''s that it stands for, which has the data; null if it is none.';

select pg_catalog.pg_extension_config_dump('twilio_internal.feed_event', '');

-- The next two tables are not dumped, since a restored database has other transactions.
create table twilio_internal.feed_state (
    is_only_row boolean primary key default true
        constraint feed_state_has_one_row check (is_only_row),
    base_event_id bigint not null,
    base_xid xid8 not null,
    is_settled boolean not null
);

comment on table twilio_internal.feed_state is 'First event whose transaction is one of this database; one row, made again after a restore.';
comment on column twilio_internal.feed_state.is_only_row is 'True.';
comment on column twilio_internal.feed_state.base_event_id is 'Events up to this one may have been restored.';
comment on column twilio_internal.feed_state.base_xid is 'Transactions of this database that wrote one of these events are older than this one.';
comment on column twilio_internal.feed_state.is_settled is 'Whether all these transactions have ended, so that ticks may begin.';

create table twilio_internal.tick (
    tick_id bigint generated always as identity primary key,
    taken_at timestamptz not null default clock_timestamp(),
    snapshot pg_snapshot not null,
    xid xid8 not null unique,
    low_event_id bigint not null,
    high_event_id bigint not null,
    safe_event_id bigint not null
);

comment on table twilio_internal.tick is 'Snapshots of the feed: events that are visible in one tick but not in an earlier one were committed in between.';
comment on column twilio_internal.tick.tick_id is 'Order of the ticks.';
comment on column twilio_internal.tick.taken_at is 'When it was taken.';
comment on column twilio_internal.tick.snapshot is 'Transactions that had ended.';
comment on column twilio_internal.tick.xid is 'A transaction that starts after this one numbers its events above low_event_id.';
comment on column twilio_internal.tick.low_event_id is 'Last event number before xid.';
comment on column twilio_internal.tick.high_event_id is 'Last event number after the snapshot: no event that is visible in it has a higher number.';
comment on column twilio_internal.tick.safe_event_id is 'All events up to this one are visible in the snapshot, or never will be.';

create function twilio_internal.last_event_number()
returns bigint
language sql
volatile
begin atomic
    select case when s.is_called then s.last_value else 0 end from twilio.message_event_event_id_seq s;
end;

comment on function twilio_internal.last_event_number() is
    'Returns the last event number, also of transactions that are still open.';

create function twilio_internal.feed_settle()
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    state twilio_internal.feed_state;
    number bigint;
begin
    select s.* into state from twilio_internal.feed_state s for update;
    if not found then
        -- First the number, then the transaction: by then, each event up to the number has a transaction.
        number := twilio_internal.last_event_number();
        insert into twilio_internal.feed_state (base_event_id, base_xid, is_settled)
        values (number, pg_current_xact_id(), false)
        on conflict do nothing;
        select s.* into state from twilio_internal.feed_state s for update;
    end if;
    if not state.is_settled then
        -- Without writers at the moment, an old transaction elsewhere need not be waited for.
        state.is_settled := pg_snapshot_xmin(pg_current_snapshot()) >= state.base_xid or not exists (
            select
            from pg_locks l
            where l.locktype = 'relation'
                and l.database = (select d.oid from pg_database d where d.datname = current_database())
                and l.relation in ('twilio.message_event'::regclass, 'twilio_internal.feed_event'::regclass)
                and l.mode = 'RowExclusiveLock'
                and l.pid is distinct from pg_backend_pid()
        );
        update twilio_internal.feed_state set is_settled = state.is_settled where state.is_settled;
    end if;
    return state.is_settled;
end
$$;

comment on function twilio_internal.feed_settle() is
    'Determines the first event whose transaction is one of this database, and whether all earlier transactions have ended.';

create function twilio.feed_tick(is_forced boolean default false)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    latest twilio_internal.tick;
    low bigint;
    mine xid8;
    seen pg_snapshot;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'feed_tick() requires READ COMMITTED isolation',
            detail = 'Its statements must each see what is committed by then.';
    end if;
    if not is_forced and not exists (select from twilio.feed_consumer) then
        return null;
    end if;
    -- It locks a row, so that ticks follow one another.
    if not twilio_internal.feed_settle() then
        return null;
    end if;
    select t.* into latest from twilio_internal.tick t order by t.tick_id desc limit 1;
    low := twilio_internal.last_event_number();
    if latest.xid = pg_current_xact_id_if_assigned()
        or not is_forced and latest.high_event_id = low and latest.safe_event_id = low
    then
        return latest.tick_id;
    end if;
    -- In this order: a transaction after mine numbers its events above low, …
    mine := pg_current_xact_id();
    seen := pg_current_snapshot();
    insert into twilio_internal.tick (snapshot, xid, low_event_id, high_event_id, safe_event_id)
    select
        seen, mine, low,
        -- … and all events visible in seen have their number by now.
        twilio_internal.last_event_number(),
        coalesce(
            (
                select t.low_event_id
                from twilio_internal.tick t
                where t.xid < pg_snapshot_xmin(seen)
                order by t.xid desc
                limit 1
            ),
            s.base_event_id
        )
    from twilio_internal.feed_state s
    returning * into latest;

    -- Earlier ticks are not needed for transactions that ended before the tick of the slowest consumer.
    delete from twilio_internal.tick t
    where t.xid < (
        select max(u.xid)
        from twilio_internal.tick u
        where u.xid < (
            select min(pg_snapshot_xmin(k.snapshot))
            from twilio_internal.tick k
            where k.tick_id = latest.tick_id
                or k.tick_id in (select p.tick_id from twilio_internal.feed_position p)
                or k.tick_id in (select p.target_tick_id from twilio_internal.feed_position p)
        )
    );
    perform pg_notify('twilio_feed', latest.tick_id::text);
    return latest.tick_id;
end
$$;

comment on function twilio.feed_tick(boolean) is
    'Takes a tick, if there are consumers and possibly new events, and notifies twilio_feed; the worker calls it about once a second.';

create function twilio_internal.publish(kind text, message_id bigint, data jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    -- The transaction gets its number before the event does: feed_tick relies on this order.
    perform pg_current_xact_id();
    insert into twilio_internal.feed_event (kind, message_id, data)
    values (publish.kind, publish.message_id, publish.data);
end
$$;

comment on function twilio_internal.publish(text, bigint, jsonb) is
    'Adds an event to the feed that is not the event of a message.';
