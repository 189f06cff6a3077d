-- State is a function of the set of events: order and repeats change nothing.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com');

-- Delivers a status callback as Twilio would: signed, for the public URL.
create function callback(sid int, status text, code int default null, url text default '/twilio/status')
returns table (http_status int, reason text, is_new boolean)
language sql
begin atomic
    select c.http_status, c.reason, c.is_new
    from (
        select convert_to(
            format('MessageSid=SM%s&AccountSid=AC00000000000000000000000000000001', lpad(sid::text, 32, '0'))
            || format('&From=%%2B12025550100&To=%%2B12025550101&MessageStatus=%s', status)
            || coalesce('&ErrorCode=' || code, ''),
            'UTF8'
        ) as body
    ) b
    cross join lateral twilio.sms_callback(
        url, b.body, twilio.compute_signature('https://hooks.example.com' || url, b.body, 'secret')
    ) c;
end;

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
            perform callback(sid, step.status, step.code);
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
select c.* from callback(101, 'failed') c;
select c.* from callback(101, 'undelivered', 30006) c;
select c.* from callback(101, 'undelivered', 30005) c;
select status, error_code from twilio.message_status where message_sid like '%101';
select c.* from callback(101, 'failed', 30008) c;
select status, error_code from twilio.message_status where message_sid like '%101';

-- read stands above delivered and implies it; neither shows an error.
select c.* from callback(101, 'read') c;
select status, error_code, is_corrected, delivered_at is not null as delivered, read_at is not null as read
from twilio.message_status where message_sid like '%101';

-- A scheduled message that was canceled has not failed.
select c.reason from callback(900, 'scheduled') c;
select c.reason from callback(900, 'canceled') c;
select status, error_code, failed_at from twilio.message where message_sid = 'SM' || lpad('900', 32, '0');

-- What Twilio may invent is logged and changes nothing.
select c.* from callback(101, 'teleported') c;
select c.* from callback(102, 'teleported') c;
select status from twilio.message_status where message_sid like '%10_' order by message_sid;
select status, is_advance from twilio.message_event
join twilio.message using (message_id, status) where message_sid like '%101';
select e.status, e.is_advance from twilio.message_timeline e where message_sid like '%101' order by event_id;

-- Simulated news go the same way.
select twilio.simulate_callback(message_id, 'delivered') is not null from twilio.message where message_sid like '%102';
select status from twilio.message_status where message_sid like '%102';
select twilio.simulate_callback(0, 'delivered');
select twilio.simulate_callback(1, '');
select twilio.simulate_callback(1, 'beamed') is not null;

-- A message that another account holds is not touched.
select twilio.add_account('AC00000000000000000000000000000002', 'other');
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
        perform callback(
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
select pg_stat_force_next_flush();
select n_tup_hot_upd > n_tup_upd * 0.6 as is_hot from pg_stat_user_tables where relid = 'twilio.message'::regclass;

-- A foreign key of a user's that refers to a state follows it.
alter table twilio.message add constraint message_with_status unique (message_id, status);
select http_status, reason from callback(4998, 'sent');
create table follower (
    message_id bigint,
    status text,
    foreign key (message_id, status) references twilio.message (message_id, status) on update cascade
);
insert into follower
select message_id, status
from twilio.message
where message_id = (select max(message_id) from twilio.message);
select http_status, reason from callback(4998, 'delivered');
select status from follower;
drop table follower;
alter table twilio.message drop constraint message_with_status;

-- Rows are written without statements: users' row triggers fire all the same, and what they raise is an error.
create table seen (what text);
create function see()
returns trigger
language plpgsql
as $$
begin
    insert into public.seen values (format('%s %s %s', lower(tg_when), lower(tg_op), tg_table_name));
    return new;
end
$$;
create trigger see_before before insert on twilio.message for each row execute function see();
create trigger see_after after insert on twilio.message for each row execute function see();
create trigger see_status after update of status on twilio.message for each row execute function see();
create trigger see_change before update on twilio.message for each row execute function see();
create trigger see_event after insert on twilio.message_event for each row execute function see();
select http_status, reason from callback(5000, 'sent');
select http_status, reason from callback(5000, 'delivered');
select http_status, reason from callback(5000, 'delivered');
select what, count(*) from seen group by what order by what;
create function refuse()
returns trigger
language plpgsql
as $$
begin
    raise exception 'refused by a trigger';
end
$$;
create trigger refuse before insert on twilio.message_event for each row execute function refuse();
select http_status, reason from callback(5000, 'read');
drop trigger refuse on twilio.message_event;
-- A request whose row a trigger suppresses is kept, and the trigger is named.
create function suppress()
returns trigger
language plpgsql
as $$
begin
    return null;
end
$$;
create trigger suppress before insert on twilio.message for each row execute function suppress();
select http_status, reason from callback(5002, 'sent');
drop trigger suppress on twilio.message;
-- It can be sent again.
create trigger suppress before insert on twilio.message_event for each row execute function suppress();
select http_status, reason, is_new from callback(5000, 'read');
drop trigger suppress on twilio.message_event;
begin read only;
select http_status from callback(5000, 'queued');
rollback;
drop trigger see_event on twilio.message_event;
drop trigger see_before on twilio.message;
drop trigger see_after on twilio.message;
drop trigger see_change on twilio.message;
drop trigger see_status on twilio.message;
select http_status, reason from callback(5000, 'read');

-- Indexes and columns that users add are kept, by a connection that knew the table before as well.
create index message_recipient on twilio.message (to_address) where status <> 'read';
alter table twilio.message add column note text;
select http_status, reason from callback(5001, 'sent');
set enable_seqscan = off;
select count(*) from twilio.message where to_address = '+12025550101' and status <> 'read' and message_sid like '%5001';
reset enable_seqscan;

-- No default is looked up for a row that is written so: these columns are all given a value.
select attrelid::regclass, attname
from pg_attribute
where attrelid in ('twilio.message'::regclass, 'twilio.message_event'::regclass) and attnum > 0
    and (attnotnull or atthasdef)
    and attname not in (
        'message_id', 'provider', 'direction', 'channel', 'status', 'is_corrected', 'is_blocked', 'root_id', 'step',
        'try', 'created_at', 'is_simulated', 'event_id', 'source', 'is_advance', 'received_at', 'params', 'xid'
    );

-- Parameters are written as PostgreSQL would have written them: any number, any text, repeats, null characters.
create function form_of(n int)
returns bytea
language sql
as $$
    select convert_to(string_agg(
        case when random() < 0.2 then 'Repeated' else 'P' || repeat(chr(97 + (i + n) % 26), i % 7) || i end
        || '=' || case (i + n) % 5
            when 0 then ''
            when 1 then '%00%F0%9F%98%80'
            when 2 then repeat('long', 100)
            else 'value+%22%5C' || i
        end,
        '&' order by i
    ), 'UTF8')
    from generate_series(1, n) i
$$;
create temp table form as
select coalesce(form_of(n), '') || convert_to(
    '&AccountSid=AC00000000000000000000000000000001&MessageStatus=sent&MessageSid=SM00000000000000000000000000006'
    || lpad(n::text, 3, '0'), 'UTF8'
) as form
from generate_series(0, 120) n;
create temp table stored as
select f.form, c.event_id
from form f
cross join lateral twilio.sms_callback('/twilio/status', f.form, twilio.compute_signature(
    'https://hooks.example.com/twilio/status', f.form, 'secret'
)) c;
select count(*) as forms, bool_and(e.params = e.params::text::jsonb) as are_equal,
    bool_and(pg_column_size(e.params || '{}') = pg_column_size(e.params::text::jsonb || '{}')) as have_size,
    bool_and((select bool_and(e.params ? p.name) from twilio.parse_form(s.form) p)) as have_names,
    bool_and((
        select bool_and(case jsonb_typeof(e.params -> p.name)
            when 'array' then e.params -> p.name ? p.value
            else e.params ->> p.name = p.value
        end)
        from twilio.parse_form(s.form) p
    )) as have_values
from stored s
join twilio.message_event e on e.event_id = s.event_id;
drop table stored, form;
drop function form_of;

-- What is said must be something.
select * from twilio_internal.record(
    '{}', '{AC00000000000000000000000000000001}', '{SM00000000000000000000000000007000}', '{}', '{}', '{}', '{}', '{}',
    '{}', '{}', array[null::text], '{}', '{callback}', '{}', '{}', '{}', '{}'
);
select * from twilio_internal.record(
    '{}', '{AC00000000000000000000000000000001}', '{SM00000000000000000000000000007000}', '{}', '{}', '{}', '{}', '{}',
    '{}', '{no list}', '{received}', '{}', '{callback}', '{}', '{}', '{}', '{}'
);

-- What PostgreSQL keeps from one item of a batch to the next is there: dead rows that a scan has met, and
-- what it knows about a trigger's function that has settings.
create function settled() returns trigger language plpgsql set search_path = pg_catalog as 'begin return new; end';
create trigger settled before insert or update on twilio.message for each row execute function settled();
create trigger settled before insert on twilio.message_event for each row execute function settled();
do $$
begin
    for n in 1..40 loop
        perform
        from twilio_internal.record(
            array_fill(null::bigint, array[4]), array_fill('AC00000000000000000000000000000001'::text, array[4]),
            array(select 'SM' || lpad((7100 + i / 2)::text, 32, '0') from generate_series(0, 3) i),
            '{}', '{}', '{}', '{}', '{}', '{}', '{}', array['sent', 'delivered', 'sent', 'delivered'], '{}',
            array_fill('callback'::text, array[4]), '{}', '{}', '{}', '{}'
        );
        commit;
        delete from twilio.message_event e using twilio.message m
        where e.message_id = m.message_id and m.message_sid in ('SM' || lpad('7100', 32, '0'), 'SM' || lpad('7101', 32, '0'));
        delete from twilio.message m
        where m.message_sid in ('SM' || lpad('7100', 32, '0'), 'SM' || lpad('7101', 32, '0'));
        commit;
    end loop;
end
$$;
select count(*) from twilio.message m where m.message_sid like '%710_';
drop trigger settled on twilio.message;
drop trigger settled on twilio.message_event;
drop function settled();

drop table seen;
drop function see, refuse, suppress, callback;
drop extension twilio_callback;
