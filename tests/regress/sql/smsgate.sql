-- SMSGate: gateways, what is sent through them, and what gateway and phone report. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
-- The worker repeats a failed step from a random message on.
select setseed(0) \gset
set client_min_messages = warning;

-- Gateways.
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1/', device_id => 'phone-1', signing_key => 'key-1') \gset
select twilio.add_smsgate('user', 'password', 'ftp://127.0.0.1');
select twilio.add_smsgate('us:er', 'password');
select twilio.add_smsgate('user', 'password', sim_number => 4);
select twilio.add_smsgate('user', '');
\set VERBOSITY default
select twilio.add_smsgate('user', 'must not show', priority => 500);
select twilio.add_smsgate('user', 'must not show', priority => null);
select twilio.add_smsgate('user', 'must not show', device_id => 'too long to be the id of a phone');
select twilio.add_smsgate('user', 'must not show', with_delivery_report => null);
select twilio.add_smsgate('user', 'must not show', use_tokens => null);
select twilio.add_smsgate('user', null);
\set VERBOSITY terse
select s.address, s.channel, s.is_default, g.base_url, g.device_id from twilio.smsgate g join twilio.sender s using (sender_id);

\i shared/hmac.sql
\i shared/phone.sql

-- A message straight to the phone: claimed with our id, pinned, with time to live.
select twilio.send_message('+12025550123', 'Hello', from_address => 'user/phone-1', expires_after => '10 min') as m1 \gset
select count(*) from twilio_internal.claim(10);
create temp table job as select * from twilio_internal.claim_smsgate(10);
select message_id = :m1 as is_it, task, tries, device_id, to_address, body, ttl_s between 590 and 600 as is_ten_minutes, reference <> '' as has_reference from job;
select count(*) from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', 'pending', 'phone-1', http_status => 202) from job;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', 'pending', 'phone-1', http_status => 202) from job;
select status from twilio.message where message_id = :m1;
select outcome, http_status from twilio_internal.attempt where message_id = :m1;
select reference as ref1 from job \gset

-- Each event once, whatever the parts; failed stands above delivered.
select * from phone('sms:sent', :'ref1', '{"partsCount": 2}');
select * from phone('sms:delivered', :'ref1');
select * from phone('sms:delivered', :'ref1');
select status, delivered_at is not null as delivered from twilio.message where message_id = :m1;
select * from phone('sms:failed', :'ref1', '{"reason": "Send result: RESULT_ERROR_GENERIC_FAILURE"}');
select * from phone('sms:sent', :'ref1');
select status, is_corrected from twilio.message where message_id = :m1;
select source, status, is_advance, params ->> 'ErrorMessage' as reason from twilio.message_event where message_id = :m1 order by event_id;

-- Taken back: not processed, unknown, refused, and expired at the gateway.
select twilio.send_message('+12025550125', 'a', from_address => 'user/phone-1', expires_after => '10 min') as m2,
    twilio.send_message('+12025550126', 'b', from_address => 'user/phone-1', expires_after => '10 min') as m3,
    twilio.send_message('+12025550127', 'c', from_address => 'user/phone-1', expires_after => '10 min') as m4 \gset
-- A user's trigger that refuses one of them does not delay the others.
begin;
\i shared/refuse.sql
create trigger refuse before insert or update on twilio_internal.smsgate_message for each row when (new.message_id = :m3) execute function refuse();
select c.message_id = :m3 as is_refused, c.task from twilio_internal.claim_smsgate(10) c where c.message_id in (:m2, :m3, :m4);
select due_at > twilio.now() as is_put_off, lease_token is null as is_free from twilio_internal.outbox where message_id = :m3;
rollback;
-- Nor if postponing it is refused as well, with one place in the batch.
begin;
\i shared/refuse.sql
create trigger refuse before update on twilio_internal.outbox for each row when (new.message_id = :m2) execute function refuse();
select c.message_id = :m3 as is_next, c.task from twilio_internal.claim_smsgate(1) c;
select c.message_id = :m4 as is_next, c.task from twilio_internal.claim_smsgate(1) c;
update twilio_internal.smsgate_message set is_open = true, due_at = twilio.now() - case message_id when :m3 then interval '1 s' else '0' end where message_id in (:m3, :m4);
create trigger refuse before update on twilio_internal.smsgate_message for each row when (new.message_id = :m3) execute function refuse();
select c.message_id = :m4 as is_next, c.task from twilio_internal.claim_smsgate(1) c;
rollback;
truncate job;
insert into job select * from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'unknown', reason => 'read: timed out', retry_after_ms => 5000) from job where message_id = :m2;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'refused', reason => 'invalid phone number', http_status => 400) from job where message_id = :m3;
-- The reason names the remedy unless it is set already.
select status, error_message from twilio.message where message_id = :m3;
select twilio_internal.explain_refused_number(g.sender_id, 'invalid phone number'), twilio_internal.explain_refused_number(g.sender_id, 'no such scope')
from twilio.smsgate g where g.device_id = 'phone-1';
begin;
update twilio.smsgate set skip_phone_validation = true;
select twilio_internal.explain_refused_number(g.sender_id, 'invalid phone number') from twilio.smsgate g where g.device_id = 'phone-1';
rollback;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'not_processed', reason => 'no device', http_status => 400, retry_after_ms => 900000) from job where message_id = :m4;
select body, status from twilio.message where message_id in (:m2, :m3, :m4) order by message_id;
select count(*) from twilio_internal.claim_smsgate(10);
select twilio_internal.next_smsgate() between 1 and 5 as is_soon;
set twilio_callback.clock_offset = '6 s';
create temp table again as select * from twilio_internal.claim_smsgate(10);
select a.message_id = :m2 as is_it, a.task, a.tries, a.reference = j.reference as same_id, a.device_id from again a join job j using (message_id);
-- A 409: the gateway has it already.
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', http_status => 409) from again;
-- The phone falls silent: asked for, taken back, given up.
set twilio_callback.clock_offset = '40 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select message_id = :m2 as is_it, task from again order by message_id;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'found', 'pending') from again;
set twilio_callback.clock_offset = '610 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m2;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'withdrawn') from again;
set twilio_callback.clock_offset = '680 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m2;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'failed') from again where message_id = :m2;
select status from twilio.message where message_id = :m2;
set twilio_callback.clock_offset = '5 h';
select count(*) from twilio_internal.claim_smsgate(10);
reset twilio_callback.clock_offset;

-- Without a device: a lost answer is looked for before anything is sent again, so that no second phone sends it.
select twilio.add_smsgate('cloud', 'password', 'http://127.0.0.1:4010/3rdparty/v1') \gset
select twilio.send_message('+12025550128', 'd', from_address => 'cloud', expires_after => '1 hour') as m5 \gset
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task, device_id from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'unknown', reason => 'read: timed out', retry_after_ms => 1000) from again where message_id = :m5;
set twilio_callback.clock_offset = '2 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'missing') from again where message_id = :m5;
set twilio_callback.clock_offset = '10 s';
select count(*) from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '400 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'missing') from again where message_id = :m5;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'processed', 'phone-9') from again where message_id = :m5;
select m.status, p.device_id from twilio.message m join twilio_internal.smsgate_message p using (message_id) where message_id = :m5;
reset twilio_callback.clock_offset;

-- A message that may have been sent is not canceled, counts as unknown, and does not merely expire in the end.
select twilio.send_message('+12025550129', 'lost', from_address => 'user/phone-1', expires_after => '5 min') as m8,
    twilio.send_message('+12025550129', 'not taken', from_address => 'user/phone-1', expires_after => '5 min') as m9 \gset
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select q.unknown, q.in_flight from twilio.queue_status q;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'no device', retry_after_ms => 1000) from again where message_id = :m9;
-- Its worker dies over the other.
select twilio_internal.rescue_orphaned(true);
select q.unknown, q.in_flight from twilio.queue_status q;
select twilio.cancel_message(:m8);
select twilio.cancel_message(:m9) \gset
select status from twilio.message where message_id in (:m8, :m9) order by message_id;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task, twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'no device', retry_after_ms => 1000) from again where message_id = :m8;
select twilio.cancel_message(:m8);
set twilio_callback.clock_offset = '301 s';
select count(*) from twilio_internal.claim_smsgate(10);
select kind, status from twilio.failed_message where message_id = :m8;
-- What the gateway had and the phone did not take in time has expired.
select kind, status from twilio.failed_message where message_id = :m2;
reset twilio_callback.clock_offset;

-- A message that the phone reports is there, even if the gateway never confirmed it: it is not sent again and has not expired.
select twilio.send_message('+12025550134', 'told in time', from_address => 'user/phone-1', expires_after => '5 min') as m12,
    twilio.send_message('+12025550134', 'told soon', from_address => 'user/phone-1', expires_after => '5 min') as m13,
    twilio.send_message('+12025550134', 'told late', from_address => 'user/phone-1', expires_after => '5 min') as m14 \gset
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select http_status from phone('sms:sent', (select reference from again where message_id = :m12));
select count(twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'read: timed out', retry_after_ms => case body when 'told in time' then 600000 when 'told late' then 240000 else 0 end))
from again where to_address = '+12025550134';
select p.http_status from again a cross join lateral phone(case a.message_id when :m13 then 'sms:delivered' else 'sms:sent' end, a.reference) p where a.message_id in (:m13, :m14);
select count(*) from twilio_internal.claim_smsgate(10) where to_address = '+12025550134';
set twilio_callback.clock_offset = '301 s';
select twilio_internal.expire_due() > 0 as swept;
select m.body, m.status, array(select t.outcome from twilio_internal.attempt t where t.message_id = m.message_id) as outcomes, p.is_open
from twilio.message m join twilio_internal.smsgate_message p using (message_id) where m.to_address = '+12025550134' order by m.message_id;
select count(*) from twilio_internal.outbox o join twilio.message m using (message_id) where m.to_address = '+12025550134';
reset twilio_callback.clock_offset;
-- But a simulated status does not count as sent.
select twilio.send_message('+12025550137', 'not sent yet', from_address => 'user/phone-1') as m15 \gset
select count(twilio.simulate_callback(:m15, 'sent'));
select task from twilio_internal.claim_smsgate(10) where message_id = :m15;
-- A message that was given up is not any more once its phone reports it.
update twilio_internal.outbox set state = 'dead', due_at = 'infinity', lease_token = null, lease_until = null where message_id = :m15;
select kind from twilio.failed_message where message_id = :m15;
select http_status from phone('sms:delivered', (select reference::text from twilio_internal.smsgate_message where message_id = :m15));
select twilio_internal.expire_due();
select kind from twilio.failed_message where message_id = :m15;

drop function phone, hmac;
drop extension twilio_callback;
