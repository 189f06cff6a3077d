-- The worker's side of the queue: what to do next, taken under a lease.

create function twilio.note(message_ids bigint[], statuses text[], reasons text[])
returns void
language sql
volatile
begin atomic
    -- Our own decisions go the way of all news.
    select count(*)
    from (
        select
            array_agg(n.message_id) as ids,
            array_agg(n.account_sid) as accounts,
            array_agg(n.message_sid) as sids,
            array_agg(n.direction) as directions,
            array_agg(n.channel) as channels,
            array_agg(n.from_address) as senders,
            array_agg(n.to_address) as recipients,
            array_agg(n.messaging_service_sid) as services,
            array_agg(null::text) as nulls,
            array_agg(n.new_status) as statuses,
            array_agg(null::int) as codes,
            array_agg('outbox'::text) as sources,
            array_agg(
                jsonb_strip_nulls(jsonb_build_object('MessageStatus', n.new_status, 'ErrorMessage', n.reason))::text
            ) as params
        from (
            select m.*, i.status as new_status, i.reason
            from unnest(note.message_ids, note.statuses, note.reasons) i (id, status, reason)
            join twilio.message m on m.message_id = i.id
            order by m.message_id
        ) n
        having count(*) > 0
    ) a
    cross join lateral twilio.record(
        a.ids, a.accounts, a.sids, a.directions, a.channels, a.senders, a.recipients, a.services, a.nulls,
        a.nulls, a.statuses, a.codes, a.sources, a.nulls, a.nulls, a.params, array[]::timestamptz[]
    ) r;
end;

comment on function twilio.note(bigint[], text[], text[]) is
    'Records what we decided about messages ourselves: canceled, expired, suppressed, refused or unknown.';

create function twilio.require_durability()
returns void
language plpgsql
volatile
as $$
begin
    -- What goes out next relies on what is written here.
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;

comment on function twilio.require_durability() is
    'Makes this transaction''s commit durable whatever the setting.';

create function twilio.obstacle(message twilio.message, expires_at timestamptz)
returns table (status text, reason text)
language plpgsql
stable
as $$
declare
    suppression text;
begin
    if expires_at <= twilio.now() then
        return query select 'expired', 'it was not sent in time';
        return;
    end if;
    suppression := twilio.suppression_of(message.account_sid, message.from_address, message.to_address);
    if suppression is not null then
        return query select 'suppressed', suppression;
        return;
    end if;
    if message.step > 0 or message.is_simulated then
        return query select o.status, o.reason from twilio.fallback_obstacle(message) o;
    end if;
end
$$;

comment on function twilio.obstacle(twilio.message, timestamptz) is
    'Says what keeps a message from being sent now, as the final status that it gets; no row if nothing does.';

create function twilio.take_due(at_most int, provider text default 'twilio')
returns bigint[]
language plpgsql
volatile
as $$
declare
    moment constant timestamptz := twilio.now();
    ready int[];
    share int;
    origin twilio.sender;
    available real;
    wanted int;
    batch bigint[];
    taken bigint[] := '{}';
begin
    select array_agg(s.sender_id order by s.sender_id)
    into ready
    from twilio.sender s
    where s.provider = take_due.provider
        and exists (
            select from twilio.outbox o
            where o.sender_id = s.sender_id and o.due_at <= moment and o.lease_token is null
        )
        and not exists (select from twilio.paused_account p where p.account_sid = s.account_sid);
    if ready is null then
        return taken;
    end if;
    -- A sender with much to do does not keep the others waiting.
    share := ceil(at_most::numeric / cardinality(ready));
    for origin in
        select s.* from twilio.sender s where s.sender_id = any (ready) order by s.sender_id
    loop
        wanted := least(share, at_most - cardinality(taken));
        if origin.rate_per_second is not null then
            select s.* into origin
            from twilio.sender s
            where s.sender_id = origin.sender_id
            for no key update skip locked;
            continue when not found;
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
            from twilio.outbox o
            where o.sender_id = origin.sender_id and o.due_at <= moment and o.lease_token is null
            order by o.due_at
            limit wanted
            for update skip locked
        ) d;
        continue when batch is null;
        taken := taken || batch;
        if origin.rate_per_second is not null then
            update twilio.sender s
            set tokens = available - cardinality(batch), filled_at = moment
            where s.sender_id = origin.sender_id;
        end if;
    end loop;
    return taken;
end
$$;

comment on function twilio.take_due(int, text) is
    'Locks due rows of the outbox for one provider, for each sender as many as its rate allows, and returns their messages.';

create function twilio.drop_settled(message_ids bigint[])
returns void
language plpgsql
volatile
as $$
declare
    settled bigint[];
    stopped bigint[];
    statuses text[];
    reasons text[];
begin
    -- A callback may have said what became of it: then there is a SID, and nothing left to do.
    select array_agg(m.message_id)
    into settled
    from twilio.message m
    join twilio.outbox o on o.message_id = m.message_id
    where m.message_id = any (message_ids) and m.message_sid is not null;
    select array_agg(o.message_id), array_agg(b.status), array_agg(b.reason)
    into stopped, statuses, reasons
    from twilio.outbox o
    join twilio.message m on m.message_id = o.message_id
    cross join lateral twilio.obstacle(m, o.expires_at) b
    where o.message_id = any (message_ids) and o.state = 'waiting'
        and not o.message_id = any (coalesce(settled, '{}'));
    if settled is null and stopped is null then
        return;
    end if;
    delete from twilio.outbox o where o.message_id = any (settled || stopped);
    update twilio.attempt t
    set outcome = 'accepted'
    where t.message_id = any (settled) and t.outcome = 'unknown';
    if stopped is not null then
        perform twilio.note(stopped, statuses, reasons);
    end if;
end
$$;

comment on function twilio.drop_settled(bigint[]) is
    'Takes messages out of the outbox that need not or must not be sent any more.';

create function twilio.claim(at_most int, lease interval default '60 seconds')
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
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    taken bigint[];
    default_callback text;
begin
    if not coalesce((select s.is_on from twilio.sending s), false) then
        return;
    end if;
    taken := twilio.take_due(at_most);
    if taken = '{}' then
        return;
    end if;
    perform twilio.require_durability(), twilio.drop_settled(taken);
    default_callback := twilio.default_status_callback();
    return query
    with leased as (
        update twilio.outbox o
        set lease_token = twilio.new_attempt_id(),
            lease_until = moment + lease,
            tries = o.tries + 1
        where o.message_id = any (taken)
        returning o.message_id, o.lease_token, o.state, o.tries, o.expires_at
    ),
    begun as (
        insert into twilio.attempt (attempt_id, message_id, started_at)
        select l.lease_token, l.message_id, moment
        from leased l
        where l.state = 'waiting'
    )
    select
        l.message_id, l.lease_token, l.state, l.tries::int, m.account_sid, a.api_url,
        m.from_address, m.to_address, m.messaging_service_sid, m.body, m.media_urls,
        m.twilio_parameters::text, coalesce(m.status_callback, default_callback),
        extract(epoch from l.expires_at - moment)::int,
        case when l.state = 'unknown' then (
            select max(t.started_at)
            from twilio.attempt t
            where t.message_id = l.message_id
        ) else moment end
    from leased l
    join twilio.message m on m.message_id = l.message_id
    left join twilio.account a on a.account_sid = m.account_sid
    order by l.message_id;
end
$$;

comment on function twilio.claim(int, interval) is
    'Takes due work under a lease, writes the attempts that it begins, and returns what the worker needs for it.';

create function twilio.default_status_callback()
returns text
language plpgsql
stable
as $$
begin
    -- Without a public URL nothing could be called.
    if exists (select from twilio.public_url) then
        return twilio.status_callback_url();
    end if;
    return null;
end
$$;

comment on function twilio.default_status_callback() is
    'Returns the StatusCallback of messages that name none.';

create function twilio.next_due()
returns double precision
language plpgsql
stable
as $$
begin
    if not coalesce((select w.is_on from twilio.sending w), false) then
        return null;
    end if;
    return (
        select extract(epoch from min(greatest(
            d.due_at,
            s.filled_at + greatest(0, (1 - s.tokens) / s.rate_per_second) * interval '1 second'
        )) - twilio.now())
        from twilio.sender s
        cross join lateral (
            select o.due_at
            from twilio.outbox o
            where o.sender_id = s.sender_id and o.lease_token is null and o.due_at < 'infinity'
            order by o.due_at
            limit 1
        ) d
        where not exists (select from twilio.paused_account p where p.account_sid = s.account_sid)
    );
end
$$;

comment on function twilio.next_due() is
    'Returns in how many seconds the next work is due, below 0 if it is; null if there is none.';

create function twilio.recover(is_start boolean default false)
returns int
language plpgsql
volatile
set enable_seqscan = on
as $$
declare
    moment constant timestamptz := twilio.now();
    lost bigint[];
    sent bigint[];
begin
    -- A worker that starts is the only one, so whoever else holds a lease is dead.
    if is_start then
        -- A question may be asked again at once.
        update twilio.fallback f
        set lease_token = null, due_at = moment
        where f.is_preparing and f.lease_token is not null;
        update twilio.smsgate_message p
        set lease_token = null, due_at = moment
        where p.is_open and p.lease_token is not null;
    end if;
    select array_agg(o.message_id)
    into lost
    from (
        select x.message_id
        from twilio.outbox x
        where x.lease_token is not null and (is_start or x.lease_until < moment)
        order by x.message_id
        for update skip locked
    ) o;
    if lost is null then
        return 0;
    end if;
    perform twilio.require_durability();
    -- Whether the request went out nobody knows. SMSGate takes our own id, so there it may be repeated.
    select array_agg(o.message_id)
    into sent
    from twilio.outbox o
    join twilio.message m on m.message_id = o.message_id
    where o.message_id = any (lost) and o.state = 'waiting' and m.provider = 'twilio';
    update twilio.attempt t
    set finished_at = moment, outcome = 'unknown', reason = 'the worker ended while it was sending'
    from twilio.outbox o
    where o.message_id = any (lost) and t.attempt_id = o.lease_token and t.finished_at is null;
    update twilio.outbox o
    set state = case
            when o.crashes >= 2 then 'dead'
            when o.message_id = any (sent) then 'unknown'
            else o.state
        end,
        due_at = case when o.crashes >= 2 then 'infinity' else moment end,
        tries = case when o.message_id = any (sent) then 0 else o.tries end,
        crashes = o.crashes + 1,
        lease_token = null,
        lease_until = null
    where o.message_id = any (lost);
    if sent is not null then
        perform twilio.note(
            sent, array_fill('unknown'::text, array[cardinality(sent)]),
            array_fill('the worker ended while it was sending'::text, array[cardinality(sent)])
        );
    end if;
    return cardinality(lost);
end
$$;

comment on function twilio.recover(boolean) is
    'Takes back work whose worker died: sends that may have gone out become unknown, and what kills the worker three times is given up.';

create function twilio.sweep(at_most int default 1000)
returns int
language plpgsql
volatile
as $$
declare
    stale bigint[];
    settled bigint[];
begin
    -- What waits for a paused account or a slow sender expires all the same.
    select array_agg(e.message_id)
    into stale
    from (
        select o.message_id
        from twilio.outbox o
        where o.state = 'waiting' and o.expires_at <= twilio.now() and o.lease_token is null
        order by o.expires_at
        limit at_most
        for update skip locked
    ) e;
    -- What stayed open may have been settled by a late callback.
    select array_agg(e.message_id)
    into settled
    from (
        select o.message_id
        from twilio.outbox o
        join twilio.message m on m.message_id = o.message_id
        where o.state in ('unknown', 'dead') and o.lease_token is null and m.message_sid is not null
        limit at_most
        for update of o skip locked
    ) e;
    perform twilio.drop_settled(stale || settled) where stale is not null or settled is not null;
    return coalesce(cardinality(stale || settled), 0);
end
$$;

comment on function twilio.sweep(int) is
    'Ends what expired without being due, and unknown outcomes that a callback has settled.';

create function twilio.unbound(message_sids text[], message_id bigint)
returns setof text
language sql
stable
begin atomic
    select s.sid
    from unnest(unbound.message_sids) s (sid)
    where not exists (
        select
        from twilio.message m
        join twilio.attempt t on t.message_id = m.message_id
        where m.message_sid = s.sid and m.message_id <> unbound.message_id
    );
end;

comment on function twilio.unbound(text[], bigint) is
    'Returns those of these SIDs that no attempt of another message led to.';
