-- The owner alters the tables that are written below SQL: what still fits goes on, anything else is refused
-- by a clear error before a row is touched, and the requests are kept until it is repaired.
\pset format unaligned
set client_min_messages = warning;
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com');

\i shared/callback.sql
create view fault as select verdict, detail, remedy from twilio.doctor() where "check" = 'tables';
select * from fault;
select c.* from response(1, 'sent') c;

-- An index of other columns under the name, by which a key used to be looked up.
alter table twilio.message_event drop constraint message_event_is_said_once;
create unique index message_event_is_said_once on twilio.message_event (status, message_id, error_code);
select c.* from response(1, 'delivered') c;
select c.* from response(2, 'sent') c;
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
select c.* from response(2, 'sent') c;
drop index twilio.message_event_is_said_once;
alter index twilio.message_event_message_id_status_error_code_idx rename to message_event_is_said_once;
select c.* from response(2, 'sent') c;

-- An index that leaves rows out, as do null keys that differ, one that is checked late, one of another kind, none.
\set ECHO none
create function try_key(definition text)
returns table (callback text, detail text)
language plpgsql
as $$
begin
    alter table twilio.message drop constraint if exists message_message_sid_key;
    drop index if exists twilio.message_message_sid_key;
    execute definition;
    callback := c.http_status from response(3, 'sent') c;
    return query select callback, f.detail || coalesce(' | ' || f.remedy, '') from fault f;
end
$$;
\set ECHO all
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
select c.* from response(3, 'delivered') c;
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
select c.* from response(3, 'sent') c;
select * from fault;
reindex index twilio.message_message_sid_key;
select c.* from response(3, 'sent') c;
drop index twilio.twin;
delete from twilio.message where body = 'twin';
create unique index twin on twilio.message (message_sid);
select c.* from response(3, 'delivered') c;
select c.* from response(4, 'sent') c;
select c.* from response(4, 'sent') c;
drop index twilio.twin;
select verified, still_refused from twilio.reverify_rejected();

-- A column of another type: a text must not land in it.
alter table twilio.message_event alter column public_url type tsvector using null;
select c.* from response(5, 'sent') c;
select count(*) from twilio.message_event where public_url is not null;
select * from fault;
alter table twilio.message_event alter column public_url type varchar(3) using null;
select c.* from response(5, 'sent') c;
select * from fault;
alter table twilio.message_event drop column public_url;
select c.* from response(5, 'sent') c;
select * from fault;
alter table twilio.message_event add column public_url text generated always as (source) stored;
select c.* from response(5, 'sent') c;
select * from fault;
alter table twilio.message_event drop column public_url;
alter table twilio.message_event add column public_url text;
select verified, still_refused from twilio.reverify_rejected();
select c.* from response(5, 'sent') c;

-- A column of ours that is left empty in some rows.
begin;
update twilio.message set body = '';
alter table twilio.message alter column body set not null;
select c.* from response(5, 'delivered') c;
select * from fault;
rollback;

-- Events of phones are kept as well.
\i shared/hmac.sql
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

-- Changes that do no harm: another access method of the same kind, no log, constraints, storage, statistics.
create access method heap2 type table handler heap_tableam_handler;
alter table twilio.message_event set access method heap2;
alter table twilio.message alter column body set storage external, alter column body set statistics 10;
alter table twilio.message add constraint is_not_canceled check (status <> 'canceled');
select c.* from response(10, 'sent') c;
select * from fault;
alter table twilio.message_event set access method heap;
drop access method heap2;
\set VERBOSITY terse
select c.* from response(10, 'canceled') c;
\set VERBOSITY default
alter table twilio.message drop constraint is_not_canceled;
alter table twilio.message_event set unlogged;
select c.* from response(10, 'delivered') c;
select * from fault;
alter table twilio.message_event set logged;

-- Additions that callbacks would pass over are refused: rules, children, forced policies, transition tables.
\set ECHO none
create function try(definition text)
returns table (callback text, verdict text, detail text, remedy text)
language plpgsql
as $$
begin
    execute definition;
    callback := c.http_status from response(11, 'sent') c;
    return query select callback, f.* from fault f;
end
$$;
\set ECHO all
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
select c.* from response(11, 'sent') c;
select * from fault;
select * from twilio.replay();

drop role keeper;
drop view fault;
drop function callback, response, deliver, post, hmac, try_key, try, see;
drop extension twilio_callback;
