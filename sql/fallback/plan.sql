-- Fallback: planned where a failure is recorded, checked again where it is claimed, explained on demand.

create table twilio_internal.fallback (
    message_id bigint primary key,
    rule_id int,
    planned_at timestamptz not null default twilio.now(),
    not_before timestamptz not null,
    is_preparing boolean not null,
    stage text not null default 'twilio'
        constraint stage_is_known check (stage in ('source', 'twilio', 'text')),
    due_at timestamptz not null,
    tries smallint not null default 0
        constraint tries_is_not_negative check (tries >= 0),
    lease_token uuid,
    problem text
)
with (fillfactor = 70);

create index fallback_due_at on twilio_internal.fallback (due_at) where is_preparing;
create index fallback_rule_id on twilio_internal.fallback (rule_id);

comment on table twilio_internal.fallback is 'Fallbacks: the rule of each, and the progress of fetching its original and text.';
comment on column twilio_internal.fallback.message_id is 'The fallback: the next step of its chain.';
comment on column twilio_internal.fallback.rule_id is 'Rule of the fallback; null once it is deleted.';
comment on column twilio_internal.fallback.planned_at is 'When it was planned.';
comment on column twilio_internal.fallback.not_before is 'When it may be sent at the earliest, after the rule''s delay.';
comment on column twilio_internal.fallback.is_preparing is 'Whether its text is not known yet.';
comment on column twilio_internal.fallback.stage is 'Next source of the text: source (twilio_callback.message_source), twilio, or text (the rule''s function).';
comment on column twilio_internal.fallback.due_at is 'When the source is asked next.';
comment on column twilio_internal.fallback.tries is 'How often the source was asked.';
comment on column twilio_internal.fallback.lease_token is 'Lease of the request under way, until due_at; null if there is none.';
comment on column twilio_internal.fallback.problem is 'Why the last request failed.';

select pg_catalog.pg_extension_config_dump('twilio_internal.fallback', '');

create function twilio_internal.should_fetch_original(rule twilio.fallback_rule, original twilio.message)
returns boolean
language sql
immutable
-- Callbacks may have been lost, so Twilio is asked for the state of the original.
return rule.no_success_within is not null and original.provider = 'twilio' and original.message_sid is not null;

comment on function twilio_internal.should_fetch_original(twilio.fallback_rule, twilio.message) is
    'Returns whether Twilio is asked for the state of a message before the rule''s fallback is sent.';

create function twilio_internal.replaced_message(fallback twilio.message)
returns bigint
language sql
stable
begin atomic
    select m.message_id
    from twilio.message m
    where m.root_id = fallback.root_id and m.step = fallback.step - 1
    order by m.try desc
    limit 1;
end;

comment on function twilio_internal.replaced_message(twilio.message) is
    'Returns the message that a fallback replaces: the last try of the step before.';

create function twilio_internal.is_rehearsal(original twilio.message, is_any_event boolean)
returns boolean
language sql
stable
begin atomic
    -- What follows a simulated message, or events that are all simulated, is simulated too.
    select original.is_simulated or not exists (
        select
        from twilio.message_event e
        where e.message_id = original.message_id and e.source <> 'simulated'
            and (
                is_rehearsal.is_any_event
                or twilio_internal.status_kind(original.provider, e.status) = 'failure'
            )
    )
    and exists (select from twilio.message_event e where e.message_id = original.message_id);
end;

comment on function twilio_internal.is_rehearsal(twilio.message, boolean) is
    'Returns whether a message is simulated, or all its failures are, or all its events.';

create function twilio_internal.create_fallback(rule twilio.fallback_rule, original twilio.message)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := twilio.now();
    origin constant twilio.sender := twilio_internal.fallback_sender(rule, original);
    is_service constant boolean := coalesce(twilio_internal.address_kind(origin.address) = 'messaging_service', false);
    root twilio.message;
    deadline timestamptz;
    must_ask boolean;
    stage text;
    new_id bigint;
begin
    select m.* into root from twilio.message m where m.message_id = original.root_id;
    deadline := twilio_internal.fallback_deadline(rule, original, twilio_internal.dated(root));
    -- Each chain fetches its original once: date and text are stored with the root.
    must_ask := twilio_internal.has_source(root) and (root.body is null or original.step = 0);
    stage := case
        when must_ask and current_setting('twilio_callback.message_source') <> '' then 'source'
        when must_ask or twilio_internal.should_fetch_original(rule, original) then 'twilio'
        when rule.text_function is not null then 'text'
    end;
    insert into twilio.message as m (
        message_id, root_id, step, account_sid, provider, channel, from_address, to_address,
        messaging_service_sid, body, media_urls, status, created_at, expires_at, metadata, is_simulated
    )
    overriding system value
    values (
        nextval('twilio.message_message_id_seq'), original.root_id, original.step + 1, origin.account_sid,
        origin.provider, rule.to_channel,
        case when not is_service then origin.address end,
        twilio_internal.fallback_address(rule, original.to_address),
        case when is_service then origin.address else origin.messaging_service_sid end,
        case when stage is null then
            twilio_internal.fallback_text(rule, root.body, root.media_urls, origin.can_send_media)
        end,
        case when rule.media = 'send' and origin.can_send_media then root.media_urls end,
        'waiting', moment, deadline, root.metadata,
        twilio_internal.is_rehearsal(original, rule.no_success_within is not null)
    )
    on conflict do nothing
    returning m.message_id into new_id;
    if new_id is null then
        return null;
    end if;
    insert into twilio_internal.fallback (message_id, rule_id, not_before, is_preparing, stage, due_at)
    values (
        new_id, rule.rule_id, moment + rule.delay, stage is not null, coalesce(stage, 'twilio'),
        case when stage is not null then moment else 'infinity' end
    );
    insert into twilio_internal.outbox (message_id, sender_id, is_repeatable, due_at, expires_at)
    values (
        new_id, origin.sender_id, current_setting('twilio_callback.delivery') = 'at_least_once',
        case when stage is not null then 'infinity' else moment + rule.delay end, deadline
    );
    perform twilio_internal.watch_for_timeout(array[new_id]);
    perform twilio_internal.wake_worker();
    return new_id;
end
$$;

comment on function twilio_internal.create_fallback(twilio.fallback_rule, twilio.message) is
    'Queues the next step of a message''s chain and returns its id; null if the step exists already.';

create function twilio_internal.plan_fallback(message_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Not a plan profile: there are few rules and no index for them, so a scan is right, even if the caller has switched scans off.
set enable_seqscan = on
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    has_rules constant boolean := exists (
        select from twilio.fallback_rule r where r.is_enabled and r.no_success_within is null
    );
    original twilio.message;
    rule twilio.fallback_rule;
    followed twilio.fallback_rule;
begin
    for original in
        select m.*
        from twilio.message m
        where m.message_id = any (message_ids)
            and (has_rules or m.expires_at is not null and twilio_internal.error_class(m.error_code) = 'transient')
        order by m.message_id
    loop
        continue when exists (
                select from twilio.message m where m.root_id = original.root_id and m.step = original.step + 1
            )
            or twilio_internal.chain_blocker(original) is not null;
        followed := null;
        for rule in
            select r.*
            from twilio.fallback_rule r
            where r.is_enabled and r.no_success_within is null
            order by r.priority, r.rule_id
        loop
            if (twilio_internal.fallback_blocker(rule, original)).reason is null then
                followed := rule;
                exit;
            end if;
        end loop;
        if not twilio_internal.plan_retry(original, twilio_internal.allowed_retries(original, followed)) and followed.rule_id is not null then
            perform twilio_internal.create_fallback(followed, original);
        end if;
    end loop;
end
$$;

comment on function twilio_internal.plan_fallback(bigint[]) is
    'Plans another try or the next step of messages whose failure was just recorded; twilio_internal.record has locked their rows.';

create function twilio_internal.is_rehearsal_url(url text)
returns boolean
language sql
immutable
strict
parallel safe
return url ~ '^https?://(localhost|127[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}|\[::1\])(:[0-9]+)?(/|$)';

comment on function twilio_internal.is_rehearsal_url(text) is
    'Returns whether a URL is on this machine, so that requests to it reach no recipient.';

create function twilio_internal.fallback_goal(message twilio.message)
returns text
language sql
stable
begin atomic
    select coalesce((
        select r.success_status
        from twilio_internal.fallback f
        join twilio.fallback_rule r on r.rule_id = f.rule_id
        where f.message_id = message.message_id and r.no_success_within is not null
    ), 'delivered');
end;

comment on function twilio_internal.fallback_goal(twilio.message) is
    'Returns the status of the original that makes a fallback unnecessary: sent, delivered or read.';

create function twilio_internal.success_clock_start(message twilio.message)
returns timestamptz
language sql
stable
begin atomic
    select greatest(
        twilio_internal.sendable_from(message, greatest(
            message.created_at,
            message.send_at,
            (select f.not_before from twilio_internal.fallback f where f.message_id = message.message_id)
        )),
        -- A message that Twilio has scheduled starts with its next event.
        (
            select min(e.received_at)
            from twilio.message_event e
            where e.message_id = message.message_id and e.status <> 'scheduled'
                and exists (
                    select
                    from twilio.message_event s
                    where s.message_id = e.message_id and s.status = 'scheduled' and s.event_id < e.event_id
                )
        )
    );
end;

comment on function twilio_internal.success_clock_start(twilio.message) is
    'Returns the time from which a timed rule waits for success: when the message could be sent.';

create function twilio_internal.fallback_send_blocker(message twilio.message)
returns table (status text, reason text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    rule twilio.fallback_rule;
    original twilio.message;
    consent text;
begin
    if message.is_simulated and not coalesce(twilio_internal.is_rehearsal_url(case message.provider
        when 'twilio' then (select a.api_url from twilio.account a where a.account_sid = message.account_sid)
        else (
            select g.base_url
            from twilio_internal.outbox o
            join twilio.smsgate g on g.sender_id = o.sender_id
            where o.message_id = message.message_id
        )
    end), false) then
        return query select 'canceled', 'a simulated message is sent only to a provider on this machine';
        return;
    end if;
    if message.try > 1 then
        select m.* into original
        from twilio.message m
        where m.root_id = message.root_id and m.step = message.step and m.try < message.try
            and twilio_internal.has_reached(m, 'delivered')
        limit 1;
        if found then
            return query select 'canceled', format('message %s was delivered after all', original.message_id);
            return;
        end if;
        -- Only planned retries have this time. Who retries by hand has seen the failure.
        consent := case when message.send_at is not null then twilio_internal.consent_failure(message.root_id, message.step + 1) end;
        if consent is not null then
            return query select 'suppressed', consent;
            return;
        end if;
    end if;
    if message.step = 0 then
        return;
    end if;
    select r.* into rule
    from twilio_internal.fallback f
    join twilio.fallback_rule r on r.rule_id = f.rule_id
    where f.message_id = message.message_id;
    select m.* into original from twilio.message m where m.message_id = twilio_internal.replaced_message(message);
    return query
    select b.status, b.reason
    from twilio_internal.fallback_blocker(rule, original, message) b
    where b.reason is not null;
end
$$;

comment on function twilio_internal.fallback_send_blocker(twilio.message) is
    'Returns why a fallback, a retry or a simulated message must not be sent now, and the final status that it gets for it; no row if it may be sent.';
