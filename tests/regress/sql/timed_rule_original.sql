-- Before a timed rule's fallback leaves, Twilio is asked about the original, and what it answers counts. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset
\i shared/callback.sql
\i shared/sent.sql
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

select twilio.enable_whatsapp_to_sms(), twilio.disable_fallback('whatsapp_to_sms') \gset
set twilio_callback.clock_offset = '7501 s';

-- Where callbacks are missing, Twilio's answer counts: what arrived is not sent another way.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min') \gset
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

-- Twilio's answer and late callbacks end the fallback as well: canceled, or failed for a reason that allows no fallback; scheduled messages are waited for.
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

-- However long Twilio asks to be left alone, a fallback of our own message is not delayed by it.
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
select twilio.add_fallback_rule('slower', from_channel => 'sms', no_success_within => '10 min', to_provider => 'smsgate') \gset
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
select twilio.disable_fallback('slower') \gset

-- What Twilio keeps for longer than any fallback may follow is not looked at for ever.
select callback(35, 'scheduled', null, 'whatsapp:+12025550135') as m35 \gset
set twilio_callback.clock_offset = '12871 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select count(*) from twilio_internal.fallback_watch where message_id = :m35;
set twilio_callback.clock_offset = '32000 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select count(*) from twilio_internal.fallback_watch where message_id = :m35;

-- A fallback that failed does not end the look-up of an original that may never have been sent.
set twilio_callback.delivery = 'at_least_once';
select twilio.send_message('whatsapp:+12025550136', 'never lost') as m36 \gset
reset twilio_callback.delivery;
select twilio_internal.finish(array[message_id], array[lease_token], array['unknown'], array[null], array['unknown'], array[null::int],
    array[null::int], array['timeout'], array[null], array[700000]) from twilio_internal.claim(100) where message_id = :m36;
set twilio_callback.clock_offset = '32601 s';
select twilio_internal.plan_timed_out() > 0 as looked;
select twilio.cancel_message(message_id) from twilio.message where root_id = :m36 and step = 1 \gset
set twilio_callback.clock_offset = '32701 s';
select twilio_internal.finish(array[message_id], array[lease_token], array['absent'], array[null], array[null], array[null::int],
    array[null::int], array['not in the list'], array[null], array[null::bigint]) from twilio_internal.claim(100) where message_id = :m36;
select step, try, status from fate where root_id = :m36;

-- The next try of a fallback is as little wanted as the first once the original came as far as its rule asks for.
select twilio.add_fallback_rule('unsent', from_channel => 'whatsapp', no_success_within => '1 min', success_status => 'sent') \gset
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
select twilio.disable_fallback('slow'), twilio.disable_fallback('unsent') \gset
select twilio.add_fallback_rule('slow_phone', from_provider => 'smsgate', no_success_within => '10 min', from_address => '+12025550100') \gset
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
select twilio.disable_fallback('slow_phone') \gset

-- The error text of a user's trigger about a message is not repeated.
begin;
create function refuse()
returns trigger
language plpgsql
as $$
begin
    raise exception 'about %', new.body;
end
$$;
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min') \gset
select sent(40, 'whatsapp:+12025550140', 'private') as m40 \gset
create trigger refuse before insert on twilio.message for each row when (new.step > 0) execute function refuse();
set local twilio_callback.clock_offset = '34490 s';
select twilio_internal.plan_timed_out() > 0 as looked;
rollback;

drop view chain, fate;
drop function callback, response, deliver, post, sent, answer;
drop extension twilio_callback;
