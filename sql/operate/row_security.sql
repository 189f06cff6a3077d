-- Row security: which role sees the rows of which account. The owner sees and changes all of them, and so do functions with the
-- owner's rights; the policies apply only to roles that read by themselves.

create table twilio_internal.reader (
    role name not null,
    account_sid text collate "C",
    constraint reader_is_said_once unique nulls not distinct (role, account_sid)
);

comment on table twilio_internal.reader is 'Roles that may read, each with the accounts whose rows it sees. Other roles see no rows.';
comment on column twilio_internal.reader.role is 'The role; its members see what it sees.';
comment on column twilio_internal.reader.account_sid is 'An account whose rows it sees; null for all rows, also those of no account.';

select pg_catalog.pg_extension_config_dump('twilio_internal.reader', '');

alter table twilio_internal.reader enable row level security;

create policy own_lines on twilio_internal.reader for select
using (exists (
    select from pg_roles r where r.rolname = reader.role and pg_has_role(r.oid, 'usage')
));

comment on policy own_lines on twilio_internal.reader is 'A role sees what it and the roles that it is a member of may see.';

-- Functions, so that a query is planned as without policies. They run as the reading role.
create function twilio_internal.sees_all()
returns boolean
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return pg_has_role('pg_read_all_data', 'usage')
        or exists (select from twilio_internal.reader r where r.account_sid is null);
end
$$;

comment on function twilio_internal.sees_all() is 'Returns whether the current role may see the rows of all accounts.';

create function twilio_internal.seen_accounts()
returns text[]
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(select r.account_sid from twilio_internal.reader r where r.account_sid is not null);
end
$$;

comment on function twilio_internal.seen_accounts() is 'Returns the accounts whose rows the current role may see.';

grant execute on function twilio_internal.sees_all(), twilio_internal.seen_accounts() to pg_read_all_data;

-- Each subquery is evaluated once per query, not once per row.
do $$
declare
    sees_all constant text := '(select twilio_internal.sees_all())';
    accounts constant text := '(select twilio_internal.seen_accounts())::text[]';
    name regclass;
begin
    execute format(
        'create policy by_account on twilio.message for select using (%s or account_sid = any (%s))', sees_all, accounts
    );
    foreach name in array '{twilio.consent_keyword, twilio.consent_scope}'::regclass[] loop
        -- Administrators change these tables directly, and see all rows.
        execute format(
            'create policy by_account on %s using (%s or account_sid is null or account_sid = any (%s))',
            name, sees_all, accounts
        );
    end loop;
    foreach name in array array[
        'twilio.message_event', 'twilio.message_media', 'twilio_internal.attempt', 'twilio_internal.outbox',
        'twilio_internal.fallback', 'twilio.reply', 'twilio_internal.acknowledgement',
        'twilio_internal.smsgate_message', 'twilio_internal.message_hours', 'twilio_internal.reconciliation'
    ]::regclass[] loop
        execute format(
            'create policy by_message on %1$s for select using ('
            -- Not "exists", for which PostgreSQL may read all messages first.
            '%2$s or (select true from twilio.message m where m.message_id = %1$s.message_id))',
            name, sees_all
        );
    end loop;
    for name in select distinct p.polrelid from pg_policy p join pg_class c on c.oid = p.polrelid
        where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace)
    loop
        execute format('alter table %s enable row level security', name);
    end loop;
end
$$;
