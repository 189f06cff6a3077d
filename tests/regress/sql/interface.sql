-- What people and other software rely on: names, arguments and columns of schema twilio.
create extension twilio_callback;
\pset format unaligned
\pset tuples_only on
select p.proname || '(' || pg_get_function_arguments(p.oid) || ')' || coalesce(' -> ' || pg_get_function_result(p.oid), '')
from pg_proc p
where p.pronamespace in ('twilio'::regnamespace, 'twilio_api'::regnamespace)
order by p.pronamespace::regnamespace::text, p.proname collate "C", pg_get_function_identity_arguments(p.oid) collate "C";
select c.relname || ': ' || string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
from pg_class c
join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'twilio'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
group by c.relname
order by c.relname collate "C";
\pset tuples_only off
\pset format aligned

-- The schema stays small enough to read.
select count(*) <= 90 as is_small from pg_proc p where p.pronamespace = 'twilio'::regnamespace and p.prokind = 'f';
-- A role without rights gets at nothing internal.
create role twilio_test_plain;
select has_schema_privilege('twilio_test_plain', 'twilio_internal', 'usage') as may_use, count(*) as callable
from pg_proc p
where p.pronamespace = 'twilio_internal'::regnamespace and has_function_privilege('twilio_test_plain', p.oid, 'execute');
select has_schema_privilege('twilio_test_plain', 'twilio_internal', 'usage') as may_use, count(*) as readable
from pg_class c
where c.relnamespace = 'twilio_internal'::regnamespace
    and c.relkind in ('r', 'v', 'S')
    and has_table_privilege('twilio_test_plain', c.oid, 'select, insert, update, delete');
drop role twilio_test_plain;
drop extension twilio_callback cascade;
