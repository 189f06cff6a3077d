-- Corrects times in the future after the server's clock was ahead, so that no message waits for them.

create function twilio_internal.future_rows(tolerance interval default '10 seconds')
returns table (what text, n bigint, latest timestamptz)
language sql
stable
begin atomic
    -- Only the newest rows are checked, since the primary key finds them fast.
    select f.what, count(*), max(f.at)
    from (
        select 'messages' as what, m.created_at as at
        from (select x.created_at from twilio.message x order by x.message_id desc limit 1000) m
        union all
        select 'events', e.received_at
        from (select x.received_at from twilio.message_event x order by x.event_id desc limit 1000) e
        union all
        select 'attempts', t.started_at
        from (select x.started_at from twilio_internal.attempt x order by x.attempt_id desc limit 1000) t
        union all
        select 'senders', s.filled_at from twilio.sender s
        union all
        select 'workers', w.started_at from twilio_internal.worker w
    ) f
    where f.at > twilio.now() + future_rows.tolerance
    group by f.what;
end;

comment on function twilio_internal.future_rows(interval) is
    'Returns how many of the newest 1000 messages, events and attempts, and of all senders and workers, are dated later than now plus the tolerance, and the latest time of each kind.';

create function twilio_internal.date_as_now(moment timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    ahead bigint[];
begin
    -- Lock order: outbox, fallback, message. Rows that others hold are repaired at the next call.
    ahead := array(
        select o.message_id
        from twilio_internal.outbox o
        join twilio.message m on m.message_id = o.message_id
        where m.created_at > moment
        order by o.message_id
        for update of o skip locked
    ) || array(
        select w.message_id
        from twilio_internal.fallback_watch w
        join twilio.message m on m.message_id = w.message_id
        where m.created_at > moment
        order by w.message_id
        for update of w skip locked
    );
    ahead := array(
        select m.message_id
        from twilio.message m
        where m.message_id = any (ahead)
        order by m.message_id
        for no key update skip locked
    );
    update twilio_internal.fallback f
    set planned_at = moment, not_before = moment + (f.not_before - f.planned_at)
    where f.message_id = any (ahead) and f.planned_at > moment;
    -- Times relative to the creation are counted from now; a send_at is kept.
    update twilio_internal.outbox o
    set due_at = case
            when o.due_at < 'infinity' then greatest(m.send_at, moment + greatest(interval '0', o.due_at - greatest(m.created_at, m.send_at)))
            else o.due_at
        end,
        expires_at = greatest(m.send_at, moment) + (o.expires_at - greatest(m.created_at, m.send_at))
    from twilio.message m
    where o.message_id = any (ahead) and m.message_id = o.message_id;
    update twilio.message m
    set created_at = moment,
        expires_at = greatest(m.send_at, moment) + (m.expires_at - greatest(m.created_at, m.send_at))
    where m.message_id = any (ahead);
    update twilio_internal.fallback_watch w set due_at = moment where w.message_id = any (ahead);
end
$$;

comment on function twilio_internal.date_as_now(timestamptz) is
    'Sets the creation time of unfinished messages that are dated later than now to now, and moves their due time and expiry along, unless send_at determines these.';

create function twilio_internal.correct_future_times(lease interval, is_set_back boolean, known timestamptz default null)
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := twilio.now();
    longest_lease constant timestamptz := moment + lease;
    -- Retries, look-ups and polls that are due within this time are left alone.
    soon constant timestamptz := moment + interval '1 minute';
    latest constant timestamptz := (select max(f.latest) from twilio_internal.future_rows() f);
begin
    if not is_set_back and (latest is null or latest <= known) then
        return latest;
    end if;
    perform twilio_internal.date_as_now(moment);
    update twilio.sender s
    set filled_at = moment
    where s.sender_id in (select x.sender_id from twilio.sender x where x.filled_at > moment for update skip locked);
    -- A lease is kept, but ends at most one full lease from now.
    update twilio_internal.outbox o
    set lease_until = case when o.lease_token is not null then least(o.lease_until, longest_lease) end,
        -- A retry earlier than planned does no harm. Scheduled messages have no tries yet, so they are left alone.
        due_at = case when o.lease_token is null then moment else o.due_at end
    where o.message_id in (
        select x.message_id
        from twilio_internal.outbox x
        where x.lease_until > longest_lease
            or x.lease_token is null and x.due_at > soon and x.due_at < 'infinity'
                and (x.tries > 0 or x.state = 'unknown')
        for update skip locked
    );
    update twilio_internal.fallback f
    set due_at = case when f.lease_token is not null then longest_lease else moment end
    where f.message_id in (
        select x.message_id
        from twilio_internal.fallback x
        where x.is_preparing and x.due_at < 'infinity'
            and x.due_at > case when x.lease_token is not null then longest_lease else soon end
        for update skip locked
    );
    update twilio_internal.reconciliation r
    set due_at = case when r.lease_token is not null then longest_lease else moment end
    where r.message_id in (
        select x.message_id
        from twilio_internal.reconciliation x
        where x.due_at > case when x.lease_token is not null then longest_lease else greatest(moment, x.since) + interval '1 day' end
        for update skip locked
    );
    update twilio_internal.message_sweep s
    set due_at = case when s.lease_token is not null then longest_lease else moment end
    where s.finished_at is null
        and s.due_at > case when s.lease_token is not null then longest_lease else moment + interval '1 day' end;
    update twilio_internal.reconciliation_account p set next_at = moment where p.next_at > moment + interval '1 hour';
    update twilio_internal.reconciliation_mark k set marked_at = moment where k.marked_at > moment;
    update twilio_internal.smsgate_message p
    set due_at = case when p.lease_token is not null then longest_lease else moment end
    where p.message_id in (
        select x.message_id
        from twilio_internal.smsgate_message x
        where x.is_open and x.due_at < 'infinity'
            and x.due_at > case when x.lease_token is not null then longest_lease else soon end
        for update skip locked
    );
    update twilio.smsgate_webhook h
    set due_at = case when h.lease_token is not null then longest_lease else moment end
    where h.webhook_id in (
        select x.webhook_id
        from twilio.smsgate_webhook x
        where x.due_at < 'infinity'
            and x.due_at > case when x.lease_token is not null then longest_lease else soon end
        for update skip locked
    );
    -- Media and feed deliveries do not distinguish a pause from a lease, so both end at most one lease from now.
    update twilio.message_media f
    set due_at = case when f.tries > 0 then longest_lease else moment end
    where f.media_id in (
        select x.media_id
        from twilio.message_media x
        where x.due_at > case when x.tries > 0 then longest_lease else moment end
        for update skip locked
    );
    update twilio_internal.feed_delivery d
    set due_at = moment + case when d.tries > 0 then c.lease else interval '0' end
    from twilio.feed_consumer c
    where c.consumer = d.consumer and d.due_at > moment + case when d.tries > 0 then c.lease else interval '0' end
        and (d.consumer, d.event_id) in (
            select x.consumer, x.event_id
            from twilio_internal.feed_delivery x
            where x.due_at > moment
            for update skip locked
        );
    return latest;
end
$$;

comment on function twilio_internal.correct_future_times(interval, boolean, timestamptz) is
    'Corrects times that a clock that was ahead put into the future: refills, leases, retries, look-ups and polls count from now. It changes rows only if is_set_back, or if a row is dated later than now and later than known. Returns the time of the latest row from the future, or null.';
