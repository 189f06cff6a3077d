-- Messages of unknown outcome: a view of them, and a function that settles one.

create function twilio_internal.given_up_reason()
returns text
language sql
immutable
return 'given up: it is not known whether it was sent';

comment on function twilio_internal.given_up_reason() is
    'Returns the reason of messages that twilio.resolve_unknown has given up: rules by status send no fallback for them.';

create function twilio_internal.settle_unsent(message_id bigint, reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    update twilio_internal.attempt t
    set outcome = 'not_processed', reason = reason, finished_at = coalesce(t.finished_at, twilio.now())
    where t.message_id = message_id and t.outcome is distinct from 'not_processed';
    delete from twilio_internal.outbox o where o.message_id = message_id;
    perform twilio_internal.record_decision(array[message_id], array['expired'], array[reason]);
end
$$;

comment on function twilio_internal.settle_unsent(bigint, text) is
    'Ends a message of unknown outcome as not sent.';

create view twilio.unknown_message
with (security_invoker = true)
as
select
    m.message_id,
    m.root_id,
    o.state,
    m.provider,
    m.account_sid,
    m.channel,
    m.from_address,
    m.to_address,
    f.request,
    t.started_at as attempted_at,
    t.reason,
    case when o.state = 'unknown' then o.tries else 0 end as look_ups,
    o.looked_up_at,
    nullif(o.due_at, 'infinity') as next_look_up_at,
    o.candidates,
    o.problem,
    m.metadata,
    m.created_at
from twilio_internal.outbox o
join twilio.message m on m.message_id = o.message_id
cross join lateral (
    select jsonb_strip_nulls(jsonb_build_object(
        'To', m.to_address,
        'From', m.from_address,
        'MessagingServiceSid', m.messaging_service_sid,
        'Body', m.body,
        'MediaUrl', to_jsonb(m.media_urls)
    )) || coalesce(m.twilio_parameters, '{}') as request
) f
left join lateral (
    select x.started_at, x.reason
    from twilio_internal.attempt x
    where x.message_id = m.message_id
    -- Ordering by attempt_id would read all attempts in a database without statistics.
    order by x.started_at desc
    limit 1
) t on true
where o.state in ('unknown', 'dead') and m.message_sid is null;

comment on view twilio.unknown_message is 'Messages whose outcome is unknown: they may or may not have been sent. twilio.resolve_unknown settles one.';
comment on column twilio.unknown_message.state is 'unknown (its answer was lost) or dead (the worker ended over it several times).';
comment on column twilio.unknown_message.request is 'Data of the request.';
comment on column twilio.unknown_message.attempted_at is 'When the request was begun: a message at the provider is not older.';
comment on column twilio.unknown_message.reason is 'Why its outcome is not known.';
comment on column twilio.unknown_message.look_ups is 'How often it was looked up in Twilio''s list of messages.';
comment on column twilio.unknown_message.looked_up_at is 'When it was last looked up.';
comment on column twilio.unknown_message.next_look_up_at is 'When it is looked up next; null if only a person or a callback can settle it.';
comment on column twilio.unknown_message.candidates is 'SIDs of the messages at Twilio that may be this one; null if there are none.';
comment on column twilio.unknown_message.problem is 'Why the last look-up did not settle it.';

create function twilio.resolve_unknown(message_id bigint, outcome text, message_sid text default null)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    job twilio_internal.outbox;
    message twilio.message;
    attempt uuid;
    other twilio.message;
begin
    if (outcome in ('sent', 'not_sent', 'give_up')) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'outcome must be sent, not_sent or give_up',
            hint = 'sent takes the message''s SID at Twilio; not_sent and give_up end the message, and twilio.retry_message(message_id) sends it again.';
    end if;
    if (outcome = 'sent') <> (message_sid is not null) or message_sid !~ '^(SM|MM)[0-9a-fA-F]{32}$' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                when outcome <> 'sent' then format('message_sid must be null with outcome %s', outcome)
                when message_sid is null then 'message_sid must be given with outcome sent'
                else 'invalid message_sid'
            end,
            hint = 'Take the SID from twilio.unknown_message.candidates or from the Twilio Console: SM or MM and 32 hexadecimal digits.';
    end if;
    -- Lock order: outbox before message.
    select o.* into job from twilio_internal.outbox o where o.message_id = message_id for update;
    select m.* into message from twilio.message m where m.message_id = message_id for update;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('message %s does not exist', coalesce(message_id::text, 'null')),
            hint = 'See twilio.unknown_message for those whose outcome is not known.';
    end if;
    if (job.state in ('unknown', 'dead')) is not true or message.message_sid is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('the outcome of message %s is not unknown: it is %s', message_id, message.status),
            hint = 'See twilio.unknown_message for those whose outcome is not known.';
    end if;
    if job.lease_token is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('message %s is being looked up now', message_id),
            hint = 'Try again in a minute.';
    end if;
    if outcome = 'not_sent' then
        perform twilio_internal.settle_unsent(message_id, 'not sent, as was decided by hand');
        return;
    end if;
    if outcome = 'give_up' then
        delete from twilio_internal.outbox o where o.message_id = message_id;
        perform twilio_internal.record_decision(array[message_id], array['expired'], array[twilio_internal.given_up_reason()]);
        return;
    end if;
    if message.provider <> 'twilio' then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('message %s is sent by a phone and has no SID', message_id),
            hint = 'Give not_sent or give_up.';
    end if;
    select t.attempt_id into attempt
    from twilio_internal.attempt t
    where t.message_id = message_id
    order by t.started_at desc
    limit 1;
    -- Binding merges the row that callbacks have created for this SID, so it must be about the same message.
    select m.* into other from twilio.message m where m.message_sid = message_sid for update;
    if found and (
        other.direction <> 'outbound'
        or other.account_sid is distinct from message.account_sid
        or twilio.person_key(other.to_address) <> twilio.person_key(message.to_address)
    ) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('SID %s does not match message %s', message_sid, message_id),
            detail = case
                when other.direction <> 'outbound' then format('It is that of message %s, which is %s.', other.message_id, other.direction)
                when other.account_sid is distinct from message.account_sid then
                    format('It is that of message %s, which is of another account.', other.message_id)
                else format('It is that of message %s, which went to another recipient.', other.message_id)
            end,
            hint = 'See twilio.unknown_message.candidates for SIDs that may be this one.';
    end if;
    if (select b.message_id from twilio_internal.bind(array[attempt], array[message.account_sid], array[message_sid]) b) is null then
        select m.* into other from twilio.message m where m.message_sid = message_sid;
        raise exception using
            errcode = 'unique_violation',
            message = format('SID %s belongs to another message', message_sid),
            detail = format('It is message %s.', other.message_id),
            hint = 'See twilio.unknown_message.candidates for SIDs that may be this one.';
    end if;
    update twilio_internal.attempt t
    set outcome = 'accepted', finished_at = coalesce(t.finished_at, twilio.now())
    where t.attempt_id = attempt;
    delete from twilio_internal.outbox o where o.message_id = message_id;
    perform twilio_internal.record_decision(array[message_id], array['accepted'], array['sent, as was decided by hand']);
end
$$;

comment on function twilio.resolve_unknown(bigint, text, text) is
    'Settles a message of unknown outcome: as sent, with its SID at Twilio; as not_sent; or with give_up if it cannot be found out. After not_sent and give_up the message is expired, and retry_message sends it again.';

create function twilio_internal.check_unknown()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select
        'unknown outcomes',
        case when count(*) filter (where u.next_look_up_at is null) > 0 then 'warning' else 'ok' end,
        case
            when count(*) = 0 then 'the outcome of every message is known'
            else format(
                'it is not known whether %s messages were sent, the oldest of %s; %s of them are still looked up',
                count(*), to_char(min(u.attempted_at), 'YYYY-MM-DD HH24:MI:SSOF'), count(u.next_look_up_at)
            )
        end,
        case when count(*) filter (where u.next_look_up_at is null) > 0 then format(
            'See: select * from twilio.unknown_message; then, for instance: select twilio.resolve_unknown(%s, ''not_sent'');',
            min(u.message_id) filter (where u.next_look_up_at is null)
        ) end
    from twilio.unknown_message u;
end;

comment on function twilio_internal.check_unknown() is
    'The check of twilio.doctor that counts messages whose outcome is unknown.';
