-- Redaction: blanks texts, addresses and wordings before the messages themselves are purged.
-- No search_path in twilio.redact, since a procedure that sets it cannot commit. It qualifies all names.

create function twilio_internal.is_personal(message twilio.message)
returns boolean
language sql
immutable
return num_nonnulls(
    (message).body, (message).media_urls, (message).from_address, (message).to_address, (message).metadata,
    (message).twilio_parameters, (message).error_message, (message).idempotency_key, (message).status_callback
) > 0;

comment on function twilio_internal.is_personal(twilio.message) is
    'Returns whether a message still has data that twilio.redact blanks.';

create function twilio_internal.is_about(message twilio.message, person text)
returns boolean
language sql
stable
return person is null
    or twilio.person_key((message).to_address) = person
    or twilio.person_key(
        (message).from_address,
        case when (message).from_address not like '%+%' then twilio_internal.country_of(message) end
    ) = person;

comment on function twilio_internal.is_about(twilio.message, text) is
    'Returns whether a message is from or to the person with a key; true for null.';

create function twilio_internal.must_examine_all(person text)
returns boolean
language plpgsql
stable
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    -- Only numbers are persons. The senders of outgoing messages have no index: they are addresses of ours, which have a row of
    -- twilio.sender or have received messages. A number of which nothing is known is a person's, whose request has to be answered
    -- soon.
    return person is null
        or person not like '+%'
        or exists (select from twilio.sender s where twilio.person_key(s.address) = person)
        -- Not "= 'inbound'", which would allow indexes of incoming messages that do not begin with the recipient.
        or exists (select from twilio.message m where m.to_address = person and m.direction <> 'outbound')
        or exists (
            select
            from twilio.message m
            where twilio.person_key(m.to_address) = person and twilio.person_key(m.to_address) <> m.to_address
                and m.direction <> 'outbound'
        );
end
$$;

comment on function twilio_internal.must_examine_all(text) is
    'Returns whether twilio.redact must examine all messages to find those of an address; otherwise indexes find them.';

create function twilio_internal.redactable_after(
    after_at timestamptz,
    after_id bigint,
    quiet_since timestamptz,
    person text,
    is_all boolean,
    batch_rows int,
    out last_at timestamptz,
    out last_id bigint,
    out ids bigint[],
    out roots bigint[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- As in twilio_internal.finished_after. Only rows with something to blank are locked, since a row lock is a write.
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
    if is_all then
        select array_agg(m.message_id order by m.message_id)
        into ids
        from (
            select m.message_id
            from twilio.message m
            where m.message_id > after_id
            order by m.message_id
            limit batch_rows
        ) m;
    else
        select array_agg(m.message_id order by m.created_at, m.message_id)
        into ids
        from (
            (
                select m.created_at, m.message_id
                from twilio.message m
                where m.to_address = person
                    and (m.created_at, m.message_id) > (after_at, after_id) and m.created_at < quiet_since
                order by m.created_at, m.message_id
                limit batch_rows
            )
            union
            (
                select m.created_at, m.message_id
                from twilio.message m
                where twilio.person_key(m.to_address) = person and twilio.person_key(m.to_address) <> m.to_address
                    and (m.created_at, m.message_id) > (after_at, after_id) and m.created_at < quiet_since
                order by m.created_at, m.message_id
                limit batch_rows
            )
            union
            (
                select m.created_at, m.message_id
                from twilio.message m
                where twilio.person_key(m.from_address) = person and m.direction = 'inbound'
                    and (m.created_at, m.message_id) > (after_at, after_id) and m.created_at < quiet_since
                order by m.created_at, m.message_id
                limit batch_rows
            )
            union
            (
                select m.created_at, m.message_id
                from twilio.message m
                -- The person of a national number depends on the country.
                where m.direction = 'inbound' and m.from_address not like '%+%'
                    and (m.created_at, m.message_id) > (after_at, after_id) and m.created_at < quiet_since
                order by m.created_at, m.message_id
                limit batch_rows
            )
            order by 1, 2
            limit batch_rows
        ) m;
    end if;
    last_id := ids[cardinality(ids)];
    select m.created_at into last_at from twilio.message m where m.message_id = last_id;
    select coalesce(array_agg(m.message_id), '{}'), coalesce(array_agg(distinct m.root_id), '{}')
    into ids, roots
    from twilio.message m
    where m.message_id = any (ids) and m.created_at < quiet_since
        and twilio_internal.is_personal(m) and twilio_internal.is_about(m, person);
end
$$;

comment on function twilio_internal.redactable_after(timestamptz, bigint, timestamptz, text, boolean, int) is
    'Finds the next messages that have data to blank, with their chains, without locking them, and the last message that it examined; last_id is null at the end. If is_all, it examines all messages in the order of their ids, else those of the person in the order of their creation.';

create function twilio_internal.redact_batch(
    after_at timestamptz,
    after_id bigint,
    quiet_since timestamptz,
    person text,
    is_all boolean,
    batch_rows int,
    out last_at timestamptz,
    out last_id bigint,
    out redacted bigint,
    out left_open bigint
)
language plpgsql
volatile
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    found_ids bigint[];
    roots bigint[];
    ids bigint[];
begin
    select f.last_at, f.last_id, f.ids, f.roots
    into last_at, last_id, found_ids, roots
    from twilio_internal.redactable_after(after_at, after_id, quiet_since, person, is_all, batch_rows) f;
    redacted := 0;
    left_open := 0;
    if roots = '{}' then
        return;
    end if;
    ids := twilio_internal.lock_finished(roots, quiet_since, false);
    ids := array(
        select m.message_id
        from twilio.message m
        where m.message_id = any (ids) and twilio_internal.is_personal(m) and twilio_internal.is_about(m, person)
    );
    update twilio.message m
    set body = null, media_urls = null, from_address = null, to_address = null, metadata = null,
        twilio_parameters = null, error_message = null, idempotency_key = null, status_callback = null
    where m.message_id = any (ids);
    -- Only status, result and source remain. Wordings are blanked, since they may quote numbers.
    update twilio.message_event e
    set params = (
        select coalesce(jsonb_object_agg(p.key, case when p.key <> 'ErrorUrl' then p.value else 'null' end), '{}')
        from jsonb_each(e.params) p
        where p.key in (
            'AccountSid', 'MessageSid', 'SmsSid', 'SmsMessageSid', 'MessagingServiceSid', 'MessageStatus',
            'SmsStatus', 'ErrorCode', 'ErrorUrl', 'NumMedia', 'NumSegments', 'ApiVersion', 'RawDlrDoneDate'
        )
    )
    where e.message_id = any (ids);
    update twilio_internal.attempt a
    set response = null, reason = null
    where a.message_id = any (ids) and (a.response is not null or a.reason is not null);
    update twilio_internal.fallback f
    set problem = null
    where f.message_id = any (ids) and f.problem is not null;
    update twilio_internal.smsgate_message p
    set sealed_to = null, sealed_body = null
    where p.message_id = any (ids) and p.sealed_to is not null;
    delete from twilio_internal.message_hours h where h.message_id = any (ids);
    delete from twilio.reply r where r.message_id = any (ids);
    delete from twilio.message_media f where f.message_id = any (ids);
    perform twilio_internal.redact_events(ids);
    redacted := cardinality(ids);
    select count(*)
    into left_open
    from twilio.message m
    where m.message_id = any (found_ids) and twilio_internal.is_personal(m);
end
$$;

comment on function twilio_internal.redact_batch(timestamptz, bigint, timestamptz, text, boolean, int) is
    'Does one batch of twilio.redact.';

create function twilio_internal.names_person(kept twilio_internal.rejected_callback, person text)
returns boolean
language sql
immutable
begin atomic
    -- Without the plus sign, whose encoding differs, a number is written alike in a form, in JSON and in a query.
    select exists (
        select
        from unnest(twilio_internal.number_forms(names_person.person)) f (form)
        where position(convert_to(f.form, 'UTF8') in (names_person.kept).body) > 0
            or position(f.form in (names_person.kept).url) > 0
    );
end;

comment on function twilio_internal.names_person(twilio_internal.rejected_callback, text) is
    'Returns whether a refused request contains a number of the person with a key.';

create function twilio_internal.redact_rejected_batch(
    after_id bigint,
    quiet_since timestamptz,
    person text,
    batch_rows int,
    out last_id bigint,
    out removed bigint
)
language plpgsql
volatile
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    ids bigint[];
begin
    select
        max(r.rejected_id),
        array_agg(r.rejected_id) filter (
            where case
                when person is not null then twilio_internal.names_person(r, person)
                -- A repeated event of a blanked message.
                else exists (
                    select
                    from twilio.message m
                    where m.message_sid = substring(
                            encode(r.body, 'escape') || '&' || r.url from '\m((?:SM|MM)[0-9a-fA-F]{32})\M'
                        )
                        and m.created_at < quiet_since and not twilio_internal.is_personal(m)
                )
            end
        )
    into last_id, ids
    from (
        select c.*
        from twilio_internal.rejected_callback c
        where c.rejected_id > after_id and c.received_at < quiet_since
        order by c.rejected_id
        limit batch_rows
    ) r;
    removed := twilio_internal.drop_rejected(coalesce(ids, '{}'));
end
$$;

comment on function twilio_internal.redact_rejected_batch(bigint, timestamptz, text, int) is
    'Does one batch of twilio.redact on the quarantine.';

create function twilio_internal.redact_feed(quiet_since timestamptz, person text)
returns void
language plpgsql
volatile
-- As in twilio_internal.purge_batch.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if person is not null then
        perform twilio_internal.redact_events_of(person, quiet_since);
    end if;
    -- A consumer's error may quote the event.
    update twilio.feed_dead_letter l
    set error = null
    from twilio.message m
    where l.error is not null and m.message_id = l.message_id
        and m.created_at < quiet_since and not twilio_internal.is_personal(m);
    update twilio_internal.feed_delivery d
    set error = null
    from twilio.message m
    where d.error is not null and m.message_id = d.message_id
        and m.created_at < quiet_since and not twilio_internal.is_personal(m);
    update twilio_internal.feed_event e
    set data = e.data || '{"address": null}'
    where e.created_at < quiet_since
        and e.data ->> 'address' is not null
        and (
            person is null
            or twilio.person_key(e.data ->> 'address') = person
            -- A national number, whose country the suppression had.
            or exists (
                select
                from twilio.suppression s
                where s.person_key = person and s.address = e.data ->> 'address'
            )
        );
end
$$;

comment on function twilio_internal.redact_feed(timestamptz, text) is
    'Blanks data of blanked messages in the feed and its dead letters, and addresses in its events of suppressions.';

-- As twilio.purge, it commits after each batch.
create procedure twilio.redact(
    older_than interval,
    address text default null,
    batch_rows int default 1000,
    effort double precision default 0.2
)
language plpgsql
as $$
declare
    quiet_since constant timestamptz := twilio_internal.check_age(older_than, batch_rows, effort);
    person constant text := twilio.person_key(address);
    -- Decided once: each batch blanks addresses.
    is_all constant boolean := twilio_internal.must_examine_all(person);
    began timestamptz;
    told_at timestamptz := pg_catalog.clock_timestamp();
    after_at timestamptz := '-infinity';
    after_id bigint := 0;
    wanted_rows int := least(20, batch_rows);
    batch record;
    total bigint := 0;
    total_before bigint := 0;
    total_open bigint := 0;
    rejected bigint := 0;
begin
    loop
        began := pg_catalog.clock_timestamp();
        call twilio_internal.disable_synchronous_commit();
        select b.last_at, b.last_id, b.redacted, b.left_open
        into batch
        from twilio_internal.redact_batch(after_at, after_id, quiet_since, person, is_all, wanted_rows) b;
        if batch.last_id is null then
            -- A late event may have changed the creation time of a message that was still to come.
            exit when is_all or total = total_before;
            total_before := total;
            total_open := 0;
            after_at := '-infinity';
            after_id := 0;
            continue;
        end if;
        after_at := batch.last_at;
        after_id := batch.last_id;
        total := total + batch.redacted;
        total_open := total_open + batch.left_open;
        commit;
        wanted_rows := twilio_internal.next_batch_rows(wanted_rows, pg_catalog.clock_timestamp() - began, batch_rows);
        call twilio_internal.throttle(began, effort);
        if told_at < pg_catalog.clock_timestamp() - interval '10 s' then
            told_at := pg_catalog.clock_timestamp();
            raise notice '% messages redacted, examined those up to %', total, after_id;
        end if;
    end loop;
    -- From here on, commits are durable again.
    commit;
    after_id := 0;
    loop
        began := pg_catalog.clock_timestamp();
        select b.last_id, b.removed
        into batch
        from twilio_internal.redact_rejected_batch(after_id, quiet_since, person, wanted_rows) b;
        exit when batch.last_id is null;
        after_id := batch.last_id;
        rejected := rejected + batch.removed;
        commit;
        wanted_rows := twilio_internal.next_batch_rows(wanted_rows, pg_catalog.clock_timestamp() - began, batch_rows);
        call twilio_internal.throttle(began, effort);
    end loop;
    after_id := 0;
    while person is null and after_id is not null loop
        began := pg_catalog.clock_timestamp();
        after_id := twilio_internal.redact_event_batch(after_id, quiet_since, wanted_rows);
        commit;
        wanted_rows := twilio_internal.next_batch_rows(wanted_rows, pg_catalog.clock_timestamp() - began, batch_rows);
        call twilio_internal.throttle(began, effort);
    end loop;
    -- Last, and with a durable commit, which needs a write: all data that was reported as blanked is blanked then.
    perform twilio_internal.redact_feed(quiet_since, person);
    perform pg_catalog.pg_logical_emit_message(true, 'twilio_callback', 'redacted');
    commit;
    raise notice '% messages redacted and % refused requests removed, % messages left that are not finished',
        total, rejected, total_open;
end
$$;

comment on procedure twilio.redact(interval, text, int, double precision) is
    'Blanks text, addresses, media, wordings and callers'' data of finished messages, also in their events, those of the provider included, attempts and replies, if they had no event for a time; all messages, or those from or to an address. Refused requests that name such a message or the address are deleted. The state of messages stays.';
