-- Retries of messages that Twilio accepted and that failed later for a reason that passes: the same step again, after a delay.

create function twilio_internal.retry_delay(error_code int, failures int)
returns interval
language sql
stable
begin atomic
    -- Queues that are full and limits that are used up need minutes.
    select greatest(
        e.retry_after_s * interval '1 second',
        case e.retry when 'slower' then interval '10 minutes' else interval '5 minutes' end * power(3, retry_delay.failures - 1)
    )
    from twilio.error_code e
    where e.error_code = retry_delay.error_code and e.class = 'transient' and e.retry <> 'never';
end;

comment on function twilio_internal.retry_delay(int, int) is
    'Returns how long to wait after a message has failed this many times, the last time with this error; null if the error does not pass.';

create function twilio_internal.next_retry(original twilio.message, retries int, jitter double precision default 0, out due_at timestamptz, out reason text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Only messages of ours have an expiry. What a phone reports has no error code.
    failures constant bigint := case when original.direction = 'outbound' and original.expires_at is not null then (
        select count(*)
        from twilio.message m
        where m.root_id = original.root_id and m.step = original.step and m.try <= original.try
            and m.status in ('failed', 'undelivered')
    ) end;
    delay constant interval := case when failures > 0 and original.status in ('failed', 'undelivered') then
        twilio_internal.retry_delay(original.error_code, failures::int)
    end;
    hours twilio_internal.local_hours[];
    origin twilio.sender;
begin
    if delay is null then
        return;
    end if;
    hours := twilio_internal.hours_of(original);
    if twilio_internal.is_quiet_code(original.error_code) then
        -- The hours in which the United States allow marketing, beside those that the message has.
        hours := hours || twilio_internal.hours_in('08:00', '21:00', twilio_internal.zones_of(original.to_address));
    end if;
    due_at := twilio_internal.quiet_end(hours, twilio.now() + delay * (1 + jitter));
    if due_at > twilio.now() + delay * (1 + jitter) then
        -- Not all at once in the morning either.
        due_at := twilio_internal.quiet_end(hours, due_at + delay * jitter);
    end if;
    origin := twilio_internal.retry_sender(original);
    reason := case
        when retries < 0 then 'its fallback would come too late'
        when retries = 0 then 'its rule tries nothing again'
        when failures > retries then format('it was tried %s times', failures)
        when due_at is null then 'the time zone of the recipient is not known'
        when due_at >= original.expires_at then format('it would be due at %s and expires at %s', due_at, original.expires_at)
        when original.to_address is null
            or original.body is null and original.media_urls is null and not coalesce(original.twilio_parameters ? 'ContentSid', false)
            then 'its text is not known any more'
        when origin.sender_id is null then 'its sender was removed'
        else coalesce(
            'the recipient is suppressed: '
                || twilio_internal.suppression_of(origin.account_sid, origin.address, original.to_address),
            'the recipient does not want it (' || twilio_internal.consent_failure(original.root_id, original.step + 1) || ')'
        )
    end;
    if reason is not null then
        due_at := null;
    end if;
end
$$;

comment on function twilio_internal.next_retry(twilio.message, int, double precision) is
    'Returns when a message that failed is tried again, after a delay that jitter adds a share to, or the reason why it is not; neither for messages and failures that are never tried again.';

create function twilio_internal.allowed_retries(original twilio.message, followed twilio.fallback_rule)
returns int
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := twilio.now();
    deadline timestamptz;
begin
    if followed.rule_id is null then
        return 1;
    end if;
    select twilio_internal.fallback_deadline(followed, root, twilio_internal.dated(root))
    into deadline
    from twilio.message root
    where root.message_id = original.root_id;
    -- A retry takes at most half of the time in which the fallback can still be sent.
    if (twilio_internal.next_retry(original, followed.retries, 0.25)).due_at > moment + (deadline - moment) / 2 then
        return -1;
    end if;
    return followed.retries;
end
$$;

comment on function twilio_internal.allowed_retries(twilio.message, twilio.fallback_rule) is
    'Returns how often a message that failed may be tried again if this rule follows, or null for no rule; -1 if that would leave the fallback too little time.';

create function twilio_internal.plan_retry(original twilio.message, retries int)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Messages that failed together are not sent together again.
    due constant timestamptz := (twilio_internal.next_retry(original, retries, random() / 4)).due_at;
begin
    if due is null then
        return false;
    end if;
    perform twilio_internal.create_retry(
        original.message_id, (twilio_internal.retry_sender(original)).sender_id,
        -- Nobody asked for this try, so a lost answer does not lead to another one.
        false, original.expires_at - twilio.now(), 0::smallint,
        due, twilio_internal.is_rehearsal(original, false)
    );
    perform twilio_internal.wake_worker();
    return true;
end
$$;

comment on function twilio_internal.plan_retry(twilio.message, int) is
    'Queues another try of a message that failed for a transient reason; returns false if it is not tried again. The caller has locked the message.';
