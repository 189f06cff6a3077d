-- Recipients who opted out get no fallback: every code of class consent, and every suppression, with every kind of rule.
-- No worker runs here.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
-- As the worker has it: here it would be nearly all of the time.
set jit = off;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com', api_url => 'http://127.0.0.1:4010') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('+12025550101'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.add_smsgate('user', 'password', 'http://127.0.0.1:4010/3rdparty/v1', device_id => 'phone-1') \gset
create function app_text(message jsonb) returns text language sql return 'by a function';

-- Every kind of rule, each tried alone: as the statement that makes it, and the channel that it is from.
create table kind as
select k.rule, c.channel, replace(k.made_by, 'CHANNEL', c.channel) as made_by
from (values
    ('any', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', from_address => '+12025550101')$$),
    ('codes', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', from_address => '+12025550101', error_codes => array(select error_code from twilio.error_code))$$),
    ('classes', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', from_address => '+12025550101', error_classes => '{request,recipient,consent,configuration,transient,uncertain}')$$),
    ('statuses', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', from_address => '+12025550101', statuses => '{failed,undelivered,refused,expired}')$$),
    ('time', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', from_address => '+12025550101', no_success_within => '1 min')$$),
    ('time and codes', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', from_address => '+12025550101', no_success_within => '1 min', error_codes => array(select error_code from twilio.error_code))$$),
    ('map', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', sender_map => '{"+12025550100": "+12025550101", "whatsapp:+12025550100": "+12025550101"}')$$),
    ('phone', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', to_provider => 'smsgate')$$),
    ('phone by time', $$twilio.add_fallback_rule('r', from_channel => 'CHANNEL', to_provider => 'smsgate', no_success_within => '1 min')$$)
) k (rule, made_by)
cross join (values ('sms'), ('whatsapp')) c (channel);
insert into kind values
    ('function', 'whatsapp', $$twilio.add_fallback_rule('r', from_channel => 'whatsapp'), twilio.set_fallback_text('r', 'public.app_text')$$),
    ('preset', 'whatsapp', $$twilio.enable_whatsapp_to_sms(error_codes => array(select error_code from twilio.error_code))$$),
    ('preset', 'sms', $$twilio.enable_sms_to_smsgate(error_codes => array(select error_code from twilio.error_code), error_classes => '{consent,recipient,uncertain}')$$),
    ('twice', 'whatsapp', $$twilio.enable_whatsapp_to_sms(), twilio.enable_sms_to_smsgate(error_codes => array(select error_code from twilio.error_code))$$);

-- Tries one rule: a message to a number of its own, a failure or none, and the time of rules by time. Returns how many
-- fallbacks could leave, and how many messages to this number would be sent.
\set ECHO none
create function attempt(made_by text, channel text, recipient text, code int, suppress text default null)
returns int
language plpgsql
as $$
declare
    sender constant text := case channel when 'sms' then '' else 'whatsapp:' end || '+12025550100';
    id bigint;
    job record;
    found int;
begin
    delete from twilio.fallback_rule;
    execute 'select ' || made_by;
    id := twilio.send_message(case channel when 'sms' then '' else 'whatsapp:' end || recipient, 'x', from_address => sender);
    select c.* into job from twilio_internal.claim(10000) c where c.message_id = id;
    perform twilio_internal.finish(array[id], array[job.lease_token], array['accepted'], array['SM' || lpad(id::text, 32, '0')], array['queued'],
        array[201], array[null::int], array[null::text], array[null::text], array[null::bigint]);
    if suppress is not null then
        execute suppress using recipient, sender;
    end if;
    if code is not null then
        perform twilio.sms_callback('/twilio/status', b.body, twilio.compute_signature('https://hooks.example.com/twilio/status', b.body, 'secret'))
        from (select convert_to(
            format('MessageSid=SM%s&AccountSid=AC00000000000000000000000000000001&From=%s&To=%s&MessageStatus=undelivered&ErrorCode=%s',
                lpad(id::text, 32, '0'), replace(sender, '+', '%2B'),
                replace(case channel when 'sms' then '' else 'whatsapp:' end || recipient, '+', '%2B'), code), 'UTF8'
        ) as body) b;
    end if;
    perform set_config('twilio_callback.clock_offset', '90', true);
    update twilio_internal.fallback_watch set due_at = twilio.now();
    perform twilio_internal.plan_timed_out(1000), twilio_internal.run_text();
    -- Rules by time have Twilio asked first.
    perform twilio_internal.finish_original_fetch(p.message_id, p.lease_token, 'found', status => 'sent')
    from twilio_internal.claim_original_fetch(10000) p;
    select count(*) into found
    from (
        select c.message_id from twilio_internal.claim(10000) c
        union all
        select c.message_id from twilio_internal.claim_smsgate(10000) c
    ) l
    join twilio.message m on m.message_id = l.message_id
    where m.root_id = id and m.step > 0;
    perform set_config('twilio_callback.clock_offset', '0', true);
    -- One case must leave no work for the next.
    delete from twilio_internal.outbox;
    delete from twilio_internal.fallback_watch;
    delete from twilio_internal.fallback;
    delete from twilio_internal.smsgate_message;
    return found;
end
$$;
\set ECHO all

-- What is tried: the control, which each of these rules is followed for; codes; suppressions, said after the
-- message was sent.
create table trial as
select 'control' as name, null::int as code, null::text as said
union all
select 'code', e.error_code, null from twilio.error_code e where e.class = 'consent'
union all
select s.name, null, s.said
from (values
    ('block', $$select twilio.block($1)$$),
    ('STOP to this sender', $$select twilio_internal.suppress($1, 'AC00000000000000000000000000000001', $2, 'opt_out', 'STOP')$$),
    ('STOP to the account', $$select twilio_internal.suppress($1, 'AC00000000000000000000000000000001', null, 'opt_out', 'STOP')$$),
    ('STOP to anybody', $$select twilio_internal.suppress($1, null, null, 'opt_out', 'STOP')$$)
) s (name, said);
create table result (name text, rule text, channel text, leaves int);
do $$
declare
    one record;
begin
    for one in
        select k.*, t.*, '+1202557' || lpad(row_number() over ()::text, 4, '0') as recipient
        from kind k
        cross join trial t
    loop
        insert into result
        values (
            one.name, one.rule, one.channel,
            attempt(
                one.made_by, one.channel, one.recipient,
                coalesce(one.code, case one.channel when 'sms' then 30003 else 63049 end), one.said
            )
        );
        commit;
    end loop;
end
$$;
select rule, channel, leaves from result where name = 'control' order by 2, 1;
select count(*) filter (where name = 'code') >= 4 as are_some, count(*) from trial;
select name, rule, channel, sum(leaves) as leaves from result where name <> 'control' group by 1, 2, 3 having sum(leaves) > 0;
-- Rules that allow it explicitly send nothing to a suppressed recipient either.
select count(*) as tried, sum(attempt(
    $q$twilio.add_fallback_rule('r', error_codes => array(select error_code from twilio.error_code), allows_consent_failure => true)$q$,
    'whatsapp', '+1202559' || lpad(n::text, 4, '0'), 63033, s.said
)) as leaves
from (select t.said, row_number() over () as n from trial t where t.said is not null) s;

drop function attempt;
drop table kind, trial, result;
drop extension twilio_callback;
drop function app_text;
