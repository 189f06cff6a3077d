-- A clock that was an hour ahead is corrected: times that it put into the future count from now.
create extension twilio_callback;
\set VERBOSITY terse
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', '0123456789abcdef0123456789abcdef', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('+12025550101', rate_per_second => 20, burst => 5) \gset
create function finish(id bigint, outcome text, retry_after_ms bigint)
returns int
language sql
begin atomic
    select twilio_internal.finish(
        array[id], array(select o.lease_token from twilio_internal.outbox o where o.message_id = id), array[outcome], array[null::text],
        array[null::text], array[null::int], array[null::int], array['no answer'], array[null::text], array[retry_after_ms]
    );
end;
create view shown as
select m.body, o.state, o.lease_token is not null as is_leased, date_trunc('minute', o.due_at - twilio.now() + interval '5 s') as due,
    date_trunc('minute', o.lease_until - twilio.now() + interval '5 s') as lease,
    date_trunc('minute', o.expires_at - twilio.now() + interval '5 s') as expires, m.expires_at = o.expires_at as is_same
from twilio_internal.outbox o
join twilio.message m on m.message_id = o.message_id
order by m.message_id;

-- While the clock is right: a message with a send_at, which is kept.
select twilio.send_message('+12025550123', 'scheduled', send_at => twilio.now() + interval '1 day') is not null as ok;
select count(*) from twilio_internal.future_rows();
select twilio_internal.correct_future_times('90 s', false) is null as is_right;

-- While it is an hour ahead.
set twilio_callback.clock_offset = '1 h';
select twilio.send_message('+12025550123', 'tried') as tried, twilio.send_message('+12025550123', 'unknown') as unknown,
    twilio.send_message('+12025550123', 'leased') as leased \gset
select count(*) from twilio_internal.claim(10);
select finish(:tried, 'not_processed', 30000), finish(:unknown, 'unknown', 3000);
select twilio.send_message('+12025550123', 'new', expires_after => '10 min') is not null as ok;
select twilio.send_message('+12025550123', 'new and later', send_at => twilio.now() + interval '2 h', expires_after => '10 min') is not null as ok;
select count(twilio.send_message('+12025550124', 'limited', from_address => '+12025550101', expires_after => '10 min')) from generate_series(1, 8);
select twilio.block('+12025550199') is not null as ok;
select twilio.create_consumer('reader', from_start => true) \gset
select twilio.feed_tick() is not null as ok;
select count(*) > 0 as ok from twilio.feed_read('reader');
-- This uses up the tokens of the sender with a rate.
select count(*) from twilio_internal.claim(10) c where c.body = 'limited';

-- It is corrected.
reset twilio_callback.clock_offset;
select what, n from twilio_internal.future_rows() order by what;
select verdict, regexp_replace(detail, 'latest [^:]*:[^:]*:[^:]*:', 'latest …:') as detail, remedy from twilio.doctor() where "check" = 'clock';
select * from shown;
select tokens between 0 and 5 as is_sane from twilio.sender_status where address = '+12025550101';
-- A refill counts from now even without correct_future_times.
begin;
update twilio_internal.outbox set due_at = twilio.now() where lease_token is null and message_id in (
    select m.message_id from twilio.message m where m.body = 'limited'
);
select twilio_internal.next_due() <= 1 as is_soon;
select count(*) from twilio_internal.claim(10) c where c.body = 'limited';
select filled_at <= twilio.now() as is_now from twilio.sender where address = '+12025550101';
rollback;
select twilio_internal.correct_future_times('90 s', false) > twilio.now() as is_ahead;
select * from shown;
select max(due_at - twilio.now()) between interval '20 s' and interval '30 s' as is_leased from twilio_internal.feed_delivery;
select bool_and(filled_at <= twilio.now()) as is_now from twilio.sender;
-- The retry and the look-up keep their own pauses, and no lease has expired yet.
set twilio_callback.clock_offset = '40 s';
select body, count(*) from twilio_internal.claim(100) group by body order by body;
select twilio_internal.rescue_orphaned();
set twilio_callback.clock_offset = '100 s';
select twilio_internal.rescue_orphaned();
reset twilio_callback.clock_offset;

-- A rule by time counts from now too, and a rule's delay is kept.
select twilio.add_sender('whatsapp:+12025550100') is not null as ok;
select twilio.add_fallback_rule('late', from_channel => 'whatsapp', no_success_within => '5 min') is not null as ok;
set twilio_callback.clock_offset = '1 d';
select twilio.send_message('whatsapp:+12025550125', 'watched') as watched \gset
reset twilio_callback.clock_offset;
select twilio_internal.correct_future_times('90 s', true) > twilio.now() as is_ahead;
select twilio_internal.plan_timed_out() > 0 as ok;
select date_trunc('minute', due_at - twilio.now() + interval '5 s') from twilio_internal.fallback_watch where message_id = :watched;

drop view shown;
drop function finish;
drop extension twilio_callback;
