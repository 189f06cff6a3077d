-- Inbound messages in every shape that Twilio documents.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\set ECHO none
create function inbound(sid int, more text, method text default 'POST')
returns table (http_status int, content_type text, response_body text, reason text, is_new boolean)
language sql
as $$
    select c.http_status, c.content_type, c.response_body, c.reason, c.is_new
    from (
        select form, '/twilio/inbound' || case when method = 'GET' then '?' || form else '' end as url,
            case when method = 'GET' then '' else convert_to(form, 'UTF8') end as body
        from (
            select format(
                'ToCountry=US&SmsMessageSid=SM%1$s&SmsSid=SM%1$s&SmsStatus=received&MessageSid=SM%1$s'
                '&AccountSid=AC00000000000000000000000000000001&ApiVersion=2010-04-01&NumSegments=1%2$s',
                lpad(sid::text, 32, '0'), more
            ) as form
        ) f
    ) r
    cross join lateral twilio.sms_callback(
        r.url, r.body,
        twilio.compute_signature('https://hooks.example.com' || r.url, r.body, 'secret', method => method),
        method => method
    ) c
$$;
\set ECHO all
\set phone '''&From=%2B12025550123&To=%2B12025550100'''
\set whatsapp '''&From=whatsapp%3A%2B12025550123&To=whatsapp%3A%2B12025550100&ProfileName=Ren%C3%A9&WaId=12025550123'''

-- A text, by POST and again by GET: one message, the same answer.
select * from inbound(1, :phone || '&Body=Hello+there&NumMedia=0&FromCity=&FromState=DC&FromZip=20001&FromCountry=US&ToCity=WASHINGTON&ToState=DC&ToZip=');
select * from inbound(1, :phone || '&Body=Hello+there&NumMedia=0&FromCity=&FromState=DC&FromZip=20001&FromCountry=US&ToCity=WASHINGTON&ToState=DC&ToZip=', 'GET');
-- Media, without text.
select is_new from inbound(2, :phone || '&Body=&NumMedia=2&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2F0&MediaContentType0=image%2Fjpeg&MediaUrl1=https%3A%2F%2Fapi.twilio.com%2F1&MediaContentType1=video%2Fmp4', 'GET');
-- WhatsApp: a place, a button, a reply, an advertisement, a forwarded document, a flow.
select is_new from inbound(3, :whatsapp || '&Body=&NumMedia=0&MessageType=location&Latitude=38.8977&Longitude=-77.0365&Address=1600+Pennsylvania+Ave&Label=The+White+House');
select is_new from inbound(4, :whatsapp || '&Body=Yes%2C+please&NumMedia=0&MessageType=button&ButtonText=Yes%2C+please&ButtonPayload=yes_1&ButtonType=REPLY&OriginalRepliedMessageSid=SM00000000000000000000000000000009&OriginalRepliedMessageSender=whatsapp%3A%2B12025550100');
select is_new from inbound(5, :whatsapp || '&Body=Hi&NumMedia=0&ReferralBody=Book+now&ReferralHeadline=Table&ReferralSourceId=7&ReferralSourceType=ad&ReferralSourceUrl=https%3A%2F%2Ffb.me%2Fa&ReferralMediaId=8&ReferralMediaContentType=image%2Fjpeg&ReferralMediaUrl=https%3A%2F%2Fa%2Fb&ReferralNumMedia=1&ReferralCtwaClid=x');
select is_new from inbound(6, :whatsapp || '&Body=menu.pdf&NumMedia=1&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2F2&MediaContentType0=application%2Fpdf&MessageType=document&Forwarded=true&FrequentlyForwarded=false');
select is_new from inbound(7, :whatsapp || '&Body=&NumMedia=0&MessageType=interactive&InteractiveData=%7B%22a%22%3A1%7D&FlowData=%7B%22b%22%3A2%7D&ChannelMetadata=%7B%22type%22%3A%22whatsapp%22%7D&AddOns=%7B%22status%22%3A%22successful%22%7D&ExternalUserId=US.1');
-- A sender with a name instead of a number, which cannot be answered; an MMS of three files without text.
select is_new from inbound(9, '&From=SUPPORT&To=%2B12025550100&Body=STOP&NumMedia=0');
select is_new from inbound(11, :phone || '&NumMedia=3&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2F3&MediaContentType0=image%2Fjpeg&MediaUrl1=https%3A%2F%2Fapi.twilio.com%2F4&MediaContentType1=text%2Fvcard&MediaUrl2=https%3A%2F%2Fapi.twilio.com%2F5&MediaContentType2=image%2Fheic');
select from_address, body from twilio.inbound_message where from_address = 'SUPPORT';
-- What is not what it says it is stays readable.
select is_new from inbound(8, :phone || '&Body=%F0%9F%98%80%00&NumMedia=many&Latitude=1.2.3&Longitude=');

\x on
select message_id, message_sid, channel, from_address, to_address, body, num_media, num_segments, keyword, is_blocked,
    from_city, from_state, from_zip, from_country, to_city, to_state, to_zip, to_country, api_version
from twilio.inbound_message where message_id = 1;
select media_urls, media_content_types, num_media from twilio.inbound_message where num_media > 0 order by message_id;
select profile_name, wa_id, latitude, longitude, location_address, location_label from twilio.inbound_message where message_type = 'location';
select button_text, button_payload, button_type, original_replied_message_sid, original_replied_message_sender
from twilio.inbound_message where button_text is not null;
select referral_body, referral_headline, referral_source_id, referral_source_type, referral_source_url, referral_media_id,
    referral_media_content_type, referral_media_url, referral_num_media, referral_ctwa_clid
from twilio.inbound_message where referral_body is not null;
select is_forwarded, is_frequently_forwarded from twilio.inbound_message where message_type = 'document';
select interactive_data, flow_data, channel_metadata, add_ons, external_user_id from twilio.inbound_message where message_type = 'interactive';
select body, num_media, latitude, longitude from twilio.inbound_message where body like U&'\+01F600%';
\x off

-- The call of the fallback URL is about the same message, which has not failed.
select * from inbound(1, :phone || '&Body=Hello+there&NumMedia=0&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fhooks.example.com%2Fold');
select * from inbound(10, :phone || '&Body=first+heard+of+here&NumMedia=0&ErrorCode=11205&ErrorUrl=https%3A%2F%2Fhooks.example.com%2Fold');
select m.status, m.error_code, i.handler_error_code, i.handler_error_url, i.body
from twilio.message m
join twilio.inbound_message i on i.message_id = m.message_id
where i.handler_error_url is not null
order by m.message_id;
select count(*) as messages from twilio.inbound_message;

drop function inbound;
drop extension twilio_callback;
