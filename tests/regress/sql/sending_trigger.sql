-- A user's trigger that fails or is slow delays its own message alone. No worker runs here.
create extension twilio_callback;
-- The worker repeats a failed step from a random message on.
select setseed(0) \gset
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100') \gset
set twilio_callback.default_expiry = '1 min';
set twilio_callback.clock_offset = '110 s';

-- If a user's trigger keeps one outcome from being recorded, no other is delayed, and the message is not sent meanwhile.
begin;
create function complain()
returns trigger
language plpgsql
as $$
begin
    raise exception 'about %', new.body;
end
$$;
create function shown(ids bigint[])
returns table (body text, status text, state text, is_leased boolean, lease interval, due interval, crashes int, outcome text)
language sql
begin atomic
    select m.body, m.status, o.state, o.lease_token is not null, o.lease_until - twilio.now(), o.due_at - twilio.now(),
        o.crashes, (select max(coalesce(t.outcome, 'open')) from twilio_internal.attempt t where t.message_id = m.message_id)
    from twilio.message m
    left join twilio_internal.outbox o on o.message_id = m.message_id
    where m.message_id = any (ids)
    order by m.message_id;
end;
select twilio.send_message('+12025550112', 'lost and odd') as odd, twilio.send_message('+12025550112', 'lost') as even \gset
select count(*) from twilio_internal.claim(100) c where c.message_id in (:odd, :even);
create trigger complain before update on twilio.message for each row when (new.body ~ 'odd') execute function complain();
select twilio_internal.rescue_orphaned(true) > 0 as ok;
select body, status, state, is_leased, lease, crashes, outcome from shown(array[:odd, :even]);
select state from twilio_internal.claim(100) c where c.message_id in (:odd, :even);
drop trigger complain on twilio.message;
set twilio_callback.clock_offset = '171 s';
select twilio_internal.rescue_orphaned() > 0 as ok;
select body, status, state, is_leased, crashes, outcome from shown(array[:odd]);
-- The same of what has expired, at the claim and at the sweep.
select twilio.send_message('+12025550113', 'late and odd', expires_after => '10 s') as odd,
    twilio.send_message('+12025550113', 'late', expires_after => '10 s') as even, twilio.send_message('+12025550113', 'in time') as good \gset
create trigger complain before update on twilio.message for each row when (new.body ~ 'odd') execute function complain();
set twilio_callback.clock_offset = '191 s';
select body from twilio_internal.claim(100) c where c.message_id in (:odd, :even, :good);
select body, status, state, is_leased, due, outcome from shown(array[:odd, :even, :good]);
select twilio_internal.expire_due();
select count(*) from twilio_internal.claim(100) c where c.message_id = :odd;
drop trigger complain on twilio.message;
set twilio_callback.clock_offset = '202 s';
select count(*) from twilio_internal.claim(100) c where c.message_id = :odd;
select body, status, state, outcome from shown(array[:odd]);
rollback;

-- The same for a user's trigger on the queue or on the attempts: a refused message is left, and others are sent instead.
begin;
\i shared/refuse.sql
create function shown(ids bigint[])
returns table (body text, status text, state text, is_leased boolean, lease interval, due interval, tries int, crashes int, outcomes text)
language sql
begin atomic
    select m.body, m.status, o.state, o.lease_token is not null, o.lease_until - twilio.now(), o.due_at - twilio.now(), o.tries, o.crashes,
        (select string_agg(coalesce(t.outcome, 'open'), ' ') from twilio_internal.attempt t where t.message_id = m.message_id)
    from twilio.message m
    left join twilio_internal.outbox o on o.message_id = m.message_id
    where m.message_id = any (ids)
    order by m.message_id;
end;
select twilio.add_sender('Slow', rate_per_second => 0.1, burst => 1) is not null as ok;
select twilio.send_message('+12025550114', 'not taken', from_address => 'Slow') as stuck,
    twilio.send_message('+12025550114', 'not tried', from_address => 'Slow') as untried,
    twilio.send_message('+12025550114', 'good', from_address => 'Slow') as good \gset
create trigger refuse before update on twilio_internal.outbox for each row when (new.message_id = :stuck) execute function refuse();
create trigger refuse before insert on twilio_internal.attempt for each row when (new.message_id = :untried) execute function refuse();
select body from twilio_internal.claim(1) c;
select * from shown(array[:stuck, :untried, :good]);
select address, tokens from twilio.sender_status where address = 'Slow';
select count(*) from twilio_internal.claim(1);
drop trigger refuse on twilio_internal.outbox;
drop trigger refuse on twilio_internal.attempt;
set twilio_callback.clock_offset = '140 s';
select body from twilio_internal.claim(10) c where c.message_id in (:stuck, :untried);
set twilio_callback.clock_offset = '155 s';
select body from twilio_internal.claim(10) c where c.message_id in (:stuck, :untried);
-- The worker crashes. A message that cannot be requeued delays no other, and is not sent meanwhile.
create trigger refuse before update on twilio_internal.outbox for each row when (new.message_id = :stuck) execute function refuse();
create trigger refuse before update on twilio_internal.attempt for each row when (new.message_id = :untried) execute function refuse();
select twilio_internal.rescue_orphaned(true) > 0 as ok;
select * from shown(array[:stuck, :untried, :good]);
drop trigger refuse on twilio_internal.outbox;
drop trigger refuse on twilio_internal.attempt;
set twilio_callback.clock_offset = '220 s';
select twilio_internal.rescue_orphaned() > 0 as ok;
select * from shown(array[:stuck, :untried, :good]);
-- At the sweep: a late callback has settled both.
update twilio.message set message_sid = 'SM' || lpad(message_id::text, 32, '0') where message_id in (:stuck, :untried);
create trigger refuse before delete on twilio_internal.outbox for each row when (old.message_id = :stuck) execute function refuse();
select twilio_internal.expire_due() > 0 as ok;
select body, state, outcomes from shown(array[:stuck, :untried]);
rollback;

-- A refused message does not keep the only place in a batch.
begin;
\i shared/refuse.sql
set twilio_callback.clock_offset = '300 s';
select twilio_internal.expire_due() >= 0 as ok;
select twilio.send_message('+12025550115', 'refused', expires_after => '10 s') as refused,
    twilio.send_message('+12025550115', 'good', expires_after => '20 s') as good \gset
set twilio_callback.clock_offset = '321 s';
create trigger refuse before update on twilio.message for each row when (new.message_id = :refused) execute function refuse();
select twilio_internal.expire_due(1);
select message_id = :refused as is_refused, status from twilio.message where message_id in (:refused, :good) order by 1 desc;
rollback;

-- A message that is refused slowly is postponed; those not reached yet stay due. The seed begins with it.
select setseed(0) \gset
begin;
create function refuse()
returns trigger
language plpgsql
as $$
begin
    perform pg_sleep(2.1);
    raise exception 'about a message';
end
$$;
select twilio.add_sender('Other') is not null as ok;
select twilio.send_message('+12025550116', 'refused', from_address => 'Other') as refused,
    twilio.send_message('+12025550116', 'good', from_address => 'Other') as good \gset
create trigger refuse before insert on twilio_internal.attempt for each row when (new.message_id = :refused) execute function refuse();
select count(*) from twilio_internal.claim(10) c where c.message_id in (:refused, :good);
select message_id = :good as is_good, due_at > twilio.now() as is_put_off from twilio_internal.outbox where message_id in (:refused, :good) order by 1;
select message_id = :good as is_good from twilio_internal.claim(10) where message_id in (:refused, :good);
rollback;

drop extension twilio_callback;
