-- SMSGate: gateways to Android phones, the phones' keys, and the messages that they send.

create table twilio.smsgate (
    sender_id int primary key,
    base_url text not null
        constraint base_url_is_a_base check (twilio_internal.url_fault('gateway', base_url) is null),
    username text not null
        constraint username_is_plain check (username ~ '^[^:[:cntrl:]]{1,255}$'),
    password text not null
        constraint password_is_not_empty check (password <> ''),
    device_id text
        constraint device_id_is_short check (device_id ~ '^[A-Za-z0-9_-]{1,21}$'),
    sim_number smallint
        constraint sim_number_is_a_slot check (sim_number between 1 and 3),
    priority smallint not null default 0
        constraint priority_is_in_range check (priority between -128 and 127),
    with_delivery_report boolean not null default true,
    skip_phone_validation boolean not null default false,
    created_at timestamptz not null default twilio.now(),
    passphrase text
        constraint passphrase_is_not_empty check (passphrase <> ''),
    iterations int not null default 75000
        constraint iterations_are_in_range check (iterations between 1000 and 1000000),
    uses_tokens boolean not null default false
);

comment on table twilio.smsgate is 'Gateways to Android phones, each of which is a sender of provider smsgate.';
comment on column twilio.smsgate.sender_id is 'The sender.';
comment on column twilio.smsgate.base_url is 'Address of the API, without trailing slash: cloud, private server or the phone itself.';
comment on column twilio.smsgate.username is 'User name.';
comment on column twilio.smsgate.password is 'Password, or file:name. Only the owner reads it.';
comment on column twilio.smsgate.device_id is 'Phone that sends; null lets the gateway choose one for each message.';
comment on column twilio.smsgate.sim_number is 'Slot of the SIM card, 1 to 3; null lets the phone choose.';
comment on column twilio.smsgate.priority is 'Priority, -128 to 127; from 100 on the phone ignores its own limits.';
comment on column twilio.smsgate.with_delivery_report is 'Whether the carrier is asked for a delivery report.';
comment on column twilio.smsgate.skip_phone_validation is 'Whether the gateway is asked not to validate numbers.';
comment on column twilio.smsgate.created_at is 'When it was added.';
comment on column twilio.smsgate.passphrase is 'Passphrase with which its phones decrypt texts and numbers, or file:name; null for no encryption. Only the owner reads it.';
comment on column twilio.smsgate.iterations is 'Iterations of the derivation of a key from the passphrase.';
comment on column twilio.smsgate.uses_tokens is 'Whether requests use a token, which is requested with the password, instead of the password.';

select pg_catalog.pg_extension_config_dump('twilio.smsgate', '');

create table twilio_internal.smsgate_key (
    device_id text not null default '',
    secret text not null
        constraint secret_is_not_empty check (secret <> ''),
    created_at timestamptz not null default twilio.now(),
    primary key (device_id, secret)
);

comment on table twilio_internal.smsgate_key is 'Keys with which phones sign their webhooks: each phone generates its own.';
comment on column twilio_internal.smsgate_key.device_id is 'Phone of the key; empty if it is not known.';
comment on column twilio_internal.smsgate_key.secret is 'The key, or file:name. Only the owner reads it.';
comment on column twilio_internal.smsgate_key.created_at is 'When it was added.';

select pg_catalog.pg_extension_config_dump('twilio_internal.smsgate_key', '');

create table twilio_internal.smsgate_message (
    message_id bigint primary key,
    sender_id int not null,
    reference uuid not null unique default gen_random_uuid(),
    device_id text,
    is_open boolean not null default false,
    is_withdrawn boolean not null default false,
    due_at timestamptz not null default 'infinity',
    tries smallint not null default 0
        constraint tries_is_not_negative check (tries >= 0),
    lease_token uuid,
    missing_since timestamptz,
    sealed_to text,
    sealed_body text
)
with (fillfactor = 60);

create index smsgate_message_sender_id on twilio_internal.smsgate_message (sender_id);
create index smsgate_message_due_at on twilio_internal.smsgate_message (due_at) where is_open;

comment on table twilio_internal.smsgate_message is 'Messages that are sent by phones: their id there, and when their state is polled next.';
comment on column twilio_internal.smsgate_message.message_id is 'The message.';
comment on column twilio_internal.smsgate_message.sender_id is 'Gateway of the message.';
comment on column twilio_internal.smsgate_message.reference is 'Id of the message at the gateway, which refuses a repeat of the same id.';
comment on column twilio_internal.smsgate_message.device_id is 'Phone of the message, once it is known, so that no other phone sends it too.';
comment on column twilio_internal.smsgate_message.is_open is 'Whether its state is still polled.';
comment on column twilio_internal.smsgate_message.is_withdrawn is 'Whether its cancellation was requested.';
comment on column twilio_internal.smsgate_message.due_at is 'When its state is polled next.';
comment on column twilio_internal.smsgate_message.tries is 'Number of polls.';
comment on column twilio_internal.smsgate_message.lease_token is 'Lease of the request under way, until due_at; null if there is none.';
comment on column twilio_internal.smsgate_message.missing_since is 'Since when the gateway reports that it does not know the message.';
comment on column twilio_internal.smsgate_message.sealed_to is 'Encrypted recipient, the same for each try; null before the first try, without a passphrase, and once the gateway has accepted or refused the message.';
comment on column twilio_internal.smsgate_message.sealed_body is 'Encrypted text, likewise.';

select pg_catalog.pg_extension_config_dump('twilio_internal.smsgate_message', '');

create function twilio_internal.upsert_smsgate(
    sim_number int,
    priority int,
    with_delivery_report boolean,
    skip_phone_validation boolean,
    rate_per_second real,
    is_default boolean,
    iterations int,
    use_tokens boolean,
    country text default null
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    new_id int;
begin
    if sim_number not between 1 and 3 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'sim_number must be between 1 and 3',
            hint = 'Slots are 1 to 3; without one the phone chooses.';
    elsif coalesce(priority, 999) not between -128 and 127 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'priority must be between -128 and 127',
            hint = 'It is -128 to 127; from 100 on the phone''s own limits are passed over.';
    elsif with_delivery_report is null or skip_phone_validation is null or use_tokens is null then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = 'with_delivery_report, skip_phone_validation and use_tokens must not be null',
            hint = 'Leave them out for their defaults.';
    end if;
    insert into twilio.sender as s (
        provider, address, channel, can_send_media, is_default, rate_per_second, burst, country
    )
    values (
        'smsgate', twilio_internal.secret_argument('address'), 'sms', false, false, rate_per_second,
        greatest(1, ceil(rate_per_second)), upper(left(country, 16))
    )
    on conflict on constraint sender_address_is_unique do update
    set rate_per_second = excluded.rate_per_second, burst = excluded.burst, country = excluded.country
    returning s.sender_id into new_id;
    insert into twilio.smsgate as g (
        sender_id, base_url, username, password, device_id, sim_number, priority, with_delivery_report,
        skip_phone_validation, passphrase, iterations, uses_tokens
    )
    values (
        new_id, twilio_internal.secret_argument('base_url'), twilio_internal.secret_argument('username'), twilio_internal.secret_argument('password'),
        twilio_internal.secret_argument('device_id'), sim_number, priority, with_delivery_report, skip_phone_validation,
        twilio_internal.secret_argument('passphrase'), coalesce(iterations, 75000), use_tokens
    )
    on conflict on constraint smsgate_pkey do update
    set base_url = excluded.base_url,
        username = excluded.username,
        password = excluded.password,
        device_id = excluded.device_id,
        sim_number = excluded.sim_number,
        priority = excluded.priority,
        with_delivery_report = excluded.with_delivery_report,
        skip_phone_validation = excluded.skip_phone_validation,
        -- Like a key, the passphrase stays until it is replaced: leaving it out does not turn encryption off.
        passphrase = coalesce(excluded.passphrase, g.passphrase),
        iterations = case when excluded.passphrase is null then g.iterations else excluded.iterations end,
        uses_tokens = excluded.uses_tokens;
    -- Waiting messages are encrypted again, since the phone may have another passphrase now.
    update twilio_internal.smsgate_message p
    set sealed_to = null, sealed_body = null
    where p.message_id in (
        select x.message_id
        from twilio_internal.smsgate_message x
        where x.sender_id = new_id and x.sealed_to is not null
        order by x.message_id
        for update
    );
    if twilio_internal.secret_argument('signing_key') is not null then
        perform twilio_internal.insert_smsgate_key();
    end if;
    if is_default or not exists (
        select from twilio.sender s where s.provider = 'smsgate' and s.is_default
    ) and is_default is null then
        update twilio.sender s
        set is_default = false
        where s.provider = 'smsgate' and s.channel = 'sms' and s.is_default and s.sender_id <> new_id;
        update twilio.sender s set is_default = true where s.sender_id = new_id and not s.is_default;
    end if;
    perform twilio_internal.enable_sending_first();
end
$$;

comment on function twilio_internal.upsert_smsgate(int, int, boolean, boolean, real, boolean, int, boolean, text) is
    'Stores the gateway of add_smsgate.';

create function twilio.add_smsgate(
    username text,
    password text,
    base_url text default 'https://api.sms-gate.app/3rdparty/v1',
    device_id text default null,
    signing_key text default null,
    from_address text default null,
    sim_number int default null,
    priority int default 0,
    with_delivery_report boolean default true,
    skip_phone_validation boolean default false,
    rate_per_second real default null,
    is_default boolean default null,
    passphrase text default null,
    iterations int default null,
    use_tokens boolean default false,
    country text default null
)
returns void
language c
volatile
-- Runs as its caller: who calls it decides where a secret is sent.
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'add_smsgate_wrapper';

comment on function twilio.add_smsgate(
    text, text, text, text, text, text, int, int, boolean, boolean, real, boolean, text, int, boolean, text
) is
    'Adds a gateway to Android phones to send through, or changes the one that is there, whose passphrase stays unless another is given; the first is the default.';

create function twilio_internal.check_smsgate_message(to_address text, body text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(to_address, '') !~ '^([+][1-9][0-9]{6,14}|[0-9]{3,8})$' then
        raise exception using
            errcode = 'invalid_text_representation',
            message = 'recipient is not a phone number',
            hint = 'Write numbers with + and country code, without spaces: +12025550123.';
    elsif coalesce(body, '') = '' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'message has no text',
            hint = 'A phone sends text only: give a body.';
    elsif length(body) > twilio_internal.max_text_length('smsgate') then
        raise exception using
            errcode = 'string_data_right_truncation',
            message = format('text has %s characters, %s are allowed', length(body), twilio_internal.max_text_length('smsgate')),
            hint = 'Send it in parts, or put the rest behind a link.';
    end if;
end
$$;

comment on function twilio_internal.check_smsgate_message(text, text) is
    'Raises an error unless a phone can send the message.';

create function twilio_internal.insert_smsgate_key()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into twilio_internal.smsgate_key (device_id, secret)
    values (coalesce(twilio_internal.secret_argument('device_id'), ''), twilio_internal.secret_argument('signing_key'))
    on conflict do nothing;
end
$$;

comment on function twilio_internal.insert_smsgate_key() is
    'Stores the key of add_smsgate_key or add_smsgate.';

create function twilio.add_smsgate_key(signing_key text, device_id text default null)
returns void
language c
volatile
-- An administrator may add a key without being able to read any.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'add_smsgate_key_wrapper';

comment on function twilio.add_smsgate_key(text, text) is
    'Adds the key with which a phone signs its webhooks; the app shows it under Settings, Webhooks.';

create function twilio.retire_smsgate_key(device_id text)
returns int
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    gone int;
begin
    delete from twilio_internal.smsgate_key k where k.device_id = coalesce(retire_smsgate_key.device_id, '');
    get diagnostics gone = row_count;
    return gone;
end
$$;

comment on function twilio.retire_smsgate_key(text) is
    'Removes the keys of a phone and returns their number: webhooks that are signed with them are refused from then on.';
