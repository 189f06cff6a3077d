-- Functions of applications: send, cancel and retry. Arguments are checked completely before a message is queued.

create function twilio_internal.check_message(
    to_address text,
    from_address text,
    messaging_service_sid text,
    body text,
    media_urls text[],
    status_callback text,
    twilio_parameters jsonb
)
returns void
language c
immutable
parallel safe
as 'MODULE_PATHNAME', 'check_message_wrapper';

comment on function twilio_internal.check_message(text, text, text, text, text[], text, jsonb) is
    'Raises an error unless such a message can be created at Twilio.';

create function twilio_internal.choose_sender(from_address text, to_address text, account_sid text default null)
returns twilio.sender
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant text := twilio_internal.channel_between(from_address, to_address);
    chosen twilio.sender;
begin
    if from_address is null then
        select s.* into chosen
        from twilio.sender s
        where s.channel = wanted and s.is_default
            and (choose_sender.account_sid is null or s.account_sid = choose_sender.account_sid)
        -- A default of Twilio's comes before one of SMSGate's.
        order by s.provider desc
        limit 1;
    else
        select s.* into chosen
        from twilio.sender s
        where s.address = choose_sender.from_address
            and (choose_sender.account_sid is null or s.account_sid = choose_sender.account_sid)
        order by s.channel = wanted desc, s.provider desc
        limit 1;
    end if;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = case
                when from_address is null then format('channel "%s" has no default sender', wanted)
                else format('sender "%s" does not exist', left(from_address, 64))
            end,
            hint = 'Add it with twilio.add_sender(address).';
    end if;
    return chosen;
end
$$;

comment on function twilio_internal.choose_sender(text, text, text) is
    'Returns the sender of a message: the given one, or the default of the channel.';

create function twilio_internal.channel_of(origin twilio.sender, to_address text)
returns text
language sql
immutable
return case when origin.channel = 'rcs' then 'rcs' else twilio_internal.channel_between(origin.address, to_address) end;

comment on function twilio_internal.channel_of(twilio.sender, text) is 'Returns the channel of a message from a sender to an address.';

create function twilio.send_message(
    to_address text,
    body text default null,
    from_address text default null,
    media_urls text[] default null,
    idempotency_key text default null,
    send_at timestamptz default null,
    expires_after interval default null,
    status_callback text default null,
    metadata jsonb default null,
    twilio_parameters jsonb default null,
    account_sid text default null,
    delivery text default null,
    is_simulated boolean default false,
    if_suppressed text default 'error',
    not_before time default null,
    not_after time default null,
    time_zone text default null,
    purpose text default null
)
returns bigint
language plpgsql
volatile
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    due timestamptz := greatest(moment, send_at);
    quiet_until timestamptz;
    deadline timestamptz;
    lifetime constant interval := coalesce(expires_after, current_setting('twilio_callback.default_expiry')::interval);
    policy constant text := coalesce(delivery, current_setting('twilio_callback.delivery'));
    origin twilio.sender;
    obstacle text;
    new_id bigint;
begin
    perform twilio_internal.check_size(greatest(
        octet_length(to_address), octet_length(body), octet_length(from_address), octet_length(status_callback),
        octet_length(idempotency_key), octet_length(account_sid), octet_length(delivery), octet_length(time_zone), octet_length(purpose),
        pg_column_size(media_urls), pg_column_size(metadata), pg_column_size(twilio_parameters)
    )::bigint);
    origin := twilio_internal.choose_sender(from_address, to_address, account_sid);
    if origin.provider = 'smsgate' then
        perform twilio_internal.check_smsgate_message(to_address, body);
    else
        perform twilio_internal.check_message(
            to_address, origin.address, origin.messaging_service_sid, body, media_urls, status_callback,
            twilio_parameters
        );
    end if;
    if cardinality(media_urls) > 0 and not origin.can_send_media then
        raise exception using
            errcode = 'feature_not_supported',
            message = format('sender "%s" cannot send media', origin.address),
            hint = 'Name another one with from_address, or put a link into the body.';
    end if;
    if lifetime <= interval '0' or due = 'infinity' or due > moment + interval '1 year' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case when lifetime <= interval '0' then 'expires_after must be positive' else 'send_at is more than one year ahead' end,
            hint = 'expires_after must be above 0, and send_at within a year.';
    end if;
    if policy not in ('at_most_once', 'at_least_once') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid delivery: "%s"', left(policy, 64)),
            hint = 'Give at_most_once or at_least_once.';
    end if;
    if idempotency_key = '' or length(idempotency_key) > 255 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'idempotency_key must have 1 to 255 characters',
            hint = 'Leave it out if the message has none.';
    end if;
    if (if_suppressed in ('error', 'record')) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'if_suppressed must be error or record',
            hint = 'With record, a message to a suppressed recipient is created with status suppressed.';
    end if;
    perform twilio_internal.check_hours(not_before, not_after, time_zone, purpose);
    deadline := due + lifetime;
    if num_nonnulls(not_before, not_after) > 0 and purpose is distinct from 'otp' then
        quiet_until := twilio_internal.first_allowed(not_before, not_after, time_zone, to_address, due);
        if expires_after is null then
            -- Quiet hours take nothing of the time that a message has by default.
            deadline := quiet_until + lifetime;
        elsif quiet_until >= deadline then
            raise exception using
                errcode = 'invalid_parameter_value',
                message = 'the message would expire in quiet hours',
                detail = format('It could be sent from %s on, and would expire at %s.', quiet_until, deadline),
                hint = 'Give a longer expires_after or other hours. Without expires_after, a message expires after the end of quiet hours.';
        end if;
    end if;
    obstacle := twilio_internal.suppression_of(origin.account_sid, origin.address, to_address);
    if obstacle is not null and if_suppressed = 'error' then
        perform twilio_internal.refuse_suppressed(to_address, obstacle);
    end if;

    insert into twilio.message as m (
        message_id, root_id, account_sid, provider, channel, from_address, to_address,
        messaging_service_sid, body, media_urls, status, created_at, send_at, expires_at,
        idempotency_key, metadata, twilio_parameters, status_callback, is_simulated
    )
    overriding system value
    select
        n.id, n.id, origin.account_sid, origin.provider,
        twilio_internal.channel_of(origin, to_address),
        case when twilio_internal.address_kind(origin.address) is distinct from 'messaging_service' then origin.address end,
        to_address,
        case
            when twilio_internal.address_kind(origin.address) = 'messaging_service' then origin.address
            else origin.messaging_service_sid
        end,
        nullif(body, ''), media_urls, 'waiting', moment, send_at, deadline,
        idempotency_key, metadata, twilio_parameters, status_callback, is_simulated
    from (select nextval('twilio.message_message_id_seq') as id) n
    on conflict do nothing
    returning m.message_id into new_id;
    if new_id is null then
        return twilio_internal.existing_message(
            idempotency_key, to_address, body, from_address, media_urls, send_at, twilio_parameters
        );
    end if;
    if num_nonnulls(not_before, not_after, time_zone, purpose) > 0 then
        insert into twilio_internal.message_hours (message_id, not_before, not_after, time_zone, purpose)
        values (new_id, not_before, not_after, time_zone, purpose);
    end if;
    if obstacle is not null then
        perform twilio_internal.record_decision(array[new_id], array['suppressed'], array[obstacle]);
        return new_id;
    end if;
    if not is_simulated then
        insert into twilio_internal.outbox (message_id, sender_id, is_repeatable, due_at, expires_at, has_hours, quiet_until)
        values (
            new_id, origin.sender_id, policy = 'at_least_once', coalesce(quiet_until, due), deadline,
            num_nonnulls(not_before, not_after) > 0, case when quiet_until > due then quiet_until end
        );
        perform twilio_internal.notify_worker();
    end if;
    perform twilio_internal.watch_for_timeout(array[new_id]);
    return new_id;
end
$$;

comment on function twilio.send_message(
    text, text, text, text[], text, timestamptz, interval, text, jsonb, jsonb, text, text, boolean, text, time, time, text, text
) is
    'Queues a message, to be sent once the transaction commits, and returns its id. A suppressed recipient raises an error, or with if_suppressed => ''record'' gets a message with status suppressed. With not_before and not_after, it waits for these hours in the recipient''s time zone.';

create function twilio_internal.refuse_suppressed(to_address text, reason text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'check_violation',
        message = format('recipient "%s" is suppressed', to_address),
        detail = format('It is suppressed: %s.', reason),
        hint = 'See twilio.suppression. twilio.unblock(address) ends a block of ours. An opt-out, and Twilio''s own block, end when the recipient texts START.';
end
$$;

comment on function twilio_internal.refuse_suppressed(text, text) is 'Raises the error for a message to a suppressed recipient.';

create function twilio_internal.existing_message(
    idempotency_key text,
    to_address text,
    body text,
    from_address text,
    media_urls text[],
    send_at timestamptz,
    twilio_parameters jsonb
)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    known twilio.message;
begin
    select m.* into known from twilio.message m where m.idempotency_key = idempotency_key;
    if (known.to_address, known.body, known.media_urls, known.send_at, known.twilio_parameters)
        is distinct from (to_address, nullif(body, ''), media_urls, send_at, twilio_parameters)
        or not coalesce(from_address in (known.from_address, known.messaging_service_sid), true) then
        raise exception using
            errcode = 'unique_violation',
            message = format('idempotency key "%s" belongs to another message', idempotency_key),
            detail = format('Message %s was made with it, of other content.', known.message_id),
            hint = 'Give each message a key of its own.';
    end if;
    return known.message_id;
end
$$;

comment on function twilio_internal.existing_message(text, text, text, text, text[], timestamptz, jsonb) is
    'Returns the message that has this idempotency key; raises an error if its content is another.';

create function twilio_internal.notify_worker()
returns void
language plpgsql
volatile
-- Callers with grant_send have no privileges on the switch and on twilio_internal.worker.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not twilio.is_sending() then
        raise notice using
            message = 'sending is off: the message waits',
            hint = 'Turn it on with: select twilio.enable_sending().';
    elsif not coalesce((select twilio_internal.wake_at_commit(w.pid) from twilio_internal.worker w), false) then
        raise notice using
            message = 'no worker runs: the message waits',
            hint = 'Start it with: select twilio.start_worker(), or by shared_preload_libraries and twilio_callback.databases.';
    end if;
end
$$;

comment on function twilio_internal.notify_worker() is
    'Wakes the worker when the transaction commits; raises a notice if none runs or sending is off.';

create function twilio.cancel_message(message_id bigint)
returns void
language plpgsql
volatile
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    job twilio_internal.outbox;
    current_status text;
begin
    select o.* into job from twilio_internal.outbox o where o.message_id = message_id for update;
    if found and job.state = 'waiting' and job.lease_token is null and not twilio_internal.may_have_been_sent(message_id) then
        delete from twilio_internal.outbox o where o.message_id = message_id;
        perform twilio_internal.record_decision(array[message_id], array['canceled'], array[null::text]);
        return;
    end if;
    select m.status into current_status from twilio.message m where m.message_id = message_id;
    raise exception using
        errcode = case when found then 'object_not_in_prerequisite_state' else 'no_data_found' end,
        message = case
            when not found then format('message %s does not exist', coalesce(message_id::text, 'null'))
            when job.lease_token is not null then format('message %s is being sent', message_id)
            when job.state = 'waiting' then format('message %s cannot be canceled: it may have been sent', message_id)
            else format('message %s cannot be canceled: it is %s', message_id, current_status)
        end,
        hint = 'A message can be canceled while it waits: see twilio.queue_status and twilio.message_status.';
end
$$;

comment on function twilio.cancel_message(bigint) is 'Cancels a message that waits or is scheduled.';

create function twilio_internal.create_retry(
    message_id bigint,
    sender_id int,
    is_repeatable boolean,
    lifetime interval,
    crashes smallint,
    planned_for timestamptz default null,
    is_rehearsal boolean default false
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    new_id bigint;
begin
    insert into twilio.message as m (
        message_id, root_id, step, try, account_sid, provider, channel, from_address, to_address,
        messaging_service_sid, body, media_urls, status, created_at, send_at, expires_at, metadata,
        twilio_parameters, status_callback, is_simulated
    )
    overriding system value
    select
        nextval('twilio.message_message_id_seq'), o.root_id, o.step,
        (
            select max(x.try) + 1
            from twilio.message x
            where x.root_id = o.root_id and x.step = o.step
        ),
        o.account_sid, o.provider, o.channel,
        -- A messaging service chooses the sender again.
        case when s.address is distinct from o.messaging_service_sid then s.address end,
        o.to_address, o.messaging_service_sid, o.body, o.media_urls, 'waiting', moment, planned_for, moment + lifetime, o.metadata,
        o.twilio_parameters, o.status_callback, o.is_simulated or is_rehearsal
    from twilio.message o
    join twilio.sender s on s.sender_id = create_retry.sender_id
    where o.message_id = message_id
    -- Another session may just have created the same try.
    on conflict do nothing
    returning m.message_id into new_id;
    if new_id is null then
        return null;
    end if;
    insert into twilio_internal.outbox (message_id, sender_id, is_repeatable, due_at, expires_at, crashes)
    values (new_id, sender_id, is_repeatable, coalesce(planned_for, moment), moment + lifetime, crashes);
    -- The retry of a fallback keeps its rule.
    insert into twilio_internal.fallback (message_id, rule_id, not_before, is_preparing, due_at)
    select new_id, f.rule_id, coalesce(planned_for, moment), false, 'infinity'
    from twilio_internal.fallback f
    where f.message_id = message_id;
    perform twilio_internal.watch_for_timeout(array[new_id]);
    return new_id;
end
$$;

comment on function twilio_internal.create_retry(bigint, int, boolean, interval, smallint, timestamptz, boolean) is
    'Queues the next try of a message''s step, at once or for a planned time, and returns its id: a row of its own, since it is another create request; null if another session has just created it.';

create function twilio_internal.retry_sender(original twilio.message)
returns twilio.sender
language sql
stable
begin atomic
    -- The number that a messaging service chose may never have been added as a sender, or may have left the service.
    select s.*
    from twilio.sender s
    where s.account_sid = original.account_sid
        and case
            when original.messaging_service_sid is null then s.address = original.from_address
            else original.messaging_service_sid in (s.address, s.messaging_service_sid)
        end
    order by s.address = original.messaging_service_sid desc, s.address = original.from_address desc,
        s.channel = original.channel desc, s.sender_id
    limit 1;
end;

comment on function twilio_internal.retry_sender(twilio.message) is
    'Returns the sender for another try of a message through Twilio; null if it was removed.';

create function twilio.retry_message(message_id bigint, expires_after interval default null)
returns bigint
language plpgsql
volatile
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    original twilio.message;
    origin twilio.sender;
    kind text;
    obstacle text;
    new_id bigint;
begin
    -- A retry that is planned already is sent now. Lock order: outbox before message.
    select o.message_id into new_id
    from twilio.message m
    join twilio.message r on r.root_id = m.root_id and r.step = m.step and r.try = m.try + 1
    join twilio_internal.outbox o on o.message_id = r.message_id
    where m.message_id = message_id and r.send_at > moment and o.state = 'waiting' and o.lease_token is null and o.tries = 0
    for update of o;
    if found then
        update twilio_internal.outbox o
        set due_at = moment, expires_at = coalesce(moment + expires_after, o.expires_at)
        where o.message_id = new_id;
        update twilio.message m
        set send_at = null, expires_at = coalesce(moment + expires_after, m.expires_at)
        where m.message_id = new_id;
        perform twilio_internal.notify_worker();
        return new_id;
    end if;
    perform from twilio_internal.outbox o where o.message_id = message_id for update;
    select m.* into original from twilio.message m where m.message_id = message_id;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('message %s does not exist', coalesce(message_id::text, 'null')),
            hint = 'See twilio.message_status for the messages that there are.';
    end if;
    kind := twilio_internal.status_kind(original.provider, original.status);
    if original.direction <> 'outbound' or original.is_simulated
        or kind not in ('failure', 'withdrawn') and original.status <> 'unknown'
        or exists (
            select from twilio.message x
            where x.root_id = original.root_id and x.step = original.step and x.try > original.try
        ) then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('message %s cannot be retried: it is %s', message_id, original.status),
            hint = 'Retry the last try of a message that failed, was canceled or stayed unknown.';
    end if;
    origin := twilio_internal.retry_sender(original);
    if origin.sender_id is null then
        origin := twilio_internal.choose_sender(original.from_address, original.to_address, original.account_sid);
    end if;
    obstacle := twilio_internal.suppression_of(origin.account_sid, origin.address, original.to_address);
    if obstacle is not null then
        perform twilio_internal.refuse_suppressed(original.to_address, obstacle);
    end if;
    -- The retry closes an open outcome: it is not looked up any more, but a callback still counts.
    delete from twilio_internal.outbox o where o.message_id = message_id;
    new_id := twilio_internal.create_retry(
        message_id, origin.sender_id, current_setting('twilio_callback.delivery') = 'at_least_once',
        coalesce(
            expires_after,
            twilio_internal.sendable_from(original, moment) - moment + current_setting('twilio_callback.default_expiry')::interval
        ),
        0::smallint
    );
    if new_id is null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('message %s cannot be retried: it was just tried again', message_id),
            hint = 'Retry the last try of a message that failed, was canceled or stayed unknown.';
    end if;
    perform twilio_internal.notify_worker();
    return new_id;
end
$$;

comment on function twilio.retry_message(bigint, interval) is
    'Sends a message again that failed, was canceled or has an unknown outcome, as a new message of the same step; returns its id. A retry that is planned already is sent at once instead.';
