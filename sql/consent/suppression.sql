-- Suppressions: blocked numbers and opt-outs, with their history.

create function twilio.person_key(address text, country text default null)
returns text
language c
immutable
-- It raises no error and has no side effect, so row security does not keep queries from the indexes on it.
leakproof
parallel safe
as 'MODULE_PATHNAME', 'person_key_wrapper';

comment on function twilio.person_key(text, text) is
    'Returns the key of the person with an address; it is the same for all spellings and channels of a number. The country is that of a national number.';

create function twilio_internal.number_forms(key text)
returns text[]
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'number_forms_wrapper';

comment on function twilio_internal.number_forms(text) is
    'Returns the digits of every number in E.164 that has this key.';

create function twilio.normalize_number(number text, country text default null)
returns text
language c
immutable
parallel safe
as 'MODULE_PATHNAME', 'normalize_number_wrapper';

comment on function twilio.normalize_number(text, text) is
    'Returns a number in E.164, in its dialled form; null if the text is not a number. The country is that of a national number.';

create table twilio.suppression (
    suppression_id bigint generated always as identity primary key,
    address text collate "C" not null
        constraint address_is_bare check (address <> '' and address !~ '^[a-z]{2,20}:'),
    person_key text collate "C" not null
        constraint person_key_is_not_empty check (person_key <> ''),
    account_sid text collate "C",
    from_address text collate "C",
    kind text not null
        constraint kind_is_known check (kind in ('block', 'opt_out', 'learnt')),
    reason text,
    created_at timestamptz not null default twilio.now(),
    ended_at timestamptz,
    ended_reason text,
    repeated_at timestamptz
);

create index suppression_person_key on twilio.suppression (person_key);

comment on table twilio.suppression is 'Suppressed recipients, present and past: one row per block or opt-out, which is ended rather than deleted.';
comment on column twilio.suppression.suppression_id is 'Order of entry.';
comment on column twilio.suppression.address is 'Address as it was entered or sent, without channel prefix: a block holds on every channel.';
comment on column twilio.suppression.person_key is 'Key of the recipient, by which recipients are compared: see twilio.person_key.';
comment on column twilio.suppression.account_sid is 'Account of the suppression; null for all.';
comment on column twilio.suppression.from_address is 'Sender of the suppression, without channel prefix; null for all.';
comment on column twilio.suppression.kind is 'block (by us), opt_out (by the recipient) or learnt (from a provider''s refusal).';
comment on column twilio.suppression.reason is 'Reason, in words.';
comment on column twilio.suppression.created_at is 'When it began.';
comment on column twilio.suppression.ended_at is 'When it ended; null while it holds.';
comment on column twilio.suppression.ended_reason is 'Why it ended.';
comment on column twilio.suppression.repeated_at is 'When the recipient opted out again, or a provider refused again, while it held; null if never.';

select pg_catalog.pg_extension_config_dump('twilio.suppression', '');
select pg_catalog.pg_extension_config_dump('twilio.suppression_suppression_id_seq', '');

create function twilio_internal.bare_address(address text)
returns text
language sql
immutable
strict
parallel safe
-- No address is longer than this.
return regexp_replace(btrim(left(address, 1000)), '^[a-z]{2,20}:', '', 'i');

comment on function twilio_internal.bare_address(text) is
    'Strips the channel prefix off an address: whatsapp:+12025550123 is +12025550123.';

create function twilio_internal.key_suppression()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.person_key := coalesce(new.person_key, twilio.person_key(new.address));
    return new;
end
$$;

comment on function twilio_internal.key_suppression() is
    'Sets person_key of rows that are inserted into twilio.suppression manually.';

create trigger key_suppression before insert on twilio.suppression
for each row execute function twilio_internal.key_suppression();

create function twilio_internal.country_at(account_sid text, own_address text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    return coalesce(
        (
            select s.country
            from twilio.sender s
            where s.address = own_address
                and s.country is not null
                and (account_sid is null or s.account_sid = account_sid)
            order by s.sender_id
            limit 1
        ),
        (select a.country from twilio.account a where a.account_sid = account_sid)
    );
end
$$;

comment on function twilio_internal.country_at(text, text) is
    'Returns the country of national numbers at a sender of ours, or else of its account; null if unknown.';

create function twilio_internal.suppression_of(account_sid text, from_address text, to_address text)
returns text
language sql
stable
begin atomic
    select coalesce(s.reason, s.kind)
    from twilio.suppression s
    where s.person_key = twilio.person_key(
            suppression_of.to_address,
            -- A phone also sends to national numbers that are not longer than a short code.
            case when suppression_of.to_address not like '%+%' then
                twilio_internal.country_at(suppression_of.account_sid, suppression_of.from_address)
            end
        )
        and s.ended_at is null
        -- Other providers have neither accounts nor senders of Twilio, so an opt-out holds for them too.
        and (
            s.account_sid is null
            or suppression_of.account_sid is null
            or s.account_sid = suppression_of.account_sid
        )
        -- The numbers of a messaging service are not known here, so the service counts as each of them.
        and (
            s.from_address is null
            or suppression_of.account_sid is null
            or suppression_of.from_address is null
            or s.from_address like 'MG%'
            or suppression_of.from_address like 'MG%'
            or twilio.person_key(s.from_address) = twilio.person_key(suppression_of.from_address)
        )
    order by s.suppression_id
    limit 1;
end;

comment on function twilio_internal.suppression_of(text, text, text) is
    'Returns why a recipient is suppressed for a sender of an account; null if it is not.';

create function twilio_internal.suppress(
    address text,
    account_sid text,
    from_address text,
    kind text,
    reason text,
    at timestamptz default twilio.now(),
    country text default null
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    bare constant text := twilio_internal.bare_address(address);
    person constant text := twilio.person_key(address, country);
    sender constant text := twilio_internal.bare_address(from_address);
    id bigint;
begin
    select s.suppression_id into id
    from twilio.suppression s
    where s.person_key = person
        and s.ended_at is null
        and s.kind = kind
        and s.account_sid is not distinct from account_sid
        and twilio.person_key(s.from_address) is not distinct from twilio.person_key(sender)
    limit 1;
    if not found then
        insert into twilio.suppression (address, person_key, account_sid, from_address, kind, reason, created_at)
        values (bare, person, account_sid, sender, kind, reason, at)
        returning suppression_id into id;
        perform twilio_internal.publish('suppression.began', null, jsonb_build_object(
            'address', bare, 'account_sid', account_sid, 'from', sender, 'suppression', kind, 'reason', reason
        ));
    elsif kind <> 'block' then
        -- Keeps the first and the last time, regardless of the order of arrival. The messages may be purged or redacted.
        update twilio.suppression s
        set created_at = least(s.created_at, at),
            repeated_at = greatest(s.repeated_at, at, s.created_at)
        where s.suppression_id = id
            and (at < s.created_at or at > coalesce(s.repeated_at, s.created_at));
    end if;
    return id;
end
$$;

comment on function twilio_internal.suppress(text, text, text, text, text, timestamptz, text) is
    'Adds a suppression, or sets repeated_at of the same one if it holds already; returns its id.';

create function twilio_internal.publish_end(ended twilio.suppression)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.publish('suppression.ended', null, jsonb_build_object(
        'address', ended.address, 'account_sid', ended.account_sid, 'from', ended.from_address,
        'suppression', ended.kind, 'reason', ended.ended_reason
    ));
    return true;
end
$$;

comment on function twilio_internal.publish_end(twilio.suppression) is
    'Adds the end of a suppression to the feed.';

create function twilio_internal.check_recipient(address text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    bare constant text := twilio_internal.bare_address(address);
begin
    -- An address that no recipient can have would look like a block, but have no effect.
    if bare is null
        or bare !~ '^[!-~]+$'
        or length(bare) > 256
        -- Only channels of numbers of their own, such as Messenger, have digits alone.
        or bare ~ '^[0-9]{9,}$' and (btrim(address) = bare or btrim(address) ~* '^(sms|mms|rcs|whatsapp):')
        or bare ~ '^\+' and bare !~ '^\+[1-9][0-9]{1,14}$'
    then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid address: "%s"', left(address, 64)),
            detail = 'A number is + and 2 to 15 digits, with its country code; short codes stand alone.',
            hint = 'Write it as Twilio does: +12025550123, whatsapp:+12025550123.';
    end if;
end
$$;

comment on function twilio_internal.check_recipient(text) is
    'Raises an error unless a text can be the address of a recipient.';

create function twilio.block(
    address text,
    reason text default null,
    account_sid text default null,
    from_address text default null
)
returns bigint
language plpgsql
volatile
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform twilio_internal.check_size(greatest(
        octet_length(address), octet_length(reason), octet_length(account_sid), octet_length(from_address)
    )::bigint);
    perform twilio_internal.check_recipient(address);
    return twilio_internal.suppress(address, account_sid, from_address, 'block', reason);
end
$$;

comment on function twilio.block(text, text, text, text) is
    'Blocks an address on every channel, for all accounts and senders unless one is given: no messages are sent to it, and its messages are stored, but not delivered to consumers. Returns the suppression''s id.';

create function twilio.unblock(
    address text,
    reason text default null,
    including_opt_out boolean default false
)
returns int
language plpgsql
volatile
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    bare text;
    person text;
    ended int;
    remaining text;
begin
    perform twilio_internal.check_size(greatest(octet_length(address), octet_length(reason))::bigint);
    bare := twilio_internal.bare_address(address);
    person := twilio.person_key(address);
    perform twilio_internal.check_recipient(address);
    with over as (
        update twilio.suppression s
        set ended_at = twilio.now(), ended_reason = coalesce(reason, 'unblocked')
        where s.person_key = person
            and s.ended_at is null
            and (s.kind = 'block' or including_opt_out)
        returning s.*
    )
    select count(twilio_internal.publish_end(o)) into ended from over o;
    select min(s.kind) into remaining
    from twilio.suppression s
    where s.person_key = person and s.ended_at is null;
    if remaining is not null then
        raise notice using
            message = format('%s is still suppressed: %s', bare, remaining),
            hint = 'The recipient ends an opt-out by texting START. If they agreed elsewhere: including_opt_out => true.';
    end if;
    return ended;
end
$$;

comment on function twilio.unblock(text, text, boolean) is
    'Ends the blocks of an address, and with including_opt_out its opt-outs too; returns how many ended.';
