-- The daily sweep: Twilio's list of an account's messages of a day is read and recorded, page by page.

create table twilio_internal.message_sweep (
    sweep_id bigint generated always as identity primary key,
    account_sid text collate "C" not null,
    day date not null,
    due_at timestamptz not null,
    lease_token uuid,
    next_page text,
    tries smallint not null default 0,
    pages int not null default 0,
    messages bigint not null default 0,
    changed bigint not null default 0,
    skipped bigint not null default 0,
    finished_at timestamptz,
    problem text,
    constraint message_sweep_is_said_once unique (account_sid, day)
);

create index message_sweep_due on twilio_internal.message_sweep (due_at) where finished_at is null;

comment on table twilio_internal.message_sweep is 'Reading of Twilio''s list of messages: one row for an account and a day in UTC, kept for 30 days.';
comment on column twilio_internal.message_sweep.sweep_id is 'Its number.';
comment on column twilio_internal.message_sweep.account_sid is 'The account.';
comment on column twilio_internal.message_sweep.day is 'Day on which the messages were sent.';
comment on column twilio_internal.message_sweep.due_at is 'When the next page is due; while it is leased, when the lease ends.';
comment on column twilio_internal.message_sweep.lease_token is 'Lease of the request under way; null if there is none.';
comment on column twilio_internal.message_sweep.next_page is 'Path and query of the next page; null for the first one.';
comment on column twilio_internal.message_sweep.tries is 'Number of requests for the next page that brought none.';
comment on column twilio_internal.message_sweep.pages is 'Number of pages that were recorded.';
comment on column twilio_internal.message_sweep.messages is 'Number of messages on them.';
comment on column twilio_internal.message_sweep.changed is 'Number of messages about which something was new.';
comment on column twilio_internal.message_sweep.skipped is 'Number of messages that could not be read or recorded, or were being changed by another session.';
comment on column twilio_internal.message_sweep.finished_at is 'When the list was read to its end or given up.';
comment on column twilio_internal.message_sweep.problem is 'Why the last request brought no page, or why the list was not read to its end.';

select pg_catalog.pg_extension_config_dump('twilio_internal.message_sweep', '');
select pg_catalog.pg_extension_config_dump('twilio_internal.message_sweep_sweep_id_seq', '');

create function twilio_internal.queue_sweep(account_sid text, day date, due_at timestamptz)
returns void
language sql
volatile
begin atomic
    insert into twilio_internal.message_sweep as s (account_sid, day, due_at)
    values (queue_sweep.account_sid, queue_sweep.day, queue_sweep.due_at)
    on conflict on constraint message_sweep_is_said_once do update
    set due_at = excluded.due_at, lease_token = null, next_page = null, tries = 0, pages = 0, messages = 0, changed = 0, skipped = 0,
        finished_at = null, problem = null
    -- One that is being read is read to its end.
    where s.finished_at is not null;
end;

comment on function twilio_internal.queue_sweep(text, date, timestamptz) is
    'Queues the list of an account''s messages of a day, unless it is being read.';

create function twilio_internal.queue_daily_sweeps()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    today constant date := (twilio.now() at time zone 'UTC')::date;
    midnight constant timestamptz := today::timestamp at time zone 'UTC';
begin
    if not current_setting('twilio_callback.daily_sweep')::boolean or not twilio.is_sending() then
        return;
    end if;
    -- A list is read from its newest message on. One that was not finished yesterday has grown there since.
    update twilio_internal.message_sweep s
    set next_page = null, pages = 0, messages = 0, changed = 0, skipped = 0, tries = 0
    where s.day = today - 1 and s.finished_at is null and s.lease_token is null and s.pages > 0
        and not exists (select from twilio_internal.message_sweep t where t.account_sid = s.account_sid and t.day = today);
    -- Some hours after midnight most prices of the day before are known. Accounts take turns within an hour. An account that was
    -- added today is swept from tomorrow on.
    perform twilio_internal.queue_sweep(a.account_sid, d.day, d.due_at)
    from twilio.account a
    cross join lateral (
        select today - 1 + n, midnight + interval '4 hours' + abs(hashtext(a.account_sid) % 3600) * interval '1 second'
        from generate_series(0, 1) n
    ) d (day, due_at)
    where a.created_at < midnight
        and not exists (select from twilio_internal.message_sweep s where s.account_sid = a.account_sid and s.day = today);
    delete from twilio_internal.message_sweep s where s.day < today - 30 and s.finished_at is not null;
end
$$;

comment on function twilio_internal.queue_daily_sweeps() is
    'Queues the lists of yesterday and today of each account, once a day; deletes rows that are older than 30 days.';

create function twilio.sweep_messages(day date, account_sid text default null)
returns int
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    queued int;
begin
    if day is null or day > (twilio.now() at time zone 'UTC')::date or day < '2008-01-01' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid day: "%s"', coalesce(day::text, 'null')),
            hint = 'Give a day in UTC, not in the future, on which messages were sent.';
    end if;
    if account_sid is not null and not exists (select from twilio.account a where a.account_sid = account_sid) then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s does not exist', account_sid),
            hint = 'select twilio.add_account(''AC…'', ''file:name'');';
    end if;
    perform twilio_internal.queue_sweep(a.account_sid, day, twilio.now())
    from twilio.account a
    where a.account_sid = coalesce(sweep_messages.account_sid, a.account_sid);
    get diagnostics queued = row_count;
    perform twilio_internal.wake_worker();
    return queued;
end
$$;

comment on function twilio.sweep_messages(date, text) is
    'Has the worker read Twilio''s list of all messages of a day in UTC, of an account or of all, and record what is new: prices, statuses, and messages that are not known here. Returns the number of accounts.';

create function twilio_internal.claim_sweep(lease interval default '90 seconds')
returns table (
    sweep_id bigint,
    lease_token uuid,
    account_sid text,
    day text,
    next_page text
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    rate constant int := current_setting('twilio_callback.reconcile_rate')::int;
    job twilio_internal.message_sweep;
begin
    if not twilio.is_sending() then
        return;
    end if;
    -- One page at a time: it takes a hundred times as much work as another answer.
    if exists (
        select from twilio_internal.message_sweep s where s.finished_at is null and s.lease_token is not null and s.due_at > moment
    ) then
        return;
    end if;
    select s.* into job
    from twilio_internal.message_sweep s
    where s.finished_at is null and s.due_at <= moment
        and not exists (
            -- A page settles a thousand messages, so it does not wait for its turn among single ones; a pause counts.
            select
            from twilio_internal.reconciliation_account p
            where p.account_sid = s.account_sid and p.failures > 0 and p.next_at > moment
        )
    order by s.due_at, s.sweep_id
    limit 1
    for update skip locked;
    if not found then
        return;
    end if;
    -- A request as any other: it counts for the rate of the account.
    insert into twilio_internal.reconciliation_account as p (account_sid, next_at)
    values (job.account_sid, moment + interval '1 second' / rate)
    on conflict on constraint reconciliation_account_pkey do update set next_at = excluded.next_at;
    return query
    update twilio_internal.message_sweep s
    set lease_token = gen_random_uuid(), due_at = moment + lease, tries = least(s.tries + 1, 1000)
    where s.sweep_id = job.sweep_id
    returning s.sweep_id, s.lease_token, s.account_sid, s.day::text, s.next_page;
end
$$;

comment on function twilio_internal.claim_sweep(interval) is
    'Takes the next page of a list of messages under a lease, unless one is under way.';

create function twilio_internal.next_sweep()
returns double precision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select extract(epoch from min(greatest(s.due_at, case when p.failures > 0 then p.next_at end)) - twilio.now())
        from twilio_internal.message_sweep s
        left join twilio_internal.reconciliation_account p on p.account_sid = s.account_sid
        where s.finished_at is null and s.due_at < 'infinity' and twilio.is_sending()
    );
end
$$;

comment on function twilio_internal.next_sweep() is
    'Returns the seconds until the next page of a list is due, negative if it is due already; null if there is none.';

create function twilio_internal.record_page(account_sid text, resources jsonb, out changed bigint, out skipped bigint)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: nested loop
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    sids constant text[] := array(select distinct i.sid from jsonb_to_recordset(resources) i (sid text));
    busy text[];
    item jsonb;
begin
    skipped := 0;
    -- So many rows are locked only if that needs no wait: a page waits for no callback, and so none for a page that waits.
    select array_agg(m.message_sid)
    into busy
    from twilio.message m
    where m.message_sid = any (sids)
        and not m.message_id = any (array(
            select x.message_id
            from twilio.message x
            where x.message_sid = any (sids)
            order by x.message_sid
            for update skip locked
        ));
    if busy is not null then
        skipped := cardinality(busy);
        resources := coalesce((
            select jsonb_agg(i.value)
            from jsonb_array_elements(resources) i (value)
            where not i.value ->> 'sid' = any (busy)
        ), '[]');
    end if;
    begin
        changed := twilio_internal.record_resources(account_sid, resources);
        return;
    exception
        when others then
            changed := 0;
    end;
    -- A user's trigger may refuse one of them.
    for item in select i.value from jsonb_array_elements(resources) i (value) order by i.value ->> 'sid' loop
        begin
            changed := changed + twilio_internal.record_resources(account_sid, jsonb_build_array(item));
        exception
            when others then
                skipped := skipped + 1;
        end;
    end loop;
end
$$;

comment on function twilio_internal.record_page(text, jsonb) is
    'Records a page of messages like twilio_internal.record_resources, without those that other sessions have locked, and one by one if it fails. Returns how many changed and how many were left out.';

create function twilio_internal.finish_sweep(
    sweep_id bigint,
    lease_token uuid,
    outcome text,
    resources jsonb default null,
    next_page text default null,
    unreadable int default 0,
    reason text default null,
    retry_after_ms bigint default null
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    job twilio_internal.message_sweep;
    page record;
    later timestamptz;
begin
    select s.* into job
    from twilio_internal.message_sweep s
    where s.sweep_id = sweep_id and s.lease_token = lease_token
    for update;
    if not found then
        return false;
    end if;
    if outcome = 'found' then
        -- Each page leads to another one.
        if next_page = job.next_page or job.pages >= 20000 then
            reason := 'the list of messages does not end';
            next_page := null;
        end if;
        select p.* into page from twilio_internal.record_page(job.account_sid, resources) p;
        update twilio_internal.message_sweep s
        set lease_token = null, tries = 0, due_at = moment, next_page = finish_sweep.next_page, pages = s.pages + 1,
            messages = s.messages + jsonb_array_length(resources) + unreadable,
            changed = s.changed + page.changed, skipped = s.skipped + page.skipped + unreadable,
            finished_at = case when finish_sweep.next_page is null then moment end,
            problem = reason
        where s.sweep_id = sweep_id;
        perform twilio_internal.note_answer(job.account_sid);
        return true;
    end if;
    if outcome = 'failed' then
        later := twilio_internal.pause_reconciliation(job.account_sid, reason, retry_after_ms);
    elsif job.tries < 5 then
        later := moment + interval '1 minute' * power(2, job.tries);
    end if;
    update twilio_internal.message_sweep s
    set lease_token = null, due_at = coalesce(later, moment), problem = reason,
        finished_at = case when later is null then moment end
    where s.sweep_id = sweep_id;
    return true;
end
$$;

comment on function twilio_internal.finish_sweep(bigint, uuid, text, jsonb, text, int, text, bigint) is
    'Records the result of reading a page of a list: found, unclear (read again later, five times at most) or failed (the account is left alone); false if the lease has ended.';
