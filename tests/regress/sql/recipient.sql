-- The recipient of a message stays the one that was asked for, whatever address a callback carries.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.enable_whatsapp_to_sms() \gset

\i shared/post.sql
\i shared/sent.sql
\set ECHO none
create function callback(sid int, status text, code int, recipient text, sender text, attempt uuid default null)
returns text
language sql
begin atomic
    select p.reason
    from post('/twilio/status' || coalesce('?attempt=' || attempt, ''), format('MessageSid=SM%s%s%s&MessageStatus=%s%s', lpad(sid::text, 32, '0'),
        '&From=' || replace(sender, '+', '%2B'), '&To=' || replace(recipient, '+', '%2B'), status, '&ErrorCode=' || code)) p;
end;
\set ECHO all

-- WhatsApp spells a Mexican number with a 1 that no SMS number has: the fallback goes to the number that was asked for.
select sent(1, 'whatsapp:+525587654399') as m1 \gset
select callback(1, 'sent', null, 'whatsapp:+5215587654399', 'whatsapp:+12025550100');
select callback(1, 'undelivered', 63016, 'whatsapp:+5215587654399', 'whatsapp:+12025550100');
select step, channel, from_address, to_address, status from twilio.message where root_id = :m1 order by step;
select m.recipient from twilio.message_event e cross join lateral (select e.params ->> 'To' as recipient) m
where e.message_id = :m1 and e.status = 'undelivered';

-- This also holds if the caller used WhatsApp's spelling: Mexico without the 1, Brazil with the ninth digit. Argentine
-- numbers, which have two spellings in use, stay as they are.
select sent(21, 'whatsapp:+5215587654311') as m11, sent(22, 'whatsapp:+553187654312') as m12, sent(23, 'whatsapp:+5491123456713') as m13,
    sent(24, 'whatsapp:+541123456714') as m14, sent(25, 'whatsapp:+12025550115') as m15, sent(26, 'whatsapp:+390612345616') as m16,
    sent(28, 'whatsapp:+88888888888888') as m17 \gset
select callback(n, 'undelivered', 63016, m.to_address, m.from_address)
from generate_series(21, 28) n
join twilio.message m on m.message_sid = 'SM' || lpad(n::text, 32, '0')
order by n;
select m.to_address, f.to_address as fallback
from twilio.message m
left join twilio.message f on f.root_id = m.message_id and f.step = 1
where m.message_id in (:m11, :m12, :m13, :m14, :m15, :m16, :m17)
order by m.message_id;
select twilio_internal.fallback_address(r, 'whatsapp:+5215587654311'), twilio_internal.fallback_address(r, 'messenger:1234567890')
from (select r.* from twilio.fallback_rule r limit 1) r;

-- The sender may change on the way, and with it the channel.
select sent(2, '+12025550102') as m2 \gset
select callback(2, 'sent', null, 'rcs:+12025550102', 'rcs:agent_x');
select channel, from_address, to_address, status from twilio.message where message_id = :m2;

-- Health and consent are those of the recipient that was asked for.
select sent(3, '+12025550103') as m3 \gset
select callback(3, 'failed', 30005, '+12025559999', '+12025550100');
select address, failures, error_code from twilio.number_health order by address collate "C";
select sent(4, '+12025550104') as m4 \gset
select callback(4, 'failed', 21610, '+12025559998', '+12025550100');
select address, from_address, kind from twilio.suppression order by 1;

-- A callback that comes before the answer of Twilio's, with our attempt in its URL or without.
select twilio.send_message('whatsapp:+525587654305', 'x') as m5, twilio.send_message('whatsapp:+525587654306', 'x') as m6 \gset
create temp table claimed as select c.message_id, c.lease_token from twilio_internal.claim(10) c;
select callback(5, 'sent', null, 'whatsapp:+5215587654305', 'whatsapp:+12025550100', (select lease_token from claimed where message_id = :m5));
select callback(6, 'sent', null, 'whatsapp:+5215587654306', 'whatsapp:+12025550100');
select twilio_internal.finish(array_agg(message_id), array_agg(lease_token), array['accepted', 'accepted'],
    array_agg('SM' || lpad(case message_id when :m5 then '5' else '6' end, 32, '0')), array['queued', 'queued'],
    array[201, 201], array[null, null]::int[], array[null, null]::text[], array[null, null]::text[], array[null, null]::bigint[])
from claimed;
select message_id = :m5 as is_bound, to_address, status from twilio.message where message_id in (:m5, :m6) order by message_id;

-- A message of a messaging service has a sender after Twilio has chosen it.
create function service_callback(status text, sender text) returns text language sql
begin atomic
    select p.reason
    from post('/twilio/status', 'MessageSid=SM00000000000000000000000000000080&To=%2B12025550108'
        || '&MessagingServiceSid=MG00000000000000000000000000000001&MessageStatus=' || status || '&From=' || replace(sender, '+', '%2B')) p;
end;
select service_callback('accepted', '');
select from_address, messaging_service_sid, status from twilio.message where message_sid like '%80';
select service_callback('sent', '+12025550109');
select from_address, messaging_service_sid, status from twilio.message where message_sid like '%80';

-- A message of other software has the recipient of its first event that names one.
select callback(7, 'queued', null, null, null);
select callback(7, 'sending', null, 'whatsapp:+525587654307', null);
select callback(7, 'sent', null, 'whatsapp:+5215587654307', 'whatsapp:+12025550100');
select channel, from_address, to_address, status from twilio.message_status where message_sid like '%7';

select count(*) from twilio.replay();

-- A blanked recipient does not come back.
update twilio.message set created_at = created_at - interval '2 days', failed_at = failed_at - interval '2 days';
call twilio.redact('1 day', '+12025550103', effort => 1);
select callback(3, 'undelivered', 30005, '+12025550103', '+12025550100');
select to_address is null as is_blank from twilio.message where message_id = :m3;

drop function sent, callback, service_callback, post;
drop extension twilio_callback cascade;
