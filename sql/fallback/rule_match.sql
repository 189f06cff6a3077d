-- Matching of rules: the messages, senders and texts that a rule applies to, and reasons why it does not.

create function twilio_internal.has_reached(message twilio.message, success_status text)
returns boolean
language sql
immutable
return case
    -- A phone may report a failure after a delivery.
    when message.provider = 'smsgate' then
        message.status = 'delivered' or success_status = 'sent' and message.status = 'sent'
    when success_status = 'read' then message.read_at is not null
    when success_status = 'sent' then coalesce(message.sent_at, message.delivered_at, message.read_at) is not null
    else coalesce(message.delivered_at, message.read_at) is not null
end;

comment on function twilio_internal.has_reached(twilio.message, text) is
    'Returns whether a message has reached the status sent, delivered or read.';

create function twilio_internal.reached_in_chain(root_id bigint, before_step int, goal text)
returns bigint
language sql
stable
begin atomic
    select m.message_id
    from twilio.message m
    where m.root_id = reached_in_chain.root_id and m.step < reached_in_chain.before_step
        and twilio_internal.has_reached(m, reached_in_chain.goal)
    limit 1;
end;

comment on function twilio_internal.reached_in_chain(bigint, int, text) is
    'Returns a message of a chain''s earlier steps that has reached the status sent, delivered or read; null if there is none.';

create function twilio_internal.consent_failure(root_id bigint, before_step int)
returns text
language sql
stable
begin atomic
    -- "offset 0" keeps PostgreSQL from reading the whole log, or from reading it in the order of event_id until a row matches.
    select format('message %s: error %s', m.message_id, e.error_code)
    from (
        select x.message_id
        from twilio.message x
        where x.root_id = consent_failure.root_id and x.step < consent_failure.before_step
        offset 0
    ) m
    cross join lateral (
        select x.event_id, x.error_code
        from twilio.message_event x
        where x.message_id = m.message_id and x.error_code is not null
        offset 0
    ) e
    where twilio_internal.error_class(e.error_code) = 'consent' or twilio_internal.is_consent_code(e.error_code)
    order by e.event_id
    limit 1;
end;

comment on function twilio_internal.consent_failure(bigint, int) is
    'Returns the failure of a chain''s earlier steps that means that the recipient does not want messages; null if there is none.';

create function twilio_internal.fallback_sender(rule twilio.fallback_rule, original twilio.message)
returns twilio.sender
language sql
stable
begin atomic
    select s.*
    from twilio.sender s
    cross join lateral (
        select coalesce(
            rule.sender_map ->> original.from_address,
            rule.sender_map ->> original.messaging_service_sid,
            rule.from_address
        ) as address
    ) wanted
    where s.provider = rule.to_provider
        and s.channel = rule.to_channel
        and case
            when wanted.address is not null then s.address = wanted.address
            -- Another account's number is used only where a rule names it.
            else s.provider <> 'twilio' or original.account_sid is null
                or s.account_sid = original.account_sid
        end
    order by s.is_default desc, s.sender_id
    limit 1;
end;

comment on function twilio_internal.fallback_sender(twilio.fallback_rule, twilio.message) is
    'Returns the sender of a rule''s fallback for a message; null if there is none.';

create function twilio_internal.fallback_address(rule twilio.fallback_rule, to_address text)
returns text
language sql
immutable
return case
    when twilio_internal.bare_address(to_address) !~ '^[+][1-9][0-9]{6,14}$' then null
    when rule.to_channel = 'whatsapp' then 'whatsapp:' || twilio_internal.bare_address(to_address)
    -- WhatsApp's own spellings of numbers do not work on other channels.
    else case when rule.to_channel <> 'sms' then rule.to_channel || ':' else '' end
        || coalesce(
            twilio.normalize_number(twilio_internal.bare_address(to_address), null::text),
            twilio_internal.bare_address(to_address)
        )
end;

comment on function twilio_internal.fallback_address(twilio.fallback_rule, text) is
    'Returns the recipient''s address on the rule''s channel, with the number in its dialled form unless the channel is WhatsApp; null if the recipient has no number.';

create function twilio_internal.fallback_text(rule twilio.fallback_rule, body text, media_urls text[], carries_media boolean)
returns text
language sql
immutable
return (
    -- Blank texts are left out; all others are kept as they are, empty lines at their ends included.
    select case when t.content ~ '\S' then t.content end
    from (
        select concat_ws(
            E'\n',
            case
                when rule.template is null then nullif(body, '')
                when body is not null or rule.template not like '%{body}%' or cardinality(media_urls) is not null then
                    nullif(replace(rule.template, '{body}', coalesce(body, '')), '')
            end,
            case when rule.media = 'link' or rule.media = 'send' and not carries_media then
                nullif(array_to_string(media_urls, E'\n'), '')
            end
        ) as content
    ) t
);

comment on function twilio_internal.fallback_text(twilio.fallback_rule, text, text[], boolean) is
    'Returns the text of a fallback, made from that of the original; null if it would be empty.';

create function twilio_internal.fallback_deadline(rule twilio.fallback_rule, original twilio.message, dated timestamptz)
returns timestamptz
language sql
stable
begin atomic
    -- A rule does not extend the expiry that was given with the original.
    select least(
        original.expires_at,
        dated + coalesce(rule.expires_after, current_setting('twilio_callback.default_expiry')::interval)
    );
end;

comment on function twilio_internal.fallback_deadline(twilio.fallback_rule, twilio.message, timestamptz) is
    'Returns when a rule''s fallback expires, for an original of the given date.';

create function twilio_internal.chain_blocker(original twilio.message)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- A delivery is enough, unless a rule waits until the message is read.
    goal constant text := case
        when exists (
            select from twilio.fallback_rule r
            where r.is_enabled and r.no_success_within is not null and r.success_status = 'read'
        ) then 'read'
        else 'delivered'
    end;
    other bigint;
begin
    if original.direction <> 'outbound' then
        return 'it is an inbound message';
    elsif twilio_internal.has_reached(original, goal) then
        return 'it was ' || original.status;
    elsif twilio_internal.status_kind(original.provider, original.status) = 'withdrawn' then
        return 'it was withdrawn';
    elsif original.status = 'suppressed' then
        return 'the recipient is suppressed';
    end if;
    select m.message_id into other
    from twilio.message m
    where m.root_id = original.root_id and m.step = original.step and m.try > original.try
    order by m.try desc
    limit 1;
    if found then
        return format('it was tried again as message %s', other);
    end if;
    other := twilio_internal.reached_in_chain(original.root_id, original.step + 1, goal);
    if other is not null then
        return format('message %s of the chain was %s', other, goal);
    end if;
    if original.step >= 8 then
        return 'the chain has 8 fallbacks already';
    end if;
    return null;
end
$$;

comment on function twilio_internal.chain_blocker(twilio.message) is
    'Returns why no rule is followed for a message; null if one may be.';

create function twilio_internal.scope_mismatch(rule twilio.fallback_rule, original twilio.message)
returns text
language sql
-- As format is. An immutable function would not be inlined.
stable
return case
    when original.provider <> rule.from_provider then format('it is for messages through %s', rule.from_provider)
    when original.channel <> rule.from_channel then format('it is for messages over %s', rule.from_channel)
    when original.account_sid is distinct from coalesce(rule.account_sid, original.account_sid) then
        format('it is for messages of account %s', rule.account_sid)
    when not coalesce(starts_with(twilio_internal.bare_address(original.to_address), rule.recipient_prefix), rule.recipient_prefix is null) then
        format('it is for recipients with %s', rule.recipient_prefix)
end;

comment on function twilio_internal.scope_mismatch(twilio.fallback_rule, twilio.message) is
    'Returns why a rule does not apply to messages of this provider, channel, account and recipient, regardless of their status; null if it does.';

create function twilio_internal.is_original_fetch_open(message twilio.message)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio_internal.fallback f
        join twilio_internal.outbox o on o.message_id = f.message_id
        where f.message_id = message.message_id and f.is_preparing
    );
end;

comment on function twilio_internal.is_original_fetch_open(twilio.message) is
    'Returns whether a fallback waits for its own text or for the state of its original at Twilio; timed rules do not count this time.';

create function twilio_internal.non_retryable_error(rule twilio.fallback_rule, original twilio.message)
returns int
language sql
stable
begin atomic
    select e.error_code
    from twilio.message_event e
    where e.message_id = original.message_id and rule.no_success_within is not null
        and twilio_internal.error_fallback(e.error_code) = 'no'
        and coalesce(e.error_code <> all (rule.error_codes), true)
    order by e.event_id + 0
    limit 1;
end;

comment on function twilio_internal.non_retryable_error(twilio.fallback_rule, twilio.message) is
    'Returns an error of a message after which a timed rule sends no fallback; null if there is none.';

create function twilio_internal.rule_mismatch(rule twilio.fallback_rule, original twilio.message)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    begun constant timestamptz := twilio_internal.success_clock_start(original);
    mismatch constant text := twilio_internal.scope_mismatch(rule, original);
begin
    if mismatch is not null then
        return mismatch;
    elsif rule.no_success_within is not null then
        return case
            when twilio_internal.is_original_fetch_open(original) then 'it is still being prepared'
            when original.status = 'scheduled' then 'Twilio keeps it until its time'
            when twilio.now() < begun + rule.no_success_within then
                format('it waits for %s until %s', rule.success_status, begun + rule.no_success_within)
        end;
    elsif original.status = 'unknown'
        or original.status = 'expired' and original.error_message = twilio_internal.given_up_reason() then
        return 'it is not known whether it was sent';
    elsif twilio_internal.status_kind(original.provider, original.status) <> 'failure' then
        return format('the message did not fail: it is %s', original.status);
    elsif not exists (
        -- All events count, so that their order does not matter.
        select
        from twilio.message_event e
        cross join lateral (select coalesce(e.error_code, original.error_code) as code) c
        where e.message_id = original.message_id
            and (
                e.status = any (rule.statuses)
                or e.status = 'refused' and 'failed' = any (rule.statuses)
            )
            and (
                c.code = any (rule.error_codes)
                or (
                    rule.error_classes is not null
                    or rule.error_codes is null
                )
                and coalesce(coalesce(twilio_internal.error_class(c.code), 'uncertain') = any (rule.error_classes), true)
                and coalesce(twilio_internal.error_fallback(c.code), 'careful') <> 'no'
            )
    ) then
        return format(
            'it is not for status %s%s', original.status, coalesce(' with error ' || original.error_code, ' without an error code')
        );
    end if;
    return null;
end
$$;

comment on function twilio_internal.rule_mismatch(twilio.fallback_rule, twilio.message) is
    'Returns why a rule is not for a message or not for its status now; null if it is.';

-- chain_blocker asks about a message before there is a rule, rule_mismatch about a rule before there is a fallback. What is
-- asked again right before a fallback is sent stands here once.
create function twilio_internal.fallback_blocker(
    rule twilio.fallback_rule,
    original twilio.message,
    fallback twilio.message default null,
    out status text,
    out reason text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    at_send constant boolean := fallback.message_id is not null;
    goal constant text := case when rule.no_success_within is not null then rule.success_status else 'delivered' end;
    next_step constant int := coalesce(fallback.step, original.step + 1);
    -- Also where the row of the first message is missing, as in an incomplete copy.
    chain_id constant bigint := coalesce(fallback.root_id, original.root_id);
    root twilio.message;
    origin twilio.sender;
    address text := fallback.to_address;
    other bigint;
    code int;
    consent text;
    suppression text;
    content text;
    deadline timestamptz;
    hours twilio_internal.local_hours[];
    until timestamptz;
begin
    select m.* into root from twilio.message m where m.message_id = chain_id;
    status := 'canceled';
    other := twilio_internal.reached_in_chain(chain_id, next_step, goal);
    reason := case
        when other is not null then format(
            '%s was %s%s', case when other = original.message_id and not at_send then 'the message' else 'message ' || other end,
            goal, case when at_send then ' after all' else '' end
        )
        when not at_send then twilio_internal.rule_mismatch(rule, original)
        when twilio_internal.status_kind(original.provider, original.status) = 'withdrawn' then
            format('message %s was withdrawn', original.message_id)
    end;
    if reason is not null then
        return;
    end if;
    code := case when rule.to_provider = 'smsgate' then twilio_internal.quiet_failure(chain_id, next_step) end;
    if code is not null then
        reason := format('Twilio did not send it in quiet hours (error %s), and a phone does not either', code);
        return;
    end if;
    code := twilio_internal.non_retryable_error(rule, original);
    if rule.allows_consent_failure is not true then
        consent := twilio_internal.consent_failure(chain_id, next_step);
    end if;
    if not at_send then
        origin := twilio_internal.fallback_sender(rule, original);
        address := twilio_internal.fallback_address(rule, original.to_address);
        reason := case
            when code is not null then format('no fallback is sent after error %s', code)
            when consent is not null then format('the recipient does not want it (%s)', consent)
            when origin.sender_id is null then
                format('provider %s has no sender for channel %s', rule.to_provider, rule.to_channel)
            when address is null then format('the recipient has no number for channel %s', rule.to_channel)
            when address = origin.address then 'sender and recipient are the same'
        end;
        deadline := twilio_internal.fallback_deadline(rule, original, twilio_internal.dated(root));
        hours := twilio_internal.hours_for(chain_id, rule, address);
        until := case when hours is not null then twilio_internal.quiet_end(hours, twilio.now() + rule.delay) end;
        if reason is not null then
            return;
        end if;
        suppression := twilio_internal.suppression_of(origin.account_sid, origin.address, address);
    end if;
    -- A recipient who opted out from the original's sender gets no fallback from another sender.
    suppression := coalesce(
        suppression,
        twilio_internal.suppression_of(root.account_sid, coalesce(root.from_address, root.messaging_service_sid), address)
    );
    if at_send then
        status := case when coalesce(suppression, consent) is not null then 'suppressed' else 'canceled' end;
        reason := coalesce(
            suppression, consent,
            case when code is not null then format('message %s: no fallback is sent after error %s', original.message_id, code) end
        );
    elsif suppression is not null then
        reason := format('the recipient is suppressed: %s', suppression);
    elsif exists (
        select
        from twilio.message m
        where m.root_id = chain_id
            and (
                (select f.rule_id from twilio_internal.fallback f where f.message_id = m.message_id) = rule.rule_id
                or (m.provider, m.channel) = (rule.to_provider, rule.to_channel)
                and (
                    m.from_address is not distinct from origin.address
                    or m.messaging_service_sid = origin.address
                )
            )
    ) then
        reason := 'the chain went this way already';
    elsif deadline <= twilio.now() then
        reason := 'the message is too old';
    elsif hours is not null and (until < deadline) is not true then
        reason := coalesce(
            format('it expires at %s and %s', deadline, twilio_internal.describe_wait(hours, until)),
            'the time zone of the recipient is not known'
        );
    elsif rule.media = 'stop' and cardinality(root.media_urls) > 0 then
        reason := 'it does not replace media';
    elsif not twilio_internal.has_source(root) and rule.text_function is null then
        content := twilio_internal.fallback_text(rule, root.body, root.media_urls, origin.can_send_media);
        if content is null and not (rule.media = 'send' and origin.can_send_media and cardinality(root.media_urls) > 0) then
            reason := 'the text of the message is not known';
        elsif rule.to_provider = 'twilio' and length(content) > twilio_internal.max_text_length('twilio') then
            reason := format('its text would have %s characters, %s are allowed', length(content), twilio_internal.max_text_length('twilio'));
        end if;
    end if;
end
$$;

comment on function twilio_internal.fallback_blocker(twilio.fallback_rule, twilio.message, twilio.message) is
    'Returns why a rule''s fallback for a message may not be planned or, if it is given, not be sent now, and the final status that it gets for it; the reason is null if it may.';

create function twilio_internal.has_source(root twilio.message)
returns boolean
language sql
immutable
return
    -- Date and text of a message that others created are not known, nor is the text of our own message with a template.
    root.provider = 'twilio' and root.message_sid is not null
    and (root.expires_at is null or root.body is null and coalesce(cardinality(root.media_urls), 0) = 0);

comment on function twilio_internal.has_source(twilio.message) is
    'Returns whether date and text of a message must be fetched from Twilio.';
