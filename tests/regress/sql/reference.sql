-- References among the tables: checked as by foreign keys, but for the rows of a restore.
set client_min_messages = warning;
create extension twilio_callback;
-- Turning sending off before a restore does not keep rows out.
begin;
select twilio.disable_sending() \gset
set local check_function_bodies = off;
insert into twilio_internal.fallback_watch values (99, now());
select * from twilio_internal.orphans();
rollback;
-- No table that a dump holds has a foreign key: pg_restore fills them in any order.
select c.conrelid::regclass, c.confrelid::regclass
from pg_constraint c
where c.contype = 'f' and c.connamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace)
    and c.conrelid = any (array(select unnest(e.extconfig) from pg_extension e where e.extname = 'twilio_callback'));
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100', account_sid => 'AC00000000000000000000000000000001') \gset
select twilio.add_smsgate('phone', 'password') \gset
select twilio.create_consumer('reader') \gset
select twilio.add_fallback_rule('late', from_channel => 'sms') \gset
select twilio.send_message('+12025550101', 'hello') as message_id \gset

-- Each of these refers to nothing.
\set VERBOSITY sqlstate
insert into twilio.signing_key (account_sid, key_id, algorithm, secret) values ('AC00000000000000000000000000000009', 'x', 'HMAC_SHA1', 'x');
insert into twilio_internal.paused_account (account_sid) values ('AC00000000000000000000000000000009');
insert into twilio.sender (account_sid, address, channel) values ('AC00000000000000000000000000000009', '+12025550109', 'sms');
insert into twilio_internal.reader values ('nobody', 'AC00000000000000000000000000000009');
insert into twilio.smsgate (sender_id, base_url, username, password) values (99, 'https://a.example', 'x', 'x');
insert into twilio_internal.outbox (message_id, sender_id, is_repeatable, due_at, expires_at) values (99, 1, false, now(), now());
update twilio_internal.outbox set sender_id = 99;
insert into twilio_internal.smsgate_message (message_id, sender_id) values (:message_id, 99);
insert into twilio_internal.smsgate_message (message_id, sender_id) select 99, sender_id from twilio.smsgate;
insert into twilio.smsgate_webhook (sender_id, event, url) values (99, 'sms:sent', 'https://a.example');
insert into twilio_internal.feed_delivery (consumer, event_id, due_at) values ('nobody', 1, now());
insert into twilio.feed_dead_letter (consumer, event_id, tries) values ('nobody', 1, 1);
insert into twilio_internal.fallback (message_id, rule_id, not_before, is_preparing, due_at) values (:message_id, 99, now(), false, now());
insert into twilio_internal.fallback (message_id, not_before, is_preparing, due_at) values (99, now(), false, now());
insert into twilio_internal.fallback_watch values (99, now());
insert into twilio.message_media (message_id, place, url) values (99, 0, 'https://a.example');
insert into twilio.reply (message_id, rule_id, twiml) values (99, 1, '');
insert into twilio_internal.acknowledgement values (99, now());
-- And these would leave others behind.
delete from twilio.message;
delete from twilio.sender where provider = 'twilio';
delete from twilio.account;
truncate twilio.account;
update twilio.account set account_sid = 'AC00000000000000000000000000000002';
\set VERBOSITY default
insert into twilio_internal.fallback_watch values (99, now());
delete from twilio.message;
truncate twilio.message;
-- A setting of restores changes nothing in a database that sends.
set check_function_bodies = off;
insert into twilio_internal.fallback_watch values (99, now());
reset check_function_bodies;

-- What is deleted takes along what refers to it, or is forgotten by it.
insert into twilio_internal.fallback (message_id, rule_id, not_before, is_preparing, due_at)
select :message_id, rule_id, now(), false, now() from twilio.fallback_rule where name = 'late';
insert into twilio_internal.fallback_watch values (:message_id, now());
insert into twilio.message_media (message_id, place, url) values (:message_id, 0, 'https://a.example');
insert into twilio.reply (message_id, rule_id, twiml) values (:message_id, 1, '');
insert into twilio_internal.acknowledgement values (:message_id, now());
insert into twilio_internal.smsgate_message (message_id, sender_id) select :message_id, sender_id from twilio.smsgate;
insert into twilio.smsgate_webhook (sender_id, event, url) select sender_id, 'sms:sent', 'https://a.example' from twilio.smsgate;
insert into twilio_internal.feed_delivery (consumer, event_id, due_at) values ('reader', 1, now());
insert into twilio.feed_dead_letter (consumer, event_id, tries) values ('reader', 1, 1);
insert into twilio_internal.paused_account (account_sid) values ('AC00000000000000000000000000000001');
insert into twilio_internal.reader values ('nobody', 'AC00000000000000000000000000000001');
delete from twilio.fallback_rule where name = 'late';
select rule_id from twilio_internal.fallback;
delete from twilio.sender where provider = 'smsgate';
select (select count(*) from twilio.smsgate), (select count(*) from twilio_internal.smsgate_message), (select count(*) from twilio.smsgate_webhook);
delete from twilio_internal.outbox;
delete from twilio.message;
select count(*) from twilio_internal.fallback;
select count(*) from twilio_internal.fallback_watch;
select count(*) from twilio.message_media;
select count(*) from twilio.reply;
select count(*) from twilio_internal.acknowledgement;
delete from twilio.account;
select count(*) from twilio.signing_key;
select count(*) from twilio_internal.paused_account;
select count(*) from twilio.sender;
select count(*) from twilio_internal.reader;
delete from twilio.feed_consumer;
select count(*) from twilio_internal.feed_delivery;
select count(*) from twilio.feed_dead_letter;
select * from twilio_internal.orphans();
drop extension twilio_callback;

-- A restore may fill the tables in any order, and the doctor says what is missing after it.
create extension twilio_callback;
set check_function_bodies = off;
insert into twilio.signing_key (account_sid, key_id, algorithm, secret) values ('AC00000000000000000000000000000001', 'x', 'HMAC_SHA1', 'x');
insert into twilio_internal.fallback_watch values (99, now()), (100, now());
insert into twilio.dump_mark default values;
reset check_function_bodies;
select * from twilio_internal.orphans() order by 1;
select verdict, detail, remedy from twilio.doctor() where "check" = 'references';
-- Everybody else is refused in a copy too.
insert into twilio_internal.fallback_watch values (101, now());
drop extension twilio_callback;
