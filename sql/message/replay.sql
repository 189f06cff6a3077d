-- Replay: message state computed from the log again.

create function twilio_internal.replay_difference(message_ids bigint[])
returns table (message_id bigint, attribute text, stored text, replayed text)
language sql
stable
begin atomic
    select m.message_id, d.attribute, d.stored, d.replayed
    from twilio_internal.message_state(replay_difference.message_ids) s
    join twilio.message m on m.message_id = s.message_id
    -- A message that others created is as old as its first event; our own has an expiry, and its own creation time.
    left join (
        select e.message_id, min(e.received_at) as at
        from twilio.message_event e
        where e.message_id = any (replay_difference.message_ids)
        group by e.message_id
    ) h on h.message_id = m.message_id and m.expires_at is null
    cross join lateral (
        values
            ('created_at', m.created_at::text, coalesce(h.at, m.created_at)::text),
            ('status', m.status, s.status),
            ('error_code', m.error_code::text, s.error_code::text),
            ('error_message', m.error_message, s.error_message),
            ('is_corrected', m.is_corrected::text, s.is_corrected::text),
            ('sent_at', m.sent_at::text, s.sent_at::text),
            ('delivered_at', m.delivered_at::text, s.delivered_at::text),
            ('read_at', m.read_at::text, s.read_at::text),
            ('failed_at', m.failed_at::text, s.failed_at::text)
    ) d (attribute, stored, replayed)
    where d.stored is distinct from d.replayed
    order by m.message_id, d.attribute;
end;

comment on function twilio_internal.replay_difference(bigint[]) is
    'Compares the stored state of messages with the state that follows from their events: one row per difference.';

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
-- Callers with grant_admin may repair states, but have no privilege to write them otherwise.
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
            message = 'batch_rows must be between 1 and 100000',
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
            return query select d.* from twilio_internal.replay_difference(ids) d;
        else
            select array_agg(distinct d.message_id) into wrong from twilio_internal.replay_difference(ids) d;
            if wrong is not null then
                -- In the lock order of twilio_internal.record; differences are computed again under the locks.
                perform from twilio.message m
                where m.message_id = any (wrong)
                order by m.message_sid nulls first, m.message_id
                for update;
                return query select d.* from twilio_internal.replay_difference(wrong) d;
                perform twilio_internal.apply_state(wrong);
                update twilio.message m
                set created_at = h.at
                from (
                    select e.message_id, min(e.received_at) as at
                    from twilio.message_event e
                    where e.message_id = any (wrong)
                    group by e.message_id
                ) h
                where m.message_id = h.message_id and m.expires_at is null and m.created_at is distinct from h.at;
            end if;
        end if;
        if looked_at % 100000 < cardinality(ids) then
            raise notice '% messages replayed', looked_at;
        end if;
    end loop;
end
$$;

comment on function twilio.replay(timestamptz, timestamptz, bigint[], boolean, int) is
    'Computes the state of messages from their events, and returns the differences; repairs them unless dry_run. Addresses, and messages without events, are not changed.';
