-- Consent goes by the time of the message, whatever the order of arrival and whatever was purged or redacted meanwhile.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_smsgate_key('key-1', 'phone-1') \gset
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/hmac.sql
-- A text that came in at a phone so many hours ago, by the phone's clock.
create table now as select twilio.now() as at;
\set ECHO none
create function say(sender text, word text, hours_ago numeric)
returns text
language sql
as $$
    select c.reason
    from (
        select extract(epoch from twilio.now())::bigint::text as stamp, convert_to(jsonb_build_object(
            'id', gen_random_uuid(), 'event', 'sms:received', 'deviceId', 'phone-1', 'payload', jsonb_build_object(
                'messageId', md5(sender || word || hours_ago), 'sender', sender, 'message', word,
                'receivedAt', to_char((n.at - hours_ago * interval '1 hour') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
            )
        )::text, 'UTF8') as body
        from now n
    ) b
    cross join lateral twilio.smsgate_callback(b.body, hmac('key-1', b.body || convert_to(b.stamp, 'UTF8')), b.stamp) c
$$;
create function state(sender text) returns text language sql as $$
    select coalesce(
        (
            select s.reason || ', last ' || round(extract(epoch from n.at - coalesce(s.repeated_at, s.created_at)) / 3600) || ' h ago'
            from twilio.suppression s cross join now n where s.address = sender and s.ended_at is null
        ),
        'may be texted'
    )
$$;
\set ECHO all

-- An old START that arrives late, or once more, does not end a newer STOP; an old STOP does not undo a newer START.
select say('+12025550401', 'STOP', 5), say('+12025550401', 'START', 9), state('+12025550401');
select say('+12025550402', 'START', 5), say('+12025550402', 'STOP', 9), state('+12025550402');
-- The message is of its own time, too.
select from_address, body, round(extract(epoch from twilio.now() - received_at) / 3600) as hours from twilio.inbound_message order by message_id;
-- A phone whose clock is ahead says it now.
select say('+12025550403', 'STOP', -1000), say('+12025550403', 'START', -2000);
select state('+12025550403'), max(created_at) <= clock_timestamp() as is_now from twilio.suppression where address = '+12025550403';
set twilio_callback.clock_offset = '1 h';
select say('+12025550403', 'START', 0.1), state('+12025550403');
reset twilio_callback.clock_offset;
-- Of two of the same time the opt-out counts.
select say('+12025550404', 'STOP', 5), say('+12025550404', 'START', 5), state('+12025550404');
select say('+12025550405', 'START', 5), say('+12025550405', 'STOP', 5), state('+12025550405');

-- Six messages in each of the 720 orders: one result.
create table arrival (scenario text, run int, n int, hours int, word text, sender text);
insert into arrival
with recursive said (scenario, hours, word) as (
    values
        ('ends with START', 60, 'STOP'), ('ends with START', 50, 'START'), ('ends with START', 40, 'STOP'),
        ('ends with START', 30, 'START'), ('ends with START', 20, 'STOP'), ('ends with START', 10, 'START'),
        ('ends with STOP', 60, 'START'), ('ends with STOP', 50, 'STOP'), ('ends with STOP', 40, 'STOP'),
        ('ends with STOP', 30, 'START'), ('ends with STOP', 20, 'STOP'), ('ends with STOP', 10, 'STOP'),
        ('ends with both', 60, 'STOP'), ('ends with both', 50, 'START'), ('ends with both', 40, 'hello'),
        ('ends with both', 30, 'START'), ('ends with both', 10, 'START'), ('ends with both', 10, 'STOP')
),
numbered as (
    select s.*, row_number() over (partition by s.scenario order by s.hours desc, s.word) as k from said s
),
permuted (taken) as (
    select array[]::int[]
    union all
    select p.taken || k from permuted p cross join generate_series(1, 6) k where not k = any (p.taken) and cardinality(p.taken) < 6
),
orders as (
    select taken, row_number() over (order by taken) as run from permuted where cardinality(taken) = 6
)
select s.scenario, o.run, t.n, s.hours, s.word,
    '+1202' || dense_rank() over (order by s.scenario) || lpad(o.run::text, 6, '0')
from orders o
cross join lateral unnest(o.taken) with ordinality t (k, n)
join numbered s on s.k = t.k;
select count(distinct run) as orders, count(*) as messages from arrival;
select count(*) as arrived
from (select a.*, n.at - a.hours * interval '1 hour' as said_at from arrival a cross join now n order by a.scenario, a.run, a.n) a
cross join lateral (
    select twilio_internal.opt_out(null, a.sender, null, null, 'opt_out', 'replied STOP', a.said_at) where a.word = 'STOP'
    union all
    select twilio_internal.opt_in(null, a.sender, null, null, 'replied START', a.said_at) where a.word = 'START'
) x;
create view result as
select a.scenario, coalesce(
        s.reason || ', last ' || round(extract(epoch from n.at - coalesce(s.repeated_at, s.created_at)) / 3600) || ' h ago',
        'may be texted'
    ) as state, count(*) as orders
from (select distinct scenario, sender from arrival) a
cross join now n
left join (select * from twilio.suppression where ended_at is null) s on s.address = a.sender
group by 1, 2;
select * from result order by 1, 2;
-- The same through the phones for some of the orders. Half of them are interrupted by redact and purge.
delete from arrival where run % 24 > 1;
update arrival set sender = replace(sender, '+1202', '+1203');
create function arrive(first int, last int, parity int) returns void language plpgsql as $$
begin
    perform say(a.sender, a.word, a.hours)
    from (select * from arrival where n between first and last and run % 2 = parity order by scenario, run, n) a;
end
$$;
select arrive(1, 6, 0), arrive(1, 3, 1) \gset
-- Messages are as old as they say, so these are old.
call twilio.redact('25 h', effort => 1);
call twilio.purge('5 h', effort => 1);
select count(*) from twilio.message where from_address ~ '^[+]1203';
select arrive(4, 6, 1) \gset
select * from result order by 1, 2;
-- Each of them again, backwards, changes nothing.
call twilio.purge('5 h', effort => 1);
update arrival set n = 7 - n;
select arrive(1, 6, 1) \gset
select * from result order by 1, 2;
-- At Twilio the sender counts: a START to one number does not void an older STOP to another.
select twilio_internal.opt_in('AC00000000000000000000000000000001', '+12025550410', '+12025550100', null, 'replied START', twilio.now() - interval '1 h') \gset
select twilio_internal.opt_out('AC00000000000000000000000000000001', '+12025550410', sender, null, 'opt_out', 'replied STOP', twilio.now() - interval '2 h')
from unnest('{+12025550100,+12025550101}'::text[]) sender;
select from_address from twilio.suppression where address = '+12025550410';
-- Nor does one to a service's number end what a provider has refused since.
select twilio_internal.opt_out('AC00000000000000000000000000000001', '+12025550411', '+12025550100', null, 'learnt', 'error 21610', twilio.now() - interval '3 h') \gset
select twilio_internal.opt_out('AC00000000000000000000000000000001', '+12025550411', '+12025550100', null, 'learnt', 'error 21610', twilio.now() - interval '1 h') \gset
select twilio_internal.opt_in('AC00000000000000000000000000000001', '+12025550411', '+12025550100', null, 'replied START', twilio.now() - interval '2 h') \gset
select kind, ended_at is null as holds from twilio.suppression where address = '+12025550411';

drop view result;
drop table arrival, now;
drop function arrive, say, state, hmac;
drop extension twilio_callback;
