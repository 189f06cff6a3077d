-- Checks of the installation, each with a remedy.

create function twilio_internal.secret_problem()
returns table (name text, problem text)
language c
volatile
strict
as 'MODULE_PATHNAME', 'secret_problem_wrapper';

comment on function twilio_internal.secret_problem() is
    'Lists the secrets in use: owner of the secret, and the reason why it cannot be read, or null.';

create function twilio_internal.try_signatures(at_most int)
returns table (account_sid text, key_id text, url text, verifies boolean)
language c
volatile
strict
as 'MODULE_PATHNAME', 'try_signatures_wrapper';

comment on function twilio_internal.try_signatures(int) is
    'Signs a test request with each live key for each public URL, up to at_most of them, and returns whether it verifies; records nothing.';

create function twilio_internal.table_differences()
returns table (is_fatal boolean, difference text, remedy text)
language c
volatile
strict
as 'MODULE_PATHNAME', 'table_differences_wrapper';

comment on function twilio_internal.table_differences() is
    'Compares twilio.message and twilio.message_event with the definition that callbacks require: one row for each difference, with its remedy and whether it stops them.';

create function twilio_internal.check_keys()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
volatile
begin atomic
    select 'accounts', case when count(*) > 0 then 'ok' else 'error' end, 'there are ' || count(*),
        case when count(*) = 0 then 'select twilio.add_account(''AC…'', ''file:name'', ''https://…'');' end
    from twilio.account
    union all
    select 'signing keys', case when count(k.bare) > 0 then 'error' else 'ok' end,
        coalesce('no live key of ' || string_agg(k.bare, ', '), 'each account has a live key'),
        case when count(k.bare) > 0 then format('select twilio.rotate_auth_token(%L, ''file:name'');', min(k.bare)) end
    from (
        select
            case
                when not exists (
                    select from twilio.signing_key s
                    where s.account_sid = a.account_sid
                        and s.not_before <= twilio.now() and twilio.now() < s.not_after
                ) then a.account_sid
            end as bare
        from twilio.account a
    ) k
    having count(*) > 0
    union all
    select 'secrets', case when count(p.problem) > 0 then 'error' else 'ok' end,
        coalesce(string_agg(p.name || ': ' || p.problem, '; '), 'each can be read'),
        case when count(p.problem) > 0 then
            'Make the files readable for the server''s account, or correct twilio_callback.secret_directory.'
        end
    from twilio_internal.secret_problem() p
    having count(*) > 0;
end;

comment on function twilio_internal.check_keys() is 'The checks of twilio.doctor about accounts and their keys.';

create function twilio_internal.check_urls()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select 'public URLs',
        case
            when count(*) = 0 or count(u.is_local or null) > 0 then 'error'
            when count(u.is_plain or null) > 0 then 'warning'
            else 'ok'
        end,
        case
            when count(*) = 0 then 'there is none'
            when count(u.is_local or null) > 0 then
                'Twilio cannot reach ' || string_agg(u.url, ', ') filter (where u.is_local)
            when count(u.is_plain or null) > 0 then
                'not encrypted: ' || string_agg(u.url, ', ') filter (where u.is_plain)
            else string_agg(u.url, ', ')
        end,
        case
            when count(*) = 0 then 'select twilio.add_public_url(''https://…'');'
            when count(u.is_local or u.is_plain or null) > 0 then
                format(
                    'select twilio.add_public_url(''https://…''); delete from twilio.public_url where url = %L;',
                    min(u.url) filter (where u.is_local or u.is_plain)
                )
        end
    from (
        select p.url, p.url ~* '^http:' as is_plain,
            h.host ~* '^(localhost|127\..*|10\..*|192\.168\..*|172\.(1[6-9]|2\d|3[01])\..*|169\.254\..*|0\..*|\[.*\]|[^.]*|.*\.(local|localhost|internal|lan|home|test|invalid))$'
                as is_local
        from twilio.public_url p
        cross join lateral (
            select substring(p.url from '^[a-zA-Z]+://(?:[^/@]*@)?(\[[^\]]*\]|[^/:]*)') as host
        ) h
    ) u;
end;

comment on function twilio_internal.check_urls() is 'The check of twilio.doctor about the URLs that Twilio calls.';

create function twilio_internal.check_signature()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    tried int;
    failed text[];
begin
    select
        count(*),
        coalesce(
            array_agg(format('%s %s for %s', t.account_sid, t.key_id, t.url)) filter (where not t.verifies), '{}'
        )
    into tried, failed
    from twilio_internal.try_signatures(100) t;
    if tried > 0 then
        return query select
            'signature',
            case when failed = '{}' then 'ok' else 'error' end,
            case when failed = '{}' then tried || ' pairs of key and URL sign and verify'
                else 'does not verify: ' || array_to_string(failed, ', ') end,
            case when failed <> '{}' then 'Reinstall the extension''s library.' end;
    end if;
end
$$;

comment on function twilio_internal.check_signature() is
    'The check of twilio.doctor that signs a request and verifies it.';

create function twilio_internal.raise_quarantine(kind text, max_bytes bigint)
returns text
language sql
immutable
return format('select twilio.set_quarantine(%L, max_rows => 2147483647, max_bytes => %s)', kind, greatest(2 * max_bytes, 1073741824));

comment on function twilio_internal.raise_quarantine(text, bigint) is
    'Returns the statement that raises a bound of the quarantine which was reached.';

create function twilio_internal.check_receiving(quiet_for interval)
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    last_event timestamptz;
    refused record;
    full_bound record;
begin
    select max(e.received_at) into last_event
    from (
        select x.received_at from twilio.message_event x where x.source = 'callback' order by x.event_id desc limit 1
    ) e;
    return query select
        'callbacks',
        case when last_event > twilio.now() - quiet_for then 'ok' else 'warning' end,
        coalesce('the last one came at ' || to_char(last_event, 'YYYY-MM-DD HH24:MI:SSOF'), 'none has ever come'),
        case when last_event > twilio.now() - quiet_for then null
            else 'See whether the shim runs, and whether Twilio has the URL: select twilio.status_callback_url();' end;
    select r.rejected_id, r.received_at, r.reason into refused
    from twilio_internal.rejected_callback r
    where r.is_plausible
    order by r.rejected_id desc
    limit 1;
    if refused.rejected_id is null then
        return query select 'refusals', 'ok', 'none is kept that looks like Twilio''s', null;
    else
        return query
        select 'refusals', 'warning',
            format('request %s, at %s: %s', refused.rejected_id, to_char(refused.received_at, 'YYYY-MM-DD HH24:MI:SSOF'), e.finding),
            coalesce(e.remedy, format('select * from twilio.explain_rejected(%s);', refused.rejected_id))
        from twilio.explain_rejected(refused.rejected_id) e
        limit 1;
    end if;
    select q.kind, q.kept_rows, q.max_bytes into full_bound
    from twilio.quarantine q
    where q.kind <> 'stranger' and (q.kept_rows >= q.max_rows or q.kept_bytes >= q.max_bytes * 0.9)
    order by q.kind
    limit 1;
    return query select
        'quarantine',
        case when found then 'warning' else 'ok' end,
        case
            when found then format(
                'it is full with %s requests of kind %s: further requests are only counted, or displace requests of the clients that hold most',
                full_bound.kept_rows, full_bound.kind
            )
            else 'there is room'
        end,
        case when found then
            twilio_internal.raise_quarantine(full_bound.kind, full_bound.max_bytes)
                || '; After the cause is repaired: select * from twilio.reverify_rejected();'
        end;
    -- Reported until acknowledged, since Twilio does not repeat a lost request.
    return query select
        'losses',
        case when count(*) = 0 then 'ok' else 'error' end,
        coalesce(
            string_agg(
                format(
                    '%s refused requests of kind %s were lost%s', s.lost, s.kind,
                    -- If a transaction fails, its count stays but its time does not, so the time may be null.
                    ' between ' || to_char(s.lost_since, 'YYYY-MM-DD HH24:MI:SSOF')
                        || ' and ' || to_char(s.last_lost_at, 'YYYY-MM-DD HH24:MI:SSOF')
                ),
                '; ' order by s.kind
            ),
            'no refused request that looks genuine was lost'
        ),
        case when count(*) > 0 then format(
            'Raise the bounds: %s. Compare the messages of that time with the provider''s log. Then: select twilio.acknowledge_losses();',
            string_agg(twilio_internal.raise_quarantine(s.kind, s.max_bytes), '; ' order by s.kind)
        ) end
    from twilio.quarantine_status s
    where s.kind <> 'stranger' and s.lost > 0;
end
$$;

comment on function twilio_internal.check_receiving(interval) is
    'The checks of twilio.doctor about callbacks, refusals and the quarantine.';

create function twilio_internal.check_sending()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    is_used constant boolean := exists (select from twilio.sender) or exists (select from twilio_internal.outbox);
    is_on constant boolean := twilio.is_sending();
    is_alive constant boolean := twilio_internal.is_worker_running();
    is_preloaded constant boolean :=
        current_setting('shared_preload_libraries') ~ '(^|[ ,"/])twilio_callback($|[ ,".])';
    listed constant text := coalesce(current_setting('twilio_callback.databases', true), '');
    -- Split the list as the launcher does.
    is_listed constant boolean := exists (
        select from string_to_table(listed, ',') d (name) where trim(both '"' from trim(d.name)) = current_database()
    );
    remedy_of_start text;
    waiting bigint;
    late timestamptz;
    paused text;
begin
    remedy_of_start := case
        when not is_preloaded then format(
            'Add twilio_callback to shared_preload_libraries and %s to twilio_callback.databases, then restart; or call twilio.start_worker() after each restart.',
            quote_ident(current_database())
        )
        when not is_listed then format(
            'alter system set twilio_callback.databases = %L; select pg_reload_conf();',
            concat_ws(',', nullif(trim(listed), ''), quote_ident(current_database()))
        )
    end;
    return query select
        'preload',
        case when is_alive and remedy_of_start is not null then 'warning' else 'ok' end,
        case
            when not is_preloaded then
                'twilio_callback is not in shared_preload_libraries: the worker does not start after a restart'
            when not is_listed then
                'twilio_callback is in shared_preload_libraries, but twilio_callback.databases does not list this database: the worker does not start after a restart'
            else 'twilio_callback is in shared_preload_libraries, and twilio_callback.databases lists this database'
        end,
        case when is_alive then remedy_of_start end;
    if pg_is_in_recovery() then
        return query select 'worker', 'ok', 'this server is a standby: the worker runs on the primary', null;
    else
        return query select
            'worker',
            case when is_alive or not is_used then 'ok' else 'error' end,
            case when is_alive then 'it runs' when is_used then 'it does not run: nothing is sent'
                else 'it does not run, and nothing is sent from here' end,
            case when is_used and not is_alive then concat_ws(' ', 'select twilio.start_worker();', remedy_of_start) end;
    end if;
    select count(*), min(o.due_at) filter (where o.lease_token is null) into waiting, late from twilio_internal.outbox o;
    return query select
        'sending',
        case when is_on or not is_used then 'ok' else 'warning' end,
        case
            when is_on then 'it is on'
            when twilio.is_copy() then format('this database is a copy, so sending is off; %s messages wait', waiting)
            else format('it is off, and %s messages wait', waiting)
        end,
        case when is_used and not is_on then 'select twilio.enable_sending();' end;
    select string_agg(p.account_sid || coalesce(': ' || p.reason, ''), ', ') into paused from twilio_internal.paused_account p;
    return query select
        'paused accounts',
        case when paused is null then 'ok' else 'warning' end,
        coalesce(paused, 'none'),
        case when paused is not null then 'Repair the cause, then: select twilio.resume_account(''AC…'');' end;
    return query select
        'outbox',
        case when late < twilio.now() - interval '5 minutes' and is_on and is_alive then 'warning' else 'ok' end,
        case when late < twilio.now() - interval '5 minutes' then 'work is due since ' || to_char(late, 'YYYY-MM-DD HH24:MI:SSOF')
            else format('%s messages in it, none late', waiting) end,
        case when late < twilio.now() - interval '5 minutes' and is_on and is_alive then
            'See twilio_internal.attempt for what the last tries came to, and the senders'' rates.'
        end;
end
$$;

comment on function twilio_internal.check_sending() is
    'The checks of twilio.doctor about the worker, the switch and the outbox.';

create function twilio_internal.check_clock()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select 'clock', case when count(*) > 0 then 'warning' else 'ok' end,
        case
            when count(*) > 0 then format(
                '%s are dated later than now, the latest %s: the clock was ahead when they were written, or is behind now',
                string_agg(f.n || ' ' || f.what, ', ' order by f.what), to_char(max(f.latest), 'YYYY-MM-DD HH24:MI:SSOF')
            )
            else 'nothing is dated later than now'
        end,
        case when count(*) > 0 then
            'Correct the server''s clock and keep it synchronized, for example with chrony. If the clock is correct now, no action is needed: the worker counts retries and leases from now.'
        end
    from twilio_internal.future_rows() f;
end;

comment on function twilio_internal.check_clock() is 'The check of twilio.doctor about rows that are dated later than now.';

create function twilio_internal.check_catalog()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    of_public text;
    of_others text;
    unregistered text;
    installed text;
    is_durable constant boolean := current_setting('synchronous_commit') <> 'off';
begin
    select string_agg(distinct o.name, ', ') into of_public
    from (
        select c.oid::regclass::text, c.relacl
        from pg_class c where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace, 'twilio_api'::regnamespace)
        union all
        select p.oid::regprocedure::text, p.proacl
        from pg_proc p where p.pronamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace, 'twilio_api'::regnamespace)
        union all
        select 'schema ' || n.nspname, n.nspacl from pg_namespace n where n.nspname in ('twilio', 'twilio_internal', 'twilio_api')
    ) o (name, acl)
    cross join lateral aclexplode(o.acl) a
    where a.grantee = 0;
    select string_agg(distinct format('%s reads %s', r.rolname, s.name), ', ') into of_others
    from (
        select format('%s.%s', a.attrelid::regclass, a.attname), a.attrelid, a.attnum, c.relowner
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        where c.relnamespace in ('twilio'::regnamespace, 'twilio_internal'::regnamespace) and c.relkind = 'r' and not a.attisdropped and a.attnum > 0
            and a.attname ~ '^(secret|api_key_secret|password|passphrase)$'
    ) s (name, relation, attribute, owner)
    join pg_roles r on not r.rolsuper and r.rolname !~ '^pg_' and not pg_has_role(r.oid, s.owner, 'member')
    where has_column_privilege(r.oid, s.relation, s.attribute, 'select');
    return query select
        'privileges',
        case when of_public is null and of_others is null then 'ok' else 'error' end,
        coalesce(
            nullif(concat_ws('; ', 'PUBLIC has rights on ' || of_public, of_others), ''),
            'nothing is public, and no other role reads a secret'
        ),
        case when of_public is not null or of_others is not null then
            'Revoke what is named, and grant by twilio.grant_front, grant_read, grant_send and grant_admin.'
        end;
    -- Tables about transactions are not dumped, nor is what must not hold in a copy: the switch, and what is expected of Twilio.
    select string_agg(c.oid::regclass::text, ', ') into unregistered
    from pg_extension e
    join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relkind in ('r', 'S')
    where e.extname = 'twilio_callback'
        and not c.oid = any (coalesce(e.extconfig, '{}'))
        and c.relname not in (
            'sending', 'worker', 'open_gap', 'feed_state', 'feed_position', 'tick', 'tick_tick_id_seq', 'reconciliation_mark'
        );
    return query select
        'dump',
        case when unregistered is null then 'ok' else 'error' end,
        coalesce('pg_dump leaves out the rows of ' || unregistered, 'pg_dump takes all that it should'),
        case when unregistered is not null then 'Drop what was added to the extension by hand, or: alter extension twilio_callback update;' end;
    select e.extversion into installed from pg_extension e where e.extname = 'twilio_callback';
    return query select
        'version',
        case when installed = twilio.version() then 'ok' else 'error' end,
        case when installed = twilio.version() then installed
            else format('the library is %s, its functions are of %s', twilio.version(), installed) end,
        case when installed <> twilio.version() then 'alter extension twilio_callback update;' end;
    return query select
        'durability',
        case when is_durable then 'ok' else 'warning' end,
        'synchronous_commit is ' || current_setting('synchronous_commit'),
        case when not is_durable then
            'A crash would lose callbacks that were answered through other fronts than the shim, which sets it on: alter system reset synchronous_commit;'
        end;
end
$$;

comment on function twilio_internal.check_catalog() is
    'The checks of twilio.doctor about privileges, dumps, versions and durability.';

create function twilio_internal.check_tables()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
volatile
begin atomic
    with found as materialized (
        select d.is_fatal, d.difference, d.remedy from twilio_internal.table_differences() d
    )
    select 'tables', case when f.is_fatal then 'error' else 'warning' end, f.difference, f.remedy from found f
    union all
    select 'tables', 'ok', 'message and message_event are defined as callbacks require', null
    where not exists (select from found);
end;

comment on function twilio_internal.check_tables() is
    'The check of twilio.doctor about the tables that are written below SQL: one row for each difference from their definition.';

create function twilio_internal.check_references()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    missing text;
begin
    -- Triggers check all rows except those of a restore.
    if not twilio.is_copy() then
        return;
    end if;
    select string_agg(format('%s of "%s" refer to missing rows of "%s"', o.row_count, o.table_name, o.referred), ', ') into missing
    from twilio_internal.orphans() o;
    return query select
        'references',
        case when missing is null then 'ok' else 'error' end,
        coalesce('references are broken: ' || missing, 'all rows that others refer to are here'),
        case when missing is not null then
            'The restore was not complete. Restore again into an empty database, with pg_restore --exit-on-error.' end;
end
$$;

comment on function twilio_internal.check_references() is
    'The check of twilio.doctor about rows that a restore left out; no row unless the database is a copy.';

create function twilio_internal.setting_of(role oid, name text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    value text;
begin
    select substring(c.pair from '=(.*)$') into value
    from pg_db_role_setting s
    cross join unnest(s.setconfig) c (pair)
    where s.setrole in (0, role)
        and (s.setdatabase = 0 or s.setdatabase = (select d.oid from pg_database d where d.datname = current_database()))
        and split_part(c.pair, '=', 1) = name
    order by s.setrole = 0, s.setdatabase = 0
    limit 1;
    if value is not null then
        return value;
    end if;
    -- The session's value may come from its role or from the session itself.
    select case
            when s.source in ('default', 'environment variable', 'configuration file', 'command line') then s.reset_val
        end
    into value
    from pg_settings s
    where s.name = setting_of.name;
    if value is null and has_function_privilege('pg_show_all_file_settings()', 'execute') then
        select f.setting into value from pg_file_settings f where f.name = setting_of.name and f.applied;
    end if;
    return coalesce(value, (select s.boot_val from pg_settings s where s.name = setting_of.name));
end
$$;

comment on function twilio_internal.setting_of(oid, text) is
    'Returns what a setting is for a role''s connections to this database, as far as that can be seen.';

create function twilio_internal.check_log()
returns table ("check" text, verdict text, detail text, remedy text)
language sql
stable
begin atomic
    select 'parameters',
        case when count(*) > 0 then 'warning' else 'ok' end,
        coalesce(
            'parameters (signatures and texts) of these roles are logged: ' || string_agg(r.rolname, ', ' order by r.rolname),
            'parameters of delivering roles are not logged'
        ),
        min(format(
            'alter role %I in database %I set log_parameter_max_length = 0; alter role %1$I in database %2$I set log_parameter_max_length_on_error = 0; then reconnect the role.',
            r.rolname, current_database()
        ))
    from pg_catalog.pg_roles r
    where r.rolcanlogin and not r.rolsuper
        and has_function_privilege(r.oid, 'twilio.receive(text[], text[], text[], bytea[], text[])', 'execute')
        and not pg_has_role(
            r.oid, (select e.extowner from pg_catalog.pg_extension e where e.extname = 'twilio_callback'), 'member'
        )
        and (
            twilio_internal.setting_of(r.oid, 'log_parameter_max_length') !~ '^0'
                and (
                    twilio_internal.setting_of(r.oid, 'log_statement') = 'all'
                    or twilio_internal.setting_of(r.oid, 'log_min_duration_statement') !~ '^-'
                    or twilio_internal.setting_of(r.oid, 'log_min_duration_sample') !~ '^-'
                    or twilio_internal.setting_of(r.oid, 'log_transaction_sample_rate')::double precision > 0
                )
            or twilio_internal.setting_of(r.oid, 'log_parameter_max_length_on_error') !~ '^0'
        );
end;

comment on function twilio_internal.check_log() is
    'The check of twilio.doctor about what the server logs of the roles that deliver.';

create function twilio_internal.check_phones()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    refused record;
begin
    if not exists (select from twilio.smsgate) then
        return;
    end if;
    -- Requests without the signature of a phone count as those of strangers.
    select r.rejected_id, r.received_at, e.finding, e.remedy into refused
    from (
        select c.rejected_id, c.received_at
        from twilio_internal.rejected_callback c
        where c.url = '/smsgate'
        order by c.rejected_id desc
        limit 100
    ) r
    cross join lateral twilio.explain_rejected(r.rejected_id) e
    where e.finding not like 'it has no signature %'
    order by r.rejected_id desc
    limit 1;
    return query select
        'phones',
        case when refused.rejected_id is null then 'ok' else 'warning' end,
        case when refused.rejected_id is null then 'no refused webhook of a phone is kept'
            else format(
                'request %s, at %s: %s', refused.rejected_id, to_char(refused.received_at, 'YYYY-MM-DD HH24:MI:SSOF'),
                refused.finding
            )
        end,
        refused.remedy;
end
$$;

comment on function twilio_internal.check_phones() is
    'The check of twilio.doctor about webhooks of phones that were refused; no row without a gateway.';

create function twilio_internal.check_owners()
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found text;
    owner oid;
begin
    select e.extowner into owner from pg_extension e where e.extname = 'twilio_callback';
    select string_agg(format('schema %s: %s', n.name, t), '; ' order by n.name, t) into found
    from (values (name 'twilio'), (name 'twilio_internal'), (name 'twilio_api')) n (name)
    cross join lateral twilio_internal.schema_findings(n.name, owner) t;
    return query select
        'owners',
        case when found is null then 'ok' else 'error' end,
        coalesce(found, format('only %I and superusers can change the schemas', pg_get_userbyid(owner))),
        case when found is not null then
            format(
                'Functions in these schemas run with the rights of their callers. Drop objects that do not belong to the extension, then run, as needed: '
                'alter schema … owner to %I; revoke create on schema … from …;',
                pg_get_userbyid(owner)
            )
        end;
end
$$;

comment on function twilio_internal.check_owners() is
    'The check of twilio.doctor about who can create objects in the extension''s schemas.';

create function twilio.doctor(quiet_for interval default '24 hours')
returns table ("check" text, verdict text, detail text, remedy text)
language plpgsql
volatile
-- Callers with grant_admin have no privileges on keys and requests that the checks use.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select
        c."check", c.verdict, c.detail,
        -- A standby is read-only.
        case when pg_is_in_recovery() then 'On the primary: ' else '' end || c.remedy
    from (
        select k.* from twilio_internal.check_keys() k
        union all
        select k.* from twilio_internal.check_urls() k
        union all
        select k.* from twilio_internal.check_signature() k
        union all
        select k.* from twilio_internal.check_receiving(quiet_for) k
        union all
        select k.* from twilio_internal.check_sending() k
        union all
        select k.* from twilio_internal.check_unknown() k
        union all
        select k.* from twilio_internal.check_gaps() k
        union all
        select k.* from twilio_internal.check_reconciliation() k
        union all
        select k.* from twilio_internal.check_alerts() k
        union all
        select k.* from twilio_internal.check_events() k
        union all
        select k.* from twilio_internal.check_event_sinks() k
        union all
        select k.* from twilio_internal.check_clock() k
        union all
        select k.* from twilio_internal.check_catalog() k
        union all
        select k.* from twilio_internal.check_tables() k
        union all
        select k.* from twilio_internal.check_references() k
        union all
        select k.* from twilio_internal.check_log() k
        union all
        select k.* from twilio_internal.check_owners() k
        union all
        select k.* from twilio_internal.check_phones() k
    ) c;
end
$$;

comment on function twilio.doctor(interval) is
    'Checks the installation: one row a check with its verdict (ok, warning or error), what was found, and what to do. Callbacks are missed when none came for quiet_for.';
