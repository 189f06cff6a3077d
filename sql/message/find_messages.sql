-- Search for messages, page by page.

create function twilio_internal.matches(
    message twilio.message,
    sender_key text,
    direction text,
    account_sid text,
    channel text,
    status text,
    error_code int,
    since timestamptz,
    before timestamptz,
    before_id bigint
)
returns boolean
language sql
immutable
-- Without search_path, since PostgreSQL then puts the conditions into the query, where those of null arguments vanish.
return (sender_key is null or twilio.person_key((message).from_address) = sender_key)
    and (matches.direction is null or (message).direction = matches.direction)
    and (matches.account_sid is null or (message).account_sid = matches.account_sid)
    and (matches.channel is null or (message).channel = matches.channel)
    and (matches.status is null or (message).status = matches.status)
    and (matches.error_code is null or (message).error_code = matches.error_code)
    -- Failures have an index of their own.
    and (
        (message).failed_at is not null
        or matches.error_code is null and coalesce(twilio_internal.status_kind('twilio', matches.status), '') <> 'failure'
    )
    and (since is null or (message).created_at >= since)
    and (before is null or ((message).created_at, (message).message_id) < (before, coalesce(before_id, 0)));

comment on function twilio_internal.matches(twilio.message, text, text, text, text, text, int, timestamptz, timestamptz, bigint) is
    'Returns whether a message is one that twilio.find_messages looks for, apart from its recipient.';

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
declare
    recipient_key constant text := twilio.person_key(recipient);
    sender_key constant text := twilio.person_key(sender);
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
    from (
        (
            select m.created_at, m.message_id
            from twilio.message m
            where recipient is null
                and twilio_internal.matches(
                    m, sender_key, find_messages.direction, find_messages.account_sid, find_messages.channel, find_messages.status,
                    find_messages.error_code, since, before, before_id
                )
            order by m.created_at desc, m.message_id desc
            limit max_rows
        )
        union all
        -- The messages to a number are found by two indexes: message_to and message_to_person.
        (
            select m.created_at, m.message_id
            from twilio.message m
            where m.to_address = recipient_key and twilio.person_key(m.to_address) = m.to_address
                and twilio_internal.matches(
                    m, sender_key, find_messages.direction, find_messages.account_sid, find_messages.channel, find_messages.status,
                    find_messages.error_code, since, before, before_id
                )
            order by m.created_at desc, m.message_id desc
            limit max_rows
        )
        union all
        (
            select m.created_at, m.message_id
            from twilio.message m
            where twilio.person_key(m.to_address) = recipient_key and twilio.person_key(m.to_address) <> m.to_address
                and twilio_internal.matches(
                    m, sender_key, find_messages.direction, find_messages.account_sid, find_messages.channel, find_messages.status,
                    find_messages.error_code, since, before, before_id
                )
            order by m.created_at desc, m.message_id desc
            limit max_rows
        )
        order by 1 desc, 2 desc
        limit max_rows
    ) f
    join twilio.message_status s on s.message_id = f.message_id
    order by f.created_at desc, f.message_id desc;
end
$$;

comment on function twilio.find_messages(text, text, text, text, text, text, int, timestamptz, timestamptz, bigint, int) is
    'Returns messages, the newest first, by any of: recipient and sender in any spelling of the number, direction, account, channel, status, error code and time. The next page begins before the created_at and message_id of the last message.';
