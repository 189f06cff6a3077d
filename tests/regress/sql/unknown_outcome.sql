-- Messages of unknown outcome: shown with what is known of them, settled by a whole list, decided by hand.
set client_min_messages = warning;
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100') \gset
select twilio.add_smsgate('phone', 'password', from_address => '+12025550160') \gset
\set ECHO none
create function lost(recipient text, sender text default null, policy text default null) returns bigint language plpgsql as $$
declare
    id constant bigint := twilio.send_message(recipient, 'hello', sender, delivery => policy);
begin
    perform twilio_internal.finish(array[c.message_id], array[c.lease_token], array['unknown'], array[null], array['unknown'],
        array[null::int], array[null::int], array['timeout'], array[null], array[0]) from twilio_internal.claim(10) c;
    return id;
end
$$;
create function look_up(outcome text, reason text default null, response text default null) returns int language sql
return (
    select sum(twilio_internal.finish(array[c.message_id], array[c.lease_token], array[outcome], array[null], array[null],
        array[null::int], array[null::int], array[reason], array[response], array[null::bigint]))
    from twilio_internal.claim(10) c
);
\set ECHO all
create view shown as
select message_id, state, to_address, request, attempted_at is not null as was_tried, reason, look_ups,
    looked_up_at is not null as was_looked_up, next_look_up_at is not null as is_looked_up_again, candidates, problem
from twilio.unknown_message order by message_id;
create view ended as
select m.message_id, m.status, m.error_message, (select string_agg(a.outcome, ' ' order by a.attempt_id) from twilio_internal.attempt a where a.message_id = m.message_id) as attempts,
    (select count(*) from twilio_internal.outbox o where o.message_id = m.message_id) as in_outbox
from twilio.message m order by 1;

-- While it is looked up nothing is wrong; afterwards the doctor counts it.
select lost('+12025550101') as m \gset
\x
table shown;
select verdict, detail ~ '^it is not known whether 1 messages .* 1 of them are still looked up$' as detail, remedy from twilio.doctor() where "check" = 'unknown outcomes';
select look_up('open', '2 messages at Twilio may be this one', '{"candidates": ["SM0000000000000000000000000000000a", "SM0000000000000000000000000000000b"]}');
table shown;
select verdict, detail ~ '^it is not known whether 1 messages .* 0 of them are still looked up$' as detail, remedy from twilio.doctor() where "check" = 'unknown outcomes';
\x

-- What cannot be decided.
select twilio.resolve_unknown(:m, 'perhaps');
select twilio.resolve_unknown(:m, null);
select twilio.resolve_unknown(:m, 'sent');
select twilio.resolve_unknown(:m, 'sent', 'SM1');
select twilio.resolve_unknown(:m, 'not_sent', 'SM0000000000000000000000000000000a');
select twilio.resolve_unknown(99, 'not_sent');
select twilio.resolve_unknown(null, 'not_sent');

-- It was sent: it gets its SID, and what Twilio has said about that already.
\i shared/post.sql
select http_status from post('/twilio/status', 'MessageSid=SM0000000000000000000000000000000a&From=%2B12025550100&To=%2B12025550101&MessageStatus=delivered');
select twilio.resolve_unknown(:m, 'sent', 'SM0000000000000000000000000000000a') \gset
select message_id, message_sid, status from twilio.message;
table ended;
select twilio.resolve_unknown(:m, 'not_sent');
-- A SID belongs to one message.
begin;
select lost('+12025550101') as m \gset
select twilio.resolve_unknown(:m, 'sent', 'SM0000000000000000000000000000000a');
rollback;
select lost('+12025550102') as m \gset
select twilio.resolve_unknown(:m, 'sent', 'SM0000000000000000000000000000000a');
-- Nor may it be the SID of an incoming message, of another account or of another recipient: those stay as they are.
select twilio.add_account('AC00000000000000000000000000000002', 'secret') \gset
create function hear(path text, body text) returns int language sql return (
    select c.http_status from twilio.sms_callback(path, convert_to(body, 'UTF8'), twilio.compute_signature('https://hooks.example.com' || path, convert_to(body, 'UTF8'), 'secret')) c
);
select hear('/twilio/sms', 'MessageSid=SM000000000000000000000000000000d1&AccountSid=AC00000000000000000000000000000001&From=%2B12025550102&To=%2B12025550100&Body=hi'),
    hear('/twilio/status', 'MessageSid=SM000000000000000000000000000000d2&AccountSid=AC00000000000000000000000000000002&From=%2B12025550100&To=%2B12025550102&MessageStatus=sent'),
    hear('/twilio/status', 'MessageSid=SM000000000000000000000000000000d3&AccountSid=AC00000000000000000000000000000001&From=%2B12025550100&To=%2B12025550199&MessageStatus=sent');
select twilio.resolve_unknown(:m, 'sent', 'SM000000000000000000000000000000d1');
select twilio.resolve_unknown(:m, 'sent', 'SM000000000000000000000000000000d2');
select twilio.resolve_unknown(:m, 'sent', 'SM000000000000000000000000000000d3');
select message_sid, direction, status from twilio.message where message_sid ~ 'd.$' order by 1;
delete from twilio.message where message_sid ~ 'd.$';
-- It was not: it may be sent again.
begin;
select count(*) from twilio_internal.claim(10);
select twilio.resolve_unknown(:m, 'not_sent');
rollback;
select twilio.resolve_unknown(:m, 'not_sent') \gset
select twilio.retry_message(:m) > :m as is_later;
select count(*) from twilio_internal.claim(10);
-- It stays unknown: it is given up.
select lost('+12025550103') as m \gset
select twilio.resolve_unknown(:m, 'give_up') \gset
-- A fallback replaces a message that was not sent, but not one that may have been sent.
begin;
select twilio.add_fallback_rule('late', from_channel => 'sms', from_provider => 'twilio', to_provider => 'smsgate', statuses => '{expired}') is not null as ok;
select lost('+12025550107') as given_up, lost('+12025550108') as unsent \gset
select twilio.resolve_unknown(:given_up, 'give_up'), twilio.resolve_unknown(:unsent, 'not_sent') \gset
select root_id = :unsent as is_for_unsent, provider from twilio.message where root_id in (:given_up, :unsent) and step > 0;
select rule, outcome, explanation from twilio.explain_fallback(:given_up);
rollback;
-- A whole list decides by itself: at_least_once sends again, at_most_once does not.
select lost('+12025550104') is not null as a, lost('+12025550105', policy => 'at_least_once') is not null as b;
select look_up('absent');
table ended;
select message_id, kind from twilio.failed_message order by 1;
-- A message by phone has no SID.
select twilio.send_message('+12025550106', 'hello', '+12025550160') as m \gset
update twilio_internal.outbox set state = 'dead', due_at = 'infinity' where message_id = :m;
select twilio.resolve_unknown(:m, 'sent', 'SM0000000000000000000000000000000c');
select twilio.resolve_unknown(:m, 'give_up') \gset
table shown;
select verdict, detail from twilio.doctor() where "check" = 'unknown outcomes';
drop extension twilio_callback cascade;
