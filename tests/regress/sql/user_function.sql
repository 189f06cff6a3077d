-- Users' functions run as the role that registered them, and leave nothing to be done with the owner's rights.
create extension twilio_callback;
create role regress_author;
create schema authored authorization regress_author;
create table ran (as_whom text);
grant insert on ran to public;
set role regress_author;
create function authored.evil() returns text language plpgsql as $$
begin
    insert into public.ran values (current_user);
    return current_user;
end
$$;
create function authored.fire() returns trigger language plpgsql as $$
begin
    perform authored.evil();
    return null;
end
$$;
create table authored.noted (note text);
create constraint trigger late after insert on authored.noted deferrable initially deferred
for each row execute function authored.fire();
create table authored.parent (id int primary key);
create table authored.child (id int references authored.parent deferrable initially deferred);
create function authored.plain(jsonb) returns text language sql as $$ select current_user || ' ' || ($1 ->> 'a') $$;
create function authored.deferring(jsonb) returns text language plpgsql as $$
begin
    insert into authored.noted values ('x');
    return 'noted';
end
$$;
create function authored.putting_off(jsonb) returns text language plpgsql as $$
begin
    set constraints all deferred;
    insert into authored.noted values ('x');
    return 'noted';
end
$$;
create function authored.orphan(jsonb) returns text language plpgsql as $$
begin
    insert into authored.child values (1);
    return 'inserted';
end
$$;
create function authored.holding(jsonb) returns text language plpgsql as $$
begin
    execute 'declare held cursor with hold for select authored.evil()';
    return 'held';
end
$$;
create function authored.setting(jsonb) returns text language sql as $$
    select set_config('search_path', 'authored', false) || set_config('lock_timeout', '77s', false)
$$;
create function authored.becoming(jsonb) returns text language plpgsql as $$
begin
    reset role;
    return current_user;
end
$$;
reset role;

select twilio_internal.call_function('authored.plain', '{"a": 1}', 'regress_author', 'authored');
-- A deferred trigger runs at once, as the author.
select twilio_internal.call_function('authored.deferring', '{}', 'regress_author', 'authored');
select distinct as_whom from ran;
truncate ran;
begin;
select twilio_internal.call_function('authored.putting_off', '{}', 'regress_author', 'authored');
commit;
begin;
select twilio_internal.call_function('authored.orphan', '{}', 'regress_author', 'authored');
commit;
begin;
select twilio_internal.call_function('authored.holding', '{}', 'regress_author', 'authored');
commit;
select twilio_internal.call_function('authored.becoming', '{}', 'regress_author', 'authored');
select as_whom from ran;
-- What it sets goes with it.
begin;
select twilio_internal.call_function('authored.setting', '{}', 'regress_author', 'authored');
select current_setting('search_path') as search_path, current_setting('lock_timeout') as lock_timeout, current_user = session_user as is_owner;
commit;
select current_setting('search_path') as search_path, current_setting('lock_timeout') as lock_timeout;

drop table ran;
set client_min_messages = warning;
drop owned by regress_author cascade;
drop role regress_author;
drop extension twilio_callback;
