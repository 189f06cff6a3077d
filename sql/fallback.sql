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

comment on table twilio_internal.fallback is 'Messages that stand in for one that failed: the rule that they follow, and how far the look at the original has come.';
comment on column twilio_internal.fallback.message_id is 'The message that stands in: the next step of its chain.';
comment on column twilio_internal.fallback.rule_id is 'Rule that it follows; null once that is deleted.';
comment on column twilio_internal.fallback.planned_at is 'When it was planned.';
comment on column twilio_internal.fallback.not_before is 'When it may leave: the rule''s delay.';
comment on column twilio_internal.fallback.is_preparing is 'Whether its text is still to be found out.';
comment on column twilio_internal.fallback.stage is 'Of whom: source (what twilio_callback.message_source names), twilio, or text (the rule''s function).';
comment on column twilio_internal.fallback.due_at is 'When they are asked for next.';
comment on column twilio_internal.fallback.tries is 'How often they were asked for.';
comment on column twilio_internal.fallback.lease_token is 'Who asks for them just now, until due_at; null if nobody.';
comment on column twilio_internal.fallback.problem is 'Why the last question got no answer.';

select pg_catalog.pg_extension_config_dump('twilio_internal.fallback', '');

create function twilio_internal.should_fetch_original(rule twilio.fallback_rule, original twilio.message)
returns boolean
language sql
immutable
-- That nothing was heard says little where callbacks are missing: Twilio is asked what it knows.
return rule.no_success_within is not null and original.provider = 'twilio' and original.message_sid is not null;

comment on function twilio_internal.should_fetch_original(twilio.fallback_rule, twilio.message) is
    'Tells whether Twilio is asked how a message fares before the rule''s fallback leaves.';

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
    'Returns the message that a fallback stands in for: the last try of the step before.';

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
    deadline := twilio_internal.fallback_deadline(rule, original, greatest(root.created_at, root.send_at));
    -- Each step is prepared once: the first one's answer stays with the root.
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
        -- A rehearsal stays one.
        original.is_simulated or not exists (
            select
            from twilio.message_event e
            where e.message_id = original.message_id and e.source <> 'simulated'
                and (
                    rule.no_success_within is not null
                    or twilio_internal.status_kind(original.provider, e.status) = 'failure'
                )
        )
        and exists (select from twilio.message_event e where e.message_id = original.message_id)
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
    'Queues the next step of a message''s chain and returns its id; null if it is there already.';

create function twilio_internal.plan_fallback(message_ids bigint[])
returns void
language plpgsql
volatile
-- Rules are few and have no index to be looked up by: without these, inherited from twilio_internal.record, each scan
-- of them would look dear enough to be compiled first.
set enable_seqscan = on
set jit = off
set plan_cache_mode = force_generic_plan
set search_path = pg_catalog, pg_temp
as $$
declare
    original twilio.message;
    rule twilio.fallback_rule;
begin
    if not exists (select from twilio.fallback_rule r where r.is_enabled and r.no_success_within is null) then
        return;
    end if;
    for original in
        select m.* from twilio.message m where m.message_id = any (message_ids) order by m.message_id
    loop
        continue when exists (
                select from twilio.message m where m.root_id = original.root_id and m.step = original.step + 1
            )
            or twilio_internal.chain_blocker(original) is not null;
        for rule in
            select r.*
            from twilio.fallback_rule r
            where r.is_enabled and r.no_success_within is null
            order by r.priority, r.rule_id
        loop
            if twilio_internal.rule_blocker(rule, original) is null then
                perform twilio_internal.create_fallback(rule, original);
                exit;
            end if;
        end loop;
    end loop;
end
$$;

comment on function twilio_internal.plan_fallback(bigint[]) is
    'Plans the next step of messages about which a failure was recorded just now; their rows are locked by twilio_internal.record.';

create function twilio_internal.is_rehearsal_url(url text)
returns boolean
language sql
immutable
strict
parallel safe
return url ~ '^https?://(localhost|127[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}|\[::1\])(:[0-9]+)?(/|$)';

comment on function twilio_internal.is_rehearsal_url(text) is
    'Tells whether a URL is on this machine: whatever it takes reaches nobody.';

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
    'Returns how far the original has to come for a fallback not to be wanted any more: sent, delivered or read.';

create function twilio_internal.success_clock_start(message twilio.message)
returns timestamptz
language sql
stable
begin atomic
    select greatest(
        message.created_at,
        message.send_at,
        (select f.not_before from twilio_internal.fallback f where f.message_id = message.message_id),
        -- What Twilio kept until its time starts with what was said next.
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
    'Returns from when on a rule by time waits for success: when the message could leave.';

create function twilio_internal.fallback_send_blocker(message twilio.message)
returns table (status text, reason text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    goal constant text := twilio_internal.fallback_goal(message);
    rule twilio.fallback_rule;
    original twilio.message;
    other bigint;
    consent text;
    code int;
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
        return query select 'canceled', 'what is simulated leaves only for a provider on this machine';
        return;
    elsif message.step = 0 then
        return;
    end if;
    select r.* into rule
    from twilio_internal.fallback f
    join twilio.fallback_rule r on r.rule_id = f.rule_id
    where f.message_id = message.message_id;
    select m.message_id into other
    from twilio.message m
    where m.root_id = message.root_id and m.step < message.step
        and twilio_internal.has_reached(m, goal)
    limit 1;
    if found then
        return query select 'canceled', format('message %s was %s after all', other, goal);
        return;
    end if;
    select m.* into original from twilio.message m where m.message_id = twilio_internal.replaced_message(message);
    if twilio_internal.status_kind(original.provider, original.status) = 'withdrawn' then
        return query select 'canceled', format('message %s was withdrawn', original.message_id);
        return;
    end if;
    -- Who told the original's sender to stop is not texted by another one in its place.
    select twilio_internal.suppression_of(
        m.account_sid, coalesce(m.from_address, m.messaging_service_sid), message.to_address
    )
    into consent
    from twilio.message m
    where m.message_id = message.root_id;
    if consent is not null then
        return query select 'suppressed', consent;
        return;
    end if;
    consent := twilio_internal.consent_failure(message.root_id, message.step::int);
    if consent is not null and not coalesce(rule.allows_consent_failure, false) then
        return query select 'suppressed', consent;
        return;
    end if;
    code := twilio_internal.non_retryable_error(rule, original);
    if code is not null then
        return query select
            'canceled', format('message %s: error %s is no reason to go another way', original.message_id, code);
    end if;
end
$$;

comment on function twilio_internal.fallback_send_blocker(twilio.message) is
    'Says what keeps a fallback or a simulated message from being sent now, as the final status that it gets; no row if nothing does.';
