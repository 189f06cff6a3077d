-- Events of phones: states of our messages, and incoming messages.

create function twilio.smsgate_receive(headers text[], bodies bytea[], sources text[])
returns table (
    http_status int,
    content_type text,
    response_body text,
    reason text,
    message_id bigint,
    event_id bigint,
    is_new boolean,
    wait_ms int
)
language c
volatile
strict
-- A front may do nothing but this, so the owner's rights do the work.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'smsgate_receive_wrapper';

comment on function twilio.smsgate_receive(text[], bytea[], text[]) is
    'Receives a batch of webhooks of SMSGate phones as a front hands them over: one answer a request, in order.';

create function twilio.smsgate_callback(body bytea, signature text, "timestamp" text, source text default null)
returns table (
    http_status int,
    content_type text,
    response_body text,
    reason text,
    message_id bigint,
    event_id bigint,
    is_new boolean,
    wait_ms int
)
language c
volatile
-- As for twilio.smsgate_receive.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'smsgate_callback_wrapper';

comment on function twilio.smsgate_callback(bytea, text, text, text) is
    'Receives one webhook of an SMSGate phone, with its headers X-Signature and X-Timestamp.';

create function twilio_internal.reverify_webhooks(rejected_ids bigint[])
returns setof boolean
language c
volatile
strict
as 'MODULE_PATHNAME', 'reverify_webhooks_wrapper';

comment on function twilio_internal.reverify_webhooks(bigint[]) is
    'Records the refused phone webhooks that verify now, with their original time; returns for each, in order, whether it was recorded.';

create function twilio_internal.record_smsgate_events(
    event_names text[],
    event_ids text[],
    device_ids text[],
    message_references text[],
    statuses text[],
    senders text[],
    recipients text[],
    bodies text[],
    params text[],
    received_at timestamptz[] default '{}'
)
returns table (message_id bigint, event_id bigint, is_new boolean)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Without statistics a plan may look expensive enough to be compiled.
set jit = off
as $$
#variable_conflict use_column
declare
    ids bigint[];
begin
    -- This lock keeps a purge from deleting these messages; one that was purged before is in purged_message.
    perform from twilio.message m
    where m.message_sid = any (array(
        select twilio_internal.smsgate_sid(i.device, i.event)
        from unnest(event_ids, device_ids, statuses) i (event, device, status)
        where i.status = 'received'
    ))
    order by m.message_sid
    for key share;
    -- An incoming message is stored once, however often the phone reports it.
    insert into twilio.message (
        message_id, root_id, message_sid, provider, direction, channel, from_address, to_address, body, status
    )
    overriding system value
    select n.id, n.id, n.sid, 'smsgate', 'inbound', 'sms', n.sender, n.recipient, n.body, 'waiting'
    from (
        select nextval('twilio.message_message_id_seq') as id, d.*
        from (
            select distinct on (s.sid) s.sid, i.sender, i.recipient, i.body
            from unnest(event_ids, device_ids, statuses, senders, recipients, bodies)
                with ordinality i (event, device, status, sender, recipient, body, n)
            cross join lateral (select twilio_internal.smsgate_sid(i.device, i.event) as sid) s
            where i.status = 'received'
            order by s.sid, i.n
        ) d
        where not twilio_internal.is_purged(d.sid)
    ) n
    on conflict do nothing;
    select array_agg(coalesce(o.message_id, m.message_id) order by i.n)
    into ids
    from unnest(event_ids, device_ids, message_references, statuses)
        with ordinality i (event, device, reference, status, n)
    left join twilio_internal.smsgate_message o
        on i.status <> 'received'
        and o.reference = case when i.reference ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then i.reference::uuid end
        -- A phone may report only its own messages.
        and coalesce(o.device_id = i.device, true)
    left join twilio.message m
        on i.status = 'received' and m.message_sid = twilio_internal.smsgate_sid(i.device, i.event);
    update twilio_internal.smsgate_message o
    set device_id = i.device
    from unnest(ids, device_ids, statuses) i (id, device, status)
    where o.message_id = i.id and o.device_id is null and i.device is not null and i.status <> 'received';
    return query
    with known as (
        select i.*, m.direction, row_number() over (order by i.n) as k
        from unnest(ids, statuses, params, received_at) with ordinality i (id, status, params, received, n)
        join twilio.message m on m.message_id = i.id
    ),
    news as (
        select r.event_id, r.is_new, row_number() over () as k
        from twilio_internal.record(array(
            select twilio_internal.make_report(
                x.status, 'smsgate', x.id, null::int, x.params, x.received, direction => x.direction
            )
            from known x
            order by x.k
        )) r
    )
    select i.id, w.event_id, coalesce(w.is_new, false)
    from unnest(ids) with ordinality i (id, n)
    left join known k on k.n = i.n
    left join news w on w.k = k.k
    order by i.n;
end
$$;

comment on function twilio_internal.record_smsgate_events(
    text[], text[], text[], text[], text[], text[], text[], text[], text[], timestamptz[]
) is
    'Records events of phones: states of our messages, and incoming messages. Returns one row per event, in order; message_id is null for a message that is not ours.';

create function twilio_internal.reverify_rejected_webhooks(after_id bigint, until_id bigint, at_most int)
returns table (freed twilio.quarantine_source[], last_id bigint)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    batch record;
begin
    select
        array_agg(r.rejected_id order by r.rejected_id) as ids,
        max(r.rejected_id) as last_id
    into batch
    from (
        select c.rejected_id
        from twilio_internal.rejected_callback c
        where c.url = '/smsgate' and c.rejected_id > after_id and c.rejected_id <= until_id
        order by c.rejected_id
        limit at_most
        for update skip locked
    ) r;
    -- The rows to free are returned and counted later, since sessions that receive requests wait for the counters.
    return query
    with looked_at as materialized (
        select t.id
        from rows from (
            unnest(batch.ids),
            twilio_internal.reverify_webhooks(batch.ids)
        ) t (id, is_taken)
        where t.is_taken
    ),
    taken as (
        delete from twilio_internal.rejected_callback r
        where r.rejected_id in (select l.id from looked_at l)
        returning r.kind, r.network, twilio_internal.bytes_of(r) as bytes
    ),
    gone as (
        select t.kind, t.network, count(*) as n, sum(t.bytes) as bytes from taken t group by t.kind, t.network
    )
    select
        coalesce(array_agg((g.kind, g.network, g.n, g.bytes, 0)::twilio.quarantine_source), '{}'),
        batch.last_id
    from gone g;
end
$$;

comment on function twilio_internal.reverify_rejected_webhooks(bigint, bigint, int) is
    'Records those of the next refused webhooks of phones that verify now, as of their arrival. Returns the rows to free, in the form of twilio_internal.free_quarantine, and the last webhook that it examined, or null.';

create function twilio_internal.smsgate_sid(device_id text, event_id text)
returns text
language sql
immutable
return 'smsgate:' || coalesce(device_id, '') || ':' || event_id;

comment on function twilio_internal.smsgate_sid(text, text) is
    'Returns the message_sid of a message that a phone received.';

create function twilio_internal.explain_webhook(rejected_id bigint)
returns table (cause text, device_id text, signed_by text, seconds_ahead bigint, unreadable text)
language c
volatile
strict
as 'MODULE_PATHNAME', 'explain_webhook_wrapper';

comment on function twilio_internal.explain_webhook(bigint) is
    'Returns why a refused webhook of a phone did not verify as of its arrival; no row if it does not exist.';

create function twilio_internal.explain_refused_smsgate(rejected_id bigint, out finding text, out remedy text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    why record;
    phone text;
begin
    select w.* into why from twilio_internal.explain_webhook(rejected_id) w;
    phone := coalesce('phone "' || why.device_id || '"', 'a phone');
    case why.cause
        when 'none' then
            finding := 'it verifies now';
            remedy := 'select * from twilio.reverify_rejected();';
        when 'clock' then
            finding := format(
                'the clock of %s was %s s %s, more than the %s that are allowed', phone, abs(why.seconds_ahead),
                case when why.seconds_ahead > 0 then 'fast' else 'slow' end,
                current_setting('twilio_callback.smsgate_clock_tolerance')
            );
            remedy := 'Let the phone take its time from the network, and compare the server''s clock. To take in what came meanwhile, raise '
                'twilio_callback.smsgate_clock_tolerance, then: select * from twilio.reverify_rejected();';
        when 'no key' then
            finding := case when why.device_id is null then 'it names no phone'
                else format('no signing key of %s is known', phone) end || ', and no key of any phone signed it';
            remedy := format(
                'If the phone is yours, add the key that its app shows beside the webhooks: select twilio.add_smsgate_key(…%s); '
                'select * from twilio.reverify_rejected();',
                ', ' || quote_literal(why.device_id)
            );
        when 'wrong key' then
            finding := format('no key that is known of %s signed it', phone);
            remedy := format(
                'Compare the key with the one that the app shows beside the webhooks; if it differs: '
                'select twilio.add_smsgate_key(…, %L); select * from twilio.reverify_rejected();',
                why.device_id
            );
        when 'other phone' then
            finding := format('it is from %s, but the key of phone "%s" signed it', phone, why.signed_by);
            remedy := format(
                'If the phone has a new id: select twilio.add_smsgate_key(…%s); select * from twilio.reverify_rejected();',
                ', ' || quote_literal(why.device_id)
            );
        when 'unreadable key' then
            finding := format('the key of %s cannot be used: %s', phone, why.unreadable);
            remedy := 'Repair the file, then see twilio.doctor().';
        when 'twilio' then
            finding := 'it is signed as Twilio signs, and came to the URL for phones';
            remedy := 'Give Twilio its own URL: select twilio.status_callback_url();';
        else
            finding := 'it has no signature of a phone, or no time';
            remedy := 'Nothing, if it is a stranger''s. If a phone sent it, let the proxy hand on X-Signature and X-Timestamp.';
    end case;
end
$$;

comment on function twilio_internal.explain_refused_smsgate(bigint) is
    'Explains why a webhook of a phone was refused (clock, missing or wrong key), and what to do.';
