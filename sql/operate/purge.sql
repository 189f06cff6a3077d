-- Retention: finished messages are deleted in batches that are too short to be noticed.
-- No search_path in twilio.purge, since a procedure that sets it cannot commit. It qualifies all names.

create function twilio_internal.is_open_work(message_id bigint, may_be_dead boolean)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio_internal.outbox o
        where o.message_id = is_open_work.message_id and not (is_open_work.may_be_dead and o.state = 'dead')
    )
    or exists (select from twilio_internal.fallback f where f.message_id = is_open_work.message_id and f.is_preparing)
    or exists (select from twilio_internal.smsgate_message s where s.message_id = is_open_work.message_id and s.is_open);
end;

comment on function twilio_internal.is_open_work(bigint, boolean) is
    'Returns whether work on a message is open; with may_be_dead, a dead message counts as finished.';

create function twilio_internal.finished_after(
    after_id bigint,
    quiet_since timestamptz,
    include_pending boolean,
    batch_rows int,
    out last_id bigint,
    out roots bigint[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Read the ids in order, up to the limit: nothing is sorted or read to its end, whatever the table holds.
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    select coalesce(array_agg(b.message_id), '{}'), max(b.message_id)
    into roots, last_id
    from (
        select w.message_id
        from (
            select m.*
            from twilio.message m
            where m.message_id > after_id
            order by m.message_id
            limit 20 * batch_rows
        ) w
        where w.root_id = w.message_id
            and greatest(w.created_at, w.sent_at, w.delivered_at, w.read_at, w.failed_at) < quiet_since
            and (include_pending or twilio_internal.status_kind(w.provider, w.status) <> 'pending')
        limit batch_rows
    ) b;
    -- If few messages match, the batch ends nevertheless.
    if cardinality(roots) < batch_rows then
        select max(w.message_id)
        into last_id
        from (
            select m.message_id
            from twilio.message m
            where m.message_id > after_id
            order by m.message_id
            limit 20 * batch_rows
        ) w;
    end if;
end
$$;

comment on function twilio_internal.finished_after(bigint, timestamptz, boolean, int) is
    'Finds the next messages whose chain may be finished, without locking them, and the last message that it examined; last_id is null at the end.';

create function twilio_internal.lock_finished(roots bigint[], quiet_since timestamptz, include_pending boolean)
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
    locked bigint[];
begin
    -- SKIP LOCKED, so this cannot deadlock; a locked row is in use anyway.
    select array_agg(l.message_id)
    into locked
    from (
        select m.message_id from twilio.message m where m.root_id = any (roots) for update skip locked
    ) l;
    -- Only whole chains, by their state under the locks.
    return array(
        select unnest(array_agg(m.message_id))
        from twilio.message m
        where m.root_id = any (roots)
        group by m.root_id
        having bool_and(
            m.message_id = any (locked)
            and greatest(m.created_at, m.sent_at, m.delivered_at, m.read_at, m.failed_at) < quiet_since
            and (include_pending or twilio_internal.status_kind(m.provider, m.status) <> 'pending')
            and not twilio_internal.is_open_work(m.message_id, include_pending)
        )
    );
end
$$;

comment on function twilio_internal.lock_finished(bigint[], timestamptz, boolean) is
    'Locks the messages of these chains and returns those of finished chains without events since quiet_since.';

create procedure twilio_internal.disable_synchronous_commit()
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Until the transaction ends. The next call repeats batches that a crash undoes, while a flush of each batch would delay
    -- those of the callbacks.
    perform set_config('synchronous_commit', 'off', true);
end
$$;

comment on procedure twilio_internal.disable_synchronous_commit() is
    'Makes the commit of this transaction not wait for the disk.';

create function twilio_internal.purge_batch(
    after_id bigint,
    quiet_since timestamptz,
    include_pending boolean,
    batch_rows int,
    out last_id bigint,
    out removed bigint
)
language plpgsql
volatile
-- Callers with grant_admin may purge old messages, but have no privilege to delete rows themselves.
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    roots bigint[];
    ids bigint[];
begin
    select f.last_id, f.roots
    into last_id, roots
    from twilio_internal.finished_after(after_id, quiet_since, include_pending, batch_rows) f;
    removed := 0;
    if roots = '{}' then
        return;
    end if;
    ids := twilio_internal.lock_finished(roots, quiet_since, include_pending);
    -- A captured request stays valid forever, so a replay must be recognised after the purge.
    insert into twilio_internal.purged_message (sid_digest)
    select twilio_internal.sid_digest(m.message_sid)
    from twilio.message m
    where m.message_id = any (ids)
        and m.message_sid is not null
        and (
            m.direction = 'inbound'
            or exists (
                select
                from twilio.message_event e
                where e.message_id = m.message_id and twilio_internal.is_consent_code(e.error_code)
            )
        )
    on conflict do nothing;
    -- Delete the rows of a message, and the message last; its delete trigger deletes rows that refer to it.
    delete from twilio_internal.outbox o where o.message_id = any (ids);
    delete from twilio_internal.attempt a where a.message_id = any (ids);
    perform twilio_internal.feed_forget(ids);
    delete from twilio.message_event e where e.message_id = any (ids);
    delete from twilio.message m where m.message_id = any (ids);
    removed := cardinality(ids);
end
$$;

comment on function twilio_internal.purge_batch(bigint, timestamptz, boolean, int) is
    'Does one batch of twilio.purge.';

create function twilio_internal.drop_rejected(rejected_ids bigint[])
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    freed twilio.quarantine_source[];
begin
    if rejected_ids = '{}' then
        return 0;
    end if;
    with gone as (
        delete from twilio_internal.rejected_callback r
        where r.rejected_id in (
            select c.rejected_id
            from twilio_internal.rejected_callback c
            where c.rejected_id = any (rejected_ids)
            for update skip locked
        )
        returning r.kind, r.network, twilio_internal.bytes_of(r) as bytes
    ),
    counted as (
        select g.kind, g.network, count(*) as n, sum(g.bytes) as bytes from gone g group by g.kind, g.network
    )
    select coalesce(array_agg((c.kind, c.network, c.n, c.bytes, 0)::twilio.quarantine_source), '{}')
    into freed
    from counted c;
    perform twilio_internal.free_quarantine(freed);
    return (select coalesce(sum(f.kept_rows), 0) from unnest(freed) f);
end
$$;

comment on function twilio_internal.drop_rejected(bigint[]) is
    'Deletes refused requests, except those that another session has locked, and subtracts them from the counters.';

create function twilio_internal.purge_rejected_batch(received_before timestamptz, batch_rows int)
returns bigint
language plpgsql
volatile
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return twilio_internal.drop_rejected(array(
        select c.rejected_id
        from twilio_internal.rejected_callback c
        where c.received_at < received_before
        order by c.rejected_id
        limit batch_rows
        for update skip locked
    ));
end
$$;

comment on function twilio_internal.purge_rejected_batch(timestamptz, int) is
    'Does one batch of twilio.purge with include_rejected.';

create function twilio_internal.check_age(age interval, batch_rows int, effort double precision)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if age is null or age < interval '0' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid age: "%s"', coalesce(age::text, 'null')),
            hint = 'Give an interval such as ''90 days''.';
    end if;
    if batch_rows is null or batch_rows not between 1 and 10000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'batch_rows must be between 1 and 10000',
            hint = 'Give a number from 1 to 10000.';
    end if;
    if effort is null or not (effort > 0.01 and effort <= 1) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'effort must be greater than 0.01 and at most 1',
            hint = 'Give the share of the time to work in, above 0.01 and up to 1 for all of it.';
    end if;
    return twilio.now() - age;
end
$$;

comment on function twilio_internal.check_age(interval, int, double precision) is
    'Returns the time of an age before now; raises an error for an invalid age, batch_rows or effort.';

create function twilio_internal.next_batch_rows(current_rows int, took interval, most int)
returns int
language sql
immutable
begin atomic
    -- Aims at 20 ms per batch: other sessions wait no longer than that for a row or the processor.
    select greatest(
        1,
        least(
            next_batch_rows.most,
            2 * next_batch_rows.current_rows,
            (next_batch_rows.current_rows * 0.02 / greatest(extract(epoch from next_batch_rows.took), 0.001))::int
        )
    );
end;

comment on function twilio_internal.next_batch_rows(int, interval, int) is
    'Returns the number of rows of the next batch, so that it takes about 20 ms, judging by the last one.';

create procedure twilio_internal.throttle(since timestamptz, effort double precision)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Callbacks use the same processors and disks, and get the larger part of the time.
    perform pg_sleep(extract(epoch from clock_timestamp() - since) * (1 / effort - 1));
end
$$;

comment on procedure twilio_internal.throttle(timestamptz, double precision) is
    'Sleeps so long that the work since a time takes only the share effort of the time.';

-- It commits after each batch, so it cannot be "security definer" either: the batches are functions that are.
create procedure twilio.purge(
    older_than interval,
    include_pending boolean default false,
    include_rejected boolean default false,
    batch_rows int default 1000,
    effort double precision default 0.2
)
language plpgsql
as $$
declare
    quiet_since constant timestamptz := twilio_internal.check_age(older_than, batch_rows, effort);
    began timestamptz;
    told_at timestamptz := pg_catalog.clock_timestamp();
    after_id bigint := 0;
    wanted_rows int := least(20, batch_rows);
    batch record;
    total bigint := 0;
    rejected bigint := 0;
    n bigint;
begin
    loop
        began := pg_catalog.clock_timestamp();
        call twilio_internal.disable_synchronous_commit();
        select b.last_id, b.removed
        into batch
        from twilio_internal.purge_batch(after_id, quiet_since, coalesce(include_pending, false), wanted_rows) b;
        exit when batch.last_id is null;
        after_id := batch.last_id;
        total := total + batch.removed;
        commit;
        wanted_rows := twilio_internal.next_batch_rows(wanted_rows, pg_catalog.clock_timestamp() - began, batch_rows);
        call twilio_internal.throttle(began, effort);
        if told_at < pg_catalog.clock_timestamp() - interval '10 s' then
            told_at := pg_catalog.clock_timestamp();
            raise notice '% messages purged, looked at those up to %', total, after_id;
        end if;
    end loop;
    loop
        began := pg_catalog.clock_timestamp();
        call twilio_internal.disable_synchronous_commit();
        n := twilio_internal.purge_event_batch(quiet_since, wanted_rows);
        commit;
        exit when n = 0;
        wanted_rows := twilio_internal.next_batch_rows(wanted_rows, pg_catalog.clock_timestamp() - began, batch_rows);
        call twilio_internal.throttle(began, effort);
    end loop;
    while coalesce(include_rejected, false) loop
        began := pg_catalog.clock_timestamp();
        call twilio_internal.disable_synchronous_commit();
        n := twilio_internal.purge_rejected_batch(quiet_since, wanted_rows);
        rejected := rejected + n;
        commit;
        exit when n = 0;
        wanted_rows := twilio_internal.next_batch_rows(wanted_rows, pg_catalog.clock_timestamp() - began, batch_rows);
        call twilio_internal.throttle(began, effort);
    end loop;
    raise notice '% messages and % refused requests purged', total, rejected;
end
$$;

comment on procedure twilio.purge(interval, boolean, boolean, int, double precision) is
    'Deletes finished chains of messages with their events, if they had no event for the time older_than. It commits after each batch of about 20 ms and at most batch_rows, and works for the share effort of the time. Old events and alerts of the provider are deleted too. include_pending also deletes messages whose final status never came, dead ones included; include_rejected also deletes requests of the quarantine.';
