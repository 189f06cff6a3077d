\set ECHO none
-- Delivers a status callback as Twilio would: signed, for the public URL.
create function deliver(sid int, status text, code int, recipient text, sender text, more text default '')
returns table (http_status int, reason text, message_id bigint, is_new boolean)
language sql
begin atomic
    select c.http_status, c.reason, c.message_id, c.is_new
    from (
        select convert_to(
            format('MessageSid=SM%s&AccountSid=AC00000000000000000000000000000001', lpad(sid::text, 32, '0'))
            || format('&From=%s&To=%s&MessageStatus=%s', replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'), status)
            || coalesce('&ErrorCode=' || code, '') || more,
            'UTF8'
        ) as body
    ) b
    cross join lateral twilio.sms_callback(
        '/twilio/status', b.body, twilio.compute_signature('https://hooks.example.com/twilio/status', b.body, 'secret')
    ) c;
end;
-- The message that a callback is about.
create function callback(sid int, status text, code int default null, recipient text default 'whatsapp:+12025550123', sender text default 'whatsapp:+12025550100')
returns bigint
language sql
begin atomic
    select d.message_id from deliver(sid, status, code, recipient, sender) d;
end;
-- What Twilio gets for one.
create function response(sid int, status text, code int default null, more text default '')
returns table (http_status int, reason text, is_new boolean)
language sql
begin atomic
    select d.http_status, d.reason, d.is_new from deliver(sid, status, code, '+12025550101', '+12025550100', more) d;
end;
\set ECHO all
