-- State comes back from the log; what is old goes, and open work never.
create extension twilio_callback;
\set VERBOSITY terse
set timezone = 'UTC';
set twilio_callback.clock_offset = '-101 d';
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/post.sql
create function callback(sid int, status text, code int default null, extra text default '')
returns int
language sql
begin atomic
    select p.http_status
    from post('/s', format('MessageSid=SM%s&From=%%2B12025550100&To=%%2B120255501%s&MessageStatus=%s%s%s',
        lpad(sid::text, 32, '0'), lpad((sid % 100)::text, 2, '0'), status, '&ErrorCode=' || code, extra)) p;
end;

set twilio_callback.clock_offset = '-100 d';
select count(callback(n, 'sent')) from generate_series(1, 300) n;
select count(callback(n, 'delivered')) from generate_series(1, 100) n;
select count(callback(n, 'undelivered', 30005)) from generate_series(101, 200) n;
select count(callback(n, 'failed', 63016, '&ChannelStatusMessage=window')) from generate_series(151, 160) n;
select count(callback(n, 'failed', 63016, '&ChannelStatusMessage=window')) from generate_series(301, 310) n;
select count(callback(n, 'beamed')) from generate_series(311, 320) n;
reset twilio_callback.clock_offset;
select count(callback(n, 'read')) from generate_series(1, 10) n;
select count(callback(n, 'delivered')) from generate_series(321, 330) n;

-- On an intact log nothing differs, and nothing is changed.
select count(*) from twilio.replay();
select count(*) from twilio.replay(dry_run => false);

-- States that were changed by hand are reported, then repaired.
create temp table intact as table twilio.message;
update twilio.message set status = 'queued', error_code = 1, error_message = 'x', is_corrected = true,
    created_at = created_at + interval '1 min', sent_at = null, delivered_at = '2020-01-01', read_at = '2020-01-01', failed_at = null
where message_sid ~ '0[0-2]5.$';
select attribute, count(*), count(distinct message_id) from twilio.replay(batch_rows => 7) group by 1 order by 1;
select count(*) from twilio.message join intact i using (message_id) where message.status <> i.status;
select attribute, stored, replayed from twilio.replay(message_ids => array[155], dry_run => false) where attribute !~ '_at';
select count(distinct message_id) from twilio.replay(created_from => 'now', dry_run => false);
select count(distinct message_id) from twilio.replay(dry_run => false, batch_rows => 7);
select count(*) from twilio.replay();
select count(*) from (table twilio.message except table intact) differing;
select count(*) from twilio.replay(batch_rows => 0);

-- Redaction leaves the state, and what replay makes of it.
update twilio.message set body = 'private', media_urls = array['https://a.example'], metadata = '1', twilio_parameters = '{}',
    idempotency_key = 'key ' || message_id, status_callback = 'https://a.example/150';
insert into twilio_internal.attempt (attempt_id, message_id, started_at, response, reason)
values (gen_random_uuid(), 150, now(), '{"to": "+12025550150"}', '+12025550150 is no number');
set twilio_callback.clock_offset = '-100 d';
select count(c.http_status)
from unnest(array[
    'To=%2B12025550150&MessageSid=SM' || repeat('a', 32), 'MessageSid=SM' || lpad('155', 32, '0'),
    'MessageSid=SM' || repeat('b', 32)
]) u (body)
cross join lateral twilio.sms_callback('/s', convert_to(u.body, 'UTF8'), 'x') c;
reset twilio_callback.clock_offset;
call twilio.redact('50 days', 'whatsapp:+12025550150', effort => 1);
select status, count(*), count(body), count(to_address), count(media_urls) from twilio.message where to_address is null group by 1;
call twilio.redact('50 days');
call twilio.redact('50 days');
select status, count(*), count(body), count(from_address), count(to_address), count(media_urls) from twilio.message group by 1 order by 1;
select distinct params from twilio.message_event where message_id in (1, 155) order by 1;
select count(*) from twilio.message where created_at < now() - interval '50 days' and status not in ('sent', 'accepted', 'read')
    and num_nonnulls(error_message, metadata, twilio_parameters, idempotency_key, status_callback) > 0;
select response, reason from twilio_internal.attempt;
select convert_from(body, 'UTF8') from twilio_internal.rejected_callback;
select sum(q.kept_rows) = count(r) as counts_are_right from twilio.quarantine q left join twilio_internal.rejected_callback r on r.is_plausible = q.is_plausible;
select count(*) from twilio.replay();

-- What redact says is done is on the disk, though the feed has nothing to blank; nor, the second time, the quarantine.
create function see_place() returns trigger language plpgsql as $$
begin
    perform set_config('test.place', pg_current_wal_insert_lsn()::text, false);
    return new;
end
$$;
create trigger see_place before update on twilio.message for each row execute function see_place();
update twilio.message set body = 'private' where message_id = 20;
call twilio.redact('50 days');
select pg_current_wal_flush_lsn() > current_setting('test.place')::pg_lsn as is_flushed;
select twilio_internal.drop_rejected(array_agg(r.rejected_id)) from twilio_internal.rejected_callback r;
update twilio.message set body = 'private' where message_id = 20;
call twilio.redact('50 days');
select pg_current_wal_flush_lsn() > current_setting('test.place')::pg_lsn as is_flushed;
drop trigger see_place on twilio.message;
drop function see_place;

-- Only what is finished and quiet for so long goes, whole chains at a time.
update twilio.message set root_id = 101, step = 1 where message_id = 201;
update twilio.message set root_id = 102, step = 1 where message_id = 103;
begin;
call twilio.purge('50 days');
rollback;
call twilio.purge('101 days');
-- What waits in the outbox stays, and so does what died there unless that is asked for.
insert into twilio.sender (account_sid, address, channel) values ('AC00000000000000000000000000000001', '+12025550100', 'sms');
insert into twilio_internal.outbox (message_id, sender_id, state, is_repeatable, due_at, expires_at)
select n, 1, s, false, 'infinity', 'infinity' from (values (110, 'waiting'), (111, 'dead')) o (n, s);
insert into twilio_internal.attempt (attempt_id, message_id, started_at) values (gen_random_uuid(), 111, now()), (gen_random_uuid(), 112, now());
call twilio.purge('50 days', batch_rows => 7, effort => 1);
select message_id from twilio.message where message_id in (110, 111, 112);
select message_id from twilio_internal.attempt;
select status, count(*), count(*) filter (where created_at < now() - interval '50 days') as old from twilio.message group by 1 order by 1;
select message_id, root_id from twilio.message where message_id in (101, 102, 103, 201) order by 1;
select count(*) from twilio.message_event e where not exists (select from twilio.message m where m.message_id = e.message_id);
select count(*) from twilio.replay();

-- A callback that comes after all makes a row of its own again.
select callback(11, 'delivered'), callback(11, 'sent');
select status, count(*) from twilio.message where message_sid ~ '011$' group by 1;

-- News whose times and order disagree, as those of two connections may.
select callback(331, 'delivered'), callback(332, 'sent'), callback(333, 'undelivered', 30005), callback(334, 'read');
set twilio_callback.clock_offset = '-1 h';
select callback(331, 'read'), callback(332, 'queued'), callback(332, 'delivered'), callback(333, 'failed', 30008), callback(334, 'delivered');
-- A message is as old as the oldest word about it, known or not; ours as old as it was when it was asked for.
select twilio.send_message('+12025550131', 'ours', from_address => '+12025550100') as ours \gset
update twilio.message set message_sid = 'SM' || lpad('336', 32, '0') where message_id = :ours;
select callback(335, 'beamed'), callback(336, 'queued');
set twilio_callback.clock_offset = '-2 h';
select callback(335, 'queued'), callback(336, 'sent');
set twilio_callback.clock_offset = '-3 h';
select callback(335, 'teleported'), callback(336, 'teleported'), callback(333, 'teleported');
reset twilio_callback.clock_offset;
select right(m.message_sid, 3) as sid, m.status, m.created_at = e.oldest as is_oldest, round(extract(epoch from now() - m.created_at) / 3600) as hours
from twilio.message m, lateral (select min(e.received_at) as oldest from twilio.message_event e where e.message_id = m.message_id) e
where m.message_sid ~ '33.$' order by m.message_sid;
select * from twilio.replay();
delete from twilio_internal.outbox where message_id = :ours;

-- Those whose last word never came, and the quarantine, if asked for.
select c.http_status, c.reason from twilio.sms_callback('/s', 'a=1', 'x') c;
set twilio_callback.clock_offset = '100 d';
call twilio.purge('99 days', include_pending => true, include_rejected => true);
select message_id, state from twilio_internal.outbox;
select count(*) from twilio_internal.attempt;
delete from twilio_internal.outbox;
call twilio.purge('99 days', include_pending => true);
reset twilio_callback.clock_offset;
select count(*) from twilio.message;
select count(*) from twilio.message_event;
select count(*) from twilio_internal.rejected_callback;
select sum(kept_rows), sum(kept_bytes) from twilio.quarantine;

call twilio.purge(null);
call twilio.purge('-1 day');
call twilio.purge('1 day', batch_rows => 0);
select twilio.purge('1 day');

drop function callback, post;
drop extension twilio_callback;
