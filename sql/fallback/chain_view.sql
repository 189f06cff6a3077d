-- Views of chains, each a message with all its fallbacks, and of the health of recipients' numbers.

create view twilio.message_chain
with (security_invoker = true)
as
select
    r.root_id,
    c.steps,
    c.reached_by,
    c.reached_at,
    c.status,
    c.double_delivered,
    r.to_address,
    r.created_at,
    c.message_ids
from twilio.message r
-- One chain at a time, so that the newest chains and those of a person are found by the index of their first message.
cross join lateral (
    select
        count(distinct m.step)::int as steps,
        (array_agg(
            case when m.provider = 'smsgate' then m.provider else m.channel end
            order by coalesce(m.delivered_at, m.read_at)
        ) filter (where twilio_internal.has_reached(m, 'delivered')))[1] as reached_by,
        min(coalesce(m.delivered_at, m.read_at)) filter (where twilio_internal.has_reached(m, 'delivered')) as reached_at,
        coalesce(
            (array_agg(m.status order by coalesce(m.delivered_at, m.read_at))
                filter (where twilio_internal.has_reached(m, 'delivered')))[1],
            (array_agg(m.status order by m.step desc, m.try desc))[1]
        ) as status,
        count(*) filter (where twilio_internal.has_reached(m, 'delivered')) > 1 as double_delivered,
        array_agg(m.message_id order by m.step, m.try) as message_ids
    from twilio.message m
    where m.root_id = r.root_id
) c
-- The first message that the reader may see. Not "=", for which PostgreSQL would expect few rows, and read and sort all chains.
where r.direction <> 'inbound'
    and (r.step, r.try) <= (
        select p.step, p.try
        from twilio.message p
        where p.root_id = r.root_id
        order by p.step, p.try
        limit 1
    );

comment on view twilio.message_chain is 'Result of each chain: one row per requested message, with all its fallbacks.';

create view twilio.number_health
with (security_invoker = true)
as
select distinct on (h.person_key, h.provider, h.channel)
    h.address,
    h.provider,
    h.channel,
    h.kind = 'success' as is_reachable,
    h.status,
    h.error_code,
    twilio_internal.error_text(h.error_code) as error_text,
    h.at,
    h.message_id,
    max(h.at) filter (where h.kind = 'success') over same_number as last_success_at,
    count(*) filter (where h.kind = 'failure') over same_number as failures,
    count(*) filter (where h.kind = 'success') over same_number as successes,
    h.person_key
from (
    select
        twilio_internal.bare_address(m.to_address) as address,
        m.person_key,
        m.provider,
        m.channel,
        m.status,
        m.error_code,
        m.message_id,
        twilio_internal.status_kind(m.provider, m.status) as kind,
        coalesce(m.delivered_at, m.read_at, m.failed_at) as at
    from (
        -- The messages to a number are found by two indexes: message_to and message_to_person.
        select o.to_address as person_key, o.*
        from twilio.message o
        where twilio.person_key(o.to_address) = o.to_address
        union all
        select twilio.person_key(o.to_address), o.*
        from twilio.message o
        where twilio.person_key(o.to_address) <> o.to_address
            -- Always true. As long as the table was not analyzed, PostgreSQL would expect a two-hundredth of all messages for a
            -- person, and compile the query.
            and o.message_id = o.message_id + 0
    ) m
    where m.direction = 'outbound' and not m.is_simulated
) h
where h.kind = 'success'
    -- Ignore failures caused by the message, sender or account; they say nothing about the number.
    or h.kind = 'failure' and h.status in ('failed', 'undelivered', 'refused')
        and twilio_internal.error_class(h.error_code) in ('recipient', 'consent', 'uncertain')
window same_number as (partition by h.person_key, h.provider, h.channel)
order by h.person_key, h.provider, h.channel, h.at desc, h.message_id desc;

comment on view twilio.number_health is 'Result of the last message to each number, by channel and provider, in any spelling of the number; failures caused by the message, the sender or the account do not count.';
