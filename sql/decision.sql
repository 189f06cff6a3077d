-- What we decide about queued messages ourselves, and what keeps them from being sent.

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
    -- Our own decisions go the way of all news.
    select count(*)
    from (
        select
            array_agg(n.message_id) as ids,
            array_agg(n.account_sid) as accounts,
            array_agg(n.message_sid) as sids,
            array_agg(n.direction) as directions,
            array_agg(n.channel) as channels,
            array_agg(n.from_address) as senders,
            array_agg(n.to_address) as recipients,
            array_agg(n.messaging_service_sid) as services,
            array_agg(null::text) as nulls,
            array_agg(n.new_status) as statuses,
            array_agg(n.code) as codes,
            array_agg(record_decision.source) as sources,
            array_agg(jsonb_strip_nulls(jsonb_build_object(
                'MessageStatus', n.new_status,
                'MessageSid', case when record_decision.source = 'api' then n.message_sid end,
                'ErrorCode', n.code::text,
                'ErrorMessage', n.reason
            ))::text) as params
        from (
            select m.*, i.status as new_status, i.reason, i.code
            from unnest(record_decision.message_ids, record_decision.statuses, record_decision.reasons, record_decision.error_codes) i (id, status, reason, code)
            join twilio.message m on m.message_id = i.id
            order by m.message_id
        ) n
        having count(*) > 0
    ) a
    cross join lateral twilio_internal.record(
        a.ids, a.accounts, a.sids, a.directions, a.channels, a.senders, a.recipients, a.services, a.nulls,
        a.nulls, a.statuses, a.codes, a.sources, a.nulls, a.nulls, a.params, array[]::timestamptz[]
    ) r;
end;

comment on function twilio_internal.record_decision(bigint[], text[], text[], int[], text) is
    'Records what we decided about messages ourselves: canceled, expired, suppressed, refused or unknown; from another source, what a provider answered.';

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
    'Tells whether an attempt at a message, but for this one, may have sent it: what waits for another try at its gateway may be there already.';

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
            -- One that ended without reaching anybody stands in for nothing.
            and twilio_internal.status_kind(f.provider, f.status) in ('pending', 'success')
    );
end;

comment on function twilio_internal.has_active_fallback(bigint) is
    'Tells whether a fallback goes or went in a message''s place: then that is not sent anew.';

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
    'Tells whether a phone has told of a queued message, which it knows by our own id though its gateway''s answer was lost.';

create function twilio_internal.resume_polling(message_ids bigint[])
returns void
language plpgsql
volatile
as $$
begin
    -- Most messages are no phone's, and wait for no lock on this table.
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
    'Has the states of messages at phones asked for from now on, as if their gateways had said that they took them.';

create function twilio_internal.require_durability()
returns void
language plpgsql
volatile
as $$
begin
    -- What goes out next relies on what is written here.
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;

comment on function twilio_internal.require_durability() is
    'Makes this transaction''s commit durable whatever the setting.';

create function twilio_internal.send_blocker(message twilio.message, expires_at timestamptz)
returns table (status text, reason text)
language plpgsql
stable
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
    if message.step > 0 or message.is_simulated then
        return query select o.status, o.reason from twilio_internal.fallback_send_blocker(message) o;
    end if;
end
$$;

comment on function twilio_internal.send_blocker(twilio.message, timestamptz) is
    'Says what keeps a message from being sent now, as the final status that it gets; no row if nothing does.';

create function twilio_internal.discard_settled(message_ids bigint[])
returns bigint[]
language plpgsql
volatile
as $$
declare
    moment constant timestamptz := twilio.now();
    settled bigint[];
    hindered bigint[];
    kept bigint[] := '{}';
    stopped bigint[];
    statuses text[];
    reasons text[];
begin
    -- A callback may have said what became of it: then nothing is left to do.
    select array_agg(m.message_id)
    into settled
    from twilio.message m
    join twilio_internal.outbox o on o.message_id = m.message_id
    where m.message_id = any (message_ids)
        and (m.message_sid is not null or m.provider = 'smsgate' and twilio_internal.has_smsgate_event(m.message_id));
    select array_agg(o.message_id), array_agg(b.status), array_agg(b.reason)
    into stopped, statuses, reasons
    from twilio_internal.outbox o
    join twilio.message m on m.message_id = o.message_id
    cross join lateral twilio_internal.send_blocker(m, o.expires_at) b
    where o.message_id = any (message_ids) and o.state = 'waiting'
        and not o.message_id = any (coalesce(settled, '{}'))
        -- What a phone may have is not ended here, but asked for, so that it can be taken back.
        and not (m.provider = 'smsgate' and b.status <> 'expired' and twilio_internal.may_have_been_sent(m.message_id));
    if settled is null and stopped is null then
        return message_ids;
    end if;
    -- Before messages, as everywhere.
    perform twilio_internal.resume_polling(settled);
    if stopped is not null then
        select e.hindered, e.hindered || e.untried
        into hindered, kept
        from twilio_internal.run_isolated('note', stopped, null, statuses, reasons) e;
        -- Not to be sent all the same: it comes back here.
        update twilio_internal.outbox o
        set due_at = greatest(o.due_at, moment + interval '10 seconds')
        where o.message_id = any (hindered);
    end if;
    delete from twilio_internal.outbox o
    where o.message_id = any (settled || stopped) and not o.message_id = any (kept);
    update twilio_internal.attempt t
    set outcome = 'accepted'
    where t.message_id = any (settled) and t.outcome = 'unknown';
    return array(
        select i.id
        from unnest(message_ids) i (id)
        where not i.id = any (coalesce(settled || stopped, '{}'))
    );
end
$$;

comment on function twilio_internal.discard_settled(bigint[]) is
    'Takes messages out of the outbox that need not or must not be sent any more; returns the others. One that cannot be noted now is put off and not among these.';
