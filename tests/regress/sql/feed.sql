-- The feed: what consumers get, in which order, and what becomes of events that they cannot deal with.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/post.sql
create function callback(sid int, status text, more text default '')
returns boolean
language sql
as $$
    select p.is_new
    from post('/x', format('MessageSid=SM%s&%s=%s%s',
        lpad(sid::text, 32, '0'), case status when 'received' then 'Body=hi&SmsStatus' else 'MessageStatus' end, status, more)) p
$$;

-- Without consumers there is no tick; one starts with what comes next, or with all there is.
select callback(1, 'sent');
select twilio.feed_tick() is null as no_tick;
select twilio.create_consumer('late') \gset
select twilio.create_consumer('whole', from_start => true) \gset
select count(*) from twilio.feed_read('late');
select event_id, message_id, kind, tries from twilio.feed_read('whole');
select callback(1, 'delivered');
-- Nothing before the tick, everything after it.
select count(*) from twilio.feed_read('late');
select twilio.feed_tick() is not null as ticked;
select event_id, message_id, kind, tries from twilio.feed_read('late');
select event_id, message_id, kind, tries from twilio.feed_read('late');

-- An acknowledged event is gone, one whose lease ends comes again, one refused comes after a pause.
select twilio.feed_ack('late', 2), twilio.feed_ack('late', 2), twilio.feed_ack('whole', array[1, 99]);
select event_id, tries from twilio.feed_read('whole');
set twilio_callback.clock_offset = '31 s';
select event_id, tries from twilio.feed_read('whole');
select twilio.feed_nack('whole', 2, 'not now') - twilio.now() as pause;
select count(*) from twilio.feed_read('whole');
set twilio_callback.clock_offset = '33 s';
select event_id, tries from twilio.feed_read('whole');
select twilio.feed_nack('whole', 2, 'not now') - twilio.now() as pause;
-- An event of the same message waits behind it; another message's does not.
select callback(1, 'read'), callback(2, 'sent');
select twilio.feed_tick() is not null as ticked;
select event_id, message_id, kind from twilio.feed_read('whole');
select twilio.feed_ack('whole', 4);
set twilio_callback.clock_offset = '60 s';
select event_id, message_id, kind, tries from twilio.feed_read('whole', 1);
select twilio.feed_ack('whole', 2);
select event_id, message_id, kind, tries from twilio.feed_read('whole', 1);
select consumer, waiting, given_out, dead, numbers_behind from twilio.feed_lag order by 1;

-- After max_tries it is a dead letter, whether refused or never answered; it can be given again.
update twilio.feed_consumer set max_tries = 3 where consumer = 'whole';
select twilio.feed_nack('whole', 3, 'no', delay => '0') is null as gone;
select tries from twilio.feed_read('whole');
select twilio.feed_nack('whole', 3, 'no', delay => '0') is null as gone;
select tries from twilio.feed_read('whole');
select twilio.feed_nack('whole', 3, 'never');
select event_id, tries, error from twilio.feed_dead_letter;
select twilio.feed_revive('whole');
select event_id, tries from twilio.feed_read('whole');
set twilio_callback.clock_offset = '100 s';
update twilio.feed_consumer set max_tries = 1 where consumer = 'whole';
select count(*) from twilio.feed_read('whole');
select event_id, tries, error from twilio.feed_dead_letter;
reset twilio_callback.clock_offset;

-- Kinds can be chosen; messages of blocked senders are left out; suppressions are reported.
select twilio.create_consumer('incoming', kinds => array['message.received', 'suppression.%']) \gset
select callback(3, 'received', '&From=%2B12025550123&To=%2B12025550100');
select callback(4, 'sent');
select twilio.block('+12025550124', 'abuse') > 0;
select callback(5, 'received', '&From=%2B12025550124&To=%2B12025550100');
select twilio.unblock('+12025550124');
select callback(3, 'received', '&From=%2B12025550123&To=%2B12025550100&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fa');
select twilio.feed_tick() is not null as ticked;
select kind, event ->> 'from' as sender, event ->> 'address' as address, event ->> 'body' as body, event -> 'params' ->> 'To' as recipient
from twilio.feed_read('incoming')
order by event_id;
select kind, event -> 'message_sid' = event -> 'params' -> 'MessageSid' as has_sid from twilio.feed_read('late');

-- A handler: a function of one jsonb, called once an event by its own role with its own search path.
create role feed_handler;
create schema app;
grant usage, create on schema app to feed_handler;
set role feed_handler;
create table app.effect (event_id bigint primary key, kind text, by_role name, path text);
\set ECHO none
create function app.on_event(event jsonb)
returns void
language plpgsql
as $$
begin
    insert into effect values ((event ->> 'event_id')::bigint, event ->> 'kind', current_user, current_setting('search_path'));
    if event ->> 'status' = 'failed' then
        raise exception 'no failures, please';
    elsif event ->> 'status' = 'canceled' then
        perform pg_sleep(60);
    end if;
end
$$;
\set ECHO all
reset role;
set search_path = app, public;
select twilio.create_consumer('handled', 'app.on_event', kinds => array['message.%'], max_tries => 2, run_as => 'feed_handler') \gset
reset search_path;
select count(*) from twilio.feed_read('handled');
select callback(6, 'sent'), callback(6, 'failed', '&ErrorCode=30003'), callback(7, 'sent'), callback(8, 'canceled');
select twilio.feed_tick() is not null as ticked;
set twilio_callback.handler_timeout = '200 ms';
call twilio.run_handlers();
select current_user = session_user as is_self_again;
select e.kind, e.by_role, e.path from app.effect e order by event_id;
select d.tries, d.error, i.kind from twilio_internal.feed_delivery d join twilio.feed_item i using (event_id) where d.consumer = 'handled' order by event_id;
set twilio_callback.clock_offset = '10 s';
call twilio.run_handlers();
select l.tries, l.error, i.kind from twilio.feed_dead_letter l join twilio.feed_item i using (event_id) where l.consumer = 'handled' order by event_id;
select count(*) from app.effect;
select twilio_internal.run_handler();
reset twilio_callback.clock_offset;
reset twilio_callback.handler_timeout;
-- It cannot be registered by, or for, a role without the right.
revoke execute on function app.on_event(jsonb) from public, feed_handler;
create role feed_other;
select twilio.create_consumer('x', 'app.on_event', run_as => 'feed_other');
select twilio.create_consumer('x', 'app.nothing');
select twilio.create_consumer('x y');
select twilio.create_consumer('late');
select twilio.feed_read('nobody');
select twilio.feed_read('late', 0);
begin isolation level repeatable read;
select twilio.feed_tick();
rollback;
select twilio.drop_consumer('nobody');
select twilio.drop_consumer('handled'), twilio.drop_consumer('incoming') \gset

-- A restored copy has neither ticks nor their transactions: each consumer goes on behind what it surely has.
update twilio.feed_consumer set max_tries = 20;
select callback(9, 'sent');
select twilio.feed_tick() is not null as ticked;
select sum(twilio.feed_ack('late', event_id)) > 0 as has_read from twilio.feed_read('late');
select twilio.feed_tick() is not null as ticked;
select count(*) from twilio.feed_read('late');
-- It comes before the dump and is read after it.
select callback(10, 'sent');
truncate twilio_internal.tick, twilio_internal.feed_state, twilio_internal.feed_position;
update twilio.message_event set xid = '18446744073709551615';
update twilio_internal.feed_event set xid = '3';
select callback(11, 'sent');
select twilio.feed_tick() is not null as ticked;
select event -> 'params' ->> 'MessageSid' as sid, kind from twilio.feed_read('late') order by event_id;
select callback(12, 'sent');
select twilio.feed_tick() is not null as ticked;
select event -> 'params' ->> 'MessageSid' as sid, kind from twilio.feed_read('late') order by event_id;

-- Purged events are not delivered any more, whether open, leased, dead or not delivered yet.
select twilio.create_consumer('purged', from_start => true), twilio.create_consumer('slow', from_start => true, max_tries => 1) \gset
select count(*) > 0 as has_read from twilio.feed_read('purged', 3);
select twilio.feed_nack('slow', event_id) is null as is_dead from twilio.feed_read('slow', 1);
set twilio_callback.clock_offset = '10 d';
call twilio.purge('1 d', include_pending => true);
reset twilio_callback.clock_offset;
select count(*) from twilio.message;
select
    (select count(*) from twilio_internal.feed_delivery where message_id is not null) as open,
    (select count(*) from twilio.feed_dead_letter where message_id is not null) as dead;
insert into twilio_internal.feed_delivery (consumer, event_id, message_id, due_at) values ('purged', 1, 1, now() - interval '1 s');
select count(*) from twilio.feed_read('purged') where event_id = 1;
select count(*) from twilio_internal.feed_delivery where event_id = 1;

-- What is given back can be read at once, and was not tried.
select twilio.create_consumer('returning') \gset
select callback(13, 'sent');
select twilio.feed_tick() is not null as ticked;
select twilio.feed_release('returning', array_agg(event_id)) as released, max(tries) as tries from twilio.feed_read('returning');
select twilio.feed_release('returning', array_agg(event_id)) as released, max(tries) as tries from twilio.feed_read('returning');
select count(twilio.feed_ack('returning', event_id)) as read_again, twilio.feed_release('returning', array_agg(event_id)) as over
from twilio.feed_read('returning');

drop function callback, post;
drop extension twilio_callback;
drop schema app cascade;
drop role feed_handler, feed_other;
