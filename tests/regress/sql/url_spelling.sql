-- A URL may arrive in another form than it was signed.
create extension twilio_callback;
\set VERBOSITY terse
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\set ECHO none
create function request(n int, url text, signed text, more text default '', method text default 'POST', base text default 'https://hooks.example.com')
returns table (http_status int, reason text)
language sql
begin atomic
    select r.http_status, r.reason
    from (
        select convert_to(
            format('AccountSid=AC00000000000000000000000000000001&MessageSid=SM%s&MessageStatus=sent%s', lpad(n::text, 32, '0'), more),
            'UTF8'
        ) as body
    ) b
    cross join lateral twilio.receive(
        array[method], array[url],
        array['x-twilio-signature: ' || twilio.compute_signature(base || signed, b.body, 'secret')
            || E'\ncontent-type: application/x-www-form-urlencoded'],
        array[b.body], array[null]
    ) r;
end;
\set ECHO all

-- Spellings that one of Twilio's libraries accepts.
select i.*, r.*
from (values
    (1, '/twilio/status?who=sip%3Abob%40example.org', '/twilio/status?who=sip:bob@example.org'),
    (2, '/twilio/status?who=sip:bob@example.org', '/twilio/status?who=sip%3Abob%40example.org'),
    (3, '/twilio/status?q=it%27s', '/twilio/status?q=it''s'),
    (4, '/twilio/status?q=it''s', '/twilio/status?q=it%27s'),
    (5, '/twilio/status?q=a+b', '/twilio/status?q=a%20b'),
    (6, '/?x=1', '?x=1'),
    (7, '/', ''),
    (8, '', '/'),
    (9, 'https://hooks.example.com?x=1', '/?x=1'),
    (10, '/?who=sip%3Abob', ':443?who=sip:bob')
) i (n, url, signed)
cross join lateral request(i.n, i.url, i.signed) r;
select count(*) from twilio.message;
-- A request is checked as it was signed: escapes hide no parameter of Twilio's.
select r.* from request(11, '/twilio/status?%42ody=y', '/twilio/status?Body=y') r;
delete from twilio_internal.rejected_callback;
alter table twilio_internal.rejected_callback alter column rejected_id restart;
select twilio.verify_signature('https://a.example/?q=%40', '', twilio.compute_signature('https://a.example?q=@', '', 's'), 's');
select twilio.verify_signature('https://a.example/?a=1&b=2', '', twilio.compute_signature('https://a.example/?b=2&a=1', '', 's'), 's');

-- Spellings that no library accepts are explained and can be accepted by hand.
select i.*, r.*
from (values
    (11, '/twilio/status?a=1&attempt=2&b=3', '/twilio/status?a=1&b=3&attempt=2'),
    (12, '/twilio/status?q=a%20b', '/twilio/status?q=a+b'),
    (13, '/twilio/status?a=%3A&b=%20', '/twilio/status?b=+&a=:'),
    (14, '/twilio/status?a=1&a=2', '/twilio/status?a=2&a=1'),
    (15, '/twilio/status/', '/twilio/status'),
    (16, '/twilio/status?a=1&b=2', '/twilio/status?b=2&a=2')
) i (n, url, signed)
cross join lateral request(i.n, i.url, i.signed) r;
-- Not below a public URL; with an invalid error code; ambiguous; with a parameter of Twilio's in the query.
select r.* from request(17, '/twilio/status?a=1&b=2', '/twilio/status?b=2&a=1', base => 'https://elsewhere.example.com') r;
select r.* from request(18, '/twilio/status?a=1&b=2', '/twilio/status?b=2&a=1', '&ErrorCode=none') r;
select r.* from request(19, '/twilio/status?a=1&b=2', '/twilio/status?b=2&a=1', '&Zz=MessageSidSM00000000000000000000000000000020') r;
select r.* from request(20, '/twilio/status?Body=1&a=2', '/twilio/status?a=2&Body=1') r;
\x on
select r.url, e.signed_url, e.finding, e.remedy
from twilio_internal.rejected_callback r
cross join lateral twilio.explain_rejected(r.rejected_id) e
order by r.rejected_id;
\x off
select * from twilio.reverify_rejected();
do $$
declare
    r twilio_internal.rejected_callback;
begin
    for r in select * from twilio_internal.rejected_callback order by rejected_id loop
        begin
            perform twilio.accept_rejected(r.rejected_id);
            raise notice '% is taken in', r.url;
        exception when object_not_in_prerequisite_state then
            raise notice '% is not', r.url;
        end;
    end loop;
end
$$;
select url from twilio_internal.rejected_callback order by rejected_id;
select right(message_sid, 2) as n, status from twilio.message where right(message_sid, 2) > '10' order by 1;

-- A GET has all its parameters in its URL.
select '/twilio/status?AccountSid=AC00000000000000000000000000000001&MessageSid=SM00000000000000000000000000000021&MessageStatus=sent' as get \gset
select c.http_status, c.reason
from twilio.sms_callback(:'get' || '&who=%3A', null, twilio.compute_signature('https://hooks.example.com' || :'get' || '&who=:', '', 'secret', method => 'GET'), method => 'GET') c;
delete from twilio_internal.rejected_callback;
select c.http_status, c.reason
from twilio.sms_callback(:'get', null, twilio.compute_signature('https://hooks.example.com/twilio/status', '', 'secret', method => 'GET'), method => 'GET') c;
select twilio.accept_rejected(r.rejected_id) from twilio_internal.rejected_callback r;
select e.finding, e.remedy from twilio_internal.rejected_callback r cross join lateral twilio.explain_rejected(r.rejected_id) e;

-- URLs for Twilio are sorted bytewise, so that Twilio's sorting does not change them.
select twilio.status_callback_url(parameters => '{"b": 1, "A": 2, "a": 3, "aa": "x y", "a-b": 4}');

drop function request;
drop extension twilio_callback;
