-- Views of sending: the queue, the senders, attempts and failed messages.

create function twilio_internal.first_attempt_id(since timestamptz)
returns uuid
language sql
immutable
strict
begin atomic
    select encode(
        overlay(
            '\x00000000000070008000000000000000'::bytea
            placing substring(int8send((extract(epoch from since) * 1000)::bigint) from 3)
            from 1 for 6
        ),
        'hex'
    )::uuid;
end;

comment on function twilio_internal.first_attempt_id(timestamptz) is
    'Returns the lowest identifier that an attempt of a time can have, so that the primary key finds attempts by time.';

create view twilio.queue_status
with (security_invoker = true)
as
select
    twilio.is_sending() as is_sending_on,
    twilio_internal.is_worker_running() as is_worker_running,
    (select w.started_at from twilio_internal.worker w) as worker_started_at,
    o.depth,
    o.due,
    o.oldest_due_age,
    o.in_flight,
    o.unknown,
    o.dead,
    o.next_due_at,
    (select count(*) from twilio_internal.paused_account) as paused_accounts,
    o.quiet
from (
    select
        count(*) filter (where q.state = 'waiting' and q.lease_token is null) as depth,
        count(*) filter (where q.state = 'waiting' and q.lease_token is null and q.due_at <= twilio.now()) as due,
        twilio.now() - min(q.due_at) filter (
            where q.state = 'waiting' and q.lease_token is null and q.due_at <= twilio.now()
        ) as oldest_due_age,
        count(q.lease_token) as in_flight,
        count(*) filter (
            -- A message that a phone may have waits for another try under the same id.
            where q.state = 'unknown'
                or q.state = 'waiting' and q.tries > 0 and twilio_internal.may_have_been_sent(q.message_id, q.lease_token)
        ) as unknown,
        count(*) filter (where q.state = 'dead') as dead,
        min(q.due_at) filter (
            where q.lease_token is null and q.due_at > twilio.now() and q.due_at < 'infinity'
        ) as next_due_at,
        count(*) filter (where q.state = 'waiting' and q.lease_token is null and q.quiet_until > twilio.now()) as quiet
    from twilio_internal.outbox q
) o;

comment on view twilio.queue_status is 'State of sending: one row.';
comment on column twilio.queue_status.is_sending_on is 'Whether sending is on.';
comment on column twilio.queue_status.is_worker_running is 'Whether the worker runs.';
comment on column twilio.queue_status.worker_started_at is 'When the worker, or the last one, started.';
comment on column twilio.queue_status.depth is 'Messages that wait, scheduled ones included.';
comment on column twilio.queue_status.due is 'Of these, those that could be sent now.';
comment on column twilio.queue_status.oldest_due_age is 'How long the oldest of these has been due.';
comment on column twilio.queue_status.in_flight is 'Requests under way.';
comment on column twilio.queue_status.unknown is 'Messages whose outcome is not known yet: they may have been sent. Those of phones are also in depth or in_flight.';
comment on column twilio.queue_status.dead is 'Messages given up because the worker crashed on them.';
comment on column twilio.queue_status.next_due_at is 'When the next waiting message is due.';
comment on column twilio.queue_status.paused_accounts is 'Accounts whose sending is paused.';
comment on column twilio.queue_status.quiet is 'Of depth, those that wait for the end of quiet hours at their recipients.';

create view twilio.sender_status
with (security_invoker = true)
as
select
    s.address,
    s.provider,
    s.channel,
    s.is_default,
    s.rate_per_second,
    s.burst,
    case when s.rate_per_second is not null then least(
        s.burst,
        s.tokens + s.rate_per_second * greatest(0, extract(epoch from twilio.now() - s.filled_at))
    ) end as tokens,
    (
        select count(*)
        from twilio_internal.outbox o
        where o.sender_id = s.sender_id and o.state = 'waiting' and o.lease_token is null
    ) as depth,
    (
        select count(*)
        from twilio_internal.outbox o
        where o.sender_id = s.sender_id and o.lease_token is not null
    ) as in_flight,
    (
        select count(*) / 60.0
        from twilio_internal.attempt t
        join twilio.message m on m.message_id = t.message_id
        -- Both bounds are subqueries, so that the primary key is used: a volatile bound would be compared with each
        -- row, and for a range with one bound the planner expects a third of the table.
        where t.attempt_id between (select twilio_internal.first_attempt_id(clock_timestamp() - interval '1 minute'))
            and (select twilio_internal.first_attempt_id(clock_timestamp() + interval '1 day'))
            and t.outcome = 'accepted'
            and coalesce(m.from_address, m.messaging_service_sid) = s.address
    )::real as sent_per_second,
    exists (select from twilio_internal.paused_account p where p.account_sid = s.account_sid) as is_paused
from twilio.sender s;

comment on view twilio.sender_status is 'Rate of each sender, allowed and actual: one row per sender.';
comment on column twilio.sender_status.tokens is 'Messages that could be sent at once now; null without a limit.';
comment on column twilio.sender_status.sent_per_second is 'Accepted messages per second over the last minute.';

create view twilio.message_attempt
with (security_invoker = true)
as
select
    t.attempt_id,
    t.message_id,
    m.root_id,
    m.provider,
    m.channel,
    m.from_address,
    m.to_address,
    t.started_at,
    t.finished_at,
    t.finished_at - t.started_at as duration,
    coalesce(t.outcome, 'under way') as outcome,
    t.http_status,
    t.error_code,
    twilio_internal.error_text(t.error_code) as error_text,
    t.reason,
    t.response
from twilio_internal.attempt t
join twilio.message m on m.message_id = t.message_id;

comment on view twilio.message_attempt is 'Attempts to send messages, with their outcome: one row per attempt.';

create view twilio.failed_message
with (security_invoker = true)
as
select
    m.message_id,
    m.root_id,
    case
        when o.state = 'dead' then 'dead'
        when o.state = 'unknown' then 'unknown'
        -- It was sent to a gateway that never confirmed it.
        when m.provider = 'smsgate' and m.status = 'expired' and twilio_internal.may_have_been_sent(m.message_id)
            -- Not "not exists", for which PostgreSQL may read the whole log.
            and (
                select e.event_id
                from twilio.message_event e
                where e.message_id = m.message_id and e.source = 'smsgate'
                limit 1
            ) is null then 'unknown'
        when m.status in ('refused', 'expired', 'suppressed') then m.status
        else 'recipient'
    end as kind,
    m.provider,
    m.account_sid,
    m.channel,
    m.from_address,
    m.to_address,
    jsonb_strip_nulls(jsonb_build_object(
        'To', m.to_address,
        'From', m.from_address,
        'MessagingServiceSid', m.messaging_service_sid,
        'Body', m.body,
        'MediaUrl', to_jsonb(m.media_urls)
    )) || coalesce(m.twilio_parameters, '{}') as request,
    m.status,
    m.error_code,
    twilio_internal.error_text(m.error_code) as error_text,
    coalesce(
        m.error_message,
        (
            select e.params ->> 'ErrorMessage'
            from twilio.message_event e
            where e.message_id = m.message_id and e.status = m.status
            limit 1
        ),
        t.reason
    ) as error_message,
    coalesce(
        t.response ->> 'more_info',
        (select e.more_info from twilio_internal.default_error_code() e where e.error_code = m.error_code),
        'https://www.twilio.com/docs/errors/' || m.error_code
    ) as more_info,
    coalesce(t.tries, 0) as tries,
    m.created_at,
    m.failed_at
from twilio.message m
left join twilio_internal.outbox o on o.message_id = m.message_id
left join lateral (
    select
        count(*)::int as tries,
        (array_agg(x.reason order by x.attempt_id desc))[1] as reason,
        (array_agg(x.response order by x.attempt_id desc))[1] as response
    from twilio_internal.attempt x
    where x.message_id = m.message_id
) t on true
where m.direction = 'outbound'
    and (
        m.status in ('undelivered', 'failed', 'refused', 'expired', 'suppressed')
        -- Not "exists" or a join, so that messages are read in the order that a query asks for.
        or m.message_sid is null and (
            select g.due_at
            from twilio_internal.outbox g
            where g.message_id = m.message_id and g.state in ('unknown', 'dead')
        ) = 'infinity'
    );

comment on view twilio.failed_message is 'Messages that failed, were refused or given up, with the data to investigate them: one row per message.';
comment on column twilio.failed_message.kind is 'recipient (not reached), refused (by the provider), expired, suppressed, unknown (may have been sent) or dead (the worker crashed on it).';
comment on column twilio.failed_message.request is 'Data of the request.';
comment on column twilio.failed_message.error_text is 'Meaning of the error.';
comment on column twilio.failed_message.error_message is 'Wording of the provider, or our own reason.';
comment on column twilio.failed_message.more_info is 'Twilio''s page about the error.';
comment on column twilio.failed_message.tries is 'How often it was tried.';
