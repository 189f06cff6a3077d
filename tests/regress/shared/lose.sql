\set ECHO none
-- The request for the fallback of a message is lost: its outcome is unknown, and then it is sent again.
create function lose(root bigint)
returns int
language sql
return (
    select sum(twilio_internal.finish(array[c.message_id], array[c.lease_token], array[case c.state when 'unknown' then 'absent' else 'unknown' end],
        array[null], array[case c.state when 'waiting' then 'unknown' end], array[null::int],
        array[null::int], array['timeout'], array[null], array[case c.state when 'waiting' then 0 end]))
    from twilio_internal.claim(1000) c
    join twilio.message m on m.message_id = c.message_id
    where m.root_id = root and m.step = 1
);
\set ECHO all
