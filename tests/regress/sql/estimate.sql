-- A message is described without being sent: encoding, segments, and whether WhatsApp's window is open.
\pset null -
create extension twilio_callback;
set client_min_messages = warning;

-- A text alone needs no sender.
select * from twilio.estimate('Your table is ready');
select e.encoding, e.characters, e.units, e.segments, e.units_per_segment, e.units_left, e.problem
from (values
    (1, repeat('a', 160)), (2, repeat('a', 161)), (3, repeat('€', 81)), (4, 'ça va'), (5, repeat('中', 70)),
    (6, repeat('😀', 67)), (7, repeat('a', 1600)), (8, repeat('a', 1601)), (9, ''), (10, null)
) t (n, body)
cross join lateral twilio.estimate(t.body) e
order by t.n;
-- Smart Encoding has an equivalent for each of these characters, or changes none.
select e.encoding, e.units, e.segments from twilio.estimate(repeat('“Hello” – ', 10)) e;
select e.encoding, e.units, e.segments from twilio.estimate(repeat('“Hello” – ', 10), smart_encoding => true) e;
select e.encoding, e.units, e.segments from twilio.estimate(repeat('“Hello” – ', 10) || '😀', smart_encoding => true) e;

-- Addresses that send_message refuses are refused here too.
select channel from twilio.estimate('x', '+12025550123');
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100'), twilio.add_sender('whatsapp:+5215550000001'),
    twilio.add_sender('whatsapp:+12025550101', messaging_service_sid => 'MG00000000000000000000000000000001'),
    twilio.add_sender('MG00000000000000000000000000000001', channel => 'whatsapp'),
    twilio.add_sender('MG00000000000000000000000000000002', channel => 'whatsapp'), twilio.add_sender('rcs:agent') \gset
select channel from twilio.estimate('x', '2025550123');
select channel from twilio.estimate('x', '');
select channel from twilio.estimate('x', '+12025550123', from_address => '+12025550999');
select channel from twilio.estimate('x', 'whatsapp:+12025550123', from_address => '+12025550100');
select channel from twilio.estimate('x', '+12025550100');
select channel from twilio.estimate('x', '+12025550123', account_sid => 'AC00000000000000000000000000000009');
select channel from twilio.estimate(repeat('x', 2000000));
select channel from twilio.estimate('x', repeat('+', 2000000));
select channel, encoding, segments from twilio.estimate(repeat('x', 161), '+12025550123');
select channel, encoding, segments from twilio.estimate(repeat('x', 161), '+12025550123', from_address => 'rcs:agent');
select channel, encoding, segments from twilio.estimate('x', from_address => 'whatsapp:+12025550100');
select problem from twilio.estimate(repeat('x', 1601), '+12025550123');
select problem from twilio.estimate(repeat('x', 1601), 'whatsapp:+12025550123');
-- A phone has no limit of 1,600 characters.
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010', device_id => 'phone', signing_key => 'key', from_address => '+12025550160') \gset
select channel, segments, problem from twilio.estimate(repeat('x', 1601), '+12025550123', from_address => '+12025550160');
select channel from twilio.estimate('x', 'whatsapp:+12025550123', from_address => '+12025550160');

-- From here on it is ten days later, so that the account is older than the messages.
set twilio_callback.clock_offset = '10 d';
create sequence sid;
\i shared/post.sql
\set ECHO none
create function wrote(sender text, recipient text, at interval default '0') returns text
language plpgsql
as $$
declare
    reason text;
begin
    perform set_config('twilio_callback.clock_offset', extract(epoch from interval '10 days' + at)::bigint::text, true);
    select p.reason into reason
    from post('/twilio/inbound', format('MessageSid=SM%s&SmsStatus=received&Body=x&From=%s&To=%s',
        lpad(nextval('sid')::text, 32, '0'), replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'))) p;
    perform set_config('twilio_callback.clock_offset', '10 d', true);
    return reason;
end
$$;
create function estimated(to_address text, from_address text default null) returns text
language sql
begin atomic
    select concat_ws(
        ', ', case when e.is_window_open then 'open' when not e.is_window_open then 'closed' else 'unknown' end,
        round(extract(epoch from e.window_closes_at - twilio.now()) / 3600) || ' h', e.problem
    )
    from twilio.estimate('Your table is ready', to_address, from_address) e;
end;
\set ECHO all

-- The window of a sender without any recorded incoming message is unknown.
select estimated('whatsapp:+12025550123');
select wrote('whatsapp:+12025550999', 'whatsapp:+12025550100', '-3 days');
select estimated('whatsapp:+12025550123');
-- 24 hours from the last message; neither a text nor a message to another sender counts.
select wrote('whatsapp:+12025550123', 'whatsapp:+12025550100', '-25 hours');
select estimated('whatsapp:+12025550123');
select wrote('+12025550123', '+12025550100');
select wrote('whatsapp:+12025550123', 'whatsapp:+5215550000001');
select estimated('whatsapp:+12025550123'), estimated('whatsapp:+12025550123', 'whatsapp:+5215550000001') as other;
select wrote('whatsapp:+12025550123', 'whatsapp:+12025550100', '-23 hours');
select wrote('whatsapp:+12025550123', 'whatsapp:+12025550100', '-30 hours');
select estimated('whatsapp:+12025550123');
-- The window is the person's and the sender's, in whatever spelling WhatsApp reports their numbers.
select wrote('whatsapp:+5215511112222', 'whatsapp:+525550000001');
select estimated('whatsapp:+525511112222', 'whatsapp:+5215550000001'), estimated('whatsapp:+5215511112222', 'whatsapp:+5215550000001');
-- A messaging service has the windows of those of its numbers that are known.
select estimated('whatsapp:+12025550124', 'MG00000000000000000000000000000001');
select wrote('whatsapp:+12025550124', 'whatsapp:+12025550101');
select estimated('whatsapp:+12025550124', 'MG00000000000000000000000000000001'), estimated('whatsapp:+12025550124', 'MG00000000000000000000000000000002') as other;
-- SMS has no window.
select estimated('+12025550123');
-- A suppressed recipient.
select twilio.block('+12025550123', 'asked by phone');
select estimated('whatsapp:+12025550123'), estimated('+12025550123');

-- A phone takes longer texts than Twilio, up to a bound of its gateway.
select segments, problem from twilio.estimate(repeat('x', 2000), '+12025550125', '+12025550160');
select segments, problem from twilio.estimate(repeat('x', 70000), '+12025550125', '+12025550160');

-- It writes nothing, and a role that may send may call it.
begin transaction read only;
select segments, is_window_open from twilio.estimate('x', 'whatsapp:+12025550124', 'whatsapp:+12025550101');
rollback;
create role front_desk;
select twilio.grant_send('front_desk') \gset
set role front_desk;
select is_window_open from twilio.estimate('x', 'whatsapp:+12025550124', 'whatsapp:+12025550101');
reset role;
drop function estimated(text, text), wrote(text, text, interval), post;
drop sequence sid;
drop extension twilio_callback;
drop owned by front_desk;
drop role front_desk;
