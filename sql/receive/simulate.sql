-- Simulated callbacks, for tests and rehearsals.

create function twilio.simulate_callback(
    message_id bigint,
    status text,
    error_code int default null,
    error_message text default null,
    params jsonb default '{}'
)
returns bigint
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    original twilio.message;
    new_event_id bigint;
begin
    perform twilio_internal.check_size(greatest(
        octet_length(status), octet_length(error_message), pg_column_size(params)
    )::bigint);
    select m.* into original from twilio.message m where m.message_id = message_id;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('message %s does not exist', coalesce(message_id::text, 'null')),
            hint = 'See twilio.message_status for the messages that there are.';
    end if;
    if status is null or octet_length(status) not between 1 and 64 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid status: "%s"', coalesce(left(status, 64), 'null')),
            detail = 'A status has 1 to 64 bytes.',
            hint = 'Twilio''s are queued, sending, sent, delivered, undelivered, failed, read and some more.';
    end if;
    if twilio_internal.status_rank(original.provider, status) is null then
        raise notice using
            message = format('status "%s" is not known', status),
            detail = 'It is logged and changes nothing, as one that Twilio invents would.';
    end if;
    select r.event_id into new_event_id
    from twilio_internal.record(array[twilio_internal.make_report(
        status, 'simulated', message_id, error_code,
        (
            params || jsonb_strip_nulls(jsonb_build_object(
                'MessageSid', original.message_sid,
                'AccountSid', original.account_sid,
                'From', original.from_address,
                'To', original.to_address,
                'MessageStatus', status,
                'ErrorCode', error_code::text,
                'ErrorMessage', error_message
            ))
        )::text,
        direction => original.direction
    )]) r;
    return new_event_id;
end
$$;

comment on function twilio.simulate_callback(bigint, text, int, text, jsonb) is
    'Records a status of a message as if its provider had reported it, with source simulated; returns the event''s id.';
