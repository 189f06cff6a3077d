-- Who sees the rows of which account. The owner, and with it every function that runs with the owner's
-- rights, sees and changes all of them: what follows is asked only of those who read by themselves.

create table twilio.reader (
    role name not null,
    account_sid text collate "C",
    constraint reader_is_said_once unique nulls not distinct (role, account_sid)
);

comment on table twilio.reader is 'Roles that may read, each with the accounts whose rows it sees. Who is not listed sees none.';
comment on column twilio.reader.role is 'The role; its members see what it sees.';
comment on column twilio.reader.account_sid is 'An account whose rows it sees; null for all rows, also those of no account.';

select pg_catalog.pg_extension_config_dump('twilio.reader', '');

alter table twilio.reader enable row level security;

create policy own_lines on twilio.reader for select
using (exists (
    select from pg_roles r where r.rolname = reader.role and pg_has_role(r.oid, 'usage')
));

comment on policy own_lines on twilio.reader is 'A role sees what it and the roles that it is a member of may see.';

-- Functions, so that a query is planned as without policies. They run as whoever reads.
create function twilio.sees_all()
returns boolean
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return pg_has_role('pg_read_all_data', 'usage')
        or exists (select from twilio.reader r where r.account_sid is null);
end
$$;

comment on function twilio.sees_all() is 'Tells whether who asks may see the rows of all accounts.';

create function twilio.seen_accounts()
returns text[]
language plpgsql
stable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(select r.account_sid from twilio.reader r where r.account_sid is not null);
end
$$;

comment on function twilio.seen_accounts() is 'Returns the accounts whose rows who asks may see.';

grant execute on function twilio.sees_all(), twilio.seen_accounts() to pg_read_all_data;

-- Each subquery is evaluated once a query, not once a row.
do $$
declare
    sees_all constant text := '(select twilio.sees_all())';
    accounts constant text := '(select twilio.seen_accounts())::text[]';
    name text;
begin
    execute format(
        'create policy by_account on twilio.message for select using (%s or account_sid = any (%s))', sees_all, accounts
    );
    foreach name in array array['consent_keyword', 'consent_scope'] loop
        -- An administrator changes these by itself, and sees all.
        execute format(
            'create policy by_account on twilio.%I using (%s or account_sid is null or account_sid = any (%s))',
            name, sees_all, accounts
        );
    end loop;
    foreach name in array array[
        'message_event', 'attempt', 'outbox', 'fallback', 'reply', 'handover', 'smsgate_message',
        'message_media'
    ] loop
        execute format(
            'create policy by_message on twilio.%1$I for select using ('
            '%2$s or exists (select from twilio.message m where m.message_id = %1$I.message_id))',
            name, sees_all
        );
    end loop;
    foreach name in array array[
        'message', 'consent_keyword', 'consent_scope', 'message_event', 'attempt', 'outbox', 'fallback', 'reply',
        'handover', 'smsgate_message', 'message_media'
    ] loop
        execute format('alter table twilio.%I enable row level security', name);
    end loop;
end
$$;
