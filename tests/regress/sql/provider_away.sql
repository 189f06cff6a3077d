-- A provider that cannot be reached is tried with one message, and what waits for it goes once that has arrived.
set client_min_messages = warning;
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com'), twilio.add_account('AC00000000000000000000000000000002', 'secret') \gset
select twilio.add_sender('+12025550100', account_sid => 'AC00000000000000000000000000000001'), twilio.add_sender('whatsapp:+12025550100', account_sid => 'AC00000000000000000000000000000001'),
    twilio.add_sender('+12025550109', account_sid => 'AC00000000000000000000000000000002') \gset
select twilio.add_smsgate('phone', 'password', from_address => '+12025550160') \gset
-- All that is due fails, or what a number in SIDs names succeeds.
create function try_all(delay_ms bigint, arrived bigint default null) returns bigint language sql return (
    select count(twilio_internal.finish(array[c.message_id], array[c.lease_token],
        array[case when c.message_id = arrived then 'accepted' else 'not_processed' end],
        array[case when c.message_id = arrived then 'SM' || lpad(c.message_id::text, 32, '0') end],
        array[case when c.message_id = arrived then 'queued' end], array[null::int], array[null::int],
        array['connect: refused'], array[null], array[case when c.message_id is distinct from arrived then delay_ms end],
        array[c.message_id is distinct from arrived]))
    from twilio_internal.claim(100) c
);
create view waiting as
select o.message_id, s.address,
    case
        when o.due_at <= twilio.now() then 'now'
        when o.due_at <= twilio.now() + interval '15 s' then 'soon'
        when o.due_at <= twilio.now() + interval '10 min' then 'after its pause'
        else 'at its time'
    end as due, o.tries, o.is_provider_away as is_away,
    s.away_since is not null as is_sender_away
from twilio_internal.outbox o join twilio.sender s using (sender_id) order by 1;
select count(twilio.send_message('+1202555010' || n, 'hello', '+12025550100')) from generate_series(1, 3) n;
select twilio.send_message('whatsapp:+12025550104', 'hello', 'whatsapp:+12025550100'), twilio.send_message('+12025550105', 'of another account', '+12025550109'),
    twilio.send_message('+12025550106', 'later', '+12025550100', send_at => twilio.now() + interval '1 hour');
-- After long backoffs one message of each sender is tried again soon, and uses up no try.
update twilio_internal.outbox set tries = 3;
select try_all(600000);
table waiting;
-- It fails again: the others keep their time.
set twilio_callback.clock_offset = '20 s';
select try_all(600000);
table waiting;
-- It arrives: all of the account go at once, but for what is to go later; the other account's wait.
set twilio_callback.clock_offset = '40 s';
select min(message_id) as first from twilio_internal.outbox where due_at <= twilio.now() and sender_id = 1 \gset
update twilio_internal.outbox set due_at = twilio.now() + interval '8 minutes' where sender_id > 1;
select try_all(600000, :first);
table waiting;
-- They leave only as fast as the sender may.
update twilio.sender set rate_per_second = 1, burst = 1, tokens = 1, filled_at = twilio.now() where address = '+12025550100';
select count(*) from twilio_internal.claim(100) c join twilio.message m using (message_id) where m.from_address = '+12025550100';
update twilio_internal.outbox set lease_token = null, lease_until = null;
-- Where one connection fails among many, that message waits for its own time.
update twilio.sender set rate_per_second = null;
select twilio.send_message('+12025550107', 'fails', '+12025550109') as failing, twilio.send_message('+12025550108', 'arrives', '+12025550109') as arriving \gset
update twilio.sender set away_since = null;
delete from twilio_internal.outbox where message_id not in (:failing, :arriving);
select try_all(600000, :arriving);
table waiting;
-- A phone's gateway likewise, with senders of its own.
delete from twilio_internal.outbox;
select twilio.send_message('+12025550111', 'one', '+12025550160') as one, twilio.send_message('+12025550112', 'two', '+12025550160') as two \gset
create temp table job as select * from twilio_internal.claim_smsgate(10);
select count(twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'connect: refused', retry_after_ms => 600000, is_away => true)) from job;
table waiting;
set twilio_callback.clock_offset = '60 s';
select count(twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending', 'phone-1')) from twilio_internal.claim_smsgate(10);
table waiting;
-- What its gateway puts off keeps that time, when another one arrives.
set twilio_callback.clock_offset = '0 s';
delete from twilio_internal.outbox;
update twilio.sender set away_since = null;
select twilio.send_message('+12025550113', 'one', '+12025550160') as one, twilio.send_message('+12025550114', 'two', '+12025550160') as two \gset
select count(twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'connect: refused', retry_after_ms => 600000, is_away => true)) from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '20 s';
update twilio_internal.outbox set due_at = twilio.now();
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'too many', http_status => 429, retry_after_ms => 7200000) from twilio_internal.claim_smsgate(10) where message_id = :one;
table waiting;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'refused', reason => 'bad', http_status => 400) from twilio_internal.outbox cross join lateral (values ('send')) t (task) where message_id = :two;
table waiting;

-- Whatever becomes of the one that is tried, another one is.
set twilio_callback.clock_offset = '0 s';
delete from twilio_internal.outbox;
\set ECHO none
create function try_first(outcome text, http_status int, delay_ms bigint default null, is_away boolean default false) returns bigint language sql return (
    select count(twilio_internal.finish(array[c.message_id], array[c.lease_token], array[outcome], array[null], array[case when outcome = 'refused' then outcome end],
        array[http_status], array[null::int], array['reason'], array[null], array[delay_ms], array[is_away]))
    from twilio_internal.claim(1) c
);
create function let_all_fail(n int) returns void language sql as $$
    delete from twilio_internal.outbox;
    update twilio.sender set away_since = null;
    select twilio.send_message('+120255502' || lpad(i::text, 2, '0'), 'hello', '+12025550100') from generate_series(1, n) i;
    select try_first('not_processed', null, 600000, true) from generate_series(1, n);
$$;
\set ECHO all
create view probes as
select count(*) filter (where o.due_at <= twilio.now() + interval '15 s') as soon, count(*) filter (where o.due_at > twilio.now() + interval '15 s') as later,
    count(*) filter (where o.is_provider_away) as away, (select s.away_since is not null from twilio.sender s where s.address = '+12025550100') as is_sender_away
from twilio_internal.outbox o;
select let_all_fail(3) \gset
table probes;
-- While one is tried soon or is under way, no other one is.
select twilio_internal.expire_due();
table probes;
set twilio_callback.clock_offset = '20 s';
select count(*) from twilio_internal.claim(10);
select twilio_internal.expire_due();
table probes;
update twilio_internal.outbox set lease_token = null, lease_until = null;
-- A refusal of our own shows nothing.
select try_first('refused', null);
table probes;
select twilio_internal.expire_due();
table probes;
-- It is put off.
set twilio_callback.clock_offset = '40 s';
select try_first('not_processed', 503, 600000);
table probes;
select twilio_internal.expire_due();
table probes;
-- It is canceled: none is left, and that the provider is away is forgotten.
set twilio_callback.clock_offset = '60 s';
select twilio.cancel_message(message_id) from twilio_internal.outbox where is_provider_away \gset
table probes;
select twilio_internal.expire_due();
table probes;
-- It expires.
set twilio_callback.clock_offset = '0 s';
select let_all_fail(2) \gset
update twilio_internal.outbox set expires_at = twilio.now() where due_at <= twilio.now() + interval '15 s';
select twilio_internal.expire_due();
select twilio_internal.expire_due();
table probes;
-- A provider that refuses can be reached.
set twilio_callback.clock_offset = '20 s';
select try_first('refused', 400);
table probes;

-- The worker dies over it several times: it is never due again, and holds up nothing.
set twilio_callback.clock_offset = '0 s';
select let_all_fail(3) \gset
set twilio_callback.clock_offset = '20 s';
select message_id as first from twilio_internal.claim(1) \gset
update twilio_internal.outbox set crashes = 2 where message_id = :first;
select twilio_internal.rescue_orphaned(true);
update twilio_internal.outbox set due_at = twilio.now() where is_provider_away;
select message_id as second from twilio_internal.claim(1) \gset
select twilio_internal.rescue_orphaned(true);
select message_id = :first as is_first, state, due_at = 'infinity' as is_never_due, is_provider_away from twilio_internal.outbox order by 1 desc, state;
-- What is marked and does not wait is left alone.
update twilio_internal.outbox set is_provider_away = true, due_at = case when state = 'dead' then due_at else twilio.now() + interval '1 hour' end;
select twilio.send_message('+12025550250', 'arrives', '+12025550100') as arriving \gset
select try_all(600000, :arriving);
select message_id = :first as is_first, state, due_at <= twilio.now() as is_due, is_provider_away from twilio_internal.outbox order by 1 desc, state;

-- A thousand go at once, the others with those that arrive.
set twilio_callback.clock_offset = '0 s';
delete from twilio_internal.outbox;
select count(twilio.send_message('+1202555' || lpad(n::text, 4, '0'), 'hello', '+12025550100')) from generate_series(1000, 2299) n;
update twilio_internal.outbox set is_provider_away = true, due_at = twilio.now() + interval '1 hour';
update twilio.sender set away_since = twilio.now() - interval '1 minute' where address = '+12025550100';
select twilio.send_message('+12025550250', 'arrives', '+12025550100') as arriving \gset
select try_all(600000, :arriving);
table probes;
select try_all(600000, (select min(message_id) from twilio_internal.outbox where not is_provider_away)) > 0 as ok;
select soon > 1000 as are_released, away, is_sender_away from probes;
drop extension twilio_callback cascade;
