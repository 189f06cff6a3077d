-- Claims of the queue: the worker takes due messages under a lease.

create function twilio_internal.lock_due(at_most int, provider text default 'twilio', but_for bigint[] default '{}')
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Do not read all messages that wait for a slow sender to find the first one.
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    moment constant timestamptz := twilio.now();
    ready int[];
    share int;
    origin twilio.sender;
    available real;
    wanted int;
    rounds int;
    -- The worker does nothing else while it encrypts, so a claim holds only as much as takes a fraction of a second.
    most_rounds constant int := 300000;
    spent bigint := 0;
    batch bigint[];
    taken bigint[] := '{}';
begin
    select array_agg(s.sender_id order by s.sender_id)
    into ready
    from twilio.sender s
    where s.provider = lock_due.provider
        and exists (
            select from twilio_internal.outbox o
            where o.sender_id = s.sender_id and o.due_at <= moment and o.lease_token is null
                and not o.message_id = any (but_for)
        )
        and not exists (select from twilio_internal.paused_account p where p.account_sid = s.account_sid);
    if ready is null then
        return taken;
    end if;
    if provider = 'smsgate' and but_for <> '{}' then
        -- Messages that were taken just before are encrypted as well.
        select coalesce(sum(g.iterations), 0)
        into spent
        from twilio_internal.outbox o
        join twilio.smsgate g on g.sender_id = o.sender_id
        where o.message_id = any (but_for) and o.lease_token is not null and g.passphrase is not null;
    end if;
    -- Each sender gets an equal share, and the order is random, so that none has to wait for the others.
    share := ceil(at_most::numeric / cardinality(ready));
    for origin in
        select s.* from twilio.sender s where s.sender_id = any (ready) order by random()
    loop
        wanted := least(share, at_most - cardinality(taken));
        rounds := null;
        if provider = 'smsgate' then
            select g.iterations
            into rounds
            from twilio.smsgate g
            where g.sender_id = origin.sender_id and g.passphrase is not null;
            if found then
                wanted := least(wanted, greatest(
                    (most_rounds - spent) / rounds,
                    case when spent = 0 then 1 else 0 end
                ));
            end if;
        end if;
        if origin.rate_per_second is not null then
            select s.* into origin
            from twilio.sender s
            where s.sender_id = origin.sender_id
            for no key update skip locked;
            continue when not found;
            if origin.filled_at > moment then
                -- The clock was set back: count the refill from now.
                update twilio.sender s set filled_at = moment where s.sender_id = origin.sender_id;
                origin.filled_at := moment;
            end if;
            available := least(
                origin.burst,
                origin.tokens + origin.rate_per_second * extract(epoch from moment - origin.filled_at)
            );
            wanted := least(wanted, floor(available));
        end if;
        continue when wanted < 1;
        select array_agg(d.message_id)
        into batch
        from (
            select o.message_id
            from twilio_internal.outbox o
            where o.sender_id = origin.sender_id and o.due_at <= moment and o.lease_token is null
                and not o.message_id = any (but_for)
            order by o.due_at
            limit wanted
            for update skip locked
        ) d;
        continue when batch is null;
        taken := taken || batch;
        spent := spent + cardinality(batch) * coalesce(rounds, 0);
        if origin.rate_per_second is not null then
            update twilio.sender s
            set tokens = available - cardinality(batch), filled_at = moment
            where s.sender_id = origin.sender_id;
        end if;
    end loop;
    return taken;
end
$$;

comment on function twilio_internal.lock_due(int, text, bigint[]) is
    'Locks due rows of the outbox for one provider, except those of but_for, up to the rate of each sender, and returns their messages.';

create function twilio_internal.postpone(message_ids bigint[], until timestamptz)
returns void
language sql
volatile
begin atomic
    -- A message that may be under way keeps its lease, so that it is not sent meanwhile.
    select twilio_internal.run_isolated(
        'postpone',
        $$update twilio_internal.outbox o
        set due_at = case when o.lease_token is null then greatest(o.due_at, $2) else o.due_at end,
            lease_until = case when o.lease_token is not null then greatest(o.lease_until, $2) end
        where o.message_id = any ($1)
        returning o.message_id$$,
        message_ids, until
    );
end;

comment on function twilio_internal.postpone(bigint[], timestamptz) is
    'Postpones messages for which a step failed: by their due time, or by their lease.';

create function twilio_internal.return_tokens(message_ids bigint[])
returns void
language sql
volatile
begin atomic
    update twilio.sender s
    set tokens = least(s.burst, s.tokens + h.n)
    from (
        select o.sender_id, count(*) as n
        from twilio_internal.outbox o
        where o.message_id = any (message_ids) and o.lease_token is null
        group by o.sender_id
    ) h
    where s.sender_id = h.sender_id and s.rate_per_second is not null;
end;

comment on function twilio_internal.return_tokens(bigint[]) is
    'Returns the tokens of those messages that were not leased after all to their senders.';

create function twilio_internal.lease(message_ids bigint[], until timestamptz)
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
    ids constant bigint[] := twilio_internal.discard_settled(message_ids);
begin
    with leased as (
        update twilio_internal.outbox o
        set lease_token = twilio_internal.new_attempt_id(), lease_until = until, tries = o.tries + 1
        where o.message_id = any (ids)
        returning o.message_id, o.lease_token, o.state
    )
    insert into twilio_internal.attempt (attempt_id, message_id, started_at)
    select l.lease_token, l.message_id, twilio.now()
    from leased l
    where l.state = 'waiting';
    return ids;
end
$$;

comment on function twilio_internal.lease(bigint[], timestamptz) is
    'Leases locked messages, except those that need not, must not or not yet be sent, and writes their attempts; returns the messages.';

create function twilio_internal.claim(at_most int, lease interval default '60 seconds')
returns table (
    message_id bigint,
    lease_token uuid,
    state text,
    tries int,
    account_sid text,
    api_url text,
    from_address text,
    to_address text,
    messaging_service_sid text,
    body text,
    media_urls text[],
    twilio_parameters text,
    status_callback text,
    validity_s int,
    started_at timestamptz
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    taken bigint[];
    default_callback text;
begin
    if not twilio.is_sending() then
        return;
    end if;
    perform twilio_internal.require_durability();
    taken := twilio_internal.claim_due(
        'lease',
        $q$select twilio_internal.lock_due($1, 'twilio', $2)$q$,
        'select unnest(twilio_internal.lease($1, $2))',
        at_most, moment + lease, true
    );
    if taken = '{}' then
        return;
    end if;
    default_callback := twilio_internal.default_status_callback();
    return query
    select
        o.message_id, o.lease_token, o.state, o.tries::int, m.account_sid, a.api_url,
        m.from_address, m.to_address, m.messaging_service_sid, m.body, m.media_urls,
        m.twilio_parameters::text, coalesce(m.status_callback, default_callback),
        extract(epoch from least(o.expires_at, o.quiet_from) - moment)::int,
        case when o.state = 'unknown' then (
            select max(t.started_at)
            from twilio_internal.attempt t
            where t.message_id = o.message_id
        ) else moment end
    from twilio_internal.outbox o
    join twilio.message m on m.message_id = o.message_id
    left join twilio.account a on a.account_sid = m.account_sid
    -- A user's trigger may have prevented the lease from being written.
    where o.message_id = any (taken) and o.lease_until = moment + lease
    order by o.message_id;
end
$$;

comment on function twilio_internal.claim(int, interval) is
    'Takes due messages under a lease, writes their attempts, and returns the data that the worker needs for them.';

create function twilio_internal.default_status_callback()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Without a public URL, Twilio cannot call.
    if exists (select from twilio.public_url) then
        return twilio.status_callback_url();
    end if;
    return null;
end
$$;

comment on function twilio_internal.default_status_callback() is
    'Returns the default StatusCallback of messages; null without a public URL.';

create function twilio_internal.next_due()
returns double precision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Read only the first row of each sender, even if the planner expects few rows without a lease.
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    if not twilio.is_sending() then
        return null;
    end if;
    return (
        select extract(epoch from min(greatest(
            d.due_at,
            least(s.filled_at, twilio.now()) + greatest(0, (1 - s.tokens) / s.rate_per_second) * interval '1 second'
        )) - twilio.now())
        from twilio.sender s
        cross join lateral (
            select o.due_at
            from twilio_internal.outbox o
            where o.sender_id = s.sender_id and o.lease_token is null and o.due_at < 'infinity'
            order by o.due_at
            limit 1
        ) d
        where not exists (select from twilio_internal.paused_account p where p.account_sid = s.account_sid)
    );
end
$$;

comment on function twilio_internal.next_due() is
    'Returns the seconds until the next message is due, negative if it is due already; null if nothing waits.';

create function twilio_internal.unclaimed_sids(message_sids text[], message_id bigint)
returns setof text
language sql
stable
begin atomic
    select s.sid
    from unnest(unclaimed_sids.message_sids) s (sid)
    where not exists (
        select
        from twilio.message m
        join twilio_internal.attempt t on t.message_id = m.message_id
        where m.message_sid = s.sid and m.message_id <> unclaimed_sids.message_id
    );
end;

comment on function twilio_internal.unclaimed_sids(text[], bigint) is
    'Returns those SIDs that do not belong to an attempt of another message.';
