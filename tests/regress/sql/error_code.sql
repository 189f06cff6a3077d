-- What error codes mean: shipped, and as users change it.
create extension twilio_callback;

select count(*) > 100 as ships_many from twilio.error_code;
select error_code, class, retry, fallback, meaning is not null as has_meaning, more_info
from twilio.error_code
where error_code in (21211, 21610, 30003, 30004, 63014, 63016, 63033, 63049)
order by error_code;
select count(*) from twilio.error_code where class = 'consent' and fallback <> 'no';

insert into twilio.error_code_override (error_code, meaning) values (63049, 'changed');
insert into twilio.error_code_override (error_code, meaning, class) values (99999, 'added', 'transient');
select error_code, meaning, class, is_overridden from twilio.error_code where is_overridden order by 1;
select twilio_internal.error_text(63049), twilio_internal.error_text(99999), twilio_internal.error_text(99998), twilio_internal.error_text(null);
select twilio_internal.error_class(63049), twilio_internal.error_class(21610), twilio_internal.error_class(29998), twilio_internal.error_class(39998);
insert into twilio.error_code_override (error_code, class) values (1, 'silly');

drop extension twilio_callback;
