-- What every file below uses: the library's version, the clock, and the largest value that is accepted.

create function twilio.version()
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'version_wrapper';

comment on function twilio.version() is
    'Returns the version of the extension''s library.';

create function twilio.now()
returns timestamptz
language c
stable
strict
parallel safe
as 'MODULE_PATHNAME', 'now_wrapper';

comment on function twilio.now() is
    'Returns the time that twilio_callback uses: the transaction''s, shifted by twilio_callback.clock_offset.';

create function twilio_internal.check_size(bytes bigint)
returns void
language c
stable
strict
parallel safe
as 'MODULE_PATHNAME', 'check_size_wrapper';

comment on function twilio_internal.check_size(bigint) is
    'Raises an error for more bytes than twilio_callback.max_request_size allows.';
