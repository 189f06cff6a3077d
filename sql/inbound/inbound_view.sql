-- Incoming messages with the parameters of their webhooks.

create view twilio.inbound_message
with (security_invoker = true)
as
select
    m.message_id,
    m.message_sid,
    m.account_sid,
    m.messaging_service_sid,
    m.channel,
    m.from_address,
    m.to_address,
    m.body,
    nullif(i.params ->> 'MessageType', '') as message_type,
    m.media_urls,
    case when m.media_urls is not null then array(
        select i.params ->> ('MediaContentType' || n)
        from generate_series(0, cardinality(m.media_urls) - 1) n
        order by n
    ) end as media_content_types,
    case when i.params ->> 'NumMedia' ~ '^[0-9]{1,4}$' then (i.params ->> 'NumMedia')::int end as num_media,
    case when i.params ->> 'NumSegments' ~ '^[0-9]{1,4}$' then (i.params ->> 'NumSegments')::int end as num_segments,
    m.is_blocked,
    nullif(i.params ->> 'OptOutType', '') as opt_out_type,
    twilio_internal.consent_of(m.account_sid, m.to_address, m.body, i.params) as keyword,
    nullif(i.params ->> 'ButtonText', '') as button_text,
    nullif(i.params ->> 'ButtonPayload', '') as button_payload,
    nullif(i.params ->> 'ButtonType', '') as button_type,
    nullif(i.params ->> 'InteractiveData', '') as interactive_data,
    nullif(i.params ->> 'FlowData', '') as flow_data,
    nullif(i.params ->> 'ChannelMetadata', '') as channel_metadata,
    nullif(i.params ->> 'AddOns', '') as add_ons,
    case when i.params ->> 'Latitude' ~ '^-?[0-9]{1,3}([.][0-9]{1,20})?$' then (i.params ->> 'Latitude')::numeric end as latitude,
    case when i.params ->> 'Longitude' ~ '^-?[0-9]{1,3}([.][0-9]{1,20})?$' then (i.params ->> 'Longitude')::numeric end as longitude,
    nullif(i.params ->> 'Address', '') as location_address,
    nullif(i.params ->> 'Label', '') as location_label,
    nullif(i.params ->> 'FromCity', '') as from_city,
    nullif(i.params ->> 'FromState', '') as from_state,
    nullif(i.params ->> 'FromZip', '') as from_zip,
    nullif(i.params ->> 'FromCountry', '') as from_country,
    nullif(i.params ->> 'ToCity', '') as to_city,
    nullif(i.params ->> 'ToState', '') as to_state,
    nullif(i.params ->> 'ToZip', '') as to_zip,
    nullif(i.params ->> 'ToCountry', '') as to_country,
    nullif(i.params ->> 'ProfileName', '') as profile_name,
    nullif(i.params ->> 'WaId', '') as wa_id,
    nullif(i.params ->> 'ExternalUserId', '') as external_user_id,
    lower(i.params ->> 'Forwarded') = 'true' as is_forwarded,
    lower(i.params ->> 'FrequentlyForwarded') = 'true' as is_frequently_forwarded,
    nullif(i.params ->> 'OriginalRepliedMessageSid', '') as original_replied_message_sid,
    nullif(i.params ->> 'OriginalRepliedMessageSender', '') as original_replied_message_sender,
    nullif(i.params ->> 'ReferralBody', '') as referral_body,
    nullif(i.params ->> 'ReferralHeadline', '') as referral_headline,
    nullif(i.params ->> 'ReferralSourceId', '') as referral_source_id,
    nullif(i.params ->> 'ReferralSourceType', '') as referral_source_type,
    nullif(i.params ->> 'ReferralSourceUrl', '') as referral_source_url,
    nullif(i.params ->> 'ReferralMediaId', '') as referral_media_id,
    nullif(i.params ->> 'ReferralMediaContentType', '') as referral_media_content_type,
    nullif(i.params ->> 'ReferralMediaUrl', '') as referral_media_url,
    case when i.params ->> 'ReferralNumMedia' ~ '^[0-9]{1,4}$' then (i.params ->> 'ReferralNumMedia')::int end as referral_num_media,
    nullif(i.params ->> 'ReferralCtwaClid', '') as referral_ctwa_clid,
    nullif(i.params ->> 'ApiVersion', '') as api_version,
    h.error_code as handler_error_code,
    h.params ->> 'ErrorUrl' as handler_error_url,
    m.created_at as received_at,
    i.params
from twilio.message m
-- "+ 0" keeps PostgreSQL from reading the whole log in the order of its key until a row matches.
left join lateral (
    select e.params
    from twilio.message_event e
    where e.message_id = m.message_id and e.status = 'received'
    order by e.event_id + 0
    limit 1
) i on true
-- The request to the fallback URL reports the result of the first request.
left join lateral (
    select e.error_code, e.params
    from twilio.message_event e
    where e.message_id = m.message_id and e.params ? 'ErrorUrl'
    order by e.event_id + 0 desc
    limit 1
) h on true
where m.direction = 'inbound';

comment on view twilio.inbound_message is 'Incoming messages with all parameters of Twilio''s webhook: one row per message.';
