-- The daily sweep: when lists are read, what is recorded of a page, and how it ends. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
\i shared/callback.sql
create function message(n int, status text, more jsonb default '{}')
returns jsonb
language sql
begin atomic
    select jsonb_build_object('sid', 'SM' || lpad(n::text, 32, '0'), 'status', message.status, 'direction', 'outbound', 'channel', 'sms',
        'from_address', '+12025550100', 'to_address', '+12025550123', 'body', 'Hello',
        'created_at', (extract(epoch from twilio.now() - interval '3 hours') * 1000)::bigint, 'price', '-0.00790', 'price_unit', 'USD', 'num_segments', 1) || message.more;
end;
-- What Twilio answers to the next request.
create function answer(outcome text, resources jsonb default '[]', next_page text default null, unreadable int default 0, reason text default null)
returns boolean
language sql
begin atomic
    update twilio_internal.reconciliation_account set next_at = twilio.now() where problem is null;
    select twilio_internal.finish_sweep(c.sweep_id, c.lease_token, answer.outcome, answer.resources, answer.next_page, answer.unreadable, answer.reason)
    from twilio_internal.claim_sweep() c;
end;
create view sweep as
select s.day - (twilio.now() at time zone 'UTC')::date as day, s.due_at <= twilio.now() as is_due, s.next_page, s.tries, s.pages, s.messages, s.changed, s.skipped,
    s.finished_at is not null as is_finished, s.problem
from twilio_internal.message_sweep s order by s.day;

-- An account is swept from the day after it was added on, some hours after midnight in UTC, yesterday and today.
select twilio.add_sender('+12025550100'), twilio.add_sender('+12025550109'), twilio.add_fallback_rule('again', from_channel => 'sms', from_address => '+12025550109') \gset
select twilio_internal.queue_daily_sweeps() \gset
table sweep;
select ceil(extract(epoch from (date_trunc('day', now() at time zone 'UTC') + interval '1 day 6 hours') - (now() at time zone 'UTC')))::int as morning \gset
set twilio_callback.clock_offset = :morning;
select twilio_internal.queue_daily_sweeps(), twilio_internal.queue_daily_sweeps() \gset
select day, is_due, is_finished from sweep;
-- A page is recorded, and read once, whatever ends in between.
select day::date - (twilio.now() at time zone 'UTC')::date as day, next_page from twilio_internal.claim_sweep();
select count(*) from twilio_internal.claim_sweep();
select twilio_internal.rescue_orphaned(true);
select callback(1, 'sent', null, '+12025550123', '+12025550100') as m1, callback(2, 'sent', null, '+12025550123', '+12025550100') as m2 \gset
select answer('found', jsonb_build_array(message(1, 'delivered'), message(2, 'sent', '{"price": null}'), message(3, 'undelivered', '{"error_code": 30003}'),
    message(4, 'received', '{"direction": "inbound", "from_address": "+12025550124", "to_address": "+12025550100", "body": "STOP"}')), '/next', 1);
select * from sweep;
select m.message_id in (:m1, :m2) as was_known, m.direction, m.status, m.error_code, m.price, m.num_segments, m.body, date_trunc('hour', twilio.now() - m.created_at + interval '1 minute') as age
from twilio.message m order by m.message_sid;
select source, count(*) from twilio.message_event group by 1 order by 1;
-- Whoever sent what is heard of first here has seen to its failure: no fallback starts. The opt-out goes by Twilio's time.
select count(*) as fallbacks from twilio.message m where m.step > 0;
select date_trunc('hour', twilio.now() - s.created_at + interval '1 minute') as age from twilio.suppression s;
select person_key from twilio.suppression;
-- The same again changes nothing and writes nothing.
create temp table before as select m.ctid as place, m.message_id from twilio.message m;
select answer('found', jsonb_build_array(message(1, 'delivered'), message(3, 'undelivered', '{"error_code": 30003}')));
select count(*) from before b join twilio.message m on m.message_id = b.message_id and m.ctid = b.place;
select day, is_finished, pages, messages, changed, skipped from sweep;
-- What a user's trigger refuses is left out alone.
create function complain() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
create trigger complain before update on twilio.message for each row when (new.price = -9) execute function complain();
select answer('found', jsonb_build_array(message(1, 'delivered', '{"price": "-9"}'), message(2, 'delivered')));
drop trigger complain on twilio.message;
select day, is_finished, messages, changed, skipped from sweep;
select m.status, m.price from twilio.message m where m.message_id = :m2;
-- On demand: the account's days; a list that is being read is not begun anew.
select twilio.sweep_messages((twilio.now() at time zone 'UTC')::date), twilio.sweep_messages('2020-01-01', 'AC00000000000000000000000000000001');
select twilio.sweep_messages('2999-01-01');
select twilio.sweep_messages('2020-01-01', 'AC00000000000000000000000000000002');
-- A page that cannot be read is tried five times, later and later.
delete from twilio_internal.message_sweep where day > '2020-01-01';
select answer('unclear', reason => 'the page cannot be read');
select is_due, tries, is_finished, problem from sweep;
update twilio_internal.message_sweep set due_at = twilio.now(), tries = 4;
select answer('unclear', reason => 'the page cannot be read');
select tries, pages, is_finished, problem from sweep;
-- A failure leaves the account alone.
select twilio.sweep_messages('2020-01-01');
select answer('failed', reason => 'HTTP status 503');
select tries, is_finished, problem from sweep;
select count(*) from twilio_internal.claim_sweep();
select problem from twilio.reconciliation_status;
reset twilio_callback.clock_offset;

drop view sweep;
drop function callback, response, deliver, post, answer, message, complain;
drop extension twilio_callback;
