-- Accounts, their keys, and the URLs at which Twilio calls this installation.

do $$
begin
    if pg_catalog.getdatabaseencoding() <> 'UTF8' then
        raise exception using
            errcode = 'feature_not_supported',
            message = pg_catalog.format('database encoding %s is not supported', pg_catalog.getdatabaseencoding()),
            detail = 'Messages hold any Unicode text.',
            hint = 'Create the database with: create database … encoding ''UTF8'' template template0.';
    end if;
end
$$;

comment on schema twilio is 'Twilio messages: their state, their log, and the functions that receive and send them.';

create function twilio_internal.url_fault(purpose text, url text)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'url_fault_wrapper';

comment on function twilio_internal.url_fault(text, text) is
    'Returns why a text is not a valid base URL for a purpose (public, api or gateway), or null.';

create function twilio_internal.is_country(code text)
returns boolean
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'is_country_wrapper';

comment on function twilio_internal.is_country(text) is
    'Returns whether a text is the code of a country by ISO 3166-1 alpha-2.';

create table twilio.account (
    account_sid text collate "C" primary key
        constraint account_sid_is_valid check (account_sid ~ '^AC[0-9a-fA-F]{32}$'),
    api_url text not null default 'https://api.twilio.com'
        constraint api_url_is_a_base check (twilio_internal.url_fault('api', api_url) is null),
    api_key_sid text
        constraint api_key_sid_is_valid check (api_key_sid ~ '^SK[0-9a-fA-F]{32}$'),
    api_key_secret text,
    created_at timestamptz not null default twilio.now(),
    country text
        constraint country_is_known check (twilio_internal.is_country(country)),
    constraint api_key_is_whole check ((api_key_sid is null) = (api_key_secret is null))
);

comment on table twilio.account is 'Twilio accounts and subaccounts whose messages are stored here.';
comment on column twilio.account.account_sid is 'Account SID, AC and 32 hexadecimal digits.';
comment on column twilio.account.api_url is 'Base URL of the REST API, without trailing slash: its host has a name, or is on loopback.';
comment on column twilio.account.api_key_sid is 'API key that sends in place of the auth token, or null.';
comment on column twilio.account.api_key_secret is 'Secret of the API key, or file:name. Only the owner reads it.';
comment on column twilio.account.created_at is 'When the account was added.';
comment on column twilio.account.country is 'Country (ISO 3166-1 alpha-2) of national numbers that send messages to it; null if unknown.';

select pg_catalog.pg_extension_config_dump('twilio.account', '');

create table twilio.signing_key (
    account_sid text collate "C" not null,
    key_id text collate "C" not null
        constraint key_id_is_short check (key_id ~ '^[!-~]{1,128}$'),
    algorithm text not null
        constraint algorithm_is_known check (algorithm in ('HMAC_SHA1', 'HMAC_SHA256')),
    secret text not null
        constraint secret_is_not_empty check (secret <> ''),
    not_before timestamptz not null default twilio.now(),
    not_after timestamptz not null default 'infinity',
    primary key (account_sid, key_id),
    constraint key_lives_forward check (not_before <= not_after)
);

comment on table twilio.signing_key is 'Keys with which requests are signed; several of an account may be live at once.';
comment on column twilio.signing_key.account_sid is 'Account whose requests the key signs.';
comment on column twilio.signing_key.key_id is 'auth_token_1, auth_token_2, … or the id of a SharedKey.';
comment on column twilio.signing_key.algorithm is 'HMAC_SHA1 for auth tokens, HMAC_SHA256 for SharedKeys; no header changes it.';
comment on column twilio.signing_key.secret is 'The secret, or file:name below twilio_callback.secret_directory. Only the owner reads it.';
comment on column twilio.signing_key.not_before is 'Time from which signatures of the key are accepted.';
comment on column twilio.signing_key.not_after is 'Time until which signatures of the key are accepted; infinity for no end.';

select pg_catalog.pg_extension_config_dump('twilio.signing_key', '');

create table twilio.public_url (
    url text collate "C" primary key
        constraint url_is_a_base check (twilio_internal.url_fault('public', url) is null),
    created_at timestamptz not null default twilio.now()
);

comment on table twilio.public_url is 'Base URLs under which Twilio calls this installation; the Host header is never trusted.';
comment on column twilio.public_url.url is 'Scheme, host, port if any, and the path prefix that a proxy strips; no trailing slash.';
comment on column twilio.public_url.created_at is 'When the URL was added.';

select pg_catalog.pg_extension_config_dump('twilio.public_url', '');

create function twilio_internal.secret_argument(name text)
returns text
language c
volatile
strict
as 'MODULE_PATHNAME', 'secret_argument_wrapper';

comment on function twilio_internal.secret_argument(text) is
    'Returns an argument of the calling add_… or rotate_… function by name, so that no statement contains a secret; raises an error if there is no such call.';

create function twilio.add_public_url(url text)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.check_size(octet_length(url)::bigint);
    url := rtrim(url, '/');
    if url is null or twilio_internal.url_fault('public', url) is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'invalid public_url',
            detail = format('The URL cannot be used: %s.', coalesce(twilio_internal.url_fault('public', url), 'it is null')),
            hint = 'Give the address that Twilio calls, such as https://hooks.example.com.';
    end if;
    insert into twilio.public_url as u (url) values (add_public_url.url) on conflict do nothing;
end
$$;

comment on function twilio.add_public_url(text) is
    'Adds a base URL under which Twilio calls this installation; does nothing if it exists already.';

create function twilio.add_account(
    account_sid text,
    auth_token text,
    public_url text default null,
    api_key_sid text default null,
    api_key_secret text default null,
    api_url text default null,
    country text default null
)
returns void
language c
volatile
-- Runs as its caller: only the owner may say where the account's secrets are sent.
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'add_account_wrapper';

comment on function twilio.add_account(text, text, text, text, text, text, text) is
    'Adds an account with its auth token, or changes the given values of an existing account; an earlier auth token stays valid. Only the owner may give an api_url other than https://api.twilio.com.';

create function twilio_internal.set_api_url(account_sid text, api_url text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if not has_column_privilege('twilio.account', 'api_url', 'update') then
        raise exception using
            errcode = 'insufficient_privilege',
            message = 'only the owner may change api_url',
            detail = 'The account''s secrets are sent there.',
            hint = 'Leave api_url out, or let the owner of the extension call this.';
    end if;
    -- The value is not shown: it may contain a password, or be a secret that was given in the wrong place.
    if twilio_internal.url_fault('api', rtrim(set_api_url.api_url, '/')) is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'invalid api_url',
            detail = format(
                'The URL cannot be used: %s.', twilio_internal.url_fault('api', rtrim(set_api_url.api_url, '/'))
            ),
            hint = 'Leave api_url out for https://api.twilio.com.';
    end if;
    update twilio.account a
    set api_url = rtrim(set_api_url.api_url, '/')
    where a.account_sid = set_api_url.account_sid;
end
$$;

comment on function twilio_internal.set_api_url(text, text) is
    'Sets where an account''s requests are sent, together with its secrets.';

create function twilio_internal.upsert_account(account_sid text, api_key_sid text, country text default null)
returns text
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    current_url text;
begin
    insert into twilio.account as a (account_sid, api_key_sid, api_key_secret, country)
    values (
        upsert_account.account_sid, upsert_account.api_key_sid, twilio_internal.secret_argument('api_key_secret'),
        upper(left(upsert_account.country, 16))
    )
    on conflict on constraint account_pkey do update
    set api_key_sid = coalesce(excluded.api_key_sid, a.api_key_sid),
        api_key_secret = coalesce(excluded.api_key_secret, a.api_key_secret),
        country = coalesce(excluded.country, a.country)
    returning a.api_url into current_url;
    perform twilio_internal.insert_auth_token(upsert_account.account_sid, 'infinity');
    perform twilio_internal.enable_sending_first();
    return current_url;
end
$$;

comment on function twilio_internal.upsert_account(text, text, text) is
    'Stores the arguments of add_account, and returns the account''s api_url.';
