-- A message to a recipient who opted out is refused, or kept as a row of its own, and never sent.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100') \gset
select twilio.block('+12025550123', 'asked by phone');

select twilio.send_message('+12025550123', 'Hello');
select twilio.send_message('+12025550123', 'Hello', if_suppressed => 'perhaps');
select twilio.send_message('+12025550123', 'Hello', if_suppressed => null);

-- An order is not lost because its customer wants no texts.
begin;
select twilio.send_message('+12025550123', 'Your order is ready', idempotency_key => 'order 1', if_suppressed => 'record');
select twilio.send_message('+12025550124', 'Your order is ready', idempotency_key => 'order 2', if_suppressed => 'record');
commit;
select to_address, status, error_message from twilio.message_status order by message_id;
select to_address from twilio_internal.outbox join twilio.message using (message_id);

-- The same order is the same row, and nothing falls back for it.
select twilio.send_message('+12025550123', 'Your order is ready', idempotency_key => 'order 1', if_suppressed => 'record');
select count(*) from twilio.message;
select count(*) from twilio_internal.fallback;
select status, source from twilio.message_timeline where to_address = '+12025550123';

drop extension twilio_callback;
