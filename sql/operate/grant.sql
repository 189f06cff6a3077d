-- Privileges: nothing is public, and each kind of role gets what its task requires.

revoke all on all tables in schema twilio, twilio_internal from public;
revoke all on all sequences in schema twilio, twilio_internal from public;
revoke all on all routines in schema twilio, twilio_internal, twilio_api from public;

create function twilio_internal.disable_parameter_logging(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    change constant text := format('alter role %s in database %I set ', role, current_database());
begin
    execute change || 'log_parameter_max_length = 0';
    execute change || 'log_parameter_max_length_on_error = 0';
exception when insufficient_privilege then
    raise warning using
        message = format('could not turn off parameter logging for role %s', role),
        detail = 'Parameters hold signatures and message texts. Only a superuser can keep them out of the server''s log.',
        hint = format(
            'Let a superuser run: %1$slog_parameter_max_length = 0; %1$slog_parameter_max_length_on_error = 0;', change
        );
end
$$;

comment on function twilio_internal.disable_parameter_logging(regrole) is
    'Keeps the parameters of a role''s statements in this database out of the server''s log, from its next connection on.';

create function twilio.grant_front(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.disable_parameter_logging(role);
    execute format('grant usage on schema twilio, twilio_api to %s', role);
    execute format('grant execute on function twilio.version() to %s', role);
    execute format('grant execute on function twilio.receive(text[], text[], text[], bytea[], text[]) to %s', role);
    execute format(
        'grant execute on function twilio.sms_callback(text, bytea, text, text, text, text, text), '
        'twilio.receive_events(text, bytea, text, text, text, text, text) to %s',
        role
    );
    execute format(
        'grant execute on function twilio.answer(bigint[]), twilio.acknowledged(bigint[]), twilio.lost_requests() to %s', role
    );
    execute format(
        'grant execute on function twilio.smsgate_receive(text[], bytea[], text[]), '
        'twilio.smsgate_callback(bytea, text, text, text) to %s',
        role
    );
    execute format('grant execute on function twilio_api.sms_callback(bytea), twilio_api.sms_inbound(bytea), twilio_api.events(bytea) to %s', role);
end
$$;

comment on function twilio.grant_front(regrole) is
    'Lets a role deliver requests only: for the shim, PostgREST or another web service.';

create function twilio_internal.grant_messages(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    -- Entries from before all its privileges were revoked do not count any more.
    delete from twilio_internal.reader r
    using pg_roles p
    where p.oid = role
        and r.role = p.rolname
        and not exists (
            select
            from pg_class c
            cross join lateral aclexplode(c.relacl) a
            where c.oid = 'twilio_internal.reader'::regclass and a.grantee = role
        );
    execute format('grant usage on schema twilio, twilio_internal to %s', role);
    -- Row security shows only rows of the role's accounts.
    execute format(
        'grant select on twilio_internal.reader, twilio.message, twilio.message_event, twilio_internal.outbox, twilio_internal.attempt, '
        'twilio_internal.fallback, twilio_internal.smsgate_message, twilio.reply, twilio_internal.acknowledgement, twilio.message_media, '
        'twilio.consent_keyword, twilio.consent_scope to %s',
        role
    );
    execute format('grant select on twilio_internal.reconciliation, twilio.unreconciled_message to %s', role);
    execute format('grant execute on function twilio_internal.is_reconcilable(twilio.message) to %s', role);
    execute format(
        'grant select on twilio.message_status, twilio.message_timeline, twilio.message_chain, '
        'twilio.number_health, twilio.inbound_message, twilio.message_attempt, twilio.failed_message, twilio.unknown_message, twilio.callback_gap, '
        'twilio.error_code, twilio.error_code_override, twilio.number_zone to %s',
        role
    );
    execute format(
        'grant execute on function twilio.version(), twilio.now(), twilio_internal.error_text(int), twilio_internal.error_class(int), '
        'twilio_internal.default_error_code(), twilio_internal.default_error_text(int), twilio_internal.default_error_class(int), '
        'twilio_internal.status_rank(text, text), twilio_internal.status_kind(text, text), twilio_internal.has_reached(twilio.message, text), '
        'twilio_internal.bare_address(text), twilio.person_key(text, text), twilio.normalize_number(text, text), '
        'twilio.find_messages(text, text, text, text, text, text, int, timestamptz, timestamptz, bigint, int), '
        'twilio_internal.matches(twilio.message, text, text, text, text, text, int, timestamptz, timestamptz, bigint), '
        'twilio_internal.provider_error_text(jsonb), twilio_internal.consent_action(text, text, text), twilio_internal.default_consent_action(text), '
        'twilio_internal.sees_all(), twilio_internal.seen_accounts(), twilio_internal.may_have_been_sent(bigint, uuid), '
        'twilio_internal.first_attempt_id(timestamptz), '
        'twilio_internal.bare_word(text), twilio_internal.consent_word(text), twilio.language_keywords(), twilio_internal.is_typed(jsonb), '
        'twilio_internal.is_toll_free(text), twilio_internal.consent_of(text, text, text, jsonb) to %s',
        role
    );
end
$$;

comment on function twilio_internal.grant_messages(regrole) is
    'Lets a role read the tables and views of messages; twilio_internal.reader lists the accounts whose rows it sees.';

create function twilio.grant_read(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.grant_messages(role);
    insert into twilio_internal.reader (role, account_sid)
    select r.rolname, null from pg_roles r where r.oid = role
    on conflict do nothing;
    execute format(
        'grant select on twilio.public_url, twilio.quarantine, twilio.quarantine_status, '
        'twilio_internal.not_kept_plausible, twilio_internal.not_kept_phone, twilio_internal.not_kept_implausible, twilio.suppression to %s',
        role
    );
    execute format(
        'grant select on twilio.feed_consumer, twilio_internal.feed_position, twilio_internal.feed_delivery, twilio.feed_dead_letter, '
        'twilio_internal.feed_event, twilio.feed_item, twilio.feed_lag, twilio_internal.tick, twilio.reply_rule, '
        'twilio.acknowledgement_rule to %s',
        role
    );
    execute format(
        'grant select on twilio.sender, twilio_internal.paused_account, twilio.dump_mark, twilio_internal.sending, twilio_internal.worker, '
        'twilio.queue_status, twilio.sender_status, twilio.fallback_rule, twilio_internal.fallback_watch, '
        'twilio.smsgate_webhook, twilio.provider_event, twilio.provider_alert, twilio.event_sink to %s',
        role
    );
    execute format('grant select on twilio_internal.reconciliation_account, twilio_internal.message_sweep, twilio.reconciliation_status to %s', role);
    execute format('grant execute on function twilio_internal.reconcile_after() to %s', role);
    execute format(
        'grant execute on function twilio_internal.is_worker_running(), twilio_internal.worker_lock_holder(), twilio.is_sending(), twilio.is_copy(), '
        'twilio.lost_requests(), '
        'twilio.explain_fallback(bigint) to %s',
        role
    );
    -- Single columns, since the others of these tables are secret.
    execute format('grant select (account_sid, api_url, api_key_sid, created_at, country) on twilio.account to %s', role);
    execute format(
        'grant select (account_sid, key_id, algorithm, not_before, not_after) on twilio.signing_key to %s',
        role
    );
end
$$;

comment on function twilio.grant_read(regrole) is
    'Lets a role read messages, their log and the configuration, secrets and refused requests excepted.';

create function twilio.grant_read(role regrole, account_sid text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if not exists (select from twilio.account a where a.account_sid = account_sid) then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s does not exist', account_sid),
            hint = 'select twilio.add_account(''AC…'', ''file:name'');';
    end if;
    -- A role that reads the configuration reads all accounts.
    if has_table_privilege(role, 'twilio.sender', 'select') then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('role %s can already read all accounts', role),
            hint = format('drop owned by %s; takes back what it was granted in this database.', role);
    end if;
    perform twilio_internal.grant_messages(role);
    delete from twilio_internal.reader r
    using pg_roles p
    where p.oid = role and r.role = p.rolname and r.account_sid is null;
    insert into twilio_internal.reader (role, account_sid)
    select p.rolname, account_sid from pg_roles p where p.oid = role
    on conflict do nothing;
end
$$;

comment on function twilio.grant_read(regrole, text) is
    'Lets a role read messages of one account and their log only. Call it again for each further account.';

-- These run with the owner's rights, which each function states itself: the tables behind them are closed to their callers.
-- None of them runs code that a caller supplies, or resolves a name in a schema where a caller could create objects.
-- add_account is the exception: it runs as its caller and finds out by that whether the caller may set an api_url.
create function twilio_internal.role_functions(kind text)
returns text[]
language sql
immutable
begin atomic
    select case role_functions.kind
        when 'send' then array[
            'acknowledge_inbound', 'block', 'cancel_message', 'estimate', 'retry_message', 'send_message',
            'status_callback_url', 'unblock'
        ]
        when 'relay' then array['feed_ack', 'feed_read', 'feed_release']
        when 'admin' then array[
            -- Not add_smsgate: its caller decides where a secret is sent.
            'accept_rejected', 'acknowledge_losses', 'add_account', 'add_consent_keywords', 'add_event_sink', 'add_fallback_rule', 'add_public_url', 'add_sender', 'add_shared_key', 'add_smsgate_key',
            'disable_fallback', 'disable_sending', 'doctor', 'enable_sending', 'enable_sms_to_smsgate',
            'enable_whatsapp_to_sms', 'upsert_account', 'explain_fallback', 'explain_rejected', 'fetch_media', 'must_examine_all', 'pause_account',
            'purge_batch', 'purge_event_batch', 'purge_rejected_batch', 'redact_batch', 'redact_event_batch', 'redact_feed', 'redact_rejected_batch', 'replay', 'remove_event_sink', 'retire_signing_key',
            'resolve_unknown', 'retire_smsgate_key', 'reverify_rejected', 'resume_account', 'rotate_auth_token', 'set_quarantine', 'simulate_callback', 'start_worker', 'stop_worker',
            'store_media', 'reconcile', 'sweep_messages'
        ]
    end;
end;

comment on function twilio_internal.role_functions(text) is
    'Returns the names of the functions that a kind of role (send, relay or admin) may call.';

create function twilio_internal.grant_functions(role regrole, kind text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    name regprocedure;
begin
    execute format('grant usage on schema twilio to %s', role);
    for name in
        select p.oid
        from pg_proc p
        where p.pronamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and p.proname = any (twilio_internal.role_functions(kind))
    loop
        execute format('grant execute on function %s to %s', name, role);
    end loop;
end
$$;

comment on function twilio_internal.grant_functions(regrole, text) is
    'Lets a role call the functions that twilio_internal.role_functions lists for a kind of role.';

create function twilio.grant_send(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.grant_functions(role, 'send'), twilio_internal.disable_parameter_logging(role);
    execute format(
        'grant execute on function twilio.version(), twilio.now(), twilio.normalize_number(text, text) to %s', role
    );
end
$$;

comment on function twilio.grant_send(regrole) is
    'Lets a role send, cancel and block messages only; grant_read lets it read them.';

create function twilio.grant_relay(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.grant_functions(role, 'relay'), twilio_internal.disable_parameter_logging(role);
    execute format(
        'grant execute on function twilio.version(), twilio.now(), twilio.acknowledge_inbound(bigint), '
        'twilio.send_message(text, text, text, text[], text, timestamptz, interval, text, jsonb, jsonb, text, text, boolean, text, time, time, text, text) '
        'to %s',
        role
    );
end
$$;

comment on function twilio.grant_relay(regrole) is
    'Lets a role read the feed for any consumer, send messages and acknowledge incoming ones: for the relay to RabbitMQ.';

create function twilio.grant_admin(role regrole)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio.grant_read(role), twilio.grant_send(role), twilio_internal.grant_functions(role, 'admin');
    execute format('grant select on twilio_internal.rejected_callback, twilio.rejected, twilio.quarantine_source to %s', role);
    execute format(
        'grant update (max_rows, max_bytes, rows_per_second, burst_rows) on twilio.quarantine to %s',
        role
    );
    execute format('grant delete on twilio.public_url to %s', role);
    execute format(
        'grant insert, update, delete on twilio.error_code_override, twilio.number_zone, twilio.consent_keyword, '
        'twilio.consent_scope to %s',
        role
    );
    execute format(
        'grant execute on procedure twilio.purge(interval, boolean, boolean, int, double precision), '
        'twilio.redact(interval, text, int, double precision), '
        'twilio_internal.throttle(timestamptz, double precision), twilio_internal.disable_synchronous_commit() to %s',
        role
    );
    execute format(
        'grant execute on function twilio_internal.check_age(interval, int, double precision), '
        'twilio_internal.next_batch_rows(int, interval, int), twilio_internal.bare_address(text), twilio.person_key(text, text), '
        'twilio.normalize_number(text, text), twilio.parse_form(bytea), '
        'twilio.compute_signature(text, bytea, text, text, text, text), '
        'twilio.verify_signature(text, bytea, text, text, text, text, text) to %s',
        role
    );
end
$$;

comment on function twilio.grant_admin(regrole) is
    'Lets a role administer keys, URLs, senders, the quarantine, replay and retention. Only the owner reads secrets.';

revoke all on function
    twilio_internal.disable_parameter_logging(regrole), twilio.grant_front(regrole), twilio_internal.grant_messages(regrole), twilio.grant_read(regrole),
    twilio.grant_read(regrole, text), twilio.grant_send(regrole),
    twilio.grant_relay(regrole), twilio.grant_admin(regrole), twilio_internal.grant_functions(regrole, text), twilio_internal.role_functions(text)
from public;
