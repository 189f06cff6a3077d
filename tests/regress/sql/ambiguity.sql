-- A signature covers one meaning: a signed text cannot be read as another message, person or status.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

-- A request with the signature of another, whatever it says itself.
\set ECHO none
create function replay(signature text, body text, url text default '/x', method text default 'POST',
    content_type text default 'application/x-www-form-urlencoded')
returns table (http_status int, reason text)
language sql
begin atomic
    select c.http_status, c.reason
    from twilio.sms_callback(url, convert_to(body, 'UTF8'), signature, content_type, method) c;
end;
create function signature_of(body text, url text default '/x')
returns text
language sql
begin atomic
    select twilio.compute_signature('https://hooks.example.com' || url, convert_to(body, 'UTF8'), 'secret');
end;
\set ECHO all

-- The message of a stranger whose text is a request, in part.
\set start 'AccountSid=AC00000000000000000000000000000001&ApiVersion=2010-04-01&'
\set tail 'From%2B12025550166MessageSidSM00000000000000000000000000000009SmsMessageSidSM00000000000000000000000000000009SmsSidSM00000000000000000000000000000009SmsStatusreceivedTo%2B12025550100'
\set rest '&From=%2B12025550166&MessageSid=SM00000000000000000000000000000009&SmsMessageSid=SM00000000000000000000000000000009&SmsSid=SM00000000000000000000000000000009&SmsStatus=received&To=%2B12025550100'
\set status 'From%2B12025550100MessageSidSM00000000000000000000000000000001MessageStatusundeliveredTo%2B12025550123Zz'
\set person 'From%2B12025550177MessageSidSM00000000000000000000000000000002SmsStatusreceivedTo%2B12025550100Zz'
\set glued 'From%2B12025550177G'
select signature_of(:'start' || 'Body=x' || :'status' || :'rest') as of_status,
    signature_of(:'start' || 'Body=STOP' || :'person' || :'rest') as of_person,
    signature_of(:'start' || 'Body=STOP' || :'glued' || :'rest') as of_glued \gset

select r.* from replay(:'of_status', :'start' || 'Body=x&From=%2B12025550100&MessageSid=SM00000000000000000000000000000001&MessageStatus=undelivered&To=%2B12025550123&Zz=' || :'tail') r;
select r.* from replay(:'of_person', :'start' || 'Body=STOP&From=%2B12025550177&MessageSid=SM00000000000000000000000000000002&SmsStatus=received&To=%2B12025550100&Zz=' || :'tail') r;
select r.* from replay(:'of_glued', :'start' || 'Body=STOP&From=%2B12025550177&G' || substr(:'rest', 2)) r;
select count(*) from twilio.message;
select count(*) from twilio.suppression;

-- The original request is accepted.
select r.* from replay(:'of_status', :'start' || 'Body=x' || :'status' || :'rest') r;
select message_sid, direction, from_address, status from twilio.message;

-- A form does not count as a GET or as JSON, nor the URL of a GET as a form.
\set inner '?AccountSid=AC00000000000000000000000000000001&MessageSid=SM00000000000000000000000000000003&MessageStatus=read&Zz='
select r.*
from replay(
    signature_of(:'start' || 'Body=' || replace(replace(replace(:'inner', '?', '%3F'), '&', '%26'), '=', '%3D') || :'rest'), '',
    '/xAccountSidAC00000000000000000000000000000001ApiVersion2010-04-01Body' || :'inner' || replace(:'tail', '%2B', '+'), 'GET'
) r;
\set json '{"AccountSid":"AC00000000000000000000000000000001","MessageSid":"SM00000000000000000000000000000003","MessageStatus":"read"}'
select '/xAccountSidAC00000000000000000000000000000001Body?bodySHA256=' || encode(sha256(:'json'), 'hex') as json_url \gset
select r.* from replay(twilio.compute_signature('https://hooks.example.com' || :'json_url', '', 'secret'), :'json', :'json_url', content_type => 'application/json') r;
select '/x?Body=y&AccountSid=AC00000000000000000000000000000001' as get_url \gset
select r.* from replay(signature_of(:'start' || 'MessageSid=SM00000000000000000000000000000003&MessageStatus=read', :'get_url'), :'start' || 'MessageSid=SM00000000000000000000000000000003&MessageStatus=read', :'get_url') r;

-- A fragment is not signed and says nothing.
select '/x?' || :'start' || 'MessageSid=SM00000000000000000000000000000004&MessageStatus=sent' as get_url \gset
select r.* from replay(twilio.compute_signature('https://hooks.example.com' || :'get_url', '', 'secret', method => 'GET'), '', :'get_url' || '#&ErrorCode=30005', 'GET') r;
select status, error_code from twilio.message where message_sid = 'SM00000000000000000000000000000004';

-- They are kept and explained, and recorded only if an operator accepts them.
select verified, still_refused from twilio.reverify_rejected();
select r.rejected_id, e.finding, e.remedy from twilio_internal.rejected_callback r cross join lateral twilio.explain_rejected(r.rejected_id) e order by 1;
select twilio.accept_rejected(max(rejected_id)) from twilio_internal.rejected_callback \gset
select message_sid, status from twilio.message order by message_sid;
select count(*) = (select kept_rows from twilio.quarantine_status where is_plausible) as is_counted from twilio_internal.rejected_callback;
select r.* from replay('AAAAAAAAAAAAAAAAAAAAAAAAAAA=', :'start' || 'MessageSid=SM00000000000000000000000000000005&MessageStatus=read') r;
select twilio.accept_rejected(max(rejected_id)) from twilio_internal.rejected_callback;
select twilio.accept_rejected(0);

drop function replay, signature_of;
drop extension twilio_callback;
