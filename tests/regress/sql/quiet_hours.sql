-- Local hours: nothing is sent to a recipient at whom it is quiet. No worker runs here; the clock is set.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
set datestyle = iso;
set timezone = 'UTC';
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100'), twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset

\i shared/callback.sql
\i shared/sent.sql
\set ECHO none
-- Sets the clock, half a minute later so that its drift does not matter.
create function clock(at timestamptz) returns void language sql return
    set_config('twilio_callback.clock_offset', (extract(epoch from at - now())::int + 30)::text, false)::text::void;
create view queue as
select m.body, m.status, date_trunc('minute', o.due_at) as due_at, date_trunc('minute', o.expires_at) as expires_at, o.quiet_until is not null as is_held
from twilio.message m left join twilio_internal.outbox o using (message_id) order by m.message_id;
create function take() returns table (body text, until timestamptz) language sql begin atomic
    select c.body, date_trunc('minute', twilio.now() + c.validity_s * interval '1 s' + interval '2 s') from twilio_internal.claim(100) c order by 1;
end;
create function take_by_phone() returns table (body text, until timestamptz) language sql begin atomic
    select c.body, date_trunc('minute', twilio.now() + c.ttl_s * interval '1 s' + interval '2 s') from twilio_internal.claim_smsgate(100) c order by 1;
end;
create function hours(not_before time, not_after time, variadic zones text[]) returns twilio_internal.local_hours[] language sql
return twilio_internal.hours_in(not_before, not_after, zones);
\set ECHO all

-- When it ends, and when it begins again: by day, around midnight, with one end only, in several zones.
select h.name, m.at, twilio_internal.quiet_end(h.hours, m.at) as sendable, twilio_internal.quiet_start(h.hours, twilio_internal.quiet_end(h.hours, m.at)) as until
from (values
    (1, 'day', hours('08:00', '21:00', 'America/Denver')),
    (2, 'night', hours('21:00', '02:00', 'America/Denver')),
    (3, 'from 9', hours('09:00', null, 'America/Denver')),
    (4, 'until 9', hours(null, '09:00', 'America/Denver')),
    (5, 'two zones', hours('08:00', '21:00', 'America/Chicago', 'America/New_York')),
    (6, 'far zones', hours('08:00', '21:00', 'Pacific/Honolulu', 'Europe/Paris'))
) h (n, name, hours)
cross join (values (timestamptz '2027-01-15 15:00'), ('2027-01-15 14:59:59'), ('2027-01-16 03:59:59'), ('2027-01-16 04:00'), ('2027-01-16 02:30')) m (at)
order by h.n, m.at;
-- Never: no moment in common, and a zone that is not known.
select twilio_internal.quiet_end(hours('08:00', '12:00', 'Europe/Paris', 'America/Denver'), '2027-01-15 15:00'),
    twilio_internal.quiet_end(hours('08:00', '12:00', 'Mars/Olympus'), '2027-01-15 15:00'),
    twilio_internal.quiet_end(twilio_internal.hours_in('08:00', '12:00', null), '2027-01-15 15:00');
-- The night is an hour shorter or longer where the clock is changed, and hours may begin in an hour that is skipped or comes twice.
select h.name, m.at, twilio_internal.quiet_end(h.hours, m.at) as sendable, twilio_internal.quiet_end(h.hours, m.at) - m.at as wait
from (values
    (1, 'New York from 8', hours('08:00', '21:00', 'America/New_York'), timestamptz '2027-03-14 02:00'),
    (2, 'New York from 8', hours('08:00', '21:00', 'America/New_York'), '2027-11-07 01:00'),
    (3, 'Phoenix from 8', hours('08:00', '21:00', 'America/Phoenix'), '2027-03-14 04:00'),
    (4, 'Berlin from 2:30, which is skipped', hours('02:30', '21:00', 'Europe/Berlin'), '2027-03-27 23:00'),
    (5, 'Berlin from 2:30, which comes twice', hours('02:30', '21:00', 'Europe/Berlin'), '2027-10-30 22:00'),
    (6, 'Berlin from 2:30, between both', hours('02:30', '21:00', 'Europe/Berlin'), '2027-10-31 01:10')
) h (n, name, hours, at), lateral (values (h.at)) m (at)
order by h.n;
-- Each minute tried by itself gives the same.
create table trial as
select h.hours, t.at, twilio_internal.quiet_end(array[h.hours], t.at) as quiet_end, twilio_internal.next_change(h.hours, t.at) as next_change,
    twilio_internal.is_quiet(h.hours, t.at) as is_quiet
from (values ('00:00'::time), ('01:30'), ('02:30'), ('08:00'), ('23:15')) a (t)
cross join (values ('24:00'::time), ('01:00'), ('02:45'), ('21:00')) b (t)
cross join (values ('America/New_York'), ('Europe/Berlin'), ('Australia/Lord_Howe'), ('Asia/Kolkata'), ('America/Phoenix')) z (zone)
cross join lateral (select row(a.t, b.t, z.zone)::twilio_internal.local_hours) h (hours)
cross join (values (timestamptz '2027-03-13 23:10'), ('2027-03-14 05:20'), ('2027-10-31 00:40'), ('2027-11-07 05:50'), ('2027-04-03 14:20'), ('2027-10-02 14:40')) t (at)
where a.t <> b.t and a.t < '24:00';
select count(*) > 500 as are_many,
    count(*) filter (where c.at is distinct from t.next_change) as other_changes,
    count(*) filter (where t.quiet_end is distinct from case when t.is_quiet then c.at else t.at end) as other_ends
from trial t
cross join lateral (
    select min(t.at + n * interval '5 min') as at
    from generate_series(1, 500) n
    where twilio_internal.is_quiet(t.hours, t.at + n * interval '5 min') <> t.is_quiet
) c
where not ((t.hours).not_before = '00:00' and (t.hours).not_after = '24:00');
drop table trial;

-- Zones of numbers: the longest prefix, on every channel, and users' own.
select a.address, left(twilio_internal.zones_of(a.address)::text, 60) as zones
from unnest(array['+13035550123', 'whatsapp:+4915112345678', '+18505550123', '+19995550123', '+7', '+8701234567', '12345', 'messenger:123', null]) a (address);
insert into twilio.number_zone values ('+1303555', '{America/Phoenix}'), ('+49', '{Europe/Berlin,Europe/Busingen}'), ('+870', '{UTC}');
select a.address, twilio_internal.zones_of(a.address) as zones
from unnest(array['+13035550123', '+13035660123', '+4915112345678', '+8701234567']) a (address);
insert into twilio.number_zone values ('+1', '{PST}');
insert into twilio.number_zone values ('1303', '{UTC}');
insert into twilio.number_zone values ('+1', '{}');
update twilio.number_zone set zones = '{america/denver}' where prefix = '+870';
truncate twilio.number_zone;
-- Each shipped zone exists.
select count(distinct z) > 200 as are_many, count(*) filter (where not exists (select from pg_timezone_names n where n.name = z)) as unknown
from generate_series(1, 1999) p cross join lateral twilio_internal.default_number_zone('+' || p) d cross join unnest(d.zones) z;

-- Arguments.
select twilio.send_message('+13035550101', 'x', not_before => '08:00', not_after => '08:00');
select twilio.send_message('+13035550101', 'x', not_before => '08:00', time_zone => 'PST');
select twilio.send_message('+13035550101', 'x', not_before => '08:00', purpose => 'OTP');
select twilio.send_message('+8701234567', 'x', not_before => '08:00');
select twilio.send_message('+79161234567', 'x', not_before => '09:00', not_after => '10:00');

-- At night in Denver, which is 05:00 UTC: nothing leaves by Twilio or by phone, except a one-time password, and what is in another zone.
select clock('2027-01-15 05:00') \gset
select twilio.send_message('+13035550101', 'day', not_before => '08:00', not_after => '21:00') as day \gset
select twilio.send_message('+13035550102', 'phone', 'user/phone-1', not_before => '08:00', not_after => '21:00') \gset
select twilio.send_message('+13035550103', 'otp', not_before => '08:00', not_after => '21:00', purpose => 'otp') \gset
select twilio.send_message('+13035550104', 'Tokyo', not_before => '08:00', not_after => '21:00', time_zone => 'Asia/Tokyo') \gset
select twilio.send_message('+13035550105', 'at ten', not_before => '08:00', not_after => '21:00', send_at => '2027-01-15 17:00') \gset
select twilio.send_message('+13035550106', 'in time', not_before => '08:00', not_after => '21:00', expires_after => '12 h') \gset
select twilio.send_message('+13035550107', 'too late', not_before => '08:00', not_after => '21:00', expires_after => '9 h');
select * from queue;
select * from take();
select * from take_by_phone();
select depth, due, quiet from twilio.queue_status;
select outcome, explanation from twilio.explain_fallback(:day) limit 1;
select clock('2027-01-15 14:59') \gset
select * from take();
select clock('2027-01-15 15:00') \gset
select quiet from twilio.queue_status;
select * from take();
select * from take_by_phone();

-- It may have waited for something else: the hours are looked at again when it is claimed.
select clock('2027-01-16 03:00') \gset
select twilio.send_message('+13035550108', 'waited', not_before => '08:00', not_after => '21:00', expires_after => '20 h'), twilio.send_message('+13035550109', 'waited too long', not_before => '08:00', not_after => '21:00') \gset
select clock('2027-01-16 04:05') \gset
select * from take();
select * from queue where body like 'waited%';
select status, params ->> 'ErrorMessage' as reason from twilio.message_timeline where status = 'expired' order by event_id desc limit 1;
select clock('2027-01-16 15:00') \gset
select * from take();
-- A user's zone counts at that time too.
select clock('2027-01-17 03:00') \gset
select twilio.send_message('+13035550110', 'moved', not_before => '08:00', not_after => '21:00', expires_after => '20 h') \gset
insert into twilio.number_zone values ('+13035550110', '{America/New_York}');
select * from take();
select due_at from queue where body = 'moved';
delete from twilio.number_zone;

-- By hand it is queued for the day too, and lives long enough.
select clock('2027-01-18 03:00') \gset
select sent(3, '+13035550111', 'by hand') as m0 \gset
update twilio.message set status = 'failed' where message_id = :m0;
insert into twilio_internal.message_hours values (:m0, '08:00', '21:00');
select clock('2027-01-18 05:00') \gset
select twilio.retry_message(:m0) \gset
select * from take();
select due_at, expires_at, is_held from queue where body = 'by hand' and status = 'waiting';

-- Rules: their hours and those of the chain.
truncate twilio_internal.outbox;
select twilio.enable_whatsapp_to_sms(not_before => '08:00', not_after => '20:00', expires_after => '1 day') \gset
select clock('2027-01-20 04:00') \gset
select twilio.send_message('whatsapp:+13035550120', 'by rule', expires_after => '1 day') as m1, twilio.send_message('whatsapp:+13035550121', 'password', expires_after => '1 day', purpose => 'otp') as m2,
    twilio.send_message('whatsapp:+13035550122', 'short') as m3, twilio.send_message('whatsapp:+13035550123', 'zone', expires_after => '1 day', time_zone => 'Asia/Tokyo') as m4 \gset
select * from take();
select count(twilio.simulate_callback(m, 'undelivered', 63016)) from unnest(array[:m1, :m2, :m3, :m4]) m;
select * from take();
select m.body, e.outcome, regexp_replace(e.explanation, 'message \d+|\d+:\d+:\d+[.]\S*', '(…)', 'g') as explanation
from twilio.message m cross join lateral twilio.explain_fallback(m.message_id) e where m.message_id in (:m1, :m2, :m3, :m4) order by m.message_id;
select clock('2027-01-20 15:00') \gset
select * from take();
-- A rule without hours keeps to those of the message.
select twilio.enable_whatsapp_to_sms(expires_after => '1 day') \gset
select clock('2027-01-21 03:50') \gset
select twilio.send_message('whatsapp:+13035550124', 'by chain', not_before => '08:00', not_after => '21:00', expires_after => '1 day') as m5,
    twilio.send_message('whatsapp:+13035550125', 'by night', not_before => '08:00', not_after => '21:00') as m6 \gset
select * from take();
select clock('2027-01-21 04:00') \gset
select count(twilio.simulate_callback(m, 'undelivered', 63016)) from unnest(array[:m5, :m6]) m;
select * from take();
select outcome, regexp_replace(explanation, '\d+:\d+:\d+\S*|message \d+', '(…)', 'g') as explanation
from (values (:m5), (:m6)) m (id) cross join lateral twilio.explain_fallback(m.id) order by 1;
-- A timed rule counts from when the hours begin.
truncate twilio_internal.outbox;
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '1 hour', priority => 1) \gset
select twilio.send_message('whatsapp:+13035550126', 'slow', not_before => '08:00', not_after => '21:00') as m7 \gset
select clock('2027-01-21 15:30') \gset
select twilio_internal.plan_timed_out() as looked_at;
select clock('2027-01-21 16:01') \gset
select twilio_internal.plan_timed_out() as looked_at;
select step, channel, body, status from twilio.message where root_id = :m7 order by step;
select twilio.disable_fallback('slow') \gset
-- Hours of a rule are checked like a message's.
select twilio.enable_whatsapp_to_sms(not_after => '00:00');

-- Twilio's own quiet hours: no phone sends it instead, whatever a rule says, and it is tried again by day if it lives that long.
truncate twilio_internal.outbox;
select error_code, class, retry, retry_after_s, fallback, meaning from twilio.error_code where error_code in (30047, 30610);
select clock('2027-01-22 05:00') \gset
select twilio.enable_sms_to_smsgate(error_codes => '{30610,30047,30003}') \gset
select sent(1, '+13035550130', 'brief') as m8 \gset
select twilio.send_message('+13035550131', 'lasting', expires_after => '1 day') as m9 \gset
select * from take();
select count(twilio.simulate_callback(m, 'failed', 30610)) from unnest(array[:m8, :m9]) m;
select m.body, e.rule, e.outcome, regexp_replace(e.explanation, 'message \d+|\d+:\d+:00[+]00|\d+:\d+:\d+[.]\S*', '(…)', 'g') as explanation
from twilio.message m cross join lateral twilio.explain_fallback(m.message_id) e where m.message_id in (:m8, :m9) order by m.message_id, e.rule;
select m.body, m.step, m.try, m.status, date_trunc('hour', o.due_at) as due_at
from twilio.message m left join twilio_internal.outbox o using (message_id) where m.root_id in (:m8, :m9) and m.message_id not in (:m8, :m9) order by m.message_id;
-- A request that Twilio refuses for this reason is repeated, and a rule that expires it does not send it by phone.
select twilio.add_fallback_rule('in_time', from_channel => 'sms', no_success_within => '10 min', to_provider => 'smsgate') \gset
select twilio.send_message('+13035550133', 'refused') as m11 \gset
select count(twilio_internal.finish(array[c.message_id], array[c.lease_token], array['not_processed'], array[null::text], array[null::text], array[400],
    array[30610], array['quiet'], array[null::text], array[3600000::bigint])) from twilio_internal.claim(100) c where c.message_id = :m11;
select clock('2027-01-22 05:11') \gset
select twilio_internal.plan_timed_out() >= 1 as looked_at;
select step, status from twilio.message where root_id = :m11;
select outcome, explanation from twilio.explain_fallback(:m11) where rule = 'in_time';
select twilio.disable_fallback('in_time') \gset
-- Nor does a phone replace a later step of the chain.
select twilio.add_fallback_rule('by_whatsapp', from_channel => 'sms', error_codes => '{30610}', to_channel => 'whatsapp', priority => 1), twilio.add_fallback_rule('phone', from_channel => 'whatsapp', to_provider => 'smsgate') \gset
select sent(2, '+13035550132', 'by two ways') as m10 \gset
select callback(2, 'failed', 30610, '+13035550132', '+12025550100') = :m10 as is_it;
select count(twilio.simulate_callback(message_id, 'undelivered', 63016)) from twilio.message where root_id = :m10 and step = 1;
select step, provider, channel, status from twilio.message where root_id = :m10 order by step;
select e.outcome, e.explanation from twilio.message m cross join lateral twilio.explain_fallback(m.message_id) e where m.root_id = :m10 and m.step = 1 and e.rule = 'phone';

reset twilio_callback.clock_offset;
drop view queue;
drop function hours, clock, take, take_by_phone, sent, callback, response, deliver, post;
drop extension twilio_callback;
