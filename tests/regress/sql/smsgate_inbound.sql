-- A message that comes in at a phone is stored once and with its text; one that a phone never reports ends. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1/', device_id => 'phone-1', signing_key => 'key-1') \gset
select twilio.add_smsgate_key('key-2', 'phone-2') \gset
select twilio.create_consumer('app') \gset
\i shared/hmac.sql
\set ECHO none
create function phone(event text, payload jsonb, device int default 1)
returns table (http_status int, reason text, is_new boolean)
language sql
as $$
    select c.http_status, c.reason, c.is_new
    from (
        select convert_to(jsonb_build_object(
            'id', gen_random_uuid(), 'webhookId', 'w', 'event', event, 'deviceId', 'phone-' || device, 'payload', payload
        )::text, 'UTF8') as body, extract(epoch from twilio.now())::bigint::text as stamp
    ) b
    cross join lateral twilio.smsgate_callback(b.body, hmac('key-' || device, b.body || convert_to(b.stamp, 'UTF8')), b.stamp) c
$$;
create function heard() returns setof text language plpgsql as $$
begin
    perform twilio.feed_tick(is_forced => true);
    return query select e.kind from twilio.feed_read('app') e order by e.event_id;
end
$$;
\set ECHO all

-- One SMS, reported twice under other ids of events, by an export, and in a batch: one message, one event of the feed.
\set sms '{"messageId": "cafe", "sender": "+12025550124", "message": "Hi", "simNumber": 1, "receivedAt": "2026-09-01T10:00:00.000Z"}'
select * from phone('sms:received', :'sms');
select * from phone('sms:received', :'sms');
select * from phone('sms:received', (:'sms'::jsonb || '{"messageId": "beef", "receivedAt": "2026-09-01T12:00:00+02:00"}') - 'simNumber');
select * from phone('sms:batch:received', jsonb_build_object('messages', jsonb_build_array(:'sms'::jsonb)));
select count(*) from twilio.message;
-- Another second, another text, another phone: others.
select * from phone('sms:received', :'sms'::jsonb || '{"receivedAt": "2026-09-01T10:00:01.000Z"}');
select * from phone('sms:received', :'sms'::jsonb || '{"message": "Ho"}');
select * from phone('sms:received', :'sms', 2);
select count(*) from twilio.message;
select count(*) from heard();
-- Both in one call of the shim.
select count(distinct c.message_id) as messages, count(*) filter (where c.is_new) as new
from (
    select array_agg(format(E'x-signature: %s\nx-timestamp: %s', hmac('key-1', s.body || convert_to(s.stamp, 'UTF8')), s.stamp)) as headers,
        array_agg(s.body) as bodies, array_agg(null::text) as sources
    from (
        select extract(epoch from twilio.now())::bigint::text as stamp, convert_to(jsonb_build_object(
            'id', 'both-' || n, 'event', 'sms:received', 'deviceId', 'phone-1', 'payload', :'sms'::jsonb || '{"message": "twice"}'
        )::text, 'UTF8') as body
        from generate_series(1, 2) n
    ) s
) b
cross join lateral twilio.smsgate_receive(b.headers, b.bodies, b.sources) c;

-- The text of an MMS, and the shape that the app's documentation had: STOP is STOP.
select * from phone('mms:downloaded', '{"messageId": "1", "sender": "+12025550125", "body": "STOP", "subject": null, "attachments": [], "receivedAt": "2026-09-01T10:00:00Z"}');
select * from phone('mms:received', '{"messageId": "2", "sender": "+12025550126", "transactionId": "T1", "subject": "Photo", "size": 2048, "receivedAt": "2026-09-01T10:00:00Z"}');
select * from phone('mms:downloaded', '{"messageId": "2", "sender": "+12025550126", "body": "See it", "attachments": [{"partId": 1, "contentType": "image/jpeg"}], "receivedAt": "2026-09-01T10:00:00Z"}');
select * from phone('sms:received', '{"messageId": "3", "phoneNumber": "+12025550127", "textMessage": {"text": "Stop"}, "receivedAt": "2026-09-01T10:00:00Z"}');
select from_address, body, params ->> 'Body' as in_event from twilio.inbound_message where from_address in ('+12025550125', '+12025550126', '+12025550127') order by message_id;
select address, reason from twilio.suppression order by 1;

-- A message that its phone took and never reported ends a day after its expiry; a later delivery still counts.
select twilio.enable_sending() \gset
select twilio.send_message('+12025550130', 'Hello', from_address => 'user/phone-1', expires_after => '10 min') as taken,
    twilio.send_message('+12025550131', 'Hello', from_address => 'user/phone-1', expires_after => '10 min') as sent \gset
\set ECHO none
create function ask(at text, state text) returns int language plpgsql as $$
declare
    done int;
begin
    perform set_config('twilio_callback.clock_offset', at, false);
    select count(twilio_internal.finish_smsgate(c.message_id, c.lease_token, c.task, case when c.task = 'withdraw' then 'late' else 'found' end, state, 'phone-1'))
    into done from twilio_internal.claim_smsgate(10) c;
    return done;
end
$$;
\set ECHO all
select count(twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', 'pending', 'phone-1', http_status => 202)) from twilio_internal.claim_smsgate(10);
select ask('1 min', 'processed');
select * from phone('sms:sent', jsonb_build_object('messageId', (select reference from twilio_internal.smsgate_message where message_id = :sent)));
select ask('20 min', 'processed') > 0 as is_asked;
select ask('23 h', 'processed') > 0 as is_asked;
select m.status, p.is_open, p.due_at <= m.expires_at + interval '1 day 1 min' as in_time
from twilio.message m join twilio_internal.smsgate_message p using (message_id) where m.message_id in (:taken, :sent) order by message_id;
select ask('25 h', 'processed') > 0 as is_asked;
select m.status, m.failed_at is not null as has_failed, p.is_open from twilio.message m join twilio_internal.smsgate_message p using (message_id) where m.message_id in (:taken, :sent) order by message_id;
select status, source, params ->> 'ErrorMessage' as reason from twilio.message_event where message_id = :taken order by event_id;
select twilio_internal.is_open_work(:taken, false) as taken, twilio_internal.is_open_work(:sent, false) as sent;
select reason from phone('sms:delivered', jsonb_build_object('messageId', (select reference from twilio_internal.smsgate_message where message_id = :taken)));
select status, is_corrected from twilio.message where message_id = :taken;
reset twilio_callback.clock_offset;

drop function ask, heard, phone, hmac;
drop extension twilio_callback;
