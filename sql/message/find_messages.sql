-- Search for messages, page by page.

create function twilio.find_messages(
    recipient text default null,
    sender text default null,
    direction text default null,
    account_sid text default null,
    channel text default null,
    status text default null,
    error_code int default null,
    since timestamptz default null,
    before timestamptz default null,
    before_id bigint default null,
    max_rows int default 100
)
returns setof twilio.message_status
language plpgsql
stable
rows 100
set search_path = pg_catalog, pg_temp
-- Messages are read in the order of an index up to the limit, also where PostgreSQL expects fewer failures than there are.
-- The conditions of arguments that are not given are left out of the plan.
-- plan profile: index order, custom plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_custom_plan
as $$
begin
    if max_rows is null or max_rows not between 1 and 10000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'max_rows must be between 1 and 10000';
    end if;
    if direction not in ('outbound', 'inbound') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'direction must be outbound or inbound';
    end if;
    if before_id is not null and before is null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'before_id needs before',
            hint = 'Give created_at and message_id of the last message of the previous page.';
    end if;
    return query
    select s.*
    from twilio.message_status s
    where (recipient is null or twilio.person_key(s.to_address) = twilio.person_key(recipient))
        and (sender is null or twilio.person_key(s.from_address) = twilio.person_key(sender))
        and (find_messages.direction is null or s.direction = find_messages.direction)
        and (find_messages.account_sid is null or s.account_sid = find_messages.account_sid)
        and (find_messages.channel is null or s.channel = find_messages.channel)
        and (find_messages.status is null or s.status = find_messages.status)
        and (find_messages.error_code is null or s.error_code = find_messages.error_code)
        -- Failures have an index of their own.
        and (
            s.failed_at is not null
            or find_messages.error_code is null
                and coalesce(twilio_internal.status_kind('twilio', find_messages.status), '') <> 'failure'
        )
        and (since is null or s.created_at >= since)
        and (before is null or s.created_at <= before)
        and (before is null or (s.created_at, s.message_id) < (before, coalesce(before_id, 0)))
    order by s.created_at desc, s.message_id desc
    limit max_rows;
end
$$;

comment on function twilio.find_messages(text, text, text, text, text, text, int, timestamptz, timestamptz, bigint, int) is
    'Returns messages, the newest first, by any of: recipient and sender in any spelling of the number, direction, account, channel, status, error code and time. The next page begins before the created_at and message_id of the last message.';
