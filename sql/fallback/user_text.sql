-- Texts of fallbacks from users' functions and views, called by the process that calls handlers.

create function twilio_internal.call_function(
    function text,
    argument jsonb,
    run_as text,
    search_path text,
    purpose text default null,
    subject bigint default null,
    detail text default null
)
returns text
language c
volatile
as 'MODULE_PATHNAME', 'call_function_wrapper';

comment on function twilio_internal.call_function(text, jsonb, text, text, text, bigint, text) is
    'Calls a user''s function as its role, with its search path. It is canceled after twilio_callback.handler_timeout, or the session''s own statement_timeout; if it catches that, the process ends one second later and calls record_overrun(purpose, subject, detail).';

create function twilio_internal.read_source_row(
    relation text,
    message_sid text,
    run_as text,
    purpose text default null,
    subject bigint default null
)
returns text
language c
volatile
as 'MODULE_PATHNAME', 'read_source_row_wrapper';

comment on function twilio_internal.read_source_row(text, text, text, text, bigint) is
    'Returns the row of a message in a user''s view as JSON, read as the view''s owner; null if there is none.';

create function twilio_internal.has_text()
returns boolean
language sql
stable
begin atomic
    -- min() reads the first entry of the index, whereas "exists" may read the whole table.
    select coalesce(
        (select min(f.due_at) from twilio_internal.fallback f where f.is_preparing and f.stage <> 'twilio') <= twilio.now(), false
    )
    and twilio.is_sending();
end;

comment on function twilio_internal.has_text() is
    'Returns whether a user''s function is due to be called for the text of a fallback.';

create function twilio_internal.run_text_step(job twilio_internal.fallback)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from twilio_internal.outbox o where o.message_id = job.message_id) then
        -- An expired or canceled message needs no text any more.
        update twilio_internal.fallback f set is_preparing = false, due_at = 'infinity' where f.message_id = job.message_id;
    elsif job.stage = 'source' then
        perform twilio_internal.read_message_source(job);
    else
        perform twilio_internal.write_text(job);
    end if;
end
$$;

comment on function twilio_internal.run_text_step(twilio_internal.fallback) is
    'Does the work of twilio_internal.run_text for one fallback, whose row is locked.';

create function twilio_internal.run_text()
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    taken bigint[];
    job twilio_internal.fallback;
begin
    if not twilio.is_sending() then
        return false;
    end if;
    taken := twilio_internal.claim_due(
        'text',
        $q$select array(
            select f.message_id
            from twilio_internal.fallback f
            where f.is_preparing and f.stage <> 'twilio' and f.due_at <= twilio.now() and not f.message_id = any ($2)
            order by f.due_at
            limit $1
            for update skip locked
        )$q$,
        -- It is postponed if its step fails. A user's function is only called for rows that can be written.
        $q$update twilio_internal.fallback f set due_at = $2 where f.message_id = any ($1) returning f.message_id$q$,
        1, twilio.now() + interval '10 seconds'
    );
    if taken = '{}' then
        return false;
    end if;
    select f.* into job from twilio_internal.fallback f where f.message_id = taken[1];
    begin
        perform twilio_internal.run_text_step(job);
    exception
        when others then
            -- A lock or a user's trigger prevented this one. The error's text is not shown, since it may quote the message.
            raise warning 'the text of message % is left for later: SQLSTATE %', job.message_id, sqlstate;
    end;
    return true;
end
$$;

comment on function twilio_internal.run_text() is
    'Gets the text of the next due fallback from a user''s function or view; returns false if none is due or all are locked. It handles one fallback per transaction.';

create function twilio_internal.source_answer(root twilio.message, for_message_id bigint)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    name constant text := current_setting('twilio_callback.message_source');
    found_as text;
    holder text;
begin
    select format('%I.%I', n.nspname, p.proname), pg_get_userbyid(p.proowner)
    into found_as, holder
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where p.oid = to_regprocedure(name || '(jsonb)') and p.prokind = 'f' and not p.proretset;
    -- Called as its owner, so that it does not run with rights that its owner lacks.
    if found then
        return twilio_internal.call_function(
            found_as,
            jsonb_build_object(
                'message_sid', root.message_sid, 'account_sid', root.account_sid, 'channel', root.channel,
                'from_address', root.from_address, 'to_address', root.to_address
            ),
            holder, 'pg_catalog, pg_temp', 'source', for_message_id
        )::jsonb;
    end if;
    select format('%I.%I', n.nspname, c.relname), pg_get_userbyid(c.relowner)
    into found_as, holder
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = to_regclass(name) and c.relkind in ('r', 'v', 'm', 'p', 'f');
    if found then
        return twilio_internal.read_source_row(found_as, root.message_sid, holder, 'source', for_message_id)::jsonb;
    end if;
    raise exception using
        errcode = 'undefined_object',
        message = format('twilio_callback.message_source must name a function of one jsonb or a view, not "%s"', name),
        hint = 'Name it with its schema.';
end
$$;

comment on function twilio_internal.source_answer(twilio.message, bigint) is
    'Returns the row about a fallback''s original from the function or view of twilio_callback.message_source; null if there is none.';

create function twilio_internal.lock_chain(message_id bigint)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- A longer lock on one of them must not delay other texts.
set lock_timeout = '200ms'
as $$
begin
    -- Lock order: outbox before message; then the chain from its root on.
    perform from twilio_internal.outbox o where o.message_id = lock_chain.message_id for update;
    if not found then
        return false;
    end if;
    perform from twilio.message m
    where m.root_id = (select x.root_id from twilio.message x where x.message_id = lock_chain.message_id)
    order by m.message_id
    for no key update;
    return true;
end
$$;

comment on function twilio_internal.lock_chain(bigint) is
    'Locks a message''s row of the outbox and its chain; returns false if it has left the outbox.';

create function twilio_internal.request_original(message_id bigint, trouble text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update twilio_internal.fallback f
    set stage = 'twilio', due_at = twilio.now(), problem = left(trouble, 500)
    where f.message_id = request_original.message_id;
    perform twilio_internal.wake_worker();
end
$$;

comment on function twilio_internal.request_original(bigint, text) is
    'Makes the worker fetch the original of a fallback from Twilio, after the user''s source failed or returned nothing.';

create function twilio_internal.fail_text(message_id bigint, trouble text)
returns void
language sql
volatile
begin atomic
    -- It is retried until the message expires.
    update twilio_internal.fallback f
    set tries = least(f.tries + 1, 100),
        due_at = twilio.now() + least(interval '2 seconds' * power(2, least(f.tries, 8)), interval '5 minutes'),
        problem = left(trouble, 500)
    where f.message_id = fail_text.message_id;
end;

comment on function twilio_internal.fail_text(bigint, text) is
    'Records a failed attempt to make a fallback''s text; it is retried until the message expires.';

create function twilio_internal.read_message_source(job twilio_internal.fallback)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    child twilio.message;
    answer jsonb;
    dated timestamptz;
    media text[];
    trouble text;
begin
    begin
        select twilio_internal.source_answer(r, m.message_id) into answer
        from twilio.message m
        join twilio.message r on r.message_id = m.root_id
        where m.message_id = job.message_id;
        dated := (answer ->> 'created_at')::timestamptz;
        media := case
            when jsonb_typeof(answer -> 'media_urls') = 'array' then
                array(select u from jsonb_array_elements_text(answer -> 'media_urls') u)
        end;
        if answer is not null and dated is null then
            trouble := 'twilio_callback.message_source gave no created_at';
        end if;
    exception
        -- If a user's function fails in any way, running too long included, Twilio is asked instead.
        when query_canceled or assert_failure or others then
            get stacked diagnostics trouble = message_text;
            dated := null;
    end;
    if dated is null then
        perform twilio_internal.request_original(job.message_id, trouble);
        return;
    end if;
    if not twilio_internal.lock_chain(job.message_id) then
        return;
    end if;
    select m.* into child from twilio.message m where m.message_id = job.message_id;
    perform twilio_internal.compose_fallback(
        job, child, nullif(answer ->> 'body', ''), coalesce(cardinality(media), 0), dated, nullif(media, '{}')
    );
end
$$;

comment on function twilio_internal.read_message_source(twilio_internal.fallback) is
    'Gets date and text of an original from the user''s own source, or leaves it to Twilio if the source returns nothing.';

create function twilio_internal.write_text(job twilio_internal.fallback)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    rule twilio.fallback_rule;
    child twilio.message;
    root twilio.message;
    failed twilio.message;
    origin twilio.sender;
    carries_media boolean;
    content text;
    trouble text;
begin
    select m.* into child from twilio.message m where m.message_id = job.message_id;
    select m.* into root from twilio.message m where m.message_id = child.root_id;
    select m.* into failed from twilio.message m where m.message_id = twilio_internal.replaced_message(child);
    select r.* into rule from twilio.fallback_rule r where r.rule_id = job.rule_id;
    if rule.text_function is not null then
        begin
            content := twilio_internal.call_function(
                rule.text_function,
                jsonb_build_object(
                    'rule', rule.name, 'root_id', root.message_id, 'message_id', child.message_id,
                    'provider', child.provider, 'channel', child.channel, 'from_address', child.from_address,
                    'to_address', child.to_address, 'body', root.body, 'media_urls', root.media_urls,
                    'status', failed.status, 'error_code', failed.error_code, 'metadata', root.metadata
                ),
                rule.run_as::text, rule.search_path, 'text', job.message_id
            );
        exception
            when query_canceled or assert_failure or others then
                get stacked diagnostics trouble = message_text;
        end;
        if trouble is not null then
            perform twilio_internal.fail_text(job.message_id, trouble);
            return;
        end if;
    end if;
    if not twilio_internal.lock_chain(job.message_id) then
        return;
    end if;
    select s.* into origin
    from twilio_internal.outbox o
    join twilio.sender s on s.sender_id = o.sender_id
    where o.message_id = job.message_id;
    carries_media := rule.media = 'send' and origin.can_send_media;
    if rule.rule_id is null then
        perform twilio_internal.end_fallback(job.message_id, 'canceled', 'its rule was deleted');
        return;
    elsif rule.text_function is null then
        -- The rule has returned to its template since the fallback was planned.
        content := twilio_internal.fallback_text(rule, root.body, root.media_urls, origin.can_send_media);
    elsif content !~ '\S' then
        content := null;
    end if;
    if content is not null or rule.text_function is null and carries_media and cardinality(root.media_urls) > 0 then
        perform twilio_internal.release_fallback(job, rule, content, child.expires_at, carries_media);
    else
        perform twilio_internal.end_fallback(
            job.message_id, 'refused', coalesce(rule.text_function || ' gave no text', 'the original has no text any more')
        );
    end if;
end
$$;

comment on function twilio_internal.write_text(twilio_internal.fallback) is
    'Calls the rule''s function for the text of a fallback; if it raises an error, it is called again until the message expires.';
