-- Every error has a code of its own kind: the message may be reworded, the code is relied upon.
create extension twilio_callback;
\set VERBOSITY sqlstate
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

-- 22023: a value that the parameter cannot have.
select twilio.add_account('AC1', 'secret');
select twilio.add_account(null, 'secret');
select twilio.add_account('AC00000000000000000000000000000002', '');
select twilio.add_account('AC00000000000000000000000000000002', 'secret', 'hooks.example.com');
select twilio.add_account('AC00000000000000000000000000000002', 'secret', api_key_sid => 'SK00000000000000000000000000000001');
select twilio.add_account('AC00000000000000000000000000000002', 'file:../x');
select twilio.add_public_url('https://hooks.example.com?x=1');
select twilio.add_public_url(null);
select twilio.rotate_auth_token('AC00000000000000000000000000000001', '');
select twilio.add_shared_key('AC00000000000000000000000000000001', 'a b', 'secret');
select twilio.compute_signature('https://a.example', '', 'x', algorithm => 'MD5');
select twilio.verify_signature('https://a.example', '', 'x', 'x', algorithm => 'MD5');
select * from twilio.receive(array['POST'], '{}', '{}', '{}', '{}');
select * from twilio.reverify_rejected(0);
select * from twilio.replay(batch_rows => null);
call twilio.purge('-1 s');
call twilio.purge('1 s', batch_rows => 10001);
call twilio.redact(null);
call twilio.redact('1 s', effort => 0);

-- 55000: nothing wrong with the call, but something is not set up.
select twilio.add_account('AC00000000000000000000000000000002', 'file:x');
set twilio_callback.secret_directory = '/nowhere';
select twilio.add_account('AC00000000000000000000000000000002', 'file:x');
reset twilio_callback.secret_directory;

-- P0002: it does not exist.
select twilio.rotate_auth_token('AC00000000000000000000000000000009', 'secret');
select twilio.add_shared_key('AC00000000000000000000000000000009', 'id', 'secret');
select twilio.retire_signing_key('AC00000000000000000000000000000001', 'id');
select twilio.simulate_callback(99, 'sent');
select * from twilio.explain_rejected(99);
select twilio.fetch_media(99);
select twilio.store_media(99, 0, '', 'image/png');

-- 22004: something that is not there cannot be stored.
select twilio.store_media(1, 0, null, 'image/png');

-- 23514, 23505: constraints hold behind every function's back.
insert into twilio.account (account_sid) values ('AC1');
update twilio.account set api_url = 'ftp://x';
update twilio.account set api_key_sid = 'SK00000000000000000000000000000001';
insert into twilio.public_url (url) values ('https://hooks.example.com/');
insert into twilio.signing_key (account_sid, key_id, algorithm, secret) values ('AC00000000000000000000000000000001', 'x', 'MD5', 'x');
insert into twilio.signing_key (account_sid, key_id, algorithm, secret) values ('AC00000000000000000000000000000009', 'x', 'HMAC_SHA1', 'x');
update twilio.signing_key set not_after = '-infinity';
insert into twilio.message (status, root_id) values ('sent', 1), ('sent', 1);

-- 22023 and 2D000: no status; purge commits, so it cannot be part of something else.
select c.http_status from twilio.sms_callback(
    '/x', 'MessageSid=SM00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001&MessageStatus=sent',
    twilio.compute_signature('https://hooks.example.com/x', 'MessageSid=SM00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001&MessageStatus=sent', 'secret')
) c;
select twilio.simulate_callback(message_id, '') from twilio.message;
begin;
set local twilio_callback.clock_offset = '2 d';
call twilio.purge('1 d');
rollback;

drop extension twilio_callback;
