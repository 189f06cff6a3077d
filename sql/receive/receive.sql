-- Receives requests, one or many. Decodes forms and checks signatures by hand.

create function twilio.receive(methods text[], urls text[], headers text[], bodies bytea[], sources text[])
returns table (
    http_status int,
    content_type text,
    response_body text,
    reason text,
    message_id bigint,
    event_id bigint,
    is_new boolean,
    wait_ms int
)
language c
volatile
strict
-- A front may do nothing but this, so the owner's rights do the work.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'receive_wrapper';

comment on function twilio.receive(text[], text[], text[], bytea[], text[]) is
    'Receives a batch of requests from the shim: returns one answer per request, in order.';

create function twilio.sms_callback(
    url text,
    body bytea,
    signature text,
    content_type text default 'application/x-www-form-urlencoded',
    method text default 'POST',
    signature_settings text default null,
    source text default null
)
returns table (
    http_status int,
    content_type text,
    response_body text,
    reason text,
    message_id bigint,
    event_id bigint,
    is_new boolean,
    wait_ms int
)
language c
volatile
-- As for twilio.receive.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'sms_callback_wrapper';

comment on function twilio.sms_callback(text, bytea, text, text, text, text, text) is
    'Receives one request, a status callback or an inbound message: url is the path and query as received, or the absolute URL below a public URL.';

create function twilio.parse_form(body bytea)
returns table (name text, value text)
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'parse_form_wrapper';

comment on function twilio.parse_form(bytea) is
    'Decodes a form: one row per parameter, in order, repeats included.';

create function twilio.compute_signature(
    url text,
    body bytea,
    secret text,
    content_type text default 'application/x-www-form-urlencoded',
    method text default 'POST',
    algorithm text default 'HMAC_SHA1'
)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'compute_signature_wrapper';

comment on function twilio.compute_signature(text, bytea, text, text, text, text) is
    'Computes the X-Twilio-Signature of a request: base64 of HMAC_SHA1 or HMAC_SHA256.';

create function twilio.verify_signature(
    url text,
    body bytea,
    signature text,
    secret text,
    content_type text default 'application/x-www-form-urlencoded',
    method text default 'POST',
    algorithm text default 'HMAC_SHA1'
)
returns boolean
language c
immutable
parallel safe
as 'MODULE_PATHNAME', 'verify_signature_wrapper';

comment on function twilio.verify_signature(text, bytea, text, text, text, text, text) is
    'Returns whether a secret signed a request. Port, user information, escapes and the slash of an empty path may differ, as Twilio changes them. False if an argument is null.';
