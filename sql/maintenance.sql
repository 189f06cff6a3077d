-- The long view: state computed anew from the log, and the end of what is kept.

create function twilio.replay_difference(message_ids bigint[])
returns table (message_id bigint, attribute text, stored text, replayed text)
language sql
stable
begin atomic
    select m.message_id, d.attribute, d.stored, d.replayed
    from twilio.message_state(replay_difference.message_ids) s
    join twilio.message m on m.message_id = s.message_id
    cross join lateral (
        values
            ('status', m.status, s.status),
            ('error_code', m.error_code::text, s.error_code::text),
            ('error_message', m.error_message, twilio.error_message_of(m.message_id, s.error_code)),
            ('is_corrected', m.is_corrected::text, s.is_corrected::text),
            ('sent_at', m.sent_at::text, s.sent_at::text),
            ('delivered_at', m.delivered_at::text, s.delivered_at::text),
            ('read_at', m.read_at::text, s.read_at::text),
            ('failed_at', m.failed_at::text, s.failed_at::text)
    ) d (attribute, stored, replayed)
    where d.stored is distinct from d.replayed
    order by m.message_id, d.attribute;
end;

comment on function twilio.replay_difference(bigint[]) is
    'Compares the stored state of messages with the one that follows from their events: one row a difference.';

create function twilio.replay(
    created_from timestamptz default '-infinity',
    created_to timestamptz default 'infinity',
    message_ids bigint[] default null,
    dry_run boolean default true,
    batch_rows int default 5000
)
returns table (message_id bigint, attribute text, stored text, replayed text)
language plpgsql
volatile
-- An administrator may mend states without being able to write them otherwise.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    last_id bigint := 0;
    looked_at bigint := 0;
    ids bigint[];
    wrong bigint[];
begin
    if batch_rows is null or batch_rows not between 1 and 100000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('%s rows are no batch', coalesce(batch_rows::text, 'null')),
            hint = 'Give a number from 1 to 100000.';
    end if;
    loop
        select array_agg(b.message_id), max(b.message_id)
        into ids, last_id
        from (
            select m.message_id
            from twilio.message m
            where m.message_id > last_id
                and m.created_at >= created_from
                and m.created_at < created_to
                and (replay.message_ids is null or m.message_id = any (replay.message_ids))
            order by m.message_id
            limit batch_rows
        ) b;
        exit when ids is null;
        looked_at := looked_at + cardinality(ids);
        if coalesce(dry_run, true) then
            return query select d.* from twilio.replay_difference(ids) d;
        else
            select array_agg(distinct d.message_id) into wrong from twilio.replay_difference(ids) d;
            if wrong is not null then
                -- In the order of twilio.record; what differs is computed once more under the locks.
                perform from twilio.message m
                where m.message_id = any (wrong)
                order by m.message_sid nulls first, m.message_id
                for update;
                return query select d.* from twilio.replay_difference(wrong) d;
                update twilio.message m
                set status = s.status,
                    error_code = s.error_code,
                    error_message = twilio.error_message_of(m.message_id, s.error_code),
                    is_corrected = s.is_corrected,
                    sent_at = s.sent_at,
                    delivered_at = s.delivered_at,
                    read_at = s.read_at,
                    failed_at = s.failed_at
                from twilio.message_state(wrong) s
                where m.message_id = s.message_id;
            end if;
        end if;
        if looked_at % 100000 < cardinality(ids) then
            raise notice '% messages replayed', looked_at;
        end if;
    end loop;
end
$$;

comment on function twilio.replay(timestamptz, timestamptz, bigint[], boolean, int) is
    'Computes the state of messages anew from their events and returns what differs; repairs it unless dry_run. Addresses, and messages without events, are left alone.';

create function twilio.is_open_work(message_id bigint, may_be_dead boolean)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio.outbox o
        where o.message_id = is_open_work.message_id and not (is_open_work.may_be_dead and o.state = 'dead')
    )
    or exists (select from twilio.fallback f where f.message_id = is_open_work.message_id and f.is_preparing)
    or exists (select from twilio.smsgate_message s where s.message_id = is_open_work.message_id and s.is_open);
end;

comment on function twilio.is_open_work(bigint, boolean) is
    'Tells whether something is still to be done for a message, or to be decided by people if it is dead.';

create function twilio.lock_finished(
    after_id bigint,
    quiet_since timestamptz,
    include_pending boolean,
    batch_rows int,
    out last_id bigint,
    out message_ids bigint[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    roots bigint[];
    locked bigint[];
begin
    select array_agg(b.message_id), max(b.message_id)
    into roots, last_id
    from (
        select m.message_id
        from twilio.message m
        where m.message_id > after_id and m.root_id = m.message_id and m.created_at < quiet_since
        order by m.message_id
        limit batch_rows
    ) b;
    -- Nobody is waited for, so nobody can be waited for in a circle; who holds a row is at work on it.
    select array_agg(l.message_id)
    into locked
    from (
        select m.message_id from twilio.message m where m.root_id = any (roots) for update skip locked
    ) l;
    -- Whole chains only, judged by what is so now that they are held.
    select array_agg(c.id)
    into message_ids
    from (
        select unnest(array_agg(m.message_id)) as id
        from twilio.message m
        where m.root_id = any (roots)
        group by m.root_id
        having bool_and(
            m.message_id = any (locked)
            and greatest(m.created_at, m.sent_at, m.delivered_at, m.read_at, m.failed_at) < quiet_since
            and (include_pending or twilio.status_kind(m.provider, m.status) <> 'pending')
            and not twilio.is_open_work(m.message_id, include_pending)
        )
    ) c;
    message_ids := coalesce(message_ids, '{}');
end
$$;

comment on function twilio.lock_finished(bigint, timestamptz, boolean, int) is
    'Locks the next batch of messages whose chain is finished and about which nothing was heard since quiet_since; last_id is null at the end.';

create function twilio.purge_batch(
    after_id bigint,
    quiet_since timestamptz,
    include_pending boolean,
    batch_rows int,
    out last_id bigint,
    out removed bigint
)
language plpgsql
volatile
-- An administrator may end what is old without being able to delete anything else.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    ids bigint[];
begin
    select l.last_id, l.message_ids
    into last_id, ids
    from twilio.lock_finished(after_id, quiet_since, include_pending, batch_rows) l;
    -- All that belongs to a message goes here, the message itself last, and by it what refers to it.
    delete from twilio.outbox o where o.message_id = any (ids);
    delete from twilio.attempt a where a.message_id = any (ids);
    perform twilio.feed_forget(ids);
    delete from twilio.message_event e where e.message_id = any (ids);
    delete from twilio.message m where m.message_id = any (ids);
    removed := cardinality(ids);
end
$$;

comment on function twilio.purge_batch(bigint, timestamptz, boolean, int) is
    'One transaction''s share of twilio.purge.';

create function twilio.purge_rejected_batch(received_before timestamptz, batch_rows int)
returns bigint
language plpgsql
volatile
-- As twilio.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    gone record;
begin
    with gone as (
        delete from twilio.rejected_callback r
        where r.rejected_id in (
            select c.rejected_id
            from twilio.rejected_callback c
            where c.received_at < received_before
            order by c.rejected_id
            limit batch_rows
            for update skip locked
        )
        returning r.is_plausible, twilio.bytes_of(r) as bytes
    )
    select
        count(*) filter (where g.is_plausible) as plausible,
        count(*) as n,
        coalesce(sum(g.bytes) filter (where g.is_plausible), 0) as plausible_bytes,
        coalesce(sum(g.bytes), 0) as bytes
    into gone
    from gone g;
    perform twilio.free_quarantine(
        array[gone.n - gone.plausible, gone.plausible],
        array[gone.bytes - gone.plausible_bytes, gone.plausible_bytes]
    );
    return gone.n;
end
$$;

comment on function twilio.purge_rejected_batch(timestamptz, int) is
    'One transaction''s share of twilio.purge with include_rejected.';

create function twilio.check_age(age interval, batch_rows int, effort double precision)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if age is null or age < interval '0' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is no age', coalesce(age::text, 'null')),
            hint = 'Give an interval such as ''90 days''.';
    end if;
    if batch_rows is null or batch_rows not between 1 and 10000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('%s rows are no batch', coalesce(batch_rows::text, 'null')),
            hint = 'Give a number from 1 to 10000.';
    end if;
    if effort is null or not (effort > 0.01 and effort <= 1) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('%s is no effort', coalesce(effort::text, 'null')),
            hint = 'Give the share of the time to work in, above 0.01 and up to 1 for all of it.';
    end if;
    return twilio.now() - age;
end
$$;

comment on function twilio.check_age(interval, int, double precision) is
    'Returns the time that lies so far back, or raises an error for what is no age, batch or effort.';

create procedure twilio.rest(since timestamptz, effort double precision)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Callbacks share processors and disks with this: they get the larger part of the time.
    perform pg_sleep(extract(epoch from clock_timestamp() - since) * (1 / effort - 1));
end
$$;

comment on procedure twilio.rest(timestamptz, double precision) is
    'Waits as long as it takes for what was done since then to be no more than a share of the time.';

-- It commits after each batch, so it can have neither "security definer" nor "set search_path": all names
-- are qualified, and the batches are functions that have both.
create procedure twilio.purge(
    older_than interval,
    include_pending boolean default false,
    include_rejected boolean default false,
    batch_rows int default 200,
    effort double precision default 0.2
)
language plpgsql
as $$
declare
    quiet_since constant timestamptz := twilio.check_age(older_than, batch_rows, effort);
    began timestamptz;
    after_id bigint := 0;
    batch record;
    total bigint := 0;
    rejected bigint := 0;
    n bigint;
begin
    loop
        began := pg_catalog.clock_timestamp();
        select b.last_id, b.removed
        into batch
        from twilio.purge_batch(after_id, quiet_since, coalesce(include_pending, false), batch_rows) b;
        exit when batch.last_id is null;
        after_id := batch.last_id;
        total := total + batch.removed;
        commit;
        call twilio.rest(began, effort);
        if total % 100000 < batch.removed then
            raise notice '% messages purged', total;
        end if;
    end loop;
    while coalesce(include_rejected, false) loop
        began := pg_catalog.clock_timestamp();
        n := twilio.purge_rejected_batch(quiet_since, batch_rows);
        rejected := rejected + n;
        commit;
        exit when n = 0;
        call twilio.rest(began, effort);
    end loop;
    raise notice '% messages and % refused requests purged', total, rejected;
end
$$;

comment on procedure twilio.purge(interval, boolean, boolean, int, double precision) is
    'Removes finished messages, whole chains with their events, about which nothing was heard for so long; commits in between, and works for a share of the time, effort. include_pending takes those along whose last word never came, dead ones too; include_rejected the quarantine.';

create function twilio.redact_batch(
    after_id bigint,
    quiet_since timestamptz,
    address text,
    batch_rows int,
    out last_id bigint,
    out redacted bigint
)
language plpgsql
volatile
-- As twilio.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    ids bigint[];
begin
    select l.last_id, l.message_ids
    into last_id, ids
    from twilio.lock_finished(after_id, quiet_since, false, batch_rows) l;
    with blanked as (
        update twilio.message m
        set body = null, media_urls = null, from_address = null, to_address = null,
            metadata = null, twilio_parameters = null
        where m.message_id = any (ids)
            and (m.body, m.media_urls, m.from_address, m.to_address, m.metadata, m.twilio_parameters)
                is distinct from (null, null, null, null, null, null)
            and (
                address is null
                or regexp_replace(m.from_address, '^[a-z]{2,20}:', '') = address
                or regexp_replace(m.to_address, '^[a-z]{2,20}:', '') = address
            )
        returning m.message_id
    ),
    -- What remains says what became of the message, and who reported it.
    emptied as (
        update twilio.message_event e
        set params = (
            select coalesce(jsonb_object_agg(p.key, p.value), '{}')
            from jsonb_each(e.params) p
            where p.key in (
                'AccountSid', 'MessageSid', 'SmsSid', 'SmsMessageSid', 'MessagingServiceSid', 'MessageStatus',
                'SmsStatus', 'ErrorCode', 'ErrorMessage', 'ChannelStatusMessage', 'NumMedia', 'NumSegments',
                'ApiVersion', 'RawDlrDoneDate'
            )
        )
        from blanked b
        where e.message_id = b.message_id
    ),
    forgotten as (
        update twilio.attempt a
        set response = null
        from blanked b
        where a.message_id = b.message_id and a.response is not null
    ),
    unsaid as (
        delete from twilio.reply r using blanked b where r.message_id = b.message_id
    )
    select count(*) into redacted from blanked;
end
$$;

comment on function twilio.redact_batch(bigint, timestamptz, text, int) is
    'One transaction''s share of twilio.redact.';

-- As twilio.purge.
create procedure twilio.redact(
    older_than interval,
    address text default null,
    batch_rows int default 200,
    effort double precision default 0.2
)
language plpgsql
as $$
declare
    quiet_since constant timestamptz := twilio.check_age(older_than, batch_rows, effort);
    began timestamptz;
    bare constant text := pg_catalog.regexp_replace(address, '^[a-z]{2,20}:', '');
    after_id bigint := 0;
    batch record;
    total bigint := 0;
begin
    loop
        began := pg_catalog.clock_timestamp();
        select b.last_id, b.redacted
        into batch
        from twilio.redact_batch(after_id, quiet_since, bare, batch_rows) b;
        exit when batch.last_id is null;
        after_id := batch.last_id;
        total := total + batch.redacted;
        commit;
        call twilio.rest(began, effort);
        if total % 100000 < batch.redacted then
            raise notice '% messages redacted', total;
        end if;
    end loop;
    raise notice '% messages redacted', total;
end
$$;

comment on procedure twilio.redact(interval, text, int, double precision) is
    'Blanks text, addresses, media and what callers added of finished messages, and the parameters of their events, if nothing was heard of them for so long; all, or those from or to an address. The state stays.';
