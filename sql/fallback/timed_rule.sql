-- Timed rules: messages that are watched, and fallbacks of those without success in time.

create table twilio_internal.fallback_watch (
    message_id bigint primary key,
    due_at timestamptz not null
)
with (fillfactor = 70);

create index fallback_watch_due_at on twilio_internal.fallback_watch (due_at);

comment on table twilio_internal.fallback_watch is 'Messages that a timed rule watches; a row is deleted once no rule waits for it.';
comment on column twilio_internal.fallback_watch.message_id is 'The message.';
comment on column twilio_internal.fallback_watch.due_at is 'When it is checked next.';

select pg_catalog.pg_extension_config_dump('twilio_internal.fallback_watch', '');

create function twilio_internal.next_watch(original twilio.message, after timestamptz default '-infinity')
returns timestamptz
language sql
stable
begin atomic
    select min(b.at + r.no_success_within)
    from twilio_internal.success_clock_start(original) b (at)
    cross join twilio.fallback_rule r
    where r.is_enabled and r.no_success_within is not null
        and b.at + r.no_success_within > next_watch.after
        and twilio_internal.scope_mismatch(r, original) is null
        and not twilio_internal.has_reached(original, r.success_status);
end;

comment on function twilio_internal.next_watch(twilio.message, timestamptz) is
    'Returns when the next timed rule is due for a message; null if none is.';

create function twilio_internal.has_timed_rules()
returns boolean
language sql
stable
begin atomic
    select exists (
        select from twilio.fallback_rule r where r.is_enabled and r.no_success_within is not null
    );
end;

comment on function twilio_internal.has_timed_rules() is
    'Returns whether a timed rule is enabled; each connection caches the answer until the rules change.';

create trigger fallback_rule_change
after insert or update or delete on twilio.fallback_rule
for each row execute function twilio_internal.publish_key_change();

create trigger fallback_rule_truncation
after truncate on twilio.fallback_rule
for each statement execute function twilio_internal.publish_key_change();

alter table twilio.fallback_rule enable always trigger fallback_rule_change;
alter table twilio.fallback_rule enable always trigger fallback_rule_truncation;

create function twilio_internal.watch_for_timeout(message_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not twilio_internal.has_timed_rules() then
        return;
    end if;
    insert into twilio_internal.fallback_watch (message_id, due_at)
    select w.message_id, w.due_at
    from (
        select m.message_id, twilio_internal.next_watch(m) as due_at
        from twilio.message m
        where m.message_id = any (message_ids) and m.direction = 'outbound'
    ) w
    where w.due_at is not null
    on conflict do nothing;
end
$$;

comment on function twilio_internal.watch_for_timeout(bigint[]) is
    'Watches new messages, if timed rules apply to them.';

create function twilio_internal.plan_timed_out(at_most int default 100)
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Do not wait for other transactions: a message that is locked is tried again later.
set lock_timeout = '200ms'
as $$
declare
    moment constant timestamptz := twilio.now();
    overdue bigint[];
    id bigint;
    next_at timestamptz;
begin
    if not twilio.is_sending() then
        return 0;
    end if;
    select array_agg(w.message_id order by w.message_id)
    into overdue
    from (
        select x.message_id
        from twilio_internal.fallback_watch x
        where x.due_at <= moment
        order by x.due_at
        limit at_most
        for update skip locked
    ) w;
    foreach id in array coalesce(overdue, '{}') loop
        -- A message that fails to plan must not block the rest of the batch.
        begin
            next_at := twilio_internal.plan_if_free(id);
        exception
            when others then
                -- The error's text is not shown, since it may quote the message.
                raise warning 'the fallback by time of message % was not planned: SQLSTATE %', id, sqlstate;
                next_at := moment + interval '1 minute';
        end;
        update twilio_internal.fallback_watch w set due_at = next_at where w.message_id = id and next_at is not null;
        delete from twilio_internal.fallback_watch w where w.message_id = id and next_at is null;
    end loop;
    return coalesce(cardinality(overdue), 0);
end
$$;

comment on function twilio_internal.plan_timed_out(int) is
    'Plans the next step of messages without success in time, up to at_most; returns how many were checked.';

create function twilio_internal.plan_if_free(message_id bigint)
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    soon constant timestamptz := twilio.now() + interval '5 seconds';
    original twilio.message;
begin
    -- Lock order: outbox before message; and the root, which the fallback refers to.
    perform from twilio_internal.outbox o where o.message_id = message_id for update skip locked;
    if not found and exists (select from twilio_internal.outbox o where o.message_id = message_id) then
        return soon;
    end if;
    select m.* into original from twilio.message m where m.message_id = message_id for no key update skip locked;
    if not found then
        return soon;
    end if;
    perform from twilio.message m where m.message_id = original.root_id for no key update skip locked;
    if not found then
        return soon;
    end if;
    return twilio_internal.plan_timed_rule(original);
end
$$;

comment on function twilio_internal.plan_if_free(bigint) is
    'Does the work of twilio_internal.plan_timed_out for one message, unless it is locked; returns when to check it again, null for never.';

create function twilio_internal.has_timed_rule_for(original twilio.message)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio.fallback_rule r
        join twilio.message o on o.message_id = original.root_id
        where r.is_enabled and r.no_success_within is not null
            and twilio_internal.scope_mismatch(r, original) is null
            and not twilio_internal.has_reached(original, r.success_status)
            and twilio_internal.fallback_deadline(r, o, twilio_internal.dated(o)) > twilio.now()
    );
end;

comment on function twilio_internal.has_timed_rule_for(twilio.message) is
    'Returns whether a timed rule can still be followed for a message that was not sent yet, before it is too old.';

create function twilio_internal.plan_timed_rule(original twilio.message)
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    soon constant timestamptz := twilio.now() + interval '5 seconds';
    rule twilio.fallback_rule;
    follower twilio.message;
    job twilio_internal.outbox;
begin
    select m.* into follower
    from twilio.message m
    where m.root_id = original.root_id and m.step = original.step + 1
    order by m.try desc
    limit 1;
    if found then
        if twilio_internal.has_reached(original, twilio_internal.fallback_goal(follower)) then
            perform twilio_internal.withdraw_fallback(array[original.message_id]);
        end if;
        -- While it waits at a phone, it can be canceled.
        return case
            when follower.provider = 'smsgate'
                and twilio_internal.status_kind(follower.provider, follower.status) = 'pending'
                and not exists (
                    select from twilio_internal.smsgate_message p
                    where p.message_id = follower.message_id and p.is_withdrawn
                ) then soon
        end;
    end if;
    if twilio_internal.chain_blocker(original) is not null then
        return null;
    end if;
    if original.status = 'scheduled' or twilio_internal.is_original_fetch_open(original) then
        -- Its time counts from when Twilio sends it, or it is canceled.
        return case when twilio_internal.has_timed_rule_for(original) then twilio.now() + interval '1 minute' end;
    end if;
    select o.* into job from twilio_internal.outbox o where o.message_id = original.message_id;
    if job.lease_token is not null and job.state = 'waiting' then
        -- It is being sent: wait for the outcome.
        return soon;
    end if;
    for rule in
        select r.*
        from twilio.fallback_rule r
        where r.is_enabled and r.no_success_within is not null
        order by r.priority, r.rule_id
    loop
        continue when (twilio_internal.fallback_blocker(rule, original)).reason is not null;
        perform twilio_internal.create_fallback(rule, original);
        if job.state = 'waiting' and not twilio_internal.may_have_been_sent(original.message_id) then
            -- A message that was not sent yet is not sent beside its fallback; one that may have been sent is not sent again.
            delete from twilio_internal.outbox o where o.message_id = original.message_id;
            perform twilio_internal.record_decision(
                array[original.message_id], array['expired'], array['not sent in time; its fallback goes instead']
            );
        end if;
        return case when rule.to_provider = 'smsgate' then soon end;
    end loop;
    return twilio_internal.next_watch(original, twilio.now());
end
$$;

comment on function twilio_internal.plan_timed_rule(twilio.message) is
    'Does the work of twilio_internal.plan_timed_out for one locked message; returns when to check it again, null for never.';

create function twilio_internal.next_timed_out()
returns double precision
language sql
stable
begin atomic
    select extract(epoch from min(w.due_at) - twilio.now())
    from twilio_internal.fallback_watch w
    where twilio.is_sending();
end;

comment on function twilio_internal.next_timed_out() is
    'Returns the seconds until the next watched message is due, negative if it is due already; null if there is none.';
