-- Senders about whose messages no report comes: noticed once, and once when they come again.
create extension twilio_callback;
\set VERBOSITY terse
set datestyle = 'ISO';
set timezone = 'UTC';
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('+12025550101'), twilio.create_consumer('app') \gset

\set ECHO none
-- Messages that Twilio accepted some minutes ago, and whether a report came, how many minutes ago.
create function sent(sender text, count int, minutes int, reported int default null, source text default 'callback', status_callback text default null)
returns void
language sql
begin atomic
    with made as (
        insert into twilio.message (message_sid, root_id, account_sid, from_address, to_address, status, created_at, expires_at, status_callback)
        select
            'SM' || md5(random()::text), (-1e15 * random())::bigint, 'AC00000000000000000000000000000001', sender, '+12025550150', 'accepted',
            twilio.now() - make_interval(mins => minutes), twilio.now() + interval '1 hour', status_callback
        from generate_series(1, count)
        returning message_id
    ),
    tried as (
        insert into twilio_internal.attempt (attempt_id, message_id, started_at, finished_at, outcome)
        select
            overlay(twilio_internal.first_attempt_id(twilio.now() - make_interval(mins => minutes))::text
                placing right(gen_random_uuid()::text, 12) from 25)::uuid,
            m.message_id, twilio.now() - make_interval(mins => minutes), twilio.now() - make_interval(mins => minutes), 'accepted'
        from made m
    )
    insert into twilio.message_event (message_id, received_at, is_advance, status, source, params)
    select m.message_id, twilio.now() - make_interval(mins => reported), true, 'sent', source, '{}'
    from made m
    where reported is not null;
    update twilio.message set root_id = message_id where root_id < 0;
end;

create function news()
returns table (changes int, kinds text, open text)
language sql
begin atomic
    select
        twilio_internal.detect_gaps(),
        (select string_agg(f.kind || ' ' || (f.data ->> 'sender'), ', ' order by f.event_id) from twilio_internal.feed_event f),
        (select string_agg(g.sender, ', ') from twilio_internal.open_gap g);
end;
\set ECHO all
-- Too young, too few, another's URL, by our own word only: nothing is expected of these.
select sent('+12025550100', 9, 1), sent('+12025550100', 4, 10), sent('+12025550100', 9, 10, status_callback => 'https://other.example.com/') \gset
select * from news();
-- A queue at Twilio: old messages are still reported.
select sent('+12025550101', 3, 30, 1), sent('+12025550101', 20, 10) \gset
select * from news();
-- An answer of Twilio's is no report.
select sent('+12025550100', 1, 9, 8, 'poll') \gset
select * from news();
-- It is noticed once.
select * from news();
select d.verdict, d.detail ~ '^no report comes about messages of \+12025550100 since 2' as names_it from twilio.doctor() d where d."check" = 'missing callbacks';
select g.sender, sum(g.expected) as expected, sum(g.seen) as seen, sum(g.missing) as missing
from twilio.callback_gap g
group by g.sender
order by 1;
-- Reports come again, here of an event stream.
select sent('+12025550100', 1, 3, -1, 'stream') \gset
select * from news();
select * from news();
select d.verdict, d.detail from twilio.doctor() d where d."check" = 'missing callbacks';
drop function news, sent;
drop extension twilio_callback cascade;
