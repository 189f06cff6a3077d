-- Acknowledgement: requests that are answered once a consumer has acknowledged the message, and the replies to all
-- incoming messages.

create table twilio.acknowledgement_rule (
    to_address text collate "C"
        constraint acknowledgement_rule_is_one unique nulls not distinct,
    wait_ms int not null default 5000
        constraint wait_fits_twilio check (wait_ms between 1 and 14000)
);

comment on table twilio.acknowledgement_rule is 'Numbers whose messages are answered only once a consumer has acknowledged them.';
comment on column twilio.acknowledgement_rule.to_address is 'Our number, without channel prefix; null for all others.';
comment on column twilio.acknowledgement_rule.wait_ms is 'Milliseconds to wait for the acknowledgement; then the request is answered so that Twilio calls its fallback handler.';

select pg_catalog.pg_extension_config_dump('twilio.acknowledgement_rule', '');

create table twilio_internal.acknowledgement (
    message_id bigint primary key,
    deadline_at timestamptz not null,
    acknowledged_at timestamptz
)
with (fillfactor = 70);

comment on table twilio_internal.acknowledgement is 'Incoming messages that wait, or waited, for an acknowledgement.';
comment on column twilio_internal.acknowledgement.message_id is 'The message.';
comment on column twilio_internal.acknowledgement.deadline_at is 'Time until which its request is held open.';
comment on column twilio_internal.acknowledgement.acknowledged_at is 'When it was acknowledged.';

select pg_catalog.pg_extension_config_dump('twilio_internal.acknowledgement', '');

create function twilio.require_acknowledgement(to_address text default null, wait_ms int default 5000)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if wait_ms is not null and wait_ms not between 1 and 14000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'wait_ms must be between 1 and 14000',
            detail = 'Twilio waits 15 seconds.',
            hint = 'Wait 1 to 14000 ms; null requires no acknowledgement.';
    end if;
    delete from twilio.acknowledgement_rule r
    where r.to_address is not distinct from twilio_internal.bare_address(require_acknowledgement.to_address);
    if wait_ms is not null then
        insert into twilio.acknowledgement_rule
        values (twilio_internal.bare_address(require_acknowledgement.to_address), require_acknowledgement.wait_ms);
    end if;
end
$$;

comment on function twilio.require_acknowledgement(text, int) is
    'Lets requests with messages to a number, or to all others, wait for acknowledge_inbound before they are answered; null for wait_ms ends this.';

create function twilio_internal.clock()
returns timestamptz
language sql
volatile
begin atomic
    -- Deadlines count from the current time, not from the transaction's start; the shift for tests is kept.
    select clock_timestamp() + (twilio.now() - now());
end;

comment on function twilio_internal.clock() is
    'Returns the time at this moment, shifted by twilio_callback.clock_offset.';

create function twilio.acknowledge_inbound(message_id bigint)
returns boolean
language plpgsql
volatile
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    waiting twilio_internal.acknowledgement;
begin
    select h.* into waiting from twilio_internal.acknowledgement h where h.message_id = message_id for update;
    if not found then
        if not exists (
            select from twilio.message m where m.message_id = message_id and m.direction = 'inbound'
        ) then
            raise exception using
                errcode = 'no_data_found',
                message = format('incoming message %s does not exist', message_id),
                hint = 'See twilio.inbound_message.';
        end if;
        return false;
    end if;
    if waiting.acknowledged_at is null and waiting.deadline_at >= twilio_internal.clock() then
        update twilio_internal.acknowledgement h
        set acknowledged_at = twilio_internal.clock()
        where h.message_id = message_id
        returning h.* into waiting;
        perform pg_notify('twilio_acknowledged', message_id::text);
    end if;
    return waiting.acknowledged_at is not null;
end
$$;

comment on function twilio.acknowledge_inbound(bigint) is
    'Acknowledges an incoming message, so that its request is answered. Returns false if no request waits any more: then Twilio calls its fallback handler.';

create function twilio.acknowledged(message_ids bigint[])
returns setof bigint
language plpgsql
stable
-- Callers with grant_front have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.check_size(8::bigint * cardinality(message_ids));
    return query
    select h.message_id
    from twilio_internal.acknowledgement h
    where h.message_id = any (message_ids) and h.acknowledged_at is not null;
end
$$;

comment on function twilio.acknowledged(bigint[]) is
    'Returns which of these incoming messages are acknowledged.';

create function twilio_internal.replies(message_ids bigint[], is_retold boolean[])
returns table (twiml text, is_to_be_made boolean, wait_ms int)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    has_rules constant boolean := exists (select from twilio.reply_rule);
begin
    if not has_rules and not exists (select from twilio.acknowledgement_rule) then
        return query select null::text, false, 0 from unnest(message_ids);
        return;
    end if;
    -- Sorted, in the order in which messages are locked.
    insert into twilio_internal.acknowledgement as h (message_id, deadline_at)
    select distinct on (i.id) i.id, twilio_internal.clock() + interval '1 ms' * r.wait_ms
    from unnest(message_ids, is_retold) i (id, is_retold)
    join twilio.message m on m.message_id = i.id
    join twilio.acknowledgement_rule r on r.to_address is null or r.to_address = twilio_internal.bare_address(m.to_address)
    -- A request to the fallback URL does not wait again.
    where not i.is_retold and not m.is_blocked
    order by i.id, r.to_address nulls last
    on conflict (message_id) do update
    set deadline_at = greatest(h.deadline_at, excluded.deadline_at)
    where h.acknowledged_at is null;

    return query
    select
        coalesce(made.twiml, rule.twiml),
        made.twiml is null and rule.function is not null,
        -- An unacknowledged message is not answered as acknowledged, even if its time has passed meanwhile.
        case when h.acknowledged_at is null and h.deadline_at > twilio.now() and not i.is_retold then
            greatest(ceil(extract(epoch from h.deadline_at - twilio_internal.clock()) * 1000), 1)::int
        else 0 end
    from unnest(message_ids, is_retold) with ordinality i (id, is_retold, n)
    join twilio.message m on m.message_id = i.id
    left join twilio.reply made on made.message_id = i.id
    left join twilio_internal.acknowledgement h on h.message_id = i.id
    left join lateral (select r.* from twilio_internal.reply_rule_of(m) r where has_rules) rule on true
    order by i.n;
end
$$;

comment on function twilio_internal.replies(bigint[], boolean[]) is
    'Returns the replies to incoming messages, whether a function must make the reply, and how long to wait for an acknowledgement. One row per item, in order.';
