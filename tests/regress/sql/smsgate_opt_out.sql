-- What comes in at a phone is a message, and STOP is STOP on every channel. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;

select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1/', device_id => 'phone-1', signing_key => 'key-1') \gset
\i shared/hmac.sql
\i shared/phone.sql

-- What comes in at a phone is a message, and STOP is STOP on every channel.
select http_status, reason, is_new from phone('sms:received', 'cafe', '{"message": "Hi \u263a", "sender": "+12025550124", "recipient": "+12025550190", "simNumber": 1}', event_id => 'e1');
select http_status, reason, is_new from phone('sms:received', 'cafe', '{"message": "Hi \u263a", "sender": "+12025550124", "recipient": "+12025550190", "simNumber": 1}', event_id => 'e1');
select http_status, reason, is_new from phone('sms:received', 'beef', '{"message": "STOP", "sender": "+12025550124", "recipient": "+12025550190"}', event_id => 'e2');
select provider, direction, status, from_address, to_address, body from twilio.message where direction = 'inbound' order by message_id;
select twilio.send_message('+12025550124', 'x', from_address => 'user/phone-1');
select s.account_sid, s.from_address, s.kind, s.reason from twilio.suppression s where s.address = '+12025550124';
select twilio_internal.suppression_of('AC00000000000000000000000000000001', '+12025550100', 'whatsapp:+12025550124') as at_twilio;
select http_status, reason from phone('sms:received', 'feed', '{"message": "START", "sender": "+12025550124", "recipient": "+12025550190"}');
select twilio_internal.suppression_of('AC00000000000000000000000000000001', '+12025550100', '+12025550124') as at_twilio, twilio_internal.suppression_of(null, 'user/phone-1', '+12025550124') as at_phones;
-- These senders cannot be suppressed; their messages are kept all the same.
select x.sender, p.http_status, p.reason
from unnest(array['', ' ', 'ab:', 'ab:cd:x', 'AB:cd:', null]) with ordinality x (sender, n)
cross join lateral phone('sms:received', null, jsonb_build_object('message', 'STOP', 'sender', x.sender)) p
order by x.n;
select from_address, count(*) from twilio.message where body = 'STOP' and from_address is distinct from '+12025550124' group by 1 order by 1;
select count(*) from twilio.suppression where ended_at is null;
select twilio.send_message('whatsapp:+12025550125', 'x', from_address => 'user/phone-1');
select twilio.send_message('+12025550125', from_address => 'user/phone-1');
select twilio.send_message('+12025550125', 'x', from_address => 'user/phone-1', media_urls => '{https://example.com/1.png}');
select http_status, is_new, reason from twilio.smsgate_receive('{"x-signature: 0\nx-timestamp: 1", ""}', array['{}', '']::bytea[], '{null, null}');

-- What a phone says once more after a purge is a repeat: a START from before a STOP ends nothing.
select http_status, reason, is_new from phone('sms:received', null, '{"message": "START", "sender": "+12025550177"}', event_id => 'old-start');
set twilio_callback.clock_offset = '1 d';
call twilio.purge('1 h', include_pending => true, effort => 1);
reset twilio_callback.clock_offset;
select http_status, reason, is_new from phone('sms:received', null, '{"message": "STOP", "sender": "+12025550177"}', event_id => 'new-stop');
select http_status, reason, message_id, is_new from phone('sms:received', null, '{"message": "START", "sender": "+12025550177"}', event_id => 'old-start');
select http_status, reason, is_new from phone('sms:received', null, '{"message": "STOP", "sender": "+12025550177"}', event_id => 'new-stop');
select body from twilio.message where from_address = '+12025550177';
select kind, ended_at is null as holds from twilio.suppression where address = '+12025550177';

drop function phone, hmac;
drop extension twilio_callback;
