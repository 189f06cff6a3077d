-- What the owner adds to the tables that are written below SQL works as with an insert: columns, defaults, generated
-- columns, triggers that change the message which is being recorded.
\pset format unaligned
set client_min_messages = warning;
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com');

\i shared/callback.sql
create view fault as select verdict, detail, remedy from twilio.doctor() where "check" = 'tables';

-- A column of the owner's that is not null and has no default, or one that a trigger fills.
alter table twilio.message add column tenant text;
select c.* from response(6, 'sent') c;
update twilio.message set tenant = 'one';
alter table twilio.message alter column tenant set not null;
select c.* from response(7, 'sent') c;
select * from fault;
create function fill() returns trigger language plpgsql as $$ begin new.tenant := 'two'; return new; end $$;
create trigger fill before insert on twilio.message for each row execute function fill();
select * from fault;
select verified, still_refused from twilio.reverify_rejected();
drop trigger fill on twilio.message;
-- With a default it has its default, as by insert.
alter table twilio.message alter column tenant set default 'th' || 'ree';
alter table twilio.message_event add column n bigint generated always as identity, add column at timestamptz default now();
create domain percent as int default 7 check (value between 0 and 100);
alter table twilio.message_event add column share percent not null;
select c.* from response(8, 'sent') c;
select c.* from response(8, 'delivered') c;
select tenant, count(*) from twilio.message group by 1 order by 1;
select share, count(*) from twilio.message_event group by 1;
select count(distinct n) = count(*) as are_numbered, bool_and(at is not null) as have_times from twilio.message_event;
create domain given as int not null;
alter table twilio.message_event add column given given default 1;
alter table twilio.message_event alter column given drop default;
select c.* from response(8, 'read') c;
select * from fault;
alter table twilio.message_event drop column given, drop column n, drop column at, drop column share;
alter table twilio.message drop column tenant;
select verified, still_refused from twilio.reverify_rejected();
-- A generated column is computed, when a row is made and when it changes.
alter table twilio.message_event add column words text generated always as (source || ' ' || status) stored;
select c.* from response(8, 'canceled') c;
select words from twilio.message_event order by event_id desc limit 1;
alter table twilio.message_event drop column words;
begin;
-- Later minor versions refuse it, since functions use the type of the table's rows.
delete from pg_depend
where refclassid = 'pg_type'::regclass and refobjid = 'twilio.message'::regtype and classid = 'pg_proc'::regclass;
alter table twilio.message add column words text generated always as (direction || ' ' || status) stored;
select c.* from response(12, 'sent') c;
select c.* from response(8, 'sent') c;
select c.* from response(12, 'delivered') c;
select status, words from twilio.message where message_sid like '%12';
rollback;

-- A trigger of the event's that changes the message which is being recorded.
alter table twilio.message add column note text;
create function annotate()
returns trigger
language plpgsql
as $$
begin
    update twilio.message m set note = concat_ws(' ', m.note, new.status) where m.message_id = new.message_id;
    return new;
end
$$;
create trigger annotate before insert on twilio.message_event for each row execute function annotate();
select c.* from response(9, 'sent') c;
select c.* from response(9, 'delivered') c;
select c.* from response(9, 'delivered') c;
select c.* from response(9, 'failed', 30005) c;
select status, note, is_corrected, delivered_at is not null as delivered from twilio.message where message_sid like '%9';
-- One that removes it leaves the event, as by insert and update.
create function forget() returns trigger language plpgsql as $$
begin delete from twilio.message m where m.message_id = new.message_id; return new; end $$;
create trigger forget before insert on twilio.message_event for each row execute function forget();
select c.* from response(9, 'read') c;
select count(*) from twilio.message where message_sid like '%9';
drop trigger forget on twilio.message_event;
drop trigger annotate on twilio.message_event;
-- A trigger that changes its own row by a statement is refused, as it is for an update.
\set ECHO none
create function annotate_itself()
returns trigger
language plpgsql
as $$
begin
    if pg_trigger_depth() = 1 then
        update twilio.message m set note = 'changed' where m.message_id = new.message_id;
    end if;
    return new;
end
$$;
\set ECHO all
create trigger annotate_itself before update on twilio.message for each row execute function annotate_itself();
\set VERBOSITY verbose
do $$
begin
    perform response(6, 'read');
exception
    when triggered_data_change_violation then
        raise warning 'refused: %', sqlerrm;
end
$$;
\set VERBOSITY default
select c.* from response(6, 'read') c;
drop trigger annotate_itself on twilio.message;
select c.* from response(6, 'read') c;

drop view fault;
drop function callback, response, deliver, post, fill, annotate, annotate_itself, forget;
drop domain percent, given;
drop extension twilio_callback;
