-- Explanation of fallbacks, planned or possible, for people.

create function twilio.explain_fallback(message_id bigint)
returns table (rule text, outcome text, explanation text, fallback_message_id bigint)
language plpgsql
stable
-- Callers with grant_read or grant_admin may not call the functions that plan fallbacks.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    original twilio.message;
    candidate twilio.fallback_rule;
    follower twilio.message;
    followed text;
    reason text;
    is_taken boolean := false;
begin
    select m.* into original from twilio.message m where m.message_id = message_id;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('message %s does not exist', coalesce(message_id::text, 'null')),
            hint = 'See twilio.message_status for the messages that there are.';
    end if;
    select m.* into follower
    from twilio.message m
    where m.root_id = original.root_id and m.step = original.step + 1
    order by m.try desc
    limit 1;
    if found then
        select r.name into followed
        from twilio_internal.fallback f
        join twilio.fallback_rule r on r.rule_id = f.rule_id
        where f.message_id = follower.message_id;
        return query select
            followed, 'planned',
            format(
                'message %s goes %s %s to %s: %s%s', follower.message_id,
                case when follower.provider = 'smsgate' then 'through a phone by' else 'by' end,
                follower.channel, follower.to_address, follower.status,
                case
                    when follower.is_simulated then ', simulated' else ''
                end || coalesce(': ' || (
                    select coalesce(f.problem, case
                        when not f.is_preparing then null
                        when f.stage = 'twilio' then 'the text is asked of Twilio'
                        when f.stage = 'source' then 'the text is asked of twilio_callback.message_source'
                        else 'its rule''s function makes the text'
                    end)
                    from twilio_internal.fallback f
                    where f.message_id = follower.message_id and follower.status = 'waiting'
                ), '') || coalesce(': ' || (
                    select e.params ->> 'ErrorMessage'
                    from twilio.message_event e
                    where e.message_id = follower.message_id and e.status = follower.status
                    limit 1
                ), '') || coalesce(': it ' || twilio_internal.quiet_wait(follower), '')
            ),
            follower.message_id;
        return;
    end if;
    select m.* into follower
    from twilio.message m
    where m.root_id = original.root_id and m.step = original.step and m.try > original.try
    order by m.try desc
    limit 1;
    if found then
        return query select
            null::text, 'retried',
            format(
                'message %s is another try by %s to %s: %s%s', follower.message_id, follower.channel, follower.to_address,
                follower.status,
                coalesce(', due at ' || (
                    select o.due_at
                    from twilio_internal.outbox o
                    where o.message_id = follower.message_id and o.state = 'waiting' and o.due_at > twilio.now()
                ), '') || coalesce(': it ' || twilio_internal.quiet_wait(follower), '')
            ),
            null::bigint;
        return;
    end if;
    reason := twilio_internal.quiet_wait(original);
    if reason is not null then
        return query select null::text, 'waiting', 'the message ' || reason, null::bigint;
    end if;
    reason := twilio_internal.chain_blocker(original);
    if reason is not null then
        return query select null::text, 'none', reason, null::bigint;
        return;
    end if;
    -- A retry that is planned was found above.
    reason := (twilio_internal.next_retry(original, twilio_internal.allowed_retries(original, (
        select r
        from twilio.fallback_rule r
        where r.is_enabled and r.no_success_within is null
            and (twilio_internal.fallback_blocker(r, original)).reason is null
        order by r.priority, r.rule_id
        limit 1
    )))).reason;
    if reason is not null then
        return query select null::text, 'no retry', reason, null::bigint;
    end if;
    if not exists (select from twilio.fallback_rule r where r.is_enabled) then
        return query select
            null::text, 'none',
            'no rule is enabled; for a start: select twilio.enable_whatsapp_to_sms()', null::bigint;
        return;
    end if;
    for candidate in
        select r.* from twilio.fallback_rule r where r.is_enabled order by r.priority, r.rule_id
    loop
        reason := (twilio_internal.fallback_blocker(candidate, original)).reason;
        return query select
            candidate.name::text,
            case when reason is not null then 'refused' when is_taken then 'not needed' else 'would follow' end,
            coalesce(reason, format(
                'a message %s %s to %s', case when candidate.to_provider = 'smsgate' then 'through a phone by' else 'by' end,
                candidate.to_channel, twilio_internal.fallback_address(candidate, original.to_address)
            )),
            null::bigint;
        is_taken := is_taken or reason is null;
    end loop;
end
$$;

comment on function twilio.explain_fallback(bigint) is
    'Explains the fallback of a message: the planned one, another try of the message, or for each rule what it would plan or why it would not.';
