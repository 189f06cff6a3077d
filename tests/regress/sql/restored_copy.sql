-- A copy of a database makes no request until enable_sending() is called in it, whatever else is called.
create database regress_original template template0 encoding 'UTF8' locale 'C.UTF-8';
\c regress_original
create extension twilio_callback;
-- Before anything is set up there is nothing to be on, and a switch that was turned off stays off.
select twilio.is_sending(), twilio.is_copy();
select twilio.disable_sending() \gset
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.is_sending(), twilio.is_copy();
select twilio.enable_sending() \gset
select twilio.is_sending(), twilio.is_copy();
select twilio.add_sender('+12025550100') \gset
select twilio.send_message('+12025550101', 'hello');
\c regression
create database regress_copy template regress_original;
\c regress_copy
create function claimed() returns bigint language sql as $$
    select (select count(*) from twilio_internal.claim(10)) + (select count(*) from twilio_internal.claim_smsgate(10))
        + (select count(*) from twilio_internal.claim_original_fetch(10)) + (select count(*) from twilio_internal.claim_webhook(10))
        + (select count(*) from twilio_internal.claim_media(10, '1 min'))
$$;
-- The row of the switch came along, and does not count.
select is_on from twilio_internal.sending;
select twilio.is_sending(), twilio.is_copy();
select is_sending_on from twilio.queue_status;
select twilio.add_account('AC00000000000000000000000000000002', 'another');
select twilio.add_smsgate('phone', 'password');
select twilio.disable_sending() \gset
select twilio.add_account('AC00000000000000000000000000000003', 'a third');
select twilio.send_message('+12025550102', 'hello');
select claimed();
select detail, remedy from twilio.doctor() where "check" = 'sending';
select twilio.enable_sending() \gset
select twilio.is_sending(), twilio.is_copy();
select claimed();
select count(*) from twilio.dump_mark;
-- What was restored from a dump brings a mark that this database does not know; while it is restored, somebody
-- may call anything.
insert into twilio.dump_mark default values;
select twilio.is_sending(), twilio.is_copy();
delete from twilio_internal.sending;
select twilio.add_account('AC00000000000000000000000000000004', 'a fourth');
select twilio.is_sending(), twilio.is_copy();
select twilio.enable_sending() \gset
select twilio.is_sending(), twilio.is_copy();
-- Logical replication brings the mark and not the switch.
set session_replication_role = replica;
update twilio_internal.sending set is_on = false;
delete from twilio_internal.sending;
insert into twilio.dump_mark default values;
reset session_replication_role;
select is_on, twilio.is_copy() from twilio_internal.sending;
\c regression
drop database regress_copy;
drop database regress_original;
