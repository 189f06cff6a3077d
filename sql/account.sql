-- Accounts, the keys that sign their requests, and the URLs under which this installation is called.

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

create table twilio.account (
    account_sid text collate "C" primary key
        constraint account_sid_is_valid check (account_sid ~ '^AC[0-9a-fA-F]{32}$'),
    api_url text not null default 'https://api.twilio.com'
        constraint api_url_is_a_base check (api_url ~ '^https?://[^ ?#]+$' and api_url !~ '/$'),
    api_key_sid text
        constraint api_key_sid_is_valid check (api_key_sid ~ '^SK[0-9a-fA-F]{32}$'),
    api_key_secret text,
    created_at timestamptz not null default twilio.now(),
    constraint api_key_is_whole check ((api_key_sid is null) = (api_key_secret is null))
);

comment on table twilio.account is 'Twilio accounts and subaccounts whose messages are kept here.';
comment on column twilio.account.account_sid is 'Account SID, AC and 32 hexadecimal digits.';
comment on column twilio.account.api_url is 'Base URL of the REST API, without trailing slash.';
comment on column twilio.account.api_key_sid is 'API key that sends in place of the auth token, or null.';
comment on column twilio.account.api_key_secret is 'Secret of the API key, or file:name. Only the owner reads it.';
comment on column twilio.account.created_at is 'When the account was added.';

select pg_catalog.pg_extension_config_dump('twilio.account', '');

create table twilio.signing_key (
    account_sid text collate "C" not null references twilio.account on delete cascade,
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
comment on column twilio.signing_key.not_before is 'From when on the key vouches for requests.';
comment on column twilio.signing_key.not_after is 'Until when the key vouches for requests; infinity for no end.';

select pg_catalog.pg_extension_config_dump('twilio.signing_key', '');

create table twilio.public_url (
    url text collate "C" primary key
        constraint url_is_a_base check (twilio.is_base_url(url)),
    created_at timestamptz not null default twilio.now()
);

comment on table twilio.public_url is 'Base URLs under which Twilio calls this installation; the Host header is never trusted.';
comment on column twilio.public_url.url is 'Scheme, host, port if any, and the path prefix that a proxy strips; no trailing slash.';
comment on column twilio.public_url.created_at is 'When the URL was added.';

select pg_catalog.pg_extension_config_dump('twilio.public_url', '');

create function twilio.add_public_url(url text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    url := rtrim(url, '/');
    if url is null or not twilio.is_base_url(url) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is no base URL', url),
            detail = 'A base URL has a scheme, a host, and possibly a port and a path prefix.',
            hint = 'Give the address that Twilio calls, such as https://hooks.example.com.';
    end if;
    insert into twilio.public_url as u (url) values (add_public_url.url) on conflict do nothing;
end
$$;

comment on function twilio.add_public_url(text) is
    'Adds a base URL under which Twilio calls this installation; does nothing if it is there.';

create function twilio.add_account(
    account_sid text,
    auth_token text,
    public_url text default null,
    api_key_sid text default null,
    api_key_secret text default null,
    api_url text default 'https://api.twilio.com'
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if account_sid is null or account_sid !~ '^AC[0-9a-fA-F]{32}$' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is no account SID', account_sid),
            detail = 'An account SID is AC and 32 hexadecimal digits.',
            hint = 'Copy it from the first page of the Twilio Console.';
    end if;
    if (api_key_sid is null) <> (api_key_secret is null) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'an API key needs both its SID and its secret',
            hint = 'Give api_key_sid and api_key_secret, or neither to send with the auth token.';
    end if;
    perform twilio.check_secret(auth_token), twilio.check_secret(api_key_secret);
    insert into twilio.account as a (account_sid, api_url, api_key_sid, api_key_secret)
    values (
        add_account.account_sid, rtrim(add_account.api_url, '/'),
        add_account.api_key_sid, add_account.api_key_secret
    )
    on conflict on constraint account_pkey do update
    set api_url = excluded.api_url,
        api_key_sid = excluded.api_key_sid,
        api_key_secret = excluded.api_key_secret;
    perform twilio.rotate_auth_token(add_account.account_sid, add_account.auth_token);
    perform twilio.enable_sending_first();
    if public_url is not null then
        perform twilio.add_public_url(add_account.public_url);
    end if;
end
$$;

comment on function twilio.add_account(text, text, text, text, text, text) is
    'Adds an account with its auth token, or changes the one that is there; an earlier auth token stays live.';

create function twilio.rotate_auth_token(
    account_sid text,
    auth_token text,
    old_token_until timestamptz default 'infinity'
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    new_id text;
begin
    perform twilio.check_secret(auth_token);
    -- The account's row serialises two rotations, so both see each other's key.
    perform from twilio.account a where a.account_sid = rotate_auth_token.account_sid for update;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('there is no account %s', account_sid),
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    end if;
    select k.key_id into new_id
    from twilio.signing_key k
    where k.account_sid = rotate_auth_token.account_sid
        and k.algorithm = 'HMAC_SHA1'
        and k.secret = auth_token
        and twilio.now() < k.not_after;
    if found then
        return new_id;
    end if;
    update twilio.signing_key k
    set not_after = greatest(k.not_before, least(k.not_after, old_token_until))
    where k.account_sid = rotate_auth_token.account_sid and k.algorithm = 'HMAC_SHA1';
    select 'auth_token_' || 1 + count(*) into new_id
    from twilio.signing_key k
    where k.account_sid = rotate_auth_token.account_sid and k.key_id like 'auth\_token\_%';
    insert into twilio.signing_key (account_sid, key_id, algorithm, secret)
    values (rotate_auth_token.account_sid, new_id, 'HMAC_SHA1', auth_token);
    return new_id;
end
$$;

comment on function twilio.rotate_auth_token(text, text, timestamptz) is
    'Adds an auth token and returns its key id; earlier ones stay live until old_token_until or until they are retired.';

create function twilio.add_shared_key(
    account_sid text,
    key_id text,
    secret text,
    not_before timestamptz default twilio.now(),
    not_after timestamptz default 'infinity'
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio.check_secret(secret);
    if key_id is null or key_id !~ '^[!-~]{1,128}$' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is no key id', key_id),
            hint = 'Give the id that X-Twilio-Webhooks-Signature-Settings names after key=.';
    end if;
    if not exists (select from twilio.account a where a.account_sid = add_shared_key.account_sid) then
        raise exception using
            errcode = 'no_data_found',
            message = format('there is no account %s', account_sid),
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    end if;
    insert into twilio.signing_key as k (account_sid, key_id, algorithm, secret, not_before, not_after)
    values (
        add_shared_key.account_sid, add_shared_key.key_id, 'HMAC_SHA256',
        add_shared_key.secret, add_shared_key.not_before, add_shared_key.not_after
    )
    on conflict on constraint signing_key_pkey do update
    set secret = excluded.secret, not_before = excluded.not_before, not_after = excluded.not_after
    where k.algorithm = 'HMAC_SHA256';
end
$$;

comment on function twilio.add_shared_key(text, text, text, timestamptz, timestamptz) is
    'Adds a SharedKey that signs with HMAC_SHA256, or changes the one of that id.';

create function twilio.retire_signing_key(account_sid text, key_id text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update twilio.signing_key k
    set not_before = least(k.not_before, twilio.now()), not_after = least(k.not_after, twilio.now())
    where k.account_sid = retire_signing_key.account_sid and k.key_id = retire_signing_key.key_id;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s has no signing key "%s"', account_sid, key_id),
            hint = 'See: select account_sid, key_id, not_after from twilio.signing_key.';
    end if;
end
$$;

comment on function twilio.retire_signing_key(text, text) is
    'Ends the life of a key: what it signs from now on is refused and kept in rejected_callback.';

create function twilio.live_key(account_sids text[])
returns table (account_sid text, key_id text, algorithm text, secret text)
language plpgsql
stable
rows 4
set enable_seqscan = off
-- A plan for each list of accounts costs more than the look-up.
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select k.account_sid, k.key_id, k.algorithm, k.secret
    from twilio.signing_key k
    where k.account_sid = any (account_sids)
        and k.not_before <= twilio.now()
        and twilio.now() < k.not_after;
end
$$;

comment on function twilio.live_key(text[]) is
    'Returns the keys of these accounts that vouch for requests now.';

create function twilio.any_live_key(at_most int)
returns table (account_sid text, key_id text, algorithm text, secret text)
language sql
stable
begin atomic
    select k.account_sid, k.key_id, k.algorithm, k.secret
    from twilio.signing_key k
    where k.not_before <= twilio.now() and twilio.now() < k.not_after
    order by k.account_sid, k.key_id
    limit at_most;
end;

comment on function twilio.any_live_key(int) is
    'Returns live keys of all accounts, for requests that name no account.';
