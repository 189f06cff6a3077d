-- Preparation of fallbacks: date, text and state of the original, fetched from Twilio.

create function twilio_internal.message_to_fetch(child twilio.message)
returns setof twilio.message
language sql
stable
begin atomic
    -- Date and text of a message that others created are those of the root; for our own, the replaced message suffices.
    select a.*
    from twilio.message r
    join twilio.message a on a.root_id = r.root_id
    where r.message_id = child.root_id
        and case
            when twilio_internal.has_source(r) and (r.body is null or child.step = 1) then a.message_id = r.message_id
            else a.step = child.step - 1 and a.provider = 'twilio' and a.message_sid is not null
        end
    order by a.try desc
    limit 1;
end;

comment on function twilio_internal.message_to_fetch(twilio.message) is
    'Returns the message that is fetched from Twilio before a fallback is sent.';

create function twilio_internal.claim_original_fetch(at_most int, lease interval default '60 seconds')
returns table (
    message_id bigint,
    lease_token uuid,
    tries int,
    account_sid text,
    api_url text,
    message_sid text
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := twilio.now();
    taken bigint[];
begin
    if not twilio.is_sending() then
        return;
    end if;
    -- An expired or canceled fallback needs no original any more.
    perform twilio_internal.run_isolated(
        'end fetch',
        $q$update twilio_internal.fallback f
        set is_preparing = false, lease_token = null, due_at = 'infinity'
        where f.message_id = any ($1)
        returning f.message_id$q$,
        array(
            select x.message_id
            from twilio_internal.fallback x
            where x.is_preparing and x.stage = 'twilio' and x.due_at <= moment
                and not exists (select from twilio_internal.outbox o where o.message_id = x.message_id)
            for update skip locked
        )
    );
    taken := twilio_internal.claim_due(
        'fetch',
        $q$select array(
            select f.message_id
            from twilio_internal.fallback f
            where f.is_preparing and f.stage = 'twilio' and f.due_at <= twilio.now() and not f.message_id = any ($2)
            order by f.due_at
            limit $1
            for update skip locked
        )$q$,
        -- The lease ends at due_at: without a result until then, its holder counts as crashed.
        $q$update twilio_internal.fallback f
        set lease_token = gen_random_uuid(), due_at = $2, tries = f.tries + 1
        where f.message_id = any ($1)
        returning f.message_id$q$,
        at_most, moment + lease
    );
    return query
    select f.message_id, f.lease_token, f.tries::int, r.account_sid, a.api_url, r.message_sid
    from twilio_internal.fallback f
    join twilio.message m on m.message_id = f.message_id
    cross join lateral twilio_internal.message_to_fetch(m) r
    join twilio.account a on a.account_sid = r.account_sid
    where f.message_id = any (taken) and f.due_at = moment + lease;
end
$$;

comment on function twilio_internal.claim_original_fetch(int, interval) is
    'Takes fallbacks whose original must be fetched from Twilio under a lease, and returns the account and the SID of each.';

create function twilio_internal.next_original_fetch()
returns double precision
language sql
stable
begin atomic
    select extract(epoch from min(f.due_at) - twilio.now())
    from twilio_internal.fallback f
    where f.is_preparing and f.stage = 'twilio' and f.due_at < 'infinity' and twilio.is_sending();
end;

comment on function twilio_internal.next_original_fetch() is
    'Returns the seconds until the next original is due to be fetched, negative if it is due already; null if there is none.';

create function twilio_internal.end_fallback(message_id bigint, status text, reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    delete from twilio_internal.outbox o where o.message_id = message_id;
    update twilio_internal.fallback f
    set is_preparing = false, lease_token = null, due_at = 'infinity'
    where f.message_id = message_id;
    perform twilio_internal.record_decision(array[message_id], array[status], array[reason]);
end
$$;

comment on function twilio_internal.end_fallback(bigint, text, text) is
    'Ends a fallback without sending it, with a final status and the reason.';

create function twilio_internal.wait_until(child twilio.message)
returns timestamptz
language sql
stable
begin atomic
    select p.at
    from twilio.message s
    join twilio_internal.fallback f on f.message_id = child.message_id
    join twilio.fallback_rule r on r.rule_id = f.rule_id
    cross join lateral (
        select case
            when s.status = 'scheduled' then twilio.now() + interval '1 minute'
            else twilio_internal.success_clock_start(s) + r.no_success_within
        end as at
    ) p
    where s.message_id = twilio_internal.replaced_message(child) and r.no_success_within is not null and p.at > twilio.now();
end;

comment on function twilio_internal.wait_until(twilio.message) is
    'Returns until when a fallback of a timed rule waits, because Twilio has scheduled its original or sent it later than was known; null if it need not wait.';

create function twilio_internal.finish_original_fetch(
    message_id bigint,
    lease_token uuid,
    outcome text,
    body text default null,
    media_count int default 0,
    dated timestamptz default null,
    reason text default null,
    retry_after_ms bigint default null,
    status text default null,
    error_code int default null
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    moment constant timestamptz := twilio.now();
    job twilio_internal.fallback;
    child twilio.message;
    root twilio.message;
    asked bigint;
    is_needed boolean;
    later timestamptz;
    obstacle record;
begin
    -- Lock order: outbox before message; then the chain from its root on.
    perform from twilio_internal.outbox o where o.message_id = message_id for update;
    select f.* into job
    from twilio_internal.fallback f
    where f.message_id = message_id and f.is_preparing and f.lease_token = lease_token
    for update;
    if not found or not exists (select from twilio_internal.outbox o where o.message_id = message_id) then
        update twilio_internal.fallback f
        set is_preparing = false, lease_token = null, due_at = 'infinity'
        where f.message_id = message_id and f.lease_token = lease_token;
        return false;
    end if;
    select m.* into child from twilio.message m where m.message_id = message_id;
    select m.* into root from twilio.message m where m.message_id = child.root_id;
    select a.message_id into asked from twilio_internal.message_to_fetch(child) a;
    -- Only a root that others created has a date and a text that are not known here.
    is_needed := twilio_internal.has_source(root) and asked = root.message_id;
    if outcome = 'failed' then
        later := moment + retry_after_ms * interval '1 millisecond';
        if not is_needed then
            -- An unreachable provider does not delay the fallback for long.
            later := case when job.tries < 3 then least(later, moment + interval '1 minute') end;
        end if;
        if is_needed or later < child.expires_at then
            update twilio_internal.fallback f
            set due_at = coalesce(later, 'infinity'), lease_token = null, problem = reason
            where f.message_id = message_id;
            return true;
        end if;
    end if;
    perform from twilio.message m
    where m.root_id = (select x.root_id from twilio.message x where x.message_id = message_id)
    order by m.message_id
    for no key update;
    select m.* into child from twilio.message m where m.message_id = message_id;
    if status is not null then
        -- Callbacks may have been lost, so Twilio's status is recorded: a delivered message needs no fallback.
        perform twilio_internal.record_decision(array[asked], array[status], array[null::text], array[error_code], 'api');
        select o.* into obstacle from twilio_internal.fallback_send_blocker(child) o;
        if found then
            perform twilio_internal.end_fallback(message_id, obstacle.status, obstacle.reason);
            return true;
        end if;
        later := twilio_internal.wait_until(child);
        if later is not null then
            update twilio_internal.fallback f
            set due_at = later, lease_token = null, tries = 0, problem = 'Twilio keeps the original until its time'
            where f.message_id = message_id;
            return true;
        end if;
    end if;
    select m.* into root from twilio.message m where m.message_id = child.root_id;
    if not twilio_internal.has_source(root) or asked is distinct from root.message_id then
        -- It is our own message, or an earlier fallback, so date and text of the response are not the original's.
        perform twilio_internal.compose_fallback(job, child, null, 0, twilio_internal.dated(root));
    elsif outcome = 'missing' then
        perform twilio_internal.end_fallback(message_id, 'refused', 'Twilio does not have the original any more');
    else
        perform twilio_internal.compose_fallback(job, child, nullif(body, ''), media_count, dated);
    end if;
    return true;
end
$$;

comment on function twilio_internal.finish_original_fetch(
    bigint, uuid, text, text, int, timestamptz, text, bigint, text, int
) is
    'Records the result of fetching an original from Twilio: found, missing or failed (fetched again later); false if the lease has ended.';

create function twilio_internal.compose_fallback(
    job twilio_internal.fallback,
    child twilio.message,
    body text,
    media_count int,
    dated timestamptz,
    media_urls text[] default null
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    rule twilio.fallback_rule;
    root twilio.message;
    original twilio.message;
    origin twilio.sender;
    deadline timestamptz;
    carries_media boolean;
    content text;
    next_stage text;
begin
    select r.* into rule from twilio.fallback_rule r where r.rule_id = job.rule_id;
    if not found then
        perform twilio_internal.end_fallback(child.message_id, 'canceled', 'its rule was deleted');
        return;
    end if;
    update twilio.message m
    set body = coalesce(m.body, compose_fallback.body),
        media_urls = coalesce(m.media_urls, compose_fallback.media_urls)
    where m.message_id = child.root_id
        and (m.body is null and compose_fallback.body is not null
            or m.media_urls is null and compose_fallback.media_urls is not null)
        -- A repeated report of an old failure does not start a fallback.
        and dated > twilio.now() - coalesce(rule.expires_after, current_setting('twilio_callback.default_expiry')::interval);
    select m.* into root from twilio.message m where m.message_id = child.root_id;
    select s.* into origin
    from twilio_internal.outbox o
    join twilio.sender s on s.sender_id = o.sender_id
    where o.message_id = child.message_id;
    -- Signatures contain no time, so only Twilio's own date shows how old a failure is.
    deadline := least(child.expires_at, twilio_internal.fallback_deadline(rule, root, dated));
    carries_media := rule.media = 'send' and origin.can_send_media;
    content := twilio_internal.fallback_text(rule, root.body, root.media_urls, origin.can_send_media);
    select m.* into original from twilio.message m where m.message_id = twilio_internal.replaced_message(child);
    next_stage := case
        -- The user's own source knows date and text, but not the state of the message.
        when job.stage = 'source' and twilio_internal.should_fetch_original(rule, original) then 'twilio'
        when rule.text_function is not null then 'text'
    end;
    if dated is null or deadline <= twilio.now() then
        perform twilio_internal.end_fallback(
            child.message_id, 'expired',
            'the original is ' || coalesce('from ' || to_char(dated at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), 'of unknown date')
        );
    elsif rule.media = 'stop' and media_count > 0 then
        perform twilio_internal.end_fallback(child.message_id, 'refused', 'the original has media, which the rule does not replace');
    elsif next_stage is not null then
        update twilio.message m set expires_at = deadline where m.message_id = child.message_id;
        update twilio_internal.outbox o set expires_at = deadline where o.message_id = child.message_id;
        update twilio_internal.fallback f
        set is_preparing = true, stage = next_stage, lease_token = null, due_at = twilio.now(), tries = 0, problem = null
        where f.message_id = child.message_id;
        perform twilio_internal.wake_worker();
    elsif content is null and not (carries_media and cardinality(root.media_urls) > 0) then
        perform twilio_internal.end_fallback(
            child.message_id, 'refused',
            case
                when media_count > 0 then 'the original has media and no text'
                else 'the original has no text any more'
            end
        );
    else
        perform twilio_internal.release_fallback(job, rule, content, deadline, carries_media);
    end if;
end
$$;

comment on function twilio_internal.compose_fallback(twilio_internal.fallback, twilio.message, text, int, timestamptz, text[]) is
    'Sets the text of a fallback and releases it, passes it to the rule''s function, or ends it if it is too old, without text or too long.';

create function twilio_internal.release_fallback(
    job twilio_internal.fallback,
    rule twilio.fallback_rule,
    content text,
    deadline timestamptz,
    carries_media boolean
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    max_length constant int := twilio_internal.max_text_length(rule.to_provider);
begin
    if length(content) > max_length then
        perform twilio_internal.end_fallback(
            job.message_id, 'refused', format('its text has %s characters, %s are allowed', length(content), max_length)
        );
        return;
    end if;
    update twilio.message m
    set body = content, expires_at = deadline,
        -- The source may have reported the media only now.
        media_urls = case when carries_media then r.media_urls else m.media_urls end
    from twilio.message r
    where m.message_id = job.message_id and r.message_id = m.root_id;
    update twilio_internal.outbox o
    set due_at = greatest(job.not_before, twilio.now()), expires_at = deadline
    where o.message_id = job.message_id and o.state = 'waiting';
    update twilio_internal.fallback f
    set is_preparing = false, lease_token = null, due_at = 'infinity', problem = null,
        -- The time of the next timed rule starts now.
        not_before = greatest(f.not_before, twilio.now())
    where f.message_id = job.message_id;
    perform twilio_internal.wake_worker();
end
$$;

comment on function twilio_internal.release_fallback(twilio_internal.fallback, twilio.fallback_rule, text, timestamptz, boolean) is
    'Releases a fallback with its text, or ends it if the text is too long.';
