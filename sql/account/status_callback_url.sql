-- The URL to give to Twilio.

create function twilio_internal.url_encode(value text)
returns text
language sql
immutable
strict
begin atomic
    select coalesce(string_agg(
        case
            when c.c ~ '^[A-Za-z0-9_.~-]$' then c.c
            else upper(regexp_replace(encode(convert_to(c.c, 'UTF8'), 'hex'), '(..)', '%\1', 'g'))
        end,
        '' order by c.n
    ), '')
    from regexp_split_to_table(url_encode.value, '') with ordinality c (c, n);
end;

comment on function twilio_internal.url_encode(text) is 'Encodes a text for a query string.';

create function twilio.status_callback_url(
    path text default '/twilio/status',
    parameters jsonb default '{}',
    public_url text default null,
    connect_timeout_ms int default 2000,
    read_timeout_ms int default 9000,
    total_timeout_ms int default 15000,
    retries int default 3,
    retry_on text default '5xx,ct,rt'
)
returns text
language plpgsql
stable
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    base text;
    query text;
begin
    perform twilio_internal.check_size(greatest(
        octet_length(path), octet_length(public_url), octet_length(retry_on), pg_column_size(parameters)
    )::bigint);
    base := rtrim(public_url, '/');
    if base is null then
        select u.url into base from twilio.public_url u order by u.created_at, u.url limit 1;
    end if;
    if base is null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'no public URL is configured',
            hint = 'select twilio.add_public_url(''https://hooks.example.com'').';
    end if;
    if not exists (select from twilio.public_url u where u.url = base) then
        raise exception using
            errcode = 'no_data_found',
            message = format('public URL "%s" does not exist', base),
            hint = 'What is signed for it would be refused: add it with twilio.add_public_url(url) first.';
    end if;
    if path is null or path !~ '^/[^?# ]*$' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid path: "%s"', coalesce(path, 'null')),
            hint = 'It begins with a slash; a query goes into parameters.';
    end if;
    if jsonb_typeof(parameters) is distinct from 'object' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'parameters must be a JSON object',
            hint = 'Such as {"campaign": "spring"}.';
    end if;
    -- The ranges of https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
    if connect_timeout_ms not between 100 and 10000
        or read_timeout_ms not between 100 and 15000
        or total_timeout_ms not between 100 and 15000
        or retries not between 0 and 5
        or retry_on !~ '^(all|(4xx|5xx|ct|rt)(,(4xx|5xx|ct|rt))*)$'
        or num_nulls(connect_timeout_ms, read_timeout_ms, total_timeout_ms, retries, retry_on) > 0 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'connection overrides are out of range',
            detail = 'Connect 100 to 10000 ms, read and total 100 to 15000 ms, 0 to 5 retries, on all or some of 4xx, 5xx, ct and rt.',
            hint = 'Leave them out: the defaults fit the time in which the shim answers.';
    end if;
    -- Twilio has been observed to sign a query in the given order but to request it sorted.
    select '?' || string_agg(
        twilio_internal.url_encode(p.key) || '=' || twilio_internal.url_encode(p.value), '&' order by p.key collate "C"
    )
    into query
    from jsonb_each_text(parameters) p
    where p.value is not null;
    -- The fragment is for Twilio alone: it is neither sent nor signed. The shim answers within 8 seconds, so Twilio
    -- waits longer than that; it repeats an unanswered request within its 15 seconds.
    return base || path || coalesce(query, '')
        || format(
            '#ct=%s&rt=%s&tt=%s&rc=%s&rp=%s',
            connect_timeout_ms, read_timeout_ms, total_timeout_ms, retries, retry_on
        );
end
$$;

comment on function twilio.status_callback_url(text, jsonb, text, int, int, int, int, text) is
    'Returns the URL to give to Twilio for status callbacks: with sorted parameters, retries, and timeouts that fit the time in which the shim answers.';
