-- SMSGate: what is sent, what the gateway and the phones say of it, who may say it. No worker runs here.
\set SHOW_CONTEXT never
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;

-- Signatures: the vector of SMSGate's documentation, then what is wrong with others.
select twilio.add_smsgate_key('my-secret-key');
create function at(moment bigint) returns text language sql as $$
    select set_config('twilio_callback.clock_offset', (moment - extract(epoch from clock_timestamp())::bigint)::text || ' s', false);
$$;
select at(1700000000) is not null as shifted;
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'F7B97C201986D06D2CA1994D0C9802A691AA2CE6B44E11181C54B5B2C849E0EA', '1700000000');
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hallo"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
select http_status, reason from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000001');
select http_status, reason from twilio.smsgate_callback('', '', '');
select http_status, reason from twilio.smsgate_callback(null, null, null);
select at(1700000300) is not null as shifted;
select http_status from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
select at(1700000310) is not null as shifted;
select http_status, regexp_replace(reason, '-\d+ seconds', '- seconds') as reason
from twilio.smsgate_callback('{"event":"sms:received","payload":{"message":"Hello"}}', 'f7b97c201986d06d2ca1994d0c9802a691aa2ce6b44e11181c54b5b2c849e0ea', '1700000000');
reset twilio_callback.clock_offset;
select twilio.retire_smsgate_key(null);
select http_status, reason from twilio.smsgate_callback('{}', repeat('0', 64), '1700000000');
select count(*) > 3 as are_kept from twilio.rejected where url = '/smsgate';

-- Gateways.
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1/', device_id => 'phone-1', signing_key => 'key-1');
select twilio.add_smsgate('user', 'password', 'ftp://127.0.0.1');
select twilio.add_smsgate('us:er', 'password');
select twilio.add_smsgate('user', 'password', sim_number => 4);
select twilio.add_smsgate('user', '');
\set VERBOSITY default
select twilio.add_smsgate('user', 'must not show', priority => 500);
select twilio.add_smsgate('user', 'must not show', priority => null);
select twilio.add_smsgate('user', 'must not show', device_id => 'too long to be the id of a phone');
select twilio.add_smsgate('user', 'must not show', with_delivery_report => null);
select twilio.add_smsgate('user', 'must not show', use_tokens => null);
select twilio.add_smsgate('user', null);
\set VERBOSITY terse
select s.address, s.channel, s.is_default, g.base_url, g.device_id from twilio.smsgate g join twilio.sender s using (sender_id);

-- HMAC by hand: this build has none in SQL.
create function hmac(key text, signed bytea) returns text language sql as $$
    select encode(sha256(
        (select string_agg(set_byte('\x00'::bytea, 0, get_byte(k, i) # 92), ''::bytea order by i) from generate_series(0, 63) i)
        || sha256(
            (select string_agg(set_byte('\x00'::bytea, 0, get_byte(k, i) # 54), ''::bytea order by i) from generate_series(0, 63) i)
            || signed
        )
    ), 'hex')
    from (select convert_to(key, 'UTF8') || decode(repeat('00', 64 - length(key)), 'hex') as k) x
$$;

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

-- A message straight to the phone: claimed with our id, pinned, with time to live.
select twilio.send_message('+12025550123', 'Hello', from_address => 'user/phone-1', expires_after => '10 min') as m1 \gset
select count(*) from twilio_internal.claim(10);
create temp table job as select * from twilio_internal.claim_smsgate(10);
select message_id = :m1 as is_it, task, tries, device_id, to_address, body, ttl_s between 590 and 600 as is_ten_minutes, reference <> '' as has_reference from job;
select count(*) from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', 'pending', 'phone-1', http_status => 202) from job;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', 'pending', 'phone-1', http_status => 202) from job;
select status from twilio.message where message_id = :m1;
select outcome, http_status from twilio_internal.attempt where message_id = :m1;
select reference as ref1 from job \gset

-- Each event once, whatever the parts; failed stands above delivered.
select * from phone('sms:sent', :'ref1', '{"partsCount": 2}');
select * from phone('sms:delivered', :'ref1');
select * from phone('sms:delivered', :'ref1');
select status, delivered_at is not null as delivered from twilio.message where message_id = :m1;
select * from phone('sms:failed', :'ref1', '{"reason": "Send result: RESULT_ERROR_GENERIC_FAILURE"}');
select * from phone('sms:sent', :'ref1');
select status, is_corrected from twilio.message where message_id = :m1;
select source, status, is_advance, params ->> 'ErrorMessage' as reason from twilio.message_event where message_id = :m1 order by event_id;

-- Anything correctly signed gets a 2xx; another phone speaks for itself only.
select * from phone('system:ping', null);
select * from phone('sms:teleported', 'x');
select * from phone('sms:sent', 'unknown');
select * from phone('sms:sent', null);
select * from phone('sms:delivered', :'ref1', key => 'key-2');
select twilio.add_smsgate_key('key-2', 'phone-2');
select * from phone('sms:delivered', :'ref1', device => 'phone-2', key => 'key-2');
select * from phone('sms:delivered', :'ref1', device => 'phone-1', key => 'key-2');

-- Nor for a phone whose webhook comes along with its own; and each of many is tried with its key.
create function phones(devices text[], keys text[])
returns table (http_status int, reason text)
language sql
as $$
    select c.http_status, c.reason
    from (
        select
            array_agg(format(E'x-signature: %s\nx-timestamp: %s', hmac(s.key, s.body || convert_to(s.stamp, 'UTF8')), s.stamp) order by s.n) as headers,
            array_agg(s.body order by s.n) as bodies, array_agg(null::text) as sources
        from (
            select u.*, extract(epoch from twilio.now())::bigint::text as stamp,
                convert_to(jsonb_build_object('id', gen_random_uuid(), 'event', 'system:ping', 'deviceId', u.device)::text, 'UTF8') as body
            from unnest(devices, keys) with ordinality u (device, key, n)
        ) s
    ) b
    cross join lateral twilio.smsgate_receive(b.headers, b.bodies, b.sources) c
$$;
select * from phones('{phone-1,phone-2,phone-1}', '{key-2,key-2,key-1}');
select count(twilio.add_smsgate_key('many-' || n, 'many-' || n)) from generate_series(1, 70) n;
select twilio.add_smsgate_key('of-all');
select p.http_status, count(*)
from phones(
    (select array_agg('many-' || n) || '{unknown,many-1}' from generate_series(1, 70) n),
    (select array_agg('many-' || n) || '{of-all,of-all}' from generate_series(1, 70) n)
) p
group by 1;
select twilio.retire_smsgate_key(null);

-- What comes in at a phone is a message, and STOP is STOP on every channel.
select http_status, reason, is_new from phone('sms:received', 'cafe', '{"message": "Hi \u263a", "sender": "+12025550124", "recipient": "+12025550190", "simNumber": 1}', event_id => 'e1');
select http_status, reason, is_new from phone('sms:received', 'cafe', '{"message": "Hi \u263a", "sender": "+12025550124", "recipient": "+12025550190", "simNumber": 1}', event_id => 'e1');
select http_status, reason, is_new from phone('sms:received', 'beef', '{"message": "STOP", "sender": "+12025550124", "recipient": "+12025550190"}', event_id => 'e2');
select provider, direction, status, from_address, to_address, body from twilio.message where direction = 'inbound' order by message_id;
select twilio.send_message('+12025550124', 'x', from_address => 'user/phone-1');
select s.account_sid, s.from_address, s.kind, s.reason from twilio.suppression s where s.address = '+12025550124';
select twilio_internal.suppression_of('AC00000000000000000000000000000001', '+12025550100', 'whatsapp:+12025550124') as at_twilio;
select http_status, reason from phone('sms:received', 'feed', '{"message": "START", "sender": "+12025550124", "recipient": "+12025550190"}');
select twilio_internal.suppression_of('AC00000000000000000000000000000001', '+12025550100', '+12025550124') as at_twilio, twilio_internal.suppression_of(null, 'user/phone-1', '+12025550124') as at_phones;
-- Nobody can be suppressed under these senders; what they say is kept all the same.
select x.sender, p.http_status, p.reason
from unnest(array['', ' ', 'ab:', 'ab:cd:x', 'AB:cd:', null]) with ordinality x (sender, n)
cross join lateral phone('sms:received', null, jsonb_build_object('message', 'STOP', 'sender', x.sender)) p
order by x.n;
select from_address, count(*) from twilio.message where body = 'STOP' and from_address is distinct from '+12025550124' group by 1 order by 1;
select count(*) from twilio.suppression where ended_at is null;
select twilio.send_message('whatsapp:+12025550125', 'x', from_address => 'user/phone-1');
select twilio.send_message('+12025550125', from_address => 'user/phone-1');
select twilio.send_message('+12025550125', 'x', from_address => 'user/phone-1', media_urls => '{https://example.com/1.png}');
select http_status, is_new, reason from twilio.smsgate_receive('{"x-signature: 0\nx-timestamp: 1", ""}', array['{}', '']::bytea[], '{null, null}');

-- Taken back: not processed, unknown, refused, and expired at the gateway.
select twilio.send_message('+12025550125', 'a', from_address => 'user/phone-1', expires_after => '10 min') as m2,
    twilio.send_message('+12025550126', 'b', from_address => 'user/phone-1', expires_after => '10 min') as m3,
    twilio.send_message('+12025550127', 'c', from_address => 'user/phone-1', expires_after => '10 min') as m4 \gset
-- Somebody's trigger that does not take one of them keeps the others from nothing.
begin;
\i shared/refuse.sql
create trigger refuse before insert or update on twilio_internal.smsgate_message for each row when (new.message_id = :m3) execute function refuse();
select c.message_id = :m3 as is_refused, c.task from twilio_internal.claim_smsgate(10) c where c.message_id in (:m2, :m3, :m4);
select due_at > twilio.now() as is_put_off, lease_token is null as is_free from twilio_internal.outbox where message_id = :m3;
rollback;
-- Nor where putting it off is refused as well, and one place is left.
begin;
\i shared/refuse.sql
create trigger refuse before update on twilio_internal.outbox for each row when (new.message_id = :m2) execute function refuse();
select c.message_id = :m3 as is_next, c.task from twilio_internal.claim_smsgate(1) c;
select c.message_id = :m4 as is_next, c.task from twilio_internal.claim_smsgate(1) c;
update twilio_internal.smsgate_message set is_open = true, due_at = twilio.now() - case message_id when :m3 then interval '1 s' else '0' end where message_id in (:m3, :m4);
create trigger refuse before update on twilio_internal.smsgate_message for each row when (new.message_id = :m3) execute function refuse();
select c.message_id = :m4 as is_next, c.task from twilio_internal.claim_smsgate(1) c;
rollback;
truncate job;
insert into job select * from twilio_internal.claim_smsgate(10);
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'unknown', reason => 'read: timed out', retry_after_ms => 5000) from job where message_id = :m2;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'refused', reason => 'invalid phone number', http_status => 400) from job where message_id = :m3;
-- The reason names the remedy unless it is set already.
select status, error_message from twilio.message where message_id = :m3;
select twilio_internal.explain_refused_number(g.sender_id, 'invalid phone number'), twilio_internal.explain_refused_number(g.sender_id, 'no such scope')
from twilio.smsgate g where g.device_id = 'phone-1';
begin;
update twilio.smsgate set skip_phone_validation = true;
select twilio_internal.explain_refused_number(g.sender_id, 'invalid phone number') from twilio.smsgate g where g.device_id = 'phone-1';
rollback;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'not_processed', reason => 'no device', http_status => 400, retry_after_ms => 900000) from job where message_id = :m4;
select body, status from twilio.message where message_id in (:m2, :m3, :m4) order by message_id;
select count(*) from twilio_internal.claim_smsgate(10);
select twilio_internal.next_smsgate() between 1 and 5 as is_soon;
set twilio_callback.clock_offset = '6 s';
create temp table again as select * from twilio_internal.claim_smsgate(10);
select a.message_id = :m2 as is_it, a.task, a.tries, a.reference = j.reference as same_id, a.device_id from again a join job j using (message_id);
-- A 409: the gateway has it already.
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'accepted', http_status => 409) from again;
-- The phone falls silent: asked for, taken back, given up.
set twilio_callback.clock_offset = '40 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select message_id = :m2 as is_it, task from again order by message_id;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'found', 'pending') from again;
set twilio_callback.clock_offset = '610 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m2;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'withdrawn') from again;
set twilio_callback.clock_offset = '680 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m2;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'failed') from again where message_id = :m2;
select status from twilio.message where message_id = :m2;
set twilio_callback.clock_offset = '5 h';
select count(*) from twilio_internal.claim_smsgate(10);
reset twilio_callback.clock_offset;

-- Without a device: a lost answer is looked for before anything is sent again, so that no second phone sends it.
select twilio.add_smsgate('cloud', 'password', 'http://127.0.0.1:4010/3rdparty/v1');
select twilio.send_message('+12025550128', 'd', from_address => 'cloud', expires_after => '1 hour') as m5 \gset
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task, device_id from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, 'send', 'unknown', reason => 'read: timed out', retry_after_ms => 1000) from again where message_id = :m5;
set twilio_callback.clock_offset = '2 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'missing') from again where message_id = :m5;
set twilio_callback.clock_offset = '10 s';
select count(*) from twilio_internal.claim_smsgate(10);
set twilio_callback.clock_offset = '400 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'missing') from again where message_id = :m5;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where message_id = :m5;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'processed', 'phone-9') from again where message_id = :m5;
select m.status, p.device_id from twilio.message m join twilio_internal.smsgate_message p using (message_id) where message_id = :m5;
reset twilio_callback.clock_offset;

-- What may have been sent is not canceled, is counted as unknown, and is no mere expiry in the end.
select twilio.send_message('+12025550129', 'lost', from_address => 'user/phone-1', expires_after => '5 min') as m8,
    twilio.send_message('+12025550129', 'not taken', from_address => 'user/phone-1', expires_after => '5 min') as m9 \gset
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select q.unknown, q.in_flight from twilio.queue_status q;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'no device', retry_after_ms => 1000) from again where message_id = :m9;
-- Its worker dies over the other.
select twilio_internal.rescue_orphaned(true);
select q.unknown, q.in_flight from twilio.queue_status q;
select twilio.cancel_message(:m8);
select twilio.cancel_message(:m9);
select status from twilio.message where message_id in (:m8, :m9) order by message_id;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task, twilio_internal.finish_smsgate(message_id, lease_token, task, 'not_processed', reason => 'no device', retry_after_ms => 1000) from again where message_id = :m8;
select twilio.cancel_message(:m8);
set twilio_callback.clock_offset = '301 s';
select count(*) from twilio_internal.claim_smsgate(10);
select kind, status from twilio.failed_message where message_id = :m8;
-- What the gateway had and the phone did not take in time has expired.
select kind, status from twilio.failed_message where message_id = :m2;
reset twilio_callback.clock_offset;

-- The whole chain: WhatsApp fails, SMS fails, the phone delivers; then the original is delivered after all.
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010');
select twilio.add_sender('whatsapp:+12025550100'), twilio.add_sender('+12025550100');
select twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(from_address => 'user/phone-1');
select twilio.send_message('whatsapp:+12025550130', 'Your table is ready') as m6, twilio.send_message('whatsapp:+12025550131', 'Your table is ready') as m7 \gset
select count(twilio.simulate_callback(id, 'undelivered', 63049)) from unnest(array[:m6::bigint, :m7]) id;
select count(twilio.simulate_callback(m.message_id, 'undelivered', 30003)) from twilio.message m where m.root_id in (:m6, :m7) and m.step = 1;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, body, device_id, task from again where to_address like '+1202555013_' order by 1;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending') from again where to_address like '+1202555013_';
select http_status, reason from phone('sms:delivered', (select reference from again where to_address = '+12025550130'));
select steps, reached_by, status, double_delivered from twilio.message_chain where root_id = :m6;
select count(twilio.simulate_callback(:m6, 'delivered'));
select steps, reached_by, double_delivered from twilio.message_chain where root_id = :m6;
-- What waits for its phone is taken back.
select count(twilio.simulate_callback(:m7, 'delivered'));
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select task from again where to_address = '+12025550131';
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'withdrawn') from again where to_address = '+12025550131';
select m.step, m.status from twilio.message m where m.root_id = :m7 order by 1;

-- Also what may wait there without the gateway having said so: it is asked for, and sent no more meanwhile.
select twilio.send_message('whatsapp:+12025550132', 'Your table is ready') as m10 \gset
select count(twilio.simulate_callback(:m10, 'undelivered', 63049));
select count(twilio.simulate_callback(m.message_id, 'undelivered', 30003)) from twilio.message m where m.root_id = :m10 and m.step = 1;
select count(twilio.send_message(number, 'hello', from_address => 'user/phone-1')) from unnest(array['+12025550133', '+12025550136']) number;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, task, twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'read: timed out', retry_after_ms => 0) from again where to_address ~ '3[236]$' order by 1;
select count(twilio.simulate_callback(:m10, 'delivered')), twilio.block('+12025550133') > 0 as is_blocked, twilio.block('+12025550136') > 0 as is_blocked;
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, task from again order by 1;
select to_address, twilio_internal.finish_smsgate(message_id, lease_token, task, case to_address when '+12025550133' then 'missing' else 'accepted' end, 'pending') from again order by 1;
set twilio_callback.clock_offset = '400 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, task from again where to_address ~ '3[236]$' order by 1;
select to_address, twilio_internal.finish_smsgate(message_id, lease_token, task, case task when 'withdraw' then 'withdrawn' else 'missing' end) from again where to_address ~ '3[236]$' order by 1;
-- Nobody has it: now it ends as what was wanted makes it.
select count(*) from twilio_internal.claim_smsgate(10) where to_address = '+12025550133';
select m.to_address, m.status from twilio.message m where m.to_address ~ '55013[236]$' and m.provider = 'smsgate' order by 1;
reset twilio_callback.clock_offset;

-- What the phone itself has told of is there, though the gateway never said so: it is not sent again, nor has it expired.
select twilio.send_message('+12025550134', 'told in time', from_address => 'user/phone-1', expires_after => '5 min') as m12,
    twilio.send_message('+12025550134', 'told soon', from_address => 'user/phone-1', expires_after => '5 min') as m13,
    twilio.send_message('+12025550134', 'told late', from_address => 'user/phone-1', expires_after => '5 min') as m14 \gset
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select http_status from phone('sms:sent', (select reference from again where message_id = :m12));
select count(twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'read: timed out', retry_after_ms => case body when 'told in time' then 600000 when 'told late' then 240000 else 0 end))
from again where to_address = '+12025550134';
select p.http_status from again a cross join lateral phone(case a.message_id when :m13 then 'sms:delivered' else 'sms:sent' end, a.reference) p where a.message_id in (:m13, :m14);
select count(*) from twilio_internal.claim_smsgate(10) where to_address = '+12025550134';
set twilio_callback.clock_offset = '301 s';
select twilio_internal.expire_due() > 0 as swept;
select m.body, m.status, array(select t.outcome from twilio_internal.attempt t where t.message_id = m.message_id) as outcomes, p.is_open
from twilio.message m join twilio_internal.smsgate_message p using (message_id) where m.to_address = '+12025550134' order by m.message_id;
select count(*) from twilio_internal.outbox o join twilio.message m using (message_id) where m.to_address = '+12025550134';
reset twilio_callback.clock_offset;
-- But nothing is taken for sent because somebody tried out what would follow.
select twilio.send_message('+12025550137', 'not sent yet', from_address => 'user/phone-1') as m15 \gset
select count(twilio.simulate_callback(:m15, 'sent'));
select task from twilio_internal.claim_smsgate(10) where message_id = :m15;
-- What was given up is no longer once its phone tells of it.
update twilio_internal.outbox set state = 'dead', due_at = 'infinity', lease_token = null, lease_until = null where message_id = :m15;
select kind from twilio.failed_message where message_id = :m15;
select http_status from phone('sms:delivered', (select reference::text from twilio_internal.smsgate_message where message_id = :m15));
select twilio_internal.expire_due();
select kind from twilio.failed_message where message_id = :m15;

-- What was refused for want of a key is taken in once there is one, as of when it came.
select http_status, reason from phone('sms:received', null, '{"message": "STOP", "sender": "+12025550199"}', 'phone-9', 'key-9', 'event-9');
select q.kind, q.kept_rows - (select count(*) from twilio_internal.rejected_callback r where r.kind = q.kind) as off_by from twilio.quarantine q order by 1;
set twilio_callback.clock_offset = '2 h';
select verified, still_refused > 0 as others_stay, not_looked_at from twilio.reverify_rejected();
select twilio.add_smsgate_key('key-9', 'phone-9');
select verified from twilio.reverify_rejected(at_most => 1, batch_rows => 1);
select verified from twilio.reverify_rejected();
select status, source, from_address, params ->> 'Body' as body, received_at < twilio.now() - interval '90 min' as is_of_then
from twilio.message_timeline where from_address = '+12025550199';
select kind, created_at < twilio.now() - interval '90 min' as is_of_then from twilio.suppression where address = '+12025550199';
select q.kind, q.kept_rows - (select count(*) from twilio_internal.rejected_callback r where r.kind = q.kind) as off_by from twilio.quarantine q order by 1;
reset twilio_callback.clock_offset;

-- Encrypted: the first try makes what all of them send; once the gateway has it, it is not kept.
select twilio.add_smsgate('sealed', 'password', iterations => 75000);
\set VERBOSITY default
select twilio.add_smsgate('sealed', 'password', passphrase => 'must not show', iterations => 999);
\set VERBOSITY terse
select twilio.add_smsgate('sealed', 'password', passphrase => 'must not show', iterations => 1000001);
select twilio.add_smsgate('sealed', 'password', passphrase => '');
select twilio.add_smsgate('sealed', 'password', passphrase => 'file:nothing');
select twilio.add_smsgate('sealed', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-3', passphrase => 'secret words');
select count(twilio.send_message('+1202555014' || n, 'x', from_address => 'sealed/phone-3', expires_after => '1 hour')) from generate_series(0, 5) n;
-- So few at a time, for each costs a while.
select count(*) from twilio_internal.claim_smsgate(10);
drop table again;
create temp table again as select * from twilio_internal.claim_smsgate(10);
select count(*), bool_and(is_encrypted) as is_encrypted, count(sealed_to) as sealed from again;
select twilio_internal.store_encrypted(message_id, version, '$number', '$text') from again order by message_id;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'unknown', reason => 'read: timed out', retry_after_ms => 1000) from again;
set twilio_callback.clock_offset = '2 s';
truncate again;
insert into again select * from twilio_internal.claim_smsgate(10);
select to_address, body, sealed_to, sealed_body from again order by message_id;
select twilio_internal.finish_smsgate(message_id, lease_token, task, 'accepted', 'pending') from again order by message_id limit 1;
select count(*), count(p.sealed_to), count(p.sealed_body) from twilio_internal.smsgate_message p join again a using (message_id);
-- With another passphrase it is encrypted anew.
select twilio.add_smsgate('sealed', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-3', passphrase => 'other words', iterations => 400000);
select count(*) filter (where sealed_to is not null) from twilio_internal.smsgate_message;
select count(twilio.send_message('+1202555015' || n, 'x', from_address => 'sealed/phone-3', expires_after => '1 hour')) from generate_series(0, 1) n;
select count(*) from twilio_internal.claim_smsgate(10);
-- What is not said again stays: nothing goes in clear unnoticed.
select twilio.add_smsgate('sealed', 'another password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-3');
select s.address, g.password, g.passphrase, g.iterations from twilio.smsgate g join twilio.sender s using (sender_id) where g.username = 'sealed' order by 1;
-- What was encrypted for the passphrase before is not kept.
select twilio_internal.store_encrypted(p.message_id, a.version, '$number', '$text'), twilio_internal.store_encrypted(p.message_id, g.xmin::text, '$number', '$text')
from twilio_internal.smsgate_message p join twilio.smsgate g using (sender_id), (select version from again limit 1) a order by p.message_id desc limit 1;
reset twilio_callback.clock_offset;

-- Encrypting is little at a time; gateways without it do not wait for it, and each gateway that has it gets its turn.
update twilio_internal.outbox set due_at = 'infinity';
select count(twilio.add_smsgate(name, 'password', 'http://127.0.0.1:4010', passphrase => 'secret words', iterations => 1000000)) from unnest('{busy,quiet}'::text[]) name;
select twilio.add_smsgate('clear', 'password', 'http://127.0.0.1:4010');
select count(twilio.send_message('+12025550160', 'x', from_address => 'busy')) from generate_series(1, 60);
select count(twilio.send_message('+12025550161', 'x', from_address => 'quiet')), count(twilio.send_message('+12025550162', 'x', from_address => 'clear')) from generate_series(1, 3);
select count(*) filter (where not is_encrypted) as clear, count(*) filter (where is_encrypted) as sealed from twilio_internal.claim_smsgate(20);
select count(c.*) as taken from generate_series(1, 50) n cross join lateral twilio_internal.claim_smsgate(n * 0 + 20) c;
select count(*) as waiting from twilio_internal.outbox o join twilio.sender s using (sender_id) where s.address = 'quiet' and o.lease_token is null;

-- What a phone says once more after a purge is a repeat: a START from before a STOP ends nothing.
select http_status, reason, is_new from phone('sms:received', null, '{"message": "START", "sender": "+12025550177"}', event_id => 'old-start');
set twilio_callback.clock_offset = '1 d';
call twilio.purge('1 h', include_pending => true, effort => 1);
reset twilio_callback.clock_offset;
select http_status, reason, is_new from phone('sms:received', null, '{"message": "STOP", "sender": "+12025550177"}', event_id => 'new-stop');
select http_status, reason, message_id, is_new from phone('sms:received', null, '{"message": "START", "sender": "+12025550177"}', event_id => 'old-start');
select http_status, reason, is_new from phone('sms:received', null, '{"message": "STOP", "sender": "+12025550177"}', event_id => 'new-stop');
select body from twilio.message where from_address = '+12025550177';
select kind, ended_at is null as holds from twilio.suppression where address = '+12025550177';

drop function phones, phone, hmac, at;
drop extension twilio_callback;
