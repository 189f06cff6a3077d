-- Only the owner and superusers can put anything into the schemas, and functions are called by their exact types.
set client_min_messages = warning;
create role regress_stranger;
drop schema if exists twilio cascade;
create schema twilio authorization regress_stranger;
create extension twilio_callback;
\echo :SQLSTATE
alter schema twilio owner to current_user;
grant create on schema twilio to regress_stranger;
create extension twilio_callback;
revoke create on schema twilio from regress_stranger;
grant create on schema twilio to public;
create extension twilio_callback;
revoke create on schema twilio from public;
create function twilio.format(text, text) returns text language sql return 'hostile';
alter function twilio.format(text, text) owner to regress_stranger;
create extension twilio_callback;
drop function twilio.format(text, text);
create schema twilio_api authorization regress_stranger;
create extension twilio_callback;
drop schema twilio_api;
create schema twilio_internal authorization regress_stranger;
create extension twilio_callback;
drop schema twilio_internal;
create extension twilio_callback;

-- Afterwards the doctor looks.
create view fault as select detail, remedy from twilio.doctor() where "check" = 'owners' and verdict <> 'ok';
table fault;
alter schema twilio owner to regress_stranger;
grant create on schema twilio_api to regress_stranger;
alter table twilio.message owner to regress_stranger;
alter function twilio_internal.wake_worker() owner to regress_stranger;
\x
table fault;
\x
alter schema twilio owner to current_user;
revoke create on schema twilio_api from regress_stranger;
alter table twilio.message owner to current_user;
alter function twilio_internal.wake_worker() owner to current_user;
table fault;

-- A function beside each of ours, for each of its arguments, that fits better wherever a call is not exact.
\set ECHO none
create procedure add_hostile_functions()
language plpgsql
as $$
declare
    ours record;
    place int;
    other text;
    arguments text;
begin
    for ours in
        select p.*, pg_get_function_result(p.oid) as result
        from pg_proc p
        where p.pronamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and p.prokind = 'f'
    loop
        for place in 0 .. ours.pronargs - 1 loop
            foreach other in array case format_type(ours.proargtypes[place], null)
                when 'text' then array['name', 'varchar']
                when 'bigint' then array['int', 'smallint']
                when 'integer' then array['smallint']
                else '{}'
            end loop
                select string_agg(
                    -- Columns of a result may be named as arguments are.
                    case when not ours.proretset then quote_ident(ours.proargnames[n + 1]) || ' ' else '' end
                    || case when n = place then other else format_type(ours.proargtypes[n], null) end,
                    ', ' order by n
                )
                into arguments
                from generate_series(0, ours.pronargs - 1) n;
                execute format(
                    'create function %I.%I(%s) returns %s language plpgsql as '
                    '$x$ begin raise exception ''%2$s(%3$s) is called''; end $x$',
                    ours.pronamespace::regnamespace::text, ours.proname, arguments, ours.result
                );
            end loop;
        end loop;
    end loop;
end
$$;
create function public.author(jsonb) returns text language sql return 'written';
create function public.source(jsonb) returns jsonb language sql as $$ select '{"body": "from the source"}'::jsonb $$;
\set ECHO all
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.enable_whatsapp_to_sms() \gset
call add_hostile_functions();
select twilio.create_consumer('c', handler => 'public.author') \gset
select twilio.add_reply_rule(function => 'public.author');
select twilio.set_fallback_text('whatsapp_to_sms', 'public.author') \gset
select twilio.send_message('whatsapp:+12025550101', 'hello');
select twilio.simulate_callback(1::bigint, 'undelivered', 63049);
select provider, channel, body from twilio.message order by message_id;
set twilio_callback.message_source = 'public.source';
select twilio_internal.run_text();
select count(*) from twilio_internal.claim(10);
select o.* from twilio.message m cross join lateral twilio_internal.fallback_send_blocker(m) o where m.step > 0;
select twilio_internal.source_answer(m, m.message_id) from twilio.message m where m.step = 0;
reset twilio_callback.message_source;
drop extension twilio_callback cascade;
drop schema twilio cascade;
drop function public.author(jsonb), public.source(jsonb);
drop procedure add_hostile_functions();
drop role regress_stranger;
