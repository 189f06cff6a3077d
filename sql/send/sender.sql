-- Senders: own numbers and messaging services, with their channel, account and rate.

create function twilio_internal.address_kind(address text)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'address_kind_wrapper';

comment on function twilio_internal.address_kind(text) is
    'Returns the kind of an address: number, short_code, alphanumeric, messaging_service or channel_id; null if the text is not an address.';

create function twilio_internal.max_text_length(provider text)
returns int
language sql
immutable
return case provider when 'twilio' then 1600 else 65535 end;

comment on function twilio_internal.max_text_length(text) is
    'Returns how many characters the text of a message may have at a provider.';

create function twilio_internal.channel_between(from_address text, to_address text)
returns text
language c
immutable
parallel safe
as 'MODULE_PATHNAME', 'channel_between_wrapper';

comment on function twilio_internal.channel_between(text, text) is
    'Returns the channel of a message between two addresses.';

create table twilio.sender (
    sender_id int generated always as identity primary key,
    provider text not null default 'twilio'
        constraint provider_is_known check (provider in ('twilio', 'smsgate')),
    account_sid text collate "C",
    address text collate "C" not null,
    channel text not null
        constraint channel_is_a_name check (channel ~ '^[a-z]{2,20}$'),
    messaging_service_sid text
        constraint messaging_service_sid_is_valid check (messaging_service_sid ~ '^MG[0-9a-fA-F]{32}$'),
    can_send_media boolean not null default true,
    is_default boolean not null default false,
    rate_per_second real
        constraint rate_is_positive check (rate_per_second > 0),
    burst int not null default 1
        constraint burst_is_positive check (burst > 0),
    tokens real not null default 1,
    filled_at timestamptz not null default twilio.now(),
    away_since timestamptz,
    created_at timestamptz not null default twilio.now(),
    country text
        constraint country_is_known check (twilio_internal.is_country(country)),
    constraint sender_address_is_unique unique (provider, address, channel),
    constraint twilio_sender_has_an_account check (provider <> 'twilio' or account_sid is not null)
)
-- Claims of a limited sender update its row each time.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create unique index sender_default on twilio.sender (provider, channel) where is_default;

comment on table twilio.sender is 'Own addresses that messages are sent from, each with its rate limit.';
comment on column twilio.sender.sender_id is 'Our identifier.';
comment on column twilio.sender.provider is 'twilio or smsgate.';
comment on column twilio.sender.account_sid is 'Account that it belongs to; null for SMSGate.';
comment on column twilio.sender.address is 'Number or id with its channel prefix, short code, alphanumeric id or messaging service.';
comment on column twilio.sender.channel is 'Channel of the sender.';
comment on column twilio.sender.messaging_service_sid is 'Messaging service that is given to Twilio beside the address, or null.';
comment on column twilio.sender.can_send_media is 'Whether it can send media.';
comment on column twilio.sender.is_default is 'Whether it is the default sender of its channel.';
comment on column twilio.sender.rate_per_second is 'Messages a second in the long run; null for no limit of ours.';
comment on column twilio.sender.burst is 'Messages that may be sent at once.';
comment on column twilio.sender.tokens is 'Remaining messages of the burst at filled_at.';
comment on column twilio.sender.filled_at is 'When tokens were last counted.';
comment on column twilio.sender.away_since is 'When its provider first could not be reached; null while it can.';
comment on column twilio.sender.created_at is 'When it was added.';
comment on column twilio.sender.country is 'Country (ISO 3166-1 alpha-2) of national numbers that send messages to it; null for the account''s.';

select pg_catalog.pg_extension_config_dump('twilio.sender', '');
select pg_catalog.pg_extension_config_dump('twilio.sender_sender_id_seq', '');

create function twilio_internal.sole_account(account_sid text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    known text[];
begin
    select array_agg(a.account_sid order by a.account_sid)
    into known
    from twilio.account a
    where sole_account.account_sid is null or a.account_sid = sole_account.account_sid;
    if known is null then
        raise exception using
            errcode = 'no_data_found',
            message = case
                when account_sid is null then 'no account is configured'
                else format('account %s does not exist', account_sid)
            end,
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    elsif cardinality(known) > 1 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'account_sid must be given, since there are several accounts',
            hint = format('Say which: account_sid => ''%s''.', known[1]);
    end if;
    return known[1];
end
$$;

comment on function twilio_internal.sole_account(text) is
    'Returns the given account, or the only one if none is given.';

create function twilio.add_sender(
    address text,
    account_sid text default null,
    channel text default null,
    messaging_service_sid text default null,
    rate_per_second real default null,
    burst int default null,
    can_send_media boolean default null,
    is_default boolean default null,
    country text default null
)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    kind constant text := twilio_internal.address_kind(address);
    actual_channel constant text := coalesce(channel, twilio_internal.channel_between(address, null));
    actual_burst constant int := coalesce(burst, greatest(1, ceil(rate_per_second)));
begin
    if kind is null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid sender address: "%s"', address),
            detail = 'A sender is a number such as +12025550100, whatsapp:+12025550100 or rcs:agent, a short code, an alphanumeric id or a messaging service (MG…).',
            hint = 'Write numbers with + and country code, without spaces.';
    end if;
    if not twilio_internal.is_country(upper(left(country, 16))) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is not a country''s code', left(country, 16)),
            hint = 'Give the two letters of ISO 3166-1, such as US or GB.';
    end if;
    if rate_per_second <= 0 or burst <= 0 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'rate_per_second and burst must be greater than 0',
            hint = 'Leave rate_per_second out for no limit.';
    end if;
    if actual_channel !~ '^[a-z]{2,20}$'
        or actual_channel <> twilio_internal.channel_between(address, null) and kind <> 'messaging_service' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('address "%s" cannot send over channel "%s"', address, actual_channel),
            hint = 'The channel is read from the address; only a messaging service may serve another one.';
    end if;
    if messaging_service_sid is not null
        and (twilio_internal.address_kind(messaging_service_sid) is distinct from 'messaging_service' or kind = 'messaging_service') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid messaging service of a number: "%s"', messaging_service_sid),
            hint = 'Give MG and 32 hexadecimal digits beside a number, or a messaging service as the address.';
    end if;
    insert into twilio.sender as s (
        account_sid, address, channel, messaging_service_sid, can_send_media, is_default, rate_per_second,
        burst, tokens, country
    )
    values (
        twilio_internal.sole_account(add_sender.account_sid), add_sender.address, actual_channel,
        add_sender.messaging_service_sid,
        coalesce(add_sender.can_send_media, kind <> 'alphanumeric'),
        false, add_sender.rate_per_second, actual_burst, actual_burst, upper(left(add_sender.country, 16))
    )
    on conflict on constraint sender_address_is_unique do update
    set account_sid = excluded.account_sid,
        messaging_service_sid = excluded.messaging_service_sid,
        can_send_media = excluded.can_send_media,
        rate_per_second = excluded.rate_per_second,
        burst = excluded.burst,
        tokens = least(s.tokens, excluded.burst),
        country = excluded.country;
    -- The first sender of a channel is its default; a later one only with is_default.
    if coalesce(is_default, false) then
        update twilio.sender s
        set is_default = false
        where s.provider = 'twilio' and s.channel = actual_channel and s.is_default
            and s.address <> add_sender.address;
    end if;
    update twilio.sender s
    set is_default = coalesce(add_sender.is_default, true)
    where s.provider = 'twilio' and s.channel = actual_channel and s.address = add_sender.address
        and s.is_default is distinct from coalesce(add_sender.is_default, true)
        and (
            add_sender.is_default is not null
            or not exists (
                select from twilio.sender d
                where d.provider = 'twilio' and d.channel = actual_channel and d.is_default
            )
        );
end
$$;

comment on function twilio.add_sender(text, text, text, text, real, int, boolean, boolean, text) is
    'Adds or changes a sender: a number, short code, alphanumeric id, channel address or messaging service. The first sender of a channel is its default.';
