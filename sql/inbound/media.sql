-- Files of incoming messages, fetched by the worker where twilio_callback.fetch_media is on.

create table twilio.message_media (
    media_id bigint generated always as identity primary key,
    message_id bigint not null,
    place smallint not null
        constraint place_is_not_negative check (place >= 0),
    url text not null,
    content_type text,
    content bytea,
    fetched_at timestamptz,
    converted_at timestamptz,
    failed_at timestamptz,
    error text,
    tries smallint not null default 0,
    due_at timestamptz,
    constraint message_media_is_listed_once unique (message_id, place),
    constraint content_is_what_was_fetched check ((content is null) = (fetched_at is null)),
    constraint due_is_what_is_not_over check (due_at is null or (fetched_at is null and failed_at is null))
);

-- Files are compressed already.
alter table twilio.message_media alter column content set storage external;

create index message_media_due_at on twilio.message_media (due_at) where due_at is not null;

comment on table twilio.message_media is 'Files of incoming messages, fetched or to be fetched.';
comment on column twilio.message_media.media_id is 'Our identifier.';
comment on column twilio.message_media.message_id is 'The message.';
comment on column twilio.message_media.place is 'Number of the file in its message, from 0.';
comment on column twilio.message_media.url is 'URL of the file at Twilio.';
comment on column twilio.message_media.content_type is 'Media type: first the announced one, then that of the fetched or converted file.';
comment on column twilio.message_media.content is 'Content; null until it is fetched.';
comment on column twilio.message_media.fetched_at is 'When it was fetched.';
comment on column twilio.message_media.converted_at is 'When store_media replaced the fetched content.';
comment on column twilio.message_media.failed_at is 'When it was given up.';
comment on column twilio.message_media.error is 'Why the last try failed.';
comment on column twilio.message_media.tries is 'How often it was tried.';
comment on column twilio.message_media.due_at is 'When it is fetched next, or when the lease of a try under way ends; null once it is fetched or given up.';

select pg_catalog.pg_extension_config_dump('twilio.message_media', '');
select pg_catalog.pg_extension_config_dump('twilio.message_media_media_id_seq', '');

create function twilio_internal.is_trusted_url(url text, api_url text)
returns boolean
language c
immutable
parallel safe
as 'MODULE_PATHNAME', 'is_trusted_url_wrapper';

comment on function twilio_internal.is_trusted_url(text, text) is
    'Returns whether an account''s credentials may be sent to a URL: the origin of its api_url, or a host of Twilio.';

create function twilio_internal.listed_media(media_urls text[], params jsonb, account_sid text)
returns table (place bigint, url text, content_type text)
language sql
stable
begin atomic
    select u.n - 1, u.url, params ->> ('MediaContentType' || u.n - 1)
    from unnest(media_urls) with ordinality u (url, n)
    union all
    select coalesce(cardinality(media_urls), 0), r.url, params ->> 'ReferralMediaContentType'
    from (select params ->> 'ReferralMediaUrl' as url) r
    -- Most pictures of advertisements are on Meta's servers, from which the worker does not fetch.
    where twilio_internal.is_trusted_url(
        r.url,
        (select a.api_url from twilio.account a where a.account_sid = listed_media.account_sid)
    );
end;

comment on function twilio_internal.listed_media(text[], jsonb, text) is
    'Returns the files of an incoming message in order, and last the picture of the advertisement that led to it, if Twilio stores it.';

create function twilio_internal.queue_media(event_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into twilio.message_media (message_id, place, url, content_type, due_at)
    select m.message_id, f.place, f.url, f.content_type, twilio.now()
    from twilio.message_event e
    join twilio.message m on m.message_id = e.message_id
    cross join lateral twilio_internal.listed_media(m.media_urls, e.params, m.account_sid) f
    where e.event_id = any (event_ids)
        and e.is_advance
        and m.direction = 'inbound'
        -- Files of blocked senders are not fetched.
        and not m.is_blocked
    on conflict (message_id, place) do nothing;
    if found then
        perform twilio_internal.wake_worker();
    end if;
end
$$;

comment on function twilio_internal.queue_media(bigint[]) is
    'Makes the worker fetch the files of messages that these events report as received.';

create function twilio.fetch_media(message_id bigint)
returns int
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    -- First of all, since this loads the library, which defines its settings.
    moment constant timestamptz := twilio.now();
    wanted twilio.message;
    queued int;
begin
    select m.* into wanted
    from twilio.message m
    where m.message_id = message_id and m.direction = 'inbound';
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('incoming message %s does not exist', message_id),
            hint = 'See twilio.inbound_message.';
    end if;
    if not current_setting('twilio_callback.fetch_media')::boolean then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'twilio_callback.fetch_media is off',
            hint = 'Turn it on with: alter system set twilio_callback.fetch_media = on; select pg_reload_conf().';
    end if;
    insert into twilio.message_media as f (message_id, place, url, content_type, due_at)
    select message_id, l.place, l.url, l.content_type, moment
    from twilio_internal.listed_media(
        wanted.media_urls,
        (
            select e.params
            from twilio.message_event e
            where e.message_id = message_id and e.status = 'received'
            order by e.event_id + 0
            limit 1
        ),
        wanted.account_sid
    ) l
    on conflict on constraint message_media_is_listed_once do update
    set due_at = excluded.due_at, tries = 0, failed_at = null, error = null
    where f.failed_at is not null;
    get diagnostics queued = row_count;
    perform twilio_internal.wake_worker();
    return queued;
end
$$;

comment on function twilio.fetch_media(bigint) is
    'Makes the worker fetch the files of an incoming message that are not listed yet or were given up; returns how many.';

create function twilio_internal.claim_media(at_most int, lease interval)
returns table (media_id bigint, tries int, url text, account_sid text, api_url text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
begin
    -- A restored copy, where sending is off, makes no requests.
    if not twilio.is_sending() then
        return;
    end if;
    -- Only here are tries counted that ended with the worker and without an answer.
    perform twilio_internal.finish_media(o.media_id, o.tries::int, error => format('given up after %s tries', o.tries))
    from (
        select f.media_id, f.tries
        from twilio.message_media f
        where f.due_at <= moment and f.tries >= 10
        order by f.due_at, f.media_id
        limit at_most
        for update skip locked
    ) o;
    return query
    with taken as (
        update twilio.message_media f
        set due_at = moment + lease, tries = f.tries + 1
        where f.media_id in (
            select x.media_id
            from twilio.message_media x
            where x.due_at <= moment and x.tries < 10
            order by x.due_at, x.media_id
            limit at_most
            for update skip locked
        )
        returning f.media_id, f.tries, f.url, f.message_id
    )
    select t.media_id, t.tries::int, t.url, a.account_sid, a.api_url
    from taken t
    join twilio.message m on m.message_id = t.message_id
    left join twilio.account a on a.account_sid = m.account_sid;
end
$$;

comment on function twilio_internal.claim_media(int, interval) is
    'Takes files to be fetched under a lease, and returns their URLs and the accounts whose credentials are used.';

create function twilio_internal.next_media()
returns double precision
language sql
stable
begin atomic
    select extract(epoch from min(f.due_at) - twilio.now())
    from twilio.message_media f
    where f.due_at is not null and twilio.is_sending();
end;

comment on function twilio_internal.next_media() is
    'Returns the seconds until the next file is due, negative if it is due already; null if there is none.';

create function twilio_internal.finish_media(
    media_id bigint,
    tries int,
    content bytea default null,
    content_type text default null,
    error text default null,
    retry_after_ms bigint default null
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    file twilio.message_media;
begin
    update twilio.message_media f
    set content = content,
        content_type = coalesce(content_type, f.content_type),
        fetched_at = case when content is not null then moment end,
        failed_at = case when content is null and retry_after_ms is null then moment end,
        error = error,
        due_at = moment + retry_after_ms * interval '1 ms'
    -- A result that comes too late has lost its lease to a later try.
    where f.media_id = media_id and f.tries = tries and f.due_at is not null
    returning f.* into file;
    if not found then
        return false;
    end if;
    if file.due_at is null then
        perform twilio_internal.publish(
            case when content is null then 'media.failed' else 'media.fetched' end,
            file.message_id,
            jsonb_build_object(
                'place', file.place, 'content_type', file.content_type,
                'bytes', length(file.content), 'error', file.error
            )
        );
    end if;
    return true;
end
$$;

comment on function twilio_internal.finish_media(bigint, int, bytea, text, text, bigint) is
    'Records the result of a try to fetch a file: its content, or the error and when it is tried again, if at all. Returns false if a later try has the lease.';

create function twilio.store_media(message_id bigint, place int, content bytea, content_type text)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if content is null or content_type is null then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = 'content and content_type must not be null',
            hint = 'To keep nothing of it, store an empty one.';
    end if;
    if octet_length(content) > pg_size_bytes(current_setting('twilio_callback.media_size_limit')) then
        raise exception using
            errcode = 'program_limit_exceeded',
            message = 'file is too large',
            detail = format('It has %s bytes.', octet_length(content)),
            hint = 'A file is at most as large as twilio_callback.media_size_limit.';
    end if;
    perform twilio_internal.check_size(octet_length(content_type)::bigint);
    update twilio.message_media f
    set content = content, content_type = content_type, converted_at = twilio.now()
    where f.message_id = message_id and f.place = place and f.fetched_at is not null;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('file %s of message %s has not been fetched', place, message_id),
            hint = 'See twilio.message_media.';
    end if;
end
$$;

comment on function twilio.store_media(bigint, int, bytea, text) is
    'Replaces the content of a fetched file, for example by a converted one.';
