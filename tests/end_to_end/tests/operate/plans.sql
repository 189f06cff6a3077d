-- Fills every table that grows. Nothing is analyzed: autovacuum is off, and no index is built afterwards.
set synchronous_commit = off;
set work_mem = '256MB';

create temporary table n as
select
    nextval('twilio.message_message_id_seq') as id,
    i,
    case when i % 3 = 0 then 'whatsapp' else 'sms' end as channel,
    case when i % 3 = 0 then 'whatsapp:' else '' end as prefix,
    i % 20 = 0 as has_failed,
    i % 10 = 1 as is_inbound,
    twilio.now() - interval '60 days' + i * interval '1 second' as at
from generate_series(1, MESSAGES) i;

insert into twilio.message (
    message_id, root_id, created_at, direction, message_sid, from_address, account_sid, channel, to_address, body,
    status, error_code, sent_at, delivered_at, failed_at, expires_at
)
overriding system value
select
    n.id, n.id, n.at, case when n.is_inbound then 'inbound' else 'outbound' end,
    'SM' || md5('filled ' || n.i), n.prefix || '+12025550100', 'ACCOUNT', n.channel,
    n.prefix || '+1202' || lpad((n.i % 1000000)::text, 7, '0'), 'filled',
    case when n.is_inbound then 'received' when n.has_failed then 'undelivered' else 'delivered' end,
    case when n.has_failed then 30003 end, n.at, case when not n.has_failed then n.at end,
    case when n.has_failed then n.at end, n.at + interval '4 hours'
from n;

insert into twilio.message_event (message_id, received_at, xid, is_advance, error_code, status, source, key_id, public_url, params)
select
    n.id, n.at, '3', true, case when s.status = 'undelivered' then 30003 end, s.status, 'callback', 'auth_token_1',
    'URL', jsonb_build_object('MessageSid', 'SM' || md5('filled ' || n.i), 'MessageStatus', s.status, 'AccountSid', 'ACCOUNT')
from n
cross join lateral (
    select 'received' where n.is_inbound
    union all select 'queued' where not n.is_inbound and n.i % 2 = 0
    union all select 'sent' where not n.is_inbound
    union all select case when n.has_failed then 'undelivered' else 'delivered' end where not n.is_inbound
) s (status);

insert into twilio_internal.attempt (attempt_id, message_id, started_at, finished_at, outcome, http_status)
select overlay(twilio_internal.first_attempt_id(n.at)::text placing right(md5(n.i::text), 12) from 25)::uuid, n.id, n.at, n.at, 'accepted', 201
from n
where not n.is_inbound;

-- What was sent in place of a failed message.
insert into twilio.message (
    root_id, step, created_at, message_sid, from_address, account_sid, to_address, body, status, sent_at, delivered_at, expires_at
)
select n.id, 1, n.at, 'SM' || md5('other ' || n.i), '+12025550101', 'ACCOUNT', '+1202' || lpad((n.i % 1000000)::text, 7, '0'),
    'filled', 'delivered', n.at, n.at, n.at + interval '4 hours'
from n
where n.has_failed;
insert into twilio_internal.fallback (message_id, rule_id, planned_at, not_before, is_preparing, due_at)
select m.message_id, (select min(r.rule_id) from twilio.fallback_rule r), m.created_at, m.created_at, false, 'infinity'
from twilio.message m
where m.step = 1 and m.body = 'filled';

insert into twilio_internal.message_hours (message_id, purpose)
select n.id, 'transactional'
from n
where not n.is_inbound;

-- What waits for its time or for a slow sender, and what stayed unknown.
select twilio.add_sender('+12025550102', rate_per_second => 0.001);
insert into twilio.message (message_id, root_id, from_address, account_sid, to_address, body, status, send_at, expires_at)
overriding system value
select w.id, w.id, case when w.i % 3 = 0 then '+12025550102' else '+12025550100' end, 'ACCOUNT',
    '+1203' || lpad(w.i::text, 7, '0'), 'filled', case when w.i % 20 = 1 then 'unknown' else 'waiting' end,
    twilio.now() + case when w.i % 3 = 0 then interval '-1 hour' else interval '5 days' end, twilio.now() + interval '6 days'
from (select nextval('twilio.message_message_id_seq') as id, i from generate_series(1, MESSAGES / 10) i) w;
insert into twilio_internal.outbox (message_id, sender_id, state, is_repeatable, due_at, expires_at)
select m.message_id, s.sender_id, m.status, false,
    case when m.status = 'unknown' then 'infinity' else m.send_at end, m.expires_at
from twilio.message m
join twilio.sender s on s.address = m.from_address
where m.body = 'filled' and m.status in ('waiting', 'unknown');
insert into twilio_internal.fallback_watch (message_id, due_at)
select o.message_id, o.due_at from twilio_internal.outbox o where o.due_at < 'infinity' and o.due_at > twilio.now() + interval '1 day'
on conflict do nothing;

-- So few that the view that counts them, each with its message, stays within the bound.
insert into twilio_internal.reconciliation (message_id, account_sid, due_at, ended_at)
select n.id, 'ACCOUNT', twilio.now() + interval '1 hour' + n.i * interval '1 second', case when n.i % 40 = 0 then twilio.now() end
from n
where n.has_failed
limit 800;
insert into twilio_internal.smsgate_message (message_id, sender_id)
select m.message_id, (select g.sender_id from twilio.smsgate g) from twilio.message m where m.step = 1 and m.body = 'filled';
insert into twilio.message_media (message_id, place, url, content_type, content, fetched_at)
select n.id, 0, 'https://api.twilio.com/' || n.i, 'image/png', 'x', n.at from n where n.is_inbound;
insert into twilio.reply (message_id, rule_id, twiml) select n.id, 1, '<Response/>' from n where n.is_inbound;
insert into twilio_internal.acknowledgement (message_id, deadline_at, acknowledged_at) select n.id, n.at, n.at from n where n.is_inbound;
insert into twilio.suppression (address, person_key, account_sid, kind)
select '+1204' || lpad(i::text, 7, '0'), twilio.person_key('+1204' || lpad(i::text, 7, '0')), 'ACCOUNT', 'opt_out' from generate_series(1, MESSAGES / 10) i;
insert into twilio_internal.last_opt_in (person_key, account_sid, from_address, said_at)
select '+1205' || lpad(i::text, 7, '0'), 'ACCOUNT', '+12025550100', twilio.now() from generate_series(1, MESSAGES / 10) i;
insert into twilio_internal.purged_message (sid_digest) select md5('purged ' || i)::uuid from generate_series(1, MESSAGES) i;

insert into twilio_internal.rejected_callback (received_at, kind, reason, method, url, headers, body, source, network)
select n.at, case when n.i % 3 = 0 then 'stranger' when n.i % 3 = 1 then 'phone' else 'callback' end,
    'its signature does not verify', 'POST', 'URL/twilio/status', '', 'x', '10.0.0.1', 'network ' || n.i % 1000
from n
where n.i % 10 = 0;
insert into twilio.quarantine_source (kind, network, kept_rows, kept_bytes)
select r.kind, r.network, count(*), sum(twilio_internal.bytes_of(r)) from twilio_internal.rejected_callback r group by r.kind, r.network
on conflict (kind, network) do update set kept_rows = excluded.kept_rows, kept_bytes = excluded.kept_bytes;
insert into twilio.quarantine (kind, max_rows, max_bytes, rows_per_second, burst_rows, tokens, kept_rows, kept_bytes)
select s.kind, 0, 0, 0, 0, 0, sum(s.kept_rows), sum(s.kept_bytes) from twilio.quarantine_source s group by s.kind
on conflict (kind) do update
-- Full, so that what is refused displaces something.
set kept_rows = excluded.kept_rows, kept_bytes = excluded.kept_bytes, max_rows = excluded.kept_rows, tokens = 1000, burst_rows = 1000;

insert into twilio_internal.feed_event (kind, message_id, data, xid)
select 'suppression.began', n.id, '{}', '3' from n where n.i % 10 = 2;
insert into twilio_internal.feed_delivery (consumer, event_id, message_id, due_at, tries)
select 'reader', e.event_id, e.message_id, twilio.now(), 0 from twilio.message_event e where e.xid = '3' and e.event_id % 5 = 0;
insert into twilio.feed_dead_letter (consumer, event_id, message_id, tries)
select 'reader', e.event_id, e.message_id, 20 from twilio.message_event e where e.xid = '3' and e.event_id % 50 = 1;

-- Consumers have had all of this.
select twilio.feed_tick(is_forced => true);
update twilio_internal.feed_position p
set tick_id = t.tick_id, target_tick_id = t.tick_id, after_event_id = 0
from (select max(k.tick_id) as tick_id from twilio_internal.tick k) t;
