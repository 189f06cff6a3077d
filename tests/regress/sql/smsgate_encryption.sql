-- Messages that only the phone can read: encrypted once, a few at a time, and never sent in clear. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;

-- Encrypted: the first try makes what all of them send; once the gateway has it, it is not kept.
select twilio.add_smsgate('sealed', 'password', iterations => 75000);
\set VERBOSITY default
select twilio.add_smsgate('sealed', 'password', passphrase => 'must not show', iterations => 999);
\set VERBOSITY terse
select twilio.add_smsgate('sealed', 'password', passphrase => 'must not show', iterations => 1000001);
select twilio.add_smsgate('sealed', 'password', passphrase => '');
select twilio.add_smsgate('sealed', 'password', passphrase => 'file:nothing');
select twilio.add_smsgate('sealed', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-3', passphrase => 'secret words') \gset
select count(twilio.send_message('+1202555014' || n, 'x', from_address => 'sealed/phone-3', expires_after => '1 hour')) from generate_series(0, 5) n;
-- So few at a time, for each costs a while.
select count(*) from twilio_internal.claim_smsgate(10);
create temp table again as select * from twilio_internal.claim_smsgate(10);
select count(*), bool_and(is_encrypted) as is_encrypted, count(sealed_to) as sealed from again;
select twilio_internal.store_encrypted(message_id, version, '$number', '$text') from again order by message_id;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'read: timed out', retry_after_ms => 1000) from again;
set twilio_callback.clock_offset = '2 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, body, sealed_to, sealed_body from again order by message_id;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending') from again order by message_id limit 1;
select count(*), count(p.sealed_to), count(p.sealed_body) from twilio_internal.smsgate_message p join again a using (message_id);
-- With another passphrase it is encrypted anew.
select twilio.add_smsgate('sealed', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-3', passphrase => 'other words', iterations => 400000) \gset
select count(*) filter (where sealed_to is not null) from twilio_internal.smsgate_message;
select count(twilio.send_message('+1202555015' || n, 'x', from_address => 'sealed/phone-3', expires_after => '1 hour')) from generate_series(0, 1) n;
select count(*) from twilio_internal.claim_smsgate(10);
-- What is not said again stays: nothing goes in clear unnoticed.
select twilio.add_smsgate('sealed', 'another password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-3') \gset
select s.address, g.password, g.passphrase, g.iterations from twilio.smsgate g join twilio.sender s using (sender_id) where g.username = 'sealed' order by 1;
-- What was encrypted for the passphrase before is not kept.
select twilio_internal.store_encrypted(p.message_id, a.version, '$number', '$text'), twilio_internal.store_encrypted(p.message_id, g.xmin::text, '$number', '$text')
from twilio_internal.smsgate_message p join twilio.smsgate g using (sender_id), (select version from again limit 1) a order by p.message_id desc limit 1;
reset twilio_callback.clock_offset;

-- A few messages are encrypted at a time; gateways without encryption do not wait, and each gateway with it is served.
update twilio_internal.outbox set due_at = 'infinity';
select count(twilio.add_smsgate(name, 'password', 'http://127.0.0.1:4010', passphrase => 'secret words', iterations => 1000000)) from unnest('{busy,quiet}'::text[]) name;
select twilio.add_smsgate('clear', 'password', 'http://127.0.0.1:4010') \gset
select count(twilio.send_message('+12025550160', 'x', from_address => 'busy')) from generate_series(1, 60);
select count(twilio.send_message('+12025550161', 'x', from_address => 'quiet')), count(twilio.send_message('+12025550162', 'x', from_address => 'clear')) from generate_series(1, 3);
select count(*) filter (where not is_encrypted) as clear, count(*) filter (where is_encrypted) as sealed from twilio_internal.claim_smsgate(20);
select count(c.*) as taken from generate_series(1, 50) n cross join lateral twilio_internal.claim_smsgate(n * 0 + 20) c;
select count(*) as waiting from twilio_internal.outbox o join twilio.sender s using (sender_id) where s.address = 'quiet' and o.lease_token is null;

drop extension twilio_callback;
