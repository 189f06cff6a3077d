-- SMSGate jobs of the worker: send, poll and cancel messages, and record the results.

create function twilio_internal.lease_for_smsgate(message_ids bigint[], until timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    ids constant bigint[] := twilio_internal.discard_settled(message_ids);
begin
    insert into twilio_internal.smsgate_message as p (message_id, sender_id, device_id)
    select o.message_id, g.sender_id, g.device_id
    from twilio_internal.outbox o
    join twilio.smsgate g on g.sender_id = o.sender_id
    where o.message_id = any (ids)
    on conflict do nothing;
    with leased as (
        update twilio_internal.outbox o
        set lease_token = twilio_internal.new_attempt_id(), lease_until = until, tries = o.tries + 1
        where o.message_id = any (ids)
        returning o.message_id, o.lease_token, o.expires_at
    )
    insert into twilio_internal.attempt (attempt_id, message_id, started_at)
    select l.lease_token, l.message_id, twilio.now()
    from leased l
    join twilio_internal.smsgate_message p on p.message_id = l.message_id
    join twilio.message m on m.message_id = l.message_id
    -- If the phone of an earlier try is not known, a repeat might go to another phone, so the message is polled first. If a
    -- fallback replaces it, or it must not be sent any more, it is only polled.
    where not twilio_internal.may_have_been_sent(l.message_id)
        or p.device_id is not null and not twilio_internal.has_active_fallback(l.message_id)
            and not exists (select from twilio_internal.send_blocker(m, l.expires_at));
    return ids;
end
$$;

comment on function twilio_internal.lease_for_smsgate(bigint[], timestamptz) is
    'Leases messages of phones like twilio_internal.lease; an attempt begins only for messages to be sent, not for those to be polled.';

create function twilio_internal.claim_smsgate(at_most int, lease interval default '60 seconds')
returns table (
    message_id bigint,
    lease_token uuid,
    task text,
    tries int,
    sender_id int,
    reference text,
    device_id text,
    to_address text,
    body text,
    sim_number int,
    priority int,
    with_delivery_report boolean,
    skip_phone_validation boolean,
    ttl_s int,
    is_encrypted boolean,
    version text,
    sealed_to text,
    sealed_body text
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    taken bigint[];
    asked bigint[];
begin
    if not twilio.is_sending() then
        return;
    end if;
    perform twilio_internal.require_durability();
    -- A message with a final state is not polled any more.
    perform twilio_internal.run_isolated(
        'end poll',
        $q$update twilio_internal.smsgate_message p
        set is_open = false, lease_token = null, due_at = 'infinity'
        where p.message_id = any ($1)
        returning p.message_id$q$,
        array(
            select p.message_id
            from twilio_internal.smsgate_message p
            join twilio.message m on m.message_id = p.message_id
            where p.is_open and p.due_at <= moment and twilio_internal.status_kind('smsgate', m.status) <> 'pending'
            for update of p skip locked
        )
    );
    taken := twilio_internal.claim_due(
        'lease for phone',
        $q$select twilio_internal.lock_due($1, 'smsgate', $2)$q$,
        'select unnest(twilio_internal.lease_for_smsgate($1, $2))',
        at_most, moment + lease, true
    );
    asked := twilio_internal.claim_due(
        'poll',
        $q$select array(
            select p.message_id
            from twilio_internal.smsgate_message p
            where p.is_open and p.due_at <= twilio.now() and not p.message_id = any ($2)
            order by p.due_at
            limit $1
            for update skip locked
        )$q$,
        $q$update twilio_internal.smsgate_message p
        set lease_token = gen_random_uuid(), due_at = $2, tries = least(p.tries + 1, 1000)
        where p.message_id = any ($1)
        returning p.message_id$q$,
        at_most - cardinality(taken), moment + lease
    );
    return query
    with work as (
        select
            o.message_id, o.lease_token,
            case when exists (select from twilio_internal.attempt t where t.attempt_id = o.lease_token) then 'send' else 'look' end as task,
            o.tries, least(o.expires_at, o.quiet_from) as expires_at
        from twilio_internal.outbox o
        where o.message_id = any (taken) and o.lease_until = moment + lease
        union all
        select a.message_id, a.lease_token, case when twilio_internal.is_to_be_withdrawn(m) then 'withdraw' else 'ask' end, a.tries, m.expires_at
        from twilio_internal.smsgate_message a
        join twilio.message m on m.message_id = a.message_id
        where a.message_id = any (asked) and a.due_at = moment + lease
    )
    select
        w.message_id, w.lease_token, w.task, w.tries::int, g.sender_id,
        p.reference::text, coalesce(p.device_id, g.device_id), m.to_address, m.body, g.sim_number::int,
        g.priority::int, g.with_delivery_report, g.skip_phone_validation,
        greatest(5, extract(epoch from w.expires_at - moment)::int), g.passphrase is not null,
        -- Shows later whether the passphrase is still the same.
        g.xmin::text, p.sealed_to, p.sealed_body
    from work w
    join twilio.message m on m.message_id = w.message_id
    join twilio_internal.smsgate_message p on p.message_id = w.message_id
    join twilio.smsgate g on g.sender_id = p.sender_id;
end
$$;

comment on function twilio_internal.claim_smsgate(int, interval) is
    'Takes due jobs at SMSGate under a lease: send, look (look up whether it was sent), ask (poll its state) and withdraw (cancel it).';

create function twilio_internal.is_to_be_withdrawn(message twilio.message)
returns boolean
language sql
stable
begin atomic
    select p.due_at < 'infinity' and not p.is_withdrawn
        and message.status in ('waiting', 'unknown', 'pending')
        and (
            message.expires_at <= twilio.now()
            or twilio_internal.suppression_of(message.account_sid, message.from_address, message.to_address) is not null
            or exists (
                select from twilio.message m
                where m.root_id = message.root_id and m.step < message.step
                    and twilio_internal.has_reached(m, twilio_internal.fallback_goal(message))
            )
        )
    from twilio_internal.smsgate_message p
    where p.message_id = message.message_id;
end;

comment on function twilio_internal.is_to_be_withdrawn(twilio.message) is
    'Returns whether a message that waits for its phone must be canceled: it has expired, its recipient is suppressed, or its original has succeeded.';

create function twilio_internal.next_smsgate()
returns double precision
language sql
stable
begin atomic
    select extract(epoch from least(
        (
            select min(o.due_at)
            from twilio_internal.outbox o
            join twilio.sender s on s.sender_id = o.sender_id
            where s.provider = 'smsgate' and o.lease_token is null and o.due_at < 'infinity'
        ),
        (select min(p.due_at) from twilio_internal.smsgate_message p where p.is_open and p.due_at < 'infinity')
    ) - twilio.now())
    where twilio.is_sending();
end;

comment on function twilio_internal.next_smsgate() is
    'Returns the seconds until the next job at SMSGate is due, negative if it is due already; null if there is none.';

create function twilio_internal.finish_smsgate(
    message_id bigint,
    lease_token uuid,
    task text,
    outcome text,
    state text default null,
    device_id text default null,
    reason text default null,
    http_status int default null,
    retry_after_ms bigint default null,
    is_away boolean default false
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    job twilio_internal.outbox;
    held twilio_internal.smsgate_message;
begin
    perform twilio_internal.require_durability();
    -- Lock order: outbox before message.
    select o.* into job
    from twilio_internal.outbox o
    where o.message_id = message_id and o.lease_token = lease_token
    for update;
    if task in ('send', 'look') and not found then
        return false;
    end if;
    select p.* into held from twilio_internal.smsgate_message p where p.message_id = message_id for update;
    if task in ('ask', 'withdraw') and held.lease_token is distinct from lease_token then
        return false;
    end if;
    update twilio_internal.attempt t
    set finished_at = moment, outcome = finish_smsgate.outcome, http_status = finish_smsgate.http_status,
        reason = finish_smsgate.reason
    where t.attempt_id = lease_token and task = 'send';

    if outcome = 'accepted' or outcome = 'refused' and http_status < 500 then
        perform twilio_internal.mark_reachable(array[job.sender_id]);
    end if;
    if outcome = 'accepted' then
        delete from twilio_internal.outbox o where o.message_id = message_id;
        update twilio_internal.smsgate_message p
        set device_id = coalesce(p.device_id, finish_smsgate.device_id),
            is_open = true, tries = 0, lease_token = null, missing_since = null,
            due_at = moment + interval '30 seconds'
        where p.message_id = message_id;
        perform twilio_internal.record_decision(array[message_id], array[coalesce(state, 'pending')], array[reason], source => 'smsgate');
    elsif task in ('send', 'look') and twilio_internal.has_smsgate_event(message_id) then
        -- Regardless of the gateway's response.
        perform twilio_internal.discard_settled(array[message_id]);
    elsif outcome = 'refused' then
        delete from twilio_internal.outbox o where o.message_id = message_id;
        perform twilio_internal.record_decision(
            array[message_id], array['refused'], array[twilio_internal.explain_refused_number(held.sender_id, reason)], source => 'smsgate'
        );
    elsif outcome in ('not_processed', 'unknown') then
        perform twilio_internal.requeue_smsgate(job, reason, retry_after_ms);
        if outcome = 'not_processed' and is_away then
            perform twilio_internal.mark_unreachable(array[message_id]);
        end if;
    elsif outcome = 'missing' and task = 'look' then
        -- The gateway caches such a response for five minutes, so only a second one after that counts.
        if held.missing_since is null or held.missing_since > moment - interval '6 minutes' then
            update twilio_internal.smsgate_message p
            set missing_since = coalesce(p.missing_since, moment)
            where p.message_id = message_id and held.missing_since is null;
            perform twilio_internal.requeue_smsgate(job, reason, 370000::bigint);
        else
            update twilio_internal.smsgate_message p set missing_since = null where p.message_id = message_id;
            update twilio_internal.attempt t
            set finished_at = coalesce(t.finished_at, moment), outcome = 'not_processed'
            where t.message_id = message_id;
            if twilio_internal.has_active_fallback(message_id) then
                delete from twilio_internal.outbox o where o.message_id = message_id;
                perform twilio_internal.record_decision(
                    array[message_id], array['expired'], array['not sent in time; its fallback goes instead']
                );
            else
                perform twilio_internal.requeue_smsgate(job, reason, 0::bigint);
            end if;
        end if;
    else
        perform twilio_internal.schedule_poll(held, outcome, state, reason);
    end if;
    -- The encrypted form is deleted once the gateway has accepted or refused the message; otherwise it stays as long as the
    -- message.
    update twilio_internal.smsgate_message p
    set sealed_to = null, sealed_body = null
    where p.message_id = message_id and p.sealed_to is not null
        and not exists (select from twilio_internal.outbox o where o.message_id = message_id);
    return true;
end
$$;

comment on function twilio_internal.finish_smsgate(bigint, uuid, text, text, text, text, text, int, bigint, boolean) is
    'Records the result of a job at SMSGate: accepted, refused, not_processed, unknown, found, missing, failed, withdrawn or late; false if the lease has ended.';

create function twilio_internal.explain_refused_number(sender_id int, reason text)
returns text
language sql
stable
begin atomic
    -- The gateway's library does not know short codes, nor every valid number.
    select explain_refused_number.reason || case
        when explain_refused_number.reason ~* 'invalid phone number|not a mobile number' and exists (
            select from twilio.smsgate g where g.sender_id = explain_refused_number.sender_id and not g.skip_phone_validation
        ) then ' (add_smsgate with skip_phone_validation => true sends to numbers that the gateway does not know)'
        else ''
    end;
end;

comment on function twilio_internal.explain_refused_number(int, text) is
    'Adds to a gateway''s reason how to send to a number that it does not recognise.';

create function twilio_internal.requeue_smsgate(job twilio_internal.outbox, reason text, retry_after_ms bigint)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    next_at constant timestamptz := twilio.now() + coalesce(retry_after_ms, 60000) * interval '1 millisecond';
begin
    if next_at >= job.expires_at then
        delete from twilio_internal.outbox o where o.message_id = job.message_id;
        perform twilio_internal.record_decision(array[job.message_id], array['expired'], array['given up: ' || coalesce(reason, 'no answer')]);
        return;
    end if;
    update twilio_internal.outbox o
    set due_at = next_at, lease_token = null, lease_until = null, is_provider_away = false
    where o.message_id = job.message_id;
end
$$;

comment on function twilio_internal.requeue_smsgate(twilio_internal.outbox, text, bigint) is
    'Makes a message due again at its gateway, or ends it if that is too late.';

create function twilio_internal.schedule_poll(held twilio_internal.smsgate_message, outcome text, state text, reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamptz := twilio.now();
    message twilio.message;
    deadline timestamptz;
    last_question timestamptz;
begin
    if outcome = 'found' and state is not null then
        perform twilio_internal.record_decision(array[held.message_id], array[state], array[reason], source => 'smsgate');
    elsif outcome = 'withdrawn' then
        perform twilio_internal.record_decision(array[held.message_id], array['cancelling'], array[reason], source => 'smsgate');
    end if;
    select m.* into message from twilio.message m where m.message_id = held.message_id;
    -- A phone that is offline reports nothing, so the deadline is kept here.
    deadline := message.expires_at + interval '1 minute';
    last_question := deadline + interval '1 day';
    if deadline <= moment and message.status in ('waiting', 'unknown', 'pending', 'cancelling') then
        perform twilio_internal.record_decision(array[held.message_id], array['expired'], array['the phone did not take it in time']);
    elsif last_question <= moment and message.status = 'processed' then
        -- The phone may have sent it: a later report of its delivery still counts.
        perform twilio_internal.record_decision(
            array[held.message_id], array['expired'], array['the phone took it and did not report what became of it']
        );
    end if;
    update twilio_internal.smsgate_message p
    set lease_token = null,
        is_withdrawn = p.is_withdrawn or outcome in ('withdrawn', 'late'),
        is_open = twilio_internal.status_kind('smsgate', m.status) = 'pending'
            and moment < last_question,
        -- Polls are more frequent near the deadline; after it, only a delivery report is still expected.
        due_at = greatest(
            moment + interval '10 seconds',
            least(
                moment + least(interval '30 seconds' * power(2, least(p.tries, 7)), interval '1 hour'),
                case when moment < message.expires_at then message.expires_at
                    when moment < deadline then deadline
                    else last_question
                end
            )
        )
    from twilio.message m
    where p.message_id = held.message_id and m.message_id = p.message_id;
end
$$;

comment on function twilio_internal.schedule_poll(twilio_internal.smsgate_message, text, text, text) is
    'Records the polled state of a message at its phone, ends it if the phone did not report for too long, and schedules the next poll.';

create function twilio_internal.withdraw_fallback(message_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    update twilio_internal.smsgate_message p
    set due_at = twilio.now()
    from twilio.message m
    join twilio.message f on f.root_id = m.root_id and f.step > m.step
    where m.message_id = any (message_ids) and p.message_id = f.message_id and p.is_open
        and not p.is_withdrawn and p.lease_token is null;
    if found then
        perform twilio_internal.wake_worker();
    end if;
end
$$;

comment on function twilio_internal.withdraw_fallback(bigint[]) is
    'Makes the worker cancel fallbacks that wait for a phone, since the original was delivered after all.';

create function twilio_internal.store_encrypted(
    message_id bigint,
    version text,
    sealed_to text,
    sealed_body text
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    -- A change of the passphrase waits for this lock and then clears the stored form, or has come first and changed xmin.
    perform
    from twilio_internal.smsgate_message p
    join twilio.smsgate g on g.sender_id = p.sender_id
    where p.message_id = message_id and g.xmin::text = version
    for share of g;
    if not found then
        return false;
    end if;
    update twilio_internal.smsgate_message p
    set sealed_to = store_encrypted.sealed_to, sealed_body = store_encrypted.sealed_body
    where p.message_id = message_id;
    return true;
end
$$;

comment on function twilio_internal.store_encrypted(bigint, text, text, text) is
    'Stores the encrypted form of a message for all attempts; false if the gateway''s row has changed since, as its passphrase may differ.';
