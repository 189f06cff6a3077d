-- What Twilio's error codes mean: shipped with the extension, and what users made of it.

create table twilio.error_code_override (
    error_code int primary key
        constraint error_code_is_positive check (error_code > 0),
    meaning text,
    class text
        constraint class_is_known check (
            class in ('request', 'recipient', 'consent', 'configuration', 'transient', 'uncertain')
        ),
    retry text,
    fallback text
);

comment on table twilio.error_code_override is 'Users'' changes of and additions to the shipped error codes; a null column leaves what is shipped.';
comment on column twilio.error_code_override.error_code is 'Twilio''s error code.';
comment on column twilio.error_code_override.meaning is 'What it means, in a sentence.';
comment on column twilio.error_code_override.class is 'What kind of failure it is.';
comment on column twilio.error_code_override.retry is 'Whether to send the same again.';
comment on column twilio.error_code_override.fallback is 'Whether another channel is worth trying.';

select pg_catalog.pg_extension_config_dump('twilio.error_code_override', '');

create function twilio.error_text(error_code int)
returns text
language sql
stable
strict
begin atomic
    select o.meaning from twilio.error_code_override o where o.error_code = error_text.error_code;
end;

comment on function twilio.error_text(int) is 'Says what an error code means, in a sentence; null if it is not known.';
