-- Timed rules: what follows where success did not come, and what never does. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset
\i shared/callback.sql
\i shared/sent.sql
-- What Twilio says about the messages that it is asked for.
create function answer(status text, outcome text default 'found', retry_after_ms int default null)
returns bigint
language sql
return (
    select count(twilio_internal.finish_original_fetch(
        message_id, lease_token, answer.outcome, status => answer.status, retry_after_ms => answer.retry_after_ms
    ))
    from twilio_internal.claim_original_fetch(100)
);
create view chain as
select m.root_id, m.step, m.message_id, m.provider, m.channel, m.to_address, m.body, m.status
from twilio.message m order by m.root_id, m.step;

-- Rules can be added by a session that has called nothing of the library's yet.
\connect
set client_min_messages = warning;
select twilio.enable_whatsapp_to_sms(), twilio.disable_fallback('whatsapp_to_sms') \gset

-- Without a rule by time nothing is watched.
select count(sent(1, 'whatsapp:+12025550101', 'unwatched')), count(callback(2, 'sent'));
select count(*) from twilio_internal.fallback_watch;

select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min') \gset
select sent(3, 'whatsapp:+12025550103', 'sent only') as m3, sent(4, 'whatsapp:+12025550104', 'delivered') as m4,
    sent(5, 'whatsapp:+12025550105', 'delivered in the end') as m5, sent(6, 'whatsapp:+12025550106', 'opted out') as m6,
    sent(7, 'whatsapp:+12025550107', 'blocked') as m7, sent(8, 'whatsapp:+12025550108', 'refused for its content') as m8,
    sent(9, '+12025550109', 'another channel') as m9,
    twilio.send_message('whatsapp:+12025550110', 'not even sent') as m10,
    twilio.send_message('whatsapp:+12025550111', 'scheduled', send_at => twilio.now() + interval '1 hour') as m11 \gset
select callback(12, 'sent', null, 'whatsapp:+12025550112') as m12 \gset
select to_address from twilio_internal.fallback_watch join twilio.message using (message_id) order by 1;
select count(callback(3, 'sent', null, 'whatsapp:+12025550103')), count(callback(4, 'delivered', null, 'whatsapp:+12025550104'));
select outcome, explanation ~ '^it waits for delivered until ' as explained from twilio.explain_fallback(:m3);
select twilio_internal.next_timed_out() between 590 and 600 as is_close;

-- Nothing happens before its time, with sending off, or to a recipient who opted out.
select twilio_internal.plan_timed_out();
set twilio_callback.clock_offset = '601 s';
select twilio.disable_sending() \gset
select twilio_internal.plan_timed_out(), twilio_internal.next_timed_out();
select twilio.enable_sending() \gset
select twilio_internal.next_timed_out() < 0 as is_due;
select count(callback(6, 'failed', 63033, 'whatsapp:+12025550106')), twilio.block('+12025550107') is not null as blocked,
    count(callback(8, 'failed', (select min(e.error_code) from twilio.error_code e where e.class = 'request' and e.fallback = 'no'), 'whatsapp:+12025550108'));
select twilio_internal.plan_timed_out();
select step, channel, to_address, body, status from chain where root_id in (:m3, :m4, :m5, :m6, :m7, :m8, :m9, :m10, :m11, :m12);
select to_address, due_at - twilio.now() > interval '45 min' as is_later from twilio_internal.fallback_watch join twilio.message using (message_id);
select m.to_address, e.explanation
from (values (:m4), (:m6), (:m7), (:m8), (:m9)) i (id)
join twilio.message m on m.message_id = i.id
cross join lateral twilio.explain_fallback(i.id) e
order by 1;
-- An original that was not sent is not sent beside its fallback; one that was sent is looked up first.
select to_address, body from twilio_internal.claim(100) order by 1;
create temp table asked as select * from twilio_internal.claim_original_fetch(10);
select message_sid from asked order by 1;
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', status => 'sent') from asked where message_sid not like '%12';
select to_address, body from twilio_internal.claim(100) order by 1;
select twilio_internal.plan_timed_out();
-- A failure that is reported later plans nothing further, a delivery stops what waits.
select twilio.add_fallback_rule('failed', from_channel => 'whatsapp', error_codes => '{63016}') \gset
select sent(13, 'whatsapp:+12025550113', 'late') as m13, sent(14, 'whatsapp:+12025550114', 'later') as m14 \gset
set twilio_callback.clock_offset = '1202 s';
select twilio_internal.plan_timed_out();
select count(callback(13, 'failed', 63016, 'whatsapp:+12025550113')), count(callback(14, 'delivered', null, 'whatsapp:+12025550114'));
select answer('sent') > 0 as answered;
select to_address from twilio_internal.claim(100) where to_address in ('+12025550113', '+12025550114');
select step, channel, to_address, status from chain where root_id in (:m13, :m14);

-- Delivered is not read, sent is enough for some; the next rule comes in its time.
select twilio.disable_fallback('slow'), twilio.disable_fallback('failed') \gset
select twilio.add_fallback_rule('unread', from_channel => 'whatsapp', no_success_within => '20 min', success_status => 'read') \gset
select twilio.add_fallback_rule('unsent', from_channel => 'whatsapp', no_success_within => '1 min', success_status => 'sent', to_provider => 'smsgate') \gset
select sent(15, 'whatsapp:+12025550115', 'unsent') as m15, sent(16, 'whatsapp:+12025550116', 'unread') as m16, sent(17, 'whatsapp:+12025550117', 'read') as m17 \gset
select count(callback(16, 'delivered', null, 'whatsapp:+12025550116')), count(callback(17, 'read', null, 'whatsapp:+12025550117'));
set twilio_callback.clock_offset = '1270 s';
select twilio_internal.plan_timed_out();
select step, provider, to_address, status from chain where root_id in (:m15, :m16, :m17);
-- At its phone it is taken back as soon as the original arrives.
select answer('queued') > 0 as answered;
create temp table job as select * from twilio_internal.claim_smsgate(10);
select to_address, task from job;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending', 'phone-1') from job;
select count(callback(15, 'delivered', null, 'whatsapp:+12025550115'));
select count(*) from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '1276 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select task from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '2500 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, channel, to_address, status from chain where root_id in (:m16, :m17);

-- Delivered is not what a rule waits for that wants it read: its fallback stays at the phone until then.
select twilio.disable_fallback('unread'), twilio.disable_fallback('unsent') \gset
select twilio.add_fallback_rule('unread_phone', from_channel => 'whatsapp', no_success_within => '20 min', success_status => 'read', to_provider => 'smsgate') \gset
select sent(18, 'whatsapp:+12025550118', 'not read') as m18 \gset
select count(callback(18, 'delivered', null, 'whatsapp:+12025550118'));
set twilio_callback.clock_offset = '3701 s';
select twilio_internal.plan_timed_out() > 0 as looked, answer('delivered') > 0 as answered;
drop table job;
create temp table job as select * from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending', 'phone-1') from job where to_address = '+12025550118';
set twilio_callback.clock_offset = '3740 s';
select twilio_internal.plan_timed_out() > 0 as looked;
drop table job;
create temp table job as select * from twilio_internal.claim_smsgate(10);
select to_address, task from job where to_address = '+12025550118';
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'found', 'pending', 'phone-1') from job where to_address = '+12025550118';
select count(callback(18, 'read', null, 'whatsapp:+12025550118'));
set twilio_callback.clock_offset = '3750 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select to_address, task from twilio_internal.claim_smsgate(10) where to_address = '+12025550118';
select twilio.disable_fallback('unread_phone') \gset

-- What Twilio keeps until its time is waited for from then on, what is delayed from when it may leave.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min', delay => '30 min') \gset
select twilio.add_fallback_rule('slower', from_channel => 'sms', no_success_within => '10 min', to_provider => 'smsgate') \gset
select callback(19, 'scheduled', null, 'whatsapp:+12025550119') as m19, sent(20, 'whatsapp:+12025550120', 'delayed') as m20 \gset
set twilio_callback.clock_offset = '4350 s';
select twilio_internal.plan_timed_out() > 0 as looked, answer('sent') as answered;
select explanation from twilio.explain_fallback(:m19) where outcome = 'slow' or explanation like '%Twilio%';
select count(callback(19, 'sent', null, 'whatsapp:+12025550119'));
set twilio_callback.clock_offset = '4900 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select twilio_internal.plan_timed_out();
select step, provider, channel, status from chain where root_id in (:m19, :m20);
set twilio_callback.clock_offset = '4960 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, channel, status from chain where root_id in (:m19, :m20);
set twilio_callback.clock_offset = '6800 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, channel, status from chain where root_id = :m20;
select twilio.disable_fallback('slow'), twilio.disable_fallback('slower') \gset

-- What may have left is not sent again beside its fallback, although that would be allowed.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min') \gset
set twilio_callback.delivery = 'at_least_once';
select twilio.send_message('whatsapp:+12025550121', 'unknown') as m21 \gset
reset twilio_callback.delivery;
select twilio_internal.finish(array[message_id], array[lease_token], array['unknown'], array[null], array['unknown'], array[null::int],
    array[null::int], array['timeout'], array[null], array[700000]) from twilio_internal.claim(100) where message_id = :m21;
set twilio_callback.clock_offset = '7401 s';
select twilio_internal.plan_timed_out() > 0 as looked;
set twilio_callback.clock_offset = '7501 s';
select twilio_internal.finish(array[message_id], array[lease_token], array['absent'], array[null], array[null], array[null::int],
    array[null::int], array['not in the list'], array[null], array[null::bigint]) from twilio_internal.claim(100) where message_id = :m21;
select step, channel, status from chain where root_id = :m21;
select count(*) from twilio_internal.outbox o join twilio.message m using (message_id) where m.root_id = :m21 and m.step = 0;

-- Rules that could never be followed.
select twilio.add_fallback_rule('x', no_success_within => '5 hours');
select twilio.add_fallback_rule('x', no_success_within => '5 hours', expires_after => '1 hour');
select twilio.add_fallback_rule('x', no_success_within => '1 ms');
reset twilio_callback.clock_offset;

drop view chain;
drop function callback, response, deliver, post, sent, answer;
drop extension twilio_callback;
