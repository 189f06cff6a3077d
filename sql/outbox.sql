-- The queue of what is to be sent, every try at sending it, and what stops sending altogether.

-- A dump holds this mark and not the switch below, which knows the mark of its own database: in a restored copy the two
-- differ. pg_dump sorts tables by schema and name, so the mark is restored before every table that jobs are taken from. For
-- that it is in schema twilio.
create table twilio.dump_mark (
    mark uuid primary key default gen_random_uuid(),
    made_at timestamptz not null default twilio.now()
);

comment on table twilio.dump_mark is 'Identifies this database: one row, created with the first account or gateway and replaced by enable_sending() in a copy. Dumps include it.';
comment on column twilio.dump_mark.mark is 'Random value; equal to sending.mark unless the database was restored from a dump.';
comment on column twilio.dump_mark.made_at is 'When it was made.';

select pg_catalog.pg_extension_config_dump('twilio.dump_mark', '');

-- Not registered for pg_dump: a restored copy holds the queue and would text real people.
create table twilio_internal.sending (
    is_only_row boolean primary key default true
        constraint sending_is_one_row check (is_only_row),
    is_on boolean not null,
    changed_at timestamptz not null default twilio.now(),
    mark uuid,
    database_oid oid
);

comment on table twilio_internal.sending is 'The switch of all sending: one row, which pg_dump leaves out. It counts only in the database that it was turned in: see twilio.is_sending().';
comment on column twilio_internal.sending.is_only_row is 'There is one row.';
comment on column twilio_internal.sending.is_on is 'Whether the switch is on.';
comment on column twilio_internal.sending.changed_at is 'When the switch was last turned.';
comment on column twilio_internal.sending.mark is 'The mark of the database that it is the switch of.';
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

-- Not registered for pg_dump either: it is about a process of this cluster.
create table twilio_internal.worker (
    is_only_row boolean primary key default true
        constraint worker_is_one_row check (is_only_row),
    pid int not null,
    started_at timestamptz not null,
    is_wanted boolean not null default true
);

comment on table twilio_internal.worker is 'The process that sends, or that last did: one row.';
comment on column twilio_internal.worker.is_only_row is 'There is one row.';
comment on column twilio_internal.worker.pid is 'Its process id.';
comment on column twilio_internal.worker.started_at is 'When it started.';
comment on column twilio_internal.worker.is_wanted is 'Whether it should run; stop_worker() says no.';

create table twilio_internal.paused_account (
    account_sid text collate "C" primary key,
    paused_at timestamptz not null default twilio.now(),
    error_code int,
    reason text
);

comment on table twilio_internal.paused_account is 'Accounts that nothing is sent for until twilio.resume_account(account_sid).';
comment on column twilio_internal.paused_account.account_sid is 'The account.';
comment on column twilio_internal.paused_account.paused_at is 'Since when.';
comment on column twilio_internal.paused_account.error_code is 'Error code that Twilio gave.';
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

comment on table twilio_internal.outbox is 'Messages that work is left for; a row goes when its work has ended.';
comment on column twilio_internal.outbox.message_id is 'The message.';
comment on column twilio_internal.outbox.sender_id is 'Sender that it goes from.';
comment on column twilio_internal.outbox.state is 'waiting to be sent, unknown (may have been sent) or dead (given up, since the worker died over it).';
comment on column twilio_internal.outbox.is_repeatable is 'Whether it is sent again when its outcome stays unknown: at_least_once.';
comment on column twilio_internal.outbox.due_at is 'When it is worked on next; infinity for never.';
comment on column twilio_internal.outbox.expires_at is 'From when on it is not sent any more.';
comment on column twilio_internal.outbox.lease_token is 'Who works on it: the attempt, or a token of its own for other work; null if nobody.';
comment on column twilio_internal.outbox.lease_until is 'Until when; later, whoever had it is taken for dead.';
comment on column twilio_internal.outbox.tries is 'How often the work of this state was tried.';
comment on column twilio_internal.outbox.crashes is 'How often the worker died over it.';
comment on column twilio_internal.outbox.is_provider_away is 'Whether it waits because its provider could not be reached; it is due at once when a request reaches that provider again.';
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

comment on table twilio_internal.attempt is 'Every try at sending a message, written before its request goes out.';
comment on column twilio_internal.attempt.attempt_id is 'Identifier that the StatusCallback carries as parameter attempt; ordered by time.';
comment on column twilio_internal.attempt.message_id is 'The message.';
comment on column twilio_internal.attempt.started_at is 'When it was claimed.';
comment on column twilio_internal.attempt.finished_at is 'When its outcome was written.';
comment on column twilio_internal.attempt.outcome is 'accepted, refused, not_processed (safe to repeat) or unknown (may have been sent).';
comment on column twilio_internal.attempt.http_status is 'HTTP status of the answer, if there was one.';
comment on column twilio_internal.attempt.error_code is 'Twilio''s error code.';
comment on column twilio_internal.attempt.reason is 'What went wrong, in words.';
comment on column twilio_internal.attempt.response is 'The answer''s JSON, or its beginning as a string where it was none.';

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

comment on function twilio_internal.new_attempt_id() is 'Makes an identifier for an attempt: a UUID of version 7.';

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
    'Tells whether a process is a background worker of this database.';

create function twilio_internal.lock_worker()
returns boolean
language c
volatile
strict
as 'MODULE_PATHNAME', 'lock_worker_wrapper';

comment on function twilio_internal.lock_worker() is
    'Makes this process the only one that holds the worker''s lock, until it ends; false if another process does.';

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
-- The one row is read as the owner: whoever sends needs no right to see it.
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
    -- As twilio.is_copy() tells it, in one statement without settings: every look of the worker asks this ten times.
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
    'Tells whether requests may be made: the switch is on and this database is not a copy. The worker asks this before it takes anything that leads to a request.';

create function twilio_internal.set_sending(is_on boolean)
returns void
language sql
volatile
begin atomic
    insert into twilio_internal.sending as s (is_on) values (set_sending.is_on)
    on conflict (is_only_row) do update
    set is_on = excluded.is_on, changed_at = twilio.now();
end;

comment on function twilio_internal.set_sending(boolean) is 'Turns the switch of all sending.';

create function twilio_internal.mark_database()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    new_mark uuid;
begin
    -- Two that come at once would leave two marks.
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
begin atomic
    select twilio_internal.set_sending(false);
end;

comment on function twilio.disable_sending() is
    'Turns all sending off; messages are still taken and wait. What is under way already is not stopped.';

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
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into twilio_internal.paused_account (account_sid, reason, error_code)
    values (twilio_internal.sole_account(pause_account.account_sid), pause_account.reason, pause_account.error_code)
    on conflict on constraint paused_account_pkey do nothing;
end
$$;

comment on function twilio_internal.pause_account(text, text, int) is
    'Stops sending for one account; the worker does this when Twilio says that the account cannot send.';

create function twilio.resume_account(account_sid text)
returns boolean
language plpgsql
volatile
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
set search_path = pg_catalog, pg_temp
as $$
begin
    if twilio_internal.is_worker_running() and (select w.is_wanted from twilio_internal.worker w) then
        return false;
    end if;
    if pg_is_in_recovery() then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'a standby sends nothing',
            hint = 'Once it is promoted, the worker starts by itself with shared_preload_libraries and twilio_callback.databases, or by this function.';
    end if;
    perform twilio_internal.launch_worker();
    -- It is at work in no time, unless the extension itself is not committed yet or the last one still ends.
    for n in 1..100 loop
        exit when twilio_internal.is_worker_running() and (select w.is_wanted from twilio_internal.worker w);
        perform pg_sleep(0.01);
    end loop;
    return true;
end
$$;

comment on function twilio.start_worker() is
    'Starts the process that sends, until the server stops; false if it runs. Not needed with shared_preload_libraries and twilio_callback.databases.';

create function twilio.stop_worker()
returns boolean
language plpgsql
volatile
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
    'Ends the process that sends once the transaction commits, and keeps one from starting by itself; false if it is stopped.';

create function twilio_internal.begin_work(pid int, is_asked_for boolean)
returns text
language plpgsql
volatile
as $$
#variable_conflict use_variable
begin
    if not is_asked_for and exists (select from twilio_internal.worker w where not w.is_wanted) then
        return 'not wanted';
    end if;
    -- Held until the process ends: one worker a database.
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
    'Makes a process the worker of this database, and takes back what the last one left: begun, busy (there is one) or not wanted.';

create function twilio_internal.is_work_wanted(pid int)
returns boolean
language sql
stable
begin atomic
    select coalesce((
        select w.is_wanted from twilio_internal.worker w where w.pid = is_work_wanted.pid
    ), false);
end;

comment on function twilio_internal.is_work_wanted(int) is 'Tells whether a process is still to be the worker.';

create function twilio_internal.given_up_reason()
returns text
language sql
immutable
return 'given up: it is not known whether it was sent';

comment on function twilio_internal.given_up_reason() is
    'Returns the reason of messages that twilio.resolve_unknown gave up: no fallback by status goes out for them.';
