\set ECHO none
-- HMAC by hand: this build has none in SQL.
create function hmac(key text, signed bytea) returns text language sql as $$
    select encode(sha256(
        (select string_agg(set_byte('\x00'::bytea, 0, get_byte(k, i) # 92), ''::bytea order by i) from generate_series(0, 63) i)
        || sha256(
            (select string_agg(set_byte('\x00'::bytea, 0, get_byte(k, i) # 54), ''::bytea order by i) from generate_series(0, 63) i)
            || signed
        )
    ), 'hex')
    from (select convert_to(key, 'UTF8') || decode(repeat('00', 64 - length(key)), 'hex') as k) x
$$;
\set ECHO all
