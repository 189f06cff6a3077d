-- What users add to our tables works: foreign keys, row triggers, indexes and columns.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
\i shared/callback.sql

-- A foreign key of a user's that refers to a state follows it.
alter table twilio.message add constraint message_with_status unique (message_id, status);
select http_status, reason from response(4998, 'sent');
create table follower (
    message_id bigint,
    status text,
    foreign key (message_id, status) references twilio.message (message_id, status) on update cascade
);
insert into follower
select message_id, status
from twilio.message
where message_id = (select max(message_id) from twilio.message);
select http_status, reason from response(4998, 'delivered');
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
select http_status, reason from response(5000, 'sent');
select http_status, reason from response(5000, 'delivered');
select http_status, reason from response(5000, 'delivered');
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
select http_status, reason from response(5000, 'read');
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
select http_status, reason from response(5002, 'sent');
drop trigger suppress on twilio.message;
-- It can be sent again.
create trigger suppress before insert on twilio.message_event for each row execute function suppress();
select http_status, reason, is_new from response(5000, 'read');
drop trigger suppress on twilio.message_event;
begin read only;
select http_status from response(5000, 'queued');
rollback;
drop trigger see_event on twilio.message_event;
drop trigger see_before on twilio.message;
drop trigger see_after on twilio.message;
drop trigger see_change on twilio.message;
drop trigger see_status on twilio.message;
select http_status, reason from response(5000, 'read');

-- Indexes and columns that users add are kept, by a connection that knew the table before as well.
create index message_recipient on twilio.message (to_address) where status <> 'read';
alter table twilio.message add column note text;
select http_status, reason from response(5001, 'sent');
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

-- What PostgreSQL keeps from one item of a batch to the next is there: dead rows that a scan has met, and
-- what it knows about a trigger's function that has settings.
create function settled() returns trigger language plpgsql set search_path = pg_catalog as 'begin return new; end';
create trigger settled before insert or update on twilio.message for each row execute function settled();
create trigger settled before insert on twilio.message_event for each row execute function settled();
do $$
begin
    for n in 1..40 loop
        perform
        from twilio_internal.record(array(
            select twilio_internal.make_report(s.status, account_sid => 'AC00000000000000000000000000000001', message_sid => 'SM' || lpad(s.n::text, 32, '0'))
            from (values (7100, 'sent'), (7100, 'delivered'), (7101, 'sent'), (7101, 'delivered')) s (n, status)
        ));
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
drop function see, refuse, suppress, callback, response, deliver, post;
drop extension twilio_callback;
