-- Requests that were refused, kept within bounds, and callbacks that nobody sent.

create table twilio.rejected_callback (
    rejected_id bigint generated always as identity primary key,
    received_at timestamptz not null,
    is_plausible boolean not null,
    reason text not null,
    method text not null,
    url text not null,
    headers text not null,
    body bytea not null,
    source text
);

-- Finds the oldest of a kind, which make room when it is full.
create index rejected_callback_age on twilio.rejected_callback (is_plausible, received_at);

comment on table twilio.rejected_callback is 'Quarantine: refused requests as they came, within the bounds of quarantine, to be verified again once a key or URL is mended.';
comment on column twilio.rejected_callback.rejected_id is 'Order of arrival.';
comment on column twilio.rejected_callback.received_at is 'When it was received.';
comment on column twilio.rejected_callback.is_plausible is 'Whether it names an account that we know and has a signature of the right length.';
comment on column twilio.rejected_callback.reason is 'Why it was refused.';
comment on column twilio.rejected_callback.method is 'HTTP method.';
comment on column twilio.rejected_callback.url is 'Path and query as received.';
comment on column twilio.rejected_callback.headers is 'The headers that a front hands over, one a line.';
comment on column twilio.rejected_callback.body is 'Body as received.';
comment on column twilio.rejected_callback.source is 'Address of the client, as the front knows it.';

select pg_catalog.pg_extension_config_dump('twilio.rejected_callback', '');
select pg_catalog.pg_extension_config_dump('twilio.rejected_callback_rejected_id_seq', '');

create function twilio.bytes_of(kept twilio.rejected_callback)
returns int
language sql
immutable
return octet_length((kept).reason) + octet_length((kept).method) + octet_length((kept).url)
    + octet_length((kept).headers) + length((kept).body) + coalesce(octet_length((kept).source), 0);

comment on function twilio.bytes_of(twilio.rejected_callback) is 'Returns what a refused request counts against quarantine.max_bytes.';

create table twilio.quarantine (
    is_plausible boolean primary key,
    max_rows int not null default 50000
        constraint max_rows_is_not_negative check (max_rows >= 0),
    max_bytes bigint not null default 67108864
        constraint max_bytes_is_not_negative check (max_bytes >= 0),
    rows_per_second real not null default 100
        constraint rows_per_second_is_not_negative check (rows_per_second >= 0),
    burst_rows int not null default 50000
        constraint burst_rows_is_not_negative check (burst_rows >= 0),
    tokens real not null default 50000,
    filled_at timestamptz not null default twilio.now(),
    kept_rows bigint not null default 0,
    kept_bytes bigint not null default 0,
    kept_in_all bigint not null default 0,
    last_refused_at timestamptz,
    last_reason text
)
with (fillfactor = 50);

comment on table twilio.quarantine is 'Bounds of rejected_callback and what was counted: one row for requests that look like ours, one for the rest.';
comment on column twilio.quarantine.is_plausible is 'Which kind of request the row is about.';
comment on column twilio.quarantine.max_rows is 'At most so many are kept.';
comment on column twilio.quarantine.max_bytes is 'At most so many bytes of requests are kept.';
comment on column twilio.quarantine.rows_per_second is 'How fast kept requests may come in the long run.';
comment on column twilio.quarantine.burst_rows is 'How many may come at once.';
comment on column twilio.quarantine.tokens is 'What is left of the burst.';
comment on column twilio.quarantine.filled_at is 'When the burst was last filled up.';
comment on column twilio.quarantine.kept_rows is 'Requests in rejected_callback.';
comment on column twilio.quarantine.kept_bytes is 'Their bytes.';
comment on column twilio.quarantine.kept_in_all is 'Requests that were ever kept.';
comment on column twilio.quarantine.last_refused_at is 'When the last one was refused, to about a second.';
comment on column twilio.quarantine.last_reason is 'Why it was refused.';

select pg_catalog.pg_extension_config_dump('twilio.quarantine', '');

-- What is beyond the bounds may come at any rate: counted in a row, it would leave a dead version each time,
-- which nothing can clean up while a snapshot is held. A sequence stays as small as it is.
create sequence twilio.not_kept_plausible;
create sequence twilio.not_kept_implausible;

comment on sequence twilio.not_kept_plausible is 'Counts refused requests that looked like ours and were beyond a bound.';
comment on sequence twilio.not_kept_implausible is 'Counts refused requests of strangers that were beyond a bound.';

select pg_catalog.pg_extension_config_dump('twilio.not_kept_plausible', '');
select pg_catalog.pg_extension_config_dump('twilio.not_kept_implausible', '');

create view twilio.quarantine_status
with (security_invoker = true)
as
select
    q.is_plausible,
    q.max_rows,
    q.max_bytes,
    q.rows_per_second,
    q.burst_rows,
    q.kept_rows,
    q.kept_bytes,
    q.kept_in_all + n.not_kept as refused,
    n.not_kept,
    q.last_refused_at,
    q.last_reason
from twilio.quarantine q
cross join lateral (
    select case when s.is_called then s.last_value else 0 end as not_kept
    from twilio.not_kept_plausible s
    where q.is_plausible
    union all
    select case when s.is_called then s.last_value else 0 end
    from twilio.not_kept_implausible s
    where not q.is_plausible
) n;

comment on view twilio.quarantine_status is 'Bounds of the quarantine and what was counted: one row a kind of request, once one was refused or bounds were set.';
comment on column twilio.quarantine_status.refused is 'Requests refused since the extension was created.';
comment on column twilio.quarantine_status.not_kept is 'Of these, the ones that were beyond a bound and only counted.';

create function twilio.open_quarantine()
returns void
language sql
volatile
begin atomic
    -- Made when first needed: rows that an install script made would collide with a dump's.
    insert into twilio.quarantine (is_plausible) values (true) on conflict do nothing;
    insert into twilio.quarantine (is_plausible, max_rows, max_bytes, rows_per_second, burst_rows, tokens)
    values (false, 5000, 8388608, 1, 500, 500)
    on conflict do nothing;
end;

comment on function twilio.open_quarantine() is 'Makes the rows of twilio.quarantine with their defaults, if they are not there.';

create function twilio.set_quarantine(
    is_plausible boolean,
    max_rows int default null,
    max_bytes bigint default null,
    rows_per_second double precision default null,
    burst_rows int default null
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if is_plausible is null or least(max_rows, max_bytes, rows_per_second, burst_rows) < 0
        or rows_per_second > 1e6 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'such bounds cannot be set',
            detail = 'They are not negative, at most a million rows a second, and of requests that look like ours or of the others.',
            hint = 'Leave out what is to stay: select twilio.set_quarantine(true, max_rows => 100000).';
    end if;
    perform twilio.open_quarantine();
    update twilio.quarantine q
    set max_rows = coalesce(max_rows, q.max_rows),
        max_bytes = coalesce(max_bytes, q.max_bytes),
        rows_per_second = coalesce(rows_per_second, q.rows_per_second),
        burst_rows = coalesce(burst_rows, q.burst_rows),
        -- A larger burst is there at once.
        tokens = q.tokens + greatest(0, coalesce(burst_rows, q.burst_rows) - q.burst_rows)
    where q.is_plausible = is_plausible;
end
$$;

comment on function twilio.set_quarantine(boolean, int, bigint, double precision, int) is
    'Sets bounds of what is kept of refused requests, of those that look like ours (true) or of the others; null leaves one as it is.';

create function twilio.reject(
    plausible boolean[],
    reasons text[],
    methods text[],
    urls text[],
    headers text[],
    bodies bytea[],
    sources text[]
)
returns void
language plpgsql
volatile
-- As in record: plans are kept, so nothing but look-ups by index may be chosen.
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    bound twilio.quarantine;
    beyond bigint;
begin
    if not exists (select from twilio.quarantine) then
        perform twilio.open_quarantine();
    end if;
    -- These rows are locked last of all and in one order, so refusals wait for their own kind only.
    for bound in
        select q.* from twilio.quarantine q where q.is_plausible = any (plausible) order by q.is_plausible for update
    loop
        bound.tokens := least(
            bound.burst_rows,
            -- A clock that was set back takes nothing away.
            bound.tokens
                + bound.rows_per_second * greatest(0, extract(epoch from twilio.now() - bound.filled_at))
        );
        with request as (
            select
                (i.r).*,
                row_number() over (order by (i.r).rejected_id) as place,
                sum(twilio.bytes_of(i.r)) over (order by (i.r).rejected_id) as sum_bytes
            from (
                select (
                    i.n, twilio.now(), i.is_plausible, i.reason, i.method, i.url, i.headers, i.body, i.source
                )::twilio.rejected_callback as r
                from unnest(plausible, reasons, methods, urls, headers, bodies, sources)
                    with ordinality i (is_plausible, reason, method, url, headers, body, source, n)
                where i.is_plausible = bound.is_plausible
            ) i
        ),
        lack as (
            select
                bound.kept_rows + count(*) - bound.max_rows as n,
                bound.kept_bytes + coalesce(max(r.sum_bytes), 0) - bound.max_bytes as bytes
            from request r
            -- What could not be kept even in an empty store displaces nothing.
            where r.place <= least(bound.tokens, bound.max_rows) and r.sum_bytes <= bound.max_bytes
            having count(*) > 0
        ),
        oldest as (
            select
                o.rejected_id,
                row_number() over (order by o.received_at, o.rejected_id) - 1 as n_before,
                sum(o.bytes) over (order by o.received_at, o.rejected_id) - o.bytes as bytes_before
            from (
                select c.rejected_id, c.received_at, twilio.bytes_of(c) as bytes
                from twilio.rejected_callback c
                where c.is_plausible = bound.is_plausible and c.received_at < twilio.now() - interval '3 days'
                order by c.received_at
                limit coalesce((select least(1000, greatest(0, l.n, ceil(l.bytes / 256.0))) from lack l), 0)
                -- Whoever holds one of these wants the row of quarantine next.
                for update skip locked
            ) o
        ),
        displaced as (
            delete from twilio.rejected_callback c
            using oldest o, lack l
            where c.rejected_id = o.rejected_id and (o.n_before < l.n or o.bytes_before < l.bytes)
            returning twilio.bytes_of(c) as bytes
        ),
        gone as (
            select count(*) as n, coalesce(sum(d.bytes), 0) as bytes from displaced d
        ),
        kept as (
            insert into twilio.rejected_callback as c (
                received_at, is_plausible, reason, method, url, headers, body, source
            )
            select r.received_at, r.is_plausible, r.reason, r.method, r.url, r.headers, r.body, r.source
            from request r, gone g
            where r.place <= least(bound.tokens, bound.max_rows - bound.kept_rows + g.n)
                and r.sum_bytes <= bound.max_bytes - bound.kept_bytes + g.bytes
            order by r.place
            returning twilio.bytes_of(c) as bytes
        ),
        sums as (
            select
                (select count(*) from kept) as kept_rows,
                (select coalesce(sum(kept.bytes), 0) from kept) as kept_bytes,
                (select count(*) from request) as refused,
                (select r.reason from request r order by r.place desc limit 1) as last_reason
        ),
        counted as (
            update twilio.quarantine q
            set tokens = bound.tokens - s.kept_rows,
                filled_at = twilio.now(),
                kept_rows = q.kept_rows + s.kept_rows - g.n,
                kept_bytes = q.kept_bytes + s.kept_bytes - g.bytes,
                kept_in_all = q.kept_in_all + s.kept_rows,
                last_refused_at = twilio.now(),
                last_reason = s.last_reason
            from sums s, gone g
            where q.is_plausible = bound.is_plausible
                -- Where nothing is kept, a new version a second will do.
                and (
                    s.kept_rows > 0 or g.n > 0
                    or (bound.last_refused_at between twilio.now() - interval '1 s' and twilio.now()) is not true
                )
        )
        select s.refused - s.kept_rows into beyond from sums s;
        if beyond > 0 then
            perform nextval(
                case when bound.is_plausible then 'twilio.not_kept_plausible' else 'twilio.not_kept_implausible' end::regclass
            )
            from generate_series(1, beyond);
        end if;
    end loop;
end
$$;

comment on function twilio.reject(boolean[], text[], text[], text[], text[], bytea[], text[]) is
    'Keeps refused requests in rejected_callback as far as quarantine allows, in place of the oldest where these are older than 3 days, and counts the rest.';

create function twilio.simulate_callback(
    message_id bigint,
    status text,
    error_code int default null,
    error_message text default null,
    params jsonb default '{}'
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    original twilio.message;
    new_event_id bigint;
begin
    perform twilio.check_size(greatest(
        octet_length(status), octet_length(error_message), pg_column_size(params)
    )::bigint);
    select m.* into original from twilio.message m where m.message_id = message_id;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('there is no message %s', message_id),
            hint = 'See twilio.message_status for the messages that there are.';
    end if;
    if status is null or octet_length(status) not between 1 and 64 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is no status', left(status, 64)),
            detail = 'A status has 1 to 64 bytes.',
            hint = 'Twilio''s are queued, sending, sent, delivered, undelivered, failed, read and some more.';
    end if;
    if twilio.status_rank(original.provider, status) is null then
        raise notice using
            message = format('status "%s" is not known', status),
            detail = 'It is logged and changes nothing, as one that Twilio invents would.';
    end if;
    select r.event_id into new_event_id
    from twilio.record(
        array[message_id], array[original.account_sid], array[original.message_sid],
        array[original.direction], array[original.channel], array[original.from_address],
        array[original.to_address], array[original.messaging_service_sid], array[null::text],
        array[null::text], array[status], array[error_code], array['simulated'], array[null::text],
        array[null::text],
        array[(
            params || jsonb_strip_nulls(jsonb_build_object(
                'MessageSid', original.message_sid,
                'AccountSid', original.account_sid,
                'From', original.from_address,
                'To', original.to_address,
                'MessageStatus', status,
                'ErrorCode', error_code::text,
                'ErrorMessage', error_message
            ))
        )::text],
        array[null::timestamptz]
    ) r;
    return new_event_id;
end
$$;

comment on function twilio.simulate_callback(bigint, text, int, text, jsonb) is
    'Records a status of a message as if its provider had reported it, with source simulated; returns the event''s id.';
