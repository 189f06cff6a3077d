-- A webhook of a phone counts if the phone's key signed it, and speaks for that phone alone. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;

-- Signatures: the vector of SMSGate's documentation, then what is wrong with others.
select twilio.add_smsgate_key('my-secret-key') \gset
create function at(moment bigint) returns text language sql as $$
    select set_config('twilio_callback.clock_offset', (moment - extract(epoch from clock_timestamp())::bigint)::text || ' s', false);
$$;
select at(1700000000) is not null as shifted;
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'F7B97C201986D06D2CA1994D0C9802A691AA2CE6B44E11181C54B5B2C849E0EA', '1700000000');
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hallo"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000001');
select http_status, reason from twilio.smsgate_callback('', '', '');
select http_status, reason from twilio.smsgate_callback(null, null, null);
select at(1700000300) is not null as shifted;
select http_status from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
select at(1700000310) is not null as shifted;
select http_status, regexp_replace(reason, '-\d+ seconds', '- seconds') as reason
from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
reset twilio_callback.clock_offset;
select twilio.retire_smsgate_key(null);
select http_status, reason from twilio.smsgate_callback('{}', repeat('0', 64), '1700000000');
select count(*) > 3 as are_kept from twilio.rejected where url = '/smsgate';

select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1/', device_id => 'phone-1', signing_key => 'key-1') \gset
\i shared/hmac.sql
\i shared/phone.sql

select twilio.send_message('+12025550123', 'Hello', from_address => 'user/phone-1', expires_after => '10 min') as m1 \gset
create temp table job as select * from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', 'pending', 'phone-1', http_status => 202) from job;
select reference as ref1 from job \gset

-- Anything correctly signed gets a 2xx; another phone speaks for itself only.
select * from phone('system:ping', null);
select * from phone('sms:teleported', 'x');
select * from phone('sms:sent', 'unknown');
select * from phone('sms:sent', null);
select * from phone('sms:delivered', :'ref1', key => 'key-2');
select twilio.add_smsgate_key('key-2', 'phone-2') \gset
select * from phone('sms:delivered', :'ref1', device => 'phone-2', key => 'key-2');
select * from phone('sms:delivered', :'ref1', device => 'phone-1', key => 'key-2');

-- Nor for a phone whose webhook comes along with its own; and each of many is tried with its key.
\set ECHO none
create function phones(devices text[], keys text[])
returns table (http_status int, reason text)
language sql
as $$
    select c.http_status, c.reason
    from (
        select
            array_agg(format(E'x-signature: %s\nx-timestamp: %s', hmac(s.key, s.body || convert_to(s.stamp, 'UTF8')), s.stamp) order by s.n) as headers,
            array_agg(s.body order by s.n) as bodies, array_agg(null::text) as sources
        from (
            select u.*, extract(epoch from twilio.now())::bigint::text as stamp,
                convert_to(jsonb_build_object('id', gen_random_uuid(), 'event', 'system:ping', 'deviceId', u.device)::text, 'UTF8') as body
            from unnest(devices, keys) with ordinality u (device, key, n)
        ) s
    ) b
    cross join lateral twilio.smsgate_receive(b.headers, b.bodies, b.sources) c
$$;
\set ECHO all
select * from phones('{phone-1,phone-2,phone-1}', '{key-2,key-2,key-1}');
select count(twilio.add_smsgate_key('many-' || n, 'many-' || n)) from generate_series(1, 70) n;
select twilio.add_smsgate_key('of-all') \gset
select p.http_status, count(*)
from phones(
    (select array_agg('many-' || n) || '{unknown,many-1}' from generate_series(1, 70) n),
    (select array_agg('many-' || n) || '{of-all,of-all}' from generate_series(1, 70) n)
) p
group by 1;
select twilio.retire_smsgate_key(null);

-- What was refused for want of a key is taken in once there is one, as of when it came.
select http_status, reason from phone('sms:received', null, '{"message": "STOP", "sender": "+12025550199"}', 'phone-9', 'key-9', 'event-9');
select q.kind, q.kept_rows - (select count(*) from twilio_internal.rejected_callback r where r.kind = q.kind) as off_by from twilio.quarantine q order by 1;
set twilio_callback.clock_offset = '2 h';
select verified, still_refused > 0 as others_stay, not_looked_at from twilio.reverify_rejected();
select twilio.add_smsgate_key('key-9', 'phone-9') \gset
select verified from twilio.reverify_rejected(at_most => 1, batch_rows => 1);
select verified from twilio.reverify_rejected();
select status, source, from_address, params ->> 'Body' as body, received_at < twilio.now() - interval '90 min' as is_of_then
from twilio.message_timeline where from_address = '+12025550199';
select kind, created_at < twilio.now() - interval '90 min' as is_of_then from twilio.suppression where address = '+12025550199';
select q.kind, q.kept_rows - (select count(*) from twilio_internal.rejected_callback r where r.kind = q.kind) as off_by from twilio.quarantine q order by 1;
reset twilio_callback.clock_offset;

drop function phones, phone, hmac, at;
drop extension twilio_callback;
