-- What stops sending: the switch of all sending, which a copy of a database starts without, and paused accounts.
-- No search_path in is_sending, which each poll of the worker calls ten times: it qualifies all names.

-- A dump contains this mark, but not the switch below, which has the mark of its own database: in a restored copy the two
-- differ. pg_dump sorts tables by schema and name, so the mark is restored before all tables with messages to send. For that
-- it is in schema twilio.
create table twilio.dump_mark (
    mark uuid primary key default gen_random_uuid(),
    made_at timestamptz not null default twilio.now()
);

comment on table twilio.dump_mark is 'Identifies this database: one row, created with the first account or gateway and replaced by enable_sending() in a copy. Dumps include it.';
comment on column twilio.dump_mark.mark is 'Random value; equal to sending.mark unless the database was restored from a dump.';
comment on column twilio.dump_mark.made_at is 'When it was made.';

select pg_catalog.pg_extension_config_dump('twilio.dump_mark', '');

-- Not registered for pg_dump: a restored copy contains the queue and would send to real people.
create table twilio_internal.sending (
    is_only_row boolean primary key default true
        constraint sending_is_one_row check (is_only_row),
    is_on boolean not null,
    changed_at timestamptz not null default twilio.now(),
    mark uuid,
    database_oid oid
);

comment on table twilio_internal.sending is 'The switch of all sending: one row, which pg_dump leaves out. It counts only in the database where it was set: see twilio.is_sending().';
comment on column twilio_internal.sending.is_only_row is 'There is one row.';
comment on column twilio_internal.sending.is_on is 'Whether the switch is on.';
comment on column twilio_internal.sending.changed_at is 'When the switch was last set.';
comment on column twilio_internal.sending.mark is 'Mark of the database that the switch belongs to.';
comment on column twilio_internal.sending.database_oid is 'OID of the database; a database made from a template has another OID.';

create function twilio_internal.keep_own_row()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return null;
end
$$;

comment on function twilio_internal.keep_own_row() is 'Keeps logical replication from changing the table.';

-- Another cluster's database may have the same OID.
create trigger keep_own_row
before insert or update or delete on twilio_internal.sending
for each row execute function twilio_internal.keep_own_row();

alter table twilio_internal.sending enable replica trigger keep_own_row;

create table twilio_internal.paused_account (
    account_sid text collate "C" primary key,
    paused_at timestamptz not null default twilio.now(),
    error_code int,
    reason text
);

comment on table twilio_internal.paused_account is 'Accounts whose sending is paused until twilio.resume_account(account_sid).';
comment on column twilio_internal.paused_account.account_sid is 'The account.';
comment on column twilio_internal.paused_account.paused_at is 'Since when.';
comment on column twilio_internal.paused_account.error_code is 'Error code of Twilio.';
comment on column twilio_internal.paused_account.reason is 'Why, in words.';

select pg_catalog.pg_extension_config_dump('twilio_internal.paused_account', '');

create function twilio.is_copy()
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio.dump_mark m
        where not exists (
            select
            from twilio_internal.sending s
            join pg_database d on d.oid = s.database_oid
            where s.mark = m.mark and d.datname = current_database()
        )
    );
end;

comment on function twilio.is_copy() is
    'Returns whether this database was restored from a dump or made from a template and enable_sending() has not been called since.';

create function twilio.is_sending()
returns boolean
language plpgsql
stable
as $$
begin
    -- Checks the same as twilio.is_copy(), in one statement, since each poll of the worker calls this ten times.
    return coalesce((
        select s.is_on
            and s.database_oid operator(pg_catalog.=) d.oid
            and exists (select from twilio.dump_mark m where m.mark operator(pg_catalog.=) s.mark)
            and not exists (select from twilio.dump_mark m where m.mark operator(pg_catalog.<>) s.mark)
        from twilio_internal.sending s
        join pg_catalog.pg_database d on d.datname operator(pg_catalog.=) pg_catalog.current_database()
    ), false);
end
$$;

comment on function twilio.is_sending() is
    'Returns whether requests may be made: the switch is on and this database is not a copy. The worker checks this before each claim that leads to a request.';

create function twilio_internal.set_sending(is_on boolean)
returns void
language sql
volatile
begin atomic
    insert into twilio_internal.sending as s (is_on) values (set_sending.is_on)
    on conflict (is_only_row) do update
    set is_on = excluded.is_on, changed_at = twilio.now();
end;

comment on function twilio_internal.set_sending(boolean) is 'Sets the switch of all sending.';

create function twilio_internal.mark_database()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    new_mark uuid;
begin
    -- Two concurrent calls would leave two marks.
    lock table twilio.dump_mark in share row exclusive mode;
    if exists (select from twilio.dump_mark) and not twilio.is_copy() then
        return;
    end if;
    delete from twilio.dump_mark;
    insert into twilio.dump_mark default values returning mark into new_mark;
    insert into twilio_internal.sending as s (is_on, mark, database_oid)
    select true, new_mark, d.oid from pg_database d where d.datname = current_database()
    on conflict on constraint sending_pkey do update
    set mark = excluded.mark, database_oid = excluded.database_oid;
end
$$;

comment on function twilio_internal.mark_database() is
    'Gives this database a new mark if it has none or is a copy; turns sending on unless it was turned off before.';

create function twilio.enable_sending()
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.mark_database();
    perform twilio_internal.set_sending(true);
    perform twilio_internal.wake_worker();
end
$$;

comment on function twilio.enable_sending() is
    'Turns sending on: after disable_sending(), or in a copy that is to send.';

create function twilio.disable_sending()
returns void
language sql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select twilio_internal.set_sending(false);
end;

comment on function twilio.disable_sending() is
    'Turns all sending off; messages are still queued and wait. Requests under way are not stopped.';

create function twilio_internal.enable_sending_first()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from twilio.dump_mark) then
        perform twilio_internal.mark_database();
    elsif twilio.is_copy() then
        raise notice using
            message = 'sending stays off',
            detail = 'This database is a copy of another one, restored from a dump or made from a template.',
            hint = 'Look at twilio.queue_status, then: select twilio.enable_sending().';
    end if;
end
$$;

comment on function twilio_internal.enable_sending_first() is
    'Turns sending on in a new installation; add_account and add_smsgate do this.';

create function twilio_internal.pause_account(account_sid text, reason text default null, error_code int default null)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into twilio_internal.paused_account (account_sid, reason, error_code)
    values (twilio_internal.sole_account(pause_account.account_sid), pause_account.reason, pause_account.error_code)
    on conflict on constraint paused_account_pkey do nothing;
end
$$;

comment on function twilio_internal.pause_account(text, text, int) is
    'Stops sending for one account; the worker calls this when Twilio reports that the account cannot send.';

create function twilio.resume_account(account_sid text)
returns boolean
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from twilio_internal.paused_account p where p.account_sid = resume_account.account_sid;
    if not found then
        return false;
    end if;
    perform twilio_internal.wake_worker();
    return true;
end
$$;

comment on function twilio.resume_account(text) is
    'Lets a paused account send again; false if it was not paused.';
