\set ECHO none
-- What a phone calls, signed now.
create function phone(event text, reference text, extra jsonb default '{}', device text default 'phone-1', key text default 'key-1', event_id text default null)
returns table (http_status int, reason text, message_id bigint, is_new boolean)
language sql
as $$
    select c.http_status, c.reason, c.message_id, c.is_new
    from (
        select convert_to(jsonb_build_object(
            'id', coalesce(event_id, gen_random_uuid()::text), 'webhookId', 'w', 'event', event, 'deviceId', device,
            'payload', jsonb_strip_nulls(jsonb_build_object('messageId', reference)) || extra
        )::text, 'UTF8') as body, extract(epoch from twilio.now())::bigint::text as stamp
    ) b
    cross join lateral twilio.smsgate_callback(b.body, hmac(key, b.body || convert_to(b.stamp, 'UTF8')), b.stamp) c
$$;
\set ECHO all
