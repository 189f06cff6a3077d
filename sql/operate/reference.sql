-- References among the tables that dumps contain: checked by triggers like foreign keys, except for the rows of a restore.

-- With --jobs, pg_restore fills these tables at the same time: a dump cannot order the tables of an extension. With foreign
-- keys, some would stay empty. So triggers make the same checks with the same locks, except during a restore. Afterwards
-- doctor() reports rows that refer to missing rows.

create function twilio_internal.is_being_restored()
returns boolean
language sql
stable
begin atomic
    -- pg_dump and pg_restore turn the setting off, each job in its own session. They leave twilio_internal.sending out, which has
    -- a mark once the database is more than a place to restore into: disable_sending() before that writes none.
    select current_setting('check_function_bodies') = 'off'
        and not exists (select from twilio_internal.sending s where s.mark is not null);
end;

comment on function twilio_internal.is_being_restored() is
    'Returns whether this session restores a dump into a database that has not sent anything yet.';

create function twilio_internal.refuse_orphan(table_schema name, table_name name, referred text, key text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if twilio_internal.is_being_restored() then
        return;
    end if;
    raise exception using
        errcode = 'foreign_key_violation',
        message = format('row of "%s" refers to a row of "%s" that does not exist', table_name, referred),
        detail = format('There is no row of "%s" with key %s.', referred, key),
        schema = table_schema,
        table = table_name;
end
$$;

comment on function twilio_internal.refuse_orphan(name, name, text, text) is
    'Raises an error about a row that refers to a missing row, unless a dump is being restored.';

create function twilio_internal.orphans()
returns table (table_name text, referred text, row_count bigint)
language sql
stable
begin atomic
    select 'signing_key', 'account', count(*) from twilio.signing_key c
    where c.account_sid is not null and not exists (select from twilio.account p where p.account_sid = c.account_sid)
    having count(*) > 0
    union all
    select 'paused_account', 'account', count(*) from twilio_internal.paused_account c
    where c.account_sid is not null and not exists (select from twilio.account p where p.account_sid = c.account_sid)
    having count(*) > 0
    union all
    select 'sender', 'account', count(*) from twilio.sender c
    where c.account_sid is not null and not exists (select from twilio.account p where p.account_sid = c.account_sid)
    having count(*) > 0
    union all
    select 'event_sink', 'account', count(*) from twilio.event_sink c
    where c.account_sid is not null and not exists (select from twilio.account p where p.account_sid = c.account_sid)
    having count(*) > 0
    union all
    select 'reader', 'account', count(*) from twilio_internal.reader c
    where c.account_sid is not null and not exists (select from twilio.account p where p.account_sid = c.account_sid)
    having count(*) > 0
    union all
    select 'smsgate', 'sender', count(*) from twilio.smsgate c
    where c.sender_id is not null and not exists (select from twilio.sender p where p.sender_id = c.sender_id)
    having count(*) > 0
    union all
    select 'outbox', 'sender', count(*) from twilio_internal.outbox c
    where c.sender_id is not null and not exists (select from twilio.sender p where p.sender_id = c.sender_id)
    having count(*) > 0
    union all
    select 'smsgate_message', 'smsgate', count(*) from twilio_internal.smsgate_message c
    where c.sender_id is not null and not exists (select from twilio.smsgate p where p.sender_id = c.sender_id)
    having count(*) > 0
    union all
    select 'smsgate_webhook', 'smsgate', count(*) from twilio.smsgate_webhook c
    where c.sender_id is not null and not exists (select from twilio.smsgate p where p.sender_id = c.sender_id)
    having count(*) > 0
    union all
    select 'fallback', 'fallback_rule', count(*) from twilio_internal.fallback c
    where c.rule_id is not null and not exists (select from twilio.fallback_rule p where p.rule_id = c.rule_id)
    having count(*) > 0
    union all
    select 'feed_delivery', 'feed_consumer', count(*) from twilio_internal.feed_delivery c
    where c.consumer is not null and not exists (select from twilio.feed_consumer p where p.consumer = c.consumer)
    having count(*) > 0
    union all
    select 'feed_dead_letter', 'feed_consumer', count(*) from twilio.feed_dead_letter c
    where c.consumer is not null and not exists (select from twilio.feed_consumer p where p.consumer = c.consumer)
    having count(*) > 0
    union all
    select 'outbox', 'message', count(*) from twilio_internal.outbox c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'fallback', 'message', count(*) from twilio_internal.fallback c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'message_hours', 'message', count(*) from twilio_internal.message_hours c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'fallback_watch', 'message', count(*) from twilio_internal.fallback_watch c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'smsgate_message', 'message', count(*) from twilio_internal.smsgate_message c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'message_media', 'message', count(*) from twilio.message_media c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'reply', 'message', count(*) from twilio.reply c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0
    union all
    select 'acknowledgement', 'message', count(*) from twilio_internal.acknowledgement c
    where c.message_id is not null and not exists (select from twilio.message p where p.message_id = c.message_id)
    having count(*) > 0;
end;

comment on function twilio_internal.orphans() is
    'Counts the rows that refer to a row that does not exist, by table; no row if there are none.';

create function twilio_internal.forbid_orphans()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    found_one record;
begin
    select o.* into found_one from twilio_internal.orphans() o where o.referred = tg_table_name limit 1;
    if found then
        raise exception using
            errcode = 'foreign_key_violation',
            message = format('rows of "%s" are still referenced', tg_table_name),
            detail = format('%s rows of "%s" refer to them.', found_one.row_count, found_one.table_name),
            schema = tg_table_schema,
            table = tg_table_name;
    end if;
    return null;
end
$$;

comment on function twilio_internal.forbid_orphans() is
    'Raises an error if rows refer to a row whose key was changed or that was truncated; for rare statements.';

create function twilio_internal.require_account()
returns trigger
language plpgsql
-- As with a foreign key, a role that may write a row needs no privilege to lock the row that it refers to.
-- The same holds for all triggers below.
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform from twilio.account p where p.account_sid = new.account_sid for key share;
    if not found then
        perform twilio_internal.refuse_orphan(tg_table_schema, tg_table_name, 'account', new.account_sid::text);
    end if;
    return null;
end
$$;

comment on function twilio_internal.require_account() is 'Locks the row of account that a new row refers to, or raises an error.';

create function twilio_internal.require_sender()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform from twilio.sender p where p.sender_id = new.sender_id for key share;
    if not found then
        perform twilio_internal.refuse_orphan(tg_table_schema, tg_table_name, 'sender', new.sender_id::text);
    end if;
    return null;
end
$$;

comment on function twilio_internal.require_sender() is 'Locks the row of sender that a new row refers to, or raises an error.';

create function twilio_internal.require_gateway()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform from twilio.smsgate p where p.sender_id = new.sender_id for key share;
    if not found then
        perform twilio_internal.refuse_orphan(tg_table_schema, tg_table_name, 'smsgate', new.sender_id::text);
    end if;
    return null;
end
$$;

comment on function twilio_internal.require_gateway() is 'Locks the row of smsgate that a new row refers to, or raises an error.';

create function twilio_internal.require_rule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform from twilio.fallback_rule p where p.rule_id = new.rule_id for key share;
    if not found then
        perform twilio_internal.refuse_orphan(tg_table_schema, tg_table_name, 'fallback_rule', new.rule_id::text);
    end if;
    return null;
end
$$;

comment on function twilio_internal.require_rule() is 'Locks the row of fallback_rule that a new row refers to, or raises an error.';

create function twilio_internal.require_consumer()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform from twilio.feed_consumer p where p.consumer = new.consumer for key share;
    if not found then
        perform twilio_internal.refuse_orphan(tg_table_schema, tg_table_name, 'feed_consumer', new.consumer::text);
    end if;
    return null;
end
$$;

comment on function twilio_internal.require_consumer() is 'Locks the row of feed_consumer that a new row refers to, or raises an error.';

create function twilio_internal.require_message()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform from twilio.message p where p.message_id = new.message_id for key share;
    if not found then
        perform twilio_internal.refuse_orphan(tg_table_schema, tg_table_name, 'message', new.message_id::text);
    end if;
    return null;
end
$$;

comment on function twilio_internal.require_message() is 'Locks the row of message that a new row refers to, or raises an error.';

create trigger require_account
after insert or update of account_sid on twilio.signing_key
for each row execute function twilio_internal.require_account();

create trigger require_account
after insert or update of account_sid on twilio_internal.paused_account
for each row execute function twilio_internal.require_account();

create trigger require_account
after insert or update of account_sid on twilio.sender
for each row
when (new.account_sid is not null) execute function twilio_internal.require_account();

create trigger require_account
after insert or update of account_sid on twilio.event_sink
for each row execute function twilio_internal.require_account();

create trigger require_account
after insert or update of account_sid on twilio_internal.reader
for each row
when (new.account_sid is not null) execute function twilio_internal.require_account();

create trigger require_sender
after insert or update of sender_id on twilio.smsgate
for each row execute function twilio_internal.require_sender();

create trigger require_sender
after insert or update of sender_id on twilio_internal.outbox
for each row execute function twilio_internal.require_sender();

create trigger require_gateway
after insert or update of sender_id on twilio_internal.smsgate_message
for each row execute function twilio_internal.require_gateway();

create trigger require_gateway
after insert or update of sender_id on twilio.smsgate_webhook
for each row execute function twilio_internal.require_gateway();

create trigger require_rule
after insert or update of rule_id on twilio_internal.fallback
for each row
when (new.rule_id is not null) execute function twilio_internal.require_rule();

create trigger require_consumer
after insert or update of consumer on twilio_internal.feed_delivery
for each row execute function twilio_internal.require_consumer();

create trigger require_consumer
after insert or update of consumer on twilio.feed_dead_letter
for each row execute function twilio_internal.require_consumer();

create trigger require_message
after insert or update of message_id on twilio_internal.outbox
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio_internal.fallback
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio_internal.fallback_watch
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio_internal.message_hours
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio_internal.smsgate_message
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio.message_media
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio.reply
for each row execute function twilio_internal.require_message();

create trigger require_message
after insert or update of message_id on twilio_internal.acknowledgement
for each row execute function twilio_internal.require_message();

create function twilio_internal.account_is_gone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    keys constant text[] := array(select g.account_sid from gone g);
begin
    delete from twilio.signing_key c where c.account_sid = any (keys);
    delete from twilio_internal.paused_account c where c.account_sid = any (keys);
    delete from twilio.sender c where c.account_sid = any (keys);
    delete from twilio_internal.reader c where c.account_sid = any (keys);
    delete from twilio.event_sink c where c.account_sid = any (keys);
    delete from twilio_internal.reconciliation c where c.account_sid = any (keys);
    delete from twilio_internal.reconciliation_account c where c.account_sid = any (keys);
    delete from twilio_internal.message_sweep c where c.account_sid = any (keys);
    return null;
end
$$;

comment on function twilio_internal.account_is_gone() is 'Deletes rows that referred to deleted rows of account.';

create trigger account_is_gone
after delete on twilio.account
referencing old table as gone
for each statement execute function twilio_internal.account_is_gone();

create function twilio_internal.sender_is_gone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    keys constant int[] := array(select g.sender_id from gone g);
begin
    if exists (select from twilio_internal.outbox o where o.sender_id = any (keys)) then
        raise exception using
            errcode = 'foreign_key_violation',
            message = 'rows of "sender" are still referenced',
            detail = 'Rows of "outbox" refer to them.',
            schema = 'twilio',
            table = 'sender';
    end if;
    delete from twilio.smsgate c where c.sender_id = any (keys);
    return null;
end
$$;

comment on function twilio_internal.sender_is_gone() is 'Deletes rows that referred to deleted rows of sender; raises an error if rows of outbox do.';

create trigger sender_is_gone
after delete on twilio.sender
referencing old table as gone
for each statement execute function twilio_internal.sender_is_gone();

create function twilio_internal.gateway_is_gone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    keys constant int[] := array(select g.sender_id from gone g);
begin
    delete from twilio_internal.smsgate_message c where c.sender_id = any (keys);
    delete from twilio.smsgate_webhook c where c.sender_id = any (keys);
    return null;
end
$$;

comment on function twilio_internal.gateway_is_gone() is 'Deletes rows that referred to deleted rows of smsgate.';

create trigger gateway_is_gone
after delete on twilio.smsgate
referencing old table as gone
for each statement execute function twilio_internal.gateway_is_gone();

create function twilio_internal.rule_is_gone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    keys constant int[] := array(select g.rule_id from gone g);
begin
    update twilio_internal.fallback f set rule_id = null where f.rule_id = any (keys);
    return null;
end
$$;

comment on function twilio_internal.rule_is_gone() is 'Sets rule_id of fallbacks to null whose rule was deleted.';

create trigger rule_is_gone
after delete on twilio.fallback_rule
referencing old table as gone
for each statement execute function twilio_internal.rule_is_gone();

create function twilio_internal.consumer_is_gone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    keys constant text[] := array(select g.consumer from gone g);
begin
    delete from twilio_internal.feed_delivery c where c.consumer = any (keys);
    delete from twilio.feed_dead_letter c where c.consumer = any (keys);
    return null;
end
$$;

comment on function twilio_internal.consumer_is_gone() is 'Deletes rows that referred to deleted rows of feed_consumer.';

create trigger consumer_is_gone
after delete on twilio.feed_consumer
referencing old table as gone
for each statement execute function twilio_internal.consumer_is_gone();

create function twilio_internal.message_is_gone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    keys constant bigint[] := array(select g.message_id from gone g);
begin
    if exists (select from twilio_internal.outbox o where o.message_id = any (keys)) then
        raise exception using
            errcode = 'foreign_key_violation',
            message = 'rows of "message" are still referenced',
            detail = 'Rows of "outbox" refer to them.',
            schema = 'twilio',
            table = 'message';
    end if;
    delete from twilio_internal.fallback c where c.message_id = any (keys);
    delete from twilio_internal.fallback_watch c where c.message_id = any (keys);
    delete from twilio_internal.message_hours c where c.message_id = any (keys);
    delete from twilio_internal.smsgate_message c where c.message_id = any (keys);
    delete from twilio.message_media c where c.message_id = any (keys);
    delete from twilio.reply c where c.message_id = any (keys);
    delete from twilio_internal.acknowledgement c where c.message_id = any (keys);
    delete from twilio_internal.reconciliation c where c.message_id = any (keys);
    return null;
end
$$;

comment on function twilio_internal.message_is_gone() is 'Deletes rows that referred to deleted rows of message; raises an error if rows of outbox do.';

create trigger message_is_gone
after delete on twilio.message
referencing old table as gone
for each statement execute function twilio_internal.message_is_gone();

create trigger forbid_orphans_of_truncated
after truncate on twilio.account
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans
after update of account_sid on twilio.account
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans_of_truncated
after truncate on twilio.sender
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans
after update of sender_id on twilio.sender
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans_of_truncated
after truncate on twilio.smsgate
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans
after update of sender_id on twilio.smsgate
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans_of_truncated
after truncate on twilio.fallback_rule
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans
after update of rule_id on twilio.fallback_rule
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans_of_truncated
after truncate on twilio.feed_consumer
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans
after update of consumer on twilio.feed_consumer
for each statement execute function twilio_internal.forbid_orphans();

create trigger forbid_orphans_of_truncated
after truncate on twilio.message
for each statement execute function twilio_internal.forbid_orphans();
