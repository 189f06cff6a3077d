-- End-to-end encryption: the stored form of messages that only their phone can read.

create function twilio_internal.store_encrypted(
    message_id bigint,
    version text,
    sealed_to text,
    sealed_body text
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    -- A change of the passphrase waits for this lock and then clears the stored form, or has come first and changed xmin.
    perform
    from twilio_internal.smsgate_message p
    join twilio.smsgate g on g.sender_id = p.sender_id
    where p.message_id = message_id and g.xmin::text = version
    for share of g;
    if not found then
        return false;
    end if;
    update twilio_internal.smsgate_message p
    set sealed_to = store_encrypted.sealed_to, sealed_body = store_encrypted.sealed_body
    where p.message_id = message_id;
    return true;
end
$$;

comment on function twilio_internal.store_encrypted(bigint, text, text, text) is
    'Stores the encrypted form of a message for all attempts; false if the gateway''s row has changed since, as its passphrase may differ.';
