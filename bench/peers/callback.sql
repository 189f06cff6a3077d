-- A callback in PL/pgSQL with pgcrypto: form decoding, signature, the two tables. As a careful user of
-- PostgreSQL would write it.
create extension pgcrypto;

create function decode_component(input text) returns text language plpgsql immutable strict as $$
declare
    plain text := replace(input, '+', ' ');
    parts text[];
    raw bytea := '';
    part text;
begin
    if strpos(plain, '%') = 0 then
        return plain;
    end if;
    parts := string_to_array(plain, '%');
    raw := convert_to(parts[1], 'UTF8');
    foreach part in array parts[2:] loop
        raw := raw || decode(left(part, 2), 'hex') || convert_to(substr(part, 3), 'UTF8');
    end loop;
    return convert_from(raw, 'UTF8');
end
$$;

create function sms_callback(url text, body text, signature text, token text) returns int language plpgsql as $$
declare
    pairs text[] := string_to_array(body, '&');
    form jsonb := '{}';
    signed text;
begin
    select string_agg(p.name || p.value, '' order by p.name collate "C", p.value collate "C"),
        jsonb_object_agg(p.name, p.value)
    into signed, form
    from (
        select decode_component(split_part(x, '=', 1)) as name,
            decode_component(substr(x, strpos(x, '=') + 1)) as value
        from unnest(pairs) x
    ) p;
    if encode(hmac(convert_to(url || signed, 'UTF8'), convert_to(token, 'UTF8'), 'sha1'), 'base64') <> signature then
        return 403;
    end if;
    insert into message_event (message_sid, status, error_code, params)
    values (form ->> 'MessageSid', form ->> 'MessageStatus', (form ->> 'ErrorCode')::int, form)
    on conflict do nothing;
    insert into message as m (message_sid, account_sid, from_address, to_address, status, rank, error_code)
    values (
        form ->> 'MessageSid', form ->> 'AccountSid', form ->> 'From', form ->> 'To',
        form ->> 'MessageStatus', rank_of(form ->> 'MessageStatus'), (form ->> 'ErrorCode')::int
    )
    on conflict (message_sid) do update
    set status = excluded.status, rank = excluded.rank, error_code = excluded.error_code, updated_at = now()
    where m.rank < excluded.rank;
    return 204;
end
$$;
