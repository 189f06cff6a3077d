-- Functions that PostgREST exposes to Twilio.

create schema twilio_api;

comment on schema twilio_api is 'Functions for PostgREST, which take raw request bodies.';

create domain twilio_api."*/*" as bytea;

comment on domain twilio_api."*/*" is 'Response of PostgREST that sets its own media type.';

create function twilio_internal.answer_postgrest(body bytea)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- A custom plan would contain the signature of its request.
set plan_cache_mode = force_generic_plan
as $$
declare
    size bigint;
    given jsonb;
    lines text;
    answer record;
begin
    -- A separate assignment, since the plan of a statement would contain the expanded body.
    size := greatest(octet_length(body), octet_length(current_setting('request.headers', true)));
    -- PostgREST answers 54000 with 413.
    perform twilio_internal.check_size(size);
    -- Callers can set these headers to any value: the signature covers all that matters in them.
    given := nullif(current_setting('request.headers', true), '')::jsonb;
    select string_agg(h.name || ': ' || translate(h.value, E'\r\n', '  '), E'\n')
    into lines
    from (
        select
            case when e.key = 'x-original-content-type' then 'content-type' else e.key end as name,
            e.value
        from jsonb_each_text(given) e
        where e.key in (
            'x-twilio-signature', 'x-twilio-webhooks-signature-settings', 'x-original-content-type',
            'i-twilio-idempotency-token', 'user-agent', 'host', 'x-forwarded-for', 'x-forwarded-proto',
            'x-forwarded-host', 'x-request-id'
        )
    ) h;
    select r.* into answer
    from twilio.receive(
        array['POST'],
        array[coalesce(given ->> 'x-original-uri', '')],
        array[coalesce(lines, '')],
        array[coalesce(body, '')],
        array[given ->> 'x-forwarded-for']
    ) r;
    perform set_config('response.status', answer.http_status::text, true);
    if answer.content_type is not null then
        perform set_config(
            'response.headers',
            jsonb_build_array(jsonb_build_object('Content-Type', answer.content_type))::text,
            true
        );
    elsif answer.http_status = 503 then
        perform set_config('response.headers', '[{"Retry-After": "1"}]', true);
    end if;
    -- Replies by functions are left out here.
    return case
        when answer.content_type is not null then
            coalesce(answer.response_body, '<?xml version="1.0" encoding="UTF-8"?><Response/>')
    end;
exception
    -- PostgREST would answer these with 500, which means that a retry is useless.
    when query_canceled or lock_not_available or deadlock_detected or serialization_failure then
        perform set_config('response.status', '503', true);
        perform set_config('response.headers', '[{"Retry-After": "1"}]', true);
        return null;
end
$$;

comment on function twilio_internal.answer_postgrest(bytea) is
    'Receives the request whose headers PostgREST has put into request.headers, and sets status and media type of the response.';

create function twilio_api.sms_callback(bytea)
returns void
language plpgsql
volatile
-- Callers with grant_front have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if twilio_internal.answer_postgrest($1) is not null then
        -- An inbound message is stored too, but this function cannot return a body.
        perform set_config('response.status', '204', true), set_config('response.headers', '', true);
    end if;
end
$$;

comment on function twilio_api.sms_callback(bytea) is
    'Receives a status callback: the raw body of the request, whose headers PostgREST knows.';

create function twilio_api.sms_inbound(bytea)
returns twilio_api."*/*"
language plpgsql
volatile
-- Callers with grant_front have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return convert_to(coalesce(twilio_internal.answer_postgrest($1), ''), 'UTF8');
end
$$;

comment on function twilio_api.sms_inbound(bytea) is
    'Receives an inbound message and returns TwiML.';

create function twilio_api.events(bytea)
returns void
language plpgsql
volatile
-- Callers with grant_front have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.answer_postgrest($1);
end
$$;

comment on function twilio_api.events(bytea) is
    'Receives a request of Event Streams or of the debugger''s webhook.';
