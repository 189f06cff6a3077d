-- What incoming messages are answered with, and when.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

-- TwiML is escaped; characters that XML does not know are left out; media and addresses have their place.
select twilio.twiml_message(E'Tom & Jerry <3 "quoted" ''too'' ]]>\u0001\u000b\uFFFE end');
select twilio.twiml_message('see', array['https://a.example/x?y=1&z="'], '+12025550123', '+12025550100', 'https://a.example/s?a=1&b=2');
select twilio.twiml_message(null, array['https://a.example/1', 'https://a.example/2']);
select twilio.twiml_message(null);
select twilio.twiml_message(repeat('x', 1601));
select twilio.twiml_message('x', array_fill('https://a.example/'::text, array[11]));
select twilio.twiml_message('x', array['javascript:alert(1)']);
select twilio_internal.check_twiml('<Response><Message>hi</Message></Response>') \gset
select twilio_internal.check_twiml('hi');
select twilio_internal.check_twiml('<Response><Message>&#0;</Message></Response>');
select twilio_internal.check_twiml('<Response><Message>&bogus;</Message></Response>');
select twilio_internal.check_twiml('<Response><Message to="+12025550123" to="+12025550124">hi</Message></Response>');
select twilio_internal.check_twiml('<Response>' || repeat('x', 65536) || '</Response>');

create sequence sid;
-- As a front that asks for what functions make, and as one that cannot.
\set ECHO none
create function inbound(sender text, body text, more text default '', sid bigint default nextval('sid'))
returns table (body text, is_to_be_made boolean, wait_ms int, is_new boolean)
language sql
as $$
    select r.response_body, r.response_body is null, r.wait_ms, r.is_new
    from (
        select convert_to(
            format(
                'AccountSid=AC00000000000000000000000000000001&MessageSid=SM%s&SmsStatus=received&From=%s&To=%%2B12025550100&Body=%s%s',
                lpad(sid::text, 32, '0'), replace(sender, '+', '%2B'), body, more
            ),
            'UTF8'
        ) as body
    ) q
    cross join lateral twilio.receive(
        array['POST'], array['/x'],
        array[
            'content-type: application/x-www-form-urlencoded' || E'\nx-twilio-signature: '
            || twilio.compute_signature('https://hooks.example.com/x', q.body, 'secret')
        ],
        array[q.body], array[null]
    ) r
$$;
\set ECHO all

-- Nothing by default; then by number, by keyword, in the order of the rules.
select * from inbound('+12025550123', 'hello');
select twilio.add_reply_rule('We are closed.', priority => 200);
select twilio.add_reply_rule('Open 9 to 5 & later', keyword => ' Hours ', to_address => '+12025550100');
select twilio.add_reply_rule(twiml => '<Response/>', keyword => 'thanks');
select twilio.add_reply_rule('not for this number', to_address => '+12025550199', priority => 1);
select twilio.add_reply_rule('not for this account', account_sid => 'AC00000000000000000000000000000002', priority => 1);
select body from inbound('+12025550123', 'hello');
select body from inbound('+12025550123', 'HOURS');
select body from inbound('+12025550123', 'thanks');

-- Twilio answers STOP and the like, unless a rule is for the word; suppressed senders are not answered.
select body from inbound('+12025550123', 'help');
select twilio.add_reply_rule('Call us', keyword => 'help');
select body from inbound('+12025550123', 'help');
select body from inbound('+12025550123', 'ayuda', '&OptOutType=HELP');
select body from inbound('+12025550123', 'stop');
select body from inbound('+12025550123', 'hello');
select body from inbound('+12025550123', 'start');
select body from inbound('+12025550123', 'hello');
select twilio.block('+12025550124') > 0;
select body from inbound('+12025550124', 'hours');

-- A function makes the answer after the commit: text, jsonb or TwiML. A repeated request gets the same one.
create function say(event jsonb) returns text language sql
return case when event ->> 'body' = 'nothing' then null else format('You said %s & %s', event ->> 'body', current_user) end;
create function show(event jsonb) returns jsonb language sql
return jsonb_build_object('body', 'look', 'media_urls', jsonb_build_array('https://a.example/1'));
create function bad(event jsonb) returns text language plpgsql as $$ begin raise exception 'broken'; end $$;
create function slow(event jsonb) returns text language plpgsql as $$ begin perform pg_sleep(60); return 'late'; end $$;
create function calm(event jsonb) returns xml language sql
return '<Response><Message>calm</Message></Response>'::xml;
create function wrong(event jsonb) returns int language sql return 1;
create role reply_maker;
grant usage on schema public to reply_maker;
select twilio.add_reply_rule(function => 'public.say', keyword => w, run_as => 'reply_maker', priority => 1) > 0
from unnest(array['echo', 'nothing']) w;
select twilio.add_reply_rule(function => 'public.' || w, keyword => w, priority => 1) > 0
from unnest(array['show', 'bad', 'slow', 'calm']) w;
select * from inbound('+12025550123', 'echo', sid => 1000);
select a.twiml from twilio.answer(array(select message_id from twilio.message where body = 'echo')) a;
create or replace function say(event jsonb) returns text language sql return 'another';
select a.twiml from twilio.answer(array(select message_id from twilio.message where body = 'echo')) a;
select * from inbound('+12025550123', 'echo', sid => 1000);
select i.is_to_be_made from unnest(array['show', 'bad', 'calm', 'hello']) w cross join lateral inbound('+12025550123', w) i;
select m.body, a.twiml
from twilio.message m
cross join lateral twilio.answer(array[m.message_id]) a
where m.body in ('show', 'bad', 'calm', 'hello')
order by m.message_id;
select is_to_be_made from inbound('+12025550123', 'slow');
set statement_timeout = '200 ms';
select a.twiml from twilio.answer(array(select message_id from twilio.message where body = 'slow')) a;
reset statement_timeout;
select m.body, r.error from twilio.reply r join twilio.message m using (message_id) where r.error is not null order by 1;
-- One that cannot ask answers nothing instead.
select c.response_body
from (select 'AccountSid=AC00000000000000000000000000000001&MessageSid=SM00000000000000000000000000002000&SmsStatus=received&Body=echo'::bytea as body) q
cross join lateral twilio.sms_callback('/x', q.body, twilio.compute_signature('https://hooks.example.com/x', q.body, 'secret')) c;
-- An answer that comes much later is not delivered.
select is_to_be_made from inbound('+12025550123', 'echo', sid => 3000);
set twilio_callback.clock_offset = '5 min';
select count(*) from twilio.answer(array(select message_id from twilio.message where message_sid like '%3000'));
-- A reply is not given to a caller that guesses its id later.
select count(*) > 0 as has_replies from twilio.reply;
select count(*) from twilio.answer(array(select message_id from twilio.message));
reset twilio_callback.clock_offset;

select twilio.add_reply_rule();
select twilio.add_reply_rule('a', twiml => '<Response/>');
select twilio.add_reply_rule(twiml => '<Message>');
select twilio.add_reply_rule(function => 'public.wrong');
select twilio.add_reply_rule(function => 'public.none');

-- Acknowledged hand-over: the request is held open for as long as the rule says.
select twilio.require_acknowledgement('+12025550100', 14000) \gset
select wait_ms between 13000 and 14000 as waits from inbound('+12025550123', 'first', sid => 4000);
select twilio.acknowledged(array(select message_id from twilio.message)) is null as not_yet;
select twilio.acknowledge_inbound(message_id) from twilio.message where body = 'first';
select twilio.acknowledge_inbound(message_id) from twilio.message where body = 'first';
select count(*) from twilio.acknowledged(array(select message_id from twilio.message));
-- Asked again, it is known; the fallback's call and a blocked sender's message do not wait.
select wait_ms from inbound('+12025550123', 'first', sid => 4000);
select wait_ms from inbound('+12025550123', 'second', '&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fa');
select wait_ms from inbound('+12025550124', 'third');
-- After the deadline it is too late; a new request waits anew.
select wait_ms > 0 as waits from inbound('+12025550123', 'fourth', sid => 5000);
set twilio_callback.clock_offset = '15 s';
select twilio.acknowledge_inbound(message_id) from twilio.message where body = 'fourth';
select wait_ms > 0 as waits from inbound('+12025550123', 'fourth', sid => 5000);
select twilio.acknowledge_inbound(message_id) from twilio.message where body = 'fourth';
reset twilio_callback.clock_offset;
select twilio.acknowledge_inbound(message_id) from twilio.message where body = 'second';
select twilio.acknowledge_inbound(999999);
select twilio.require_acknowledgement(null, 14001);
-- One whose time is over before it can be waited for is not answered as if it were taken.
create function slow_down() returns trigger language plpgsql as $$ begin perform pg_sleep(0.05); return null; end $$;
create trigger slow_down after insert on twilio_internal.acknowledgement for each statement execute function slow_down();
select twilio.require_acknowledgement('+12025550100', 1) \gset
select wait_ms from inbound('+12025550123', 'late', sid => 6000);
drop function slow_down cascade;
select twilio.require_acknowledgement('+12025550100', null) \gset
select wait_ms from inbound('+12025550123', 'late', sid => 6000);
select wait_ms from inbound('+12025550123', 'fifth');
select twilio.require_acknowledgement() \gset
select wait_ms between 4000 and 5000 as waits from inbound('+12025550123', 'sixth');

drop function inbound, say, show, bad, slow, calm, wrong;
drop sequence sid;
drop extension twilio_callback;
drop owned by reply_maker;
drop role reply_maker;
