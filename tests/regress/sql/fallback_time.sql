-- Fallback by time: what follows where success did not come, and what never does. No worker runs here.
\set SHOW_CONTEXT never
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010');
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100');
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1');
create function callback(sid int, status text, code int default null, recipient text default 'whatsapp:+12025550123', sender text default 'whatsapp:+12025550100')
returns bigint
language sql
begin atomic
    select c.message_id
    from (
        select convert_to(
            format('MessageSid=SM%s&AccountSid=AC00000000000000000000000000000001', lpad(sid::text, 32, '0'))
            || format('&From=%s&To=%s&MessageStatus=%s', replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'), status)
            || coalesce('&ErrorCode=' || code, ''),
            'UTF8'
        ) as body
    ) b
    cross join lateral twilio.sms_callback(
        '/twilio/status', b.body, twilio.compute_signature('https://hooks.example.com/twilio/status', b.body, 'secret')
    ) c;
end;
-- A message of ours that Twilio took under this SID.
create function sent(sid int, to_address text, body text)
returns bigint
language plpgsql
as $$
declare
    id constant bigint := twilio.send_message(to_address, body);
    token uuid;
begin
    select c.lease_token into token from twilio_internal.claim(1000) c where c.message_id = id;
    perform twilio_internal.finish(array[id], array[token], array['accepted'], array['SM' || lpad(sid::text, 32, '0')], array['queued'],
        array[201], array[null::int], array[null::text], array[null::text], array[null::bigint]);
    return id;
end
$$;
-- What Twilio says about the messages that it is asked for.
create function answer(status text, outcome text default 'found', retry_after_ms int default null)
returns bigint
language sql
return (
    select count(twilio_internal.finish_original_fetch(
        message_id, lease_token, answer.outcome, status => answer.status, retry_after_ms => answer.retry_after_ms
    ))
    from twilio_internal.claim_original_fetch(100)
);
create view chain as
select m.root_id, m.step, m.message_id, m.provider, m.channel, m.to_address, m.body, m.status
from twilio.message m order by m.root_id, m.step;

-- Rules can be added by a session that has called nothing of the library's yet.
\connect
set client_min_messages = warning;
select twilio.enable_whatsapp_to_sms(), twilio.disable_fallback('whatsapp_to_sms');

-- Without a rule by time nothing is watched.
select count(sent(1, 'whatsapp:+12025550101', 'unwatched')), count(callback(2, 'sent'));
select count(*) from twilio_internal.fallback_watch;

select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min');
select sent(3, 'whatsapp:+12025550103', 'sent only') as m3, sent(4, 'whatsapp:+12025550104', 'delivered') as m4,
    sent(5, 'whatsapp:+12025550105', 'delivered in the end') as m5, sent(6, 'whatsapp:+12025550106', 'opted out') as m6,
    sent(7, 'whatsapp:+12025550107', 'blocked') as m7, sent(8, 'whatsapp:+12025550108', 'refused for its content') as m8,
    sent(9, '+12025550109', 'another channel') as m9,
    twilio.send_message('whatsapp:+12025550110', 'not even sent') as m10,
    twilio.send_message('whatsapp:+12025550111', 'scheduled', send_at => twilio.now() + interval '1 hour') as m11 \gset
select callback(12, 'sent', null, 'whatsapp:+12025550112') as m12 \gset
select to_address from twilio_internal.fallback_watch join twilio.message using (message_id) order by 1;
select count(callback(3, 'sent', null, 'whatsapp:+12025550103')), count(callback(4, 'delivered', null, 'whatsapp:+12025550104'));
select outcome, explanation ~ '^it waits for delivered until ' as explained from twilio.explain_fallback(:m3);
select twilio_internal.next_timed_out() between 590 and 600 as is_close;

-- Nothing happens before its time, with sending off, or to somebody who does not want it.
select twilio_internal.plan_timed_out();
set twilio_callback.clock_offset = '601 s';
select twilio.disable_sending();
select twilio_internal.plan_timed_out(), twilio_internal.next_timed_out();
select twilio.enable_sending();
select twilio_internal.next_timed_out() < 0 as is_due;
select count(callback(6, 'failed', 63033, 'whatsapp:+12025550106')), twilio.block('+12025550107') is not null as blocked,
    count(callback(8, 'failed', (select min(e.error_code) from twilio.error_code e where e.class = 'request' and e.fallback = 'no'), 'whatsapp:+12025550108'));
select twilio_internal.plan_timed_out();
select step, channel, to_address, body, status from chain where root_id in (:m3, :m4, :m5, :m6, :m7, :m8, :m9, :m10, :m11, :m12);
select to_address, due_at - twilio.now() > interval '45 min' as is_later from twilio_internal.fallback_watch join twilio.message using (message_id);
select m.to_address, e.explanation
from (values (:m4), (:m6), (:m7), (:m8), (:m9)) i (id)
join twilio.message m on m.message_id = i.id
cross join lateral twilio.explain_fallback(i.id) e
order by 1;
-- What had not left does not leave beside its fallback; what has left is asked for first.
select to_address, body from twilio_internal.claim(100) order by 1;
create temp table asked as select * from twilio_internal.claim_original_fetch(10);
select message_sid from asked order by 1;
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', status => 'sent') from asked where message_sid not like '%12';
select to_address, body from twilio_internal.claim(100) order by 1;
select twilio_internal.plan_timed_out();
-- A failure that is reported later plans nothing further, a delivery stops what waits.
select twilio.add_fallback_rule('failed', from_channel => 'whatsapp', error_codes => '{63016}');
select sent(13, 'whatsapp:+12025550113', 'late') as m13, sent(14, 'whatsapp:+12025550114', 'later') as m14 \gset
set twilio_callback.clock_offset = '1202 s';
select twilio_internal.plan_timed_out();
select count(callback(13, 'failed', 63016, 'whatsapp:+12025550113')), count(callback(14, 'delivered', null, 'whatsapp:+12025550114'));
select answer('sent') > 0 as answered;
select to_address from twilio_internal.claim(100) where to_address in ('+12025550113', '+12025550114');
select step, channel, to_address, status from chain where root_id in (:m13, :m14);

-- Delivered is not read, sent is enough for some; the next rule comes in its time.
select twilio.disable_fallback('slow'), twilio.disable_fallback('failed');
select twilio.add_fallback_rule('unread', from_channel => 'whatsapp', no_success_within => '20 min', success_status => 'read');
select twilio.add_fallback_rule('unsent', from_channel => 'whatsapp', no_success_within => '1 min', success_status => 'sent', to_provider => 'smsgate');
select sent(15, 'whatsapp:+12025550115', 'unsent') as m15, sent(16, 'whatsapp:+12025550116', 'unread') as m16, sent(17, 'whatsapp:+12025550117', 'read') as m17 \gset
select count(callback(16, 'delivered', null, 'whatsapp:+12025550116')), count(callback(17, 'read', null, 'whatsapp:+12025550117'));
set twilio_callback.clock_offset = '1270 s';
select twilio_internal.plan_timed_out();
select step, provider, to_address, status from chain where root_id in (:m15, :m16, :m17);
-- At its phone it is taken back as soon as the original arrives.
select answer('queued') > 0 as answered;
create temp table job as select * from twilio_internal.claim_smsgate(10);
select to_address, task from job;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending', 'phone-1') from job;
select count(callback(15, 'delivered', null, 'whatsapp:+12025550115'));
select count(*) from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '1276 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select task from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '2500 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, channel, to_address, status from chain where root_id in (:m16, :m17);

-- Delivered is not what a rule waits for that wants it read: its fallback stays at the phone until then.
select twilio.disable_fallback('unread'), twilio.disable_fallback('unsent');
select twilio.add_fallback_rule('unread_phone', from_channel => 'whatsapp', no_success_within => '20 min', success_status => 'read', to_provider => 'smsgate');
select sent(18, 'whatsapp:+12025550118', 'not read') as m18 \gset
select count(callback(18, 'delivered', null, 'whatsapp:+12025550118'));
set twilio_callback.clock_offset = '3701 s';
select twilio_internal.plan_timed_out() > 0 as looked, answer('delivered') > 0 as answered;
drop table job;
create temp table job as select * from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending', 'phone-1') from job where to_address = '+12025550118';
set twilio_callback.clock_offset = '3740 s';
select twilio_internal.plan_timed_out() > 0 as looked;
drop table job;
create temp table job as select * from twilio_internal.claim_smsgate(10);
select to_address, task from job where to_address = '+12025550118';
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'found', 'pending', 'phone-1') from job where to_address = '+12025550118';
select count(callback(18, 'read', null, 'whatsapp:+12025550118'));
set twilio_callback.clock_offset = '3750 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select to_address, task from twilio_internal.claim_smsgate(10) where to_address = '+12025550118';
select twilio.disable_fallback('unread_phone');

-- What Twilio keeps until its time is waited for from then on, what is delayed from when it may leave.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min', delay => '30 min');
select twilio.add_fallback_rule('slower', from_channel => 'sms', no_success_within => '10 min', to_provider => 'smsgate');
select callback(19, 'scheduled', null, 'whatsapp:+12025550119') as m19, sent(20, 'whatsapp:+12025550120', 'delayed') as m20 \gset
set twilio_callback.clock_offset = '4350 s';
select twilio_internal.plan_timed_out() > 0 as looked, answer('sent') as answered;
select explanation from twilio.explain_fallback(:m19) where outcome = 'slow' or explanation like '%Twilio%';
select count(callback(19, 'sent', null, 'whatsapp:+12025550119'));
set twilio_callback.clock_offset = '4900 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select twilio_internal.plan_timed_out();
select step, provider, channel, status from chain where root_id in (:m19, :m20);
set twilio_callback.clock_offset = '4960 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, channel, status from chain where root_id in (:m19, :m20);
set twilio_callback.clock_offset = '6800 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, channel, status from chain where root_id = :m20;
select twilio.disable_fallback('slow'), twilio.disable_fallback('slower');

-- What may have left is not sent again beside its fallback, although that would be allowed.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min');
set twilio_callback.delivery = 'at_least_once';
select twilio.send_message('whatsapp:+12025550121', 'unknown') as m21 \gset
reset twilio_callback.delivery;
select twilio_internal.finish(array[message_id], array[lease_token], array['unknown'], array[null], array['unknown'], array[null::int],
    array[null::int], array['timeout'], array[null], array[700000]) from twilio_internal.claim(100) where message_id = :m21;
set twilio_callback.clock_offset = '7401 s';
select twilio_internal.plan_timed_out() > 0 as looked;
set twilio_callback.clock_offset = '7501 s';
select twilio_internal.finish(array[message_id], array[lease_token], array['absent'], array[null], array[null], array[null::int],
    array[null::int], array['not in the list'], array[null], array[null::bigint]) from twilio_internal.claim(100) where message_id = :m21;
select step, channel, status from chain where root_id = :m21;
select count(*) from twilio_internal.outbox o join twilio.message m using (message_id) where m.root_id = :m21 and m.step = 0;

-- Where callbacks are missing, Twilio's answer counts: what arrived is not sent another way.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min');
select callback(22, 'sent', null, 'whatsapp:+12025550122') as m22, callback(23, 'sent', null, 'whatsapp:+12025550123') as m23 \gset
select sent(24, 'whatsapp:+12025550124', 'ours') as m24, sent(25, 'whatsapp:+12025550125', 'asked for in vain') as m25 \gset
set twilio_callback.clock_offset = '8201 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'a text', 0, twilio.now(),
    status => case when message_sid like '%22' then 'delivered' else 'sent' end)
from (select p.* from twilio_internal.claim_original_fetch(100) p order by p.message_sid offset 0) p
where right(message_sid, 2) in ('22', '23');
select step, channel, body, status from chain where root_id in (:m22, :m23);
select e.status, e.source, e.params ->> 'ErrorMessage' as said
from twilio.message_event e join twilio.message m using (message_id) where m.root_id = :m22 order by e.event_id;
-- Of ours, too; but a Twilio that does not answer holds up no other way for long.
set twilio_callback.clock_offset = '8301 s';
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token, case when message_sid like '%24' then 'found' else 'failed' end,
    status => case when message_sid like '%24' then 'delivered' end, reason => 'HTTP status 503', retry_after_ms => 1000)
from (select p.* from twilio_internal.claim_original_fetch(100) p order by p.message_sid offset 0) p
where right(message_sid, 2) in ('24', '25');
select step, channel, body, status from chain where root_id in (:m24, :m25);
set twilio_callback.clock_offset = '8303 s';
select answer(null, 'failed', 1000);
select step, channel, body, status from chain where root_id = :m25;
select body from twilio_internal.claim(100) where body = 'asked for in vain';

-- Twilio's word and late callbacks end it as well: withdrawn, or failed in a way that leaves no other; what Twilio keeps, it waits for.
select min(e.error_code) as pointless from twilio.error_code e where e.class = 'request' and e.fallback = 'no' \gset
select callback(26, 'sent', null, 'whatsapp:+12025550126') as m26, callback(27, 'sent', null, 'whatsapp:+12025550127') as m27,
    callback(28, 'accepted', null, 'whatsapp:+12025550128') as m28, callback(29, 'sent', null, 'whatsapp:+12025550129') as m29,
    sent(30, 'whatsapp:+12025550130', 'canceled late') as m30, sent(31, 'whatsapp:+12025550131', 'failed late') as m31 \gset
set twilio_callback.clock_offset = '8910 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'a text', 0, twilio.now(),
    status => case right(message_sid, 2) when '26' then 'canceled' when '27' then 'failed' when '28' then 'scheduled' else 'sent' end,
    error_code => case right(message_sid, 2) when '27' then :pointless end)
from (select p.* from twilio_internal.claim_original_fetch(100) p order by p.message_sid offset 0) p;
select count(callback(30, 'canceled', null, 'whatsapp:+12025550130')),
    count(callback(31, 'failed', :pointless, 'whatsapp:+12025550131'));
select to_address from twilio_internal.claim(100) order by 1;
create view fate as
select m.root_id, m.step, m.try, m.provider, m.status, f.is_preparing, nullif(f.due_at, 'infinity') - twilio.now() as due_in, f.problem,
    regexp_replace((select e.params ->> 'ErrorMessage' from twilio.message_event e
        where e.message_id = m.message_id and e.status = m.status limit 1), '[0-9]+', 'N', 'g') as said
from twilio.message m left join twilio_internal.fallback f using (message_id) order by m.root_id, m.step, m.try;
select step, status, is_preparing, said from fate where root_id in (:m26, :m27, :m28, :m29, :m30, :m31);
select step, due_in > interval '50 s' as is_put_off, problem from fate where root_id = :m28 and step = 1;
-- It is asked for again, and its time counts from when Twilio sent it.
set twilio_callback.clock_offset = '8971 s';
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'a text', 0, twilio.now(), status => 'sent')
from twilio_internal.claim_original_fetch(100);
select step, status, is_preparing, due_in > interval '9 min' as is_put_off from fate where root_id = :m28;
set twilio_callback.clock_offset = '9572 s';
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'a text', 0, twilio.now(), status => 'sent')
from twilio_internal.claim_original_fetch(100);
select to_address, body from twilio_internal.claim(100);

-- However long Twilio would rather not be asked, a fallback of ours is not late for it.
select sent(32, 'whatsapp:+12025550132', 'ours') as m32 \gset
set twilio_callback.clock_offset = '10173 s';
select twilio_internal.plan_timed_out() > 0 as looked, answer(null, 'failed', 86400000);
select step, status, is_preparing, due_in <= interval '1 min' as is_soon from fate where root_id = :m32 and step = 1;
set twilio_callback.clock_offset = '10234 s';
select answer(null, 'failed', 86400000);
set twilio_callback.clock_offset = '10295 s';
select answer(null, 'failed', 86400000);
select to_address, body from twilio_internal.claim(100);

-- The next rule's time counts for a fallback only once that is prepared; what Twilio says about it is nothing about the root.
select twilio.add_fallback_rule('slower', from_channel => 'sms', no_success_within => '10 min', to_provider => 'smsgate');
select callback(33, 'sent', null, 'whatsapp:+12025550133') as m33 \gset
set twilio_callback.clock_offset = '10896 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select message_id as m33_1 from twilio.message where root_id = :m33 and step = 1 \gset
set twilio_callback.clock_offset = '11600 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select explanation from twilio.explain_fallback(:m33_1) where rule = 'slower';
select count(twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'of others', 0, twilio.now() - interval '2 hours', status => 'sent'))
from twilio_internal.claim_original_fetch(100);
select count(twilio_internal.finish(array[message_id], array[lease_token], array['accepted'], array['SM' || lpad('34', 32, '0')], array['queued'],
    array[201], array[null::int], array[null::text], array[null::text], array[null::bigint]))
from twilio_internal.claim(100) where message_id = :m33_1;
select step, provider, status, is_preparing from fate where root_id = :m33;
set twilio_callback.clock_offset = '11670 s';
select twilio_internal.plan_timed_out() > 0 as looked;
set twilio_callback.clock_offset = '12270 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select expires_at as m33_2_expires_at from twilio.message where root_id = :m33 and step = 2 \gset
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token, 'missing') from twilio_internal.claim_original_fetch(100);
select provider, body, status, expires_at = :'m33_2_expires_at' as is_as_before from twilio.message where root_id = :m33 and step = 2;
select twilio.disable_fallback('slower');

-- What Twilio keeps for longer than any fallback may follow is not looked at for ever.
select callback(35, 'scheduled', null, 'whatsapp:+12025550135') as m35 \gset
set twilio_callback.clock_offset = '12871 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select count(*) from twilio_internal.fallback_watch where message_id = :m35;
set twilio_callback.clock_offset = '32000 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select count(*) from twilio_internal.fallback_watch where message_id = :m35;

-- A fallback that ended without reaching anybody is no reason to forget what may never have left.
set twilio_callback.delivery = 'at_least_once';
select twilio.send_message('whatsapp:+12025550136', 'never lost') as m36 \gset
reset twilio_callback.delivery;
select twilio_internal.finish(array[message_id], array[lease_token], array['unknown'], array[null], array['unknown'], array[null::int],
    array[null::int], array['timeout'], array[null], array[700000]) from twilio_internal.claim(100) where message_id = :m36;
set twilio_callback.clock_offset = '32601 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select twilio.cancel_message(message_id) from twilio.message where root_id = :m36 and step = 1;
set twilio_callback.clock_offset = '32701 s';
select twilio_internal.finish(array[message_id], array[lease_token], array['absent'], array[null], array[null], array[null::int],
    array[null::int], array['not in the list'], array[null], array[null::bigint]) from twilio_internal.claim(100) where message_id = :m36;
select step, try, status from fate where root_id = :m36;

-- The next try of a fallback is as little wanted as the first once the original came as far as its rule asks for.
select twilio.add_fallback_rule('unsent', from_channel => 'whatsapp', no_success_within => '1 min', success_status => 'sent');
set twilio_callback.delivery = 'at_least_once';
select sent(37, 'whatsapp:+12025550137', 'sent in the end') as m37 \gset
set twilio_callback.clock_offset = '32770 s';
select twilio_internal.plan_timed_out() > 0 as looked, answer('queued') as answered;
\i shared/lose.sql
select lose(:m37);
select lose(:m37);
drop function lose;
reset twilio_callback.delivery;
select count(callback(37, 'sent', null, 'whatsapp:+12025550137'));
select to_address, body from twilio_internal.claim(100) where to_address = '+12025550137';
select step, try, status, said from fate where root_id = :m37;

-- What a phone may have is neither given up nor sent anew beside its fallback: it is asked for, and no more.
select twilio.disable_fallback('slow'), twilio.disable_fallback('unsent');
select twilio.add_fallback_rule('slow_phone', from_provider => 'smsgate', no_success_within => '10 min', from_address => '+12025550100');
select twilio.send_message('+12025550138', 'by phone', from_address => 'user/phone-1') as m38,
    twilio.send_message('+12025550139', 'by phone', from_address => 'user/phone-1') as m39 \gset
select count(twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'timeout', retry_after_ms => 700000)) from twilio_internal.claim_smsgate(10)
where message_id in (:m38, :m39);
set twilio_callback.clock_offset = '33372 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select step, provider, status, said from fate where root_id in (:m38, :m39);
select to_address, body from twilio_internal.claim(100) order by 1;
set twilio_callback.clock_offset = '33480 s';
select task, twilio_internal.finish_smsgate(message_id, lease_token, task, case message_id when :m38 then 'missing' else 'accepted' end, 'pending')
from twilio_internal.claim_smsgate(10) where message_id in (:m38, :m39) order by message_id;
set twilio_callback.clock_offset = '33880 s';
select task, twilio_internal.finish_smsgate(message_id, lease_token, task, 'missing') from twilio_internal.claim_smsgate(10) where message_id = :m38;
select step, provider, status, said from fate where root_id in (:m38, :m39);
select count(*) from twilio_internal.outbox where message_id in (:m38, :m39);
select twilio.disable_fallback('slow_phone');

-- What somebody's trigger says about a message is not repeated.
begin;
create function refuse()
returns trigger
language plpgsql
as $$
begin
    raise exception 'about %', new.body;
end
$$;
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min');
select sent(40, 'whatsapp:+12025550140', 'private') as m40 \gset
create trigger refuse before insert on twilio.message for each row when (new.step > 0) execute function refuse();
set local twilio_callback.clock_offset = '34490 s';
select twilio_internal.plan_timed_out() > 0 as looked;
rollback;

-- Rules that could never be followed.
select twilio.add_fallback_rule('x', no_success_within => '5 hours');
select twilio.add_fallback_rule('x', no_success_within => '5 hours', expires_after => '1 hour');
select twilio.add_fallback_rule('x', no_success_within => '1 ms');
reset twilio_callback.clock_offset;

drop view chain, fate;
drop function callback, sent, answer;
drop extension twilio_callback;
