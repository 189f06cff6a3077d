-- Consent of recipients: keywords in inbound messages, and provider errors that report an opt-out.

create table twilio.consent_keyword (
    account_sid text collate "C",
    keyword text not null
        constraint keyword_is_trimmed check (keyword <> '' and keyword = lower(btrim(keyword, E' \t\r\n\u00a0'))),
    action text not null
        constraint action_is_known check (action in ('stop', 'start', 'help', 'none')),
    constraint consent_keyword_is_said_once unique nulls not distinct (account_sid, keyword)
);

comment on table twilio.consent_keyword is 'Users'' changes of and additions to the shipped consent keywords.';
comment on column twilio.consent_keyword.account_sid is 'Account that the keyword is for; null for all.';
comment on column twilio.consent_keyword.keyword is 'The whole message, in lower case and trimmed.';
comment on column twilio.consent_keyword.action is 'stop, start or help; none disables a shipped keyword.';

select pg_catalog.pg_extension_config_dump('twilio.consent_keyword', '');

create table twilio.consent_scope (
    account_sid text collate "C" primary key,
    scope text not null
        constraint scope_is_known check (scope in ('sender', 'account', 'everywhere'))
);

comment on table twilio.consent_scope is 'Scope of opt-outs, for accounts where an opt-out holds for more than the sender.';
comment on column twilio.consent_scope.account_sid is 'The account.';
comment on column twilio.consent_scope.scope is 'sender (as at Twilio), account, or everywhere: all accounts.';

select pg_catalog.pg_extension_config_dump('twilio.consent_scope', '');

create function twilio_internal.default_consent_action(keyword text)
returns text
language sql
immutable
strict
parallel safe
return case
    -- Twilio's keywords, and those that 47 CFR 64.1200(a)(10) names: stop, quit, end, revoke, opt out, cancel, unsubscribe.
    when replace(keyword, '-', ' ') in (
        'stop', 'unsubscribe', 'end', 'quit', 'stopall', 'stop all', 'revoke', 'optout', 'opt out', 'cancel'
    ) then 'stop'
    when keyword in ('start', 'yes', 'unstop') then 'start'
    when keyword in ('help', 'info') then 'help'
end;

comment on function twilio_internal.default_consent_action(text) is
    'Returns what a keyword means without further configuration: stop, start or help; null if it is not a keyword.';

create function twilio_internal.bare_word(text text)
returns text
language c
immutable
strict
parallel safe
as 'MODULE_PATHNAME', 'bare_word_wrapper';

comment on function twilio_internal.bare_word(text) is
    'Returns a normalized text in lower case, without invisible characters, surrounding quotes and final stops.';

create function twilio_internal.consent_word(body text)
returns text
language sql
immutable
strict
parallel safe
-- No keyword is longer than 200 characters, so longer messages are not normalized.
return case when length(body) <= 200 then nullif(twilio_internal.bare_word(normalize(body, nfkc)), '') end;

comment on function twilio_internal.consent_word(text) is
    'Returns the text of a message in the form of keywords: in lower case, without invisible characters, surrounding quotes and final stops; null if it is too long for a keyword.';

create function twilio_internal.consent_action(account_sid text, body text, opt_out_type text default null)
returns text
language plpgsql
stable
-- PL/pgSQL, since this is called for each incoming message: an SQL function would be planned at each call, which takes half of
-- the message's time.
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    word text;
    action text;
begin
    -- Advanced Opt-Out has its own keywords, in any language, and reports the action that it took.
    if lower(left(opt_out_type, 10)) in ('stop', 'start', 'help') then
        return lower(opt_out_type);
    elsif (length(body) <= 200) is not true then
        return null;
    end if;
    word := twilio_internal.consent_word(body);
    select k.action into action
    from twilio.consent_keyword k
    where k.keyword in (
            word,
            -- A user's keyword may itself contain characters that normalization removes.
            lower(btrim(body, E' \t\r\n\u00a0'))
        )
        and (k.account_sid is null or k.account_sid = account_sid)
    order by k.account_sid is null
    limit 1;
    return nullif(coalesce(action, twilio_internal.default_consent_action(word)), 'none');
end
$$;

comment on function twilio_internal.consent_action(text, text, text) is
    'Returns the consent action of a message: stop, start or help; null if the whole message is not a keyword.';

create function twilio_internal.is_typed(params jsonb)
returns boolean
language sql
immutable
parallel safe
-- Buttons, lists, flows and suggestions of any channel offer answers that the recipient did not word.
return lower(coalesce(params ->> 'MessageType', '')) not in ('button', 'interactive', 'list', 'order', 'reaction', 'flow', 'template')
    and not exists (
        select
        from jsonb_each_text(params) p
        where p.key ~ '^(Button|List|Interactive|Flow|QuickReply|Postback|Suggestion)' and p.value <> ''
    );

comment on function twilio_internal.is_typed(jsonb) is
    'Returns whether the text of an incoming message was typed, judging by its parameters, rather than chosen by a button or from a list.';

create function twilio_internal.is_toll_free(address text)
returns boolean
language sql
immutable
strict
parallel safe
return octet_length(address) <= 16 and address ~ '^(sms:|mms:)?[+]1(800|833|844|855|866|877|888)[0-9]{7}$';

comment on function twilio_internal.is_toll_free(text) is
    'Returns whether an address is a toll-free number of the United States and Canada.';

create function twilio_internal.consent_of(account_sid text, to_address text, body text, params jsonb)
returns text
language sql
stable
begin atomic
    select case
        when said.action is null or coalesce(consent_of.params ->> 'OptOutType', '') <> '' then said.action
        when not twilio_internal.is_typed(consent_of.params) then null
        -- For toll-free numbers the carrier keeps the opt-outs, and only these two words end one.
        when said.action = 'start' and twilio_internal.is_toll_free(consent_of.to_address)
            and twilio_internal.consent_word(consent_of.body) not in ('start', 'unstop') then null
        else said.action
    end
    from (
        select twilio_internal.consent_action(consent_of.account_sid, consent_of.body, consent_of.params ->> 'OptOutType') as action
        -- So that it is computed once.
        offset 0
    ) said;
end;

comment on function twilio_internal.consent_of(text, text, text, jsonb) is
    'Returns the consent action of an incoming message: stop, start or help; null if none. Only typed text and OptOutType count.';

create function twilio.language_keywords()
returns table (language text, action text, keywords text[])
language sql
immutable
parallel safe
begin atomic
    -- Documented are arret, arrett and arrete (twilio.com/docs/proxy/opt-out-keywords), aide (AWS End User Messaging, French
    -- compliance keywords), alto and ayuda (twilio.com/help/faq/short-codes, requirements for a Spanish-language short
    -- code). For the others Twilio's country guidelines ask for keywords "in the end user's local language", without a
    -- list: these are the usual words. Words that are also answers, such as the one for yes, are left out.
    select v.column1, v.column2, v.column3
    from (values
        ('de', 'stop', array['stopp', 'abmelden', 'abmeldung', 'abbestellen', 'abbestellung', 'austragen', 'kündigen', 'kuendigen', 'kündigung', 'kuendigung', 'keine sms', 'keine sms mehr', 'keine nachrichten', 'keine nachrichten mehr']),
        ('de', 'start', array['anmelden', 'anmeldung']),
        ('de', 'help', array['hilfe']),
        ('es', 'stop', array['alto', 'baja', 'parar', 'cancelar', 'salir', 'desuscribir', 'desuscribirme', 'darse de baja', 'darme de baja', 'dar de baja', 'no más mensajes', 'no mas mensajes']),
        ('es', 'start', array['alta', 'suscribir', 'suscribirme', 'darme de alta']),
        ('es', 'help', array['ayuda']),
        ('fr', 'stop', array['arret', 'arrêt', 'arrete', 'arrête', 'arreter', 'arrêter', 'arrett', 'désabonner', 'desabonner', 'désabonnement', 'desabonnement', 'désinscrire', 'desinscrire', 'désinscription', 'desinscription', 'annuler', 'résilier', 'resilier', 'stop sms']),
        ('fr', 'start', array['abonner', 'reprendre', 'réabonner', 'reabonner']),
        ('fr', 'help', array['aide']),
        ('it', 'stop', array['basta', 'annulla', 'cancella', 'cancellami', 'disiscrivi', 'disiscrivimi', 'disdici', 'disattiva']),
        ('it', 'start', array['iscrivi', 'iscrivimi', 'attiva', 'riattiva']),
        ('it', 'help', array['aiuto']),
        ('nl', 'stop', array['stoppen', 'afmelden', 'uitschrijven', 'opzeggen', 'annuleren', 'geen sms', 'geen sms meer', 'geen berichten', 'geen berichten meer']),
        ('nl', 'start', array['aanmelden', 'inschrijven']),
        ('nl', 'help', array['hulp']),
        ('pl', 'stop', array['rezygnuję', 'rezygnuje', 'rezygnacja', 'wypisz', 'wypisuję', 'wypisuje', 'anuluj', 'zatrzymaj', 'koniec']),
        ('pl', 'start', array['wznów', 'wznow', 'zapisz']),
        ('pl', 'help', array['pomoc']),
        ('pt', 'stop', array['sair', 'parar', 'pare', 'cancelar', 'descadastrar', 'remover', 'anular']),
        ('pt', 'start', array['cadastrar', 'inscrever', 'reativar', 'voltar']),
        ('pt', 'help', array['ajuda'])
    ) v;
end;

comment on function twilio.language_keywords() is
    'Returns the keywords that add_consent_keywords knows, by language (ISO 639-1) and action.';

create function twilio.add_consent_keywords(language text, account_sid text default null)
returns int
language plpgsql
volatile
-- The privilege to call it suffices, without privileges on twilio.consent_keyword.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    wanted constant text := lower(split_part(split_part(btrim(left(language, 20)), '-', 1), '_', 1));
    added int;
begin
    if wanted is null or not exists (select from twilio.language_keywords() k where k.language = wanted) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('language "%s" is not supported', coalesce(left(language, 20), 'null')),
            detail = format(
                'Known are %s. English keywords hold without being added.',
                (select string_agg(distinct k.language, ', ' order by k.language) from twilio.language_keywords() k)
            ),
            hint = 'insert into twilio.consent_keyword values (null, ''word'', ''stop'');';
    end if;
    -- Keywords that are configured already stay as they are.
    insert into twilio.consent_keyword (account_sid, keyword, action)
    select account_sid, w.keyword, k.action
    from twilio.language_keywords() k
    cross join lateral unnest(k.keywords) w (keyword)
    where k.language = wanted
    on conflict do nothing;
    get diagnostics added = row_count;
    return added;
end
$$;

comment on function twilio.add_consent_keywords(text, text) is
    'Adds the ready-made keywords of a language (de, es, fr, it, nl, pl, pt) for one account or all; returns how many are new.';

create function twilio_internal.is_consent_code(error_code int)
returns boolean
language sql
stable
strict
begin atomic
    select coalesce(twilio_internal.error_class(is_consent_code.error_code) = 'consent', false);
end;

comment on function twilio_internal.is_consent_code(int) is
    'Returns whether an error code means that the recipient does not want messages.';

create table twilio_internal.last_opt_in (
    person_key text collate "C" not null,
    account_sid text collate "C",
    from_address text collate "C",
    messaging_service_sid text collate "C",
    said_at timestamptz not null,
    constraint last_opt_in_is_said_once unique nulls not distinct (person_key, account_sid, from_address, messaging_service_sid)
);

comment on table twilio_internal.last_opt_in is 'Time of each recipient''s last opt-in, for opt-outs that arrive later but are older. The messages themselves may be purged or redacted.';
comment on column twilio_internal.last_opt_in.person_key is 'Key of the recipient.';
comment on column twilio_internal.last_opt_in.account_sid is 'Account that received the opt-in; null for SMSGate.';
comment on column twilio_internal.last_opt_in.from_address is 'Sender that received the opt-in, without channel prefix; null for SMSGate.';
comment on column twilio_internal.last_opt_in.messaging_service_sid is 'Messaging service that received the opt-in, or null.';
comment on column twilio_internal.last_opt_in.said_at is 'The time of the message.';

select pg_catalog.pg_extension_config_dump('twilio_internal.last_opt_in', '');

create function twilio_internal.is_opted_in_since(
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
        -- As in twilio_internal.opt_in, which ends older opt-outs.
        exists (
            select
            from twilio_internal.last_opt_in o
            where o.person_key in (
                    twilio.person_key(is_opted_in_since.address),
                    twilio.person_key(is_opted_in_since.address, is_opted_in_since.country)
                )
                and o.said_at > is_opted_in_since.since
                and (is_opted_in_since.account_sid is null or o.account_sid = is_opted_in_since.account_sid)
                and (
                    is_opted_in_since.sender is null
                    or twilio.person_key(o.from_address) = twilio.person_key(is_opted_in_since.sender)
                    or o.messaging_service_sid = is_opted_in_since.sender
                )
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

comment on function twilio_internal.is_opted_in_since(text, text, text, timestamptz, text) is
    'Returns whether a recipient has opted in again after a time; account and sender are as in twilio.suppression.';

create function twilio_internal.opt_out(
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
    bare constant text := twilio_internal.bare_address(address);
    sender text;
begin
    -- An inbound message may name any text as its sender; these cannot be the address of a recipient.
    if coalesce(bare, '') = '' or bare ~ '^[a-z]{2,20}:' then
        return;
    end if;
    for sender in
        -- An opt-out from a messaging service holds for all its numbers.
        select distinct case when scope = 'sender' then x.sender end
        from unnest(array[from_address, messaging_service_sid]) x (sender)
        where x.sender is not null or from_address is null and messaging_service_sid is null
    loop
        -- A late message does not change a newer decision.
        continue when at < twilio.now() and twilio_internal.is_opted_in_since(address, account, sender, at, country);
        perform twilio_internal.suppress(address, account, sender, kind, reason, at, country);
    end loop;
end
$$;

comment on function twilio_internal.opt_out(text, text, text, text, text, text, timestamptz, text) is
    'Records an opt-out from a sender and a messaging service, within the account''s scope, unless the recipient has opted in since.';

create function twilio_internal.opt_in(
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
    person constant text := twilio.person_key(address, country);
    ended int;
begin
    if coalesce(person, '') = '' then
        return;
    end if;
    insert into twilio_internal.last_opt_in as o (person_key, account_sid, from_address, messaging_service_sid, said_at)
    values (person, account_sid, twilio_internal.bare_address(from_address), messaging_service_sid, at)
    on conflict on constraint last_opt_in_is_said_once do update
    set said_at = excluded.said_at
    where o.said_at < excluded.said_at;
    -- A recipient cannot end our own block.
    with over as (
        update twilio.suppression s
        set ended_at = at, ended_reason = reason
        where s.person_key = person
            and s.ended_at is null
            -- A late message does not end a newer opt-out. Of two messages of the same time the opt-out counts, so that
            -- the result does not depend on which arrives first.
            and coalesce(s.repeated_at, s.created_at) < at
            and s.kind <> 'block'
            and (s.account_sid is null or s.account_sid = account_sid)
            and (
                s.from_address is null
                or twilio.person_key(s.from_address) = twilio.person_key(from_address)
                or s.from_address = messaging_service_sid
            )
        returning s.*
    )
    select count(twilio_internal.publish_end(o)) into ended from over o;
end
$$;

comment on function twilio_internal.opt_in(text, text, text, text, text, timestamptz, text) is
    'Ends the opt-outs of a recipient from a sender and a messaging service that are older than the opt-in.';

create function twilio_internal.record_consent(event_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- The hot path calls this for each batch with inbound messages or failures.
-- plan profile: nested loop
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    news record;
begin
    -- Only the first event counts: a later report of a failed handler repeats the keyword.
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
                    m.from_address, case when m.from_address not like '%+%' then twilio_internal.country_of(m) end
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
            m.account_sid, m.message_sid, m.from_address, m.to_address, m.messaging_service_sid, m.direction, m.body,
            e.error_code, e.source, m.channel,
            -- Events of Event Streams may be hours late, and say when it was.
            least(e.event_time, e.received_at) as received_at,
            -- Recipients of our own messages have a country code.
            case when m.direction = 'inbound' and m.from_address not like '%+%' then twilio_internal.country_of(m) end as country,
            -- A keyword sent to a phone holds for all senders; the phone's own number is not one of them.
            case when m.provider <> 'smsgate' then m.to_address end as sender,
            case when m.direction = 'inbound' then
                twilio_internal.consent_of(m.account_sid, m.to_address, m.body, e.params)
            end as action
        from twilio.message_event e
        join twilio.message m on m.message_id = e.message_id
        where e.event_id = any (event_ids) and (m.direction = 'outbound' or e.is_advance)
        -- A batch is recorded in the order of SIDs.
        order by least(e.event_time, e.received_at), e.event_id
    loop
        if news.action = 'stop' then
            perform twilio_internal.opt_out(
                news.account_sid, news.from_address, news.sender, news.messaging_service_sid, 'opt_out',
                'replied ' || upper(left(btrim(news.body), 32)), news.received_at, news.country
            );
        -- Twilio's list does not tell a button from what was typed, and a button is no opt-in.
        elsif news.action = 'start' and (news.source <> 'poll' or news.channel = 'sms') then
            perform twilio_internal.opt_in(
                news.account_sid, news.from_address, news.sender, news.messaging_service_sid,
                'replied ' || upper(left(btrim(news.body), 32)), news.received_at, news.country
            );
        elsif news.direction = 'outbound' and twilio_internal.is_consent_code(news.error_code)
            -- A repeated status without an error may have created the row of a purged message again.
            and twilio_internal.is_purged(news.message_sid) is not true then
            perform twilio_internal.opt_out(
                news.account_sid, news.to_address, news.from_address, news.messaging_service_sid, 'learnt',
                'error ' || news.error_code, news.received_at
            );
        end if;
    end loop;
    if current_setting('twilio_callback.fetch_media')::boolean then
        perform twilio_internal.queue_media(event_ids);
    end if;
end
$$;

comment on function twilio_internal.record_consent(bigint[]) is
    'Records opt-outs and opt-ins that follow from new events, marks messages of blocked senders, and queues the files of other messages to be fetched.';
