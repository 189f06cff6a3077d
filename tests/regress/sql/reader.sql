-- A reader that is confined to accounts sees their messages and all that belongs to these, and nothing else.
create extension twilio_callback;
\set VERBOSITY terse
\set one 'AC00000000000000000000000000000001'
\set two 'AC00000000000000000000000000000002'
select twilio.add_account(:'one', 'first', 'https://hooks.example.com'), twilio.add_account(:'two', 'second') \gset
select twilio.add_sender('+12025550101', account_sid => :'one'), twilio.add_sender('+12025550102', account_sid => :'two') \gset
insert into twilio.consent_keyword (account_sid, keyword, action) values (:'one', 'bye', 'stop'), (:'two', 'ciao', 'stop'), (null, 'adieu', 'stop');
\set ECHO none
create function say(sid int, account_sid text, status text, direction text default 'outbound', channel text default 'sms')
returns void
language sql
begin atomic
    select
    from twilio_internal.record(array[twilio_internal.make_report(
        status, account_sid => account_sid, message_sid => 'SM' || lpad(sid::text, 32, '0'),
        direction => direction, channel => channel, to_address => '+12025550101'
    )]);
end;
\set ECHO all
select say(1, :'one', 'sent'), say(1, :'one', 'failed'), say(2, :'two', 'sent'), say(2, :'two', 'failed'),
    say(3, null, 'sent'), say(4, :'one', 'received', 'inbound'), say(5, :'two', 'received', 'inbound');
set client_min_messages = warning;
select twilio.send_message('+12025550124', 'one', '+12025550101'), twilio.send_message('+12025550124', 'two', '+12025550102');
reset client_min_messages;
insert into twilio_internal.attempt (attempt_id, message_id, started_at)
select twilio_internal.new_attempt_id(), o.message_id, twilio.now() from twilio_internal.outbox o;
-- One of each that belongs to a message, as fallbacks, replies and phones leave them.
insert into twilio_internal.fallback (message_id, not_before, is_preparing, due_at)
select m.message_id, now(), false, 'infinity' from twilio.message m where m.status = 'failed';
insert into twilio.reply (message_id, rule_id, twiml)
select m.message_id, 1, '<Response/>' from twilio.message m where m.direction = 'inbound';
insert into twilio_internal.acknowledgement (message_id, deadline_at)
select m.message_id, now() from twilio.message m where m.direction = 'inbound';
insert into twilio.message_media (message_id, place, url)
select m.message_id, 0, 'https://api.twilio.com/x' from twilio.message m where m.direction = 'inbound';
set client_min_messages = warning;
select twilio.add_smsgate('user', 'password') \gset
reset client_min_messages;
insert into twilio_internal.smsgate_message (message_id, sender_id)
select m.message_id, g.sender_id from twilio.message m, twilio.smsgate g where m.status = 'failed';

create role twilio_test_all;
create role twilio_test_one;
create role twilio_test_both;
create role twilio_test_member;
create role twilio_test_hand;
create role twilio_test_backup;
grant twilio_test_one to twilio_test_member;
grant pg_read_all_data to twilio_test_backup;
select twilio.grant_read('twilio_test_all'), twilio.grant_read('twilio_test_one', :'one'),
    twilio.grant_read('twilio_test_both', :'one'), twilio.grant_read('twilio_test_both', :'two') \gset
select twilio.grant_read('twilio_test_one', :'one') \gset
select * from twilio_internal.reader order by role, account_sid;
select twilio.grant_read('twilio_test_one', 'AC00000000000000000000000000000003');
select twilio.grant_read('twilio_test_all', :'one');
-- A role with a direct grant on a table learns that the rest is missing.
grant usage on schema twilio to twilio_test_hand;
grant select on twilio.message to twilio_test_hand;

-- How many rows each sees.
\set ECHO none
create function pg_temp.rows_of(relation regclass, role text)
returns text
language plpgsql
as $$
declare
    n bigint;
begin
    perform set_config('role', role, true);
    execute format('select count(*) from %s', relation) into n;
    perform set_config('role', 'none', true);
    return n;
exception
    when insufficient_privilege then
        return sqlerrm;
end
$$;
\set ECHO all
select c.relname,
    pg_temp.rows_of(c.oid, 'none') as owner,
    pg_temp.rows_of(c.oid, 'twilio_test_all') as "all",
    pg_temp.rows_of(c.oid, 'twilio_test_both') as both,
    pg_temp.rows_of(c.oid, 'twilio_test_one') as one,
    pg_temp.rows_of(c.oid, 'twilio_test_member') as member,
    pg_temp.rows_of(c.oid, 'twilio_test_backup') as backup
from pg_class c
where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind in ('r', 'v')
    and has_table_privilege('twilio_test_one', c.oid, 'select')
    -- Shipped, and of no account.
    and c.relname not in ('error_code', 'error_code_override')
order by c.relname collate "C";
select pg_temp.rows_of('twilio.message', 'twilio_test_hand');
-- Whatever table is open to a confined reader has a policy, if it is not the same for all.
select c.oid::regclass as without_policy
from pg_class c
where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind = 'r' and has_any_column_privilege('twilio_test_one', c.oid, 'select')
    and not c.relrowsecurity;
-- Nothing else is open to a confined reader, and it may change nothing.
select string_agg(c.relname, ', ' order by c.relname collate "C") as writable
from pg_class c
where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and has_any_column_privilege('twilio_test_one', c.oid, 'insert, update, references');
select p.oid::regprocedure as callable, p.prosecdef as owners_rights
from pg_proc p
where p.pronamespace::regnamespace::text ~ '^twilio' and has_function_privilege('twilio_test_one', p.oid, 'execute')
order by p.proname collate "C";

set role twilio_test_one;
select message_id, account_sid, status from twilio.message_status order by 1;
select * from twilio_internal.reader;
select count(*) as of_others from twilio.message where message_id in (2, 3, 5);
select keyword from twilio.consent_keyword where account_sid is not null;
-- A condition that talks is asked about the rows that are seen alone.
create function pg_temp.tell(account_sid text) returns boolean language plpgsql cost 0.0001 as $$ begin raise notice 'saw %', account_sid; return true; end $$;
select count(*) from twilio.message where pg_temp.tell(account_sid);
select * from twilio.sender;
select * from twilio.suppression;
select twilio.explain_fallback(2);
insert into twilio_internal.reader values ('twilio_test_one', null);
reset role;

-- A role that was renamed sees nothing.
alter role twilio_test_one rename to twilio_test_other;
select pg_temp.rows_of('twilio.message', 'twilio_test_other'), pg_temp.rows_of('twilio.message_event', 'twilio_test_other');
alter role twilio_test_other rename to twilio_test_one;
-- A role with further grants is not confined; once they are revoked, it can be.
select twilio.grant_read('twilio_test_one') \gset
select pg_temp.rows_of('twilio.message', 'twilio_test_one');
drop owned by twilio_test_one;
select twilio.grant_read('twilio_test_one', :'two') \gset
select role, account_sid from twilio_internal.reader where role = 'twilio_test_one';
select pg_temp.rows_of('twilio.message', 'twilio_test_one');
-- The planner's estimates tell how much others have; those of a function that reads for a role do not.
select count(say(n, :'one', 'sent')) from generate_series(1000, 1400) n;
analyze twilio.message;
\set ECHO none
create function estimate(query text) returns numeric language plpgsql as $$
declare
    plan jsonb;
begin
    execute 'explain (format json) ' || query into plan;
    return plan -> 0 -> 'Plan' -> 'Plan Rows';
end
$$;
create function messages_of_two() returns setof twilio.message_status
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$ begin return query select * from twilio.message_status where account_sid = 'AC00000000000000000000000000000002'; end $$;
\set ECHO all
set role twilio_test_one;
select estimate(format('select from twilio.message where account_sid = %L', :'one')) > 100 as shows_others;
select count(distinct estimate(format('select from messages_of_two() where account_sid = %L', account))) as estimates,
    (select count(*) > 0 and bool_and(account_sid = :'two') from messages_of_two()) as reads_its_own
from unnest(array[:'one', :'two', 'AC9']) account;
reset role;
drop function estimate, messages_of_two;
-- One whose account is gone sees nothing, either.
delete from twilio_internal.outbox;
delete from twilio.sender where account_sid = :'two';
delete from twilio.account where account_sid = :'two';
select pg_temp.rows_of('twilio.message', 'twilio_test_one');

drop owned by twilio_test_all, twilio_test_one, twilio_test_both, twilio_test_member, twilio_test_hand, twilio_test_backup;
drop role twilio_test_all, twilio_test_one, twilio_test_both, twilio_test_member, twilio_test_hand, twilio_test_backup;
drop function say;
drop extension twilio_callback;
