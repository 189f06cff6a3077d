-- Local hours in which a message may be sent: the time zones of numbers, and the moments at which it is quiet at the recipient.

create function twilio_internal.is_zone(name text)
returns boolean
language plpgsql
stable
strict
set search_path = pg_catalog, pg_temp
as $$
begin
    -- The view reads a thousand files, which takes 20 ms. A word with a slash and without digits is a name, if PostgreSQL knows it:
    -- abbreviations have no slash, and zones by offset have digits.
    if name ~ '^[A-Z][A-Za-z_]+(/[A-Z][A-Za-z_-]+)+$' then
        perform now() at time zone name;
        return true;
    end if;
    return exists (select from pg_timezone_names z where z.name = is_zone.name);
exception
    when invalid_parameter_value then
        return false;
end
$$;

comment on function twilio_internal.is_zone(text) is
    'Returns whether a time zone is in pg_timezone_names: abbreviations and offsets are not, since they have no daylight saving.';

create table twilio.number_zone (
    prefix text collate "C" primary key
        constraint prefix_is_of_a_number check (prefix ~ '^[+][1-9][0-9]{0,14}$'),
    zones text[] not null
        constraint zones_are_named check (cardinality(zones) > 0 and array_position(zones, null) is null)
);

comment on table twilio.number_zone is 'Users'' changes of and additions to the shipped time zones of numbers. The longest prefix counts, and of the same prefix the row here.';
comment on column twilio.number_zone.prefix is 'How the numbers begin, with the plus sign: +1303.';
comment on column twilio.number_zone.zones is 'Time zones of pg_timezone_names that such a number may be in. It is quiet at the number if it is quiet in one of them.';

select pg_catalog.pg_extension_config_dump('twilio.number_zone', '');

create function twilio_internal.check_number_zone()
returns trigger
language plpgsql
-- Administrators change the table directly, and may not call the functions here.
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    wrong text;
begin
    select z into wrong from unnest(new.zones) z where not twilio_internal.is_zone(z) limit 1;
    -- A dump may have a zone that this server does not know: then it is quiet there at all times.
    if found and not twilio_internal.is_being_restored() then
        perform twilio_internal.refuse_zone(wrong);
    end if;
    return new;
end
$$;

comment on function twilio_internal.check_number_zone() is 'Raises an error for a time zone that does not exist.';

create trigger check_number_zone
before insert or update on twilio.number_zone
for each row execute function twilio_internal.check_number_zone();

create function twilio_internal.refuse_zone(name text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'invalid_parameter_value',
        message = format('time zone "%s" does not exist', left(name, 64)),
        detail = 'A time zone is a name of pg_timezone_names, in its spelling.',
        hint = 'Give a name such as America/Denver: see select name from pg_timezone_names.';
end
$$;

comment on function twilio_internal.refuse_zone(text) is 'Raises the error for a time zone that does not exist.';

create function twilio_internal.default_number_zone(number text)
returns table (prefix text, zones text[])
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'default_number_zone_wrapper';

comment on function twilio_internal.default_number_zone(text) is
    'Returns the longest shipped prefix of a number, with the time zones that such a number may be in; no row if none is known.';

create function twilio_internal.zones_of(address text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    number constant text := twilio_internal.bare_address(address);
begin
    return (
        select k.zones
        from (
            select n.prefix, n.zones, 1 as place
            from twilio.number_zone n
            where n.prefix = any (array(select left(number, l) from generate_series(2, 16) l))
            union all
            select d.prefix, d.zones, 2
            from twilio_internal.default_number_zone(number) d
        ) k
        order by length(k.prefix) desc, k.place
        limit 1
    );
end
$$;

comment on function twilio_internal.zones_of(text) is
    'Returns the time zones that a recipient may be in, by the number''s longest prefix; null if none is known.';

create type twilio_internal.local_hours as (
    not_before time,
    not_after time,
    zone text
);

comment on type twilio_internal.local_hours is
    'Hours of the day in a time zone: from not_before until before not_after, which is on the next day if it is earlier. Without a zone they never come.';

create function twilio_internal.hours_in(not_before time, not_after time, zones text[])
returns twilio_internal.local_hours[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    hours twilio_internal.local_hours[];
    zone text;
begin
    foreach zone in array coalesce(zones, array[null::text]) loop
        begin
            perform now() at time zone zone;
        exception
            -- A user's row may name a zone that the server does not know any more.
            when invalid_parameter_value then
                zone := null;
        end;
        hours := hours || row(coalesce(not_before, '00:00'), coalesce(not_after, '24:00'), zone)::twilio_internal.local_hours;
    end loop;
    return hours;
end
$$;

comment on function twilio_internal.hours_in(time, time, text[]) is
    'Returns hours of the day in each of several time zones; zones that are not known have none.';

create function twilio_internal.is_quiet(hours twilio_internal.local_hours, at timestamptz)
returns boolean
language sql
immutable
return case
    when (hours).zone is null then true
    when (hours).not_before < (hours).not_after then
        (at at time zone (hours).zone)::time not between (hours).not_before and (hours).not_after
        or (at at time zone (hours).zone)::time = (hours).not_after
    else (at at time zone (hours).zone)::time < (hours).not_before and (at at time zone (hours).zone)::time >= (hours).not_after
end;

comment on function twilio_internal.is_quiet(twilio_internal.local_hours, timestamptz) is
    'Returns whether a moment is outside these hours.';

create function twilio_internal.next_change(hours twilio_internal.local_hours, at timestamptz)
returns timestamptz
language sql
immutable
begin atomic
    select min(c.u)
    from (
        select (
            (at at time zone (hours).zone)::date + d
            + case when twilio_internal.is_quiet(hours, at) then (hours).not_before else (hours).not_after end
        ) at time zone (hours).zone + e
        from generate_series(0, 2) d
        -- Of a local time that comes twice, PostgreSQL chooses the later one.
        cross join unnest(array['0', '-30 min', '-1 h']::interval[]) e
        union all
        -- Where the clock is changed, hours may begin or end with the change.
        select date_trunc('hour', at) + n * interval '15 min'
        from generate_series(1, 200) n
        where (at at time zone (hours).zone) + interval '50 h' <> (at + interval '50 h') at time zone (hours).zone
    ) c (u)
    where c.u > at and twilio_internal.is_quiet(hours, c.u) <> twilio_internal.is_quiet(hours, at);
end;

comment on function twilio_internal.next_change(twilio_internal.local_hours, timestamptz) is
    'Returns the first moment after at when these hours end, or begin if it is quiet at that time; null without a zone.';

create function twilio_internal.quiet_end(hours twilio_internal.local_hours[], at timestamptz)
returns timestamptz
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    moment timestamptz := at;
    later timestamptz;
    is_quiet boolean;
begin
    loop
        select bool_or(h.zone is null), max(case when h.zone is not null then twilio_internal.next_change(h, moment) end)
        into is_quiet, later
        from unnest(hours) h
        where twilio_internal.is_quiet(h, moment);
        if is_quiet is null then
            return moment;
        end if;
        -- Hours in distant zones may have no moment in common.
        if is_quiet or later > at + interval '4 days' then
            return null;
        end if;
        moment := later;
    end loop;
end
$$;

comment on function twilio_internal.quiet_end(twilio_internal.local_hours[], timestamptz) is
    'Returns the first moment from at on that is within all of these hours: at itself if it is; null if there is none.';

create function twilio_internal.quiet_start(hours twilio_internal.local_hours[], at timestamptz)
returns timestamptz
language sql
immutable
begin atomic
    select min(twilio_internal.next_change(h, at)) from unnest(hours) h;
end;

comment on function twilio_internal.quiet_start(twilio_internal.local_hours[], timestamptz) is
    'Returns when the first of these hours ends, for a moment within all of them.';

create function twilio_internal.describe_wait(hours twilio_internal.local_hours[], until timestamptz)
returns text
language sql
immutable
begin atomic
    select format(
        'waits until %s %s (%s, as it may be sent from %s to %s there)',
        to_char(until at time zone h.zone, 'HH24:MI'), h.zone, to_char(until at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'),
        left(h.not_before::text, 5), left(h.not_after::text, 5)
    )
    from unnest(hours) h
    where until is not null
    -- The zone in which it is quiet for longest.
    order by (until at time zone h.zone)::time = h.not_before desc, h.zone
    limit 1;
end;

comment on function twilio_internal.describe_wait(twilio_internal.local_hours[], timestamptz) is
    'Returns in words until when a message waits.';

create table twilio_internal.message_hours (
    message_id bigint primary key,
    not_before time,
    not_after time,
    time_zone text,
    purpose text
);

comment on table twilio_internal.message_hours is 'Local hours of messages that were given some, for all messages of their chains; most messages have no row.';
comment on column twilio_internal.message_hours.message_id is 'First message of the chain.';
comment on column twilio_internal.message_hours.not_before is 'Local time from which it may be sent; null for midnight.';
comment on column twilio_internal.message_hours.not_after is 'Local time until which it may be sent; null for midnight.';
comment on column twilio_internal.message_hours.time_zone is 'Time zone of the recipient; null for that of the number.';
comment on column twilio_internal.message_hours.purpose is 'Purpose of the message: for otp, no hours count, of rules either.';

select pg_catalog.pg_extension_config_dump('twilio_internal.message_hours', '');

create function twilio_internal.check_hours(not_before time, not_after time, time_zone text, purpose text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if purpose not in ('otp', 'transactional', 'marketing') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid purpose: "%s"', left(purpose, 64)),
            detail = 'A purpose is otp, transactional or marketing.',
            hint = 'Give otp for a one-time password, which is sent at any hour.';
    end if;
    if coalesce(not_before, '00:00') = coalesce(not_after, '24:00') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'not_before and not_after must differ',
            detail = format('Both are %s.', coalesce(not_before, '00:00')),
            hint = 'Leave both out if the message may be sent at any hour.';
    end if;
    if not twilio_internal.is_zone(time_zone) then
        perform twilio_internal.refuse_zone(time_zone);
    end if;
end
$$;

comment on function twilio_internal.check_hours(time, time, text, text) is
    'Raises an error for local hours, a time zone or a purpose that a message cannot have.';

create function twilio_internal.first_allowed(
    not_before time,
    not_after time,
    time_zone text,
    to_address text,
    due timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    zones constant text[] := case when time_zone is not null then array[time_zone] else twilio_internal.zones_of(to_address) end;
    found_at constant timestamptz := twilio_internal.quiet_end(twilio_internal.hours_in(not_before, not_after, zones), due);
begin
    if found_at is null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = case
                when zones is null then format('the time zone of recipient "%s" is not known', left(to_address, 64))
                else format('it is never between %s and %s at recipient "%s"', coalesce(not_before, '00:00'), coalesce(not_after, '24:00'), left(to_address, 64))
            end,
            detail = case
                when zones is null then 'A message with local hours needs the recipient''s time zone.'
                else format('The number may be in %s time zones, and these hours must come in all of them at once.', cardinality(zones))
            end,
            hint = 'Give time_zone, or add the prefix of the number to twilio.number_zone.';
    end if;
    return found_at;
end
$$;

comment on function twilio_internal.first_allowed(time, time, text, text, timestamptz) is
    'Returns when a message with local hours may be sent first; raises an error if it may never be.';
