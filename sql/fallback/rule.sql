-- Fallback rules: rows that users create or enable.
-- No search_path in set_fallback_text: it resolves function and view names by its caller's. It qualifies all other names.

create table twilio.fallback_rule (
    rule_id int generated always as identity primary key,
    name text collate "C" not null unique
        constraint name_is_short check (name ~ '^[A-Za-z0-9_.-]{1,63}$'),
    is_enabled boolean not null default true,
    priority int not null default 100,
    from_provider text
        constraint from_provider_is_known check (from_provider in ('twilio', 'smsgate')),
    from_channel text,
    statuses text[] not null default '{failed,undelivered}'
        constraint statuses_are_failures check (
            statuses <@ '{failed,undelivered,refused,expired}'::text[]
        ),
    error_codes int[],
    error_classes text[]
        constraint error_classes_are_known check (
            error_classes <@ '{request,recipient,consent,configuration,transient,uncertain}'::text[]
        ),
    allows_consent_failure boolean not null default false,
    account_sid text collate "C",
    recipient_prefix text
        constraint recipient_prefix_is_a_number check (recipient_prefix ~ '^[+]?[0-9]{1,15}$'),
    no_success_within interval
        constraint interval_is_not_short check (no_success_within >= interval '1 second'),
    success_status text not null default 'delivered'
        constraint success_status_is_known check (success_status in ('sent', 'delivered', 'read')),
    to_provider text not null default 'twilio'
        constraint to_provider_is_known check (to_provider in ('twilio', 'smsgate')),
    to_channel text not null default 'sms'
        constraint to_channel_is_a_name check (to_channel ~ '^[a-z]{2,20}$'),
    from_address text collate "C",
    sender_map jsonb
        constraint sender_map_is_an_object check (jsonb_typeof(sender_map) = 'object'),
    template text
        constraint template_is_not_empty check (template <> ''),
    text_function text,
    run_as name,
    search_path text,
    media text not null default 'drop'
        constraint media_is_known check (media in ('drop', 'link', 'send', 'stop')),
    delay interval not null default '0'
        constraint delay_is_not_negative check (delay >= interval '0'),
    expires_after interval
        constraint expiry_is_positive check (expires_after > interval '0'),
    retries int not null default 1
        constraint retries_are_few check (retries between 0 and 5),
    not_before time,
    not_after time
        constraint local_hours_are_not_empty check (coalesce(not_before, '00:00') <> coalesce(not_after, '24:00')),
    created_at timestamptz not null default twilio.now(),
    constraint smsgate_sends_sms check (to_provider <> 'smsgate' or to_channel = 'sms'),
    constraint text_function_is_registered check (num_nulls(text_function, run_as, search_path) in (0, 3))
);

-- Makes the search for timed rules cheap where there are none.
create index fallback_rule_by_time on twilio.fallback_rule (rule_id)
where is_enabled and no_success_within is not null;

comment on table twilio.fallback_rule is 'Fallback rules: failures after which a message is sent over another channel, provider or sender. The table is empty until a rule is added.';
comment on column twilio.fallback_rule.rule_id is 'Our identifier.';
comment on column twilio.fallback_rule.name is 'Name by which the rule is enabled, disabled and explained.';
comment on column twilio.fallback_rule.is_enabled is 'Whether the rule is followed.';
comment on column twilio.fallback_rule.priority is 'Of several rules that apply, the one with the lowest is followed.';
comment on column twilio.fallback_rule.from_provider is 'Provider of the failed message; null for any.';
comment on column twilio.fallback_rule.from_channel is 'Channel of the failed message; null for any.';
comment on column twilio.fallback_rule.statuses is 'Statuses that count as failed; failed covers refused too.';
comment on column twilio.fallback_rule.error_codes is 'Error codes that it is for; with error_classes, either will do.';
comment on column twilio.fallback_rule.error_classes is 'Classes of error codes that it is for; with neither, all codes. A code that twilio.error_code advises against must be listed itself.';
comment on column twilio.fallback_rule.allows_consent_failure is 'Whether it is followed although the recipient did not want the message. Suppressions hold all the same.';
comment on column twilio.fallback_rule.account_sid is 'Account of the failed message; null for any.';
comment on column twilio.fallback_rule.recipient_prefix is 'How the recipient''s number begins; null for any.';
comment on column twilio.fallback_rule.no_success_within is 'Timed rule: time that success may take. Such a rule does not consider statuses and codes.';
comment on column twilio.fallback_rule.success_status is 'Status that counts as success for a timed rule: sent, delivered or read.';
comment on column twilio.fallback_rule.to_provider is 'Provider of the fallback.';
comment on column twilio.fallback_rule.to_channel is 'Channel of the fallback.';
comment on column twilio.fallback_rule.from_address is 'Sender of the fallback; null for the default one.';
comment on column twilio.fallback_rule.sender_map is 'Sender of the fallback by the original''s sender; for others, from_address or the default.';
comment on column twilio.fallback_rule.template is 'Text of the fallback, with {body} for the original''s; null for the same text.';
comment on column twilio.fallback_rule.text_function is 'Function of a user that makes the text; null for the template.';
comment on column twilio.fallback_rule.run_as is 'Role that it runs as.';
comment on column twilio.fallback_rule.search_path is 'Search path that it runs with.';
comment on column twilio.fallback_rule.media is 'Treatment of media: drop, link (their addresses are put below the text), send, or stop (no fallback).';
comment on column twilio.fallback_rule.delay is 'Time to wait before the fallback is sent; a success that is reported meanwhile stops it.';
comment on column twilio.fallback_rule.expires_after is 'Age of the original up to which the fallback is sent; null for twilio_callback.default_expiry.';
comment on column twilio.fallback_rule.retries is 'How often a message that failed for a transient reason is tried again by the same way before the rule is followed; 0 for not at all.';
comment on column twilio.fallback_rule.not_before is 'Local time of the recipient from which the fallback may be sent; null for midnight.';
comment on column twilio.fallback_rule.not_after is 'Local time of the recipient until which the fallback may be sent; null for midnight.';
comment on column twilio.fallback_rule.created_at is 'When the rule was made.';

select pg_catalog.pg_extension_config_dump('twilio.fallback_rule', '');
select pg_catalog.pg_extension_config_dump('twilio.fallback_rule_rule_id_seq', '');

create function twilio.add_fallback_rule(
    name text,
    from_provider text default null,
    from_channel text default null,
    statuses text[] default '{failed,undelivered}',
    error_codes int[] default null,
    error_classes text[] default null,
    to_provider text default 'twilio',
    to_channel text default 'sms',
    from_address text default null,
    sender_map jsonb default null,
    template text default null,
    media text default 'drop',
    delay interval default '0',
    expires_after interval default null,
    no_success_within interval default null,
    success_status text default 'delivered',
    account_sid text default null,
    recipient_prefix text default null,
    allows_consent_failure boolean default false,
    priority int default 100,
    retries int default 1,
    not_before time default null,
    not_after time default null
)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    -- Loads the library, which defines its settings.
    moment constant timestamptz := twilio.now();
    wanted text;
begin
    if no_success_within >= coalesce(expires_after, current_setting('twilio_callback.default_expiry')::interval) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'no_success_within must be less than expires_after',
            detail = format('Nothing leaves for a message that is older than %s.',
                coalesce(expires_after, current_setting('twilio_callback.default_expiry')::interval)),
            hint = 'Give a longer expires_after, here and with what is sent.';
    end if;
    for wanted in
        select from_address where from_address is not null
        union all
        select v.value from jsonb_each_text(case when jsonb_typeof(sender_map) = 'object' then sender_map end) v
    loop
        if not exists (
            select from twilio.sender s
            where s.provider = to_provider and s.channel = to_channel and s.address = wanted
        ) then
            raise exception using
                errcode = 'no_data_found',
                message = format('sender "%s" of provider %s for channel %s does not exist', left(wanted, 64), to_provider, to_channel),
                hint = 'Add it first, with twilio.add_sender(address) or twilio.add_smsgate(username, password).';
        end if;
    end loop;
    insert into twilio.fallback_rule as r (
        name, priority, from_provider, from_channel, statuses, error_codes, error_classes,
        allows_consent_failure, account_sid, recipient_prefix, no_success_within, success_status,
        to_provider, to_channel, from_address, sender_map, template, media, delay, expires_after, retries,
        not_before, not_after
    )
    values (
        name, priority, from_provider, from_channel, statuses, error_codes, error_classes,
        allows_consent_failure, account_sid, recipient_prefix, no_success_within, success_status,
        to_provider, to_channel, from_address, sender_map, template, media, delay, expires_after, retries,
        not_before, not_after
    )
    on conflict on constraint fallback_rule_name_key do update
    set is_enabled = true,
        priority = excluded.priority,
        from_provider = excluded.from_provider,
        from_channel = excluded.from_channel,
        statuses = excluded.statuses,
        error_codes = excluded.error_codes,
        error_classes = excluded.error_classes,
        allows_consent_failure = excluded.allows_consent_failure,
        account_sid = excluded.account_sid,
        recipient_prefix = excluded.recipient_prefix,
        no_success_within = excluded.no_success_within,
        success_status = excluded.success_status,
        to_provider = excluded.to_provider,
        to_channel = excluded.to_channel,
        from_address = excluded.from_address,
        sender_map = excluded.sender_map,
        template = excluded.template,
        media = excluded.media,
        delay = excluded.delay,
        expires_after = excluded.expires_after,
        retries = excluded.retries,
        not_before = excluded.not_before,
        not_after = excluded.not_after;
end
$$;

comment on function twilio.add_fallback_rule(
    text, text, text, text[], int[], text[], text, text, text, jsonb, text, text, interval, interval,
    interval, text, text, text, boolean, int, int, time, time
) is
    'Adds a rule of fallback and enables it, or changes the one of that name.';

create function twilio.enable_whatsapp_to_sms(
    from_address text default null,
    sender_map jsonb default null,
    error_codes int[] default '{63049,63016,63003,63024,63032}',
    template text default null,
    media text default 'link',
    delay interval default '0',
    expires_after interval default null,
    account_sid text default null,
    recipient_prefix text default null,
    retries int default 1,
    not_before time default null,
    not_after time default null
)
returns void
language sql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select twilio.add_fallback_rule(
        'whatsapp_to_sms', from_provider => 'twilio', from_channel => 'whatsapp',
        error_codes => enable_whatsapp_to_sms.error_codes,
        from_address => enable_whatsapp_to_sms.from_address,
        sender_map => enable_whatsapp_to_sms.sender_map,
        template => enable_whatsapp_to_sms.template,
        media => enable_whatsapp_to_sms.media,
        delay => enable_whatsapp_to_sms.delay,
        expires_after => enable_whatsapp_to_sms.expires_after,
        account_sid => enable_whatsapp_to_sms.account_sid,
        recipient_prefix => enable_whatsapp_to_sms.recipient_prefix,
        priority => 100,
        retries => enable_whatsapp_to_sms.retries,
        not_before => enable_whatsapp_to_sms.not_before,
        not_after => enable_whatsapp_to_sms.not_after
    );
end;

comment on function twilio.enable_whatsapp_to_sms(
    text, jsonb, int[], text, text, interval, interval, text, text, int, time, time
) is
    'Enables the rule whatsapp_to_sms: WhatsApp messages that were not delivered are sent as SMS.';

create function twilio.enable_sms_to_smsgate(
    from_address text default null,
    sender_map jsonb default null,
    error_codes int[] default null,
    error_classes text[] default '{recipient,transient,uncertain,configuration}',
    template text default null,
    media text default 'link',
    delay interval default '0',
    expires_after interval default null,
    account_sid text default null,
    recipient_prefix text default null,
    retries int default 1,
    not_before time default null,
    not_after time default null
)
returns void
language sql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select twilio.add_fallback_rule(
        'sms_to_smsgate', from_provider => 'twilio', from_channel => 'sms', to_provider => 'smsgate',
        error_codes => enable_sms_to_smsgate.error_codes,
        error_classes => enable_sms_to_smsgate.error_classes,
        from_address => enable_sms_to_smsgate.from_address,
        sender_map => enable_sms_to_smsgate.sender_map,
        template => enable_sms_to_smsgate.template,
        media => enable_sms_to_smsgate.media,
        delay => enable_sms_to_smsgate.delay,
        expires_after => enable_sms_to_smsgate.expires_after,
        account_sid => enable_sms_to_smsgate.account_sid,
        recipient_prefix => enable_sms_to_smsgate.recipient_prefix,
        priority => 200,
        retries => enable_sms_to_smsgate.retries,
        not_before => enable_sms_to_smsgate.not_before,
        not_after => enable_sms_to_smsgate.not_after
    );
end;

comment on function twilio.enable_sms_to_smsgate(
    text, jsonb, int[], text[], text, text, interval, interval, text, text, int, time, time
) is
    'Enables the rule sms_to_smsgate: SMS that Twilio could not deliver are sent through an Android phone.';

create function twilio.disable_fallback(name text)
returns void
language plpgsql
volatile
-- Callers with grant_admin have no privileges to write the tables.
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update twilio.fallback_rule r set is_enabled = false where r.name = disable_fallback.name;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('fallback rule "%s" does not exist', left(name, 64)),
            hint = 'See: select name, is_enabled from twilio.fallback_rule.';
    end if;
end
$$;

comment on function twilio.disable_fallback(text) is
    'Disables a rule. Fallbacks that it has planned are still sent; cancel them with twilio.cancel_message(message_id).';

create function twilio.set_fallback_text(name text, function text, run_as name default current_user)
returns void
language plpgsql
volatile
-- With the caller's rights: a role that may only add rules cannot have code run by the worker.
as $$
declare
    found_as text;
begin
    if function is not null then
        if not pg_catalog.pg_has_role(current_user, run_as, 'member') then
            raise exception using
                errcode = 'insufficient_privilege',
                message = pg_catalog.format('must be member of role "%s"', run_as),
                hint = 'A text function runs as you, or as a role that you are a member of.';
        end if;
        found_as := twilio_internal.function_of_jsonb(function, run_as::pg_catalog.text);
    end if;
    update twilio.fallback_rule r
    set text_function = found_as,
        run_as = case when found_as is not null then set_fallback_text.run_as end,
        search_path = case when found_as is not null then pg_catalog.current_setting('search_path') end
    where r.name operator(pg_catalog.=) set_fallback_text.name;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = pg_catalog.format('fallback rule "%s" does not exist', pg_catalog.left(name, 64)),
            hint = 'Add it first, with twilio.add_fallback_rule(name, …) or a preset.';
    end if;
end
$$;

comment on function twilio.set_fallback_text(text, text, name) is
    'Sets the function of one jsonb that makes the texts of a rule''s fallbacks, and the role that it runs as; null returns to the template.';
