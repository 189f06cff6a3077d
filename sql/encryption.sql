-- What only phones are to read: the passphrase, and what is kept of a message that it encrypted.

create function twilio.check_passphrase(passphrase text, iterations int)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if passphrase is null and iterations is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'there is no passphrase to make a key from',
            hint = 'Give the passphrase that the app shows in Settings, Encryption, or leave iterations out.';
    elsif iterations not between 1000 and 1000000 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('%s iterations are out of range', iterations),
            hint = 'SMSGate takes 1000 to 1000000; 75000 is its own default, and each costs the phone time.';
    end if;
    perform twilio.check_secret(passphrase);
end
$$;

comment on function twilio.check_passphrase(text, int) is
    'Raises an error unless texts can be encrypted so for a phone; without a passphrase they are not.';

create function twilio.keep_sealed(
    message_id bigint,
    passphrase text,
    iterations int,
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
    -- Whoever changes the passphrase waits, and clears what is kept here, or was there first.
    perform
    from twilio.smsgate_message p
    join twilio.smsgate g on g.sender_id = p.sender_id
    where p.message_id = message_id and g.passphrase = passphrase and g.iterations = iterations
    for share of g;
    if not found then
        return false;
    end if;
    update twilio.smsgate_message p
    set sealed_to = keep_sealed.sealed_to, sealed_body = keep_sealed.sealed_body
    where p.message_id = message_id;
    return true;
end
$$;

comment on function twilio.keep_sealed(bigint, text, int, text, text) is
    'Keeps what a message is sent as, encrypted, so that each try sends the same; false if the gateway''s passphrase is another one meanwhile.';
