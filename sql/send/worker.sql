-- The worker: its row, its lock, and how it is started, stopped and woken.

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
