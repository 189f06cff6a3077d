-- Functions that run with the owner's rights: how they resolve names, and which roles may call them.
create extension twilio_callback;
create role regress_front;
create role regress_read;
create role regress_send;
create role regress_relay;
create role regress_admin;
select twilio.grant_front('regress_front'), twilio.grant_read('regress_read'), twilio.grant_send('regress_send'),
    twilio.grant_relay('regress_relay'), twilio.grant_admin('regress_admin');

create temp view routine as
select p.oid, p.oid::regprocedure::text as name, p.proname, p.prosecdef, p.proconfig, p.proacl
from pg_depend d
join pg_extension x on x.oid = d.refobjid and x.extname = 'twilio_callback'
join pg_proc p on p.oid = d.objid
where d.refclassid = 'pg_extension'::regclass and d.classid = 'pg_proc'::regclass and d.deptype = 'e';

-- All of them, each with its search_path and the kinds of roles that may call it; only the owner calls those without a kind.
\pset format unaligned
select r.name, s.search_path, k.kinds
from routine r
left join lateral (
    select substring(c from '^search_path=(.*)$') as search_path from unnest(r.proconfig) c where c ~ '^search_path='
) s on true
cross join lateral (
    select string_agg(t.kind, ' ' order by t.n) as kinds
    from unnest(array['front', 'read', 'send', 'relay', 'admin']) with ordinality t (kind, n)
    where has_function_privilege('regress_' || t.kind, r.oid, 'execute')
) k
where r.prosecdef
order by r.name collate "C";

\pset format aligned
-- None resolves names in a schema where a caller can create objects, changes its role, or is public.
select r.name as unsafe
from routine r
where r.prosecdef
    and (
        not coalesce('search_path=pg_catalog, pg_temp' = any (r.proconfig), false)
        or exists (select from unnest(r.proconfig) c where c ~ '^(role|session_authorization)=')
        or has_function_privilege('public', r.oid, 'execute')
    );

-- A role gets the functions that are listed for its kind. All of them exist, and all but add_account run with the owner's rights.
select k.kind, f.name as missing
from unnest(array['send', 'relay', 'admin']) k (kind)
cross join unnest(twilio_internal.role_functions(k.kind)) f (name)
where not exists (select from routine r where r.proname = f.name);
select k.kind, r.name as with_the_rights_of_its_caller
from unnest(array['send', 'relay', 'admin']) k (kind)
join routine r on r.proname = any (twilio_internal.role_functions(k.kind))
where not r.prosecdef;

drop owned by regress_front, regress_read, regress_send, regress_relay, regress_admin;
drop role regress_front, regress_read, regress_send, regress_relay, regress_admin;
drop view routine;
drop extension twilio_callback;
