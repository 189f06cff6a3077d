-- Webhooks of phones: registrations at SMSGate, which the worker carries out.

create table twilio.smsgate_webhook (
    webhook_id bigint generated always as identity primary key,
    sender_id int not null,
    event text not null
        constraint event_is_a_name check (event ~ '^[a-z]{2,20}(:[a-z-]{1,30}){1,2}$'),
    url text not null
        constraint url_is_short check (length(url) <= 256),
    reference uuid not null unique default gen_random_uuid(),
    is_wanted boolean not null default true,
    registered_at timestamptz,
    due_at timestamptz not null default twilio.now(),
    tries smallint not null default 0
        constraint tries_is_not_negative check (tries >= 0),
    lease_token uuid,
    problem text,
    constraint webhook_is_registered_once unique (sender_id, event, url)
);

create index smsgate_webhook_due_at on twilio.smsgate_webhook (due_at) where due_at < 'infinity';

comment on table twilio.smsgate_webhook is 'Webhooks that phones call, each with its registration at their gateway, and webhooks to be removed.';
comment on column twilio.smsgate_webhook.webhook_id is 'Our identifier.';
comment on column twilio.smsgate_webhook.sender_id is 'Gateway; if it has a device_id, only that phone calls.';
comment on column twilio.smsgate_webhook.event is 'Event, such as sms:failed.';
comment on column twilio.smsgate_webhook.url is 'URL that phones call.';
comment on column twilio.smsgate_webhook.reference is 'Id of the webhook at the gateway, so that registering it again has no effect.';
comment on column twilio.smsgate_webhook.is_wanted is 'Whether it should be registered; false to remove it.';
comment on column twilio.smsgate_webhook.registered_at is 'When the gateway accepted it; null before.';
comment on column twilio.smsgate_webhook.due_at is 'When the request to the gateway is due; infinity once it is done.';
comment on column twilio.smsgate_webhook.tries is 'Number of requests.';
comment on column twilio.smsgate_webhook.lease_token is 'Lease of the request under way, until due_at; null if there is none.';
comment on column twilio.smsgate_webhook.problem is 'Why the gateway did not accept it.';

select pg_catalog.pg_extension_config_dump('twilio.smsgate_webhook', '');
select pg_catalog.pg_extension_config_dump('twilio.smsgate_webhook_webhook_id_seq', '');

create function twilio.register_smsgate_webhooks(
    url text default null,
    events text[] default '{sms:sent,sms:delivered,sms:failed,sms:received}',
    from_address text default null
)
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    target constant text := coalesce(url, (select p.url || '/smsgate' from twilio.public_url p order by p.created_at, p.url limit 1));
    found int;
begin
    if coalesce(target, '') !~ '^(https://|http://(localhost|127[.]0[.]0[.]1|\[::1\])(:[0-9]+)?/)[^[:space:]]+$' or length(target) > 256 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid webhook URL: "%s"', coalesce(left(target, 300), 'null')),
            hint = 'Give an https URL of up to 256 characters that leads to /smsgate at the shim; twilio.add_public_url(url) sets the default.';
    elsif coalesce(cardinality(events), 0) = 0 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'events must not be empty',
            hint = 'Leave events out for those that say what became of messages, and what comes in.';
    end if;
    insert into twilio.smsgate_webhook as w (sender_id, event, url)
    select g.sender_id, e.event, target
    from twilio.smsgate g
    join twilio.sender s on s.sender_id = g.sender_id
    cross join (select distinct u.event from unnest(events) u (event)) e
    where s.address = coalesce(from_address, s.address)
    on conflict on constraint webhook_is_registered_once do update
    set is_wanted = true, due_at = twilio.now(), tries = 0, lease_token = null, problem = null;
    get diagnostics found = row_count;
    if found = 0 then
        raise exception using
            errcode = 'no_data_found',
            message = 'gateway does not exist',
            hint = 'Add one first, with twilio.add_smsgate(username, password).';
    end if;
    perform twilio_internal.wake_worker();
    return found;
end
$$;

comment on function twilio.register_smsgate_webhooks(text, text[], text) is
    'Makes the worker register our webhooks at one gateway, or at all, and returns their number; registered webhooks are confirmed.';

create function twilio.withdraw_smsgate_webhooks(url text default null, from_address text default null)
returns int
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    found int;
begin
    update twilio.smsgate_webhook w
    set is_wanted = false, due_at = twilio.now(), tries = 0, lease_token = null, problem = null
    from twilio.sender s
    where s.sender_id = w.sender_id and s.address = coalesce(from_address, s.address)
        and w.url = coalesce(withdraw_smsgate_webhooks.url, w.url);
    get diagnostics found = row_count;
    perform twilio_internal.wake_worker();
    return found;
end
$$;

comment on function twilio.withdraw_smsgate_webhooks(text, text) is
    'Makes the worker remove webhooks that it registered, and returns their number.';

create function twilio_internal.claim_webhook(at_most int, lease interval default '60 seconds')
returns table (
    webhook_id bigint,
    lease_token uuid,
    is_wanted boolean,
    tries int,
    sender_id int,
    reference text,
    url text,
    event text,
    device_id text
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
begin
    if not twilio.is_sending() then
        return;
    end if;
    return query
    with taken as (
        update twilio.smsgate_webhook w
        -- The lease ends at due_at: without a result until then, its holder counts as crashed.
        set lease_token = gen_random_uuid(), due_at = moment + lease, tries = least(w.tries + 1, 1000)
        where w.webhook_id in (
            select x.webhook_id
            from twilio.smsgate_webhook x
            where x.due_at <= moment and x.due_at < 'infinity'
            order by x.due_at
            limit at_most
            for update skip locked
        )
        returning w.*
    )
    select
        t.webhook_id, t.lease_token, t.is_wanted, t.tries::int, g.sender_id, t.reference::text,
        t.url, t.event, g.device_id
    from taken t
    join twilio.smsgate g on g.sender_id = t.sender_id;
end
$$;

comment on function twilio_internal.claim_webhook(int, interval) is
    'Takes webhooks to be registered or removed under a lease.';

create function twilio_internal.finish_webhook(
    webhook_id bigint,
    lease_token uuid,
    is_done boolean,
    reason text,
    retry_after_ms bigint
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if is_done then
        delete from twilio.smsgate_webhook w
        where w.webhook_id = webhook_id and w.lease_token = lease_token and not w.is_wanted;
        if found then
            return true;
        end if;
    end if;
    update twilio.smsgate_webhook w
    set lease_token = null,
        registered_at = case when is_done then twilio.now() else w.registered_at end,
        due_at = case
            when is_done then 'infinity'
            else twilio.now() + coalesce(retry_after_ms, 60000) * interval '1 millisecond'
        end,
        problem = case when not is_done then reason end
    where w.webhook_id = webhook_id and w.lease_token = lease_token;
    return found;
end
$$;

comment on function twilio_internal.finish_webhook(bigint, uuid, boolean, text, bigint) is
    'Records a gateway''s response about a webhook; false if the lease has ended.';

create function twilio_internal.next_webhook()
returns double precision
language sql
stable
begin atomic
    select extract(epoch from min(w.due_at) - twilio.now())
    from twilio.smsgate_webhook w
    where w.due_at < 'infinity' and twilio.is_sending();
end;

comment on function twilio_internal.next_webhook() is
    'Returns the seconds until the next request about a webhook is due, negative if it is due already; null if there is none.';
