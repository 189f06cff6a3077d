-- The life of the keys that sign requests: added, rotated, retired, and found when a request is verified.

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
    current_id text;
    known_id text;
    new_id text;
begin
    perform twilio.check_account_sid(account_sid), twilio.check_given_secret(auth_token);
    -- The account's row serialises two rotations, so both see each other's key.
    perform from twilio.account a where a.account_sid = rotate_auth_token.account_sid for update;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('there is no account %s', account_sid),
            hint = 'Add it with twilio.add_account(account_sid, auth_token).';
    end if;
    select t.key_id into current_id from twilio.newest_auth_token(rotate_auth_token.account_sid) t;
    select k.key_id into known_id
    from twilio.signing_key k
    where k.account_sid = rotate_auth_token.account_sid
        and k.algorithm = 'HMAC_SHA1'
        and k.secret = auth_token
        and twilio.now() < k.not_after
    order by k.key_id = current_id desc nulls last, k.not_before desc
    limit 1;
    if known_id = current_id then
        return known_id;
    end if;
    -- The rest are older than the one that now counts, even if they came in this very transaction.
    update twilio.signing_key k
    set not_before = case k.not_before when twilio.now() then k.not_before - interval '1 microsecond' else k.not_before end,
        not_after = greatest(k.not_before, least(k.not_after, old_token_until))
    where k.account_sid = rotate_auth_token.account_sid
        and k.algorithm = 'HMAC_SHA1'
        and k.key_id is distinct from known_id;
    if known_id is not null then
        update twilio.signing_key k
        set not_before = twilio.now(), not_after = 'infinity'
        where k.account_sid = rotate_auth_token.account_sid and k.key_id = known_id;
        return known_id;
    end if;
    select 'auth_token_' || 1 + coalesce(max(substring(k.key_id from '^auth_token_([0-9]{1,9})$')::bigint), 0)
    into new_id
    from twilio.signing_key k
    where k.account_sid = rotate_auth_token.account_sid;
    insert into twilio.signing_key (account_sid, key_id, algorithm, secret)
    values (rotate_auth_token.account_sid, new_id, 'HMAC_SHA1', auth_token);
    return new_id;
end
$$;

comment on function twilio.rotate_auth_token(text, text, timestamptz) is
    'Makes an auth token the one that sends and returns its key id; earlier ones stay live until old_token_until or until they are retired.';

create function twilio.newest_auth_token(account_sid text)
returns twilio.signing_key
language sql
stable
begin atomic
    select k
    from twilio.signing_key k
    where k.account_sid = newest_auth_token.account_sid and k.algorithm = 'HMAC_SHA1'
        and k.not_before <= twilio.now() and twilio.now() < k.not_after
    order by k.not_before desc, length(k.key_id) desc, k.key_id desc
    limit 1;
end;

comment on function twilio.newest_auth_token(text) is 'Returns the auth token that an account sends with.';

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
    perform twilio.check_account_sid(account_sid), twilio.check_given_secret(secret);
    if key_id is null or key_id !~ '^[!-~]{1,128}$' or key_id like 'auth\_token\_%' then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is no id of a SharedKey', key_id),
            hint = 'Give the id that X-Twilio-Webhooks-Signature-Settings names after key=.';
    end if;
    if (not_before <= not_after) is not true then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('a key cannot live from %s to %s', coalesce(not_before::text, 'null'), coalesce(not_after::text, 'null')),
            hint = 'Leave not_before out for now, and not_after for no end.';
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
    if not found then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('"%s" is the id of an auth token', key_id),
            hint = 'Give the SharedKey''s own id.';
    end if;
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

create function twilio.keys_of(account_sids text[])
returns table (
    account_sid text,
    key_id text,
    algorithm text,
    secret text,
    not_before timestamptz,
    not_after timestamptz
)
language plpgsql
stable
rows 4
set enable_seqscan = off
set jit = off
-- A plan for each list of accounts costs more than the look-up.
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select k.account_sid, k.key_id, k.algorithm, k.secret, k.not_before, k.not_after
    from twilio.signing_key k
    where k.account_sid = any (account_sids);
end
$$;

comment on function twilio.keys_of(text[]) is
    'Returns all keys of these accounts, with the time that each lives.';

create function twilio.note_change_of_keys()
returns trigger
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio.forget_keys();
    return null;
end
$$;

comment on function twilio.note_change_of_keys() is
    'Makes every connection read keys, public URLs and rules by time anew once this transaction commits.';

create trigger signing_key_change
after insert or update or delete on twilio.signing_key
for each row execute function twilio.note_change_of_keys();

create trigger signing_key_truncation
after truncate on twilio.signing_key
for each statement execute function twilio.note_change_of_keys();

create trigger public_url_change
after insert or update or delete on twilio.public_url
for each row execute function twilio.note_change_of_keys();

create trigger public_url_truncation
after truncate on twilio.public_url
for each statement execute function twilio.note_change_of_keys();

-- Where replication applies the changes, connections keep keys as well; it fires triggers for rows only.
alter table twilio.signing_key enable always trigger signing_key_change;
alter table twilio.signing_key enable always trigger signing_key_truncation;
alter table twilio.public_url enable always trigger public_url_change;
alter table twilio.public_url enable always trigger public_url_truncation;

create function twilio.any_live_key(at_most int)
returns table (
    account_sid text,
    key_id text,
    algorithm text,
    secret text,
    not_before timestamptz,
    not_after timestamptz
)
language sql
stable
begin atomic
    select k.account_sid, k.key_id, k.algorithm, k.secret, k.not_before, k.not_after
    from twilio.signing_key k
    where k.not_before <= twilio.now() and twilio.now() < k.not_after
    order by k.account_sid, k.key_id
    limit at_most;
end;

comment on function twilio.any_live_key(int) is
    'Returns live keys of all accounts, for requests that name no account.';
