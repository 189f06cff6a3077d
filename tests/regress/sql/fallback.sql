-- Fallback: what rules lead to, and what they never lead to. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
-- The worker repeats a failed step from a random message on.
select setseed(0) \gset
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset

\i shared/callback.sql
\i shared/sent.sql
create view chain as
select m.root_id, m.step, m.message_id, m.provider, m.channel, m.from_address, m.to_address, m.body, m.status, m.is_simulated as simulated
from twilio.message m order by m.root_id, m.step;

-- Nothing is planned before a rule is enabled.
select sent(1, 'whatsapp:+12025550123', 'Your table is ready') as m1 \gset
select callback(1, 'undelivered', 63049) = :m1 as is_it;
select outcome, explanation from twilio.explain_fallback(:m1);
select count(*) from twilio_internal.fallback;

-- The presets.
select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate();
select name, priority, from_provider, from_channel, statuses, error_codes, error_classes, to_provider, to_channel from twilio.fallback_rule order by 1;
select rule, outcome, explanation from twilio.explain_fallback(:m1);

-- The failure of one message, reported in five ways, has one fallback.
select sent(2, 'whatsapp:+12025550123', 'Your table is ready 🍽') as m2 \gset
select count(callback(2, s.status, s.code)) from (values ('sent', null), ('undelivered', 63049), ('failed', null), ('failed', 63049), ('undelivered', 63049)) s (status, code);
select * from chain where root_id = :m2;
select rule, outcome, explanation from twilio.explain_fallback(:m2);
select fallback_message_id > message_id as has_fallback from twilio.message_status where message_id = :m2;
select message_id > :m2 as is_fallback, body, to_address, validity_s > 14000 as has_validity from twilio_internal.claim(10);

-- Each code of the preset does it, another one does not.
select count(sent(n + 100, 'whatsapp:+12025550123', 'x') = callback(n + 100, case when n % 2 = 0 then 'failed' else 'undelivered' end, c.code))
from (values (1, 63016), (2, 63003), (3, 63024), (4, 63032), (5, 63013), (6, null)) c (n, code);
select r.error_code, count(f.message_id)
from twilio.message r
left join twilio.message f on f.root_id = r.message_id and f.step = 1
where r.message_sid between 'SM00000000000000000000000000000101' and 'SM00000000000000000000000000000106'
group by 1 order by 1;

-- The code may come later than the failure.
select sent(3, 'whatsapp:+12025550123', 'late code') as m3 \gset
select count(callback(3, 'failed')), count(callback(3, 'undelivered', 63016));
select step, status from chain where root_id = :m3;

-- Delivered before or after: no fallback, or none that leaves.
select sent(4, 'whatsapp:+12025550123', 'delivered first') as m4 \gset
select count(callback(4, 'delivered')), count(callback(4, 'undelivered', 63049));
select outcome, explanation from twilio.explain_fallback(:m4);
select sent(5, 'whatsapp:+12025550124', 'delivered late') as m5 \gset
select count(callback(5, 'undelivered', 63049, 'whatsapp:+12025550124')), count(callback(5, 'delivered', null, 'whatsapp:+12025550124'));
select count(*) from twilio_internal.claim(100) c where c.to_address = '+12025550124';
select step, status from chain where root_id = :m5;
select root_id = :m5 as is_it, steps, reached_by, status, double_delivered from twilio.message_chain where root_id = :m5;

-- Consent: a failure with a code of this class has no fallback by any rule, whatever else is reported.
select twilio.add_fallback_rule('all', priority => 1, error_codes => array(select error_code from twilio.error_code), from_channel => 'whatsapp') \gset
select count(*) > 3 as are_some, bool_and(not exists (
        select from twilio.message f where f.root_id = m.id and f.step > 0
    )) as none_leaves
from (
    select c.error_code, sent(1000 + n::int, 'whatsapp:+1202555' || 2000 + n, 'x') as id,
        callback(1000 + n::int, 'failed', c.error_code, 'whatsapp:+1202555' || 2000 + n) as said
    from (select error_code, row_number() over (order by error_code) as n from twilio.error_code where class = 'consent') c
    offset 0
) m;
select sent(6, 'whatsapp:+12025550125', 'said later') as m6 \gset
select count(callback(6, 'undelivered', 63049, 'whatsapp:+12025550125')), count(callback(6, 'failed', 63033, 'whatsapp:+12025550125'));
select count(*) from twilio_internal.claim(100) c where c.to_address = '+12025550125';
select step, status from chain where root_id = :m6;
-- A rule that allows it explicitly still sends nothing to a suppressed recipient.
select twilio.add_fallback_rule('all', priority => 1, error_codes => array(select error_code from twilio.error_code), from_channel => 'whatsapp', allows_consent_failure => true) \gset
select sent(7, 'whatsapp:+12025550126', 'x') as m7 \gset
select count(callback(7, 'failed', 63033, 'whatsapp:+12025550126'));
select outcome, explanation from twilio.explain_fallback(:m7) where rule = 'all';
select twilio.disable_fallback('all'), twilio.disable_fallback('all') \gset
select twilio.disable_fallback('nothing');

-- Suppressed before it is planned, or before it is claimed.
select sent(8, 'whatsapp:+12025550127', 'x') as m8, sent(9, 'whatsapp:+12025550128', 'x') as m9 \gset
select twilio.block('+12025550127', 'by us') is not null as blocked;
select count(callback(8, 'failed', 63016, 'whatsapp:+12025550127')), count(callback(9, 'failed', 63016, 'whatsapp:+12025550128'));
select outcome, explanation from twilio.explain_fallback(:m8) where rule = 'whatsapp_to_sms';
select twilio.block('+12025550128', 'by us') is not null as blocked;
select count(*) from twilio_internal.claim(100) c where c.to_address = '+12025550128';
select outcome, explanation ~ '^message \d+ goes by sms to \+12025550128: suppressed: by us$' as explained from twilio.explain_fallback(:m9);

-- STOP to the original's sender holds for the fallback's sender too: before the failure, or after.
select twilio.add_sender('+12025550102'), twilio.enable_whatsapp_to_sms(from_address => '+12025550102') \gset
select sent(17, 'whatsapp:+12025550150', 'x') as m17a, sent(18, 'whatsapp:+12025550151', 'x') as m18a \gset
select twilio_internal.suppress('+12025550150', 'AC00000000000000000000000000000001', 'whatsapp:+12025550100', 'opt_out', 'STOP') is not null as said;
select count(callback(17, 'failed', 63016, 'whatsapp:+12025550150')), count(callback(18, 'failed', 63016, 'whatsapp:+12025550151'));
select outcome, explanation from twilio.explain_fallback(:m17a) where rule = 'whatsapp_to_sms';
select twilio_internal.suppress('+12025550151', 'AC00000000000000000000000000000001', 'whatsapp:+12025550100', 'opt_out', 'STOP') is not null as said;
select count(*) from twilio_internal.claim(1000) c where c.to_address in ('+12025550150', '+12025550151');
select step, from_address, status from chain where root_id in (:m17a, :m18a);
select twilio.enable_whatsapp_to_sms() \gset

-- A create that is refused at once is a failure as well.
select twilio.add_fallback_rule('refused', from_channel => 'whatsapp', error_codes => '{21211}', priority => 300) \gset
select twilio.send_message('whatsapp:+12025550129', 'refused') as m10 \gset
select twilio_internal.finish(array[:m10], array[(select c.lease_token from twilio_internal.claim(100) c where c.message_id = :m10)], array['refused'],
    array[null::text], array['refused'], array[400], array[21211], array['Invalid'], array[null::text], array[null::bigint]);
select step, channel, to_address, body, status from chain where root_id = :m10;

-- Templates, media, length.
select twilio.enable_whatsapp_to_sms(template => 'WhatsApp failed: {body}') \gset
select sent(11, 'whatsapp:+12025550130', 'a {body} b', array['https://example.com/1.png']) as m11, sent(12, 'whatsapp:+12025550130', repeat('x', 1600)) as m12 \gset
select count(callback(n, 'failed', 63016, 'whatsapp:+12025550130')) from generate_series(11, 12) n;
select step, body from chain where root_id = :m11;
select outcome, explanation from twilio.explain_fallback(:m12) where rule = 'whatsapp_to_sms';
select twilio.enable_whatsapp_to_sms(media => 'stop') \gset
select sent(13, 'whatsapp:+12025550130', 'with media', array['https://example.com/1.png']) as m13 \gset
select count(callback(13, 'failed', 63016, 'whatsapp:+12025550130'));
select outcome, explanation from twilio.explain_fallback(:m13) where rule = 'whatsapp_to_sms';
select twilio.enable_whatsapp_to_sms() \gset

-- Delay and expiry: the deadline is the original's, and a slow rule is too late.
select twilio.enable_whatsapp_to_sms(delay => '1 hour', expires_after => '2 hours') \gset
select sent(14, 'whatsapp:+12025550131', 'slow') as m14 \gset
select count(callback(14, 'failed', 63016, 'whatsapp:+12025550131'));
select count(*) from twilio_internal.claim(100) c where c.to_address = '+12025550131';
set twilio_callback.clock_offset = '90 min';
select count(*) from twilio_internal.claim(100) c where c.to_address = '+12025550131';
select sent(15, 'whatsapp:+12025550132', 'stale') as m15 \gset
set twilio_callback.clock_offset = '4 h';
select count(callback(15, 'failed', 63016, 'whatsapp:+12025550132'));
select outcome, explanation from twilio.explain_fallback(:m15) where rule = 'whatsapp_to_sms';
reset twilio_callback.clock_offset;
select twilio.enable_whatsapp_to_sms() \gset

-- Chains: the same way is not gone twice, and eight fallbacks are the end.
select twilio.add_sender('+12025550101'), twilio.add_fallback_rule('next_number', from_channel => 'sms', from_address => '+12025550101', priority => 400) \gset
select sent(16, 'whatsapp:+12025550133', 'chain') as m16 \gset
select count(callback(16, 'failed', 63016, 'whatsapp:+12025550133'));
select count(twilio.simulate_callback(message_id, 'undelivered', 30003)) from chain where root_id = :m16 and step = 1;
select count(twilio.simulate_callback(message_id, 'undelivered', 30003)) from chain where root_id = :m16 and step = 2;
select step, channel, from_address, status, simulated from chain where root_id = :m16;
select rule, outcome, explanation from twilio.explain_fallback((select max(message_id) from chain where root_id = :m16));
select root_id = :m16 as is_it, steps, reached_by, status from twilio.message_chain where root_id = :m16;
-- What is simulated leaves only for a provider on this machine.
select count(*) from twilio_internal.claim(1000) c where c.to_address = '+12025550133' and c.from_address = '+12025550101';
select twilio.send_message('whatsapp:+12025550134', 'rehearsal', is_simulated => true) as m17 \gset
select count(twilio.simulate_callback(:m17, 'undelivered', 63049));
update twilio.account set api_url = 'https://api.twilio.com';
select count(*) from twilio_internal.claim(1000) c where c.to_address = '+12025550134';
select step, status, simulated from chain where root_id = :m17;
update twilio.account set api_url = 'http://127.0.0.1:4010';
select twilio_internal.is_rehearsal_url(u) from unnest('{http://localhost,http://127.0.0.1:80/x,http://[::1]:80,http://127.0.0.1.example.com,https://localhost.example.com,https://api.twilio.com}'::text[]) u;

-- The next try of a fallback whose request was lost goes by the same rule, and a rehearsal stays one.
\i shared/lose.sql
set twilio_callback.delivery = 'at_least_once';
select twilio.send_message('whatsapp:+12025550136', 'rehearsal', is_simulated => true) as m18 \gset
select count(twilio.simulate_callback(:m18, 'undelivered', 63049));
select lose(:m18);
select lose(:m18);
reset twilio_callback.delivery;
update twilio.account set api_url = 'https://api.twilio.com';
select count(*) from twilio_internal.claim(1000) c where c.to_address = '+12025550136';
select m.step, m.try, m.is_simulated, m.status, r.name as rule from twilio.message m
left join twilio_internal.fallback f using (message_id) left join twilio.fallback_rule r using (rule_id)
where m.root_id = :m18 order by m.message_id;
update twilio.account set api_url = 'http://127.0.0.1:4010';
drop function lose;

-- Known only from a callback: nothing is sent before Twilio has reported date and text.
select callback(20, 'undelivered', 63049, 'whatsapp:+12025550140') as m20, callback(21, 'undelivered', 63049, 'whatsapp:+12025550141') as m21,
    callback(22, 'undelivered', 63049, 'whatsapp:+12025550142') as m22, callback(23, 'undelivered', 63049, 'whatsapp:+12025550143') as m23 \gset
select count(*) from twilio_internal.claim(1000) c where c.to_address like '+1202555014_';
-- One that turns out to be ours needs no answer.
select callback(24, 'undelivered', 63049, 'whatsapp:+12025550144') <> sent(24, 'whatsapp:+12025550144', 'ours') as had_its_own_row;
select explanation ~ 'waiting: the text is asked of Twilio$' as explained from twilio.explain_fallback(:m20);
-- A user's trigger that refuses one of them delays neither the others nor the start of a worker.
begin;
\i shared/refuse.sql
select f.message_id as refused from twilio_internal.fallback f join twilio.message m using (message_id) join twilio.message r on r.message_id = m.root_id
where r.message_sid like '%22' and m.step = 1 \gset
create trigger refuse before update on twilio_internal.fallback for each row when (old.message_id = :refused) execute function refuse();
savepoint before;
update twilio_internal.fallback set due_at = due_at + interval '1 ms' where message_id <> :refused and is_preparing;
select right(message_sid, 2) <> '22' as is_another from twilio_internal.claim_original_fetch(1);
rollback to before;
select right(message_sid, 2) as sid, tries from twilio_internal.claim_original_fetch(10) order by 1;
drop trigger refuse on twilio_internal.fallback;
select right(message_sid, 2) as sid, tries from twilio_internal.claim_original_fetch(10) order by 1;
create trigger refuse before update on twilio_internal.fallback for each row when (old.message_id = :refused) execute function refuse();
select twilio_internal.rescue_orphaned(true) > 0 as ok;
select right(message_sid, 2) as sid, tries from twilio_internal.claim_original_fetch(10) order by 1;
rollback;
create temp table job as select * from twilio_internal.claim_original_fetch(10);
select account_sid, api_url, message_sid, tries from job order by message_id;
select count(*) from twilio_internal.claim_original_fetch(10);
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'From elsewhere 🎉', 0, twilio.now() - interval '1 min') from job where message_sid like '%20';
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'years old', 0, twilio.now() - interval '1 year') from job where message_sid like '%21';
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', '', 2, twilio.now()) from job where message_sid like '%22';
select twilio_internal.finish_original_fetch(message_id, lease_token, 'failed', reason => 'connect: refused', retry_after_ms => 1000) from job where message_sid like '%23';
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'too late', 0, twilio.now()) from job where message_sid like '%23';
select r.message_id - :m20 as n, r.body as original, f.status, f.body, regexp_replace(f.error_message, '\d{4}-.*', '…') as error_message,
    (select e.params ->> 'ErrorMessage' ~ '^the original is from|has media' from twilio.message_event e where e.message_id = f.message_id) as said
from twilio.message r join twilio.message f on f.root_id = r.root_id and f.step = 1 where r.message_id between :m20 and :m23 + 3 and r.step = 0 order by 1;
select twilio_internal.finish_original_fetch(message_id, lease_token, 'missing') from job where message_sid like '%24';
select body from twilio_internal.claim(1000) c where c.to_address like '+1202555014_' order by message_id;
select message_sid, tries from twilio_internal.claim_original_fetch(10);
set twilio_callback.clock_offset = '90 s';
select twilio_internal.next_original_fetch() < 0 as is_due;
truncate job;
insert into job select * from twilio_internal.claim_original_fetch(10);
select message_sid, tries from job order by message_id;
select twilio_internal.finish_original_fetch(message_id, lease_token, 'missing') from job;
select outcome, explanation ~ 'refused: Twilio does not have the original any more' as explained from twilio.explain_fallback(:m23);
reset twilio_callback.clock_offset;

-- Views.
select address, channel, is_reachable, status, error_code, failures, successes from twilio.number_health where address in ('+12025550123', '+12025550124', '+12025550129') order by 1, 2;
select count(*) from twilio.replay() r where r.attribute <> 'error_message';

-- Rules are checked.
select twilio.add_fallback_rule('no sender', from_address => '+12025550199');
select twilio.add_fallback_rule('x', from_address => '+12025550199');
select twilio.add_fallback_rule('x', statuses => '{sent}');
select twilio.add_fallback_rule('x', error_classes => '{odd}');
select twilio.add_fallback_rule('x', to_provider => 'smsgate', to_channel => 'whatsapp');
select twilio.explain_fallback(0);

-- A chain whose first message is missing, as in an incomplete copy, is not followed after a delivery either.
insert into twilio.message (message_id, root_id, step, message_sid, account_sid, from_address, to_address, status, delivered_at)
overriding system value
values (900001, 900000, 1, 'SM' || md5('900001'), 'AC00000000000000000000000000000001', '+12025550100', '+12025550190', 'delivered', twilio.now()),
    (900002, 900000, 2, null, 'AC00000000000000000000000000000001', '+12025550100', '+12025550190', 'waiting', null);
select b.* from twilio.message m cross join lateral twilio_internal.fallback_send_blocker(m) b where m.message_id = 900002;

drop view chain;
drop function callback, response, deliver, post, sent;
drop extension twilio_callback;
