-- Keys that sign requests: added, rotated, retired, and read when a request is verified.

create function twilio_internal.insert_auth_token(account_sid text, old_token_until timestamptz)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    current_id text;
    known_id text;
    new_id text;
begin
    -- The lock on the account's row serialises rotations, so that each sees the key of the other.
    perform from twilio.account a where a.account_sid = insert_auth_token.account_sid for update;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s does not exist', account_sid),
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    end if;
    current_id := twilio_internal.newest_auth_token(account_sid);
    select k.key_id into known_id
    from twilio.signing_key k
    where k.account_sid = insert_auth_token.account_sid
        and k.algorithm = 'HMAC_SHA1'
        and k.secret = twilio_internal.secret_argument('auth_token')
        and twilio.now() < k.not_after
    order by k.key_id = current_id desc nulls last, k.not_before desc
    limit 1;
    if known_id = current_id then
        return known_id;
    end if;
    -- The other tokens are older than the new one, even if they were added in this transaction.
    update twilio.signing_key k
    set not_before = case k.not_before when twilio.now() then k.not_before - interval '1 microsecond' else k.not_before end,
        not_after = greatest(k.not_before, least(k.not_after, old_token_until))
    where k.account_sid = insert_auth_token.account_sid
        and k.algorithm = 'HMAC_SHA1'
        and k.key_id is distinct from known_id;
    if known_id is not null then
        update twilio.signing_key k
        set not_before = twilio.now(), not_after = 'infinity'
        where k.account_sid = insert_auth_token.account_sid and k.key_id = known_id;
        return known_id;
    end if;
    select 'auth_token_' || 1 + coalesce(max(substring(k.key_id from '^auth_token_([0-9]{1,9})$')::bigint), 0)
    into new_id
    from twilio.signing_key k
    where k.account_sid = insert_auth_token.account_sid;
    insert into twilio.signing_key (account_sid, key_id, algorithm, secret)
    values (insert_auth_token.account_sid, new_id, 'HMAC_SHA1', twilio_internal.secret_argument('auth_token'));
    return new_id;
end
$$;

comment on function twilio_internal.insert_auth_token(text, timestamptz) is
    'Stores the auth token of rotate_auth_token or add_account as the one for requests to Twilio, and returns its key id.';

create function twilio.rotate_auth_token(
    account_sid text,
    auth_token text,
    old_token_until timestamptz default 'infinity'
)
returns text
language c
volatile
-- An administrator may add a key without being able to read any.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'rotate_auth_token_wrapper';

comment on function twilio.rotate_auth_token(text, text, timestamptz) is
    'Sets the auth token for requests to Twilio and returns its key id; earlier tokens stay valid for callbacks until old_token_until or until they are retired.';

create function twilio_internal.newest_auth_token(account_sid text)
returns text
language c
volatile
strict
as 'MODULE_PATHNAME', 'newest_auth_token_wrapper';

comment on function twilio_internal.newest_auth_token(text) is 'Returns the id of the auth token that an account uses for requests to Twilio.';

create function twilio_internal.upsert_shared_key(account_sid text, not_before timestamptz, not_after timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if (not_before <= not_after) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'not_before must not be later than not_after',
            hint = 'Leave not_before out for now, and not_after for no end.';
    end if;
    if not exists (select from twilio.account a where a.account_sid = upsert_shared_key.account_sid) then
        raise exception using
            errcode = 'no_data_found',
            message = format('account %s does not exist', account_sid),
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    end if;
    insert into twilio.signing_key as k (account_sid, key_id, algorithm, secret, not_before, not_after)
    values (
        upsert_shared_key.account_sid, twilio_internal.secret_argument('key_id'), 'HMAC_SHA256', twilio_internal.secret_argument('secret'),
        upsert_shared_key.not_before, upsert_shared_key.not_after
    )
    on conflict on constraint signing_key_pkey do update
    set secret = excluded.secret, not_before = excluded.not_before, not_after = excluded.not_after
    where k.algorithm = 'HMAC_SHA256';
    if not found then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'key_id belongs to an auth token',
            hint = 'Give the SharedKey''s own id.';
    end if;
end
$$;

comment on function twilio_internal.upsert_shared_key(text, timestamptz, timestamptz) is
    'Stores the SharedKey of add_shared_key.';

create function twilio.add_shared_key(
    account_sid text,
    key_id text,
    secret text,
    not_before timestamptz default twilio.now(),
    not_after timestamptz default 'infinity'
)
returns void
language c
volatile
-- An administrator may add a key without being able to read any.
security definer
set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'add_shared_key_wrapper';

comment on function twilio.add_shared_key(text, text, text, timestamptz, timestamptz) is
    'Adds a SharedKey that signs with HMAC_SHA256, or changes the one with the same id.';

create function twilio.retire_signing_key(account_sid text, key_id text)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
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
exception when integrity_constraint_violation then
    -- A constraint that a user added. Its detail would contain the row with the secret.
    raise exception using errcode = sqlstate, message = sqlerrm, hint = 'See the constraints of twilio.signing_key.';
end
$$;

comment on function twilio.retire_signing_key(text, text) is
    'Retires a key: requests that it signs are refused from now on and kept in rejected_callback.';

create function twilio_internal.invalidate_config_cache()
returns void
language c
volatile
strict
as 'MODULE_PATHNAME', 'invalidate_config_cache_wrapper';

comment on function twilio_internal.invalidate_config_cache() is
    'Makes each connection read keys and public URLs again once this transaction commits; the triggers of their tables call it.';

create function twilio_internal.publish_key_change()
returns trigger
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.invalidate_config_cache();
    return null;
end
$$;

comment on function twilio_internal.publish_key_change() is
    'Makes each connection read keys, public URLs and timed rules again once this transaction commits.';

create trigger signing_key_change
after insert or update or delete on twilio.signing_key
for each row execute function twilio_internal.publish_key_change();

create trigger signing_key_truncation
after truncate on twilio.signing_key
for each statement execute function twilio_internal.publish_key_change();

create trigger public_url_change
after insert or update or delete on twilio.public_url
for each row execute function twilio_internal.publish_key_change();

create trigger public_url_truncation
after truncate on twilio.public_url
for each statement execute function twilio_internal.publish_key_change();

-- On a logical replica, connections cache keys too; replication fires row triggers only.
alter table twilio.signing_key enable always trigger signing_key_change;
alter table twilio.signing_key enable always trigger signing_key_truncation;
alter table twilio.public_url enable always trigger public_url_change;
alter table twilio.public_url enable always trigger public_url_truncation;
