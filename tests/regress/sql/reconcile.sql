-- Messages whose callbacks did not come: what is queued, when, in which order and at which rate, and what the answers make of it.
-- No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
\i shared/callback.sql
\i shared/sent.sql
-- The time to the next request passes, unless Twilio is left alone.
create procedure pass()
language sql
begin atomic
    update twilio_internal.reconciliation_account set next_at = twilio.now() where problem is null;
end;
-- What Twilio answers to the next request.
create function answer(outcome text, status text default null, code int default null, more jsonb default '{}', retry_after_ms bigint default null)
returns table (sid text, is_held boolean)
language sql
begin atomic
    update twilio_internal.reconciliation_account set next_at = twilio.now() where problem is null;
    select right(c.message_sid, 2), twilio_internal.finish_reconciliation(
        c.message_id, c.lease_token, answer.outcome,
        case when answer.outcome = 'found' then
            jsonb_build_object('sid', c.message_sid, 'status', answer.status, 'direction', 'outbound', 'error_code', answer.code) || answer.more
        end,
        case when answer.outcome <> 'found' then 'HTTP status 503' end, answer.retry_after_ms
    )
    from twilio_internal.claim_reconciliation(10) c;
end;
create view queue as
select right(m.message_sid, 2) as sid, m.status, make_interval(mins => round(extract(epoch from r.due_at - twilio.now()) / 60)::int) as due_in, r.tries, r.lease_token is not null as is_leased,
    r.ended_at is not null as is_ended, r.problem
from twilio_internal.reconciliation r join twilio.message m using (message_id)
order by m.message_id;

-- Only messages at Twilio without a final status are queued, and only once they are old enough.
select twilio_internal.examine_messages() is not null as has_begun;
select sent(1, '+12025550101') as m1, sent(2, '+12025550102') as m2, callback(3, 'sent', null, '+12025550103') as m3 \gset
select callback(4, 'sent', null, '+12025550104') as m4, callback(4, 'delivered', null, '+12025550104') as again \gset
select twilio.send_message('+12025550105', 'still waits') as m5 \gset
select twilio.send_message('+12025550106', 'scheduled', send_at => twilio.now() + interval '1 hour') as m6 \gset
select twilio_internal.examine_messages();
set twilio_callback.clock_offset = '890 s';
select twilio_internal.examine_messages();
set twilio_callback.clock_offset = '905 s';
select twilio_internal.examine_messages() > 0 as has_examined;
select sid, status, due_in <= interval '0' as is_due, tries from queue;
select twilio_internal.examine_messages();

-- One request at a time, five a second, the oldest first. What waits here or is scheduled is not fetched.
select twilio_internal.next_reconciliation() <= 0 as is_due;
select right(message_sid, 2) as sid, tries, api_url from twilio_internal.claim_reconciliation(10);
select count(*) from twilio_internal.claim_reconciliation(10);
select twilio_internal.next_reconciliation() > 0 as is_later;
set twilio_callback.clock_offset = '906 s';
select right(message_sid, 2) as sid, lease_token as token, message_id as id from twilio_internal.claim_reconciliation(10) \gset
select :'sid' as sid;
-- The answer counts as a callback does, with prices; then the message is done.
select twilio_internal.finish_reconciliation(:id, :'token', 'found', jsonb_build_object('sid', 'SM' || lpad('2', 32, '0'), 'status', 'delivered',
    'direction', 'outbound', 'price', '-0.00790', 'price_unit', 'USD', 'num_segments', 2));
select twilio_internal.finish_reconciliation(:id, :'token', 'missing');
select status, price, price_unit, num_segments, delivered_at is not null as is_delivered from twilio.message where message_id = :m2;
select e.status, e.source, e.params ->> 'MessageSid' is not null as has_sid from twilio.message_event e where e.message_id = :m2 order by e.event_id;
-- A callback that comes after all is the same event.
select response.is_new from response(2, 'delivered');
select count(*) from twilio.message_event e where e.message_id = :m2;
-- One that comes before the request spares it.
select response.is_new from response(1, 'delivered');
select sid, is_leased from queue;
-- A worker that starts takes up what the last one left.
select twilio_internal.rescue_orphaned(true);
select sid, due_in <= interval '0' as is_due, is_leased, tries from queue where sid is not null;
set twilio_callback.clock_offset = '907 s';
select * from answer('found', 'sent');
select sid, due_in, tries, problem from queue where sid is not null;
select count(*) from queue where sid = '01';

-- Each answer that settles nothing doubles the time to the next one, up to a day; after four days it is given up.
set twilio_callback.clock_offset = '2708 s';
select * from answer('found', 'sent');
select due_in, tries from queue where sid = '03';
update twilio_internal.reconciliation set tries = 8, due_at = twilio.now() where message_id = :m3;
select * from answer('unclear');
select due_in, tries, problem, is_ended from queue where sid = '03';
update twilio_internal.reconciliation set due_at = twilio.now() where message_id = :m3;
set twilio_callback.clock_offset = '280000 s';
select * from answer('found', 'sent');
select due_in, is_ended, problem from queue where sid = '03';
select right(message_sid, 2) as sid, status, tries, reason from twilio.unreconciled_message;
-- It is looked at without a request, and leaves the list once it has a final status or is purged.
set twilio_callback.clock_offset = '366500 s';
call pass();
select count(*) from twilio_internal.claim_reconciliation(10);
select due_in, is_ended from queue where sid = '03';
-- Whoever wants to, has it fetched again.
select twilio.reconcile('1 hour'), twilio.reconcile('5 days', 'AC00000000000000000000000000000001');
select right(message_sid, 2) as sid from twilio.unreconciled_message;
select right(account_sid, 2) as account, waiting, due, in_flight, ended, rate_per_second, paused_until, problem, done_at > twilio.now() as will_be_done
from twilio.reconciliation_status;
select * from answer('missing');
select right(message_sid, 2) as sid, reason from twilio.unreconciled_message;
select verdict, detail, remedy from twilio.doctor() where "check" = 'reconciliation';
select response.is_new from response(3, 'delivered');
select count(*) from twilio.unreconciled_message;
update twilio_internal.reconciliation set due_at = twilio.now() where message_id = :m3;
call pass();
select count(*) from twilio_internal.claim_reconciliation(10);
select count(*) from queue where sid = '03';
select twilio.reconcile('-1 hour');
select twilio.reconcile('1 hour', 'AC00000000000000000000000000000002');

-- A failure that concerns the account stops all of its requests, the longer the more there are; a try does not count.
select count(callback(10 + n, 'sent', null, '+120255501' || 10 + n)) from generate_series(1, 3) n;
select twilio.reconcile('1 minute');
select * from answer('failed', retry_after_ms => 30000);
select due_in, tries, problem from queue where sid = '11';
select round(extract(epoch from paused_until - twilio.now())) as pause, due, problem from twilio.reconciliation_status;
select verdict, detail from twilio.doctor() where "check" = 'reconciliation';
set twilio_callback.clock_offset = '366529 s';
select count(*) from twilio_internal.claim_reconciliation(10);
select twilio_internal.next_reconciliation() between 0 and 5 as is_soon;
set twilio_callback.clock_offset = '366531 s';
select * from answer('failed');
select round(extract(epoch from paused_until - twilio.now())) as pause from twilio.reconciliation_status;
set twilio_callback.clock_offset = '366542 s';
select * from answer('failed');
select round(extract(epoch from paused_until - twilio.now())) as pause from twilio.reconciliation_status;
set twilio_callback.clock_offset = '366563 s';
select is_held from answer('found', 'delivered');
select failures, problem from twilio_internal.reconciliation_account;
select is_held from answer('found', 'delivered');
select is_held from answer('found', 'delivered');
select count(*) from queue where sid is not null;

-- A failure starts its fallback, once, whether the answer or the callback comes first; its wording is Twilio's.
select twilio.enable_whatsapp_to_sms() \gset
select sent(21, 'whatsapp:+12025550121') as m21, sent(22, 'whatsapp:+12025550122') as m22 \gset
select twilio.reconcile('1 minute');
select is_held from answer('found', 'undelivered', 63049, '{"error_message": "Meta chose not to deliver"}');
select callback(21, 'undelivered', 63049) as again \gset
select m.step, m.channel, m.status, m.error_code, m.error_message from twilio.message m where m.root_id = :m21 order by m.step;
select callback(22, 'undelivered', 63049) as first \gset
call pass();
select count(*) from twilio_internal.claim_reconciliation(10);
select m.step, m.channel, m.status from twilio.message m where m.root_id = :m22 order by m.step;
-- An answer that is older than the callbacks changes nothing.
select callback(23, 'sent', null, '+12025550123') as m23 \gset
select twilio.reconcile('1 minute') \gset
call pass();
select message_id as id, lease_token as token from twilio_internal.claim_reconciliation(10) where message_id = :m23 \gset
select response.is_new from response(23, 'delivered');
select twilio_internal.finish_reconciliation(:id, :'token', 'found', jsonb_build_object('sid', 'SM' || lpad('23', 32, '0'), 'status', 'sending', 'direction', 'outbound'));
select status from twilio.message where message_id = :m23;

-- A message of a transaction that is slow to commit is not missed (isolation/reconcile); what a purge removes leaves the queue.
select callback(24, 'sent', null, '+12025550124') as m24 \gset
select twilio.reconcile('1 minute') \gset
set twilio_callback.clock_offset = '999999 s';
call twilio.purge('1 day', include_pending => true);
select count(*) from queue where sid is not null;
-- Off.
alter system set twilio_callback.reconcile_after = 0;
select pg_reload_conf(), pg_sleep(0.3) \gset
select twilio_internal.examine_messages(), twilio_internal.next_reconciliation();
select twilio.reconcile();
select verdict, detail, remedy from twilio.doctor() where "check" = 'reconciliation';
alter system reset twilio_callback.reconcile_after;
select pg_reload_conf() \gset
-- A copy makes no request.
select twilio.disable_sending() \gset
select count(*) from twilio_internal.claim_reconciliation(10);
reset twilio_callback.clock_offset;

drop view queue;
drop procedure pass;
drop function callback, response, deliver, post, sent, answer;
drop extension twilio_callback;
