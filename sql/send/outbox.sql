-- The queue of messages to be sent, their attempts, and the switches that stop sending.
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

-- Not registered for pg_dump either, since it describes a process of this cluster.
create table twilio_internal.worker (
    is_only_row boolean primary key default true
        constraint worker_is_one_row check (is_only_row),
    pid int not null,
    started_at timestamptz not null,
    is_wanted boolean not null default true
);

comment on table twilio_internal.worker is 'The worker, or the last one: one row.';
comment on column twilio_internal.worker.is_only_row is 'There is one row.';
comment on column twilio_internal.worker.pid is 'Its process id.';
comment on column twilio_internal.worker.started_at is 'When it started.';
comment on column twilio_internal.worker.is_wanted is 'Whether it should run; stop_worker() sets it to false.';

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

create table twilio_internal.outbox (
    message_id bigint primary key,
    sender_id int not null,
    state text not null default 'waiting'
        constraint state_is_known check (state in ('waiting', 'unknown', 'dead')),
    is_repeatable boolean not null,
    due_at timestamptz not null,
    expires_at timestamptz not null,
    lease_token uuid,
    lease_until timestamptz,
    tries smallint not null default 0
        constraint tries_is_not_negative check (tries >= 0),
    crashes smallint not null default 0
        constraint crashes_is_not_negative check (crashes >= 0),
    is_provider_away boolean not null default false,
    looked_up_at timestamptz,
    candidates text[],
    problem text,
    constraint lease_is_whole check ((lease_token is null) = (lease_until is null)),
    constraint dead_is_never_due check (state <> 'dead' or due_at = 'infinity')
)
-- Rows live for seconds: room for their updates, and a vacuum as soon as there is something to gain.
with (
    fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- Claims and finishes change neither, so their updates stay HOT.
create index outbox_sender_due on twilio_internal.outbox (sender_id, due_at);
create index outbox_expires_at on twilio_internal.outbox (expires_at);
create index outbox_unknown on twilio_internal.outbox (message_id) where state in ('unknown', 'dead');
-- Holds rows only while a provider is away.
create index outbox_provider_away on twilio_internal.outbox (sender_id, due_at) where is_provider_away;

comment on table twilio_internal.outbox is 'Messages with open work; a row is deleted when its work has ended.';
comment on column twilio_internal.outbox.message_id is 'The message.';
comment on column twilio_internal.outbox.sender_id is 'Sender of the message.';
comment on column twilio_internal.outbox.state is 'waiting (to be sent), unknown (may have been sent) or dead (given up, since the worker crashed on it).';
comment on column twilio_internal.outbox.is_repeatable is 'Whether it is sent again when its outcome stays unknown: at_least_once.';
comment on column twilio_internal.outbox.due_at is 'When it is due next; infinity for never.';
comment on column twilio_internal.outbox.expires_at is 'When it expires: it is not sent any more from then on.';
comment on column twilio_internal.outbox.lease_token is 'Lease: the id of the attempt, or a token for other work; null if it is not leased.';
comment on column twilio_internal.outbox.lease_until is 'When the lease ends; after that its holder counts as crashed.';
comment on column twilio_internal.outbox.tries is 'Number of tries in this state.';
comment on column twilio_internal.outbox.crashes is 'Number of crashes of the worker while it had the lease.';
comment on column twilio_internal.outbox.is_provider_away is 'Whether it waits because its provider could not be reached; it is due at once when the provider is reached again.';
comment on column twilio_internal.outbox.looked_up_at is 'When an unknown outcome was last looked up at Twilio.';
comment on column twilio_internal.outbox.candidates is 'SIDs of the messages at Twilio that may be this one, as of looked_up_at; null if there are none.';
comment on column twilio_internal.outbox.problem is 'Why the look-up did not settle the outcome.';

select pg_catalog.pg_extension_config_dump('twilio_internal.outbox', '');

create table twilio_internal.attempt (
    attempt_id uuid primary key,
    -- No foreign key: its check would lock messages in another order than twilio_internal.record does.
    message_id bigint not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    outcome text
        constraint outcome_is_known check (outcome in ('accepted', 'refused', 'not_processed', 'unknown')),
    http_status int,
    error_code int,
    reason text,
    response jsonb,
    constraint attempt_is_finished_with_an_outcome check ((finished_at is null) = (outcome is null))
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create index attempt_message on twilio_internal.attempt (message_id);

comment on table twilio_internal.attempt is 'Attempts to send messages; a row is written before the request is sent.';
comment on column twilio_internal.attempt.attempt_id is 'Identifier that the StatusCallback carries as parameter attempt; ordered by time.';
comment on column twilio_internal.attempt.message_id is 'The message.';
comment on column twilio_internal.attempt.started_at is 'When it was claimed.';
comment on column twilio_internal.attempt.finished_at is 'When its outcome was recorded.';
comment on column twilio_internal.attempt.outcome is 'accepted, refused, not_processed (safe to repeat) or unknown (may have been sent).';
comment on column twilio_internal.attempt.http_status is 'HTTP status of the response, if there was one.';
comment on column twilio_internal.attempt.error_code is 'Twilio''s error code.';
comment on column twilio_internal.attempt.reason is 'Reason of a failure, in words.';
comment on column twilio_internal.attempt.response is 'JSON of the response, or its beginning as a string if it was not JSON.';

select pg_catalog.pg_extension_config_dump('twilio_internal.attempt', '');

create function twilio_internal.new_attempt_id()
returns uuid
language sql
volatile
begin atomic
    -- RFC 9562's version 7: milliseconds first, so that the index grows at one end, and 74 random bits.
    select encode(
        set_bit(
            set_bit(
                overlay(
                    uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6
                ),
                52, 1
            ),
            53, 1
        ),
        'hex'
    )::uuid;
end;

comment on function twilio_internal.new_attempt_id() is 'Returns a new identifier for an attempt: a UUID of version 7.';

create function twilio_internal.wake_at_commit(worker_pid int)
returns boolean
language c
volatile
as 'MODULE_PATHNAME', 'wake_at_commit_wrapper';

comment on function twilio_internal.wake_at_commit(int) is
    'Wakes a worker of this database when the transaction commits; returns false if the process is not a worker.';

create function twilio_internal.is_worker(pid int)
returns boolean
language c
volatile
strict
parallel restricted
as 'MODULE_PATHNAME', 'is_worker_wrapper';

comment on function twilio_internal.is_worker(int) is
    'Returns whether a process is a background worker of this database.';

create function twilio_internal.lock_worker()
returns boolean
language c
volatile
strict
as 'MODULE_PATHNAME', 'lock_worker_wrapper';

comment on function twilio_internal.lock_worker() is
    'Takes the worker''s lock for this process until it ends; false if another process holds it.';

create function twilio_internal.worker_lock_holder()
returns int
language c
volatile
strict
parallel restricted
as 'MODULE_PATHNAME', 'worker_lock_holder_wrapper';

comment on function twilio_internal.worker_lock_holder() is
    'Returns the process that holds the worker''s lock of this database; null if none does.';

create function twilio_internal.launch_worker()
returns void
language c
volatile
strict
as 'MODULE_PATHNAME', 'launch_worker_wrapper';

comment on function twilio_internal.launch_worker() is
    'Starts a background worker for this database; raises an error if the server has no room for one.';

create function twilio_internal.wake_worker()
returns void
language plpgsql
volatile
-- Callers with grant_send have no privileges on twilio_internal.worker.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.wake_at_commit(w.pid) from twilio_internal.worker w;
end
$$;

comment on function twilio_internal.wake_worker() is 'Wakes the worker when the transaction commits; does nothing if none runs.';

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

create function twilio_internal.is_worker_running()
returns boolean
language sql
stable
begin atomic
    select exists (select from twilio_internal.worker w where w.pid = twilio_internal.worker_lock_holder());
end;

comment on function twilio_internal.is_worker_running() is
    'Returns whether the process in twilio_internal.worker holds the worker''s lock.';

create function twilio.start_worker()
returns boolean
language plpgsql
volatile
-- Callers with grant_admin may not call the functions that start processes.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if twilio_internal.is_worker_running() and (select w.is_wanted from twilio_internal.worker w) then
        return false;
    end if;
    if pg_is_in_recovery() then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'cannot start the worker on a standby',
            hint = 'Once it is promoted, the worker starts by itself with shared_preload_libraries and twilio_callback.databases, or by this function.';
    end if;
    perform twilio_internal.launch_worker();
    -- It starts within milliseconds, unless create extension is not committed yet or the last worker has not ended.
    for n in 1..100 loop
        exit when twilio_internal.is_worker_running() and (select w.is_wanted from twilio_internal.worker w);
        perform pg_sleep(0.01);
    end loop;
    return true;
end
$$;

comment on function twilio.start_worker() is
    'Starts the worker, which runs until the server stops; false if it runs already. Not needed with shared_preload_libraries and twilio_callback.databases.';

create function twilio.stop_worker()
returns boolean
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update twilio_internal.worker w set is_wanted = false where w.is_wanted;
    if not found then
        return false;
    end if;
    perform twilio_internal.wake_worker();
    return true;
end
$$;

comment on function twilio.stop_worker() is
    'Stops the worker once the transaction commits, and keeps it from starting by itself; false if it is stopped already.';

create function twilio_internal.begin_work(pid int, is_asked_for boolean)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if not is_asked_for and exists (select from twilio_internal.worker w where not w.is_wanted) then
        return 'not wanted';
    end if;
    -- Held until the process ends: one worker per database.
    if not twilio_internal.lock_worker() then
        return 'busy';
    end if;
    insert into twilio_internal.worker as w (pid, started_at) values (pid, twilio.now())
    on conflict on constraint worker_pkey do update
    set pid = excluded.pid, started_at = excluded.started_at, is_wanted = true;
    perform twilio_internal.rescue_orphaned(true);
    return 'begun';
end
$$;

comment on function twilio_internal.begin_work(int, boolean) is
    'Makes a process the worker of this database and requeues the work of the last one. Returns begun, busy (another worker runs) or not wanted.';

create function twilio_internal.is_work_wanted(pid int)
returns boolean
language sql
stable
begin atomic
    select coalesce((
        select w.is_wanted from twilio_internal.worker w where w.pid = is_work_wanted.pid
    ), false);
end;

comment on function twilio_internal.is_work_wanted(int) is 'Returns whether a process should still be the worker.';

create function twilio_internal.given_up_reason()
returns text
language sql
immutable
return 'given up: it is not known whether it was sent';

comment on function twilio_internal.given_up_reason() is
    'Returns the reason of messages that twilio.resolve_unknown has given up: rules by status send no fallback for them.';
