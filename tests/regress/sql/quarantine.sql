-- Refused requests are explained, and recorded once the key or the URL is corrected.
create extension twilio_callback;
\set VERBOSITY terse
set datestyle = 'ISO';
set timezone = 'UTC';
select twilio.add_account('AC00000000000000000000000000000001', 'right', 'https://wrong.example.com') \gset
-- Bounds can be set before anything was refused.
table twilio.quarantine_status;
select twilio.set_quarantine(true, burst_rows => 60000), twilio.set_quarantine(false, 10, 20, 0.5, 30) \gset
select is_plausible, max_rows, max_bytes, rows_per_second, burst_rows, tokens from twilio.quarantine order by 1;
select twilio.set_quarantine(false, 5000, 8388608, 1, 500) \gset
select twilio.set_quarantine(true, max_rows => -1);
select twilio.set_quarantine(null, max_rows => 1);

\set ECHO none
create function request(n int, signed_url text, secret text default 'right', url text default '/twilio/status',
    headers text default '', status text default 'sent', account int default 1, method text default 'POST')
returns table (http_status int, reason text)
language sql
begin atomic
    select r.http_status, r.reason
    from (
        select convert_to(
            format('MessageSid=SM%s&AccountSid=AC%s&MessageStatus=%s', lpad(n::text, 32, '0'), lpad(account::text, 32, '0'), status),
            'UTF8'
        ) as body
    ) b
    cross join lateral twilio.receive(
        array[method], array[url],
        array['x-twilio-signature: ' || twilio.compute_signature(signed_url, b.body, secret)
            || E'\ncontent-type: application/x-www-form-urlencoded' || headers],
        array[b.body], array[null]
    ) r;
end;
\set ECHO all

-- Refused under a wrong public URL, at three times.
set twilio_callback.clock_offset = '-3 h';
select r.* from generate_series(1, 500) n cross join lateral request(n, 'https://hooks.example.com/twilio/status') r group by 1, 2;
set twilio_callback.clock_offset = '-2 h';
select r.* from generate_series(1, 500) n cross join lateral request(n, 'https://hooks.example.com/twilio/status', status => 'delivered') r group by 1, 2;
reset twilio_callback.clock_offset;
select r.* from request(1, 'https://hooks.example.com/twilio/status', 'stolen') r;
select r.* from request(2, 'https://hooks.example.com/twilio/status', status => '') r;
select distinct key_id, signed_url, finding, remedy from generate_series(1, 1000, 333) n, twilio.explain_rejected(n);
select * from twilio.reverify_rejected();
select kept_rows from twilio.quarantine where is_plausible;

select twilio.add_public_url('https://hooks.example.com') \gset
select finding, remedy from twilio.explain_rejected(1);
select * from twilio.reverify_rejected(at_most => 100, batch_rows => 64);
select sum(kept_rows) from twilio.quarantine;
select * from twilio.reverify_rejected(batch_rows => 64);
select status, count(*), min(sent_at) = max(sent_at) and min(delivered_at) - min(sent_at) between interval '59 min' and interval '61 min' as original_times
from twilio.message group by 1;
select source, is_advance, count(*), count(distinct received_at) from twilio.message_event group by 1, 2;
select kept_rows, kept_bytes, refused, not_kept from twilio.quarantine_status where is_plausible;
select rejected_id, reason, received_at is not null from twilio_internal.rejected_callback order by 1;
select sum(twilio_internal.bytes_of(r)) - 200 * count(*) as bytes, sum(octet_length(concat(reason, method, url, headers, encode(body, 'escape'), source))) from twilio_internal.rejected_callback r;

-- Once more does nothing; what stays is untouched.
select * from twilio.reverify_rejected();
select count(*) from twilio.message_event;
select refused, not_kept from twilio.quarantine_status where is_plausible;
select twilio.reverify_rejected(0);
select twilio.reverify_rejected(batch_rows => 0);

-- Each mistake has its own explanation.
delete from twilio_internal.rejected_callback;
alter table twilio_internal.rejected_callback alter column rejected_id restart;
select twilio.rotate_auth_token('AC00000000000000000000000000000001', 'newer');
select twilio.retire_signing_key('AC00000000000000000000000000000001', 'auth_token_1') \gset
select twilio.add_shared_key('AC00000000000000000000000000000001', 'shared', 'future', not_before => '2200-01-01', not_after => '2201-01-01') \gset
update twilio.signing_key set not_after = '2026-01-02', not_before = '2026-01-01' where key_id = 'auth_token_1';
select twilio.add_account('AC00000000000000000000000000000003', 'third') \gset
select r.* from request(3, 'http://hooks.example.com/twilio/status', 'newer') r;
select r.* from request(3, 'https://hooks.example.com:8443/twilio/status', 'newer') r;
select r.* from request(3, 'https://front.example.com/twilio/status', 'newer', headers => E'\nhost: inner:8000\nx-forwarded-host: front.example.com') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'newer', url => '/twilio/status/') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status/', 'newer') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'newer', url => '/twilio/status?a=1') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'newer', url => '/inner/twilio/status') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'right') r;
select r.* from request(3, 'https://elsewhere.example.com/twilio/status', 'right', headers => E'\nhost: elsewhere.example.com', url => '/twilio/status/') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'third') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'guessed') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'guessed', account => 9) r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'newer', status => '') r;
select r.* from request(3, 'https://hooks.example.com/twilio/status', 'newer', method => 'PUT') r;
select c.http_status from twilio.sms_callback('/twilio/status', 'a=1', null) c;
select c.http_status from twilio.sms_callback('/twilio/status', '\xff00', 'AAAAAAAAAAAAAAAAAAAAAAAAAAA=') c;
insert into twilio_internal.rejected_callback (received_at, kind, reason, method, url, headers, body)
select twilio.now(), 'callback', 'signature does not match', 'POST', '/twilio/status',
    'x-twilio-signature: ' || twilio.compute_signature('https://hooks.example.com/twilio/status', body, 'future', algorithm => 'HMAC_SHA256'), body
from convert_to('MessageSid=SM00000000000000000000000000000004&AccountSid=AC00000000000000000000000000000001&MessageStatus=sent', 'UTF8') body;
\x on
select r.rejected_id, e.* from twilio_internal.rejected_callback r cross join lateral twilio.explain_rejected(r.rejected_id) e order by 1, 3;
\x off
select * from twilio.explain_rejected(0);
-- An account without any key, named by a form and by JSON.
delete from twilio_internal.rejected_callback;
delete from twilio.signing_key;
select r.* from request(3, 'https://hooks.example.com/twilio/status') r;
select r.http_status
from twilio.receive(
    array['POST'], array['/twilio/status'], array[E'x-twilio-signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\ncontent-type: application/json'],
    array[convert_to('{"AccountSid": "AC00000000000000000000000000000001", "MessageSid": "SM00000000000000000000000000000003"}', 'UTF8')],
    array[null]
) r;
select e.finding, e.remedy from twilio_internal.rejected_callback r cross join lateral twilio.explain_rejected(r.rejected_id) e;

-- No way of refusing shows a secret.
select count(*) from twilio_internal.rejected_callback r cross join lateral twilio.explain_rejected(r.rejected_id) e
where e::text ~ 'newer|third|future';

drop function request;
drop extension twilio_callback;
