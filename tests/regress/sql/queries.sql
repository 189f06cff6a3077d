-- The newest messages and events, those of a person and of an address, failures and pages are read by an index, also by a reader
-- who is confined to an account; twilio.find_messages finds them by any of its arguments and pages through them.
create extension twilio_callback;
\set VERBOSITY terse
\set one 'AC00000000000000000000000000000001'
\set two 'AC00000000000000000000000000000002'
select twilio.add_account(:'one', 'first'), twilio.add_account(:'two', 'second') \gset
select twilio.add_sender('+12025550000', account_sid => :'one') \gset
-- 200 messages at a time have the same created_at, as those of one statement.
insert into twilio.message (message_sid, account_sid, channel, direction, from_address, to_address, status, error_code, created_at, failed_at, root_id)
overriding system value
select
    'SM' || md5(n::text),
    case when n % 50 = 0 then :'two' else :'one' end,
    case when n % 3 = 0 then 'whatsapp' else 'sms' end,
    case when n % 20 = 1 then 'inbound' else 'outbound' end,
    case when n % 20 = 1 then a.person else a.own end,
    case when n % 20 = 1 then a.own else a.person end,
    case when n % 20 = 1 then 'received' when n % 40 = 2 then 'failed' else 'delivered' end,
    case when n % 40 = 2 then 30003 end,
    twilio.now() - make_interval(mins => 10000 / 200 - n / 200),
    case when n % 40 = 2 then twilio.now() - make_interval(mins => 10000 / 200 - n / 200) end,
    n
from generate_series(1, 10000) n
cross join lateral (
    select
        case when n % 3 = 0 then 'whatsapp:' else '' end || '+1202555' || lpad((n % 7)::text, 4, '0') as own,
        case when n % 3 = 0 then 'whatsapp:' else '' end || '+52' || case when n % 6 = 0 then '1' else '' end || 5510000000 + n % 500 as person
) a;
insert into twilio.message_event (message_id, received_at, is_advance, status, source, params)
select m.message_id, m.created_at, true, m.status, 'callback', '{}' from twilio.message m order by m.message_id;
insert into twilio_internal.outbox (message_id, sender_id, is_repeatable, state, due_at, expires_at, tries)
select max(m.message_id), (select s.sender_id from twilio.sender s), true, 'dead', 'infinity', 'infinity', 1 from twilio.message m where m.status = 'delivered';
update twilio.message m set status = 'waiting', message_sid = null from twilio_internal.outbox o where m.message_id = o.message_id;
-- A fallback of the first account's for a message of none.
update twilio.message m set account_sid = null where m.message_id = 402;
insert into twilio.message (message_sid, account_sid, from_address, to_address, status, step, created_at, root_id)
select 'SM' || md5('fallback'), :'one', '+12025550000', m.to_address, 'delivered', 1, m.created_at, m.root_id
from twilio.message m where m.message_id = 402;
vacuum analyze twilio.message, twilio.message_event;

\set ECHO none
-- Returns the indexes that a query reads, and how many rows of one table it reads at most.
create function reads(query text, out indexes text, out most_rows int)
language plpgsql
as $$
declare
    plan jsonb;
begin
    execute 'explain (analyze, timing off, costs off, format json) ' || query into plan;
    select
        string_agg(distinct n ->> 'Index Name', ' ' order by n ->> 'Index Name'),
        max(((n ->> 'Actual Rows')::int + coalesce((n ->> 'Rows Removed by Filter')::int, 0)) * (n ->> 'Actual Loops')::int)
    into indexes, most_rows
    from jsonb_path_query(plan, 'strict $.** ? (exists(@."Node Type"))') n
    where n ->> 'Node Type' like '%Scan' and coalesce(n ->> 'Index Name', n ->> 'Relation Name', '') like 'message%';
end
$$;

create table query (place int generated always as identity, sql text);
insert into query (sql) values
('select * from twilio.message_status order by created_at desc limit 20'),
('select * from twilio.message_status where to_address = ''+525510000004'' order by created_at desc limit 20'),
('select * from twilio.message_status where status = ''failed'' order by created_at desc limit 20'),
('select * from twilio.message_status where failed_at > twilio.now() - interval ''2 minutes'''),
('select * from twilio.message_status where (created_at, message_id) < (select created_at, message_id from twilio.message where message_id = 5000) order by created_at desc, message_id desc limit 20'),
('select status, count(*) from twilio.message where created_at > twilio.now() - interval ''2 minutes'' group by status'),
('select * from twilio.message_timeline order by received_at desc limit 20'),
('select * from twilio.message_chain order by created_at desc limit 20'),
('select * from twilio.failed_message order by created_at desc limit 20'),
('select * from twilio.failed_message order by message_id desc limit 20'),
('select * from twilio.inbound_message order by received_at desc limit 20'),
('select * from twilio.inbound_message where from_address = ''+525510000001'' order by received_at desc limit 20'),
('select * from twilio.number_health where person_key = ''+525510000006''');
\set ECHO all
select q.place, q.sql from query q order by q.place;
select q.place, r.* from query q cross join lateral reads(q.sql) r order by q.place;

-- The same as a reader of one account, with these queries that are about this account or a person.
create role queries_reader;
grant create on database :DBNAME to queries_reader;
select twilio.grant_read('queries_reader', :'one') \gset
grant select on query to queries_reader;
set role queries_reader;
select q.place, r.* from query q cross join lateral reads(q.sql) r order by q.place;
select count(*), count(distinct account_sid) from twilio.find_messages(max_rows => 10000);
-- What the reader may see of the chain.
select root_id, steps, status from twilio.message_chain where root_id = 402;
reset role;

-- Any argument finds what a scan of the table finds.
\set ECHO none
create function agrees(arguments text, condition text, out messages bigint, out is_same boolean)
language plpgsql
as $$
begin
    execute format(
        'select count(*), array_agg(f.message_id order by f.message_id) is not distinct from (select array_agg(m.message_id order by m.message_id) from twilio.message m where %s) '
        'from twilio.find_messages(%s, max_rows => 10000) f', condition, arguments
    ) into messages, is_same;
end
$$;
\set ECHO all
select a.arguments, r.*
from (values
    (1, 'recipient => ''+52 55 1000 0006''', 'm.to_address like ''%5510000006'''),
    (2, 'sender => ''+52 1 55 1000 0001''', 'm.from_address like ''%5510000001'''),
    (3, 'sender => ''+1 (202) 555-0003''', 'm.from_address like ''%+12025550003'''),
    (3.5, 'sender => ''+52 1 55 1000 0001'', direction => ''inbound''', 'm.from_address like ''%5510000001'' and m.direction = ''inbound'''),
    (4, format('account_sid => %L', :'two'), format('m.account_sid = %L', :'two')),
    (5, 'channel => ''whatsapp'', recipient => ''whatsapp:+525510000006''', 'm.channel = ''whatsapp'' and m.to_address like ''%5510000006'''),
    (6, 'status => ''failed''', 'm.status = ''failed'''),
    (7, 'status => ''received''', 'm.status = ''received'''),
    (8, 'error_code => 30003', 'm.error_code = 30003'),
    (9, 'since => twilio.now() - interval ''2 minutes''', 'm.created_at >= twilio.now() - interval ''2 minutes'''),
    (10, 'before => twilio.now() - interval ''48 minutes''', 'm.created_at < twilio.now() - interval ''48 minutes'''),
    (11, 'status => ''no such status''', 'false')
) a (place, arguments, condition)
cross join lateral agrees(a.arguments, a.condition) r
order by a.place;
-- Each page begins where the one before ended: no message is missing or comes twice.
with recursive page as (
    select 1 as number, array_agg(f.message_id order by f.place) as ids, (array_agg(f.created_at order by f.place desc))[1] as last_at
    from (select m.*, row_number() over () as place from twilio.find_messages(max_rows => 777) m) f
    union all
    select p.number + 1, n.ids, n.last_at
    from page p
    cross join lateral (
        select array_agg(f.message_id order by f.place) as ids, (array_agg(f.created_at order by f.place desc))[1] as last_at
        from (
            select m.*, row_number() over () as place
            from twilio.find_messages(before => p.last_at, before_id => p.ids[cardinality(p.ids)], max_rows => 777) m
        ) f
    ) n
    where n.ids is not null
)
select (select count(*) from page) as pages, count(*) as messages, count(distinct i.id) as distinct_messages
from page p
cross join lateral unnest(p.ids) i (id);
select count(*) from twilio.find_messages();
select count(*) from twilio.find_messages(max_rows => 0);
select count(*) from twilio.find_messages(max_rows => null);
select count(*) from twilio.find_messages(before_id => 7);
select count(*) from twilio.find_messages(direction => 'both');

-- What an address of ours sent is blanked too, although no row of twilio.sender has it and the first batch blanks the only message
-- that came in to it; so is what an address sent that only sends.
insert into twilio.message (message_sid, account_sid, direction, from_address, to_address, status, created_at, root_id)
select
    'SM' || md5('own ' || n), :'one', case n when 0 then 'inbound' else 'outbound' end,
    case n when 0 then '+525519999999' when 101 then 'PARCELS' else '+12025559999' end,
    case n when 0 then '+12025559999' else '+52551888' || lpad(n::text, 4, '0') end,
    case n when 0 then 'received' else 'delivered' end,
    twilio.now() - interval '3 hours' + make_interval(secs => n), 10001 + n
from generate_series(0, 101) n;
call twilio.redact('0 s', '+12025559999', batch_rows => 10, effort => 1);
call twilio.redact('0 s', 'PARCELS', batch_rows => 100, effort => 1);
select count(*) as kept from twilio.message where from_address in ('+12025559999', 'PARCELS') or to_address = '+12025559999';
-- A number of which nothing is known costs no look at each message.
select twilio_internal.must_examine_all('+12025558888') as stranger, twilio_internal.must_examine_all('PARCELS') as name;
-- Of a person, the messages sent and received are blanked, in any spelling.
call twilio.redact('0 s', '+52 1 55 1000 0006', effort => 1);
select count(*) filter (where to_address is null and from_address is null) as blanked, count(*) filter (where to_address like '%5510000006' or from_address like '%5510000006') as kept
from twilio.message;
drop extension twilio_callback cascade;
drop table query;
drop owned by queries_reader;
drop role queries_reader;
