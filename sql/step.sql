-- The worker's steps with many messages at once: where somebody's lock or trigger is in the way of one, each is taken
-- on its own.

create function twilio.carry_out(
    step text,
    message_ids bigint[],
    until timestamptz,
    statuses text[],
    reasons text[]
)
returns bigint[]
language plpgsql
volatile
as $$
begin
    case step
        when 'note' then
            perform twilio.note(message_ids, statuses, reasons);
        when 'settle' then
            return twilio.drop_settled(message_ids);
        when 'lease' then
            return twilio.lease(message_ids, until);
        when 'put off' then
            update twilio.outbox o
            set due_at = greatest(o.due_at, until)
            where o.message_id = any (message_ids) and o.lease_token is null;
        when 'take back' then
            perform twilio.take_back(message_ids);
        when 'leave' then
            update twilio.outbox o
            set lease_until = until
            where o.message_id = any (message_ids) and o.lease_token is not null;
        when 'ask for original' then
            update twilio.fallback f
            -- A lease is a due time: whoever does not answer until then is taken for dead.
            set lease_token = gen_random_uuid(), due_at = until, tries = f.tries + 1
            where f.message_id = any (message_ids);
        when 'ask for original again' then
            update twilio.fallback f
            set lease_token = null, due_at = until
            where f.message_id = any (message_ids);
        when 'ask for original no more' then
            update twilio.fallback f
            set is_preparing = false, lease_token = null, due_at = 'infinity'
            where f.message_id = any (message_ids);
        when 'lease for phone' then
            return twilio.lease_for_phone(message_ids, until);
        when 'ask phone' then
            update twilio.smsgate_message p
            set lease_token = gen_random_uuid(), due_at = until, tries = least(p.tries + 1, 1000)
            where p.message_id = any (message_ids);
        when 'ask phone again' then
            update twilio.smsgate_message p
            set lease_token = null, due_at = until
            where p.message_id = any (message_ids);
        when 'ask phone no more' then
            update twilio.smsgate_message p
            set is_open = false, lease_token = null, due_at = 'infinity'
            where p.message_id = any (message_ids);
    end case;
    return message_ids;
end
$$;

comment on function twilio.carry_out(text, bigint[], timestamptz, text[], text[]) is
    'Does a step of the worker''s with these messages, whose rows it holds, and returns those that are to go on.';

create function twilio.carry_out_each(
    step text,
    message_ids bigint[],
    until timestamptz default null,
    statuses text[] default null,
    reasons text[] default null,
    out done bigint[],
    out hindered bigint[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
-- Nobody waits here for somebody's transaction for long.
set lock_timeout = '200ms'
as $$
declare
    give_up_at constant timestamptz := clock_timestamp() + interval '2 seconds';
    place int;
begin
    done := '{}';
    hindered := '{}';
    if message_ids = '{}' then
        return;
    end if;
    -- A lock on a whole table is in the way of all of them.
    lock table twilio.outbox, twilio.attempt, twilio.fallback, twilio.smsgate_message in row exclusive mode;
    if cardinality(message_ids) > 1 then
        begin
            done := twilio.carry_out(step, message_ids, until, statuses, reasons);
            return;
        exception
            when others then
                -- Somebody's lock or trigger is in the way of one of them.
                null;
        end;
    end if;
    for place in
        select i.n from unnest(message_ids) with ordinality i (id, n) order by i.id
    loop
        if clock_timestamp() >= give_up_at then
            hindered := hindered || message_ids[place];
            continue;
        end if;
        begin
            done := done || twilio.carry_out(
                step, message_ids[place:place], until, statuses[place:place], reasons[place:place]
            );
        exception
            when others then
                -- Without the error's text, which may tell what the message says.
                raise warning 'message % is left for later: "%" failed with SQLSTATE %',
                    message_ids[place], concat_ws(' ', step, statuses[place]), sqlstate;
                hindered := hindered || message_ids[place];
        end;
    end loop;
end
$$;

comment on function twilio.carry_out_each(text, bigint[], timestamptz, text[], text[]) is
    'Does a step like twilio.carry_out, but a message that it cannot be done with keeps no other from it: hindered are those, done what it returns of the others.';
