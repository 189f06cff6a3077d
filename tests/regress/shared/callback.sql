\set ECHO none
\i shared/post.sql
\set ECHO none
-- Delivers a status callback.
create function deliver(sid int, status text, code int, recipient text, sender text, more text default '')
returns table (http_status int, reason text, message_id bigint, is_new boolean)
language sql
begin atomic
    select p.http_status, p.reason, p.message_id, p.is_new
    from post('/twilio/status', format('MessageSid=SM%s&From=%s&To=%s&MessageStatus=%s%s%s',
        lpad(sid::text, 32, '0'), replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'), status, '&ErrorCode=' || code, more)) p;
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
