-- Messages that Twilio accepted and that failed for a transient reason are tried again, later and once. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
set datestyle = iso;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset

\i shared/callback.sql
\i shared/sent.sql
\set ECHO none
create view chain as
select m.root_id, m.step, m.try, m.message_id, m.provider, m.channel, m.to_address, m.body, m.status, m.is_simulated as simulated,
    -- Delays grow by up to a quarter.
    (select max(d) from unnest(array[0, 5, 10, 30]) d where o.due_at >= twilio.now() + d * interval '1 min') as minutes
from twilio.message m
left join twilio_internal.outbox o using (message_id)
order by m.root_id, m.step, m.try;
create function explained(id bigint) returns table (rule text, outcome text, explanation text) language sql
return (
    -- Without ids and times.
    select (e.rule, e.outcome, regexp_replace(regexp_replace(e.explanation, '\d{4}-\d\d-\d\d [0-9:.+-]+', '(time)', 'g'), 'message \d+', 'message N', 'g'))
    from twilio.explain_fallback(id) e limit 1
);
-- A callback about a message to a number.
create function said(sid int, status text, code int default null) returns boolean language sql
return callback(sid, status, code, '+12025550' || 100 + sid, '+12025550100') is not null;
create function take() returns table (to_address text, body text) language sql
begin atomic
    select c.to_address, c.body from twilio_internal.claim(100) c order by 1;
end;
\set ECHO all

-- Without any rule: the same message again, later, within its expiry.
select sent(1, '+12025550101', 'one') as m1 \gset
select said(1, 'sent'), said(1, 'failed', 30001);
select step, try, to_address, body, status, simulated, minutes from chain where root_id = :m1;
select r.expires_at = o.expires_at as same_expiry, r.send_at > twilio.now() as is_planned, r.metadata is not distinct from o.metadata as same_data
from twilio.message o join twilio.message r on r.root_id = o.message_id and r.try = 2 where o.message_id = :m1;
select * from explained(:m1);
-- Other reports of the failure change nothing, and it does not leave before its time.
select said(1, 'undelivered', 30017), said(1, 'failed', 30001);
select * from take();
select count(*) from chain where root_id = :m1;
-- It leaves once, and when it fails too, that is all.
set twilio_callback.clock_offset = '14 min';
select * from take();
select * from take();
select count(said.*) from chain c cross join lateral twilio.simulate_callback(c.message_id, 'failed', 30001) said where c.root_id = :m1 and c.try = 2;
select step, try, status, minutes from chain where root_id = :m1;
select * from explained((select message_id from chain where root_id = :m1 and try = 2));
select steps, status, cardinality(message_ids) as messages from twilio.message_chain where root_id = :m1;
reset twilio_callback.clock_offset;

-- Delivered after all: the retry does not leave.
select sent(2, '+12025550102', 'two') as m2 \gset
select said(2, 'undelivered', 30017), said(2, 'delivered');
set twilio_callback.clock_offset = '14 min';
select * from take();
select step, try, status from chain where root_id = :m2;
select e.error_message ~ '^message \d+ was delivered after all$' as is_explained
from twilio.message_timeline e where e.root_id = :m2 and e.status = 'canceled';
select reached_by, status, double_delivered from twilio.message_chain where root_id = :m2;
reset twilio_callback.clock_offset;

-- By hand it is sent at once, instead of a second retry.
select sent(3, '+12025550103', 'three') as m3 \gset
select said(3, 'failed', 30001);
select twilio.retry_message(:m3) = (select message_id from chain where root_id = :m3 and try = 2) as is_same;
select * from take();
select twilio.retry_message(:m3);
select count(*) from chain where root_id = :m3;

-- Which failures pass: the table says so, and users may change it.
select error_code, class, retry, twilio_internal.retry_delay(error_code, 1) as first, twilio_internal.retry_delay(error_code, 2) as second
from twilio.error_code where error_code in (21211, 30001, 30003, 30008, 30017, 30023, 30450, 63016, 63018) order by 1;
insert into twilio.error_code_override (error_code, class, retry) values (30001, null, 'never'), (30003, 'transient', null);
select sent(4, '+12025550104', 'four') as m4, sent(5, '+12025550105', 'five') as m5, sent(6, '+12025550106', 'six') as m6, sent(7, '+12025550107', 'seven') as m7 \gset
select said(4, 'failed', 30001), said(5, 'undelivered', 30003), said(6, 'failed', 30008), said(7, 'failed');
select body, try, status, minutes from chain where root_id in (:m4, :m5, :m6, :m7);
delete from twilio.error_code_override;

-- What is not tried again: other software's messages, suppressed recipients, what expires before, canceled, delivered or blanked messages.
select said(8, 'failed', 30001);
select sent(9, '+12025550109', 'nine') as m9, sent(10, '+12025550110', 'ten') as m10, sent(11, '+12025550111', 'eleven') as m11, sent(12, '+12025550112', 'twelve') as m12, sent(13, '+12025550113', 'thirteen') as m13 \gset
select twilio.block('+12025550109') is not null as blocked;
update twilio.message set expires_at = twilio.now() + interval '10 min' where message_id = :m10;
update twilio.message set body = null where message_id = :m13;
select said(9, 'failed', 30001), said(10, 'failed', 30001), said(11, 'canceled'), said(11, 'failed', 30001), said(12, 'delivered'), said(12, 'failed', 30001), said(13, 'failed', 30001);
select m.body, m.try, m.status, e.outcome, e.explanation from twilio.message m cross join lateral explained(m.message_id) e
where m.root_id in (:m9, :m10, :m11, :m12, :m13) or m.to_address = '+12025550108' order by m.message_id;
-- Nor what turns out to be unwanted.
select sent(14, '+12025550114', 'fourteen') as m14, sent(15, '+12025550115', 'fifteen') as m15 \gset
select said(14, 'undelivered', 30001), said(14, 'failed', 30004), said(15, 'failed', 30001);
select twilio.block('+12025550115') is not null as blocked;
set twilio_callback.clock_offset = '14 min';
select * from take();
select body, try, status from chain where root_id in (:m14, :m15);
reset twilio_callback.clock_offset;

-- With rules: the fallback waits for the retry, and goes on from it.
select twilio.enable_sms_to_smsgate(), twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset
select sent(16, '+12025550116', 'sixteen') as m16 \gset
select said(16, 'failed', 30001);
select step, try, provider, status, minutes from chain where root_id = :m16;
set twilio_callback.clock_offset = '14 min';
select * from take();
select count(twilio.simulate_callback(message_id, 'failed', 30001)) from chain where root_id = :m16 and try = 2;
select step, try, provider, status, minutes, simulated from chain where root_id = :m16;
select outcome from explained((select message_id from chain where root_id = :m16 and try = 2));
reset twilio_callback.clock_offset;
-- A rule says how often.
select twilio.enable_sms_to_smsgate(retries => 0) \gset
select sent(17, '+12025550117', 'seventeen') as m17 \gset
select said(17, 'failed', 30001);
select step, try, provider, status, minutes from chain where root_id = :m17;
select twilio.enable_sms_to_smsgate(retries => 2) \gset
select sent(18, '+12025550118', 'eighteen') as m18 \gset
select said(18, 'failed', 30001);
set twilio_callback.clock_offset = '14 min';
select * from take();
select count(twilio.simulate_callback(message_id, 'failed', 30001)) from chain where root_id = :m18 and try = 2;
select step, try, provider, status, minutes from chain where root_id = :m18;
set twilio_callback.clock_offset = '55 min';
select * from take();
select count(twilio.simulate_callback(message_id, 'failed', 30001)) from chain where root_id = :m18 and try = 3;
select step, try, provider, status, minutes from chain where root_id = :m18;
reset twilio_callback.clock_offset;
select twilio.enable_sms_to_smsgate(retries => 6);
select twilio.disable_fallback('sms_to_smsgate') \gset

-- A fallback is tried again by its own way, with its text and its rule.
select twilio.enable_whatsapp_to_sms(template => 'By SMS: {body}') \gset
select sent(19, 'whatsapp:+12025550119', 'nineteen') as m19 \gset
select callback(19, 'undelivered', 63016, 'whatsapp:+12025550119') = :m19 as is_it;
select * from take();
select count(twilio.simulate_callback(message_id, 'undelivered', 30017)) from chain where root_id = :m19 and step = 1;
select c.step, c.try, c.channel, c.body, c.status, c.minutes, r.name
from chain c left join twilio_internal.fallback f using (message_id) left join twilio.fallback_rule r using (rule_id) where c.root_id = :m19;
-- The first message was read meanwhile.
select callback(19, 'read', null, 'whatsapp:+12025550119') = :m19 as is_it;
set twilio_callback.clock_offset = '14 min';
select * from take();
select step, try, status from chain where root_id = :m19;
reset twilio_callback.clock_offset;

-- A timed rule counts from when the retry may leave.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '5 min') \gset
select sent(20, 'whatsapp:+12025550120', 'twenty') as m20 \gset
select callback(20, 'failed', 63018, 'whatsapp:+12025550120') = :m20 as is_it;
set twilio_callback.clock_offset = '6 min';
select twilio_internal.plan_timed_out() \gset
select step, try, channel, status from chain where root_id = :m20;
set twilio_callback.clock_offset = '20 min';
select twilio_internal.plan_timed_out() \gset
select step, try, channel, status from chain where root_id = :m20;

-- A retry takes at most half of the time that the fallback has.
reset twilio_callback.clock_offset;
select twilio.add_fallback_rule('soon', from_channel => 'sms', to_channel => 'whatsapp', from_address => 'whatsapp:+12025550100', recipient_prefix => '+12025550190', expires_after => '15 min') \gset
select sent(90, '+12025550190', 'soon') as m90 \gset
select said(90, 'failed', 30001);
select step, try, channel, status from chain where root_id = :m90;

drop view chain;
drop function explained, said, take, sent, callback, response, deliver, post;
drop extension twilio_callback;
