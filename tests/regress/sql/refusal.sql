-- What is refused, how it is answered, and what is kept of it.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\set message 'MessageSid=SM00000000000000000000000000000001&MessageStatus=sent'
\set account 'AccountSid=AC00000000000000000000000000000001'

\set ECHO none
create function try(body text, secret text default 'secret', url text default '/x', method text default 'POST',
    content_type text default 'application/x-www-form-urlencoded', signed_url text default null)
returns table (http_status int, reason text)
language sql
begin atomic
    select c.http_status, c.reason
    from twilio.sms_callback(
        url, convert_to(body, 'UTF8'),
        twilio.compute_signature(
            coalesce(signed_url, 'https://hooks.example.com' || url), convert_to(body, 'UTF8'), secret, content_type, method
        ),
        content_type, method
    ) c;
end;
\set ECHO all

-- Unsigned, whatever else is wrong: 403.
select http_status, reason from twilio.sms_callback('/x', convert_to(:'account' || '&' || :'message', 'UTF8'), null);
select http_status, reason from twilio.sms_callback('/x', '', '');
select http_status, reason from twilio.sms_callback(null, null, null, null, null);
select http_status, reason from twilio.sms_callback('/x', '\xff00', 'AAAAAAAAAAAAAAAAAAAAAAAAAAA=');
select t.* from try(:'account' || '&' || :'message', 'wrong') t;
select t.* from try('AccountSid=AC00000000000000000000000000000009&' || :'message') t;
select t.* from try(:'account' || '&' || :'message', signed_url => 'https://elsewhere.example.com/x') t;
select t.* from try(:'account' || '&' || :'message', url => 'https://elsewhere.example.com/x', signed_url => 'https://elsewhere.example.com/x') t;

-- Signed, but not what a callback is: 400.
select t.* from try(:'message') t;
select t.* from try(:'account') t;
select t.* from try(:'account' || '&MessageSid=SM00000000000000000000000000000001') t;
select t.* from try(:'account' || '&MessageSid=SMx&MessageStatus=sent') t;
select t.* from try(:'account' || '&' || :'message' || repeat('t', 61)) t;
select t.* from try(:'account' || '&' || :'message' || '&ErrorCode=x') t;

-- Signed and whole: by POST, by GET, by JSON, with a known public URL in front.
select t.* from try(:'account' || '&' || :'message') t;
select t.* from try('', url => '/x?' || :'account' || '&' || :'message', method => 'GET') t;
select t.* from try(
    '{"AccountSid":"AC00000000000000000000000000000001","MessageSid":"SM00000000000000000000000000000001","MessageStatus":"sent"}',
    url => '/x?bodySHA256=' || encode(sha256('{"AccountSid":"AC00000000000000000000000000000001","MessageSid":"SM00000000000000000000000000000001","MessageStatus":"sent"}'), 'hex'),
    content_type => 'application/json'
) t;
select t.* from try(:'account' || '&' || :'message', url => 'https://hooks.example.com/x', signed_url => 'https://hooks.example.com/x') t;

-- What was refused is kept as it came; strangers have a smaller store of their own.
select rejected_id, is_plausible, reason, method, url, body_bytes from twilio.rejected order by rejected_id;
select is_plausible, kept_rows, refused, not_kept, last_reason from twilio.quarantine_status order by 1;

-- Beyond a bound of rows, bytes or rate it is counted only.
update twilio.quarantine set max_rows = kept_rows + 1 where not is_plausible;
select t.* from generate_series(1, 3) g cross join lateral try('a=' || g, 'wrong') t;
select kept_rows = max_rows as is_full, not_kept from twilio.quarantine_status where not is_plausible;
update twilio.quarantine set max_rows = 1000, max_bytes = kept_bytes where not is_plausible;
select t.* from try('a=1', 'wrong') t;
select not_kept from twilio.quarantine_status where not is_plausible;
update twilio.quarantine set max_bytes = 1000000, tokens = 1, rows_per_second = 0 where not is_plausible;
select t.* from generate_series(1, 2) g cross join lateral try('a=' || g, 'wrong') t;
select not_kept from twilio.quarantine_status where not is_plausible;

-- When it is full, what is older than 3 days makes room, the oldest first and no more than needed; what is younger stays.
create view store as
select q.is_plausible, q.kept_rows, q.not_kept, c.n = q.kept_rows and c.bytes = q.kept_bytes as counts_are_right
from twilio.quarantine_status q
cross join lateral (
    select count(*) as n, coalesce(sum(twilio_internal.bytes_of(r)), 0) as bytes
    from twilio_internal.rejected_callback r where r.is_plausible = q.is_plausible
) c;
delete from twilio_internal.rejected_callback;
select setval('twilio_internal.not_kept_plausible', 1, false), setval('twilio_internal.not_kept_implausible', 1, false);
update twilio.quarantine set kept_rows = 0, kept_bytes = 0, tokens = 500, max_rows = 6;
update twilio.signing_key set not_before = twilio.now() - interval '6 days';
set twilio_callback.clock_offset = '-5 d';
select count(*) from generate_series(1, 4) g cross join lateral try('old=' || g, 'wrong') t;
select t.http_status from try(:'account' || '&old=5', 'wrong') t;
set twilio_callback.clock_offset = '-2 d';
select count(*) from generate_series(1, 2) g cross join lateral try('young=' || g, 'wrong') t;
reset twilio_callback.clock_offset;
select count(*) from generate_series(1, 3) g cross join lateral try('new=' || g, 'wrong') t;
select convert_from(body, 'UTF8') from twilio_internal.rejected_callback order by rejected_id;
select * from store order by 1;
select count(*) from generate_series(4, 6) g cross join lateral try('new=' || g, 'wrong') t;
select convert_from(body, 'UTF8') from twilio_internal.rejected_callback where not is_plausible order by rejected_id;
select * from store order by 1;
-- The same by bytes, a batch at once; a bound of the rate displaces nothing.
update twilio_internal.rejected_callback set received_at = received_at - interval '4 days' where not is_plausible;
update twilio.quarantine set max_rows = 100, max_bytes = kept_bytes + 10 where not is_plausible;
update twilio.quarantine set tokens = 0 where not is_plausible;
select t.http_status from try('beyond the rate', 'wrong') t;
select * from store order by 1;
update twilio.quarantine set tokens = 100 where not is_plausible;
select count(*) from twilio.receive(
    array['POST', 'POST'], array['/x', '/x'], array['', ''], array['first'::bytea, 'second'], array['192.0.2.1', null]
);
select convert_from(body, 'UTF8') from twilio_internal.rejected_callback where not is_plausible order by rejected_id;
select s.*, q.kept_bytes <= q.max_bytes as within from store s join twilio.quarantine q using (is_plausible) order by 1;
select count(*) from try(repeat('x', 100000), 'wrong') t;
select s.*, q.kept_bytes <= q.max_bytes as within from store s join twilio.quarantine q using (is_plausible) order by 1;
-- A stranger's refusal does not wait for those that look like ours.
update twilio.quarantine set burst_rows = burst_rows;
begin;
select t.http_status from try('stranger', 'wrong') t;
select is_plausible, xmax <> '0' as is_locked from twilio.quarantine where is_plausible;
rollback;
update twilio.quarantine set max_rows = 1000, max_bytes = 1000000;
drop view store;

-- A batch answers each request in its place.
select r.http_status, r.reason, r.is_new
from (
    select convert_to(:'account' || '&MessageSid=SM00000000000000000000000000000002&MessageStatus=sent', 'UTF8') as body
) b
cross join lateral twilio.receive(
    array['POST', 'POST', null], array['/x', '/x', null],
    array[
        'x-twilio-signature: ' || twilio.compute_signature('https://hooks.example.com/x', b.body, 'secret')
            || E'\ncontent-type: application/x-www-form-urlencoded',
        'x-twilio-signature: ' || twilio.compute_signature('https://hooks.example.com/x', b.body, 'secret'),
        null
    ],
    array[b.body, b.body, null], array['192.0.2.1', null, null]
) r;
select r.* from twilio.receive(array['POST'], array[]::text[], array[]::text[], array[]::bytea[], array[]::text[]) r;
select count(*) from twilio.receive('{}', '{}', '{}', '{}', '{}');

drop function try;
drop extension twilio_callback;
