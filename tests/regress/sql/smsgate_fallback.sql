-- Fallbacks through a phone: the whole chain, and what is taken back once the original arrives. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;

select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1/', device_id => 'phone-1', signing_key => 'key-1') \gset
\i shared/hmac.sql
\i shared/phone.sql

create temp table again as select * from twilio_internal.claim_smsgate(10);

-- The whole chain: WhatsApp fails, SMS fails, the phone delivers; then the original is delivered after all.
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('whatsapp:+12025550100'), twilio.add_sender('+12025550100') \gset
select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(from_address => 'user/phone-1');
select twilio.send_message('whatsapp:+12025550130', 'Your table is ready') as m6, twilio.send_message('whatsapp:+12025550131', 'Your table is ready') as m7 \gset
select count(twilio.simulate_callback(id, 'undelivered', 63049)) from unnest(array[:m6::bigint, :m7]) id;
select count(twilio.simulate_callback(m.message_id, 'undelivered', 30003)) from twilio.message m where m.root_id in (:m6, :m7) and m.step = 1;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, body, device_id, task from again where to_address like '+1202555013_' order by 1;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending') from again where to_address like '+1202555013_';
select http_status, reason from phone('sms:delivered', (select reference from again where to_address = '+12025550130'));
select steps, reached_by, status, double_delivered from twilio.message_chain where root_id = :m6;
select count(twilio.simulate_callback(:m6, 'delivered'));
select steps, reached_by, double_delivered from twilio.message_chain where root_id = :m6;
-- What waits for its phone is taken back.
select count(twilio.simulate_callback(:m7, 'delivered'));
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where to_address = '+12025550131';
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'withdrawn') from again where to_address = '+12025550131';
select m.step, m.status from twilio.message m where m.root_id = :m7 order by 1;

-- Also what may wait there without the gateway having said so: it is asked for, and sent no more meanwhile.
select twilio.send_message('whatsapp:+12025550132', 'Your table is ready') as m10 \gset
select count(twilio.simulate_callback(:m10, 'undelivered', 63049));
select count(twilio.simulate_callback(m.message_id, 'undelivered', 30003)) from twilio.message m where m.root_id = :m10 and m.step = 1;
select count(twilio.send_message(number, 'hello', from_address => 'user/phone-1')) from unnest(array['+12025550133', '+12025550136']) number;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, task, twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'read: timed out', retry_after_ms => 0) from again where to_address ~ '3[236]$' order by 1;
select count(twilio.simulate_callback(:m10, 'delivered')), twilio.block('+12025550133') > 0 as is_blocked, twilio.block('+12025550136') > 0 as is_blocked;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, task from again order by 1;
select to_address, twilio_internal.finish_smsgate(message_id, lease_token, task, case to_address when '+12025550133' then 'missing' else 'accepted' end, 'pending') from again order by 1;
set twilio_callback.clock_offset = '400 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, task from again where to_address ~ '3[236]$' order by 1;
select to_address, twilio_internal.finish_smsgate(message_id, lease_token, task, case task when 'withdraw' then 'withdrawn' else 'missing' end) from again where to_address ~ '3[236]$' order by 1;
-- Neither gateway nor phone has it: now it ends as was asked for.
select count(*) from twilio_internal.claim_smsgate(10) where to_address = '+12025550133';
select m.to_address, m.status from twilio.message m where m.to_address ~ '55013[236]$' and m.provider = 'smsgate' order by 1;
reset twilio_callback.clock_offset;

drop function phone, hmac;
drop extension twilio_callback;
