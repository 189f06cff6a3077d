-- Before anything else is created: only the installing role and superusers may own or change the schemas. A role that
-- can create objects in them could add a function that fits a call better than ours, and it would run with the caller's
-- rights. Until this is checked, names are qualified and types exact, since the schema is in the search path.

create schema twilio_internal;

comment on schema twilio_internal is 'Internals of twilio_callback: any release may change them.';

create function twilio_internal.schema_findings(schema_name name, owner oid)
returns setof text
language sql
stable
set search_path = pg_catalog, pg_temp
begin atomic
    with schema as (
        select n.oid, n.nspowner, n.nspacl from pg_catalog.pg_namespace n where n.nspname = schema_name
    ),
    finding (role, text) as (
        select s.nspowner, 'is owned by %s' from schema s
        union
        select a.grantee, '%s may create objects in it'
        from schema s
        cross join lateral pg_catalog.aclexplode(s.nspacl) a
        where a.privilege_type = 'CREATE'
        union
        select o.owner, 'contains objects of %s'
        from schema s
        join (
            select p.pronamespace, p.proowner from pg_catalog.pg_proc p
            union all
            select c.relnamespace, c.relowner from pg_catalog.pg_class c
            union all
            select t.typnamespace, t.typowner from pg_catalog.pg_type t
            union all
            select p.oprnamespace, p.oprowner from pg_catalog.pg_operator p
        ) o (namespace, owner) on o.namespace = s.oid
    )
    select pg_catalog.format(
        f.text,
        case
            when f.role = 0 then 'PUBLIC'
            else 'role ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(f.role)::text)
        end
    )
    from finding f
    -- A superuser needs no such way.
    where f.role <> schema_findings.owner
        and not exists (select from pg_catalog.pg_roles r where r.oid = f.role and r.rolsuper)
    order by 1;
end;

comment on function twilio_internal.schema_findings(name, oid) is
    'Lists how roles other than the owner and superusers can change a schema.';

do $$
declare
    found text;
    wanted pg_catalog.name;
begin
    foreach wanted in array '{twilio, twilio_internal, twilio_api}'::pg_catalog.name[] loop
        select pg_catalog.string_agg(t, '; '::pg_catalog.text) into found
        from pg_catalog.pg_roles r
        cross join lateral twilio_internal.schema_findings(wanted, r.oid) t
        where r.rolname operator(pg_catalog.=) current_user;
        if found is not null then
            raise exception using
                errcode = 'object_not_in_prerequisite_state',
                message = pg_catalog.format('schema %I can be changed by other roles'::pg_catalog.text, wanted),
                detail = pg_catalog.format('The schema: %s.'::pg_catalog.text, found),
                hint = 'Drop or rename the schema; create extension then creates it.';
        end if;
    end loop;
end
$$;
