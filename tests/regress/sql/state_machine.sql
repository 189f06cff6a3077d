-- The state machines: real functions make each transition on a fresh job. docs/state_machine.md quotes the printed tables.
create extension twilio_callback;
create schema machine;
set search_path = machine, public;
set client_min_messages = warning;
-- As in the worker.
set jit = off;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset

-- Statuses. Messages of ours are known by their id, messages of others by their SID.
create table status as
select p.provider, r.rank::smallint as rank, s.status, twilio_internal.status_kind(p.provider, s.status) as kind
from unnest(array['twilio', 'smsgate']) p (provider)
cross join generate_series(1, 1000) r (rank)
cross join lateral (select twilio_internal.status_name(p.provider, r.rank::smallint)) s (status)
where s.status is not null;
\set ECHO none
create function reported(provider text, variadic statuses text[]) returns twilio.message language plpgsql as $$
declare
    m twilio.message;
    step text;
begin
    insert into twilio.message (message_id, root_id, provider, account_sid, from_address, to_address, body, status, expires_at)
    overriding system value
    select n.id, n.id, provider, case provider when 'twilio' then 'AC00000000000000000000000000000001' end,
        case provider when 'twilio' then '+12025550100' else 'user/phone-1' end,
        '+12025550190', 'hello', 'waiting', twilio.now() + interval '4 hours'
    from (select nextval('twilio.message_message_id_seq') as id) n
    returning * into m;
    foreach step in array statuses loop
        perform twilio_internal.record_decision(array[m.message_id], array[step], array[null]::text[]);
    end loop;
    select x.* into m from twilio.message x where x.message_id = m.message_id;
    return m;
end
$$;
create function overheard(variadic statuses text[]) returns twilio.message language plpgsql as $$
declare
    sid constant text := 'SM' || md5(statuses::text);
    m twilio.message;
    step text;
begin
    foreach step in array statuses loop
        perform twilio_internal.record(array[twilio_internal.make_report(step, account_sid => 'AC00000000000000000000000000000001', message_sid => sid)]);
    end loop;
    select x.* into m from twilio.message x where x.message_sid = sid;
    return m;
end
$$;
\set ECHO all
-- Each pair of statuses, in both orders: the higher rank counts, and the order changes nothing.
create table pair as
select p.*, m.status, m.is_corrected, (m.sent_at, m.delivered_at, m.read_at, m.failed_at)::text as times
from (
    select a.provider, w.whose, a.status as first, b.status as second, a.rank as first_rank, b.rank as second_rank,
        a.kind as first_kind, b.kind as second_kind
    from status a
    join status b on b.provider = a.provider and b.rank <> a.rank
    cross join unnest(array['ours', 'of others']) w (whose)
    where a.provider = 'twilio' or w.whose = 'ours'
) p
cross join lateral (
    select r.* from reported(p.provider, p.first, p.second) r where p.whose = 'ours'
    union all
    select r.* from overheard(p.first, p.second) r where p.whose <> 'ours'
) m;
select a.provider, a.whose, count(*) as pairs,
    count(*) filter (where a.status <> case when a.first_rank > a.second_rank then a.first else a.second end) as other_than_higher_rank,
    count(*) filter (where (a.status, a.is_corrected, a.times) is distinct from (b.status, b.is_corrected, b.times)) as by_order,
    count(*) filter (where a.is_corrected <> (array[a.first_kind, a.second_kind] @> '{failure,success}')) as falsely_corrected
from pair a
join pair b on (b.provider, b.whose, b.first, b.second) = (a.provider, a.whose, a.second, a.first)
group by 1, 2 order by 1 desc, 2 desc;
-- The rows agree with the log.
select * from twilio.replay();
-- A repeat, and a status that has no rank, change nothing.
select count(*) as changed
from status s
cross join lateral reported(s.provider, s.status) a
cross join lateral reported(s.provider, s.status, s.status, 'teleported') b
where (a.status, a.sent_at, a.delivered_at, a.read_at, a.failed_at) is distinct from (b.status, b.sent_at, b.delivered_at, b.read_at, b.failed_at);
create table single as
select s.*, m.message_id, m.sent_at, m.delivered_at, m.read_at, m.failed_at
from status s
cross join lateral reported(s.provider, s.status) m;
-- The view of failed messages lists the statuses of this kind.
select s.provider, s.status, s.kind
from single s
where (s.kind = 'failure') <> exists (select from twilio.failed_message f where f.message_id = s.message_id);

-- Rules, told apart by the number of the recipient.
select twilio.add_fallback_rule('any', from_channel => 'sms', recipient_prefix => '+1202555019', statuses => '{failed,undelivered,refused,expired}', to_channel => 'whatsapp'),
    twilio.add_fallback_rule('unsent', from_channel => 'sms', recipient_prefix => '+1202555010', no_success_within => '10 min', to_channel => 'whatsapp'),
    twilio.add_fallback_rule('plain', from_channel => 'whatsapp', recipient_prefix => '+1202555011'),
    twilio.add_fallback_rule('written', from_channel => 'whatsapp', recipient_prefix => '+1202555013'),
    twilio.add_fallback_rule('timed', from_channel => 'whatsapp', recipient_prefix => '+1202555014', no_success_within => '10 min'),
    twilio.add_fallback_rule('phone', from_channel => 'whatsapp', recipient_prefix => '+1202555015', to_provider => 'smsgate') \gset
create function answer() returns text language sql return current_setting('regress.answer', true);
create function write(message jsonb) returns text language plpgsql as $$
begin
    if answer() = 'raise' then raise exception 'no text'; end if;
    return answer();
end
$$;
create function source(message jsonb) returns jsonb language sql return nullif(answer(), '')::jsonb;
select twilio.set_fallback_text('written', 'machine.write') \gset

-- One row a transition: a message of this kind is brought to the state, the given statements run, then the call. $1 is the message.
create table transition (
    n int generated always as identity,
    machine text, kind text, state text, event text, given text, call text, by text, follows text, next text, status text
);
-- Claimed jobs, by lease.
create table taken (n int generated always as identity, message_id bigint, lease_token uuid, task text);
\set ECHO none
create function shift(until interval) returns text language sql
return set_config('twilio_callback.clock_offset', extract(epoch from until)::int::text, true);
create function said(answer text) returns text language sql return set_config('regress.answer', answer, true);
create function follower(id bigint) returns bigint language sql
return (select m.message_id from twilio.message m where m.root_id = id and m.step = 1);
create function report(id bigint, status text, code int default null) returns void language sql
return twilio_internal.record_decision(array[id], array[status], array[null]::text[], array[code], 'callback');
create function take() returns void language sql begin atomic
    insert into taken (message_id, lease_token, task) select c.message_id, c.lease_token, 'send' from twilio_internal.claim(10) c;
    insert into taken (message_id, lease_token, task) select c.message_id, c.lease_token, c.task from twilio_internal.claim_smsgate(10) c;
end;
create function ask() returns void language sql begin atomic
    insert into taken (message_id, lease_token, task) select c.message_id, c.lease_token, 'fetch' from twilio_internal.claim_original_fetch(10) c;
end;
create function token(id bigint) returns uuid language sql
return (select t.lease_token from taken t where t.message_id = id order by t.n desc limit 1);
create function finish(id bigint, outcome text, status text default null, retry_after_ms bigint default null, is_away boolean default false) returns int language sql
return twilio_internal.finish(array[id], array[token(id)], array[outcome], array[case outcome when 'accepted' then 'SM' || md5(id::text) end],
    array[status], '{}', '{}', '{}', '{}', array[retry_after_ms], array[is_away]);
create function finish_smsgate(id bigint, outcome text, state text default null, retry_after_ms bigint default null, is_away boolean default false) returns boolean language sql
return (
    select twilio_internal.finish_smsgate(id, t.lease_token, t.task, outcome, state, null, null, null, retry_after_ms, is_away)
    from taken t where t.lease_token = token(id)
);
create function finish_fetch(id bigint, outcome text, status text default null, body text default 'hello', dated timestamptz default twilio.now(), code int default null) returns boolean language sql
return twilio_internal.finish_original_fetch(follower(id), token(follower(id)), outcome, body, 0, dated, null, 1000, status, code);
\set ECHO all
\i shared/post.sql
-- A callback that carries the attempt names the SID.
\set ECHO none
create function callback(id bigint, status text) returns int language sql
return (
    select p.http_status
    from (select '/twilio/status?attempt=' || max(t.attempt_id::text) as url from twilio_internal.attempt t where t.message_id = id) b
    cross join lateral post(b.url, format('MessageSid=SM%s&From=%%2B12025550100&To=%%2B12025550101&MessageStatus=%s', md5(id::text), status)) p
);
create function webhook(id bigint, status text) returns bigint language sql
return (
    select count(*)
    from twilio_internal.smsgate_message p
    cross join lateral twilio_internal.record_smsgate_events(array['sms:' || status], array['e'], array['phone-1'], array[p.reference::text], array[status], array[null]::text[], array[null]::text[], array[null]::text[], array['{}'])
    where p.message_id = id
);

create function state_of(machine text, id bigint) returns text language sql
return case machine
    when 'outbox' then coalesce((
        select case
            when o.state = 'waiting' and o.lease_token is not null then 'sending'
            when o.state = 'waiting' and o.is_provider_away then 'away'
            when o.state = 'unknown' and o.lease_token is not null then 'looking_up'
            when o.state = 'unknown' and o.due_at = 'infinity' then 'open'
            else o.state
        end
        from twilio_internal.outbox o where o.message_id = id
    ), 'done')
    when 'smsgate' then coalesce((
        select case
            when o.state = 'dead' then 'dead'
            when o.lease_token is not null then (select case t.task when 'send' then 'sending' else 'looking_up' end from taken t where t.lease_token = o.lease_token)
            when twilio_internal.may_have_been_sent(id) then case when p.missing_since is not null then 'missing' else 'unknown' end
            when o.is_provider_away then 'away'
            else o.state
        end
        from twilio_internal.outbox o left join twilio_internal.smsgate_message p on p.message_id = o.message_id
        where o.message_id = id
    ), (
        select case
            when p.lease_token is not null then (select case t.task when 'ask' then 'polling' else 'canceling' end from taken t where t.lease_token = p.lease_token)
            when p.is_withdrawn then 'withdrawn'
            else 'accepted'
        end
        from twilio_internal.smsgate_message p where p.message_id = id and p.is_open
    ), 'done')
    else coalesce((
        select case
            when twilio_internal.status_kind(m.provider, m.status) in ('failure', 'withdrawn') then 'ended'
            when f.is_preparing and f.lease_token is not null then 'fetching'
            when f.is_preparing then f.stage
            when o.state = 'waiting' and o.lease_token is null then 'ready'
            else 'sent'
        end
        from twilio.message m
        join twilio_internal.fallback f on f.message_id = m.message_id
        left join twilio_internal.outbox o on o.message_id = m.message_id
        where m.message_id = follower(id)
    ), (select 'watched' from twilio_internal.fallback_watch w where w.message_id = id), 'none')
end;

-- A message whose job is in this state.
create function bring(machine text, kind text, state text) returns bigint language plpgsql as $$
declare
    id bigint;
begin
    if machine = 'outbox' then
        id := twilio.send_message('+12025550101', 'hello');
        if state <> 'waiting' then
            perform take();
        end if;
        if state = 'away' then
            perform finish(id, 'not_processed', retry_after_ms => 60000, is_away => true);
        elsif state = 'dead' then
            update twilio_internal.outbox o set crashes = 2 where o.message_id = id;
            perform twilio_internal.rescue_orphaned(true);
        elsif state <> all ('{waiting,sending}') then
            perform finish(id, 'unknown', 'unknown', 0);
            if state <> 'unknown' then
                perform take();
            end if;
            if state = 'open' then
                perform finish(id, 'open');
            end if;
        end if;
    elsif machine = 'smsgate' then
        if kind = 'fallback' then
            id := twilio.send_message('whatsapp:+12025550151', 'hello');
            perform take(), report(id, 'undelivered', 63049);
            id := follower(id);
        else
            id := twilio.send_message('+12025550101', 'hello', 'user/phone-1');
        end if;
        if state <> 'waiting' then
            perform take();
        end if;
        if state = 'away' then
            perform finish_smsgate(id, 'not_processed', retry_after_ms => 60000, is_away => true);
        elsif state = 'dead' then
            update twilio_internal.outbox o set crashes = 2 where o.message_id = id;
            perform twilio_internal.rescue_orphaned(true);
        elsif state in ('unknown', 'looking_up', 'missing') then
            perform finish_smsgate(id, 'unknown', retry_after_ms => 0);
            if state <> 'unknown' then
                -- Without a device, the message is looked for first.
                update twilio_internal.smsgate_message p set device_id = null where p.message_id = id;
                if kind = 'replaced' then
                    perform shift('601 s'), twilio_internal.plan_timed_out();
                end if;
                perform take();
            end if;
            if state = 'missing' then
                perform finish_smsgate(id, 'missing');
            end if;
        elsif state in ('accepted', 'polling', 'canceling', 'withdrawn') then
            perform finish_smsgate(id, 'accepted', 'pending');
            if state in ('canceling', 'withdrawn') then
                perform twilio.block('+12025550101');
            end if;
            if state <> 'accepted' then
                perform shift('31 s'), take();
            end if;
            if state = 'withdrawn' then
                perform finish_smsgate(id, 'withdrawn');
            end if;
        end if;
    else
        if kind in ('others', 'source', 'timed source') then
            perform twilio_internal.record(array[twilio_internal.make_report(
                'sent', account_sid => 'AC00000000000000000000000000000001', message_sid => 'SM' || md5(kind), channel => 'whatsapp', from_address => 'whatsapp:+12025550100',
                to_address => case kind when 'timed source' then 'whatsapp:+12025550141' else 'whatsapp:+12025550111' end
            )]);
            select m.message_id into id from twilio.message m where m.message_sid = 'SM' || md5(kind);
            perform set_config('twilio_callback.message_source', case kind when 'others' then '' else 'machine.source' end, true);
        else
            id := twilio.send_message(case kind when 'ours' then 'whatsapp:+12025550111' when 'written' then 'whatsapp:+12025550131' else 'whatsapp:+12025550141' end, 'hello');
            if kind <> 'unsent' then
                perform take();
                perform finish(id, 'accepted', case kind when 'timed' then 'accepted' when 'scheduled' then 'scheduled' else 'queued' end);
            end if;
        end if;
        if state not in ('none', 'watched') and kind like 'timed%' then
            perform shift('601 s'), twilio_internal.plan_timed_out();
        elsif state not in ('none', 'watched') then
            perform report(id, 'undelivered', 63049);
        end if;
        if state = 'twilio' and kind = 'source' then
            perform twilio_internal.run_text();
        elsif state = 'fetching' then
            perform ask();
        elsif state = 'sent' then
            perform take();
        end if;
    end if;
    return id;
end
$$;

-- Makes the transitions, each in a subtransaction of its own that is rolled back.
create procedure make_transitions() language plpgsql as $$
declare
    t transition;
    id bigint;
    step text;
begin
    for t in select x.* from transition x order by x.n loop
        begin
            perform shift('0');
            id := bring(t.machine, t.kind, t.state);
            foreach step in array string_to_array(coalesce(t.given, ''), '; ') loop
                execute step using id;
            end loop;
            if state_of(t.machine, id) <> t.state then
                raise exception '%: "%" begins in state %', t.machine, t.event, state_of(t.machine, id);
            end if;
            begin
                execute t.call using id;
            exception when object_not_in_prerequisite_state then
                t.follows := 'error ' || sqlstate;
            end;
            t.next := state_of(t.machine, id);
            select m.status into t.status from twilio.message m where m.message_id = case t.machine when 'fallback' then follower(id) else id end;
            raise exception sqlstate 'RB000';
        exception when sqlstate 'RB000' then
            null;
        end;
        update transition x set next = t.next, status = t.status, follows = t.follows where x.n = t.n;
    end loop;
end
$$;
\set ECHO all
insert into transition (machine, kind, state, event, given, call, by, follows) values
('outbox', null, 'waiting', 'it is claimed', null, 'select take()', 'claim', 'an attempt begins; the request goes out after the commit'),
('outbox', null, 'waiting', 'it is claimed after its expiry', $$select shift('5 h')$$, 'select take()', 'discard_settled', ''),
('outbox', null, 'waiting', 'it is claimed, its recipient is suppressed', $$select twilio.block('+12025550101')$$, 'select take()', 'discard_settled', ''),
('outbox', null, 'waiting', 'it is claimed, its recipient has quiet hours', 'insert into twilio_internal.message_hours (message_id, not_before, not_after, time_zone) select $1, (twilio.now() at time zone ''UTC'')::time + interval ''1 h'', (twilio.now() at time zone ''UTC'')::time + interval ''2 h'', ''UTC''; update twilio_internal.outbox set has_hours = true where message_id = $1', 'select take()', 'hold_in_quiet_hours', 'it is due when they end'),
('outbox', null, 'waiting', 'it is claimed, its recipient has quiet hours until after its expiry', 'insert into twilio_internal.message_hours (message_id, not_before, not_after, time_zone) select $1, (twilio.now() at time zone ''UTC'')::time + interval ''5 h'', (twilio.now() at time zone ''UTC'')::time + interval ''6 h'', ''UTC''; update twilio_internal.outbox set has_hours = true where message_id = $1', 'select take()', 'hold_in_quiet_hours', 'rules by status may plan a fallback'),
('outbox', null, 'waiting', 'it expires where it cannot be claimed', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('outbox', null, 'waiting', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('outbox', null, 'waiting', 'a timed rule takes over', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'its fallback goes instead'),
('outbox', null, 'waiting', 'a person settles it', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'resolve_unknown', ''),
('outbox', null, 'waiting', 'it is retried', null, 'select twilio.retry_message($1)', 'retry_message', ''),
('outbox', null, 'sending', 'accepted', null, $$select finish($1, 'accepted', 'queued')$$, 'finish', 'Twilio''s SID is bound to the message'),
('outbox', null, 'sending', 'refused', null, $$select finish($1, 'refused', 'refused')$$, 'finish', 'rules by status may plan a fallback'),
('outbox', null, 'sending', 'not_processed', null, $$select finish($1, 'not_processed', retry_after_ms => 5000)$$, 'requeue', 'it is due again after a delay'),
('outbox', null, 'sending', 'not_processed, Twilio was not reached', null, $$select finish($1, 'not_processed', retry_after_ms => 60000, is_away => true)$$, 'mark_unreachable', 'one message of each sender is tried within 15 seconds'),
('outbox', null, 'sending', 'not_processed, the next try is after its expiry', null, $$select finish($1, 'not_processed', retry_after_ms => 18000000)$$, 'requeue', 'rules by status may plan a fallback'),
('outbox', null, 'sending', 'unknown', null, $$select finish($1, 'unknown', 'unknown', 2000)$$, 'requeue', 'it is looked up after 2 seconds'),
('outbox', null, 'sending', 'its lease is over', $$select shift('61 s')$$, 'select twilio_internal.rescue_orphaned()', 'requeue_orphaned', 'the attempt ends as unknown; it is looked up'),
('outbox', null, 'sending', 'a new worker starts', null, 'select twilio_internal.rescue_orphaned(true)', 'requeue_orphaned', 'the attempt ends as unknown; it is looked up'),
('outbox', null, 'sending', 'the worker dies over it for the third time', 'update twilio_internal.outbox set crashes = 2 where message_id = $1', 'select twilio_internal.rescue_orphaned(true)', 'requeue_orphaned', 'a person settles it'),
('outbox', null, 'sending', 'a callback names its SID', null, $$select callback($1, 'sent')$$, 'bind', 'the result of the send ends the job'),
('outbox', null, 'sending', 'a timed rule is due', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'the rule waits for the result'),
('outbox', null, 'sending', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('outbox', null, 'sending', 'a person settles it', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'resolve_unknown', ''),
('outbox', null, 'away', 'it is claimed', $$select shift('15 s')$$, 'select take()', 'claim', 'it shows whether Twilio can be reached again'),
('outbox', null, 'away', 'Twilio answers another message', $$select shift('6 s')$$, 'select twilio_internal.mark_reachable(array(select o.sender_id from twilio_internal.outbox o))', 'mark_reachable', 'it is due at once'),
('outbox', null, 'away', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('outbox', null, 'away', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('outbox', null, 'unknown', 'it is claimed', null, 'select take()', 'claim', 'Twilio''s list of messages is read'),
('outbox', null, 'unknown', 'the lost result arrives', null, $$select finish($1, 'accepted', 'queued')$$, 'bind', 'the SID is bound; the next sweep ends the job'),
('outbox', null, 'unknown', 'a callback names its SID', null, $$select callback($1, 'sent')$$, 'bind', 'the next claim or sweep ends the job'),
('outbox', null, 'unknown', 'the worker sweeps, the SID is known', $$select callback($1, 'sent')$$, 'select twilio_internal.expire_due()', 'discard_settled', 'the attempt counts as accepted'),
('outbox', null, 'unknown', 'the worker sweeps after its expiry', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', 'it may have been sent, so it does not expire'),
('outbox', null, 'unknown', 'a person settles it as sent', null, $$select twilio.resolve_unknown($1, 'sent', 'SM' || md5('sent'))$$, 'resolve_unknown', 'the SID is bound'),
('outbox', null, 'unknown', 'a person settles it as not_sent', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'settle_unsent', 'rules by status may plan a fallback'),
('outbox', null, 'unknown', 'a person settles it with give_up', null, $$select twilio.resolve_unknown($1, 'give_up')$$, 'resolve_unknown', 'rules by status plan no fallback'),
('outbox', null, 'unknown', 'it is retried', null, 'select twilio.retry_message($1)', 'retry_message', 'the next try of its step is queued'),
('outbox', null, 'unknown', 'a timed rule is due', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'a fallback is planned; the message is not sent again'),
('outbox', null, 'unknown', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('outbox', null, 'looking_up', 'accepted', null, $$select finish($1, 'accepted', 'sent')$$, 'finish', 'the list shows it; its SID is bound'),
('outbox', null, 'looking_up', 'again', null, $$select finish($1, 'again', retry_after_ms => 3000)$$, 'requeue', 'it is looked up again after a delay'),
('outbox', null, 'looking_up', 'absent', null, $$select finish($1, 'absent')$$, 'settle_unsent', 'it was not sent; rules by status may plan a fallback'),
('outbox', null, 'looking_up', 'absent, with at_least_once', 'update twilio_internal.outbox set is_repeatable = true where message_id = $1', $$select finish($1, 'absent')$$, 'create_retry', 'the next try of its step is queued'),
('outbox', null, 'looking_up', 'absent, with at_least_once, after its expiry', $$update twilio_internal.outbox set is_repeatable = true where message_id = $1; select shift('5 h')$$, $$select finish($1, 'absent')$$, 'settle_unsent', 'rules by status may plan a fallback'),
('outbox', null, 'looking_up', 'absent, with at_least_once, a fallback goes instead', $$update twilio_internal.outbox set is_repeatable = true where message_id = $1; select shift('601 s'); select twilio_internal.plan_timed_out()$$, $$select finish($1, 'absent')$$, 'settle_unsent', ''),
('outbox', null, 'looking_up', 'absent, a callback has named the SID', $$select callback($1, 'sent')$$, $$select finish($1, 'absent')$$, 'requeue', 'the next sweep ends the job'),
('outbox', null, 'looking_up', 'open', null, $$select finish($1, 'open')$$, 'requeue', 'a person or a callback settles it'),
('outbox', null, 'looking_up', 'its lease is over', $$select shift('61 s')$$, 'select twilio_internal.rescue_orphaned()', 'requeue_orphaned', 'it is looked up again'),
('outbox', null, 'looking_up', 'the worker dies over it for the sixth time', 'update twilio_internal.outbox set crashes = 5 where message_id = $1', 'select twilio_internal.rescue_orphaned(true)', 'requeue_orphaned', 'a person settles it'),
('outbox', null, 'looking_up', 'a person settles it', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'resolve_unknown', ''),
('outbox', null, 'open', 'the worker sweeps, the SID is known', $$select callback($1, 'delivered')$$, 'select twilio_internal.expire_due()', 'discard_settled', 'the attempt counts as accepted'),
('outbox', null, 'open', 'a person settles it as sent', null, $$select twilio.resolve_unknown($1, 'sent', 'SM' || md5('sent'))$$, 'resolve_unknown', 'the SID is bound'),
('outbox', null, 'open', 'a person settles it as not_sent', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'settle_unsent', 'rules by status may plan a fallback'),
('outbox', null, 'open', 'a person settles it with give_up', null, $$select twilio.resolve_unknown($1, 'give_up')$$, 'resolve_unknown', 'rules by status plan no fallback'),
('outbox', null, 'open', 'it is retried', null, 'select twilio.retry_message($1)', 'retry_message', 'the next try of its step is queued'),
('outbox', null, 'dead', 'the worker sweeps, the SID is known', $$select callback($1, 'delivered')$$, 'select twilio_internal.expire_due()', 'discard_settled', 'the attempt counts as accepted'),
('outbox', null, 'dead', 'a person settles it as sent', null, $$select twilio.resolve_unknown($1, 'sent', 'SM' || md5('sent'))$$, 'resolve_unknown', 'the SID is bound'),
('outbox', null, 'dead', 'a person settles it as not_sent', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'settle_unsent', 'rules by status may plan a fallback'),
('outbox', null, 'dead', 'a person settles it with give_up', null, $$select twilio.resolve_unknown($1, 'give_up')$$, 'resolve_unknown', 'rules by status plan no fallback'),
('outbox', null, 'dead', 'it is retried', null, 'select twilio.retry_message($1)', 'retry_message', 'the next try of its step is queued');

insert into transition (machine, kind, state, event, given, call, by, follows) values
('smsgate', null, 'waiting', 'it is claimed', null, 'select take()', 'claim_smsgate', 'task send: an attempt begins; the request goes out after the commit'),
('smsgate', null, 'waiting', 'it is claimed after its expiry', $$select shift('5 h')$$, 'select take()', 'discard_settled', ''),
('smsgate', null, 'waiting', 'it is claimed, its recipient is suppressed', $$select twilio.block('+12025550101')$$, 'select take()', 'discard_settled', ''),
('smsgate', null, 'waiting', 'it is claimed, its recipient has quiet hours', 'insert into twilio_internal.message_hours (message_id, not_before, not_after, time_zone) select $1, (twilio.now() at time zone ''UTC'')::time + interval ''1 h'', (twilio.now() at time zone ''UTC'')::time + interval ''2 h'', ''UTC''; update twilio_internal.outbox set has_hours = true where message_id = $1', 'select take()', 'hold_in_quiet_hours', 'it is due when they end'),
('smsgate', null, 'waiting', 'it is claimed, its recipient has quiet hours until after its expiry', 'insert into twilio_internal.message_hours (message_id, not_before, not_after, time_zone) select $1, (twilio.now() at time zone ''UTC'')::time + interval ''5 h'', (twilio.now() at time zone ''UTC'')::time + interval ''6 h'', ''UTC''; update twilio_internal.outbox set has_hours = true where message_id = $1', 'select take()', 'hold_in_quiet_hours', 'rules by status may plan a fallback'),
('smsgate', null, 'waiting', 'it expires where it cannot be claimed', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('smsgate', null, 'waiting', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('smsgate', null, 'waiting', 'a timed rule takes over', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'its fallback goes instead'),
('smsgate', null, 'sending', 'accepted', null, $$select finish_smsgate($1, 'accepted', 'pending')$$, 'finish_smsgate', 'it is polled after 30 seconds'),
('smsgate', null, 'sending', 'refused', null, $$select finish_smsgate($1, 'refused')$$, 'finish_smsgate', 'rules by status may plan a fallback'),
('smsgate', null, 'sending', 'not_processed', null, $$select finish_smsgate($1, 'not_processed', retry_after_ms => 5000)$$, 'requeue_smsgate', 'it is due again after a delay'),
('smsgate', null, 'sending', 'not_processed, the gateway was not reached', null, $$select finish_smsgate($1, 'not_processed', retry_after_ms => 60000, is_away => true)$$, 'mark_unreachable', 'one message of the gateway is tried within 15 seconds'),
('smsgate', null, 'sending', 'not_processed, the next try is after its expiry', null, $$select finish_smsgate($1, 'not_processed', retry_after_ms => 18000000)$$, 'requeue_smsgate', 'rules by status may plan a fallback'),
('smsgate', null, 'sending', 'unknown', null, $$select finish_smsgate($1, 'unknown', retry_after_ms => 5000)$$, 'requeue_smsgate', 'it is due again after a delay'),
('smsgate', null, 'sending', 'unknown, the next try is after its expiry', null, $$select finish_smsgate($1, 'unknown', retry_after_ms => 18000000)$$, 'requeue_smsgate', 'rules by status may plan a fallback'),
('smsgate', null, 'sending', 'unknown, its phone has reported sent', $$select webhook($1, 'sent')$$, $$select finish_smsgate($1, 'unknown', retry_after_ms => 5000)$$, 'discard_settled', 'it is polled after 30 seconds'),
('smsgate', null, 'sending', 'unknown, its phone has reported delivered', $$select webhook($1, 'delivered')$$, $$select finish_smsgate($1, 'unknown', retry_after_ms => 5000)$$, 'discard_settled', ''),
('smsgate', null, 'sending', 'its phone reports sent', null, $$select webhook($1, 'sent')$$, 'record_smsgate_events', 'the result of the send ends the job'),
('smsgate', null, 'sending', 'its lease is over', $$select shift('61 s')$$, 'select twilio_internal.rescue_orphaned()', 'requeue_orphaned', 'the attempt ends as unknown'),
('smsgate', null, 'sending', 'the worker dies over it for the third time', 'update twilio_internal.outbox set crashes = 2 where message_id = $1', 'select twilio_internal.rescue_orphaned(true)', 'requeue_orphaned', 'a person settles it'),
('smsgate', null, 'sending', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('smsgate', null, 'away', 'it is claimed', $$select shift('15 s')$$, 'select take()', 'claim_smsgate', 'task send: it shows whether the gateway can be reached again'),
('smsgate', null, 'away', 'the gateway answers another message', $$select shift('6 s')$$, 'select twilio_internal.mark_reachable(array(select o.sender_id from twilio_internal.outbox o))', 'mark_reachable', 'it is due at once'),
('smsgate', null, 'away', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('smsgate', null, 'away', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('smsgate', null, 'unknown', 'it is claimed, its device is known', null, 'select take()', 'claim_smsgate', 'task send with the same id: the gateway knows whether it has it'),
('smsgate', null, 'unknown', 'it is claimed, its device is not known', 'update twilio_internal.smsgate_message set device_id = null where message_id = $1', 'select take()', 'claim_smsgate', 'task look: the gateway is asked whether it has it'),
('smsgate', null, 'unknown', 'it is claimed, its recipient is suppressed', $$select twilio.block('+12025550101')$$, 'select take()', 'claim_smsgate', 'task look: it is not sent again'),
('smsgate', null, 'unknown', 'it is claimed, a fallback goes instead', $$select shift('601 s'); select twilio_internal.plan_timed_out()$$, 'select take()', 'claim_smsgate', 'task look: it is not sent again'),
('smsgate', null, 'unknown', 'its phone reports sent', null, $$select webhook($1, 'sent')$$, 'record_smsgate_events', 'the next claim or sweep ends this state'),
('smsgate', null, 'unknown', 'it is claimed, its phone has reported sent', $$select webhook($1, 'sent')$$, 'select take()', 'discard_settled', 'it is polled after 30 seconds'),
('smsgate', null, 'unknown', 'the worker sweeps, its phone has reported delivered', $$select webhook($1, 'delivered'), shift('5 h')$$, 'select twilio_internal.expire_due()', 'discard_settled', 'the attempt counts as accepted'),
('smsgate', null, 'unknown', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', '`failed_message` shows it as unknown'),
('smsgate', null, 'unknown', 'it is canceled', null, 'select twilio.cancel_message($1)', 'cancel_message', ''),
('smsgate', null, 'looking_up', 'accepted', null, $$select finish_smsgate($1, 'accepted', 'processed')$$, 'finish_smsgate', 'the gateway has it; it is polled'),
('smsgate', null, 'looking_up', 'missing', null, $$select finish_smsgate($1, 'missing')$$, 'finish_smsgate', 'the gateway is asked again after 370 seconds'),
('smsgate', null, 'looking_up', 'missing for the second time', $$update twilio_internal.smsgate_message set missing_since = twilio.now() - interval '6 min' where message_id = $1$$, $$select finish_smsgate($1, 'missing')$$, 'finish_smsgate', 'its attempts count as not_processed; it is due at once'),
('smsgate', 'replaced', 'looking_up', 'missing for the second time, a fallback goes instead', $$update twilio_internal.smsgate_message set missing_since = twilio.now() - interval '6 min' where message_id = $1$$, $$select finish_smsgate($1, 'missing')$$, 'finish_smsgate', ''),
('smsgate', null, 'looking_up', 'unknown', null, $$select finish_smsgate($1, 'unknown', retry_after_ms => 5000)$$, 'requeue_smsgate', 'the gateway is asked again after a delay'),
('smsgate', null, 'looking_up', 'its lease is over', $$select shift('61 s')$$, 'select twilio_internal.rescue_orphaned()', 'requeue_orphaned', 'the gateway is asked again'),
('smsgate', null, 'missing', 'it is claimed', $$select shift('370 s')$$, 'select take()', 'claim_smsgate', 'task look'),
('smsgate', null, 'missing', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', '`failed_message` shows it as unknown'),
('smsgate', null, 'accepted', 'it is claimed', $$select shift('31 s')$$, 'select take()', 'claim_smsgate', 'task ask: the gateway is asked for its state'),
('smsgate', null, 'accepted', 'it is claimed after its expiry', $$select shift('5 h')$$, 'select take()', 'claim_smsgate', 'task withdraw: the gateway is asked to cancel it'),
('smsgate', null, 'accepted', 'it is claimed, its recipient is suppressed', $$select twilio.block('+12025550101'), shift('31 s')$$, 'select take()', 'claim_smsgate', 'task withdraw'),
('smsgate', 'fallback', 'accepted', 'it is claimed, it is a fallback and its original was delivered', $$select report(m.root_id, 'delivered') from twilio.message m where m.message_id = $1$$, 'select take()', 'claim_smsgate', 'task withdraw, at once: `withdraw_fallback` made it due'),
('smsgate', null, 'accepted', 'its phone reports delivered', null, $$select webhook($1, 'delivered')$$, 'record_smsgate_events', 'the next claim ends the polling'),
('smsgate', null, 'accepted', 'it is claimed, its phone has reported delivered', $$select webhook($1, 'delivered'), shift('31 s')$$, 'select take()', 'claim_smsgate', ''),
('smsgate', null, 'polling', 'found, pending', null, $$select finish_smsgate($1, 'found', 'pending')$$, 'schedule_poll', 'it is polled again later'),
('smsgate', null, 'polling', 'found, pending, it was withdrawn', 'update twilio_internal.smsgate_message set is_withdrawn = true where message_id = $1', $$select finish_smsgate($1, 'found', 'pending')$$, 'schedule_poll', 'it is polled again later'),
('smsgate', null, 'polling', 'found, delivered', null, $$select finish_smsgate($1, 'found', 'delivered')$$, 'schedule_poll', ''),
('smsgate', null, 'polling', 'found, failed', null, $$select finish_smsgate($1, 'found', 'failed')$$, 'schedule_poll', 'rules by status may plan a fallback'),
('smsgate', null, 'polling', 'found, canceled', null, $$select finish_smsgate($1, 'found', 'canceled')$$, 'schedule_poll', ''),
('smsgate', null, 'polling', 'failed', null, $$select finish_smsgate($1, 'failed')$$, 'schedule_poll', 'it is polled again later'),
('smsgate', null, 'polling', 'missing', null, $$select finish_smsgate($1, 'missing')$$, 'schedule_poll', 'it is polled again later'),
('smsgate', null, 'polling', 'found, pending, a minute after its expiry', $$select shift('4 h 1 min')$$, $$select finish_smsgate($1, 'found', 'pending')$$, 'schedule_poll', 'the phone did not take it in time; rules by status may plan a fallback'),
('smsgate', null, 'polling', 'found, processed, a day later', $$select shift('28 h 1 min')$$, $$select finish_smsgate($1, 'found', 'processed')$$, 'schedule_poll', 'the phone did not report what became of it'),
('smsgate', null, 'polling', 'found, sent, a day later', $$select shift('28 h 1 min')$$, $$select finish_smsgate($1, 'found', 'sent')$$, 'schedule_poll', 'a delivery report of the phone still counts'),
('smsgate', null, 'polling', 'its lease is over', $$select shift('92 s')$$, 'select take()', 'claim_smsgate', 'it is claimed anew'),
('smsgate', null, 'polling', 'a new worker starts', null, 'select twilio_internal.rescue_orphaned(true)', 'rescue_orphaned', 'it is due at once'),
('smsgate', null, 'canceling', 'withdrawn', null, $$select finish_smsgate($1, 'withdrawn')$$, 'schedule_poll', 'it is polled, to see what became of it'),
('smsgate', null, 'canceling', 'late', null, $$select finish_smsgate($1, 'late')$$, 'schedule_poll', 'the phone has taken it; it is polled'),
('smsgate', null, 'canceling', 'failed', null, $$select finish_smsgate($1, 'failed')$$, 'schedule_poll', 'it is tried again later'),
('smsgate', null, 'canceling', 'a new worker starts', null, 'select twilio_internal.rescue_orphaned(true)', 'rescue_orphaned', 'it is due at once'),
('smsgate', null, 'withdrawn', 'it is claimed', $$select shift('5 min')$$, 'select take()', 'claim_smsgate', 'task ask'),
('smsgate', null, 'withdrawn', 'it is claimed, its phone has reported delivered', $$select webhook($1, 'delivered'), shift('5 min')$$, 'select take()', 'claim_smsgate', ''),
('smsgate', null, 'dead', 'a person settles it as not_sent', null, $$select twilio.resolve_unknown($1, 'not_sent')$$, 'settle_unsent', 'rules by status may plan a fallback'),
('smsgate', null, 'dead', 'a person settles it with give_up', null, $$select twilio.resolve_unknown($1, 'give_up')$$, 'resolve_unknown', 'rules by status plan no fallback'),
('smsgate', null, 'dead', 'a person settles it as sent', null, $$select twilio.resolve_unknown($1, 'sent', 'SM' || md5('sent'))$$, 'resolve_unknown', ''),
('smsgate', null, 'dead', 'the worker sweeps, its phone has reported sent', $$select webhook($1, 'sent')$$, 'select twilio_internal.expire_due()', 'discard_settled', 'it is polled after 30 seconds');

insert into transition (machine, kind, state, event, given, call, by, follows) values
('fallback', 'ours', 'none', 'a failure is recorded, its text is known', null, $$select report($1, 'undelivered', 63049)$$, 'plan_fallback', 'its job is due after the rule''s delay'),
('fallback', 'others', 'none', 'a failure of a message of other software is recorded', null, $$select report($1, 'undelivered', 63049)$$, 'plan_fallback', 'Twilio is asked for date and text'),
('fallback', 'source', 'none', 'the same, `message_source` is set', null, $$select report($1, 'undelivered', 63049)$$, 'plan_fallback', 'the source is asked for date and text'),
('fallback', 'written', 'none', 'a failure is recorded, the rule has a function', null, $$select report($1, 'undelivered', 63049)$$, 'plan_fallback', 'the function is asked for the text'),
('fallback', 'ours', 'none', 'a failure is recorded, no rule is for it', null, $$select report($1, 'failed', 63033)$$, 'plan_fallback', '`explain_fallback` says why'),
('fallback', 'ours', 'none', 'a transient failure is recorded', null, $$select report($1, 'failed', 63018)$$, 'plan_retry', 'the next try of its step is queued for later'),
('fallback', 'ours', 'none', 'its retry fails too', $$select report($1, 'failed', 63018)$$, $$select report(m.message_id, 'failed', 63018) from twilio.message m where m.root_id = $1 and m.try = 2$$, 'plan_fallback', 'its job is due after the rule''s delay'),
('fallback', 'ours', 'none', 'a failure is recorded after a delivery', $$select report($1, 'delivered')$$, $$select report($1, 'undelivered', 63049)$$, 'plan_fallback', ''),
('fallback', 'timed', 'watched', 'its time is over, it was delivered', $$select report($1, 'delivered'), shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', ''),
('fallback', 'timed', 'watched', 'its time is over, Twilio has it', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'Twilio is asked how it fares'),
('fallback', 'timed source', 'watched', 'the same, `message_source` is set', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'the source is asked for date and text'),
('fallback', 'unsent', 'watched', 'its time is over, it waits in the queue', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'the original expires'),
('fallback', 'unsent', 'watched', 'the same, the rule has a function', $$update twilio.fallback_rule set text_function = 'machine.write', run_as = current_user, search_path = 'machine' where name = 'timed'; select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'the original expires; the function is asked for the text'),
('fallback', 'unsent', 'watched', 'its time is over, it is being sent', $$select take(); select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'it is looked at again after 5 seconds'),
('fallback', 'scheduled', 'watched', 'its time is over, Twilio keeps it until its time', $$select shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', 'it is looked at again after a minute'),
('fallback', 'timed', 'watched', 'its time is over, an error advises against another way', $$select report($1, 'failed', 63033), shift('601 s')$$, 'select twilio_internal.plan_timed_out()', 'plan_timed_rule', ''),
('fallback', 'source', 'source', 'the source names date and text', $$select said(jsonb_build_object('body', 'hello', 'created_at', twilio.now())::text)$$, 'select twilio_internal.run_text()', 'read_message_source', 'its job is due'),
('fallback', 'source', 'source', 'the same, the rule has a function', $$select said(jsonb_build_object('body', 'hello', 'created_at', twilio.now())::text); update twilio.fallback_rule set text_function = 'machine.write', run_as = current_user, search_path = 'machine' where name = 'plain'$$, 'select twilio_internal.run_text()', 'compose_fallback', 'the function is asked for the text'),
('fallback', 'timed source', 'source', 'the same, it is a timed rule', $$select said(jsonb_build_object('body', 'hello', 'created_at', twilio.now())::text)$$, 'select twilio_internal.run_text()', 'compose_fallback', 'Twilio is asked how the original fares'),
('fallback', 'source', 'source', 'the source names nothing', null, 'select twilio_internal.run_text()', 'reconcile', 'Twilio is asked instead'),
('fallback', 'source', 'source', 'the source fails', $$select said('no json')$$, 'select twilio_internal.run_text()', 'reconcile', 'Twilio is asked instead'),
('fallback', 'source', 'source', 'the original is too old', $$select said(jsonb_build_object('body', 'hello', 'created_at', twilio.now() - interval '1 year')::text)$$, 'select twilio_internal.run_text()', 'compose_fallback', ''),
('fallback', 'source', 'source', 'the original has no text', $$select said(jsonb_build_object('created_at', twilio.now())::text)$$, 'select twilio_internal.run_text()', 'compose_fallback', ''),
('fallback', 'source', 'source', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('fallback', 'source', 'source', 'it is canceled', null, 'select twilio.cancel_message(follower($1))', 'cancel_message', ''),
('fallback', 'others', 'twilio', 'it is claimed', null, 'select ask()', 'claim_original_fetch', 'Twilio is asked for the original'),
('fallback', 'others', 'twilio', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('fallback', 'others', 'twilio', 'it is canceled', null, 'select twilio.cancel_message(follower($1))', 'cancel_message', ''),
('fallback', 'others', 'fetching', 'found', null, $$select finish_fetch($1, 'found', 'undelivered')$$, 'release_fallback', 'its job is due'),
('fallback', 'others', 'fetching', 'found, the rule has a function', $$update twilio.fallback_rule set text_function = 'machine.write', run_as = current_user, search_path = 'machine' where name = 'plain'$$, $$select finish_fetch($1, 'found', 'undelivered')$$, 'compose_fallback', 'the function is asked for the text'),
('fallback', 'others', 'fetching', 'found, delivered', null, $$select finish_fetch($1, 'found', 'delivered')$$, 'end_fallback', ''),
('fallback', 'others', 'fetching', 'found, canceled', null, $$select finish_fetch($1, 'found', 'canceled')$$, 'end_fallback', ''),
('fallback', 'others', 'fetching', 'found, the recipient does not want it', null, $$select finish_fetch($1, 'found', 'failed', code => 63033)$$, 'end_fallback', ''),
('fallback', 'others', 'fetching', 'found, too old', null, $$select finish_fetch($1, 'found', 'undelivered', dated => twilio.now() - interval '1 year')$$, 'compose_fallback', ''),
('fallback', 'others', 'fetching', 'found, without text', null, $$select finish_fetch($1, 'found', 'undelivered', body => '')$$, 'compose_fallback', ''),
('fallback', 'others', 'fetching', 'found, its text is too long', null, $$select finish_fetch($1, 'found', 'undelivered', body => repeat('x', 1601))$$, 'release_fallback', ''),
('fallback', 'others', 'fetching', 'found, its rule was deleted', $$delete from twilio.fallback_rule where name = 'plain'$$, $$select finish_fetch($1, 'found', 'undelivered')$$, 'compose_fallback', ''),
('fallback', 'timed', 'fetching', 'found, scheduled', null, $$select finish_fetch($1, 'found', 'scheduled')$$, 'finish_original_fetch', 'Twilio is asked again after a minute'),
('fallback', 'others', 'fetching', 'missing', null, $$select finish_fetch($1, 'missing')$$, 'finish_original_fetch', ''),
('fallback', 'others', 'fetching', 'failed', null, $$select finish_fetch($1, 'failed')$$, 'finish_original_fetch', 'Twilio is asked again, until it expires'),
('fallback', 'timed', 'fetching', 'failed, it is one of ours', null, $$select finish_fetch($1, 'failed')$$, 'finish_original_fetch', 'Twilio is asked again, at most a minute later'),
('fallback', 'timed', 'fetching', 'failed for the third time, it is one of ours', 'update twilio_internal.fallback set tries = 3 where message_id = follower($1)', $$select finish_fetch($1, 'failed')$$, 'finish_original_fetch', 'its job is due'),
('fallback', 'others', 'fetching', 'its lease is over', $$select shift('61 s')$$, 'select ask()', 'claim_original_fetch', 'it is claimed anew'),
('fallback', 'others', 'fetching', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', 'the answer is ignored'),
('fallback', 'others', 'fetching', 'it is canceled', null, 'select twilio.cancel_message(follower($1))', 'cancel_message', 'the answer is ignored'),
('fallback', 'others', 'fetching', 'a new worker starts', null, 'select twilio_internal.rescue_orphaned(true)', 'rescue_orphaned', 'it is due at once'),
('fallback', 'written', 'text', 'the function returns a text', $$select said('hello')$$, 'select twilio_internal.run_text()', 'release_fallback', 'its job is due'),
('fallback', 'written', 'text', 'the function fails', $$select said('raise')$$, 'select twilio_internal.run_text()', 'fail_text', 'it is called again, until it expires'),
('fallback', 'written', 'text', 'the function returns no text', $$select said('')$$, 'select twilio_internal.run_text()', 'write_text', ''),
('fallback', 'written', 'text', 'the function returns a text that is too long', $$select said(repeat('x', 1601))$$, 'select twilio_internal.run_text()', 'release_fallback', ''),
('fallback', 'written', 'text', 'its rule was deleted', $$delete from twilio.fallback_rule where name = 'written'$$, 'select twilio_internal.run_text()', 'write_text', ''),
('fallback', 'written', 'text', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('fallback', 'written', 'text', 'it is canceled', null, 'select twilio.cancel_message(follower($1))', 'cancel_message', ''),
('fallback', 'ours', 'ready', 'its job is claimed', null, 'select take()', 'claim', 'from here on it is an outbox or SMSGate job like any other'),
('fallback', 'ours', 'ready', 'its original was delivered', $$select report($1, 'delivered')$$, 'select take()', 'discard_settled', ''),
('fallback', 'ours', 'ready', 'its original was withdrawn', $$select report($1, 'canceled')$$, 'select take()', 'discard_settled', ''),
('fallback', 'ours', 'ready', 'its original failed as the recipient does not want it', $$select report($1, 'failed', 63033)$$, 'select take()', 'discard_settled', ''),
('fallback', 'ours', 'ready', 'the recipient is suppressed', $$select twilio.block('+12025550111')$$, 'select take()', 'discard_settled', ''),
('fallback', 'ours', 'ready', 'it expires', $$select shift('5 h')$$, 'select twilio_internal.expire_due()', 'expire_due', ''),
('fallback', 'ours', 'ready', 'it is canceled', null, 'select twilio.cancel_message(follower($1))', 'cancel_message', ''),
('fallback', 'ours', 'ready', 'another failure of its original is recorded', null, $$select report($1, 'failed', 63049)$$, 'plan_fallback', 'a step has one fallback'),
('fallback', 'ours', 'sent', 'its original is delivered', null, $$select report($1, 'delivered')$$, 'withdraw_fallback', 'at a phone it is canceled, if the phone has not taken it'),
('fallback', 'ours', 'sent', 'it fails', null, $$select report(follower($1), 'undelivered', 30003)$$, 'plan_fallback', 'a rule may plan the next step of the chain');
call make_transitions();
select machine, count(*) as transitions, count(*) filter (where next is null) as not_made from transition group by 1 order by 1;

-- Reporters of each status.
create table reporter (provider text, status text, by text);
insert into reporter values
('twilio', 'waiting', '`send_message`, `create_fallback`, `create_retry`'),
('twilio', 'unknown', '`finish`, `requeue_orphaned`'),
('twilio', 'accepted', 'Twilio; `resolve_unknown`; the first event has an unknown status'),
('twilio', 'expired', '`discard_settled`, `hold_in_quiet_hours`, `requeue`, `settle_unsent`, `resolve_unknown`, `plan_timed_rule`, `compose_fallback`'),
('twilio', 'suppressed', '`send_message`, `discard_settled`, `finish_original_fetch`'),
('twilio', 'refused', '`finish`, `compose_fallback`, `release_fallback`, `write_text`, `finish_original_fetch`'),
('twilio', 'canceled', 'Twilio; `cancel_message`, `discard_settled`, `compose_fallback`, `write_text`, `finish_original_fetch`'),
('smsgate', 'waiting', '`send_message`, `create_fallback`, `create_retry`, `record_smsgate_events`'),
('smsgate', 'unknown', 'is not recorded'),
('smsgate', 'pending', 'the gateway; `finish_smsgate`'),
('smsgate', 'cancelling', 'the gateway; `schedule_poll`'),
('smsgate', 'received', '`record_smsgate_events`'),
('smsgate', 'expired', '`discard_settled`, `hold_in_quiet_hours`, `requeue_smsgate`, `finish_smsgate`, `schedule_poll`, `settle_unsent`, `resolve_unknown`, `plan_timed_rule`, `compose_fallback`'),
('smsgate', 'suppressed', '`send_message`, `discard_settled`, `finish_original_fetch`'),
('smsgate', 'refused', '`finish_smsgate`, `compose_fallback`, `release_fallback`, `write_text`, `finish_original_fetch`'),
('smsgate', 'canceled', 'the gateway; `cancel_message`, `discard_settled`, `compose_fallback`, `write_text`, `finish_original_fetch`');

-- A status plans a fallback, or keeps the one that is planned from being sent.
\set ECHO none
create function fallback_of(provider text, status text) returns text language plpgsql as $$
declare
    id bigint;
begin
    select m.message_id into id from reported(provider, status) m;
    if follower(id) is not null then
        return 'planned';
    end if;
    select m.message_id into id from reported(provider, 'refused', status) m;
    perform from twilio.message f cross join lateral twilio_internal.fallback_send_blocker(f) b where f.message_id = follower(id);
    return case when found then 'not sent' end;
end
$$;
\set ECHO all
alter table single add fallback text;
update single set fallback = fallback_of(provider, status);
-- A rule may name the statuses that plan a fallback, and no others.
create function may_be_named(status text) returns boolean language plpgsql as $$
begin
    update twilio.fallback_rule r set statuses = array[status] where r.name = 'any';
    return true;
exception when check_violation then
    return false;
end
$$;
select s.status, s.fallback from single s where may_be_named(s.status) <> (s.fallback is not distinct from 'planned') and s.provider = 'twilio';

create table line as
select case s.provider when 'twilio' then 1 else 2 end as page, s.rank::int as n, format(
    '| %s | %s | %s | %s | %s | %s |', s.status, s.rank, s.kind,
    concat_ws(
        ', ', case when s.sent_at is not null then 'sent_at' end, case when s.delivered_at is not null then 'delivered_at' end,
        case when s.read_at is not null then 'read_at' end, case when s.failed_at is not null then 'failed_at' end
    ),
    s.fallback, coalesce(r.by, case s.provider when 'twilio' then 'Twilio' else 'the phone, the gateway' end)
) as line
from single s
left join reporter r on (r.provider, r.status) = (s.provider, s.status)
union all
select array_position('{outbox,smsgate,fallback}', t.machine) + 2, t.n,
    format('| %s | %s | %s | %s | `%s` | %s |', t.state, t.event, t.next, t.status, t.by, t.follows)
from transition t;
insert into line
select p.page, -1, case when p.page < 3 then '| status | rank | kind | time that it sets | fallback | reported by |'
    else '| state | event | next state | status | function | what follows |' end
from generate_series(1, 5) p (page)
union all
select p.page, 0, '|---|---|---|---|---|---|' from generate_series(1, 5) p (page);
-- Each function that the tables name exists.
select distinct x.name[1]
from line l
cross join lateral regexp_matches(l.line, '`([a-z_]+)`', 'g') x (name)
where not exists (select from pg_proc p where p.proname = x.name[1] and p.pronamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace))
    and to_regclass('twilio.' || x.name[1]) is null
    and x.name[1] <> 'message_source';

\pset format unaligned
\pset tuples_only on
select l.line from line l where l.page = 1 order by l.n;
select l.line from line l where l.page = 2 order by l.n;
select l.line from line l where l.page = 3 order by l.n;
select l.line from line l where l.page = 4 order by l.n;
select l.line from line l where l.page = 5 order by l.n;
\pset tuples_only off
\pset format aligned
drop extension twilio_callback cascade;
drop schema machine cascade;
