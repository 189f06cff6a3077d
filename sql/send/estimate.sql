-- Describes a message before it is sent: its size, and whether it may be sent.

create function twilio_internal.text_size(body text, smart_encoding boolean)
returns table (encoding text, units int, segments int, units_per_segment int, units_left int, problem text)
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'text_size_wrapper';

comment on function twilio_internal.text_size(text, boolean) is
    'Returns the size of a text as SMS: encoding, units of that encoding (septets or UTF-16 units) and segments; problem is set if the text is too long for Twilio.';

create function twilio_internal.last_whatsapp_inbound(
    sender twilio.sender,
    to_address text,
    out last_inbound_at timestamptz,
    out is_known boolean
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Read message_inbound_from only, also without statistics: the newest message of a pair of addresses is its last entry.
-- plan profile: index order
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    -- WhatsApp may report a number in another spelling than the dialled one.
    own constant text[] := array(
        select 'whatsapp:+' || f.form
        from (
            select sender.address
            where twilio_internal.address_kind(sender.address) is distinct from 'messaging_service'
            union all
            select s.address
            from twilio.sender s
            where s.messaging_service_sid = sender.address and s.channel = 'whatsapp'
        ) a (address)
        cross join lateral unnest(twilio_internal.number_forms(twilio.person_key(a.address, null::text))) f (form)
    );
    person constant text[] := array(
        select 'whatsapp:+' || f.form
        from unnest(twilio_internal.number_forms(twilio.person_key(to_address, null::text))) f (form)
    ) || to_address;
begin
    select max(l.created_at)
    into last_inbound_at
    from unnest(own) o (address)
    cross join unnest(person) p (address)
    cross join lateral (
        select m.created_at
        from twilio.message m
        where m.direction = 'inbound' and m.to_address = o.address and m.from_address = p.address
        order by m.created_at desc
        limit 1
    ) l;
    -- The webhook of a sender without any incoming message may belong to another system.
    is_known := last_inbound_at is not null or exists (
        select
        from unnest(own) o (address)
        cross join lateral (
            select
            from twilio.message m
            where m.direction = 'inbound' and m.to_address = o.address
            order by m.created_at desc
            limit 1
        ) l
    );
end
$$;

comment on function twilio_internal.last_whatsapp_inbound(twilio.sender, text) is
    'Returns when a person last wrote to a WhatsApp sender, in any spelling of both numbers; is_known is false if no incoming message of the sender was ever recorded.';

create function twilio.estimate(
    body text,
    to_address text default null,
    from_address text default null,
    smart_encoding boolean default false,
    account_sid text default null
)
returns table (
    channel text,
    characters int,
    encoding text,
    units int,
    segments int,
    units_per_segment int,
    units_left int,
    is_window_open boolean,
    window_closes_at timestamptz,
    problem text
)
language plpgsql
stable
-- Callers with grant_send have no privileges on the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    origin twilio.sender;
    contact record;
begin
    perform twilio_internal.check_size(greatest(
        octet_length(body), octet_length(to_address), octet_length(from_address), octet_length(account_sid)
    )::bigint);
    body := coalesce(body, '');
    channel := 'sms';
    characters := length(body);
    select t.encoding, t.units, t.segments, t.units_per_segment, t.units_left, t.problem
    into encoding, units, segments, units_per_segment, units_left, problem
    from twilio_internal.text_size(body, coalesce(smart_encoding, false)) t;
    if num_nonnulls(to_address, from_address, account_sid) > 0 then
        origin := twilio_internal.choose_sender(from_address, to_address, account_sid);
        channel := twilio_internal.channel_of(origin, to_address);
    end if;
    if origin.provider = 'smsgate' then
        problem := case
            when characters > twilio_internal.max_text_length('smsgate') then
                format('text has %s characters, %s are allowed', characters, twilio_internal.max_text_length('smsgate'))
        end;
    end if;
    if to_address is not null then
        -- Only the addresses are checked here, so a valid text is passed.
        if origin.provider = 'smsgate' then
            perform twilio_internal.check_smsgate_message(to_address, 'text');
        else
            perform twilio_internal.check_message(
                to_address, origin.address, origin.messaging_service_sid, 'text', null::text[], null::text, null::jsonb
            );
        end if;
        problem := coalesce(
            problem,
            'the recipient is suppressed: ' || twilio_internal.suppression_of(origin.account_sid, origin.address, to_address)
        );
    end if;
    -- Only SMS has segments.
    if channel <> 'sms' then
        encoding := null;
        units := null;
        segments := 1;
        units_per_segment := null;
        units_left := null;
    end if;
    if channel = 'whatsapp' and to_address is not null then
        contact := twilio_internal.last_whatsapp_inbound(origin, to_address);
        if contact.is_known then
            window_closes_at := contact.last_inbound_at + interval '24 hours';
            is_window_open := coalesce(window_closes_at > twilio.now(), false);
        end if;
        if not is_window_open then
            problem := coalesce(problem, 'WhatsApp''s 24-hour window is closed: without a template, error 63016 is to be expected');
        end if;
    end if;
    return next;
end
$$;

comment on function twilio.estimate(text, text, text, boolean, text) is
    'Describes a message without sending it: its channel, length, encoding and SMS segments, whether WhatsApp''s 24-hour window is open according to the recorded incoming messages, and why it would be refused or fail; null where unknown.';
