-- A repeat adds what it reports beyond the event that it repeats, and is a repeat all the same.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/callback.sql
create function params(sid int, status text)
returns jsonb
language sql
begin atomic
    select e.params - '{MessageSid,AccountSid,From,To,MessageStatus,ErrorCode}'::text[]
    from twilio.message m
    join twilio.message_event e on e.message_id = m.message_id
    where m.message_sid = 'SM' || lpad(params.sid::text, 32, '0') and e.status = params.status;
end;

-- The time of the network's report comes with a second callback.
select c.* from response(1, 'delivered') c;
select c.* from response(1, 'delivered', null, '&RawDlrDoneDate=2411301439') c;
select params(1, 'delivered');
-- The first value of a name stays, one that is empty counts as none, an array is one value.
select c.* from response(1, 'delivered', null, '&RawDlrDoneDate=2412010000&Empty=&Tag=a&Tag=b') c;
select c.* from response(1, 'delivered', null, '&Empty=now&Tag=c&Last=z') c;
select params(1, 'delivered');

-- An exact repeat, and one that says less, write nothing.
create function written(sid int) returns table (message tid, event tid) language sql
begin atomic
    select m.ctid, e.ctid from twilio.message m join twilio.message_event e on e.message_id = m.message_id
    where m.message_sid = 'SM' || lpad(written.sid::text, 32, '0');
end;
create temp table before as select * from written(1);
select c.* from response(1, 'delivered', null, '&RawDlrDoneDate=2411301439&Empty=now&Tag=a&Tag=b&Last=z') c;
select c.* from response(1, 'delivered', null, '&Other=') c;
select c.* from response(1, 'delivered') c;
select v = b as is_untouched from written(1) v, before b;

-- A wording that comes later explains the failure, and nothing else follows from the repeat.
select c.* from response(2, 'undelivered', 63016) c;
select c.* from response(2, 'undelivered', 63016, '&ChannelStatusMessage=Outside+the+window') c;
select c.* from response(3, 'failed') c;
select c.* from response(3, 'failed', null, '&ErrorMessage=&ChannelStatusMessage=') c;
select c.* from response(3, 'failed', null, '&ErrorMessage=Unreachable') c;
select message_sid, status, error_code, error_message from twilio.message_status where message_sid ~ '[23]$' order by 1;
select count(*) from twilio.message_event;

-- In whichever order they come, they amount to the same; a number of parameters beyond 32 is found as well.
do $$
declare
    sid int := 0;
    step record;
begin
    for sid in 101..120 loop
        for step in
            select s.more from (
                select string_agg(format('&P%s=%s', n, n), '') from generate_series(1, 50) n
                union all values (''), ('&ErrorMessage=Unreachable'), ('&RawDlrDoneDate=2411301439'), ('&P7=7&Q=1&ErrorMessage=')
            ) s (more)
            cross join generate_series(1, 2)
            order by md5(sid::text || s.more || random()::text)
        loop
            perform response(sid, 'undelivered', 30003, step.more);
        end loop;
    end loop;
end
$$;
select md5(params(sid, 'undelivered')::text) = md5(params(101, 'undelivered')::text) as is_same, count(*) from generate_series(101, 120) sid group by 1;
select count(*) from jsonb_object_keys(params(101, 'undelivered'));
select distinct error_message from twilio.message_status where message_sid like '%1__';

-- So do the repeats of a phone, and both rows of a message that is bound to its SID later.
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset
select twilio.send_message('+12025550123', 'Hi', from_address => 'user/phone-1') as phone \gset
select count(*) from twilio_internal.record_decision(array[:phone, :phone], array['pending', 'failed'], array[null, null]::text[], source => 'smsgate');
select count(*) from twilio_internal.record_decision(array[:phone], array['failed'], array['RESULT_ERROR_NO_SERVICE'], source => 'smsgate');
select status, error_message from twilio.message_status where message_id = :phone;
select twilio.add_sender('+12025550100') is not null as is_added;
select twilio.send_message('+12025550101', 'x', account_sid => 'AC00000000000000000000000000000001') as own \gset
create temp table claimed as select c.message_id, c.lease_token from twilio_internal.claim(10) c;
select c.* from response(4, 'queued', null, '&RawDlrDoneDate=1') c;
select c.* from response(4, 'undelivered', 30003) c;
select reason
from post('/twilio/status?attempt=' || (select lease_token from claimed),
    'MessageSid=SM00000000000000000000000000000004&MessageStatus=undelivered&ErrorCode=30003&ErrorMessage=Gone');
select status, error_code, error_message from twilio.message_status where message_id = :own;

-- A blanked message stays blank.
update twilio.message set created_at = created_at - interval '2 days', failed_at = failed_at - interval '2 days', delivered_at = delivered_at - interval '2 days';
update twilio.message_event set received_at = received_at - interval '2 days';
call twilio.redact('1 day', '+12025550101', effort => 1);
select params(1, 'delivered');
select c.* from response(1, 'delivered', null, '&Body=secret') c;
select params(1, 'delivered'), to_address is null as is_blank from twilio.message where message_sid = 'SM' || lpad('1', 32, '0');

select count(*) from twilio.replay() where attribute <> 'created_at';
drop function callback, response, deliver, post, params, written;
drop extension twilio_callback cascade;
