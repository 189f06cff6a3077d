-- Privileges: the whole matrix, then each forbidden act, tried.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'first-secret', 'https://hooks.example.com') \gset
select twilio.add_shared_key('AC00000000000000000000000000000001', 'shared', 'second-secret') \gset
select c.http_status from twilio.sms_callback('/x', 'a=1', null) c;

create role twilio_test_plain;
create role twilio_test_front;
create role twilio_test_read;
create role twilio_test_send;
create role twilio_test_admin;
create role twilio_test_relay;
select twilio.grant_front('twilio_test_front'), twilio.grant_read('twilio_test_read'),
    twilio.grant_send('twilio_test_send'), twilio.grant_admin('twilio_test_admin'),
    twilio.grant_relay('twilio_test_relay');

create temp table subject (n int, role text);
insert into subject values (1, 'public'), (2, 'twilio_test_front'), (3, 'twilio_test_read'), (4, 'twilio_test_send'), (5, 'twilio_test_admin'), (6, 'twilio_test_relay');
\set matrix 'max(has) filter (where n = 1) as public, max(has) filter (where n = 2) as front, max(has) filter (where n = 3) as read, max(has) filter (where n = 4) as send, max(has) filter (where n = 5) as admin, max(has) filter (where n = 6) as relay'

-- Schemas.
select object, :matrix
from (
    select s.nspname as object, n, concat_ws(' ',
        case when has_schema_privilege(role, s.oid, 'usage') then 'usage' end,
        case when has_schema_privilege(role, s.oid, 'create') then 'create' end) as has
    from pg_namespace s, subject where s.nspname ~ '^twilio'
) x group by 1 order by 1;

-- Tables and views: r(ead) a(dd) w(rite) d(elete) D (truncate) x (reference) t(rigger), of all columns or of those named.
select object, :matrix
from (
    select c.oid::regclass::text as object, n, concat_ws(' ',
        nullif(concat(
            case when has_table_privilege(role, c.oid, 'select') then 'r' end,
            case when has_table_privilege(role, c.oid, 'insert') then 'a' end,
            case when has_table_privilege(role, c.oid, 'update') then 'w' end,
            case when has_table_privilege(role, c.oid, 'delete') then 'd' end,
            case when has_table_privilege(role, c.oid, 'truncate') then 'D' end,
            case when has_table_privilege(role, c.oid, 'references') then 'x' end,
            case when has_table_privilege(role, c.oid, 'trigger') then 't' end
        ), ''),
        (
            select string_agg(p.letter || '(' || p.columns || ')', ' ' order by p.letter)
            from (
                select l.letter, string_agg(a.attname, ',' order by a.attnum) as columns
                from pg_attribute a, (values ('r', 'select'), ('a', 'insert'), ('w', 'update')) l (letter, name)
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                    and has_column_privilege(role, c.oid, a.attnum, l.name)
                    and not has_table_privilege(role, c.oid, l.name)
                group by 1
            ) p
        )
    ) as has
    from pg_class c, subject
    where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind in ('r', 'v', 'm', 'p', 'f')
) x group by 1 order by 1;

-- Sequences that anybody may use.
select object, :matrix
from (
    select c.oid::regclass::text as object, n, concat_ws(' ',
        case when has_sequence_privilege(role, c.oid, 'usage') then 'usage' end,
        case when has_sequence_privilege(role, c.oid, 'select') then 'select' end,
        case when has_sequence_privilege(role, c.oid, 'update') then 'update' end) as has
    from pg_class c, subject
    where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind = 'S'
) x group by 1 having max(has) <> '' order by 1;

-- Functions and procedures that anybody may call: all others are the owner's. D marks those that run with the owner's rights.
select object, :matrix
from (
    select p.pronamespace::regnamespace || '.' || p.proname || case when p.prosecdef then ' D' else '' end as object, n,
        case when has_function_privilege(role, p.oid, 'execute') then 'x' else '' end as has
    from pg_proc p, subject
    where p.pronamespace::regnamespace::text ~ '^twilio'
) x group by 1 having max(has) <> '' order by 1;

-- Whatever runs with the owner's rights looks names up where the owner says.
select p.oid::regprocedure as unpinned from pg_proc p
where p.pronamespace::regnamespace::text ~ '^twilio' and p.prosecdef
    and not 'search_path=pg_catalog, pg_temp' = any (coalesce(p.proconfig, '{}'));
-- Views show what the caller may see.
select c.oid::regclass as not_invoker from pg_class c
where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind = 'v' and not 'security_invoker=true' = any (coalesce(c.reloptions, '{}'));
-- Every object says what it is.
select c.oid::regclass as without_comment from pg_class c
where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind in ('r', 'v') and obj_description(c.oid, 'pg_class') is null;
select c.relname || '.' || a.attname as without_comment from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null;
select p.oid::regprocedure as without_comment from pg_proc p
where p.pronamespace::regnamespace::text ~ '^twilio' and obj_description(p.oid, 'pg_proc') is null;

-- Forbidden to every role: 42501 each time.
\set VERBOSITY sqlstate
\set forbidden 'select secret from twilio.signing_key; select * from twilio.signing_key; select api_key_secret from twilio.account; select k from twilio.signing_key k; select twilio_internal.secret_argument(\'secret\'); select * from twilio_internal.secret_problem(); select twilio_internal.newest_auth_token(\'AC00000000000000000000000000000001\'); select * from twilio_internal.explain_request(1, 1); select * from twilio_internal.verify_requests(\'{1}\'); insert into twilio.message (status, root_id) values (\'sent\', 1); update twilio.message set status = \'read\'; delete from twilio.message_event; truncate twilio.message; insert into twilio.message_event (message_id, status, source, is_advance, received_at, params) values (1, \'read\', \'callback\', true, now(), \'{}\'); select twilio_internal.record(null); select twilio_internal.record_requests(null, null); select twilio.grant_admin(current_user::regrole); select nextval(\'twilio.message_message_id_seq\'); insert into twilio.signing_key (account_sid, key_id, algorithm, secret) values (\'AC00000000000000000000000000000001\', \'mine\', \'HMAC_SHA1\', \'x\'); update twilio.account set api_url = \'https://evil.example\'; create table twilio.mine (); create function twilio.mine() returns int language sql return 1; set twilio_callback.clock_offset = 1; set twilio_callback.secret_directory = \'/etc\'; show twilio_callback.secret_directory;'
set role twilio_test_plain;
:forbidden
select count(*) from twilio.message;
select * from twilio.receive('{}', '{}', '{}', '{}', '{}');
set role twilio_test_front;
:forbidden
select count(*) from twilio.message;
select count(*) from twilio_internal.rejected_callback;
select count(*) from twilio.receive('{}', '{}', '{}', '{}', '{}');
set role twilio_test_read;
:forbidden
select count(*) from twilio.receive('{}', '{}', '{}', '{}', '{}');
select count(*) from twilio_internal.rejected_callback;
select count(*) from twilio.message_status, twilio.message_timeline;
select key_id from twilio.signing_key order by 1;
set role twilio_test_send;
:forbidden
select count(*) from twilio.message;
select twilio.rotate_auth_token('AC00000000000000000000000000000001', 'x');
select twilio.block('+12025550199') is not null;
set role twilio_test_relay;
:forbidden
select count(*) from twilio.feed_item;
select twilio.drop_consumer('relay');
select twilio.block('+12025550199');
select count(*) from twilio.feed_read('nobody');
set role twilio_test_admin;
:forbidden
select twilio.rotate_auth_token('AC00000000000000000000000000000001', 'third-secret');
select twilio.retire_signing_key('AC00000000000000000000000000000001', 'shared') \gset
select twilio.add_public_url('https://other.example.com') \gset
-- Secrets are sent to api_url, so it is not an administrator's to choose: neither of an account that is there, nor of a new one.
select twilio.add_account('AC00000000000000000000000000000001', 'x', api_url => 'https://evil.example');
select twilio.add_account('AC00000000000000000000000000000002', 'x', api_url => 'http://api.twilio.com');
select twilio_internal.set_api_url('AC00000000000000000000000000000001', 'https://evil.example');
select twilio_internal.upsert_account('AC00000000000000000000000000000001', null);
select twilio.add_account('AC00000000000000000000000000000002', 'x', api_url => 'https://api.twilio.com') \gset
reset role;
select twilio.add_account('AC00000000000000000000000000000002', 'x', api_url => 'https://api.example.com') \gset
set role twilio_test_admin;
select twilio.add_account('AC00000000000000000000000000000002', 'y', api_url => 'https://api.twilio.com');
select twilio.add_account('AC00000000000000000000000000000002', 'y') \gset
select twilio.retire_signing_key('AC00000000000000000000000000000002', 'auth_token_2') \gset
select account_sid, api_url from twilio.account order by 1;
select verified, still_refused from twilio.reverify_rejected();
select count(*) from twilio.explain_rejected(1);
select count(*) from twilio.replay(dry_run => false);
call twilio.purge('1 day', include_rejected => true);
call twilio.redact('1 day');
reset role;

-- What a role owns of the extension's rights goes with it.
drop owned by twilio_test_plain, twilio_test_front, twilio_test_read, twilio_test_send, twilio_test_admin, twilio_test_relay;
drop role twilio_test_plain, twilio_test_front, twilio_test_read, twilio_test_send, twilio_test_admin, twilio_test_relay;
drop extension twilio_callback;
