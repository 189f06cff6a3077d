-- Twilio's webhooks that are not callbacks: events are recorded, the others are recognised, and kept as the account's if a key
-- signed them.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
-- Many other accounts have keys too: the one that is named is tried.
select count(twilio.add_account('AC' || lpad(to_hex(n), 32, 'f'), 'other ' || n, 'https://hooks.example.com')) from generate_series(1, 20) n;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\set ECHO none
create function try(body text, secret text default 'secret', url text default '/twilio/status')
returns table (http_status int, reason text, is_plausible boolean)
language plpgsql
as $$
declare
    is_json constant boolean := body ~ '^[\[{]';
    content_type constant text := case when is_json then 'application/json' else 'application/x-www-form-urlencoded' end;
    target constant text := url || case when is_json then '?bodySHA256=' || encode(sha256(convert_to(body, 'UTF8')), 'hex') else '' end;
begin
    select c.http_status, c.reason into http_status, reason
    from twilio.sms_callback(
        target, convert_to(body, 'UTF8'),
        twilio.compute_signature('https://hooks.example.com' || target, convert_to(body, 'UTF8'), secret, content_type),
        content_type
    ) c;
    return query
    select try.http_status, try.reason, (
        select r.is_plausible from twilio.rejected r where try.http_status >= 400 order by r.rejected_id desc limit 1
    );
end
$$;
\set ECHO all
\set event '{"specversion":"1.0","type":"com.twilio.messaging.message.delivered","source":"/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages/SM00000000000000000000000000000001.json","id":"EZ1","data":{"accountSid":"AC00000000000000000000000000000001","messageSid":"SM00000000000000000000000000000001","messageStatus":"delivered"}}'

select * from try('[' || :'event' || ',' || :'event' || ']');
select * from try(:'event');
select * from try('[{"specversion":"1.0","type":"com.twilio.error-logs.error.logged","data":{"account_sid":"AC00000000000000000000000000000001"}}]');
select * from try('event_type=click&sms_sid=SM00000000000000000000000000000001&account_sid=AC00000000000000000000000000000001&link=https%3A%2F%2Fexample.com&click_time=2026-01-01T00%3A00%3A00Z');
select * from try('{"event_type":"click","sms_sid":"SM00000000000000000000000000000001","account_sid":"AC00000000000000000000000000000001","link":"https://example.com"}');
select * from try('AccountSid=AC00000000000000000000000000000001&Sid=NO00000000000000000000000000000001&Level=ERROR&PayloadType=application%2Fjson&Payload=%7B%22error_code%22%3A%2211200%22%7D');
select * from try('AccountSid=AC00000000000000000000000000000001&EventType=onMessageAdded&ConversationSid=CH00000000000000000000000000000001&MessageSid=IM00000000000000000000000000000001&Body=Hi&MessagingBinding.Address=%2B12025550101&MessagingBinding.Address=%2B12025550100', url => '/twilio/inbound');
select finding, remedy from twilio.explain_rejected((select max(rejected_id) from twilio.rejected));
select * from try('AccountSid=AC00000000000000000000000000000001&CallSid=CA00000000000000000000000000000001&CallStatus=ringing&Direction=inbound&From=%2B12025550101&To=%2B12025550100');
select * from try('type=factor.verified&account_sid=AC00000000000000000000000000000001&service_sid=VA00000000000000000000000000000001&factor_sid=YF00000000000000000000000000000001');
select count(*) from twilio.message;

-- An event that no key signed is kept as a callback is.
select * from try('[' || :'event' || ']', 'wrong');
select finding from twilio.explain_rejected((select max(rejected_id) from twilio.rejected));
-- Another one that no key signed is a stranger's, whichever account it names in such a way.
select * from try('event_type=click&sms_sid=SM00000000000000000000000000000001&account_sid=AC00000000000000000000000000000001&link=x', 'wrong');
select c.http_status, c.reason from twilio.sms_callback('/twilio/status', convert_to('event_type=click&account_sid=AC00000000000000000000000000000001&link=x', 'UTF8'), null) c;
select is_plausible from twilio.rejected order by rejected_id desc limit 1;
-- A callback that lacks something is still said to lack it, and one is a callback with anything beside it.
select * from try('AccountSid=AC00000000000000000000000000000001&MessageStatus=sent');
select c.http_status, c.reason from (select convert_to('AccountSid=AC00000000000000000000000000000001&MessageSid=SM00000000000000000000000000000001&MessageStatus=sent&event_type=click&link=x&CallSid=CA00000000000000000000000000000001', 'UTF8') as body) b
cross join lateral twilio.sms_callback('/twilio/status', b.body, twilio.compute_signature('https://hooks.example.com/twilio/status', b.body, 'secret')) c;

drop function try;
drop extension twilio_callback cascade;
