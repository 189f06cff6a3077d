-- Registrations of webhooks at SMSGate. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate');
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-2') \gset
select twilio.register_smsgate_webhooks();
select twilio.register_smsgate_webhooks('http://hooks.example.com/smsgate');
select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate', '{}');
select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate', '{oh no}');
select twilio.register_smsgate_webhooks('https://hooks.example.com/smsgate', from_address => 'nobody');
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.register_smsgate_webhooks(), twilio.register_smsgate_webhooks(events => '{sms:sent,sms:sent}', from_address => 'user/phone-1');

-- Each is registered under a lease, again until the gateway accepts it, and not while sending is off.
select twilio.disable_sending() \gset
select count(*), twilio_internal.next_webhook() from twilio_internal.claim_webhook(100);
select twilio.enable_sending() \gset
select twilio_internal.next_webhook() <= 0 as is_due;
create temp table job as select * from twilio_internal.claim_webhook(100);
select event, url, device_id, is_wanted, tries, count(*) over () from job order by device_id, event limit 2;
select count(*) from twilio_internal.claim_webhook(100);
select count(*) filter (where twilio_internal.finish_webhook(webhook_id, lease_token, device_id = 'phone-1', 'no such scope', 1000)) from job;
select count(*) filter (where twilio_internal.finish_webhook(webhook_id, lease_token, true, null, null)) from job;
select s.address, count(*), count(w.registered_at) as registered, min(w.problem) as problem from twilio.smsgate_webhook w join twilio.sender s using (sender_id) group by 1 order by 1;
set twilio_callback.clock_offset = '2 s';
select count(distinct tries) as tries, count(*) from twilio_internal.claim_webhook(100);

-- Taken back.
select twilio.withdraw_smsgate_webhooks('https://hooks.example.com/other'), twilio.withdraw_smsgate_webhooks(from_address => 'user/phone-1');
truncate job;
insert into job select * from twilio_internal.claim_webhook(100);
select distinct device_id, is_wanted from job;
-- Asked for again meanwhile, it stays.
select twilio.register_smsgate_webhooks(events => '{sms:sent}', from_address => 'user/phone-1');
select count(*) filter (where twilio_internal.finish_webhook(webhook_id, lease_token, true, null, null)) from job;
select event from twilio.smsgate_webhook w join twilio.sender s using (sender_id) where s.address = 'user/phone-1';
reset twilio_callback.clock_offset;
drop extension twilio_callback;
