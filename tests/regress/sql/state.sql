-- State is a function of the set of events: order and repeats change nothing.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/callback.sql

-- Every order of these five, each repeated, ends in the same state.
create temp table said (n int, status text, code int);
insert into said values (1, 'sent', null), (2, 'undelivered', 30005), (3, 'failed', null), (4, 'delivered', null), (5, 'queued', null);
do $$
declare
    sid int := 0;
    step record;
begin
    for sid in 1..40 loop
        for step in
            select s.* from said s cross join generate_series(1, 2)
            order by md5(sid::text || s.n::text || random()::text)
        loop
            perform response(sid, step.status, step.code);
        end loop;
    end loop;
end
$$;
select status, error_code, is_corrected, sent_at is not null as sent, delivered_at is not null as delivered,
    read_at is not null as read, failed_at is not null as failed, count(*)
from twilio.message_status
group by 1, 2, 3, 4, 5, 6, 7;
select status, error_code, count(*) from twilio.message_event group by 1, 2 order by 1, 2;

-- A failure shows its own code, else that of the next lower event, the lowest if several.
select c.* from response(101, 'failed') c;
select c.* from response(101, 'undelivered', 30006) c;
select c.* from response(101, 'undelivered', 30005) c;
select status, error_code from twilio.message_status where message_sid like '%101';
select c.* from response(101, 'failed', 30008) c;
select status, error_code from twilio.message_status where message_sid like '%101';

-- read stands above delivered and implies it; neither shows an error.
select c.* from response(101, 'read') c;
select status, error_code, is_corrected, delivered_at is not null as delivered, read_at is not null as read
from twilio.message_status where message_sid like '%101';

-- A scheduled message that was canceled has not failed.
select c.reason from response(900, 'scheduled') c;
select c.reason from response(900, 'canceled') c;
select status, error_code, failed_at from twilio.message where message_sid = 'SM' || lpad('900', 32, '0');

-- Unknown statuses are stored and change nothing.
select c.* from response(101, 'teleported') c;
select c.* from response(102, 'teleported') c;
select status from twilio.message_status where message_sid like '%10_' order by message_sid;
select status, is_advance from twilio.message_event
join twilio.message using (message_id, status) where message_sid like '%101';
select e.status, e.is_advance from twilio.message_timeline e where message_sid like '%101' order by event_id;

-- Simulated callbacks are recorded in the same way.
select twilio.simulate_callback(message_id, 'delivered') is not null from twilio.message where message_sid like '%102';
select status from twilio.message_status where message_sid like '%102';
select twilio.simulate_callback(0, 'delivered');
select twilio.simulate_callback(1, '');
select twilio.simulate_callback(1, 'beamed') is not null;

-- A message that another account holds is not touched.
select twilio.add_account('AC00000000000000000000000000000002', 'other') \gset
select c.http_status, c.reason
from twilio.sms_callback(
    '/twilio/status',
    'MessageSid=SM00000000000000000000000000000102&AccountSid=AC00000000000000000000000000000002&MessageStatus=read',
    twilio.compute_signature(
        'https://hooks.example.com/twilio/status',
        'MessageSid=SM00000000000000000000000000000102&AccountSid=AC00000000000000000000000000000002&MessageStatus=read',
        'other'
    )
) c;
select status from twilio.message_status where message_sid like '%102';

-- The shortcuts of ingest agree with the state computed from the log, whatever comes in whichever order.
do $$
begin
    for n in 1..3000 loop
        perform response(
            1000 + (random() * 300)::int,
            (array['queued', 'sending', 'sent', 'sent', 'delivered', 'delivered', 'read', 'undelivered', 'failed',
                'canceled', 'beamed', 'partially_delivered'])[1 + floor(random() * 12)],
            case when random() < 0.2 then 30000 + (random() * 5)::int end
        );
        -- As callbacks come: what a transaction replaced can be pruned once it is over.
        commit;
    end loop;
end
$$;
select count(*) > 250 as are_many from twilio.message where message_sid like 'SM00000000000000000000000000001%';
select * from twilio.replay();

-- Most updates of the state find room on the row's own page and touch no index.
select pg_stat_force_next_flush() \gset
select n_tup_hot_upd > n_tup_upd * 0.6 as is_hot from pg_stat_user_tables where relid = 'twilio.message'::regclass;

drop function callback, response, deliver, post;
drop extension twilio_callback;
