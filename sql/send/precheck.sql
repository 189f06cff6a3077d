-- Our own decisions about queued messages, and the reasons not to send one.

create function twilio_internal.record_decision(
    message_ids bigint[],
    statuses text[],
    reasons text[],
    error_codes int[] default '{}',
    source text default 'outbox'
)
returns void
language sql
volatile
begin atomic
    -- Our own decisions are recorded like all other events.
    select count(*)
    from twilio_internal.record(array(
        select twilio_internal.make_report(
            i.status, record_decision.source, m.message_id, i.code,
            jsonb_strip_nulls(jsonb_build_object(
                'MessageStatus', i.status,
                'MessageSid', case when record_decision.source = 'api' then m.message_sid end,
                'ErrorCode', i.code::text,
                'ErrorMessage', i.reason
            ))::text,
            direction => m.direction
        )
        from unnest(record_decision.message_ids, record_decision.statuses, record_decision.reasons, record_decision.error_codes) i (id, status, reason, code)
        join twilio.message m on m.message_id = i.id
        order by m.message_id
    )) r;
end;

comment on function twilio_internal.record_decision(bigint[], text[], text[], int[], text) is
    'Records our own decisions about messages: canceled, expired, suppressed, refused or unknown; with another source, the answers of a provider.';

create function twilio_internal.may_have_been_sent(message_id bigint, but_for uuid default null)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio_internal.attempt t
        where t.message_id = may_have_been_sent.message_id
            and t.attempt_id is distinct from may_have_been_sent.but_for
            and t.outcome is distinct from 'not_processed'
    );
end;

comment on function twilio_internal.may_have_been_sent(bigint, uuid) is
    'Returns whether another attempt than but_for may have sent a message: a message that waits for its next try may be at its gateway already.';

create function twilio_internal.has_active_fallback(message_id bigint)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio.message m
        join twilio.message f on f.root_id = m.root_id and f.step > m.step
        where m.message_id = has_active_fallback.message_id
            -- A fallback that failed does not replace the message.
            and twilio_internal.status_kind(f.provider, f.status) in ('pending', 'success')
    );
end;

comment on function twilio_internal.has_active_fallback(bigint) is
    'Returns whether a fallback is under way or succeeded, so that the message itself is not sent again.';

create function twilio_internal.has_smsgate_event(message_id bigint)
returns boolean
language sql
stable
begin atomic
    select exists (
        select from twilio.message_event e where e.message_id = has_smsgate_event.message_id and e.source = 'smsgate'
    );
end;

comment on function twilio_internal.has_smsgate_event(bigint) is
    'Returns whether a phone has reported an event of a queued message; it knows the message by our own id even if its gateway''s answer was lost.';

create function twilio_internal.resume_polling(message_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Most messages do not go through a phone, and need not wait for a lock on this table.
    if exists (select from twilio.message m where m.message_id = any (message_ids) and m.provider = 'smsgate') then
        update twilio_internal.smsgate_message p
        set is_open = twilio_internal.status_kind('smsgate', m.status) = 'pending',
            tries = 0, missing_since = null, sealed_to = null, sealed_body = null,
            due_at = twilio.now() + interval '30 seconds'
        from twilio.message m
        where p.message_id = any (message_ids) and m.message_id = p.message_id;
    end if;
end
$$;

comment on function twilio_internal.resume_polling(bigint[]) is
    'Starts polling the states of messages at phones, as if their gateways had accepted them.';

create function twilio_internal.require_durability()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    -- The next request relies on the rows that this transaction writes.
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;

comment on function twilio_internal.require_durability() is
    'Makes the commit of this transaction durable, regardless of synchronous_commit.';

create function twilio_internal.send_blocker(message twilio.message, expires_at timestamptz)
returns table (status text, reason text)
language plpgsql
stable
-- No search_path: it is called for each message, by functions that set one.
as $$
declare
    suppression text;
begin
    if expires_at <= twilio.now() then
        return query select 'expired', 'it was not sent in time';
        return;
    end if;
    suppression := twilio_internal.suppression_of(message.account_sid, message.from_address, message.to_address);
    if suppression is not null then
        return query select 'suppressed', suppression;
        return;
    end if;
    if message.step > 0 or message.try > 1 or message.is_simulated then
        return query select o.status, o.reason from twilio_internal.fallback_send_blocker(message) o;
    end if;
end
$$;

comment on function twilio_internal.send_blocker(twilio.message, timestamptz) is
    'Returns why a message must not be sent now, and the final status that it gets for it; no row if it may be sent.';

create function twilio_internal.discard_settled(message_ids bigint[])
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    settled bigint[];
    stopped bigint[];
    statuses text[];
    reasons text[];
    ids bigint[] := message_ids;
    have_hours boolean;
begin
    -- A callback may have reported the outcome already: then nothing is left to do.
    select array_agg(m.message_id)
    into settled
    from twilio.message m
    join twilio_internal.outbox o on o.message_id = m.message_id
    where m.message_id = any (message_ids)
        and (m.message_sid is not null or m.provider = 'smsgate' and twilio_internal.has_smsgate_event(m.message_id));
    select
        array_agg(o.message_id) filter (where b.status is not null),
        array_agg(b.status) filter (where b.status is not null),
        array_agg(b.reason) filter (where b.status is not null),
        bool_or(o.has_hours)
    into stopped, statuses, reasons, have_hours
    from twilio_internal.outbox o
    join twilio.message m on m.message_id = o.message_id
    left join lateral twilio_internal.send_blocker(m, o.expires_at) b
        -- A message that a phone may have is polled instead, so that it can be canceled there.
        on not (m.provider = 'smsgate' and b.status <> 'expired' and twilio_internal.may_have_been_sent(m.message_id))
    where o.message_id = any (message_ids) and o.state = 'waiting'
        and not o.message_id = any (coalesce(settled, '{}'));
    if settled is not null or stopped is not null then
        -- Lock order: smsgate_message before message.
        perform twilio_internal.resume_polling(settled);
        if stopped is not null then
            perform twilio_internal.record_decision(stopped, statuses, reasons);
        end if;
        delete from twilio_internal.outbox o
        where o.message_id = any (settled || stopped);
        update twilio_internal.attempt t
        set outcome = 'accepted'
        where t.message_id = any (settled) and t.outcome = 'unknown';
        ids := array(
            select i.id
            from unnest(message_ids) i (id)
            where not i.id = any (coalesce(settled || stopped, '{}'))
        );
    end if;
    return case when have_hours then twilio_internal.hold_in_quiet_hours(ids) else ids end;
end
$$;

comment on function twilio_internal.discard_settled(bigint[]) is
    'Removes messages from the outbox that need not or must not be sent any more, postpones those at whose recipients it is quiet, and returns the others.';
