-- Values that are too large are refused before memory is allocated for them, and JSON that cannot be sent is named.
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100') \gset
create function bytes(n int) returns bytea language sql return convert_to(repeat('a', n), 'UTF8');

-- One setting, which a role that is not trusted cannot change.
show twilio_callback.max_request_size;
create role regress_limited;
select twilio.grant_front('regress_limited') \gset
set role regress_limited;
set twilio_callback.max_request_size = '64MB';
reset role;
set twilio_callback.max_request_size = '63kB';
set twilio_callback.max_request_size = '64kB';

-- As much as is allowed is taken, a byte more is not.
select http_status, reason from twilio.sms_callback('/x', bytes(65536), 'no');
select * from twilio.sms_callback('/x', bytes(65537), 'no');
\set VERBOSITY sqlstate
select * from twilio.sms_callback(repeat('a', 65537), '', 'no');
select * from twilio.sms_callback('/x', '', repeat('a', 65537));
select * from twilio.sms_callback('/x', '', 'no', repeat('a', 65537));
select * from twilio.sms_callback('/x', '', 'no', method => repeat('a', 65537));
select * from twilio.sms_callback('/x', '', 'no', signature_settings => repeat('a', 65537));
select * from twilio.sms_callback('/x', '', 'no', source => repeat('a', 65537));
select * from twilio.smsgate_callback(bytes(65537), 'no', '1');
select * from twilio.smsgate_callback('', repeat('a', 65537), '1');
select * from twilio.smsgate_callback('', 'no', repeat('a', 65537));
select * from twilio.smsgate_callback('', 'no', '1', repeat('a', 65537));
select twilio_api.sms_callback(bytes(65537));
select twilio_api.sms_inbound(bytes(65537));
begin;
select length(set_config('request.headers', jsonb_build_object('a', repeat('a', 65537))::text, true));
select twilio_api.sms_callback('');
rollback;
select * from twilio.parse_form(bytes(65537));
select twilio.compute_signature('https://a.example', bytes(65537), 'x');
select twilio.compute_signature(repeat('a', 65537), '', 'x');
select twilio.compute_signature('https://a.example', '', repeat('a', 65537));
select twilio.verify_signature('https://a.example', bytes(65537), 'x', 'x');
select twilio.verify_signature('https://a.example', '', repeat('a', 65537), 'x');
select twilio_internal.check_twiml(repeat('a', 65537));
select twilio.twiml_message(repeat('a', 65537));
select twilio.twiml_message('a', array_fill('a'::text, array[20000]));
select twilio.send_message('+12025550123', repeat('a', 65537));
select twilio.send_message('+12025550123', 'a', media_urls => array_fill('a'::text, array[20000]));
select twilio.send_message('+12025550123', 'a', metadata => jsonb_build_object('a', repeat('a', 65537)));
select twilio.send_message('+12025550123', 'a', twilio_parameters => jsonb_build_object('A', repeat('a', 65537)));
select twilio.block('+12025550123', repeat('a', 65537));
select twilio.unblock(repeat('+', 65537));
select twilio.status_callback_url(repeat('a', 65537));
select count(*) from twilio.acknowledged(array_fill(1::bigint, array[8192]));
select count(*) from twilio.acknowledged(array_fill(1::bigint, array[8193]));
select count(*) from twilio.answer(array_fill(1::bigint, array[8193]));
select twilio.feed_ack('a', array_fill(1::bigint, array[8193]));
select twilio.feed_release('a', array_fill(1::bigint, array[8193]));
\set VERBOSITY default

-- In a batch each request has its own answer. What is too large is not kept, only that it came.
\set ECHO none
create function batch(urls text[], bodies bytea[])
returns table (http_status int, reason text)
language sql
as $$
    select r.http_status, r.reason
    from twilio.receive(
        array_fill('POST'::text, array[cardinality(urls)]), urls, array_fill(null::text, array[cardinality(urls)]),
        bodies, array_fill('192.0.2.1'::text, array[cardinality(urls)])
    ) r
$$;
\set ECHO all
select * from batch(array['/a', '/b', repeat('c', 65537), null], array[bytes(65536), bytes(65537), '', null]);
select http_status, reason from twilio.smsgate_receive(array['', repeat('a', 65537)], array['', '{}']::bytea[], array['x', 'y']);
select reason, is_plausible, length(url), length(body), headers, source from twilio_internal.rejected_callback order by rejected_id;
-- Arrays of several dimensions are read like others, and so are those that begin elsewhere.
select * from batch(array[['/a', '/b'], [null, '/d']], array[[bytes(1), bytes(65537)], [null, bytes(2)]]);
select * from batch('[-1:0]={/a,/b}'::text[], '[5:6]={a,b}'::bytea[]);
select * from batch('{}', '{}');
-- Too many requests, or too much in all, is refused as a whole.
select count(*) from batch(array_fill('/x'::text, array[4096]), array_fill(''::bytea, array[4096]));
select count(*) from batch(array_fill('/x'::text, array[4097]), array_fill(''::bytea, array[4097]));
select count(*) from twilio.smsgate_receive(array_fill(''::text, array[4097]), array_fill(''::bytea, array[4097]), array_fill(''::text, array[4097]));
select count(*) from batch(array_fill('/x'::text, array[64]), array_fill(bytes(65536), array[64]));
select count(*) from batch(array_fill(repeat('x', 40000), array[64]), array_fill(bytes(40000), array[64]));

-- More parameters than Twilio ever sends are not a form, even if signed.
create function signed(body text) returns table (http_status int, reason text) language sql as $$
    select c.http_status, c.reason
    from twilio.sms_callback('/x', convert_to(body, 'UTF8'), 'AAAAAAAAAAAAAAAAAAAAAAAAAAA=') c
$$;
select * from signed(repeat('a&', 1024));
select * from signed(repeat('a&', 1025));
select http_status, reason from twilio.sms_callback('/x?' || repeat('a&', 1025), '', 'no', method => 'GET');
select count(*) from twilio.parse_form(convert_to(repeat('a&', 1024), 'UTF8'));
select count(*) from twilio.parse_form(convert_to(repeat('a&', 1025), 'UTF8'));
select twilio.compute_signature('https://a.example', convert_to(repeat('a&', 1025), 'UTF8'), 'x');
-- Nor are as many in a batch as the largest that the shim sends could have.
select count(*) from batch(array_fill('/x'::text, array[256]), array_fill(convert_to(repeat('a&', 1024), 'UTF8'), array[256]));
select count(*) from batch(array_fill('/x'::text, array[257]), array_fill(convert_to(repeat('a&', 1024), 'UTF8'), array[257]));
reset twilio_callback.max_request_size;

-- JSON that PostgreSQL takes and Twilio cannot be sent.
select twilio.send_message('+12025550123', 'a', twilio_parameters => '{"A": 1e1000}');
select twilio.send_message('+12025550123', 'a', twilio_parameters => (repeat('{"A":', 200) || '1' || repeat('}', 200))::jsonb);
select twilio.send_message('+12025550123', 'a', twilio_parameters => '{"MaxPrice": 0.05}') > 0 as is_queued;
-- What a user's function is given is not read on the way.
create function depth(event jsonb) returns text language sql return octet_length(event::text) || ' ' || left(event ->> 'n', 5);
select twilio_internal.call_function('public.depth', (repeat('{"n":', 1000) || '1e1000' || repeat('}', 1000))::jsonb, current_user, 'public');

-- A trigger that suppresses a row is named; the request is kept until it can be taken in.
create function suppress() returns trigger language plpgsql as $$ begin return null; end $$;
\i shared/post.sql
create function status(sid int, status text) returns table (http_status int, reason text) language sql as $$
    select p.http_status, p.reason from post('/x', format('MessageSid=SM%s&MessageStatus=%s', lpad(sid::text, 32, '0'), status)) p
$$;
delete from twilio_internal.rejected_callback;
create trigger suppress_message before insert on twilio.message for each row execute function suppress();
select * from status(1, 'sent');
drop trigger suppress_message on twilio.message;
create trigger suppress_event before insert on twilio.message_event for each row execute function suppress();
create trigger see_event after insert on twilio.message_event for each row execute function suppress();
select * from status(2, 'sent');
select reason, is_plausible from twilio_internal.rejected_callback order by rejected_id;
select verified, still_refused from twilio.reverify_rejected();
drop trigger suppress_event on twilio.message_event;
select verified, still_refused from twilio.reverify_rejected();
select message_sid, status from twilio.message where message_sid is not null order by message_sid;

drop trigger see_event on twilio.message_event;
drop function batch, signed, depth, status, suppress, bytes, post;
drop owned by regress_limited;
drop role regress_limited;
drop extension twilio_callback;
