\set ECHO none
-- A request as Twilio makes it: the account's form, signed with its token for the public URL.
create function post(url text, form text)
returns table (http_status int, response_body text, reason text, message_id bigint, is_new boolean, wait_ms int)
language sql
begin atomic
    select c.http_status, c.response_body, c.reason, c.message_id, c.is_new, c.wait_ms
    from convert_to('AccountSid=AC00000000000000000000000000000001&' || form, 'UTF8') b (body)
    cross join lateral twilio.sms_callback(url, b.body, twilio.compute_signature('https://hooks.example.com' || url, b.body, 'secret')) c;
end;
\set ECHO all
