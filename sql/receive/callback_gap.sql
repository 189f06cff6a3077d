-- Reports of Twilio that should have come and did not: a URL that was removed, a certificate that expired.
-- What is expected is known of our own messages only: each one that Twilio accepted has a report soon.

create view twilio.callback_gap
with (security_invoker = true)
as
select
    m.account_sid,
    coalesce(m.messaging_service_sid, m.from_address) as sender,
    date_trunc('hour', t.started_at) as hour,
    count(*) as expected,
    count(s.at) as seen,
    count(*) - count(s.at) as missing,
    max(s.at) as last_seen_at
from twilio_internal.attempt t
join twilio.message m on m.message_id = t.message_id
cross join lateral (
    select max(e.received_at) as at
    from twilio.message_event e
    where e.message_id = m.message_id and e.source in ('callback', 'stream')
) s
where t.attempt_id >= twilio_internal.first_attempt_id(twilio.now() - interval '24 hours')
    and t.attempt_id < twilio_internal.first_attempt_id(twilio.now() - interval '2 minutes')
    and t.outcome = 'accepted'
    and m.provider = 'twilio'
    and not m.is_simulated
    and m.status_callback is null
    and (m.send_at < twilio.now() - interval '2 minutes') is not false
group by 1, 2, 3;

comment on view twilio.callback_gap is 'Messages of ours that Twilio accepted in the last 24 hours, by sender and hour, and how many of them any callback or event of Event Streams is about.';
comment on column twilio.callback_gap.sender is 'Messaging service, or the sender''s address.';
comment on column twilio.callback_gap.hour is 'Hour in which Twilio accepted them; the last two minutes are left out.';
comment on column twilio.callback_gap.expected is 'Messages that Twilio accepted, except those with a StatusCallback of the caller''s own.';
comment on column twilio.callback_gap.seen is 'Those of them that a report came about.';
comment on column twilio.callback_gap.missing is 'The others.';
comment on column twilio.callback_gap.last_seen_at is 'When the last report came.';

-- Not dumped: a restored copy sends nothing, and expects nothing.
create table twilio_internal.open_gap (
    account_sid text collate "C" not null,
    sender text collate "C" not null,
    began_at timestamptz not null,
    noticed_at timestamptz not null,
    primary key (account_sid, sender)
);

comment on table twilio_internal.open_gap is 'Senders about whose messages no report comes.';
comment on column twilio_internal.open_gap.account_sid is 'Account.';
comment on column twilio_internal.open_gap.sender is 'Messaging service, or the sender''s address.';
comment on column twilio_internal.open_gap.began_at is 'When Twilio accepted the first message without a report.';
comment on column twilio_internal.open_gap.noticed_at is 'When it was noticed.';

create function twilio_internal.recent_reports()
returns table (account_sid text, sender text, missing bigint, last_seen_at timestamptz, first_missing_at timestamptz)
language sql
stable
begin atomic
    -- Of the last messages: how many were accepted since the last one that a report came about.
    select
        r.account_sid, r.sender,
        count(*) filter (where r.at is null and (r.last_seen is null or r.started_at > r.last_seen)),
        max(r.at),
        min(r.started_at) filter (where r.at is null and (r.last_seen is null or r.started_at > r.last_seen))
    from (
        select x.*, max(x.started_at) filter (where x.at is not null) over (partition by x.account_sid, x.sender) as last_seen
        from (
            select
                m.account_sid,
                coalesce(m.messaging_service_sid, m.from_address) as sender,
                t.started_at,
                (
                    select max(e.received_at)
                    from twilio.message_event e
                    where e.message_id = m.message_id and e.source in ('callback', 'stream')
                ) as at
            from (
                select a.*
                from twilio_internal.attempt a
                where a.attempt_id >= twilio_internal.first_attempt_id(twilio.now() - interval '2 hours')
                    and a.attempt_id < twilio_internal.first_attempt_id(twilio.now() - interval '2 minutes')
                order by a.attempt_id desc
                limit 20000
            ) t
            join twilio.message m on m.message_id = t.message_id
            where t.outcome = 'accepted' and m.provider = 'twilio' and not m.is_simulated and m.status_callback is null
                and (m.send_at < twilio.now() - interval '2 minutes') is not false
        ) x
    ) r
    group by r.account_sid, r.sender;
end;

comment on function twilio_internal.recent_reports() is
    'Returns for each sender how many of the last messages no report came about, since the last message with one.';

create function twilio_internal.detect_gaps()
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plan profile: nested loop
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    moment constant timestamptz := twilio.now();
    gap record;
    changed int := 0;
begin
    -- A copy gets no callbacks, and without a public URL Twilio is given none to call.
    if not twilio.is_sending() or not exists (select from twilio.public_url) then
        return 0;
    end if;
    for gap in
        with recent as materialized (
            select * from twilio_internal.recent_reports()
        ),
        began as (
            insert into twilio_internal.open_gap (account_sid, sender, began_at, noticed_at)
            select r.account_sid, r.sender, r.first_missing_at, moment
            from recent r
            -- Single callbacks are lost now and then. A long queue at Twilio delays all reports, but some come.
            where r.missing >= 5 and (r.last_seen_at < moment - interval '3 minutes') is not false
                and r.account_sid is not null and r.sender is not null
            on conflict do nothing
            returning *
        ),
        ended as (
            -- Of a sender that is not used any more nothing is expected.
            delete from twilio_internal.open_gap g
            where exists (
                    select
                    from recent r
                    where r.account_sid = g.account_sid and r.sender = g.sender and r.last_seen_at > g.noticed_at
                )
                or g.noticed_at < moment - interval '1 day'
                and not exists (select from recent r where r.account_sid = g.account_sid and r.sender = g.sender)
            returning g.*
        )
        select b.*, 'callbacks.missing' as kind from began b
        union all
        select e.*, 'callbacks.resumed' from ended e
        order by 1, 2
    loop
        perform twilio_internal.publish(gap.kind, null, jsonb_build_object(
            'account_sid', gap.account_sid, 'sender', gap.sender, 'began_at', gap.began_at, 'noticed_at', gap.noticed_at
        ));
        changed := changed + 1;
    end loop;
    return changed;
end
$$;

comment on function twilio_internal.detect_gaps() is
    'Notices senders about whose messages no report comes any more, or comes again, and tells the feed; returns how many. The worker calls it once a minute.';

create function twilio_internal.check_gaps()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select
        'missing callbacks',
        case when count(*) > 0 then 'warning' else 'ok' end,
        case
            when count(*) = 0 then 'reports come about the messages of each sender'
            else 'no report comes about messages of ' || string_agg(
                format('%s since %s', g.sender, to_char(g.began_at, 'YYYY-MM-DD HH24:MI:SSOF')), ', ' order by g.began_at, g.sender
            )
        end,
        case when count(*) > 0 then
            'See whether Twilio reaches the shim (certificate, firewall, twilio.provider_alert) and whether a messaging service overrides the StatusCallback; see twilio.callback_gap.'
        end
    from twilio_internal.open_gap g;
end;

comment on function twilio_internal.check_gaps() is
    'The check of twilio.doctor about senders without callbacks.';
