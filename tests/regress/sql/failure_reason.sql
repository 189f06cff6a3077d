-- The reason of a failure is kept, with and without an error code.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/callback.sql
create view outcome as select message_sid, status, error_code, error_message from twilio.message_status;

-- A wording without a code, of a message that is heard of for the first time and of one that is known.
select c.* from response(1, 'undelivered', null, '&ChannelStatusMessage=Recipient+is+not+on+WhatsApp') c;
select c.* from response(2, 'sent') c;
select c.* from response(2, 'failed', null, '&ErrorMessage=&ChannelStatusMessage=Blocked') c;
select c.* from response(3, 'sent') c;
select c.* from response(3, 'undelivered', null, '&ErrorMessage=Unreachable&ChannelStatusMessage=other') c;
select * from outcome order by 1;
select status, error_message from twilio.message_timeline order by event_id;

-- The wording of the code that is shown comes before one without a code, and another code's is not taken.
select c.* from response(4, 'failed', null, '&ErrorMessage=No+code') c;
select c.* from response(4, 'undelivered', 30005) c;
select * from outcome where message_sid like '%4';
select c.* from response(4, 'undelivered', 30006, '&ErrorMessage=Landline') c;
select * from outcome where message_sid like '%4';
select c.* from response(4, 'failed', 30005, '&ErrorMessage=Unknown+handset') c;
select * from outcome where message_sid like '%4';
-- What arrived after all has no error.
select c.* from response(4, 'delivered') c;
select * from outcome where message_sid like '%4';
-- Only a failure explains one.
select c.* from response(5, 'sent', null, '&ChannelStatusMessage=Accepted') c;
select c.* from response(5, 'failed') c;
select c.* from response(5, 'beamed', null, '&ErrorMessage=Lost+in+space') c;
select * from outcome where message_sid like '%5';

-- Every order of these, each repeated, ends in the same state.
create temp table said (n int, status text, code int, more text);
insert into said values (1, 'sent', null, '&ChannelStatusMessage=fine'), (2, 'undelivered', null, '&ChannelStatusMessage=lower'),
    (3, 'failed', null, '&ErrorMessage=upper'), (4, 'undelivered', 30005, ''), (5, 'queued', null, '');
do $$
declare
    sid int := 0;
    step record;
begin
    for sid in 101..140 loop
        for step in
            select s.* from said s cross join generate_series(1, 2)
            order by md5(sid::text || s.n::text || random()::text)
        loop
            perform response(sid, step.status, step.code, step.more);
        end loop;
    end loop;
end
$$;
select status, error_code, error_message, count(*) from outcome where message_sid like '%1__' group by 1, 2, 3;

-- The reason of a phone.
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1', signing_key => 'phone key') \gset
select twilio.send_message('+12025550123', 'Hi', from_address => 'user/phone-1') as phone \gset
select count(*) from twilio_internal.record_decision(array[:phone], array['pending'], array[null::text], source => 'smsgate');
select count(*) from twilio_internal.record_decision(array[:phone], array['failed'], array['Send result: RESULT_ERROR_GENERIC_FAILURE'], source => 'smsgate');
select status, error_code, error_message from twilio.message_status where message_id = :phone;

select count(*) from twilio.replay();
drop view outcome;
drop function callback, response, deliver, post;
drop extension twilio_callback cascade;
