-- Texts that users' own functions make or look up. No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
\i shared/callback.sql
create view fallback as
select r.message_sid ~ '0(\d+)$' as known, right(r.message_sid, 2) as sid, f.body, m.stage, m.is_preparing, f.status, m.problem,
    (select e.params ->> 'ErrorMessage' from twilio.message_event e where e.message_id = f.message_id and e.status = f.status limit 1) ~ '^the original (is from|has no text)' as said
from twilio.message f
join twilio_internal.fallback m on m.message_id = f.message_id
join twilio.message r on r.message_id = f.root_id
order by r.message_sid;
create role regress_author;
create schema app authorization regress_author;
set role regress_author;
create table app.sms (message_sid text, body text, media_urls text[], created_at timestamptz);
create view app.message as select * from app.sms where body is distinct from 'hidden';
\set ECHO none
create function app.secret(message jsonb) returns text language sql return current_user::text;
create function app.look_up(message jsonb)
returns jsonb
language plpgsql
as $$
begin
    perform 1 / (length(message ->> 'message_sid') - 34 + case when message ->> 'message_sid' like '%33' then 0 else 1 end);
    return case message ->> 'message_sid'
        when 'SM00000000000000000000000000000031' then
            jsonb_build_object('body', format('%s to %s by %s', message ->> 'channel', message ->> 'to_address', current_user), 'created_at', now())
        when 'SM00000000000000000000000000000032' then '{"body": "undated"}'
    end;
end
$$;
create function app.shorten(message jsonb)
returns text
language plpgsql
as $$
begin
    if message ->> 'body' like 'raise%' then
        raise exception 'cannot shorten this';
    elsif message ->> 'body' like 'hang%' then
        perform pg_sleep(600);
    end if;
    return nullif(left(message ->> 'body', 10), 'nothing');
end
$$;
\set ECHO all
reset role;

-- A view or table of those who keep messages themselves comes before Twilio.
insert into app.sms values
    ('SM00000000000000000000000000000021', 'From our own table 🎉', '{https://example.com/1.png}', now()),
    ('SM00000000000000000000000000000022', 'hidden', null, now()),
    ('SM00000000000000000000000000000023', 'years old', null, now() - interval '1 year'),
    ('SM00000000000000000000000000000024', null, null, now());
select twilio.enable_whatsapp_to_sms() \gset
set twilio_callback.message_source = 'app.message';
select count(callback(n, 'undelivered', 63049)) from generate_series(21, 25) n;
select count(*) from twilio_internal.claim(10);
select count(*) from twilio_internal.claim_original_fetch(10);
select twilio_internal.has_text();
-- Users' triggers that refuse some of them do not delay the others.
begin;
\i shared/refuse.sql
select max(m.message_id) filter (where r.message_sid like '%21') as one, max(m.message_id) filter (where r.message_sid like '%24') as two
from twilio.message m join twilio.message r on r.message_id = m.root_id where m.step = 1 \gset
create trigger refuse before update on twilio_internal.fallback for each row when (old.message_id = :one) execute function refuse();
create trigger refuse before update on twilio.message for each row when (old.message_id = :two) execute function refuse();
select twilio_internal.run_text() from generate_series(1, 4);
select sid, body, stage, is_preparing, status from fallback;
-- A user's function is not asked for what cannot be written down.
create sequence public.asked;
create function public.ask(message jsonb) returns jsonb language sql return jsonb_build_object('n', nextval('public.asked'));
set local twilio_callback.message_source = 'public.ask';
select twilio_internal.run_text() from generate_series(1, 2);
select is_called from public.asked;
drop trigger refuse on twilio_internal.fallback;
select twilio_internal.run_text();
select is_called from public.asked;
-- However many are refused, the next one is processed.
drop trigger refuse on twilio.message;
select count(callback(n, 'undelivered', 63049)) from generate_series(41, 56) n;
select max(m.message_id) as last from twilio.message m where m.step = 1 \gset
create trigger refuse before update on twilio_internal.fallback for each row when (old.message_id <> :last) execute function refuse();
set local client_min_messages = error;
select twilio_internal.run_text();
select f.stage, f.is_preparing from twilio_internal.fallback f where f.message_id = :last;
rollback;
select twilio_internal.run_text() from generate_series(1, 6);
select * from fallback;
select body from twilio_internal.claim(10);
select message_sid from twilio_internal.claim_original_fetch(10) order by 1;
-- A function; what it does wrong sends us to Twilio.
set twilio_callback.message_source = 'app.look_up';
select count(callback(n, 'undelivered', 63049)) from generate_series(31, 34) n;
select twilio_internal.run_text() from generate_series(1, 5);
select * from fallback where sid > '30';
set twilio_callback.message_source = 'app.nothing';
select count(callback(35, 'undelivered', 63049));
select twilio_internal.run_text();
select * from fallback where sid = '35';
-- Media that only the source knows are sent where the rule says so, without a text as well.
select twilio.add_sender('MG00000000000000000000000000000001') \gset
select twilio.enable_whatsapp_to_sms(media => 'send') \gset
select address, can_send_media from twilio.sender order by 1;
insert into app.sms values
    ('SM00000000000000000000000000000026', 'with a picture', '{https://example.com/2.png}', now()),
    ('SM00000000000000000000000000000027', null, '{https://example.com/3.png}', now());
set twilio_callback.message_source = 'app.message';
select count(callback(n, 'undelivered', 63049)) from generate_series(26, 27) n;
select count(twilio_internal.run_text()) from generate_series(1, 2);
select c.body, c.media_urls from twilio_internal.claim(10) c;
select twilio.enable_whatsapp_to_sms() \gset
-- It knows nothing of a message's fate: where success was only waited for, Twilio is asked for that.
select twilio.add_fallback_rule('slow', from_channel => 'whatsapp', no_success_within => '10 min') \gset
insert into app.sms select 'SM' || lpad(n::text, 32, '0'), 'slow ' || n, null, now() from generate_series(28, 30) n;
select count(callback(n, 'sent')) from generate_series(28, 30) n;
set twilio_callback.clock_offset = '601 s';
select twilio_internal.plan_timed_out();
select count(twilio_internal.run_text()) from generate_series(1, 3);
select sid, body, stage, is_preparing, status from fallback where sid between '28' and '30';
select count(*) from twilio_internal.claim(10);
select right(message_sid, 2), twilio_internal.finish_original_fetch(message_id, lease_token,
    case right(message_sid, 2) when '30' then 'failed' else 'found' end, 'of Twilio', 0, now(), retry_after_ms => 60000,
    status => case right(message_sid, 2) when '28' then 'delivered' when '29' then 'sent' end)
from (select p.* from twilio_internal.claim_original_fetch(10) p order by p.message_sid offset 0) p
where right(message_sid, 2) between '28' and '30';
select sid, body, stage, is_preparing, status from fallback where sid between '28' and '30';
select body from twilio_internal.claim(10);
select twilio.disable_fallback('slow') \gset
reset twilio_callback.clock_offset;
reset twilio_callback.message_source;

-- A rule's own function makes the text, after the commit and as its author.
select twilio.set_fallback_text('whatsapp_to_sms', 'app.shorten', 'regress_author') \gset
select name, text_function, run_as from twilio.fallback_rule;
\set ECHO none
create function ours(body text)
returns bigint
language plpgsql
as $$
declare
    id constant bigint := twilio.send_message('whatsapp:+12025550130', body);
begin
    perform twilio.simulate_callback(id, 'undelivered', 63049);
    return id;
end
$$;
\set ECHO all
select ours('A long story') as m1, ours('nothing') as m2, ours('raise an error') as m3, ours('hang for long') as m4 \gset
set twilio_callback.handler_timeout = '50ms';
select count(*) from twilio.message f where f.root_id in (:m1, :m2, :m3, :m4) and f.step = 1 and f.body is null;
select twilio_internal.run_text() from generate_series(1, 5);
create view drafted as
select f.root_id, f.body, f.status, m.is_preparing, m.tries, m.problem,
    (select e.params ->> 'ErrorMessage' from twilio.message_event e where e.message_id = f.message_id and e.status = f.status limit 1) as said
from twilio.message f join twilio_internal.fallback m on m.message_id = f.message_id order by f.root_id;
select body, status, is_preparing, tries, problem, said from drafted where root_id in (:m1, :m2, :m3, :m4);
select explanation ~ ': waiting, simulated: cannot shorten this$' as explained from twilio.explain_fallback(:m3);
-- What raised is called again, until the message expires.
select twilio_internal.has_text();
set twilio_callback.clock_offset = '10 s';
select twilio_internal.has_text();
select twilio_internal.run_text();
set role regress_author;
create or replace function app.shorten(message jsonb) returns text language sql
return concat_ws(' ', message ->> 'channel', message ->> 'to_address', message ->> 'error_code', message ->> 'rule', current_user, message ->> 'body');
reset role;
set twilio_callback.clock_offset = '30 s';
select twilio_internal.run_text() from generate_series(1, 3);
select body, status, is_preparing, problem from drafted where root_id in (:m3, :m4);
-- Date and text of others' messages are still found out first.
select callback(41, 'undelivered', 63049) as m41 \gset
select twilio_internal.run_text();
select twilio_internal.finish_original_fetch(message_id, lease_token, 'found', 'From elsewhere', 0, twilio.now()) from twilio_internal.claim_original_fetch(10) where message_sid like '%41';
select twilio_internal.run_text();
select body, status, is_preparing from drafted where root_id = :m41;
-- Too long for Twilio; without a rule or function.
set role regress_author;
create or replace function app.shorten(message jsonb) returns text language sql return repeat('x', 1601);
reset role;
select ours('too long') as m5 \gset
select twilio_internal.run_text();
select ours('orphan') as m6 \gset
select twilio.set_fallback_text('whatsapp_to_sms', null) \gset
select twilio_internal.run_text();
select body, status, said from drafted where root_id in (:m5, :m6);

select ours('plain again') as m7 \gset
select body, status from drafted where root_id = :m7;
reset twilio_callback.clock_offset;
reset twilio_callback.handler_timeout;

-- Handlers and texts take turns, whatever waits for either.
create schema busy;
create table busy.called (event jsonb);
create function busy.handle(event jsonb) returns void language sql begin atomic insert into busy.called values (event); end;
select twilio.create_consumer('busy', handler => 'busy.handle', from_start => true) \gset
select twilio.feed_tick(is_forced => true) is not null as ticked;
select twilio.set_fallback_text('whatsapp_to_sms', 'app.shorten', 'regress_author') \gset
select ours('first') as m8, ours('second') as m9 \gset
select twilio_internal.run_function(drafts_first => true), (select count(*) from busy.called) as called;
select status from drafted where root_id in (:m8, :m9);
select twilio_internal.run_function(drafts_first => false);
select count(*) from busy.called;
select twilio_internal.has_text();
select twilio.drop_consumer('busy') \gset
drop schema busy cascade;

-- Which functions may run, and as which role.
select twilio.set_fallback_text('nothing', 'app.shorten');
select twilio.set_fallback_text('whatsapp_to_sms', 'app.nothing');
select twilio.set_fallback_text('whatsapp_to_sms', 'app.shorten', 'nobody');
create role regress_operator;
select twilio.grant_admin('regress_operator') \gset
set role regress_operator;
select twilio.set_fallback_text('whatsapp_to_sms', 'app.secret');
select twilio.add_smsgate('user', 'file:smsgate', 'http://127.0.0.1:1');
update twilio.smsgate set base_url = 'http://127.0.0.1:1';
set twilio_callback.message_source = 'app.secret';
reset role;

drop view fallback, drafted;
drop function callback, response, deliver, post, ours;
drop extension twilio_callback;
drop schema app cascade;
drop owned by regress_operator;
drop role regress_author, regress_operator;
