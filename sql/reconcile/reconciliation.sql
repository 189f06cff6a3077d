-- Reconciliation: the state of messages whose callbacks did not come is fetched from Twilio.
-- Lock order: a message before its row of reconciliation, as a purge locks them.

create table twilio_internal.reconciliation (
    message_id bigint primary key,
    account_sid text collate "C" not null,
    due_at timestamptz not null,
    since timestamptz not null default twilio.now(),
    tries smallint not null default 0
        constraint tries_is_not_negative check (tries >= 0),
    lease_token uuid,
    problem text,
    ended_at timestamptz
)
-- Each try moves due_at, and most rows live for one try.
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create index reconciliation_due on twilio_internal.reconciliation (account_sid, due_at);
create index reconciliation_leased on twilio_internal.reconciliation (due_at) where lease_token is not null;

comment on table twilio_internal.reconciliation is 'Messages at Twilio without a final status whose state is fetched; a row is deleted when its message has a final status.';
comment on column twilio_internal.reconciliation.message_id is 'The message.';
comment on column twilio_internal.reconciliation.account_sid is 'Account of the message.';
comment on column twilio_internal.reconciliation.due_at is 'When it is due next; while it is leased, when the lease ends.';
comment on column twilio_internal.reconciliation.since is 'When it was queued, or when its own time comes: four days later it is given up.';
comment on column twilio_internal.reconciliation.tries is 'Number of answers of Twilio about it so far, with the request under way.';
comment on column twilio_internal.reconciliation.lease_token is 'Lease of the request under way; null if there is none.';
comment on column twilio_internal.reconciliation.problem is 'What the last answer was, if it settled nothing.';
comment on column twilio_internal.reconciliation.ended_at is 'When it was given up; null if it is still fetched.';

select pg_catalog.pg_extension_config_dump('twilio_internal.reconciliation', '');

create table twilio_internal.reconciliation_account (
    account_sid text collate "C" primary key,
    next_at timestamptz not null,
    failures smallint not null default 0,
    problem text
);

comment on table twilio_internal.reconciliation_account is 'When the next request that fetches the state of a message of an account may be made.';
comment on column twilio_internal.reconciliation_account.account_sid is 'The account.';
comment on column twilio_internal.reconciliation_account.next_at is 'The rate allows no request before this time, nor does Twilio if the last one failed.';
comment on column twilio_internal.reconciliation_account.failures is 'Number of times in a row that requests failed for a reason that concerns the whole account.';
comment on column twilio_internal.reconciliation_account.problem is 'That reason; null if the last request was answered.';

select pg_catalog.pg_extension_config_dump('twilio_internal.reconciliation_account', '');

-- Not dumped, since a restored database has other transactions. In a copy the search begins anew.
create table twilio_internal.reconciliation_mark (
    message_id bigint primary key,
    is_examined boolean not null,
    xid xid8 not null,
    marked_at timestamptz not null
);

create unique index reconciliation_mark_examined on twilio_internal.reconciliation_mark (is_examined) where is_examined;

comment on table twilio_internal.reconciliation_mark is 'How far messages have been examined, in one row, and the newest message as of several times since.';
comment on column twilio_internal.reconciliation_mark.message_id is 'The last message that was examined, or that was visible when this mark was made.';
comment on column twilio_internal.reconciliation_mark.is_examined is 'Whether all messages up to this one have been examined.';
comment on column twilio_internal.reconciliation_mark.xid is 'Once all transactions before this one have ended, no message up to this one can still appear.';
comment on column twilio_internal.reconciliation_mark.marked_at is 'When the mark was made: messages up to this one are older.';

create function twilio_internal.reconcile_after()
returns interval
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    after interval;
begin
    -- The library defines the setting once a function of it is called.
    perform twilio.now();
    after := current_setting('twilio_callback.reconcile_after')::interval;
    return case when after > interval '0' then greatest(after, interval '1 minute') end;
end
$$;

comment on function twilio_internal.reconcile_after() is
    'Returns how long a message may have no final status before it is fetched from Twilio, at least a minute; null if reconciliation is off.';

create function twilio_internal.is_reconcilable(message twilio.message)
returns boolean
language sql
immutable
return (message).direction = 'outbound' and (message).provider = 'twilio' and not (message).is_simulated
    and twilio_internal.status_kind('twilio', (message).status) = 'pending';

comment on function twilio_internal.is_reconcilable(twilio.message) is
    'Returns whether a message is one at Twilio without a final status.';

create function twilio_internal.examine_messages(at_most interval default '200 ms')
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    moment constant timestamptz := twilio.now();
    after constant interval := twilio_internal.reconcile_after();
    give_up_at constant timestamptz := clock_timestamp() + at_most;
    newest constant bigint := coalesce((select max(m.message_id) from twilio.message m), 0);
    first_id bigint;
    reached bigint;
    target bigint;
    last_id bigint;
begin
    if after is null then
        return 0;
    end if;
    select k.message_id into first_id from twilio_internal.reconciliation_mark k where k.is_examined for update;
    if not found then
        -- Older ones are fetched by twilio.reconcile().
        first_id := coalesce((
            select m.message_id - 1
            from twilio.message m
            where m.created_at >= moment - interval '4 days'
            order by m.created_at, m.message_id
            limit 1
        ), newest);
        insert into twilio_internal.reconciliation_mark (message_id, is_examined, xid, marked_at)
        values (first_id, true, '0', moment);
    end if;
    -- Ids are given in the order of time, whatever the clock does and however old a message is dated. So what a mark
    -- covers has the mark's age.
    insert into twilio_internal.reconciliation_mark (message_id, is_examined, xid, marked_at)
    select newest, false, pg_snapshot_xmax(pg_current_snapshot()), moment
    where newest > (select max(k.message_id) from twilio_internal.reconciliation_mark k)
        and not exists (
            select
            from twilio_internal.reconciliation_mark k
            where not k.is_examined and k.marked_at > moment - greatest(after / 60, interval '10 seconds') and k.marked_at <= moment
        );
    select max(k.message_id)
    into target
    from twilio_internal.reconciliation_mark k
    where not k.is_examined and k.marked_at <= moment - after
        -- A transaction that has been writing since before the mark may commit a message that the mark covers. One that was
        -- forgotten does not stop the others for longer than an hour.
        and (k.xid <= pg_snapshot_xmin(pg_current_snapshot()) or k.marked_at <= moment - after - interval '1 hour');
    reached := first_id;
    while reached < target loop
        select max(w.message_id)
        into last_id
        from (
            select m.message_id
            from twilio.message m
            where m.message_id > reached and m.message_id <= target
            order by m.message_id
            limit 5000
        ) w;
        insert into twilio_internal.reconciliation (message_id, account_sid, due_at, since)
        select m.message_id, m.account_sid, greatest(m.created_at, m.send_at) + after, greatest(moment, m.send_at)
        from twilio.message m
        where m.message_id > reached and m.message_id <= last_id
            and twilio_internal.is_reconcilable(m)
            and exists (select from twilio.account a where a.account_sid = m.account_sid)
        on conflict do nothing;
        reached := coalesce(last_id, target);
        exit when clock_timestamp() >= give_up_at;
    end loop;
    if reached > first_id then
        delete from twilio_internal.reconciliation_mark k where k.message_id <= reached;
        insert into twilio_internal.reconciliation_mark (message_id, is_examined, xid, marked_at)
        values (reached, true, '0', moment);
    end if;
    return reached - first_id;
end
$$;

comment on function twilio_internal.examine_messages(interval) is
    'Examines the messages that have become older than reconcile_after, for a limited time, and queues those without a final status. Returns how far it came, in ids.';

create function twilio_internal.queue_reconciliation(since timestamptz, account_sid text)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    queued bigint;
begin
    insert into twilio_internal.reconciliation as r (message_id, account_sid, due_at, since)
    select m.message_id, m.account_sid, moment, moment
    from twilio.message m
    where m.created_at >= since
        and twilio_internal.is_reconcilable(m)
        and m.message_sid is not null
        and coalesce(m.send_at <= moment, true)
        and coalesce(m.account_sid = queue_reconciliation.account_sid, exists (select from twilio.account a where a.account_sid = m.account_sid))
    on conflict on constraint reconciliation_pkey do update
    set due_at = case when r.lease_token is null then excluded.due_at else r.due_at end,
        since = excluded.since, tries = 0, ended_at = null, problem = null;
    get diagnostics queued = row_count;
    return queued;
end
$$;

comment on function twilio_internal.queue_reconciliation(timestamptz, text) is
    'Queues the messages of an account, or of all, that were created since a time and have no final status, so that they are fetched at once. Returns their number.';

create function twilio.reconcile(since interval default '7 days', account_sid text default null)
returns bigint
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    queued bigint;
begin
    if since is null or since <= interval '0' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid time span: "%s"', coalesce(since::text, 'null')),
            hint = 'Give an interval such as ''7 days''.';
    end if;
    if account_sid is not null and not exists (select from twilio.account a where a.account_sid = account_sid) then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s does not exist', account_sid),
            hint = 'select twilio.add_account(''AC…'', ''file:name'');';
    end if;
    if twilio_internal.reconcile_after() is null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'reconciliation is off',
            hint = 'alter system set twilio_callback.reconcile_after = ''15min''; select pg_reload_conf();';
    end if;
    queued := twilio_internal.queue_reconciliation(twilio.now() - since, account_sid);
    perform twilio_internal.wake_worker();
    return queued;
end
$$;

comment on function twilio.reconcile(interval, text) is
    'Queues all messages of a time span that are at Twilio and have no final status, also those that were given up, so that the worker fetches their state now. Returns their number; twilio.reconciliation_status shows the progress.';

create view twilio.unreconciled_message
with (security_invoker = true)
as
select
    m.message_id,
    m.message_sid,
    m.account_sid,
    m.channel,
    m.from_address,
    m.to_address,
    m.status,
    m.created_at,
    r.tries,
    r.ended_at,
    r.problem as reason
from twilio_internal.reconciliation r
cross join lateral (
    select x.* from twilio.message x where x.message_id = r.message_id and twilio_internal.is_reconcilable(x) offset 0
) m
where r.ended_at is not null;

comment on view twilio.unreconciled_message is 'Messages whose final status could not be found out at Twilio: the worker has given them up.';
comment on column twilio.unreconciled_message.message_id is 'The message.';
comment on column twilio.unreconciled_message.message_sid is 'Twilio''s identifier.';
comment on column twilio.unreconciled_message.account_sid is 'Its account.';
comment on column twilio.unreconciled_message.channel is 'Its channel.';
comment on column twilio.unreconciled_message.from_address is 'Its sender.';
comment on column twilio.unreconciled_message.to_address is 'Its recipient.';
comment on column twilio.unreconciled_message.status is 'Its last known status.';
comment on column twilio.unreconciled_message.created_at is 'When it was created.';
comment on column twilio.unreconciled_message.tries is 'How often Twilio was asked.';
comment on column twilio.unreconciled_message.ended_at is 'When it was given up.';
comment on column twilio.unreconciled_message.reason is 'Why.';

create view twilio.reconciliation_status
with (security_invoker = true)
as
select
    q.account_sid,
    q.waiting,
    q.due,
    q.in_flight,
    q.ended,
    q.oldest_created_at,
    q.rate_per_second,
    case when p.problem is not null and p.next_at > twilio.now() then p.next_at end as paused_until,
    p.problem,
    case when q.due > 0 and q.rate_per_second > 0 then
        greatest(twilio.now(), p.next_at) + q.due * interval '1 second' / q.rate_per_second
    end as done_at
from (
    select
        a.account_sid,
        count(m.message_id) filter (where r.ended_at is null and r.lease_token is null) as waiting,
        count(m.message_id) filter (where r.ended_at is null and r.lease_token is null and r.due_at <= twilio.now()) as due,
        count(m.message_id) filter (where r.lease_token is not null) as in_flight,
        count(m.message_id) filter (where r.ended_at is not null) as ended,
        min(m.created_at) filter (where r.ended_at is null) as oldest_created_at,
        case when twilio_internal.reconcile_after() is null then 0 else current_setting('twilio_callback.reconcile_rate')::int end as rate_per_second
    from twilio.account a
    left join twilio_internal.reconciliation r on r.account_sid = a.account_sid
    -- By its key, whatever the planner knows: the table of messages is never read as a whole.
    left join lateral (
        select x.message_id, x.created_at
        from twilio.message x
        where x.message_id = r.message_id and twilio_internal.is_reconcilable(x)
        offset 0
    ) m on true
    group by a.account_sid
) q
left join twilio_internal.reconciliation_account p on p.account_sid = q.account_sid;

comment on view twilio.reconciliation_status is 'State of reconciliation: one row per account.';
comment on column twilio.reconciliation_status.account_sid is 'The account.';
comment on column twilio.reconciliation_status.waiting is 'Messages without a final status that are fetched now or later.';
comment on column twilio.reconciliation_status.due is 'Of these, those that are due now.';
comment on column twilio.reconciliation_status.in_flight is 'Messages that are being fetched.';
comment on column twilio.reconciliation_status.ended is 'Messages that were given up: twilio.unreconciled_message lists them.';
comment on column twilio.reconciliation_status.oldest_created_at is 'When the oldest message that is still fetched was created.';
comment on column twilio.reconciliation_status.rate_per_second is 'Most requests a second; 0 if reconciliation is off.';
comment on column twilio.reconciliation_status.paused_until is 'Until when Twilio is left alone after a failed request; null if it is not.';
comment on column twilio.reconciliation_status.problem is 'Why the last request failed; null if it was answered.';
comment on column twilio.reconciliation_status.done_at is 'When all that is due now will have been fetched at this rate.';
