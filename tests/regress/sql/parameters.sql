-- Parameters are stored as PostgreSQL would store them, and what is recorded must be something.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

-- Parameters are written as PostgreSQL would have written them: any number, any text, repeats, null characters.
\set ECHO none
create function form_of(n int)
returns bytea
language sql
as $$
    select convert_to(string_agg(
        case when random() < 0.2 then 'Repeated' else 'P' || repeat(chr(97 + (i + n) % 26), i % 7) || i end
        || '=' || case (i + n) % 5
            when 0 then ''
            when 1 then '%00%F0%9F%98%80'
            when 2 then repeat('long', 100)
            else 'value+%22%5C' || i
        end,
        '&' order by i
    ), 'UTF8')
    from generate_series(1, n) i
$$;
\set ECHO all
create temp table form as
select coalesce(form_of(n), '') || convert_to(
    '&AccountSid=AC00000000000000000000000000000001&MessageStatus=sent&MessageSid=SM00000000000000000000000000006'
    || lpad(n::text, 3, '0'), 'UTF8'
) as form
from generate_series(0, 120) n;
create temp table stored as
select f.form, c.event_id
from form f
cross join lateral twilio.sms_callback('/twilio/status', f.form, twilio.compute_signature(
    'https://hooks.example.com/twilio/status', f.form, 'secret'
)) c;
select count(*) as forms, bool_and(e.params = e.params::text::jsonb) as are_equal,
    bool_and(pg_column_size(e.params || '{}') = pg_column_size(e.params::text::jsonb || '{}')) as have_size,
    bool_and((select bool_and(e.params ? p.name) from twilio.parse_form(s.form) p)) as have_names,
    bool_and((
        select bool_and(case jsonb_typeof(e.params -> p.name)
            when 'array' then e.params -> p.name ? p.value
            else e.params ->> p.name = p.value
        end)
        from twilio.parse_form(s.form) p
    )) as have_values
from stored s
join twilio.message_event e on e.event_id = s.event_id;
drop table stored, form;
drop function form_of;

-- A report must have a status.
select * from twilio_internal.record(array[twilio_internal.make_report(null, message_sid => 'SM00000000000000000000000000007000')]);
select * from twilio_internal.record(array[
    twilio_internal.make_report('received', message_sid => 'SM00000000000000000000000000007000', media_urls => 'no list')
]);

drop extension twilio_callback;
