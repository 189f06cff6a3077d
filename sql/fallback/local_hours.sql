-- Local hours of messages and fallbacks: those of the chain, which send_message took, and those of the rule. Both count.

create function twilio_internal.hours_for(root_id bigint, rule twilio.fallback_rule, to_address text)
returns twilio_internal.local_hours[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    chain twilio_internal.message_hours;
    zones text[];
    hours twilio_internal.local_hours[];
begin
    select h.* into chain from twilio_internal.message_hours h where h.message_id = root_id;
    if chain.purpose = 'otp' or num_nonnulls(chain.not_before, chain.not_after, rule.not_before, rule.not_after) = 0 then
        return null;
    end if;
    zones := case when chain.time_zone is not null then array[chain.time_zone] else twilio_internal.zones_of(to_address) end;
    if num_nonnulls(chain.not_before, chain.not_after) > 0 then
        hours := twilio_internal.hours_in(chain.not_before, chain.not_after, zones);
    end if;
    if num_nonnulls(rule.not_before, rule.not_after) > 0 then
        hours := hours || twilio_internal.hours_in(rule.not_before, rule.not_after, zones);
    end if;
    return hours;
end
$$;

comment on function twilio_internal.hours_for(bigint, twilio.fallback_rule, text) is
    'Returns the local hours of a chain and a rule, for a recipient; null if it may be sent at any hour.';

create function twilio_internal.hours_of(message twilio.message)
returns twilio_internal.local_hours[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    rule twilio.fallback_rule;
begin
    if message.step > 0 then
        select r.* into rule
        from twilio_internal.fallback f
        join twilio.fallback_rule r on r.rule_id = f.rule_id
        where f.message_id = message.message_id;
    end if;
    return twilio_internal.hours_for(message.root_id, rule, message.to_address);
end
$$;

comment on function twilio_internal.hours_of(twilio.message) is
    'Returns the local hours of a message; null if it may be sent at any hour.';

create function twilio_internal.sendable_from(message twilio.message, at timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    hours twilio_internal.local_hours[];
begin
    -- Messages that other software made have no hours, and are many.
    if message.step > 0 or message.expires_at is not null then
        hours := twilio_internal.hours_of(message);
    end if;
    return case when hours is null then at else coalesce(twilio_internal.quiet_end(hours, at), at) end;
end
$$;

comment on function twilio_internal.sendable_from(twilio.message, timestamptz) is
    'Returns when a message can be sent that is due at a time: at once, or when the quiet hours of its recipient end.';

create function twilio_internal.quiet_wait(message twilio.message)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    hours constant twilio_internal.local_hours[] := twilio_internal.hours_of(message);
    due timestamptz;
begin
    if hours is null then
        return null;
    end if;
    select greatest(twilio.now(), nullif(o.due_at, 'infinity')) into due
    from twilio_internal.outbox o
    where o.message_id = message.message_id and o.state = 'waiting' and o.lease_token is null;
    -- Due may be the end of the quiet hours already.
    return case when twilio_internal.quiet_end(hours, twilio.now()) > twilio.now() and due is not null then
        twilio_internal.describe_wait(hours, twilio_internal.quiet_end(hours, due))
    end;
end
$$;

comment on function twilio_internal.quiet_wait(twilio.message) is
    'Returns in words until when a waiting message waits for the end of quiet hours; null if it does not.';

create function twilio_internal.is_quiet_code(error_code int)
returns boolean
language sql
immutable
return error_code in (30047, 30610);

comment on function twilio_internal.is_quiet_code(int) is
    'Returns whether Twilio did not send a message because of quiet hours at the recipient.';

create function twilio_internal.quiet_failure(root_id bigint, before_step int)
returns int
language sql
stable
begin atomic
    -- Events, and requests that are still repeated. "offset 0": see consent_failure.
    select c.code
    from (
        select x.message_id
        from twilio.message x
        where x.root_id = quiet_failure.root_id and x.step < quiet_failure.before_step
        offset 0
    ) m
    cross join lateral (
        select x.error_code from twilio.message_event x where x.message_id = m.message_id
        union all
        select t.error_code from twilio_internal.attempt t where t.message_id = m.message_id
        offset 0
    ) c (code)
    where twilio_internal.is_quiet_code(c.code)
    limit 1;
end;

comment on function twilio_internal.quiet_failure(bigint, int) is
    'Returns the error by which Twilio did not send an earlier step of a chain because of quiet hours; null if there is none.';

create function twilio_internal.hold_in_quiet_hours(message_ids bigint[])
returns bigint[]
language plpgsql
volatile
-- No search_path and no plan profile: it is called for each batch, by functions that set both.
as $$
declare
    moment constant timestamptz := twilio.now();
    held bigint[] := '{}';
    job twilio_internal.outbox;
    message twilio.message;
    hours twilio_internal.local_hours[];
    until timestamptz;
    starts timestamptz;
begin
    for job in
        select o.* from twilio_internal.outbox o where o.message_id = any (message_ids) and o.state = 'waiting' and o.has_hours
    loop
        select m.* into message from twilio.message m where m.message_id = job.message_id;
        hours := twilio_internal.hours_of(message);
        if hours is null then
            -- Its rule has none any more.
            update twilio_internal.outbox o
            set quiet_until = null, quiet_from = null
            where o.message_id = job.message_id and num_nonnulls(o.quiet_until, o.quiet_from) > 0;
            continue;
        end if;
        until := twilio_internal.quiet_end(hours, moment);
        starts := twilio_internal.quiet_start(hours, moment);
        if until = moment and starts < moment + interval '1 minute' then
            -- No provider sends it in time.
            until := twilio_internal.quiet_end(hours, starts);
        end if;
        if until = moment then
            -- The provider is not to send it later than this either.
            update twilio_internal.outbox o
            set quiet_until = null, quiet_from = starts
            where o.message_id = job.message_id;
            continue;
        end if;
        held := held || job.message_id;
        if until < job.expires_at then
            update twilio_internal.outbox o set due_at = until, quiet_until = until where o.message_id = job.message_id;
        else
            delete from twilio_internal.outbox o where o.message_id = job.message_id;
            perform twilio_internal.record_decision(
                array[job.message_id], array['expired'],
                array[coalesce(
                    'it expires before the end of quiet hours: it ' || twilio_internal.describe_wait(hours, until),
                    'the time zone of the recipient is not known'
                )]
            );
        end if;
    end loop;
    return array(select i.id from unnest(message_ids) i (id) where not i.id = any (held));
end
$$;

comment on function twilio_internal.hold_in_quiet_hours(bigint[]) is
    'Makes those of the locked messages due later at whose recipients it is quiet, ends those that expire before, and returns the others.';

create function twilio_internal.dated(root twilio.message)
returns timestamptz
language sql
stable
return twilio_internal.sendable_from(root, greatest(root.created_at, root.send_at));

comment on function twilio_internal.dated(twilio.message) is
    'Returns when the first message of a chain could be sent, from when on the age of the chain counts.';
