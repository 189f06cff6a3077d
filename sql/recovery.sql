-- Work that was left behind: by a worker that died, by time, by callbacks that were sooner.

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
    hindered bigint[];
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
    if sent is not null then
        hindered := twilio.note_each(
            sent, array_fill('unknown'::text, array[cardinality(sent)]),
            array_fill('the worker ended while it was sending'::text, array[cardinality(sent)])
        );
        -- What cannot be noted now stays as it is, and is sent by nobody meanwhile.
        update twilio.outbox o
        set lease_until = moment + interval '1 minute'
        where o.message_id = any (hindered);
        lost := array(select l.id from unnest(lost) l (id) where not l.id = any (hindered));
    end if;
    update twilio.attempt t
    set finished_at = moment, outcome = 'unknown', reason = 'the worker ended while it was sending'
    from twilio.outbox o
    where o.message_id = any (lost) and t.attempt_id = o.lease_token and t.finished_at is null;
    update twilio.outbox o
    set state = case
            when f.is_fatal then 'dead'
            when o.message_id = any (sent) then 'unknown'
            else o.state
        end,
        due_at = case
            when f.is_fatal then 'infinity'
            when o.crashes >= 2 then moment + interval '10 minutes'
            else moment
        end,
        tries = case when o.message_id = any (sent) then 0 else o.tries end,
        crashes = o.crashes + 1,
        lease_token = null,
        lease_until = null
    from (
        -- Most of what is under way when a worker dies had no part in it. A look-up does no harm, and
        -- settles what nobody may send again: it is put off before it is given up.
        select x.message_id, x.crashes >= case when x.state = 'unknown' then 5 else 2 end as is_fatal
        from twilio.outbox x
        where x.message_id = any (lost)
    ) f
    where o.message_id = f.message_id;
    return cardinality(lost);
end
$$;

comment on function twilio.recover(boolean) is
    'Takes back work whose worker died: sends that may have gone out become unknown, and what kills the worker three times is given up, a look-up after six.';

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
