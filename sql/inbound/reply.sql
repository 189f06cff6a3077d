-- Replies to incoming messages: rules with fixed replies, and users' functions.
-- No search_path in add_reply_rule, which stores its caller's for the function. It qualifies all names.

create table twilio.reply_rule (
    rule_id bigint generated always as identity primary key,
    priority int not null default 100,
    account_sid text collate "C",
    to_address text collate "C",
    keyword text
        constraint keyword_is_trimmed check (keyword <> '' and keyword = lower(btrim(keyword, E' \t\r\n\u00a0'))),
    twiml text,
    function text,
    result_type text
        constraint result_type_is_known check (result_type in ('text', 'jsonb', 'xml')),
    run_as text,
    search_path text,
    created_at timestamptz not null default twilio.now(),
    constraint reply_is_fixed_or_made check ((twiml is null) <> (function is null)),
    constraint function_has_a_role check (num_nulls(function, result_type, run_as, search_path) in (0, 4))
);

comment on table twilio.reply_rule is 'Rules for replies to incoming messages; the first rule that matches counts.';
comment on column twilio.reply_rule.rule_id is 'Order of creation, which decides between equal priorities.';
comment on column twilio.reply_rule.priority is 'Rules are tried in this order.';
comment on column twilio.reply_rule.account_sid is 'Account of the rule; null for all.';
comment on column twilio.reply_rule.to_address is 'Our number that the rule is for, without channel prefix; null for all.';
comment on column twilio.reply_rule.keyword is 'The whole message that the rule is for, in lower case and trimmed; null for all.';
comment on column twilio.reply_rule.twiml is 'The reply, if it is fixed.';
comment on column twilio.reply_rule.function is 'Function of one jsonb, the message, that makes the reply.';
comment on column twilio.reply_rule.result_type is 'Result of the function: text, jsonb with body and media_urls, or xml with TwiML.';
comment on column twilio.reply_rule.run_as is 'Role that the function runs as.';
comment on column twilio.reply_rule.search_path is 'Search path that the function runs with.';
comment on column twilio.reply_rule.created_at is 'When the rule was added.';

select pg_catalog.pg_extension_config_dump('twilio.reply_rule', '');
select pg_catalog.pg_extension_config_dump('twilio.reply_rule_rule_id_seq', '');

create table twilio.reply (
    message_id bigint primary key,
    rule_id bigint not null,
    twiml text not null,
    error text,
    made_at timestamptz not null default clock_timestamp()
);

comment on table twilio.reply is 'Replies that functions made, one per message: a repeated request gets the same reply.';
comment on column twilio.reply.message_id is 'The incoming message.';
comment on column twilio.reply.rule_id is 'Rule whose function was called.';
comment on column twilio.reply.twiml is 'The reply; empty if the function failed.';
comment on column twilio.reply.error is 'Error of the function.';
comment on column twilio.reply.made_at is 'When it was made.';

select pg_catalog.pg_extension_config_dump('twilio.reply', '');

create function twilio.twiml_message(
    body text,
    media_urls text[] default null,
    to_address text default null,
    from_address text default null,
    status_callback text default null
)
returns text
language c
immutable
parallel safe
as 'MODULE_PATHNAME', 'twiml_message_wrapper';

comment on function twilio.twiml_message(text, text[], text, text, text) is
    'Returns TwiML that sends a text and media; characters that XML does not allow are left out.';

create function twilio_internal.check_twiml(twiml text)
returns void
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'check_twiml_wrapper';

comment on function twilio_internal.check_twiml(text) is
    'Raises an error unless a text is one Response element that Twilio can read.';

create function twilio.add_reply_rule(
    body text default null,
    media_urls text[] default null,
    twiml text default null,
    function text default null,
    to_address text default null,
    keyword text default null,
    account_sid text default null,
    priority int default 100,
    run_as name default current_user
)
returns bigint
language plpgsql
volatile
as $$
declare
    id bigint;
    found_as text;
    returned text;
begin
    if pg_catalog.num_nonnulls(coalesce(body, media_urls::text), twiml, function) operator(pg_catalog.<>) 1 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'exactly one of body with media_urls, twiml and function must be given',
            hint = 'Give body and media_urls, or twiml, or function. TwiML <Response/> answers nothing.';
    end if;
    if function is not null then
        if not pg_catalog.pg_has_role(current_user, run_as, 'member') then
            raise exception using
                errcode = 'insufficient_privilege',
                message = pg_catalog.format('must be member of role "%s"', run_as),
                hint = 'A function runs as you, or as a role that you are a member of.';
        end if;
        found_as := twilio_internal.function_of_jsonb(function, run_as::pg_catalog.text);
        select pg_catalog.format_type(p.prorettype, null) into returned
        from pg_catalog.pg_proc p
        where p.oid operator(pg_catalog.=) pg_catalog.to_regprocedure(found_as operator(pg_catalog.||) '(jsonb)');
        if returned not in ('text', 'jsonb', 'xml') then
            raise exception using
                errcode = 'invalid_parameter_value',
                message = pg_catalog.format('function %s must return text, jsonb or xml, not %s', found_as, returned),
                hint = 'Let it return text, jsonb with body and media_urls, or xml that is TwiML.';
        end if;
    elsif twiml is not null then
        perform twilio_internal.check_twiml(twiml);
    else
        twiml := twilio.twiml_message(body, media_urls);
    end if;
    insert into twilio.reply_rule (
        priority, account_sid, to_address, keyword, twiml, function, result_type, run_as, search_path
    )
    values (
        priority, account_sid, twilio_internal.bare_address(to_address),
        pg_catalog.lower(pg_catalog.btrim(keyword, E' \t\r\n\u00a0')), twiml, found_as, returned,
        case when found_as is not null then run_as end,
        case when found_as is not null then pg_catalog.current_setting('search_path') end
    )
    returning rule_id into id;
    return id;
end
$$;

comment on function twilio.add_reply_rule(text, text[], text, text, text, text, text, int, name) is
    'Adds a rule that answers incoming messages with a text and media, with TwiML, or with what a function of the message returns; returns its id.';

create function twilio_internal.reply_rule_of(message twilio.message)
returns twilio.reply_rule
language sql
stable
begin atomic
    select r
    from twilio.reply_rule r
    cross join lateral (
        select
            twilio_internal.consent_of((message).account_sid, (message).to_address, (message).body, i.params) as action,
            lower(btrim((message).body, E' \t\r\n\u00a0')) as word
        from (
            select (
                select e.params
                from twilio.message_event e
                where e.message_id = (message).message_id and e.status = 'received'
                order by e.event_id + 0
                limit 1
            ) as params
        ) i
    ) said
    where (r.account_sid is null or r.account_sid = (message).account_sid)
        and (r.to_address is null or r.to_address = twilio_internal.bare_address((message).to_address))
        -- Twilio itself replies to STOP and similar keywords, unless a rule is for that keyword.
        and (r.keyword = said.word or r.keyword is null and said.action is null)
        and not (message).is_blocked
        and twilio_internal.suppression_of((message).account_sid, (message).to_address, (message).from_address) is null
        -- Advanced Opt-Out has answered already.
        and not exists (
            select
            from twilio.message_event e
            where e.message_id = (message).message_id and e.params ->> 'OptOutType' <> ''
        )
    order by r.priority, r.rule_id
    limit 1;
end;

comment on function twilio_internal.reply_rule_of(twilio.message) is
    'Returns the reply rule for an incoming message; null if there is none.';

create function twilio_internal.twiml_of(result text, result_type text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    empty constant text := '<?xml version="1.0" encoding="UTF-8"?><Response/>';
    parts jsonb;
begin
    if coalesce(result, '') = '' then
        return empty;
    elsif result_type = 'text' then
        return twilio.twiml_message(result);
    elsif result_type = 'xml' then
        perform twilio_internal.check_twiml(result);
        return result;
    end if;
    parts := result::jsonb;
    if jsonb_typeof(parts) = 'null' then
        return empty;
    end if;
    return twilio.twiml_message(
        parts ->> 'body',
        array(select jsonb_array_elements_text(parts -> 'media_urls'))
    );
end
$$;

comment on function twilio_internal.twiml_of(text, text) is
    'Converts the result of a function to TwiML.';

create function twilio.answer(message_ids bigint[])
returns table (message_id bigint, twiml text)
language plpgsql
volatile
-- Callers with grant_front have no privileges on the tables. The user's function runs as its own role.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    incoming twilio.message;
    rule twilio.reply_rule;
    id bigint;
    made text;
    problem text;
begin
    perform twilio_internal.check_size(8::bigint * cardinality(message_ids));
    foreach id in array message_ids loop
        -- Only for recent requests: later the reply would not be sent, and guessed ids must not show replies.
        select m.* into incoming
        from twilio.message m
        where m.message_id = id and m.direction = 'inbound' and m.created_at > twilio.now() - interval '1 minute';
        continue when not found;
        select r.twiml into made from twilio.reply r where r.message_id = id;
        if not found then
            rule := twilio_internal.reply_rule_of(incoming);
            continue when rule.function is null;
            problem := null;
            begin
                select twilio_internal.twiml_of(
                    twilio_internal.call_function(
                        rule.function, twilio_internal.feed_payload(i), rule.run_as, rule.search_path,
                        'reply', id, rule.rule_id::text
                    ),
                    rule.result_type
                )
                into made
                from twilio.feed_item i
                where i.message_id = id
                order by i.event_id + 0
                limit 1;
            exception
                when query_canceled or assert_failure or others then
                    get stacked diagnostics problem = message_text;
                    made := twilio_internal.twiml_of(null, 'text');
            end;
            insert into twilio.reply (message_id, rule_id, twiml, error)
            values (id, rule.rule_id, made, problem)
            on conflict do nothing;
        end if;
        return query select id, made where made is not null;
        -- A statement timeout fires only once, so it would not end the next function.
        exit when problem is not null;
    end loop;
end
$$;

comment on function twilio.answer(bigint[]) is
    'Lets functions answer these incoming messages of the last minute, once each; the shim calls it after the commit, with a statement_timeout.';

create function twilio_internal.record_overrun(purpose text, subject bigint, detail text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    problem constant text := 'function did not stop within one second of its cancel; its process was ended';
begin
    -- SKIP LOCKED, since the process is ending; a locked row is in use anyway.
    if purpose = 'handler' then
        perform from twilio.feed_consumer c where c.consumer = detail for update skip locked;
        if not found then
            return;
        end if;
        -- That it was handed over was undone with the call.
        loop
            exit when exists (
                select from twilio_internal.feed_delivery d where d.consumer = detail and d.event_id = subject
            );
            exit when not twilio_internal.feed_fill(detail, 1000);
        end loop;
        perform twilio_internal.fail_handler(detail, subject, problem);
    elsif purpose = 'reply' then
        insert into twilio.reply (message_id, rule_id, twiml, error)
        select m.message_id, detail::bigint, twilio_internal.twiml_of(null, 'text'), problem
        from twilio.message m
        where m.message_id = subject
        for key share skip locked
        on conflict do nothing;
    else
        perform from twilio_internal.fallback f where f.message_id = subject and f.is_preparing for update skip locked;
        if not found then
            return;
        elsif purpose = 'source' then
            perform twilio_internal.request_original(subject, problem);
        else
            perform twilio_internal.fail_text(subject, problem);
        end if;
    end if;
end
$$;

comment on function twilio_internal.record_overrun(text, bigint, text) is
    'Records a failed call whose process was ended. purpose is handler (event, consumer), reply (message, rule), text or source (message).';
