-- The quarantine: refused requests, kept within limits that are shared fairly among clients.
-- No search_path in twilio_internal.reject and what it calls: the functions that receive requests set it once for all.

create table twilio_internal.rejected_callback (
    rejected_id bigint generated always as identity primary key,
    received_at timestamptz not null,
    kind text collate "C" not null
        constraint kind_is_known check (kind in ('callback', 'phone', 'stranger')),
    is_plausible boolean not null generated always as (kind = 'callback') stored,
    reason text not null,
    method text not null,
    url text not null,
    headers text not null,
    body bytea not null,
    source text,
    network text collate "C" not null default ''
);

-- Finds the oldest of a kind.
create index rejected_callback_age on twilio_internal.rejected_callback (kind, received_at);
-- Finds the oldest of a network, which makes room for networks that hold less.
create index rejected_callback_network on twilio_internal.rejected_callback (kind, network, rejected_id);

comment on table twilio_internal.rejected_callback is 'Quarantine: refused requests as received, within the bounds of quarantine, to be verified again once a key or URL is corrected.';
comment on column twilio_internal.rejected_callback.rejected_id is 'Order of arrival.';
comment on column twilio_internal.rejected_callback.received_at is 'When it was received.';
comment on column twilio_internal.rejected_callback.kind is 'Kind: callback (it names an account that we know and has a signature of the right length), phone (an SMSGate webhook with a signature of the right length) or stranger.';
comment on column twilio_internal.rejected_callback.is_plausible is 'Whether its kind is callback.';
comment on column twilio_internal.rejected_callback.reason is 'Why it was refused.';
comment on column twilio_internal.rejected_callback.method is 'HTTP method.';
comment on column twilio_internal.rejected_callback.url is 'Path and query as received.';
comment on column twilio_internal.rejected_callback.headers is 'Headers that the shim passes on, one per line.';
comment on column twilio_internal.rejected_callback.body is 'Body as received.';
comment on column twilio_internal.rejected_callback.source is 'Address of the client, as the shim reports it.';
comment on column twilio_internal.rejected_callback.network is 'Network of source that the request counts against: an IPv4 address, the /64 of an IPv6 address, or empty if source is not an address.';

select pg_catalog.pg_extension_config_dump('twilio_internal.rejected_callback', '');
select pg_catalog.pg_extension_config_dump('twilio_internal.rejected_callback_rejected_id_seq', '');

create function twilio_internal.bytes_of(kept twilio_internal.rejected_callback)
returns int
language sql
immutable
-- 200 bytes for the row itself and its index entries, so that a bound of bytes bounds the disk.
return 200 + octet_length((kept).reason) + octet_length((kept).method) + octet_length((kept).url)
    + octet_length((kept).headers) + length((kept).body) + coalesce(octet_length((kept).source), 0);

comment on function twilio_internal.bytes_of(twilio_internal.rejected_callback) is 'Returns what a refused request counts against quarantine.max_bytes.';

create table twilio.quarantine (
    kind text collate "C" primary key
        constraint kind_is_known check (kind in ('callback', 'phone', 'stranger')),
    is_plausible boolean not null generated always as (kind = 'callback') stored,
    max_rows int not null
        constraint max_rows_is_not_negative check (max_rows >= 0),
    max_bytes bigint not null
        constraint max_bytes_is_not_negative check (max_bytes >= 0),
    rows_per_second real not null
        constraint rows_per_second_is_not_negative check (rows_per_second >= 0),
    burst_rows int not null
        constraint burst_rows_is_not_negative check (burst_rows >= 0),
    tokens real not null,
    filled_at timestamptz not null default twilio.now(),
    kept_rows bigint not null default 0,
    kept_bytes bigint not null default 0,
    kept_in_all bigint not null default 0,
    displaced bigint not null default 0,
    last_refused_at timestamptz,
    last_reason text,
    last_lost_at timestamptz,
    lost_since timestamptz,
    lost_before bigint not null default 0,
    loss_reported_at timestamptz
)
with (fillfactor = 50);

comment on table twilio.quarantine is 'Limits and counters of rejected_callback: one row per kind of request.';
comment on column twilio.quarantine.kind is 'Kind of the requests, as in rejected_callback.';
comment on column twilio.quarantine.is_plausible is 'Whether the kind is callback.';
comment on column twilio.quarantine.max_rows is 'Maximum number of requests that are kept.';
comment on column twilio.quarantine.max_bytes is 'Maximum number of bytes of kept requests.';
comment on column twilio.quarantine.rows_per_second is 'Requests per second that are kept in the long run; a million means no limit.';
comment on column twilio.quarantine.burst_rows is 'Requests that may come at once.';
comment on column twilio.quarantine.tokens is 'Requests that may still come at once, as of filled_at.';
comment on column twilio.quarantine.filled_at is 'When the burst was last filled up.';
comment on column twilio.quarantine.kept_rows is 'Requests in rejected_callback.';
comment on column twilio.quarantine.kept_bytes is 'Their bytes.';
comment on column twilio.quarantine.kept_in_all is 'Requests that were ever kept.';
comment on column twilio.quarantine.displaced is 'Of these, the ones that were removed to make room for others.';
comment on column twilio.quarantine.last_refused_at is 'When the last one was refused, to about a second.';
comment on column twilio.quarantine.last_reason is 'Why it was refused.';
comment on column twilio.quarantine.last_lost_at is 'When one was last not kept or displaced, to about a second.';
comment on column twilio.quarantine.lost_since is 'When the first one was not kept or displaced after twilio.acknowledge_losses() was last called.';
comment on column twilio.quarantine.lost_before is 'Number of requests that had not been kept, or had been displaced, by then.';
comment on column twilio.quarantine.loss_reported_at is 'When the loss was last reported in the server''s log and the feed.';

select pg_catalog.pg_extension_config_dump('twilio.quarantine', '');

-- Written only under the lock of the quarantine's row of the kind. It has at most as many rows as rejected_callback.
create table twilio.quarantine_source (
    kind text collate "C" not null,
    network text collate "C" not null,
    kept_rows bigint not null,
    kept_bytes bigint not null,
    next_id bigint not null default 0,
    primary key (kind, network)
);

-- Finds the network that holds most.
create index quarantine_source_kept_bytes on twilio.quarantine_source (kind, kept_bytes);

comment on table twilio.quarantine_source is 'Share of each network of clients in the quarantine: one row for each network with requests.';
comment on column twilio.quarantine_source.kind is 'Kind of the requests, as in rejected_callback.';
comment on column twilio.quarantine_source.network is 'Network, as in rejected_callback.';
comment on column twilio.quarantine_source.kept_rows is 'Requests of the network in rejected_callback.';
comment on column twilio.quarantine_source.kept_bytes is 'Their bytes.';
comment on column twilio.quarantine_source.next_id is 'The oldest request has this rejected_id or a later one.';

select pg_catalog.pg_extension_config_dump('twilio.quarantine_source', '');

-- Requests beyond the limits may come at any rate. A counter in a row would leave a dead version for each, which cannot be
-- removed while a snapshot is held; a sequence does not grow.
create sequence twilio_internal.not_kept_plausible;
create sequence twilio_internal.not_kept_phone;
create sequence twilio_internal.not_kept_implausible;

comment on sequence twilio_internal.not_kept_plausible is 'Counts refused requests of kind callback that were beyond a bound.';
comment on sequence twilio_internal.not_kept_phone is 'Counts refused requests of kind phone that were beyond a bound.';
comment on sequence twilio_internal.not_kept_implausible is 'Counts refused requests of kind stranger that were beyond a bound.';

select pg_catalog.pg_extension_config_dump('twilio_internal.not_kept_plausible', '');
select pg_catalog.pg_extension_config_dump('twilio_internal.not_kept_phone', '');
select pg_catalog.pg_extension_config_dump('twilio_internal.not_kept_implausible', '');

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
    q.last_reason,
    q.kind,
    q.displaced,
    q.last_lost_at,
    n.not_kept + q.displaced - q.lost_before as lost,
    q.lost_since
from twilio.quarantine q
cross join lateral (
    select case when s.is_called then s.last_value else 0 end as not_kept
    from twilio_internal.not_kept_plausible s
    where q.kind = 'callback'
    union all
    select case when s.is_called then s.last_value else 0 end
    from twilio_internal.not_kept_phone s
    where q.kind = 'phone'
    union all
    select case when s.is_called then s.last_value else 0 end
    from twilio_internal.not_kept_implausible s
    where q.kind = 'stranger'
) n;

comment on view twilio.quarantine_status is 'Limits and counters of the quarantine: one row per kind of request, once a request was refused or limits were set; that of phones once a webhook was refused.';
comment on column twilio.quarantine_status.refused is 'Requests refused since the extension was created.';
comment on column twilio.quarantine_status.not_kept is 'Of these, the ones that were beyond a bound and only counted.';
comment on column twilio.quarantine_status.displaced is 'Of these, the ones that were kept and later removed to make room for others.';
comment on column twilio.quarantine_status.lost is 'Requests that were not kept or were displaced since twilio.acknowledge_losses() was last called.';
comment on column twilio.quarantine_status.lost_since is 'When the first of these was lost.';
comment on column twilio.quarantine_status.last_lost_at is 'When one was last not kept or displaced, to about a second.';

create function twilio.acknowledge_losses()
returns bigint
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    acknowledged bigint;
begin
    perform twilio_internal.lock_quarantine();
    select coalesce(sum(s.lost), 0) into acknowledged from twilio.quarantine_status s where s.kind <> 'stranger';
    update twilio.quarantine q
    set lost_before = q.lost_before + s.lost, lost_since = null, loss_reported_at = null
    from twilio.quarantine_status s
    where s.kind = q.kind;
    return acknowledged;
end
$$;

comment on function twilio.acknowledge_losses() is
    'Acknowledges lost requests, so that only later losses are reported. Returns the number of lost requests of kinds callback and phone.';

create function twilio.lost_requests()
returns bigint
language sql
stable
-- Callers with grant_front or grant_read get the count, but have no privileges on its source.
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select coalesce(sum(s.lost), 0)::bigint from twilio.quarantine_status s where s.kind <> 'stranger';
end;

comment on function twilio.lost_requests() is
    'Returns how many refused requests of kinds callback and phone were lost since twilio.acknowledge_losses() was last called.';

create function twilio_internal.report_loss(kind text)
returns void
language plpgsql
volatile
as $$
#variable_conflict use_variable
declare
    status twilio.quarantine_status;
begin
    update twilio.quarantine q set loss_reported_at = twilio.now() where q.kind = kind;
    select s.* into status from twilio.quarantine_status s where s.kind = kind;
    raise warning using
        message = format(
            '%s refused requests of kind %s were lost since %s', status.lost, kind,
            to_char(status.lost_since, 'YYYY-MM-DD HH24:MI:SSOF')
        ),
        detail = 'The quarantine has no room for them.',
        hint = format(
            'Raise its bounds: select twilio.set_quarantine(''%s'', max_bytes => …); then twilio.doctor() says what to do.', kind
        );
    perform twilio_internal.publish('requests.lost', null, jsonb_build_object(
        'kind', kind, 'lost', status.lost, 'lost_since', status.lost_since, 'last_lost_at', status.last_lost_at
    ));
end
$$;

comment on function twilio_internal.report_loss(text) is
    'Reports lost requests to the server''s log and the feed; the caller has locked the row of quarantine.';

create function twilio_internal.open_quarantine(kind text)
returns void
language sql
volatile
begin atomic
    -- Created when first needed, since rows of an install script would collide with a dump's. A million rows per second means
    -- no limit: callbacks and webhooks of phones are limited by their size.
    insert into twilio.quarantine (kind, max_rows, max_bytes, rows_per_second, burst_rows, tokens)
    select v.*, v.burst_rows
    from (
        values
            ('callback', 2000000, 1073741824::bigint, 1e6::real, 1000000),
            ('phone', 200000, 67108864, 1e6, 1000000),
            ('stranger', 5000, 8388608, 1, 500)
    ) v (kind, max_rows, max_bytes, rows_per_second, burst_rows)
    where v.kind <> 'phone' or open_quarantine.kind = 'phone'
    on conflict do nothing;
end;

comment on function twilio_internal.open_quarantine(text) is
    'Creates missing rows of twilio.quarantine with their defaults; that of phones only for kind phone.';

create function twilio.set_quarantine(
    kind text,
    max_rows int default null,
    max_bytes bigint default null,
    rows_per_second double precision default null,
    burst_rows int default null
)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privilege to insert rows into twilio.quarantine.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if (kind in ('callback', 'phone', 'stranger')) is not true or least(max_rows, max_bytes, rows_per_second, burst_rows) < 0
        or rows_per_second > 1e6 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                when (kind in ('callback', 'phone', 'stranger')) is not true then format('invalid kind: "%s"', coalesce(left(kind, 64), 'null'))
                when rows_per_second > 1e6 then 'rows_per_second must be at most 1000000'
                else 'quarantine limits must not be negative'
            end,
            detail = 'The kind is callback, phone or stranger; bounds are not negative, and at most a million rows a second.',
            hint = 'Leave out what is to stay: select twilio.set_quarantine(''callback'', max_rows => 100000).';
    end if;
    perform twilio_internal.open_quarantine(kind);
    update twilio.quarantine q
    set max_rows = coalesce(max_rows, q.max_rows),
        max_bytes = coalesce(max_bytes, q.max_bytes),
        rows_per_second = coalesce(rows_per_second, q.rows_per_second),
        burst_rows = coalesce(burst_rows, q.burst_rows),
        -- A larger burst is there at once.
        tokens = q.tokens + greatest(0, coalesce(burst_rows, q.burst_rows) - q.burst_rows)
    where q.kind = kind;
end
$$;

comment on function twilio.set_quarantine(text, int, bigint, double precision, int) is
    'Sets limits of the quarantine for a kind of request: callback, phone or stranger; null leaves a limit as it is.';

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
-- Callers with grant_admin have no privilege to insert rows into twilio.quarantine.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio.set_quarantine(
        case is_plausible when true then 'callback' when false then 'stranger' end,
        max_rows, max_bytes, rows_per_second, burst_rows
    );
end
$$;

comment on function twilio.set_quarantine(boolean, int, bigint, double precision, int) is
    'Sets limits of the quarantine for plausible requests (true: kind callback) or others (false: kind stranger); null leaves a limit as it is.';

create function twilio_internal.displace_rejected(
    kind text,
    network text,
    bytes bigint,
    has_old boolean,
    out displaced int,
    out freed_rows bigint,
    out freed_bytes bigint
)
language plpgsql
volatile
as $$
#variable_conflict use_variable
declare
    own_bytes constant bigint := coalesce((
        select s.kept_bytes from twilio.quarantine_source s where s.kind = kind and s.network = network
    ), 0);
    heaviest twilio.quarantine_source;
    victim_id bigint;
    victim_network text;
    next_id bigint;
begin
    displaced := 0;
    select s.* into heaviest
    from twilio.quarantine_source s
    where s.kind = kind
    order by s.kept_bytes desc
    limit 1;
    if own_bytes + bytes < heaviest.kept_bytes then
        select c.rejected_id, c.network, twilio_internal.bytes_of(c) into victim_id, victim_network, freed_bytes
        from twilio_internal.rejected_callback c
        where c.rejected_id = any (array(
            select o.rejected_id
            from twilio_internal.rejected_callback o
            where o.kind = kind and o.network = heaviest.network and o.rejected_id >= heaviest.next_id
            order by o.rejected_id
            limit 10
        ))
        order by c.rejected_id
        limit 1
        -- SKIP LOCKED: a session that holds one of these waits for the row of quarantine next.
        for update skip locked;
        if not found and not exists (
            select from twilio_internal.rejected_callback o where o.kind = kind and o.network = heaviest.network
        ) then
            -- They were deleted manually.
            delete from twilio.quarantine_source s where s.kind = kind and s.network = heaviest.network;
            freed_rows := heaviest.kept_rows;
            freed_bytes := heaviest.kept_bytes;
            return;
        end if;
        next_id := victim_id + 1;
    end if;
    if victim_id is null and has_old then
        -- By age: the oldest request of all, unless its network holds less than this one; else the oldest of this network.
        select c.rejected_id, c.network, twilio_internal.bytes_of(c) into victim_id, victim_network, freed_bytes
        from twilio_internal.rejected_callback c
        where c.rejected_id = any (array[
                (
                    select o.rejected_id
                    from twilio_internal.rejected_callback o
                    where o.kind = kind
                    order by o.received_at
                    limit 1
                ),
                (
                    select o.rejected_id
                    from twilio_internal.rejected_callback o
                    where o.kind = kind and o.network = network
                    order by o.rejected_id
                    limit 1
                )
            ])
            and c.received_at < twilio.now() - interval '3 days'
            and (c.network = network or own_bytes <= coalesce((
                select s.kept_bytes from twilio.quarantine_source s where s.kind = kind and s.network = c.network
            ), 0))
        order by c.received_at
        limit 1
        for update skip locked;
    end if;
    if victim_id is null then
        return;
    end if;
    displaced := 1;
    freed_rows := 1;
    delete from twilio_internal.rejected_callback c where c.rejected_id = victim_id;
    update twilio.quarantine_source s
    set kept_rows = s.kept_rows - 1,
        kept_bytes = s.kept_bytes - freed_bytes,
        -- Removed rows are not read again, even while a snapshot prevents vacuum from removing them.
        next_id = coalesce(next_id, s.next_id)
    where s.kind = kind and s.network = victim_network;
    delete from twilio.quarantine_source s where s.kind = kind and s.network = victim_network and s.kept_rows <= 0;
end
$$;

comment on function twilio_internal.displace_rejected(text, text, bigint, boolean) is
    'Deletes one request to make room for a request of a network: the oldest of the network that holds most, if it holds more than this one would, else one older than 3 days. Returns the number of deleted requests and the rows and bytes that became free; null if none may be deleted.';

create function twilio_internal.store_rejected(requests twilio_internal.rejected_callback[])
returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    insert into twilio_internal.rejected_callback (received_at, kind, reason, method, url, headers, body, source, network)
    select r.received_at, r.kind, r.reason, r.method, r.url, r.headers, r.body, r.source, r.network
    from unnest(requests) r
    order by r.rejected_id;
    insert into twilio.quarantine_source as s (kind, network, kept_rows, kept_bytes)
    select r.kind, r.network, count(*), sum(twilio_internal.bytes_of(r))
    from unnest(requests) r
    group by r.kind, r.network
    on conflict (kind, network) do update
    set kept_rows = s.kept_rows + excluded.kept_rows, kept_bytes = s.kept_bytes + excluded.kept_bytes;
end
$$;

comment on function twilio_internal.store_rejected(twilio_internal.rejected_callback[]) is
    'Stores refused requests and counts them for their networks; the caller has locked the rows of quarantine.';

create function twilio_internal.lock_quarantine()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from twilio.quarantine q order by q.kind for update;
end
$$;

comment on function twilio_internal.lock_quarantine() is
    'Locks the counters of all kinds in order, for a transaction that calls twilio_internal.reject more than once.';

create function twilio_internal.reject(
    kinds text[],
    accounts text[],
    reasons text[],
    methods text[],
    urls text[],
    headers text[],
    bodies bytea[],
    sources text[],
    networks text[]
)
returns void
language plpgsql
volatile
-- plan profile: index
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    bound twilio.quarantine;
    requests twilio_internal.rejected_callback[];
    request twilio_internal.rejected_callback;
    request_bytes bigint;
    all_bytes bigint;
    room record;
    now_kept bigint;
    now_displaced bigint;
    has_old boolean;
    is_lossy boolean;
    -- For networks without room, the size of the request that was not kept.
    denied jsonb;
begin
    if array_remove(accounts, null) <> '{}' then
        -- The caller found no live key of these accounts: the kind depends on whether the account exists.
        kinds := array(
            select case when i.account is null or a.account_sid is not null then i.kind else 'stranger' end
            from unnest(kinds, accounts) with ordinality i (kind, account, n)
            left join twilio.account a on a.account_sid = i.account
            order by i.n
        );
    end if;
    perform twilio_internal.open_quarantine(k.kind)
    from (select distinct u.kind from unnest(kinds) u (kind)) k
    where not exists (select from twilio.quarantine q where q.kind = k.kind);
    -- Lock order: these rows last, sorted, so that refusals wait for their own kind only.
    for bound in
        select q.* from twilio.quarantine q where q.kind = any (kinds) order by q.kind for update
    loop
        requests := array(
            select (
                i.n, twilio.now(), i.kind, null, i.reason, i.method, i.url, i.headers, i.body, i.source, i.network
            )::twilio_internal.rejected_callback
            from unnest(kinds, reasons, methods, urls, headers, bodies, sources, networks)
                with ordinality i (kind, reason, method, url, headers, body, source, network, n)
            where i.kind = bound.kind
            order by i.n
        );
        all_bytes := (select sum(twilio_internal.bytes_of(r)) from unnest(requests) r);
        now_kept := 0;
        now_displaced := 0;
        bound.tokens := least(
            bound.burst_rows,
            -- A clock that was set back does not reduce the tokens.
            bound.tokens
                + bound.rows_per_second * greatest(0, extract(epoch from twilio.now() - bound.filled_at))
        );
        if cardinality(requests) <= least(bound.tokens, bound.max_rows - bound.kept_rows)
            and all_bytes <= bound.max_bytes - bound.kept_bytes then
            perform twilio_internal.store_rejected(requests);
            now_kept := cardinality(requests);
            bound.kept_rows := bound.kept_rows + now_kept;
            bound.kept_bytes := bound.kept_bytes + all_bytes;
        else
            has_old := exists (
                select
                from twilio_internal.rejected_callback c
                where c.kind = bound.kind and c.received_at < twilio.now() - interval '3 days'
            );
            denied := '{}';
            foreach request in array requests loop
                exit when now_kept + 1 > bound.tokens or bound.max_rows = 0;
                request_bytes := twilio_internal.bytes_of(request);
                -- A request that is too large for an empty store displaces no other.
                continue when request_bytes > bound.max_bytes
                    or request_bytes >= (denied ->> request.network)::bigint;
                loop
                    exit when bound.kept_rows < bound.max_rows and bound.kept_bytes + request_bytes <= bound.max_bytes;
                    -- Lowered limits are reached over several calls, since other sessions wait for this one.
                    exit when now_displaced >= 1000;
                    room := twilio_internal.displace_rejected(bound.kind, request.network, request_bytes, has_old);
                    exit when room.freed_rows is null;
                    now_displaced := now_displaced + room.displaced;
                    bound.kept_rows := bound.kept_rows - room.freed_rows;
                    bound.kept_bytes := bound.kept_bytes - room.freed_bytes;
                end loop;
                if bound.kept_rows < bound.max_rows and bound.kept_bytes + request_bytes <= bound.max_bytes then
                    perform twilio_internal.store_rejected(array[request]);
                    now_kept := now_kept + 1;
                    bound.kept_rows := bound.kept_rows + 1;
                    bound.kept_bytes := bound.kept_bytes + request_bytes;
                else
                    denied := denied || jsonb_build_object(request.network, request_bytes);
                end if;
            end loop;
        end if;
        is_lossy := now_displaced > 0 or now_kept < cardinality(requests);
        update twilio.quarantine q
        set tokens = bound.tokens - now_kept,
            filled_at = twilio.now(),
            kept_rows = bound.kept_rows,
            kept_bytes = bound.kept_bytes,
            kept_in_all = q.kept_in_all + now_kept,
            displaced = q.displaced + now_displaced,
            last_refused_at = twilio.now(),
            last_reason = requests[cardinality(requests)].reason,
            last_lost_at = case when is_lossy then twilio.now() else q.last_lost_at end,
            lost_since = case when is_lossy then coalesce(q.lost_since, twilio.now()) else q.lost_since end
        where q.kind = bound.kind
            -- If no request is kept, one update per second is enough.
            and (
                now_kept > 0 or now_displaced > 0
                or (bound.last_refused_at between twilio.now() - interval '1 s' and twilio.now()) is not true
                or (bound.last_lost_at between twilio.now() - interval '1 s' and twilio.now()) is not true
                or bound.lost_since is null
            );
        perform nextval(
            case bound.kind
                when 'callback' then 'twilio_internal.not_kept_plausible'
                when 'phone' then 'twilio_internal.not_kept_phone'
                else 'twilio_internal.not_kept_implausible'
            end::regclass
        )
        from generate_series(1, cardinality(requests) - now_kept);
        if is_lossy and bound.kind <> 'stranger'
            and (bound.loss_reported_at between twilio.now() - interval '1 min' and twilio.now()) is not true then
            perform twilio_internal.report_loss(bound.kind);
        end if;
    end loop;
end
$$;

comment on function twilio_internal.reject(text[], text[], text[], text[], text[], text[], bytea[], text[], text[]) is
    'Stores refused requests in rejected_callback within the limits of quarantine, if necessary in place of requests of networks that hold more or of requests older than 3 days, and counts the others. If an account is given that does not exist, the kind is stranger.';
