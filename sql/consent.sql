-- What recipients say about being texted: the keywords of inbound messages, and refusals that tell of them.

create table twilio.consent_keyword (
    account_sid text collate "C",
    keyword text not null
        constraint keyword_is_trimmed check (keyword <> '' and keyword = lower(btrim(keyword, E' \t\r\n\u00a0'))),
    action text not null
        constraint action_is_known check (action in ('stop', 'start', 'help', 'none')),
    constraint consent_keyword_is_said_once unique nulls not distinct (account_sid, keyword)
);

comment on table twilio.consent_keyword is 'Users'' changes of and additions to the shipped consent keywords.';
comment on column twilio.consent_keyword.account_sid is 'Account that it holds for; null for all.';
comment on column twilio.consent_keyword.keyword is 'The whole message, in lower case and trimmed.';
comment on column twilio.consent_keyword.action is 'stop, start, help, or none for a shipped keyword that is to mean nothing.';

select pg_catalog.pg_extension_config_dump('twilio.consent_keyword', '');

create table twilio.consent_scope (
    account_sid text collate "C" primary key,
    scope text not null
        constraint scope_is_known check (scope in ('sender', 'account', 'everywhere'))
);

comment on table twilio.consent_scope is 'How far an opt-out of an account''s recipients reaches, where it is not the sender alone.';
comment on column twilio.consent_scope.account_sid is 'Account that it holds for.';
comment on column twilio.consent_scope.scope is 'sender (as at Twilio), account, or everywhere: all accounts.';

select pg_catalog.pg_extension_config_dump('twilio.consent_scope', '');

create function twilio.default_consent_action(keyword text)
returns text
language sql
immutable
strict
parallel safe
return case
    when keyword in ('stop', 'unsubscribe', 'end', 'quit', 'stopall', 'revoke', 'optout', 'cancel') then 'stop'
    when keyword in ('start', 'yes', 'unstop') then 'start'
    when keyword = 'help' then 'help'
end;

comment on function twilio.default_consent_action(text) is
    'Returns what a keyword means at Twilio: stop, start or help; null if it is none.';

create function twilio.consent_action(account_sid text, body text, opt_out_type text default null)
returns text
language sql
stable
begin atomic
    -- Advanced Opt-Out has its own keywords, in any language, and says what it made of the message.
    select case lower(opt_out_type)
        when 'stop' then 'stop'
        when 'start' then 'start'
        when 'help' then 'help'
        else (
            select nullif(
                coalesce(
                    (
                        select k.action
                        from twilio.consent_keyword k
                        where k.keyword in (word.lower, word.ascii)
                            and (k.account_sid is null or k.account_sid = consent_action.account_sid)
                        order by k.account_sid is null
                        limit 1
                    ),
                    twilio.default_consent_action(word.ascii)
                ),
                'none'
            )
            from (
                -- Some locales lower I to something else than i, which would lose UNSUBSCRIBE's kin.
                select
                    lower(btrim(body, E' \t\r\n\u00a0')) as lower,
                    lower(btrim(body, E' \t\r\n\u00a0') collate "C") as ascii
            ) word
            where length(body) <= 200
        )
    end;
end;

comment on function twilio.consent_action(text, text, text) is
    'Returns what a message says about being texted: stop, start or help; null if it is no keyword. Only a whole message is one.';

create function twilio.is_consent_code(error_code int)
returns boolean
language sql
stable
strict
begin atomic
    select coalesce(twilio.error_class(is_consent_code.error_code) = 'consent', false);
end;

comment on function twilio.is_consent_code(int) is
    'Tells whether an error code says that the recipient does not want messages.';

-- Finds what a recipient has said since, when a request that was refused at first is taken in late.
-- The key of an address outside E.164 depends on the numbering plans that the library ships: a version with other
-- plans has to rebuild this index, and suppression.person_key of such addresses.
create index message_inbound_sender on twilio.message (twilio.person_key(from_address)) where direction = 'inbound';

create function twilio.was_said_since(
    address text,
    action text,
    account_sid text,
    sender text,
    since timestamptz,
    country text default null
)
returns boolean
language sql
stable
begin atomic
    select exists (
        select
        from twilio.message m
        join twilio.message_event e on e.message_id = m.message_id
        where twilio.person_key(m.from_address) in (
                twilio.person_key(was_said_since.address),
                twilio.person_key(was_said_since.address, was_said_since.country)
            )
            and m.direction = 'inbound'
            and e.is_advance
            and e.received_at > was_said_since.since
            and (was_said_since.account_sid is null or m.account_sid = was_said_since.account_sid)
            and (
                was_said_since.sender is null
                or twilio.person_key(m.to_address) = twilio.person_key(was_said_since.sender)
                or m.messaging_service_sid = was_said_since.sender
            )
            and twilio.consent_action(m.account_sid, m.body, e.params ->> 'OptOutType') = was_said_since.action
    );
end;

comment on function twilio.was_said_since(text, text, text, text, timestamptz, text) is
    'Tells whether a recipient has said stop or start later than that; account, and sender or messaging service, are as in suppression: null for any.';

create function twilio.is_opted_in_since(
    address text,
    account_sid text,
    sender text,
    since timestamptz,
    country text default null
)
returns boolean
language sql
stable
begin atomic
    select
        twilio.was_said_since(
            is_opted_in_since.address, 'start', is_opted_in_since.account_sid, is_opted_in_since.sender,
            is_opted_in_since.since, is_opted_in_since.country
        )
        or exists (
            select
            from twilio.suppression s
            where s.person_key = twilio.person_key(is_opted_in_since.address, is_opted_in_since.country)
                and s.ended_at > is_opted_in_since.since
                and s.kind <> 'block'
                and s.account_sid is not distinct from is_opted_in_since.account_sid
                and twilio.person_key(s.from_address)
                    is not distinct from twilio.person_key(is_opted_in_since.sender)
        );
end;

comment on function twilio.is_opted_in_since(text, text, text, timestamptz, text) is
    'Tells whether a recipient has opted in again later than that; account and sender are as in suppression.';

create function twilio.opt_out(
    account_sid text,
    address text,
    from_address text,
    messaging_service_sid text,
    kind text,
    reason text,
    at timestamptz default twilio.now(),
    country text default null
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    scope constant text := coalesce(
        (select c.scope from twilio.consent_scope c where c.account_sid = account_sid),
        'sender'
    );
    account constant text := case when scope <> 'everywhere' then account_sid end;
    bare constant text := twilio.bare_address(address);
    sender text;
begin
    -- Anything may stand for a sender in what comes in; under these nobody can be reached.
    if coalesce(bare, '') = '' or bare ~ '^[a-z]{2,20}:' then
        return;
    end if;
    for sender in
        -- A service's opt-outs hold for all its numbers.
        select distinct case when scope = 'sender' then x.sender end
        from unnest(array[from_address, messaging_service_sid]) x (sender)
        where x.sender is not null or from_address is null and messaging_service_sid is null
    loop
        -- News of the past changes nothing that was said since.
        continue when at < twilio.now() and twilio.is_opted_in_since(address, account, sender, at, country);
        perform twilio.suppress(address, account, sender, kind, reason, at, country);
    end loop;
end
$$;

comment on function twilio.opt_out(text, text, text, text, text, text, timestamptz, text) is
    'Enters an opt-out from a sender and a messaging service, as far as the account''s scope says, unless the recipient has opted in since.';

create function twilio.opt_in(
    account_sid text,
    address text,
    from_address text,
    messaging_service_sid text,
    reason text,
    at timestamptz default twilio.now(),
    country text default null
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    ended int;
begin
    -- What we block, the recipient cannot open.
    with over as (
        update twilio.suppression s
        set ended_at = at, ended_reason = reason
        where s.person_key = twilio.person_key(address, country)
            and s.ended_at is null
            -- News of the past ends nothing that was said since.
            and coalesce(s.said_again_at, s.created_at) <= at
            and s.kind <> 'block'
            and (s.account_sid is null or s.account_sid = account_sid)
            and (
                s.from_address is null
                or twilio.person_key(s.from_address) = twilio.person_key(from_address)
                or s.from_address = messaging_service_sid
            )
        returning s.*
    )
    select count(twilio.publish_end(o)) into ended from over o;
end
$$;

comment on function twilio.opt_in(text, text, text, text, text, timestamptz, text) is
    'Ends the opt-outs of a recipient from a sender and a messaging service that are older than that.';

create function twilio.note_consent(event_ids bigint[])
returns void
language plpgsql
volatile
-- Called by record() for each batch with inbound messages or failures: plans as there.
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
set search_path = pg_catalog, pg_temp
as $$
declare
    news record;
begin
    -- Only what is said first counts: a handler's failure, reported later, repeats the keyword.
    update twilio.message m
    set is_blocked = true
    from twilio.message_event e
    where e.event_id = any (event_ids)
        and e.is_advance
        and m.message_id = e.message_id
        and m.direction = 'inbound'
        and exists (
            select
            from twilio.suppression s
            where s.person_key = twilio.person_key(
                    m.from_address, case when m.from_address not like '%+%' then twilio.country_of(m) end
                )
                and s.ended_at is null
                and s.kind = 'block'
                and (s.account_sid is null or s.account_sid = m.account_sid)
                and (
                    s.from_address is null
                    or twilio.person_key(s.from_address) = twilio.person_key(m.to_address)
                )
        );

    for news in
        select
            m.account_sid, m.from_address, m.to_address, m.messaging_service_sid, m.direction, m.body, e.error_code,
            e.received_at,
            -- Our own recipients name their country.
            case when m.direction = 'inbound' and m.from_address not like '%+%' then twilio.country_of(m) end as country,
            -- What is said to a phone holds for all senders, of which its own number is none.
            case when m.provider <> 'smsgate' then m.to_address end as sender,
            case when m.direction = 'inbound' then
                twilio.consent_action(m.account_sid, m.body, e.params ->> 'OptOutType')
            end as action
        from twilio.message_event e
        join twilio.message m on m.message_id = e.message_id
        where e.event_id = any (event_ids) and (m.direction = 'outbound' or e.is_advance)
        -- Requests that are taken in late come in the order of their SIDs.
        order by e.received_at, e.event_id
    loop
        if news.action = 'stop' then
            perform twilio.opt_out(
                news.account_sid, news.from_address, news.sender, news.messaging_service_sid, 'opt_out',
                'replied ' || upper(left(btrim(news.body), 32)), news.received_at, news.country
            );
        elsif news.action = 'start' then
            perform twilio.opt_in(
                news.account_sid, news.from_address, news.sender, news.messaging_service_sid,
                'replied ' || upper(left(btrim(news.body), 32)), news.received_at, news.country
            );
        elsif news.direction = 'outbound' and twilio.is_consent_code(news.error_code) then
            perform twilio.opt_out(
                news.account_sid, news.to_address, news.from_address, news.messaging_service_sid, 'learnt',
                'error ' || news.error_code, news.received_at
            );
        end if;
    end loop;
    if current_setting('twilio_callback.fetch_media')::boolean then
        perform twilio.queue_media(event_ids);
    end if;
end
$$;

comment on function twilio.note_consent(bigint[]) is
    'Draws what follows for consent from newly recorded events: opt-outs, opt-ins, refusals; marks messages of blocked senders, and queues the files of the others to be fetched.';
