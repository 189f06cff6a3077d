-- A queued message is claimed, sent and finished: every outcome, and what follows from it. No worker runs here.
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100'), twilio.add_sender('12345'),
    twilio.add_sender('My Shop', rate_per_second => 0.1, burst => 10), twilio.add_sender('MG00000000000000000000000000000001') \gset
select twilio.send_message('+12025550101', 'hello', metadata => '{"order": 7}') = 1 as is_first;
select twilio.send_message('whatsapp:+12025550101', twilio_parameters => '{"ContentSid": "HX1", "ContentVariables": {"1": "a"}}') is not null as ok;
select twilio.send_message('+12025550101', 'by service', from_address => 'MG00000000000000000000000000000001') is not null as ok;
select twilio.send_message('+12025550102', 'keyed', idempotency_key => 'k1') as keyed \gset

-- One claim takes what is due once; the attempt is there before the request.
create temp table job as select * from twilio_internal.claim(10);
select message_id = :keyed as is_keyed, state, tries, account_sid, api_url, from_address, to_address, messaging_service_sid, body,
    twilio_parameters, status_callback, validity_s > 14000 as has_validity
from job order by message_id;
select count(*) from twilio_internal.claim(10);
select count(*) from twilio_internal.attempt where outcome is null;
select twilio.cancel_message(1);

-- Accepted: the SID is bound, the response kept, the work over.
\set ECHO none
create function finish(id bigint, outcome text, sid text default null, status text default null, code int default null,
    reason text default null, response text default null, retry_after_ms bigint default null)
returns int
language sql
begin atomic
    select twilio_internal.finish(
        array[id], array(select o.lease_token from twilio_internal.outbox o where o.message_id = id), array[outcome], array[sid],
        array[status], array[null::int], array[code], array[reason], array[response], array[retry_after_ms]
    );
end;
\set ECHO all
select finish(1, 'accepted', 'SM00000000000000000000000000000001', 'queued',
    response => '{"sid": "SM00000000000000000000000000000001", "num_segments": "2", "price": "-0.0075", "price_unit": "USD"}');
select message_sid, status, num_segments, price, price_unit from twilio.message where message_id = 1;
select outcome, response ->> 'sid' as sid from twilio_internal.attempt where message_id = 1;
select count(*) from twilio_internal.outbox where message_id = 1;
select twilio.cancel_message(1);
select twilio.retry_message(1);

-- Refused: final, with Twilio's code.
select finish(2, 'refused', null, 'refused', 21211, 'Invalid ''To'' Phone Number');
select status, error_code, error_message, failed_at is not null as failed from twilio.message where message_id = 2;
-- Not processed: due again.
select finish(3, 'not_processed', reason => 'connect: refused', retry_after_ms => 5000);
select state, tries, due_at - twilio.now() between interval '3 s' and interval '5 s' as is_later, lease_token from twilio_internal.outbox where message_id = 3;
select count(*) from twilio_internal.claim(10);
set twilio_callback.clock_offset = '6 s';
select message_id, tries from twilio_internal.claim(10);
-- A worker that ends over it leaves an open outcome.
select twilio_internal.rescue_orphaned(true);
select message_id, state, crashes from twilio_internal.outbox order by message_id;
select status from twilio.message where message_id in (3, :keyed) order by message_id;
-- Looked for and found by a callback that carries the attempt.
select state from twilio_internal.claim(10);
\i shared/post.sql
create function callback(attempt uuid, sid text, status text)
returns table (http_status int, reason text, message_id bigint)
language sql
begin atomic
    select p.http_status, p.reason, p.message_id
    from post('/twilio/status' || coalesce('?attempt=' || attempt, ''),
        format('MessageSid=%s&From=%%2B12025550100&To=%%2B12025550101&MessageStatus=%s', sid, status)) p;
end;
select c.* from callback((select max(attempt_id::text)::uuid from twilio_internal.attempt where message_id = 3), 'SM00000000000000000000000000000003', 'sent') c;
select message_sid, status from twilio.message where message_id = 3;
select finish(3, 'again', retry_after_ms => 1000);
set twilio_callback.clock_offset = '10 s';
select count(*) from twilio_internal.claim(10) c where c.message_id = 3;
select count(*) from twilio_internal.outbox where message_id = 3;

-- A look-up that makes the worker crash is postponed before it is given up: it may settle a message that must not be sent again.
begin;
update twilio_internal.outbox set crashes = 2, lease_token = gen_random_uuid(), lease_until = 'infinity' where message_id = :keyed;
select twilio_internal.rescue_orphaned(true);
select state, crashes, due_at - twilio.now() as put_off_for from twilio_internal.outbox where message_id = :keyed;
update twilio_internal.outbox set crashes = 5, lease_token = gen_random_uuid(), lease_until = 'infinity' where message_id = :keyed;
select twilio_internal.rescue_orphaned(true);
select state, crashes, due_at from twilio_internal.outbox where message_id = :keyed;
rollback;

-- What stays unknown is listed and not sent again, unless by hand.
select finish(:keyed, 'open');
select state, due_at from twilio_internal.outbox where message_id = :keyed;
select twilio.retry_message(:keyed) - :keyed > 0 as is_later;
select root_id = :keyed as same_root, step, try, status, idempotency_key from twilio.message where root_id = :keyed order by try;
select twilio.retry_message(:keyed);

-- The policy at_least_once makes a new create of it.
set twilio_callback.delivery = 'at_least_once';
select twilio.send_message('+12025550103', 'rather twice') as twice \gset
select count(*) from twilio_internal.claim(10);
select twilio_internal.rescue_orphaned(true);
select message_id = :twice as is_it from twilio_internal.claim(10) where state = 'unknown' order by 1;
select finish(:twice, 'absent');
select try, status from twilio.message where root_id = :twice order by try;
-- But not of one whose SID a callback reported after the list was read.
select twilio.send_message('+12025550103', 'told meanwhile') as told \gset
select count(*) from twilio_internal.claim(10) c where c.message_id = :told;
select twilio_internal.rescue_orphaned(true) > 0 as ok;
select state from twilio_internal.claim(10) c where c.message_id = :told;
select c.message_id = :told as is_it from callback((select attempt_id from twilio_internal.attempt where message_id = :told), 'SM00000000000000000000000000000012', 'sent') c;
select finish(:told, 'absent');
select try, status from twilio.message where root_id = :told order by try;
select twilio_internal.expire_due() > 0 as ok;
select count(*) from twilio_internal.outbox where message_id = :told;
reset twilio_callback.delivery;

-- The response that comes after its callback: one row, all events.
select twilio.send_message('+12025550104', 'early') as early \gset
select count(*) > 0 as ok from twilio_internal.claim(10);
select c.http_status, c.reason, c.message_id = :early as is_it
from callback((select attempt_id from twilio_internal.attempt where message_id = :early), 'SM00000000000000000000000000000004', 'delivered') c;
select finish(:early, 'accepted', 'SM00000000000000000000000000000004', 'queued', response => '{"sid": "SM00000000000000000000000000000004"}');
select message_id = :early as is_it, status from twilio.message where message_sid = 'SM00000000000000000000000000000004';
select status, source from twilio.message_event where message_id = :early order by event_id;

-- A look-up says what an attempt came to; when it ended and what was answered stays.
begin;
select twilio.send_message('+12025550111', 'looked up') as looked \gset
select count(*) > 0 as ok from twilio_internal.claim(10);
select finish(:looked, 'unknown', null, 'unknown', 20500, 'server error', response => '{"status": 500}', retry_after_ms => 0);
update twilio_internal.attempt set finished_at = finished_at - interval '1 min' where message_id = :looked;
select state from twilio_internal.claim(10) c where c.message_id = :looked;
select finish(:looked, 'accepted', 'SM00000000000000000000000000000011', 'sent');
select outcome, finished_at < twilio.now() as ended_before, error_code, response from twilio_internal.attempt where message_id = :looked;
rollback;

-- Without the attempt a row of its own is made, and merged with ours by the response.
select twilio.send_message('+12025550105', 'stray') as stray \gset
select count(*) > 0 as ok from twilio_internal.claim(10);
select c.http_status, c.message_id <> :stray as is_other from callback(null, 'SM00000000000000000000000000000005', 'sent') c;
select finish(:stray, 'accepted', 'SM00000000000000000000000000000005', 'queued', response => '{"sid": "SM00000000000000000000000000000005"}');
select message_id = :stray as is_it, status, body from twilio.message where message_sid = 'SM00000000000000000000000000000005';
select status, source from twilio.message_event where message_id = :stray order by event_id;

-- Scheduled, canceled, expired, suppressed.
select twilio.send_message('+12025550106', 'later', send_at => twilio.now() + interval '1 hour') as later \gset
select twilio.send_message('+12025550106', 'stale', expires_after => '10 s') as stale \gset
select twilio.send_message('+12025550107', 'blocked') as blocked \gset
select twilio.cancel_message(:later) \gset
select twilio.cancel_message(:later);
insert into twilio.suppression (address, kind) values ('+12025550107', 'opt_out');
set twilio_callback.clock_offset = '60 s';
select twilio_internal.expire_due();
select count(*) from twilio_internal.claim(100) c where c.message_id in (:later, :stale, :blocked);
select status, body from twilio.message where message_id in (:later, :stale, :blocked) order by message_id;
set twilio_callback.default_expiry = '1 min';
select twilio.send_message('+12025550108', 'short') as short \gset
select expires_at - created_at as lifetime from twilio.message where message_id = :short;

-- A paused account waits, and a limited sender keeps to its rate.
select twilio_internal.pause_account('AC00000000000000000000000000000001', 'Authenticate', 20003) \gset
select count(*) from twilio_internal.claim(100);
select twilio_internal.next_due() is null as nothing_due;
select twilio.resume_account('AC00000000000000000000000000000001'), twilio.resume_account('AC00000000000000000000000000000001');
select count(*) from twilio_internal.claim(100) c where c.message_id = :short;
select count(twilio.send_message('+12025550109', 'paced', from_address => 'My Shop')) from generate_series(1, 25);
select count(*) from twilio_internal.claim(100);
select count(*) from twilio_internal.claim(100);
select twilio_internal.next_due() between 5 and 10 as is_soon;
set twilio_callback.clock_offset = '110 s';
select count(*) from twilio_internal.claim(100);

-- A message that a messaging service sent from a number that is not a sender here is retried through the service.
begin;
select twilio.send_message('+12025550117', 'by service', from_address => 'MG00000000000000000000000000000001') as serviced \gset
select count(*) from twilio_internal.claim(100) c where c.message_id = :serviced;
select finish(:serviced, 'accepted', 'SM00000000000000000000000000000117', 'accepted');
select http_status
from post('/twilio/status', 'MessageSid=SM00000000000000000000000000000117&From=%2B12025550199&To=%2B12025550117&MessageStatus=failed&ErrorCode=30001');
select from_address, status from twilio.message where message_id = :serviced;
select twilio.retry_message(:serviced) as retried \gset
select from_address, messaging_service_sid, status, try from twilio.message where message_id = :retried;
rollback;

-- So is one whose service is set up beside the address of a sender, which the retry goes from.
begin;
select twilio.add_sender('rcs:agent_x', messaging_service_sid => 'MG00000000000000000000000000000002') is not null as ok;
select twilio.send_message('rcs:+12025550118', 'by agent', from_address => 'rcs:agent_x') as serviced \gset
select count(*) from twilio_internal.claim(100) c where c.message_id = :serviced;
select finish(:serviced, 'accepted', 'SM00000000000000000000000000000118', 'accepted');
select http_status
from post('/twilio/status', 'MessageSid=SM00000000000000000000000000000118&From=%2B12025550199&To=rcs%3A%2B12025550118&MessageStatus=failed&ErrorCode=30001');
select from_address, messaging_service_sid, status from twilio.message where message_id = :serviced;
select twilio.retry_message(:serviced) as retried \gset
select from_address, messaging_service_sid, status, try from twilio.message where message_id = :retried;
rollback;

-- The views of all this.
select is_sending_on, is_worker_running, depth, due, oldest_due_age > '0' as is_late, in_flight, unknown, dead, paused_accounts
from twilio.queue_status;
select address, depth, in_flight, round(tokens::numeric, 1) >= 0 as has_tokens, sent_per_second > 0 as sends, is_paused
from twilio.sender_status order by address;
select message_id = :keyed as is_keyed, kind, provider, request, error_code, error_text, error_message, more_info, tries
from twilio.failed_message order by message_id;
select outcome, http_status, count(*) from twilio.message_attempt group by 1, 2 order by 1, 2;

drop function finish, callback, post;
drop extension twilio_callback;
