-- A captured request that is replayed after its message was purged or redacted changes nothing.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
set twilio_callback.clock_offset = '-20 d';
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100') \gset
select twilio.create_consumer('app') \gset

\i shared/post.sql
\set ECHO none
create function inbound(sid int, body text, sender text default '+12025550123', recipient text default '+12025550100', more text default '')
returns table (http_status int, response_body text, reason text, message_id bigint, is_new boolean, wait_ms int)
language sql
as $$
    select *
    from post('/twilio/inbound', format(
        'MessageSid=SM%s&SmsStatus=received&NumMedia=0&From=%s&To=%s&Body=%s%s',
        lpad(sid::text, 32, '0'), replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'), body, more
    ))
$$;
create function failure(sid int, code int, sender text, recipient text)
returns table (http_status int, response_body text, reason text, message_id bigint, is_new boolean, wait_ms int)
language sql
as $$
    select *
    from post('/twilio/status', format(
        'MessageSid=SM%s&MessageStatus=failed&ErrorCode=%s&From=%s&To=%s',
        lpad(sid::text, 32, '0'), code, replace(sender, '+', '%2B'), replace(recipient, '+', '%2B')
    ))
$$;
\set ECHO all
create view entry as
select address, from_address, kind, ended_at is null as holds, ended_reason from twilio.suppression order by suppression_id;
create function heard() returns table (kind text, body jsonb) language plpgsql as $$
begin
    perform twilio.feed_tick(is_forced => true);
    return query select e.kind, e.event -> 'body' from twilio.feed_read('app') e order by e.event_id;
end
$$;
select twilio.add_reply_rule('We are closed.');
select twilio.require_acknowledgement('+12025550100', wait_ms => 5000) \gset

-- All that changes a consent in the long run: keywords, Twilio's own word, on WhatsApp too, a failure.
set twilio_callback.clock_offset = '-10 d';
select http_status, is_new from inbound(1, 'START');
select http_status, is_new from inbound(2, 'hola', '+12025550124', more => '&OptOutType=START');
select http_status, is_new from inbound(3, 'YES', 'whatsapp:+12025550125', 'whatsapp:+12025550100');
select http_status, is_new from inbound(4, 'STOP', '+12025550126');
select http_status, is_new from failure(5, 21610, '+12025550100', '+12025550127');
select http_status, is_new from inbound(6, 'Hello', more => '&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2Fcat&MediaContentType0=image%2Fpng');
select http_status, is_new from failure(7, 30008, '+12025550100', '+12025550128');
select * from heard();
-- The call of the fallback URL says the same again.
select http_status, is_new from inbound(1, 'START', more => '&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fhooks.example.com%2F');
set twilio_callback.clock_offset = '-9 d';
call twilio.purge('12 h', include_pending => true, effort => 1);
select count(*) from twilio.message;
select count(*) from twilio_internal.purged_message;
reset twilio_callback.clock_offset;

-- Since then each has said the contrary.
select http_status, is_new from inbound(11, 'STOP');
select http_status, is_new from inbound(12, 'STOP', '+12025550124');
select http_status, is_new from inbound(13, 'STOP', 'whatsapp:+12025550125', 'whatsapp:+12025550100');
select http_status, is_new from inbound(14, 'START', '+12025550126');
select twilio.unblock('+12025550127', 'agreed on the phone', including_opt_out => true);
select * from entry;
select count(*) from heard();

select * from inbound(1, 'START');
select * from inbound(1, 'START', more => '&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fhooks.example.com%2F');
select * from inbound(2, 'hola', '+12025550124', more => '&OptOutType=START');
select * from inbound(3, 'YES', 'whatsapp:+12025550125', 'whatsapp:+12025550100');
select * from inbound(4, 'STOP', '+12025550126');
select * from failure(5, 21610, '+12025550100', '+12025550127');
select * from inbound(6, 'Hello', more => '&MediaUrl0=https%3A%2F%2Fapi.twilio.com%2Fcat&MediaContentType0=image%2Fpng');
-- The same in a batch, as the shim hands it over.
select c.http_status, c.response_body, c.reason, c.is_new, c.wait_ms > 0 as waits
from (
    select array_agg(r.body order by r.n) as bodies, array_agg(
        'x-twilio-signature: ' || twilio.compute_signature('https://hooks.example.com/twilio/inbound', r.body, 'secret')
            || E'\ncontent-type: application/x-www-form-urlencoded'
        order by r.n
    ) as headers
    from (
        select b.n, convert_to(format(
            'AccountSid=AC00000000000000000000000000000001&MessageSid=SM%s&SmsStatus=received&NumMedia=0&From=%%2B12025550123&To=%%2B12025550100&Body=%s',
            lpad(b.sid::text, 32, '0'), b.body
        ), 'UTF8') as body
        from (values (1, 'START', 1), (21, 'new', 2), (1, 'START', 3)) b (sid, body, n)
    ) r
) b
cross join lateral twilio.receive(
    array_fill('POST'::text, '{3}'), array_fill('/twilio/inbound'::text, '{3}'), b.headers, b.bodies, array_fill(null::text, '{3}')
) c;
select * from entry;
select * from heard();
select direction, count(*) from twilio.message group by 1;
select count(*) from twilio_internal.rejected_callback;
select twilio.send_message('+12025550123', 'Hello', from_address => '+12025550100');
-- A failure that says nothing of consent makes a row of its own, which leads to nothing.
select http_status, reason, is_new from failure(7, 30008, '+12025550100', '+12025550128');
select count(*) from twilio_internal.outbox;

-- An earlier status makes the row of a purged message anew. Its failure still changes no consent.
select http_status, is_new from post('/twilio/status', 'MessageSid=SM00000000000000000000000000000005&MessageStatus=sent&From=%2B12025550100&To=%2B12025550127');
select twilio.unblock('+12025550127');
select http_status, is_new from failure(5, 21610, '+12025550100', '+12025550127');
select kind, holds from entry where address = '+12025550127';

-- What a purge removed stays out of the quarantine's ways in, too.
select twilio.retire_signing_key('AC00000000000000000000000000000001', 'auth_token_1') \gset
select http_status, reason from inbound(1, 'START');
select count(*) from twilio_internal.rejected_callback;
update twilio.signing_key set not_after = 'infinity';
select * from twilio.reverify_rejected();
select count(*) from twilio_internal.rejected_callback;
select * from entry where address = '+12025550123';
select kind from heard();

-- After redaction: the message is there without its text, and a repeat is one.
set twilio_callback.clock_offset = '-8 d';
select http_status, is_new from inbound(31, 'START', '+12025550129');
reset twilio_callback.clock_offset;
select http_status, is_new from inbound(32, 'STOP', '+12025550129');
call twilio.redact('1 d', effort => 1);
select http_status, reason, is_new from inbound(31, 'START', '+12025550129');
call twilio.purge('1 d', effort => 1);
select http_status, reason, is_new from inbound(31, 'START', '+12025550129');
select * from entry where address = '+12025550129';

-- A START that is taken in late does not end an opt-out that was said again after it, though nothing else is left of that.
set twilio_callback.clock_offset = '-7 d';
select http_status, is_new from inbound(41, 'STOP', '+12025550130');
set twilio_callback.clock_offset = '-6 d';
select twilio.retire_signing_key('AC00000000000000000000000000000001', 'auth_token_1') \gset
select http_status, is_new from inbound(42, 'START', '+12025550130');
update twilio.signing_key set not_after = 'infinity';
set twilio_callback.clock_offset = '-5 d';
select http_status, is_new from inbound(43, 'STOP', '+12025550130');
reset twilio_callback.clock_offset;
call twilio.purge('1 d', effort => 1);
select * from twilio.reverify_rejected();
select body from twilio.message where from_address = '+12025550130';
select * from entry where address = '+12025550130';

drop function post, inbound, failure, heard;
drop view entry;
drop extension twilio_callback;
