-- Why a webhook of a phone was refused: its clock, a missing key, a wrong key; and requests that are not from phones.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select * from twilio.doctor() where "check" = 'phones';
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1', signing_key => 'key-1') \gset
select verdict, detail, remedy from twilio.doctor() where "check" = 'phones';

\i shared/hmac.sql
-- What a phone calls, signed at a time; explained as of now.
\set ECHO none
create function refused(device text, key text, off interval default '0')
returns table (http_status int, finding text, remedy text)
language plpgsql
as $$
declare
    body constant bytea := convert_to(jsonb_build_object('id', gen_random_uuid(), 'event', 'sms:sent', 'deviceId', device, 'payload', '{"messageId": "x"}'::jsonb)::text, 'UTF8');
    stamp constant text := extract(epoch from twilio.now() + off)::bigint;
begin
    select c.http_status into http_status
    from twilio.smsgate_callback(body, hmac(key, body || convert_to(stamp, 'UTF8')), stamp) c;
    return query
    select refused.http_status, regexp_replace(e.finding, '(fast|slow)\M', '\1'), e.remedy
    from twilio.explain_rejected((select max(r.rejected_id) from twilio_internal.rejected_callback r)) e;
end
$$;
-- Seconds pass while this runs.
create function about(finding text) returns text language sql return regexp_replace(finding, '\m(59[0-9]|60[0-9]) s\M', '600 s');
\set ECHO all

-- A clock that is ten minutes off, either way.
select http_status, about(finding), remedy from refused('phone-1', 'key-1', '10 min');
select http_status, about(finding), remedy from refused('phone-1', 'key-1', '-10 min');
select verdict, about(regexp_replace(detail, 'at \S+ \S+: ', 'at … ')) as detail, remedy from twilio.doctor() where "check" = 'phones';
select about(reason) from (select regexp_replace(reason, '-?\m(59[0-9]|60[0-9]) seconds', '600 seconds') as reason from twilio_internal.rejected_callback) r;

-- A key that is not known, a wrong one, another phone's, one of no phone in particular that is wrong.
select * from refused('phone-2', 'key-2');
select verdict, regexp_replace(detail, 'at \S+ \S+: ', 'at … ') as detail, remedy from twilio.doctor() where "check" = 'phones';
select * from refused('phone-1', 'other');
select * from refused('phone-3', 'key-1');
insert into twilio_internal.smsgate_key (device_id, secret) values ('phone-4', 'file:nowhere');
select http_status, regexp_replace(finding, ': .*', ': …') as finding, remedy from refused('phone-4', 'key-4');
select * from refused(null, 'key-5');

-- Not signed by a phone: a stranger's, of which doctor takes no notice, and Twilio's.
select http_status from twilio.smsgate_callback('{"deviceId":"phone-1"}', null, null);
select finding, remedy from twilio.explain_rejected((select max(r.rejected_id) from twilio_internal.rejected_callback r));
select verdict, regexp_replace(detail, 'at \S+ \S+: ', 'at … ') as detail from twilio.doctor() where "check" = 'phones';
select http_status from twilio.smsgate_receive(array['x-twilio-signature: abc='], array['MessageSid=SM1'::bytea], array[null]);
select finding, remedy from twilio.explain_rejected((select max(r.rejected_id) from twilio_internal.rejected_callback r));

-- Once the key is there, it verifies, as of when it came.
select twilio.add_smsgate_key('key-2', 'phone-2') \gset
select e.finding, e.remedy from twilio_internal.rejected_callback r cross join lateral twilio.explain_rejected(r.rejected_id) e
where encode(r.body, 'escape') like '%phone-2%';
select verified from twilio.reverify_rejected();

drop function refused, about, hmac;
drop extension twilio_callback;
