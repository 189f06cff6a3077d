-- Meaning of Twilio's error codes: the shipped ones, and users' changes.

create function twilio_internal.default_error_code()
returns table (
    error_code int,
    meaning text,
    class text,
    retry text,
    retry_after_s int,
    fallback text,
    more_info text
)
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'default_error_code_wrapper';

comment on function twilio_internal.default_error_code() is
    'Returns the error codes that the extension ships, with meaning and advice.';

create function twilio_internal.default_error_text(error_code int)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'default_error_text_wrapper';

comment on function twilio_internal.default_error_text(int) is
    'Returns the shipped meaning of an error code; null if the code is not known.';

create function twilio_internal.default_error_class(error_code int)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'default_error_class_wrapper';

comment on function twilio_internal.default_error_class(int) is
    'Returns the shipped class of an error code; for unknown codes, that of their range.';

create function twilio_internal.default_error_fallback(error_code int)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'default_error_fallback_wrapper';

comment on function twilio_internal.default_error_fallback(int) is
    'Returns the shipped advice about another channel: yes, no or careful.';

create table twilio.error_code_override (
    error_code int primary key
        constraint error_code_is_positive check (error_code > 0),
    meaning text,
    class text
        constraint class_is_known check (
            class in ('request', 'recipient', 'consent', 'configuration', 'transient', 'uncertain')
        ),
    retry text
        constraint retry_is_known check (retry in ('never', 'later', 'slower', 'after')),
    fallback text
        constraint fallback_is_known check (fallback in ('yes', 'no', 'careful'))
);

comment on table twilio.error_code_override is 'Users'' changes of and additions to the shipped error codes; a null column leaves what is shipped.';
comment on column twilio.error_code_override.error_code is 'Twilio''s error code.';
comment on column twilio.error_code_override.meaning is 'Meaning, in a sentence.';
comment on column twilio.error_code_override.class is 'Class of the failure.';
comment on column twilio.error_code_override.retry is 'Whether to send the same again.';
comment on column twilio.error_code_override.fallback is 'Whether another channel is worth trying.';

select pg_catalog.pg_extension_config_dump('twilio.error_code_override', '');

create view twilio.error_code
with (security_invoker = true)
as
select
    error_code,
    coalesce(o.meaning, d.meaning) as meaning,
    coalesce(o.class, d.class, twilio_internal.default_error_class(error_code)) as class,
    coalesce(o.retry, d.retry) as retry,
    d.retry_after_s,
    coalesce(o.fallback, d.fallback) as fallback,
    o.error_code is not null as is_overridden,
    d.more_info
from twilio_internal.default_error_code() d
full join twilio.error_code_override o using (error_code);

comment on view twilio.error_code is 'Error codes with meaning and advice: the shipped ones, with users'' changes and additions.';

create function twilio_internal.error_text(error_code int)
returns text
language sql
stable
strict
begin atomic
    select coalesce(
        (select o.meaning from twilio.error_code_override o where o.error_code = error_text.error_code),
        twilio_internal.default_error_text(error_text.error_code)
    );
end;

comment on function twilio_internal.error_text(int) is 'Returns the meaning of an error code, in a sentence; null if the code is not known.';

create function twilio_internal.error_class(error_code int)
returns text
language sql
stable
strict
begin atomic
    select coalesce(
        (select o.class from twilio.error_code_override o where o.error_code = error_class.error_code),
        twilio_internal.default_error_class(error_class.error_code)
    );
end;

comment on function twilio_internal.error_class(int) is 'Returns the class of an error code: request, recipient, consent, configuration, transient or uncertain.';

create function twilio_internal.error_fallback(error_code int)
returns text
language sql
stable
strict
begin atomic
    select coalesce(
        (select o.fallback from twilio.error_code_override o where o.error_code = error_fallback.error_code),
        twilio_internal.default_error_fallback(error_fallback.error_code)
    );
end;

comment on function twilio_internal.error_fallback(int) is 'Returns whether a fallback is advisable after an error: yes, no or careful.';
