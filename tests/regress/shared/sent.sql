\set ECHO none
-- A message of ours that Twilio took under this SID.
create function sent(sid int, to_address text, body text default 'Your table is ready', media_urls text[] default null)
returns bigint
language plpgsql
as $$
declare
    id constant bigint := twilio.send_message(to_address, body, media_urls => media_urls);
    token uuid;
begin
    select c.lease_token into token from twilio_internal.claim(1000) c where c.message_id = id;
    perform twilio_internal.finish(array[id], array[token], array['accepted'], array['SM' || lpad(sid::text, 32, '0')], array['queued'],
        array[201], array[null::int], array[null::text], array[null::text], array[null::bigint]);
    return id;
end
$$;
\set ECHO all
