-- Queueing: who sends, which messages are taken, and which are refused. No worker runs here.
create extension twilio_callback;
select twilio.add_sender('+12025550100');
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

-- Senders: the channel is read from the address, the first of a channel is its default.
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100'), twilio.add_sender('12345'),
    twilio.add_sender('My Shop', rate_per_second => 0.1, burst => 10), twilio.add_sender('MG00000000000000000000000000000001', is_default => true) \gset
select address, channel, is_default, can_send_media, rate_per_second, burst from twilio.sender order by sender_id;
select twilio.add_sender('MG00000000000000000000000000000001', is_default => false), twilio.add_sender('+12025550100', is_default => true) \gset
select address from twilio.sender where is_default order by 1;
select twilio.add_sender('+1 202 555 0100');
select twilio.add_sender('+12025550100', channel => 'whatsapp');
select twilio.add_sender('+12025550100', rate_per_second => 0);
select twilio.add_sender('+12025550100', messaging_service_sid => '+1');
select twilio.add_sender('+12025550100', account_sid => 'AC00000000000000000000000000000009');

-- Refused at once, each with a code of its own kind.
select twilio.send_message('12025550101', 'no plus');
select twilio.send_message(null, 'nobody');
select twilio.send_message('+12025550101');
select twilio.send_message('+12025550101', repeat('x', 1601));
select twilio.send_message('+12025550101', 'x', media_urls => array_fill('https://example.com/a.png'::text, array[11]));
select twilio.send_message('+12025550101', 'x', media_urls => array['ftp://example.com/a.png']);
select twilio.send_message('+12025550100', 'to itself');
select twilio.send_message('+12025550101', 'x', from_address => 'whatsapp:+12025550100');
select twilio.send_message('rcs:agent', 'no default sender');
select twilio.send_message('+12025550101', 'x', from_address => '+12025550199');
select twilio.send_message('+12025550101', 'x', from_address => 'My Shop', media_urls => array['https://example.com/a.png']);
select twilio.send_message('+12025550101', 'x', twilio_parameters => '[]');
select twilio.send_message('+12025550101', 'x', twilio_parameters => '{"Body": "y"}');
select twilio.send_message('+12025550101', 'x', twilio_parameters => '{"SendAt": "2027-01-01T00:00:00Z"}');
select twilio.send_message('+12025550101', 'x', expires_after => '0');
select twilio.send_message('+12025550101', 'x', send_at => 'infinity');
select twilio.send_message('+12025550101', 'x', delivery => 'maybe');
select twilio.send_message('+12025550101', 'x', status_callback => 'example.com');
select twilio.send_message('+12025550101', 'x', idempotency_key => '');
insert into twilio.suppression (address, kind, reason) values ('+12025550666', 'block', 'by us');
select twilio.send_message('whatsapp:+12025550666', 'x');
select count(*) from twilio_internal.outbox;

-- Queued, with a notice, since no worker runs.
select twilio.send_message('+12025550101', 'hello', metadata => '{"order": 7}') = 1 as is_first;
set client_min_messages = warning;
select twilio.send_message('whatsapp:+12025550101', twilio_parameters => '{"ContentSid": "HX1", "ContentVariables": {"1": "a"}}') is not null as ok;
select twilio.send_message('+12025550101', 'by service', from_address => 'MG00000000000000000000000000000001') is not null as ok;
select message_id, status, channel, from_address, to_address, messaging_service_sid, body, root_id, step, try
from twilio.message order by message_id;

-- A rollback takes the message back.
begin;
select twilio.send_message('+12025550101', 'never') is not null as ok;
rollback;
select count(*) from twilio_internal.outbox;

-- The caller's key: the same message once, another content an error.
select twilio.send_message('+12025550102', 'keyed', idempotency_key => 'k1') as keyed \gset
select twilio.send_message('+12025550102', 'keyed', idempotency_key => 'k1') = :keyed as same;
select twilio.send_message('+12025550102', 'other', idempotency_key => 'k1');
select count(*) from twilio_internal.outbox where message_id = :keyed;

-- The switch.
select twilio.disable_sending() \gset
select count(*) from twilio_internal.claim(10);
select twilio.enable_sending() \gset

drop extension twilio_callback;
