-- Views of messages, their events and refused requests.

create view twilio.message_status
with (security_invoker = true)
as
select
    m.message_id,
    m.message_sid,
    m.account_sid,
    m.provider,
    m.direction,
    m.channel,
    m.from_address,
    m.to_address,
    m.status,
    m.error_code,
    twilio_internal.error_text(m.error_code) as error_text,
    m.error_message,
    m.body,
    m.media_urls,
    m.is_corrected,
    m.root_id,
    m.step,
    (
        select f.message_id
        from twilio.message f
        where f.root_id = m.root_id and f.step = m.step + 1
        order by f.try desc
        limit 1
    ) as fallback_message_id,
    m.created_at,
    m.sent_at,
    m.delivered_at,
    m.read_at,
    m.failed_at
from twilio.message m;

comment on view twilio.message_status is 'Status of each message: one row per message.';

create view twilio.message_timeline
with (security_invoker = true)
as
select
    e.event_id,
    e.received_at,
    e.message_id,
    m.root_id,
    m.message_sid,
    m.provider,
    m.channel,
    e.status,
    e.error_code,
    twilio_internal.error_text(e.error_code) as error_text,
    twilio_internal.provider_error_text(e.params) as error_message,
    m.from_address,
    m.to_address,
    e.source,
    e.is_advance,
    (
        select f.message_id
        from twilio.message f
        where f.root_id = m.root_id and f.step = m.step + 1
        order by f.try desc
        limit 1
    ) as fallback_message_id,
    e.key_id,
    e.params
from twilio.message_event e
join twilio.message m on m.message_id = e.message_id;

comment on view twilio.message_timeline is 'All events of each message: one row per event.';

create view twilio.rejected
with (security_invoker = true)
as
select
    r.rejected_id,
    r.received_at,
    r.reason,
    r.is_plausible,
    r.method,
    r.url,
    substring(r.headers from '(?n)^user-agent: *(.*)$') as user_agent,
    substring(r.headers from '(?n)^host: *(.*)$') as host,
    r.source,
    octet_length(r.body) as body_bytes,
    r.kind
from twilio_internal.rejected_callback r;

comment on view twilio.rejected is 'Refused requests in the quarantine, without their bodies: one row per request.';
