-- Forged requests cannot keep genuine ones out of the quarantine: clients share it by how much each holds.
-- Losses are reported with their time.
set client_min_messages = error;
create extension twilio_callback;
\set VERBOSITY terse
select twilio.add_account('AC00000000000000000000000000000001', 'old', 'https://hooks.example.com') \gset

-- Refused requests of kind callback, the n-th from its source: forged, or signed with a token that is not known yet.
\set ECHO none
create function flood(ns int[], sources text[], secret text default null)
returns table (status int, n bigint)
language sql
begin atomic
    select r.http_status, count(*)
    from (
        select
            array_agg('POST'::text) as methods, array_agg('/x'::text) as urls,
            array_agg(
                E'content-type: application/x-www-form-urlencoded\nx-twilio-signature: '
                || coalesce(twilio.compute_signature('https://hooks.example.com/x', b.body, secret), repeat('A', 27) || '=')
            ) as headers,
            array_agg(b.body) as bodies,
            array_agg(s.source) as sources
        from unnest(ns, sources) s (n, source)
        cross join lateral (
            select convert_to(
                format('AccountSid=AC00000000000000000000000000000001&MessageSid=SM%s&MessageStatus=sent', lpad(s.n::text, 32, '0')), 'UTF8'
            ) as body
        ) b
    ) a
    cross join lateral twilio.receive(a.methods, a.urls, a.headers, a.bodies, a.sources) r
    group by 1;
end;
\set ECHO all

-- What is kept, and whether all counters agree with it.
create view store as
select
    q.kind, q.kept_rows, q.refused, q.not_kept, q.displaced,
    q.kept_rows <= q.max_rows and q.kept_bytes <= q.max_bytes as is_within,
    q.kept_rows = c.n and q.kept_bytes = c.bytes as counters_are_right,
    not exists (
        (
            select r.network, count(*), sum(twilio_internal.bytes_of(r))
            from twilio_internal.rejected_callback r where r.kind = q.kind group by 1
            except all
            select s.network, s.kept_rows, s.kept_bytes from twilio.quarantine_source s where s.kind = q.kind
        )
        union all
        (
            select s.network, s.kept_rows, s.kept_bytes from twilio.quarantine_source s where s.kind = q.kind
            except all
            select r.network, count(*), sum(twilio_internal.bytes_of(r))
            from twilio_internal.rejected_callback r where r.kind = q.kind group by 1
        )
    ) as sources_are_right
from twilio.quarantine_status q
cross join lateral (
    select count(*) as n, coalesce(sum(twilio_internal.bytes_of(r)), 0) as bytes from twilio_internal.rejected_callback r where r.kind = q.kind
) c;

-- Forgeries from 10 addresses fill the store and stay within it; once all hold the same, nothing is moved about.
select twilio.set_quarantine(true, max_rows => 200) \gset
select f.* from flood(array(select generate_series(1, 2000)), array(select '192.0.2.' || n % 10 from generate_series(1, 2000) n)) f;
select * from store where kind = 'callback';
select f.* from flood(array(select generate_series(1, 2000)), array(select '192.0.2.' || n % 10 from generate_series(1, 2000) n)) f;
select displaced from store where kind = 'callback';
-- Genuine ones of other addresses are kept all the same, and come in once the token is known.
select f.* from flood(array(select generate_series(1001, 1060)), array(select '198.51.100.' || n % 6 from generate_series(1, 60) n), 'new') f;
select f.* from flood(array(select generate_series(1, 2000)), array(select '192.0.2.' || n % 10 from generate_series(1, 2000) n)) f;
select * from store where kind = 'callback';
select count(twilio.rotate_auth_token('AC00000000000000000000000000000001', 'new'));
select * from twilio.reverify_rejected();
select count(*) from twilio.message;
select * from store where kind = 'callback';

-- The other way round: what is there stays, however many forgeries come after it and from however many addresses of one network.
select f.* from flood(array(select generate_series(1101, 1115)), array(select '198.51.100.7' from generate_series(1, 15)), 'newer') f;
select f.* from flood(array(select generate_series(1, 2000)), array(select '2001:db8::' || to_hex(n) from generate_series(1, 2000) n)) f;
select network, kept_rows from twilio.quarantine_source where kind = 'callback' order by network;
-- Clients whose address is not known are one.
select f.* from flood(array(select generate_series(1, 2000)), array(select case when n % 2 = 0 then 'proxy ' || n end from generate_series(1, 2000) n)) f;
select network, kept_rows > 0 as holds_any from twilio.quarantine_source where kind = 'callback' order by network;
select * from store where kind = 'callback';
select count(twilio.rotate_auth_token('AC00000000000000000000000000000001', 'newer'));
select * from twilio.reverify_rejected();

-- The same by bytes, where a bound of bytes is met.
select twilio_internal.drop_rejected(array(select rejected_id from twilio_internal.rejected_callback)) > 0 as is_emptied;
select count(*) from twilio.quarantine_source;
select twilio.set_quarantine('callback', max_rows => 1000000, max_bytes => 100000) \gset
select f.* from flood(array(select generate_series(1, 2000)), array(select '192.0.2.' || n % 10 from generate_series(1, 2000) n)) f;
select f.* from flood(array(select generate_series(1201, 1220)), array(select '198.51.100.7' from generate_series(1, 20)), 'newest') f;
select kind, is_within, counters_are_right, sources_are_right, (select count(*) from twilio_internal.rejected_callback where source = '198.51.100.7') as genuine
from store where kind = 'callback';

-- Rows that were deleted by hand do not keep out those of others.
delete from twilio_internal.rejected_callback where source like '192.0.2.%';
select f.* from flood(array(select generate_series(1301, 1320)), array(select '203.0.113.1' from generate_series(1, 20)), 'newest') f;
select count(*) from twilio_internal.rejected_callback where source = '203.0.113.1';

-- No rate discards what looks like ours while there is room, also where the account has no live key.
select twilio_internal.drop_rejected(array(select rejected_id from twilio_internal.rejected_callback)) > 0 as is_emptied;
delete from twilio.quarantine_source;
update twilio.quarantine set kept_rows = 0, kept_bytes = 0;
select twilio.set_quarantine('callback', max_bytes => 1073741824) \gset
select twilio.retire_signing_key('AC00000000000000000000000000000001', key_id) from twilio.signing_key where not_after = 'infinity';
select f.* from flood(array(select generate_series(2001, 5000)), array(select '198.51.100.7' from generate_series(1, 3000)), 'newest') f;
select kind, kept_rows from store where kind = 'callback';
select count(twilio.rotate_auth_token('AC00000000000000000000000000000001', 'newest'));
select * from twilio.reverify_rejected();
-- An account that was not added is not known.
select r.http_status from twilio.sms_callback('/x', convert_to('AccountSid=AC00000000000000000000000000000002', 'UTF8'), repeat('A', 27) || '=') r;
select r.kind, q.account_sid as account from twilio_internal.rejected_callback r, twilio_internal.request_account(r.rejected_id) q;

-- Noise of strangers does not keep out a phone whose key is missing.
select count(*) from generate_series(1, 900) n, twilio.smsgate_callback(convert_to('noise ' || n, 'UTF8'), null, null);
\i shared/hmac.sql

\set ECHO none
create function phone(id text, text text, source text default '203.0.113.5')
returns int
language sql
begin atomic
    select r.http_status
    from (
        select
            convert_to(jsonb_build_object('id', id, 'deviceId', 'phone-1', 'event', 'sms:received', 'payload', jsonb_build_object(
                'messageId', id, 'message', text, 'sender', '+12025550199', 'receivedAt', '2026-11-20T10:00:00Z'
            ))::text, 'UTF8') as body,
            extract(epoch from twilio.now())::bigint::text as stamp
    ) b
    cross join lateral twilio.smsgate_callback(b.body, hmac('key-1', b.body || convert_to(b.stamp, 'UTF8')), b.stamp, source) r;
end;
\set ECHO all
select phone('event-1', 'STOP');
-- Forged webhooks share the phones' store by source as well.
select twilio.set_quarantine('phone', max_rows => 50) \gset
select count(phone('forged-' || n, 'x', '192.0.2.' || n % 5)) from generate_series(1, 200) n;
select * from store where kind <> 'stranger' order by kind;
select twilio.add_smsgate_key('key-1', 'phone-1') \gset
select verified > 0 as are_taken_in from twilio.reverify_rejected();
select kind, address from twilio.suppression;
select * from store where kind <> 'stranger' order by kind;

select twilio.set_quarantine('sms');
drop view store;
drop function flood, phone, hmac;
drop extension twilio_callback;
