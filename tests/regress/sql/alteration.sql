-- The owner alters the tables that are written below SQL: what still fits goes on, anything else is refused
-- by a clear error before a row is touched, and the requests are kept until it is repaired.
\pset format unaligned
\set SHOW_CONTEXT never
set client_min_messages = warning;
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com');

-- Delivers a status callback as Twilio would: signed, for the public URL.
create function callback(sid int, status text, code int default null)
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
        '/twilio/status', b.body, twilio.compute_signature('https://hooks.example.com/twilio/status', b.body, 'secret')
    ) c;
end;
create view fault as select verdict, detail, remedy from twilio.doctor() where "check" = 'tables';
select * from fault;
select c.* from callback(1, 'sent') c;

-- An index of other columns under the name, by which a key used to be looked up.
alter table twilio.message_event drop constraint message_event_is_said_once;
create unique index message_event_is_said_once on twilio.message_event (status, message_id, error_code);
select c.* from callback(1, 'delivered') c;
select c.* from callback(2, 'sent') c;
select is_plausible, reason from twilio_internal.rejected_callback order by rejected_id;
select * from fault;
select twilio.simulate_callback(message_id, 'delivered') from twilio.message;
\set VERBOSITY sqlstate
select twilio.simulate_callback(message_id, 'delivered') from twilio.message;
\set VERBOSITY default
select * from twilio.reverify_rejected();
-- An index of the right definition serves under any name.
create unique index on twilio.message_event (message_id, status, error_code) nulls not distinct;
select * from fault;
select verified, still_refused from twilio.reverify_rejected();
select message_sid, status from twilio.message order by 1;
select c.* from callback(2, 'sent') c;
drop index twilio.message_event_is_said_once;
alter index twilio.message_event_message_id_status_error_code_idx rename to message_event_is_said_once;
select c.* from callback(2, 'sent') c;

-- An index that leaves rows out, as do null keys that differ, one that is checked late, one of another kind, none.
create function try_key(definition text)
returns table (callback text, detail text)
language plpgsql
as $$
begin
    alter table twilio.message drop constraint if exists message_message_sid_key;
    drop index if exists twilio.message_message_sid_key;
    execute definition;
    callback := c.http_status from callback(3, 'sent') c;
    return query select callback, f.detail || coalesce(' | ' || f.remedy, '') from fault f;
end
$$;
begin;
select * from try_key('create unique index message_message_sid_key on twilio.message (message_sid) where status <> ''sent''');
select * from try_key('create index message_message_sid_key on twilio.message (message_sid)');
select * from try_key('create unique index message_message_sid_key on twilio.message (lower(message_sid))');
select * from try_key('create unique index message_message_sid_key on twilio.message (message_sid) nulls not distinct');
select * from try_key('create unique index message_message_sid_key on twilio.message (account_sid, message_sid)');
select * from try_key('create unique index message_message_sid_key on twilio.message (message_sid text_pattern_ops)');
select * from try_key('alter table twilio.message add constraint message_message_sid_key unique (message_sid) deferrable');
select * from try_key('create index message_message_sid_key on twilio.message using hash (message_sid)');
select * from try_key('select');
select * from try_key('create unique index on twilio.message (message_sid collate "POSIX" desc) include (status)');
select c.* from callback(3, 'delivered') c;
select count(*) from twilio.message where message_sid like '%3';
rollback;
begin;
create collation apart (provider = icu, locale = 'und', deterministic = false);
select * from try_key('create unique index message_message_sid_key on twilio.message (message_sid collate apart)');
rollback;
-- An index that is not valid, beside one whose building failed; a second one of the same shape does no harm.
insert into twilio.message (root_id, message_sid, body, status) overriding system value
values (-1, 'SMa', 'twin', 'sent'), (-2, 'SMb', 'twin', 'sent');
create unique index concurrently twin on twilio.message (message_sid, (1 / (length(body) - 4)));
update pg_index set indisvalid = false where indexrelid = 'twilio.message_message_sid_key'::regclass;
select c.* from callback(3, 'sent') c;
select * from fault;
reindex index twilio.message_message_sid_key;
select c.* from callback(3, 'sent') c;
drop index twilio.twin;
delete from twilio.message where body = 'twin';
create unique index twin on twilio.message (message_sid);
select c.* from callback(3, 'delivered') c;
select c.* from callback(4, 'sent') c;
select c.* from callback(4, 'sent') c;
drop index twilio.twin;
select verified, still_refused from twilio.reverify_rejected();

-- A column of another type: a text must not land in it.
alter table twilio.message_event alter column public_url type tsvector using null;
select c.* from callback(5, 'sent') c;
select count(*) from twilio.message_event where public_url is not null;
select * from fault;
alter table twilio.message_event alter column public_url type varchar(3) using null;
select c.* from callback(5, 'sent') c;
select * from fault;
alter table twilio.message_event drop column public_url;
select c.* from callback(5, 'sent') c;
select * from fault;
alter table twilio.message_event add column public_url text generated always as (source) stored;
select c.* from callback(5, 'sent') c;
select * from fault;
alter table twilio.message_event drop column public_url;
alter table twilio.message_event add column public_url text;
select verified, still_refused from twilio.reverify_rejected();
select c.* from callback(5, 'sent') c;

-- A column of ours that is left empty in some rows.
begin;
update twilio.message set body = '';
alter table twilio.message alter column body set not null;
select c.* from callback(5, 'delivered') c;
select * from fault;
rollback;

-- Events of phones are kept as well.
create function hmac(key text, signed bytea) returns text language sql as $$
    select encode(sha256(
        (select string_agg(set_byte('\x00'::bytea, 0, get_byte(k, i) # 92), ''::bytea order by i) from generate_series(0, 63) i)
        || sha256(
            (select string_agg(set_byte('\x00'::bytea, 0, get_byte(k, i) # 54), ''::bytea order by i) from generate_series(0, 63) i)
            || signed
        )
    ), 'hex')
    from (select convert_to(key, 'UTF8') || decode(repeat('00', 64 - length(key)), 'hex') as k) x
$$;
select twilio.add_smsgate_key('key-1');
alter table twilio.message_event alter column public_url type tsvector using null;
select c.http_status, c.reason
from (
    select extract(epoch from twilio.now())::bigint::text as stamp,
        convert_to('{"id":"e","event":"sms:received","deviceId":"phone-1","payload":{"phoneNumber":"+12025550123","message":"Hi"}}', 'UTF8') as body
) b
cross join lateral twilio.smsgate_callback(b.body, hmac('key-1', b.body || convert_to(b.stamp, 'UTF8')), b.stamp) c;
select verified, still_refused from twilio.reverify_rejected();
alter table twilio.message_event alter column public_url type text using null;
select verified, still_refused from twilio.reverify_rejected();
select direction, status, from_address, body from twilio.message where provider = 'smsgate';

-- PostgREST answers so that Twilio may come again.
begin;
alter table twilio.message_event drop column public_url;
select set_config('request.headers', jsonb_build_object(
    'x-original-uri', '/x', 'x-original-content-type', 'application/x-www-form-urlencoded',
    'x-twilio-signature', twilio.compute_signature('https://hooks.example.com/x', b.body, 'secret')
)::text, true) <> '' as is_set, twilio_api.sms_callback(b.body)
from convert_to(
    'MessageSid=SM00000000000000000000000000000005&AccountSid=AC00000000000000000000000000000001&MessageStatus=read', 'UTF8'
) b (body);
select current_setting('response.status') as status, current_setting('response.headers') as headers;
rollback;

-- A column of the owner's that is not null and has no default, or one that a trigger fills.
alter table twilio.message add column tenant text;
select c.* from callback(6, 'sent') c;
update twilio.message set tenant = 'one';
alter table twilio.message alter column tenant set not null;
select c.* from callback(7, 'sent') c;
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
select c.* from callback(8, 'sent') c;
select c.* from callback(8, 'delivered') c;
select tenant, count(*) from twilio.message group by 1 order by 1;
select share, count(*) from twilio.message_event group by 1;
select count(distinct n) = count(*) as are_numbered, bool_and(at is not null) as have_times from twilio.message_event;
create domain given as int not null;
alter table twilio.message_event add column given given default 1;
alter table twilio.message_event alter column given drop default;
select c.* from callback(8, 'read') c;
select * from fault;
alter table twilio.message_event drop column given, drop column n, drop column at, drop column share;
alter table twilio.message drop column tenant;
select verified, still_refused from twilio.reverify_rejected();
-- A generated column is computed, when a row is made and when it changes.
alter table twilio.message_event add column words text generated always as (source || ' ' || status) stored;
select c.* from callback(8, 'canceled') c;
select words from twilio.message_event order by event_id desc limit 1;
alter table twilio.message_event drop column words;
begin;
-- Later minor versions refuse it, since functions use the type of the table's rows.
delete from pg_depend
where refclassid = 'pg_type'::regclass and refobjid = 'twilio.message'::regtype and classid = 'pg_proc'::regclass;
alter table twilio.message add column words text generated always as (direction || ' ' || status) stored;
select c.* from callback(12, 'sent') c;
select c.* from callback(8, 'sent') c;
select c.* from callback(12, 'delivered') c;
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
select c.* from callback(9, 'sent') c;
select c.* from callback(9, 'delivered') c;
select c.* from callback(9, 'delivered') c;
select c.* from callback(9, 'failed', 30005) c;
select status, note, is_corrected, delivered_at is not null as delivered from twilio.message where message_sid like '%9';
-- One that removes it leaves the event, as by insert and update.
create function forget() returns trigger language plpgsql as $$
begin delete from twilio.message m where m.message_id = new.message_id; return new; end $$;
create trigger forget before insert on twilio.message_event for each row execute function forget();
select c.* from callback(9, 'read') c;
select count(*) from twilio.message where message_sid like '%9';
drop trigger forget on twilio.message_event;
drop trigger annotate on twilio.message_event;
-- A trigger that changes its own row by a statement is refused, as it is for an update.
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
create trigger annotate_itself before update on twilio.message for each row execute function annotate_itself();
\set VERBOSITY verbose
do $$
begin
    perform callback(6, 'read');
exception
    when triggered_data_change_violation then
        raise warning 'refused: %', sqlerrm;
end
$$;
\set VERBOSITY default
select c.* from callback(6, 'read') c;
drop trigger annotate_itself on twilio.message;
select c.* from callback(6, 'read') c;

-- Changes that do no harm: another access method of the same kind, no log, constraints, storage, statistics.
create access method heap2 type table handler heap_tableam_handler;
alter table twilio.message_event set access method heap2;
alter table twilio.message alter column body set storage external, alter column body set statistics 10;
alter table twilio.message add constraint is_not_canceled check (status <> 'canceled');
select c.* from callback(10, 'sent') c;
select * from fault;
alter table twilio.message_event set access method heap;
drop access method heap2;
\set VERBOSITY terse
select c.* from callback(10, 'canceled') c;
\set VERBOSITY default
alter table twilio.message drop constraint is_not_canceled;
alter table twilio.message_event set unlogged;
select c.* from callback(10, 'delivered') c;
select * from fault;
alter table twilio.message_event set logged;

-- Additions that callbacks would pass over are refused: rules, children, forced policies, transition tables.
create function try(definition text)
returns table (callback text, verdict text, detail text, remedy text)
language plpgsql
as $$
begin
    execute definition;
    callback := c.http_status from callback(11, 'sent') c;
    return query select callback, f.* from fault f;
end
$$;
begin;
select * from try('create rule pass as on insert to twilio.message_event do also select 1');
rollback;
begin;
select * from try('create table child () inherits (twilio.message)');
rollback;
create role keeper;
begin;
select * from try('alter table twilio.message owner to keeper; alter table twilio.message force row level security');
rollback;
create function see() returns trigger language plpgsql as 'begin return null; end';
begin;
select * from try('create trigger see after insert on twilio.message referencing new table as rows for each row execute function see()');
rollback;
begin;
select * from try('create trigger see after insert on twilio.message for each statement execute function see()');
rollback;
begin;
select * from try('alter table twilio.message rename to kept; create view twilio.message as table twilio.kept');
rollback;
begin;
select * from try('alter table twilio.message_event rename to kept; create table twilio.message_event (like twilio.kept including defaults) partition by list (event_id)');
rollback;
begin;
select * from try('alter table twilio.message_event rename to kept; create table twilio.message_event (like twilio.kept including all)');
rollback;
begin;
select * from try('alter table twilio.message_event alter column event_id drop identity');
rollback;
begin;
select * from try('alter sequence twilio.message_message_id_seq rename to numbers');
rollback;
select c.* from callback(11, 'sent') c;
select * from fault;
select * from twilio.replay();

drop role keeper;
drop view fault;
drop function callback, hmac, try_key, try, fill, annotate, annotate_itself, forget, see;
drop domain percent, given;
drop extension twilio_callback;
