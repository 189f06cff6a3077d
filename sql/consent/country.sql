-- The country of numbers that are written without it.

create function twilio_internal.country_of(message twilio.message)
returns text
language sql
stable
begin atomic
    select case
        when (message).direction <> 'inbound' then null
        -- The SID of a message from a phone contains the phone's id; a gateway without device_id may have any phone.
        when (message).provider = 'smsgate' then coalesce(
            (
                select s.country
                from twilio.smsgate g
                join twilio.sender s on s.sender_id = g.sender_id
                where g.device_id = split_part((message).message_sid, ':', 2) and s.country is not null
                order by s.sender_id
                limit 1
            ),
            (
                select case when min(s.country) = max(s.country) then min(s.country) end
                from twilio.smsgate g
                join twilio.sender s on s.sender_id = g.sender_id
                where g.device_id is null
            )
        )
        else twilio_internal.country_at((message).account_sid, (message).to_address)
    end;
end;

comment on function twilio_internal.country_of(twilio.message) is
    'Returns the country of a national number that an incoming message is from: that of the phone or sender, or else the account''s; null if unknown.';
