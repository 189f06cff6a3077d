-- Consumers of the feed: open deliveries, leases, retries and dead letters.

create table twilio.feed_consumer (
    consumer text collate "C" primary key
        constraint consumer_is_a_name check (consumer ~ '^[A-Za-z0-9_.-]{1,63}$'),
    handler text,
    run_as text,
    search_path text,
    kinds text[],
    lease interval not null default '30 s'
        constraint lease_is_positive check (lease > '0'),
    max_tries int not null default 20
        constraint max_tries_is_positive check (max_tries > 0),
    safe_event_id bigint not null default 0,
    created_at timestamptz not null default twilio.now(),
    constraint handler_has_a_role check ((handler is null) = (run_as is null))
)
with (fillfactor = 50);

comment on table twilio.feed_consumer is 'Consumers of the feed: one row per consumer.';
comment on column twilio.feed_consumer.consumer is 'Its name.';
comment on column twilio.feed_consumer.handler is 'Function that the worker calls with each event; null if the consumer calls feed_read.';
comment on column twilio.feed_consumer.run_as is 'Role that the function runs as.';
comment on column twilio.feed_consumer.search_path is 'Search path that the function runs with: that of the session that registered it.';
comment on column twilio.feed_consumer.kinds is 'Patterns of like for the kinds of event that the consumer gets; null for all.';
comment on column twilio.feed_consumer.lease is 'Time that a reader has to acknowledge an event.';
comment on column twilio.feed_consumer.max_tries is 'Number of tries after which an event becomes a dead letter.';
comment on column twilio.feed_consumer.safe_event_id is 'All events up to this one were entered into its deliveries, and no open transaction can add one.';
comment on column twilio.feed_consumer.created_at is 'When it was created.';

select pg_catalog.pg_extension_config_dump('twilio.feed_consumer', '');

-- Not dumped, like ticks: after a restore a consumer starts again after its safe_event_id.
create table twilio_internal.feed_position (
    consumer text collate "C" primary key references twilio.feed_consumer on delete cascade,
    tick_id bigint,
    target_tick_id bigint not null,
    after_event_id bigint not null
)
with (fillfactor = 50);

comment on table twilio_internal.feed_position is 'How far events have been entered into each consumer''s deliveries.';
comment on column twilio_internal.feed_position.consumer is 'The consumer.';
comment on column twilio_internal.feed_position.tick_id is 'All events that are visible in this tick were entered; null if the consumer starts after an event.';
comment on column twilio_internal.feed_position.target_tick_id is 'Tick whose events are being entered.';
comment on column twilio_internal.feed_position.after_event_id is 'Last event of target_tick_id that was entered.';

create table twilio_internal.feed_delivery (
    consumer text collate "C" not null,
    event_id bigint not null,
    message_id bigint,
    due_at timestamptz not null,
    tries int not null default 0,
    error text,
    primary key (consumer, event_id)
)
with (
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.1
);

create index feed_delivery_message on twilio_internal.feed_delivery (message_id, consumer, event_id);

comment on table twilio_internal.feed_delivery is 'Events that a consumer has not acknowledged yet.';
comment on column twilio_internal.feed_delivery.consumer is 'Consumer that gets the event.';
comment on column twilio_internal.feed_delivery.event_id is 'The event.';
comment on column twilio_internal.feed_delivery.message_id is 'Message of the event; events of one message are delivered in order.';
comment on column twilio_internal.feed_delivery.due_at is 'When it may be delivered: at once, after a pause, or when a lease ends.';
comment on column twilio_internal.feed_delivery.tries is 'How often it was given out.';
comment on column twilio_internal.feed_delivery.error is 'Why the last try failed.';

select pg_catalog.pg_extension_config_dump('twilio_internal.feed_delivery', '');

create table twilio.feed_dead_letter (
    consumer text collate "C" not null,
    event_id bigint not null,
    message_id bigint,
    tries int not null,
    error text,
    died_at timestamptz not null default twilio.now(),
    primary key (consumer, event_id)
);

create index feed_dead_letter_message on twilio.feed_dead_letter (message_id);

comment on table twilio.feed_dead_letter is 'Events that a consumer did not acknowledge in max_tries tries.';
comment on column twilio.feed_dead_letter.consumer is 'Consumer that did not acknowledge the event.';
comment on column twilio.feed_dead_letter.event_id is 'The event.';
comment on column twilio.feed_dead_letter.message_id is 'Its message.';
comment on column twilio.feed_dead_letter.tries is 'How often it was given out.';
comment on column twilio.feed_dead_letter.error is 'Why the last try failed.';
comment on column twilio.feed_dead_letter.died_at is 'When it was given up.';

select pg_catalog.pg_extension_config_dump('twilio.feed_dead_letter', '');

create view twilio.feed_item
with (security_invoker = true)
as
select
    e.event_id,
    e.xid,
    case
        when m.direction = 'inbound' and e.is_advance then 'message.received'
        when m.direction = 'inbound' and e.params ? 'ErrorUrl' then 'message.handler_failed'
        else 'message.' || e.status
    end as kind,
    e.message_id,
    jsonb_build_object(
        'message_sid', m.message_sid, 'account_sid', m.account_sid, 'provider', m.provider,
        'direction', m.direction, 'channel', m.channel, 'from', m.from_address, 'to', m.to_address,
        'body', m.body, 'media_urls', m.media_urls, 'status', e.status, 'error_code', e.error_code,
        'error_text', twilio_internal.error_text(e.error_code), 'is_advance', e.is_advance, 'source', e.source,
        'root_id', m.root_id, 'step', m.step,
        'fallback_message_id', (
            select f.message_id
            from twilio.message f
            where f.root_id = m.root_id and f.step = m.step + 1
            order by f.try desc
            limit 1
        ),
        'params', e.params
    ) as data,
    e.received_at
from twilio.message_event e
join twilio.message m on m.message_id = e.message_id
-- Messages of blocked senders are stored, but not delivered.
where not m.is_blocked
union all
select
    e.event_id, e.xid, e.kind, e.message_id,
    case
        when e.provider_event_id is null then e.data
        else coalesce((select p.event from twilio.provider_event p where p.provider_event_id = e.provider_event_id), '{}')
    end,
    e.created_at
from twilio_internal.feed_event e;

comment on view twilio.feed_item is 'All events of the feed: one row per event.';

create view twilio.feed_lag
with (security_invoker = true)
as
select
    c.consumer,
    c.handler,
    d.waiting,
    d.given_out,
    (select count(*) from twilio.feed_dead_letter l where l.consumer = c.consumer) as dead,
    greatest(
        (select max(t.high_event_id) from twilio_internal.tick t)
        - coalesce((select t.high_event_id from twilio_internal.tick t where t.tick_id = p.tick_id), c.safe_event_id),
        0
    ) as numbers_behind,
    d.oldest_at
from twilio.feed_consumer c
left join twilio_internal.feed_position p on p.consumer = c.consumer
cross join lateral (
    select
        count(*) filter (where x.due_at <= twilio.now()) as waiting,
        count(*) filter (where x.due_at > twilio.now()) as given_out,
        (
            select i.received_at
            from twilio.feed_item i
            where i.event_id = min(x.event_id)
        ) as oldest_at
    from twilio_internal.feed_delivery x
    where x.consumer = c.consumer
) d;

comment on view twilio.feed_lag is 'How far each consumer is behind: one row per consumer.';
comment on column twilio.feed_lag.waiting is 'Events that can be delivered now.';
comment on column twilio.feed_lag.given_out is 'Events that are with a reader or wait for the next try.';
comment on column twilio.feed_lag.dead is 'Events that were given up.';
comment on column twilio.feed_lag.numbers_behind is 'Event numbers that were not examined yet; the consumer may not get all of them.';
comment on column twilio.feed_lag.oldest_at is 'When the oldest event that is not acknowledged happened.';
