-- Refused requests: verify them again, record those that verify now, and explain the others.

create function twilio_internal.verify_requests(rejected_ids bigint[])
returns table (message_sid text, reason text)
language c
volatile
strict
as 'MODULE_PATHNAME', 'verify_requests_wrapper';

comment on function twilio_internal.verify_requests(bigint[]) is
    'Verifies refused requests without any effect: returns the SID of the message, or the reason of the refusal; one row per request, in order.';

create function twilio_internal.record_requests(rejected_ids bigint[], by_hand boolean)
returns setof boolean
language c
volatile
strict
as 'MODULE_PATHNAME', 'record_requests_wrapper';

comment on function twilio_internal.record_requests(bigint[], boolean) is
    'Records the refused requests that verify now, with their original time; if by_hand, also ambiguous ones and those whose URL was changed on the way. Returns for each, in order, whether it was recorded.';

create function twilio_internal.request_account(rejected_id bigint)
returns table (account_sid text, is_signed boolean)
language c
volatile
strict
as 'MODULE_PATHNAME', 'request_account_wrapper';

comment on function twilio_internal.request_account(bigint) is
    'Returns the account that a refused request names in its form, query or JSON, or null, and whether it has a signature; no row if the request does not exist.';

create function twilio_internal.explain_request(rejected_id bigint, at_most int)
returns table (
    account_sid text,
    key_id text,
    not_before timestamptz,
    not_after timestamptz,
    signed_url text,
    base_url text,
    change text,
    change_remedy text,
    is_altered boolean,
    objection text,
    unreadable text
)
language c
volatile
strict
as 'MODULE_PATHNAME', 'explain_request_wrapper';

comment on function twilio_internal.explain_request(bigint, int) is
    'Returns the keys that signed a refused request or cannot be read, the account''s own first, trying at most at_most keys.';

create function twilio.reverify_rejected(at_most int default 10000, batch_rows int default 1000)
returns table (verified bigint, still_refused bigint, not_looked_at bigint)
language plpgsql
volatile
-- Callers with grant_admin may have requests verified again, but have no privilege to read the keys.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    batch record;
    last_id bigint := 0;
    looked_at bigint := 0;
    ids bigint[] := '{}';
    sids text[] := '{}';
    recorded bigint[];
    freed twilio.quarantine_source[] := '{}';
    phones bigint := 0;
    last_phone_id bigint := 0;
    left_out bigint;
begin
    if batch_rows is null or batch_rows not between 1 and 10000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'batch_rows must be between 1 and 10000',
            hint = 'Give a number from 1 to 10000.';
    end if;
    if at_most is null or at_most not between 1 and 100000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'at_most must be between 1 and 100000',
            detail = 'Their messages and the quarantine stay locked until all of them are.',
            hint = 'Give a number from 1 to 100000, and call again until it takes in no more.';
    end if;
    -- First find those that verify now, without locks.
    while cardinality(ids) < at_most loop
        select
            array_agg(r.rejected_id order by r.rejected_id) as ids,
            max(r.rejected_id) as last_id,
            count(*) as n
        into batch
        from (
            select c.rejected_id
            from twilio_internal.rejected_callback c
            where c.rejected_id > last_id
            order by c.rejected_id
            limit least(batch_rows, at_most - cardinality(ids))
        ) r;
        exit when batch.n = 0;
        last_id := batch.last_id;
        looked_at := looked_at + batch.n;
        select ids || coalesce(array_agg(v.id), '{}'), sids || coalesce(array_agg(v.sid), '{}')
        into ids, sids
        from rows from (
            unnest(batch.ids),
            twilio_internal.verify_requests(batch.ids)
        ) v (id, sid, reason)
        where v.sid is not null;
        if looked_at % 10000 < batch.n then
            raise notice '% refused requests looked at, % verify now', looked_at, cardinality(ids);
        end if;
    end loop;
    -- Batches follow the lock order of messages, so that this cannot deadlock with callbacks; requests about one message stay in
    -- their order of arrival.
    select coalesce(array_agg(v.id order by v.sid, v.id), '{}') into ids from unnest(ids, sids) v (id, sid);
    verified := 0;
    for start in 0 .. (cardinality(ids) - 1) / batch_rows loop
        recorded := twilio_internal.record_rejected(ids[start * batch_rows + 1 : (start + 1) * batch_rows]);
        with taken as (
            delete from twilio_internal.rejected_callback r
            where r.rejected_id = any (recorded)
            returning r.kind, r.network, twilio_internal.bytes_of(r) as bytes
        ),
        gone as (
            select t.kind, t.network, count(*) as n, sum(t.bytes) as bytes from taken t group by t.kind, t.network
        )
        select
            coalesce(array_agg((g.kind, g.network, g.n, g.bytes, 0)::twilio.quarantine_source), '{}') as freed,
            coalesce(sum(g.n), 0) as n
        into batch
        from gone g;
        freed := freed || batch.freed;
        verified := verified + batch.n;
        if verified % 10000 < batch.n then
            raise notice '% of % requests recorded', verified, cardinality(ids);
        end if;
    end loop;
    -- Phones sign in another way, and come after Twilio: a callback that cancels a message at its phone locks Twilio's message
    -- before the phone's. Page by page, so that requests that never verify do not block the others.
    while phones < at_most loop
        select f.*
        into batch
        from twilio_internal.reverify_rejected_webhooks(last_phone_id, last_id, least(batch_rows, at_most - phones)::int) f;
        exit when batch.last_id is null;
        last_phone_id := batch.last_id;
        phones := phones + (select coalesce(sum(f.kept_rows), 0) from unnest(batch.freed) f);
        freed := freed || batch.freed;
    end loop;
    select count(*)
    into left_out
    from twilio_internal.rejected_callback c
    where phones >= at_most and c.url = '/smsgate' and c.rejected_id > last_phone_id and c.rejected_id <= last_id;
    -- Lock order: the counters last, since sessions that receive requests wait for these rows.
    perform twilio_internal.free_quarantine(freed);
    still_refused := looked_at - verified - phones - left_out;
    verified := verified + phones;
    select count(*) + left_out into not_looked_at from twilio_internal.rejected_callback c where c.rejected_id > last_id;
    return next;
end
$$;

comment on function twilio.reverify_rejected(int, int) is
    'Verifies refused requests again, records those that verify now with their original time, up to at_most, and leaves the others as they are. Returns the number of each, and of those not examined: call it until that is 0. Messages stay locked until it ends.';

create function twilio_internal.record_rejected(rejected_ids bigint[], by_hand boolean default false)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    held bigint[];
begin
    -- Another session records the locked rows itself.
    select array_agg(r.rejected_id order by r.n)
    into held
    from (
        select c.rejected_id, i.n
        from unnest(rejected_ids) with ordinality i (id, n)
        join twilio_internal.rejected_callback c on c.rejected_id = i.id
        for update of c skip locked
    ) r;
    return array(
        select t.id
        from rows from (
            unnest(held),
            twilio_internal.record_requests(held, by_hand)
        ) t (id, is_taken)
        where t.is_taken
    );
end
$$;

comment on function twilio_internal.record_rejected(bigint[], boolean) is
    'Records the given refused requests that verify now and are not locked, in order; if by_hand, also those whose signed text has more than one meaning or whose URL was changed on the way. Returns the ids of the recorded requests.';

create function twilio.accept_rejected(rejected_id bigint)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if not exists (select from twilio_internal.rejected_callback r where r.rejected_id = rejected_id for update) then
        raise exception using
            errcode = 'no_data_found',
            message = format('refused request %s does not exist', coalesce(rejected_id::text, 'null')),
            hint = 'See twilio.rejected for those that are kept.';
    end if;
    if twilio_internal.record_rejected(array[rejected_id], true) = '{}' then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('refused request %s could not be recorded', rejected_id),
            detail = 'Either no live key signed it for a public URL, or its content is not valid, or its message belongs to another account, or a trigger dropped the row.',
            hint = format('See: select * from twilio.explain_rejected(%s).', rejected_id);
    end if;
    perform twilio_internal.drop_rejected(array[rejected_id]);
end
$$;

comment on function twilio.accept_rejected(bigint) is
    'Records a signed refused request, even if its signed text could have another meaning or its path or query was changed on the way; the signed form counts. Check the parameters of the request before you call this.';

create function twilio_internal.free_quarantine(freed twilio.quarantine_source[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform from twilio.quarantine q
    where q.kind in (select f.kind from unnest(freed) f)
    order by q.kind
    for update;
    update twilio.quarantine q
    set kept_rows = greatest(0, q.kept_rows - g.n),
        kept_bytes = greatest(0, q.kept_bytes - g.bytes)
    from (
        select f.kind, sum(f.kept_rows) as n, sum(f.kept_bytes) as bytes from unnest(freed) f group by f.kind
    ) g
    where q.kind = g.kind;
    update twilio.quarantine_source s
    set kept_rows = s.kept_rows - g.n,
        kept_bytes = s.kept_bytes - g.bytes
    from (
        select f.kind, f.network, sum(f.kept_rows) as n, sum(f.kept_bytes) as bytes
        from unnest(freed) f
        group by f.kind, f.network
    ) g
    where s.kind = g.kind and s.network = g.network;
    delete from twilio.quarantine_source s
    using unnest(freed) f
    where s.kind = f.kind and s.network = f.network and s.kept_rows <= 0;
end
$$;

comment on function twilio_internal.free_quarantine(twilio.quarantine_source[]) is
    'Subtracts deleted rows of rejected_callback from the counters; each element has the rows and bytes of a kind and network.';

create function twilio.explain_rejected(rejected_id bigint)
returns table (account_sid text, key_id text, signed_url text, finding text, remedy text)
language plpgsql
volatile
-- Callers with grant_admin learn which key signed a request, but have no privilege to read it.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    account text;
    is_signed boolean;
    now_reason text;
    found_any boolean := false;
begin
    -- Requests and keys are read in Rust, since a caller's settings may print the values of statements.
    select r.account_sid, r.is_signed into account, is_signed from twilio_internal.request_account(rejected_id) r;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('refused request %s does not exist', coalesce(rejected_id::text, 'null')),
            hint = 'See twilio.rejected for those that are kept.';
    end if;
    if exists (select from twilio_internal.rejected_callback c where c.rejected_id = explain_rejected.rejected_id and c.url = '/smsgate') then
        select p.finding, p.remedy into finding, remedy from twilio_internal.explain_refused_smsgate(rejected_id) p;
        return next;
        return;
    end if;
    select v.reason into now_reason from twilio_internal.verify_requests(array[rejected_id]) v;
    return query
    select
        e.account_sid,
        e.key_id,
        e.signed_url,
        f.finding,
        f.remedy
    from twilio_internal.explain_request(rejected_id, 200) with ordinality e (
        account_sid, key_id, not_before, not_after, signed_url, base_url, change, change_remedy, is_altered, objection,
        unreadable, n
    )
    -- Whether it is not recorded only because its path or query was changed.
    cross join lateral (
        select e.change is not null and not e.is_altered
            and exists (select from twilio.public_url u where u.url = e.base_url)
            and e.not_before <= twilio.now() and twilio.now() < e.not_after
            and account is not distinct from e.account_sid
    ) h (is_acceptable)
    cross join lateral (
        select string_agg(c.finding, '; ' order by c.n), string_agg(c.remedy, ' ' order by c.n)
        from (
            select 1, 'the key cannot be used: ' || e.unreadable, 'Repair the file, then see twilio.doctor().'
            where e.unreadable is not null
            union all
            select 2, format('it was signed for %s, which is not a public URL of this database', e.base_url),
                format('select twilio.add_public_url(%L);', e.base_url)
            where e.base_url is not null
                and not exists (select from twilio.public_url u where u.url = e.base_url)
            union all
            select 3, e.change, e.change_remedy
            where e.change is not null
            union all
            select 4, format('the key was retired on %s', e.not_after),
                format('If Twilio still signs with it, give it again: select twilio.rotate_auth_token(%L, …);', e.account_sid)
            where e.unreadable is null and e.not_after <= twilio.now()
            union all
            select 5, format('the key counts from %s only', e.not_before),
                'Compare the clocks, or set an earlier not_before.'
            where e.unreadable is null and e.not_before > twilio.now()
            union all
            select 6, format('it names account %s, but a key of another account signed it', account),
                format('Give that account its own key: select twilio.add_account(%L, …);', account)
            where e.unreadable is null and account <> e.account_sid
            union all
            select 7, 'it verifies now', 'select * from twilio.reverify_rejected();'
            where e.unreadable is null and now_reason is null
            union all
            select 8, 'in the form that was signed, it would be refused: ' || e.objection,
                case when e.objection not like 'ambiguous: %' then 'Leave this request.' end
            where h.is_acceptable and e.objection is not null
            union all
            select 9, null, format(
                'Read this request''s parameters. If Twilio sent them so: select twilio.accept_rejected(%s);', rejected_id
            )
            where h.is_acceptable and (e.objection is null or e.objection like 'ambiguous: %')
        ) c (n, finding, remedy)
        having count(*) > 0
        union all
        select format('it is signed, but %s', now_reason),
            case
                when now_reason like 'ambiguous: %' then format(
                    'Read its parameters. If Twilio sent them so: select twilio.accept_rejected(%s);', rejected_id
                )
                when now_reason like 'a webhook of %' then 'Give Twilio a URL of your own for it: only messages are recorded here.'
                else 'The signature is valid but the content is not. Leave the request, or ask Twilio''s support.'
            end
        where e.unreadable is null and now_reason is not null
            and e.change is null
            and exists (select from twilio.public_url u where u.url = e.base_url)
            and e.not_before <= twilio.now() and twilio.now() < e.not_after
            and account is not distinct from e.account_sid
    ) f (finding, remedy)
    where f.finding is not null
    order by e.n;
    found_any := found;
    if found_any then
        return;
    end if;
    if not is_signed then
        finding := 'it has no signature';
        remedy := 'Nothing, if it is a stranger''s. If Twilio sent it, let the proxy hand on X-Twilio-Signature.';
    elsif account is null then
        finding := 'it names no account, and no key here signed it';
        remedy := 'Nothing, if it is a stranger''s.';
    elsif not exists (select from twilio.account a where a.account_sid = account) then
        finding := format('account %s is not known', account);
        remedy := format('If it is yours: select twilio.add_account(%L, …);', account);
    elsif not exists (select from twilio.signing_key k where k.account_sid = account) then
        finding := format('account %s has no signing key', account);
        remedy := format('select twilio.rotate_auth_token(%L, …);', account);
    else
        finding := format(
            'no key of account %s signed it, for no likely URL: %s',
            account, now_reason
        );
        remedy := format(
            'If Twilio sent it, the token here is not the account''s, or the URL differs in more than was tried: '
            'compare both with the Twilio Console, then select twilio.rotate_auth_token(%L, …) or twilio.add_public_url(…).',
            account
        );
    end if;
    return next;
end
$$;

comment on function twilio.explain_rejected(bigint) is
    'Explains why a refused request did not verify and what to do: whether its scheme, host, port, path, query, order or escapes were changed, its key is not valid, or a phone''s key or clock is wrong. One row per key that signed it, or one row with the likely cause.';
