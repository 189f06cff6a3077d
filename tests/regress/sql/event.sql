-- Events of Event Streams and of the debugger's webhook.
create extension twilio_callback;
\set VERBOSITY terse
set datestyle = 'ISO';
set timezone = 'UTC';
select twilio.add_account('AC00000000000000000000000000000001', 'right', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_account('AC00000000000000000000000000000002', 'other', 'https://hooks.example.com') \gset
alter system set twilio_callback.fetch_media = on;
select pg_reload_conf(), pg_sleep(0.2) \gset
select twilio.create_consumer('app') \gset

\set ECHO none
-- An event; the data are those given, of message n of account 1.
create function event(type text, data jsonb default '{}', n int default 1, id int default 1, account int default 1)
returns jsonb
language sql
begin atomic
    select jsonb_build_object(
        'specversion', '1.0', 'type', type, 'source', '/2010-04-01/Accounts', 'id', 'EZ' || lpad(id::text, 32, '0'),
        'time', '2026-11-30T12:00:01.000Z',
        'data', jsonb_build_object(
            'messageSid', 'SM' || lpad(n::text, 32, '0'), 'accountSid', 'AC' || lpad(account::text, 32, '0'),
            'timestamp', '2026-11-30T12:00:00.250Z', 'from', '+12025550100', 'to', '+1202555' || lpad(n::text, 4, '0')
        ) || data
    );
end;

create function status_event(status text, data jsonb default '{}', n int default 1, id int default 1)
returns jsonb
language sql
return event(
    'com.twilio.messaging.message.' || lower(status), jsonb_build_object('messageStatus', upper(status), 'errorCode', null) || data, n, id
);

create function deliver(body text, secret text default 'right', url text default '/twilio/events')
returns table (http_status int, reason text, events int, new_events int)
language sql
begin atomic
    select r.*
    from (select url || '?bodySHA256=' || encode(sha256(convert_to(body, 'UTF8')), 'hex') as url) u
    cross join lateral twilio.receive_events(
        u.url, convert_to(body, 'UTF8'),
        twilio.compute_signature('https://hooks.example.com' || u.url, convert_to(body, 'UTF8'), secret, 'application/json')
    ) r;
end;

create function callback(status text, n int default 1, more text default '')
returns table (http_status int, reason text, is_new boolean)
language sql
begin atomic
    select r.http_status, r.reason, r.is_new
    from (
        select convert_to(
            format(
                'AccountSid=AC%s&MessageSid=SM%s&MessageStatus=%s&From=%%2B12025550100&To=%%2B1202555%s%s',
                lpad('1', 32, '0'), lpad(n::text, 32, '0'), status, lpad(n::text, 4, '0'), more
            ),
            'UTF8'
        ) as body
    ) b
    cross join lateral twilio.sms_callback(
        '/twilio/status', b.body, twilio.compute_signature('https://hooks.example.com/twilio/status', b.body, 'right')
    ) r;
end;
\set ECHO all

-- The status of a message is one event, whether the callback or the stream comes first.
select * from deliver(status_event('sent')::text);
select * from callback('sent', more => '&SmsSid=SM00000000000000000000000000000001');
select * from callback('delivered');
select * from deliver(jsonb_build_array(status_event('delivered', '{"rawDlrDoneDate": "2611301200"}', id => 2), status_event('sent'))::text);
select e.status, e.source, e.event_time, e.params ->> 'SmsSid' as sms_sid, e.params ->> 'RawDlrDoneDate' as done
from twilio.message_event e
order by e.event_id;
select m.status, m.from_address, m.to_address, m.channel, m.direction from twilio.message m;

-- A failure plans its fallback once.
select twilio.add_fallback_rule('retry', from_channel => 'whatsapp', error_codes => '{63016}', to_channel => 'sms') \gset
select * from deliver(status_event('undelivered',
    '{"errorCode": 63016, "from": "whatsapp:+12025550100", "to": "whatsapp:+12025550002", "body": "Hello"}', 2, 3)::text);
select * from deliver(status_event('undelivered',
    '{"errorCode": "63016", "from": "whatsapp:+12025550100", "to": "whatsapp:+12025550002"}', 2, 3)::text);
select m.step, m.channel, m.status, m.error_code from twilio.message m where m.root_id = 2 order by m.step;

-- An incoming message whose webhook is late or lost. Its files come with the webhook.
select * from deliver(event('com.twilio.messaging.inbound-message.received',
    '{"from": "+12025550003", "to": "+12025550100", "body": "STOP", "numMedia": 1}', 3, 4)::text);
select m.direction, m.status, m.body, m.media_urls from twilio.message m where m.message_sid like 'SM%3';
select s.address, s.kind, s.reason from twilio.suppression s;
select r.http_status, r.reason, r.content_type, r.response_body is not null as has_answer
from (
    select convert_to(
        'AccountSid=AC00000000000000000000000000000001&Body=STOP&From=%2B12025550003&MediaContentType0=image%2Fjpeg'
        '&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2Fmedia%2F1&MessageSid=SM00000000000000000000000000000003&NumMedia=1'
        '&SmsStatus=received&SmsSid=SM00000000000000000000000000000003&To=%2B12025550100', 'UTF8') as body
) b
cross join lateral twilio.sms_callback(
    '/twilio/inbound', b.body, twilio.compute_signature('https://hooks.example.com/twilio/inbound', b.body, 'right')
) r;
select m.media_urls, f.url, f.content_type, f.due_at is not null as is_due
from twilio.message m
join twilio.message_media f on f.message_id = m.message_id;

-- Consent goes by Twilio's time: START of the morning does not undo STOP of noon, though it comes later.
select * from deliver(event('com.twilio.messaging.inbound-message.received',
    '{"from": "+12025550003", "to": "+12025550100", "body": "START", "timestamp": "2020-01-01T00:00:00Z"}', 4, 20)::text);
select s.address, s.ended_at is null as is_on from twilio.suppression s;
-- A keyword of Twilio's own stands in the webhook only.
select * from deliver(event('com.twilio.messaging.inbound-message.received',
    '{"from": "+12025550005", "to": "+12025550100", "body": "QUIT ACME"}', 5, 21)::text);
select count(*) from twilio.suppression;
select r.http_status, r.reason
from (
    select convert_to(
        'AccountSid=AC00000000000000000000000000000001&Body=QUIT+ACME&From=%2B12025550005&MessageSid=SM00000000000000000000000000000005'
        '&NumMedia=0&OptOutType=STOP&SmsStatus=received&SmsSid=SM00000000000000000000000000000005&To=%2B12025550100', 'UTF8') as body
) b
cross join lateral twilio.sms_callback(
    '/twilio/inbound', b.body, twilio.compute_signature('https://hooks.example.com/twilio/inbound', b.body, 'right')
) r;
select s.address from twilio.suppression s order by 1;

-- Other events are stored as they are, once, and go to the feed.
select * from deliver(jsonb_build_array(
    event('com.twilio.daptbt.link-shortening.link-clicked', '{"message_sid": "SM00000000000000000000000000000001", "link": "https://example.com"}', id => 5) #- '{data,messageSid}',
    event('com.twilio.x', id => 6), event('com.twilio.x', id => 6)
)::text);
select * from deliver(event('com.twilio.x', id => 6)::text);
-- So is what cannot be recorded: nothing that is signed gets 400.
select * from deliver('[{"specversion": "1.0", "type": "com.twilio.messaging.message.sent", "id": "EZ1", "data": {"accountSid": "AC00000000000000000000000000000001"}}, 7, {"type": 1}]');
select * from deliver(event('com.twilio.messaging.message.sent', '{"messageStatus": "SENT"}', id => 8, account => 2)::text, 'other');
select * from deliver(jsonb_build_array(event('com.twilio.x', id => 9), event('com.twilio.x', id => 10, account => 2))::text);
select e.provider_event_id, e.account_sid, e.event_sid, e.type, e.message_sid, e.problem from twilio.provider_event e order by 1;
select twilio.feed_tick() is not null as ticked;
select f.kind, f.message_id, f.event ->> 'id' as id from twilio.feed_read('app', 100) f where f.kind like 'com.%' or f.kind = 'unreadable' order by f.event_id;

-- Addresses may be of any shape and length.
select * from deliver(jsonb_build_array(
    event('com.twilio.x', jsonb_build_object('to', (select jsonb_agg('+1202555' || n) from generate_series(1000, 9999) n)), id => 30),
    event('com.twilio.x', jsonb_build_object('from', repeat('x', 10000)), id => 31)
)::text);
-- Without the right signature, nothing is recorded. With the right key, refused events are taken in.
select * from deliver(status_event('read', id => 11)::text, 'wrong');
select * from deliver('[', 'wrong');
select * from deliver(status_event('read', id => 11)::text, url => '/twilio/eventsAccountSidAC00000000000000000000000000000001');
select r.rejected_id, r.kind, r.reason from twilio_internal.rejected_callback r order by 1;
select twilio.rotate_auth_token('AC00000000000000000000000000000001', 'wrong') \gset
select * from twilio.reverify_rejected();
select m.status from twilio.message m where m.message_id = 1;
select f.finding from twilio.explain_rejected((select min(r.rejected_id) from twilio_internal.rejected_callback r)) f limit 1;

-- The debugger reports the same alert by both ways; it holds no signature, no password and no text.
\set payload '{"resource_sid": "SM00000000000000000000000000000001", "error_code": "11200", "more_info": {"msg": "Bad Gateway"}, "webhook": {"request": {"url": "https://user:pass@hooks.example.com/twilio/status?attempt=1", "headers": {"X-Twilio-Signature": "s"}, "parameters": {"Body": "private"}}, "response": {"status_code": 502}}}'
select * from deliver(event('com.twilio.error-logs.error.logged', jsonb_build_object(
    'sid', 'NO00000000000000000000000000000001', 'account_sid', 'AC00000000000000000000000000000001', 'level', 'ERROR', 'error_code', '11200', 'payload', :'payload'), id => 12)::text);
select r.http_status, r.reason, r.events, r.new_events
from (
    values (1), (2)
) n (n)
cross join lateral (
    select convert_to(
        format('AccountSid=AC00000000000000000000000000000001&Level=ERROR&Payload=%s&PayloadType=application%%2Fjson&Sid=NO0000000000000000000000000000000%s&Timestamp=2026-11-30T12%%3A00%%3A00Z',
            replace(replace(replace(:'payload', '%', '%25'), '&', '%26'), '+', '%2B'), n.n), 'UTF8') as body
) b
cross join lateral twilio.receive_events(
    '/twilio/debugger', b.body, twilio.compute_signature('https://hooks.example.com/twilio/debugger', b.body, 'right'),
    content_type => 'application/x-www-form-urlencoded'
) r;
select a.alert_sid, a.level, a.error_code, a.resource_sid, a.url, a.http_status, a.detail from twilio.provider_alert a order by 1;
select d.verdict, d.detail from twilio.doctor() d where d."check" = 'alerts';

-- What names a person is blanked and purged.
call twilio.redact('0 s', '+12025550001');
select e.event_sid, e.event ? 'data' as has_data from twilio.provider_event e order by e.provider_event_id;
select f.kind, f.data ? 'data' as has_data from twilio_internal.feed_event f where f.kind like 'com.%' order by f.event_id;
call twilio.redact('0 s');
select count(*) filter (where e.event ? 'data') as with_data from twilio.provider_event e;
call twilio.purge('0 s');
select (select count(*) from twilio.provider_event) as events, (select count(*) from twilio.provider_alert) as alerts;
alter system reset twilio_callback.fetch_media;
select pg_reload_conf() \gset
drop function deliver, callback, status_event, event;
drop extension twilio_callback cascade;
