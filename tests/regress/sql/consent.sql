-- Suppression: blocks, keywords of inbound messages, refusals that report an opt-out.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset

\i shared/post.sql
-- An inbound message from a number to a number, through the front door.
create sequence sid;
\set ECHO none
create function inbound(sender text, recipient text, body text, more text default '')
returns table (http_status int, is_new boolean)
language sql
as $$
    select p.http_status, p.is_new
    from post('/twilio/inbound', format('MessageSid=SM%s&SmsStatus=received&NumMedia=0&From=%s&To=%s&Body=%s%s',
        lpad(nextval('sid')::text, 32, '0'), replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'), replace(body, ' ', '+'), more)) p
$$;
create function failure(sender text, recipient text, code int)
returns table (http_status int, is_new boolean)
language sql
as $$
    select p.http_status, p.is_new
    from post('/twilio/status', format('MessageSid=SM%s&MessageStatus=failed&ErrorCode=%s&From=%s&To=%s',
        lpad(nextval('sid')::text, 32, '0'), code, replace(sender, '+', '%2B'), replace(recipient, '+', '%2B'))) p
$$;
\set ECHO all
create view entry as
select address, right(account_sid, 1) as account, from_address, kind, reason, ended_at is null as holds, ended_reason
from twilio.suppression
order by suppression_id;
\set account '''AC00000000000000000000000000000001'''

-- A keyword is the whole message, in any case, with any space around it; a part of one is none.
select word, twilio_internal.consent_action(:account, word)
from unnest(array[
    'STOP', ' stop ', E'Stop\n', 'stopall', 'UNSUBSCRIBE', 'End', 'quit', 'revoke', 'OptOut', 'cancel',
    'start', 'YES', 'unstop', 'Help', 'stop it', 'nonstop', 'c', 'subscribe', '', 'stop.', U&'\00a0STOP'
]) with ordinality w (word, n)
order by n;
select twilio_internal.consent_action(:account, 'arrêt', 'STOP'), twilio_internal.consent_action(:account, null, 'Help'),
    twilio_internal.consent_action(:account, null), twilio_internal.consent_action(:account, repeat(' ', 300) || 'stop');

-- STOP holds for the sender that it was said to, on all its channels, until START is said to it.
select * from inbound('+12025550123', '+12025550100', 'Stop');
select * from inbound('whatsapp:+12025550124', 'whatsapp:+12025550100', 'STOP');
select * from inbound('+12025550123', '+12025550100', 'stop');
select * from entry;
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550123') as same,
    twilio_internal.suppression_of(:account, 'whatsapp:+12025550100', 'whatsapp:+12025550123') as other_channel,
    twilio_internal.suppression_of(:account, '+12025550199', '+12025550123') as other_sender,
    twilio_internal.suppression_of('AC00000000000000000000000000000002', '+12025550100', '+12025550123') as other_account,
    twilio_internal.suppression_of(:account, 'MG00000000000000000000000000000001', '+12025550123') as a_service,
    twilio_internal.suppression_of(null, null, '+12025550123') as other_provider,
    twilio_internal.suppression_of(:account, '+12025550100', '+12025550125') as other_recipient;
select * from inbound('+12025550123', '+12025550199', 'START');
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550123');
select * from inbound('+12025550123', '+12025550100', 'start');
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550123');

-- A messaging service's opt-out holds for all its numbers; Twilio's own word counts more than the text.
select * from inbound('+12025550126', '+12025550100', 'basta', '&OptOutType=STOP&MessagingServiceSid=MG00000000000000000000000000000001');
select from_address from entry where address = '+12025550126';
select * from inbound('+12025550126', '+12025550100', 'hola', '&OptOutType=START&MessagingServiceSid=MG00000000000000000000000000000001');
select count(*) from entry where address = '+12025550126' and holds;

-- A handler's failure that is reported later does not repeat the text of the message.
select * from inbound('+12025550127', '+12025550100', 'stop');
select twilio_internal.opt_in(:account, '+12025550127', '+12025550100', null, 'signed up again') \gset
select http_status, is_new
from post('/twilio/inbound', 'MessageSid=SM' || lpad(currval('sid')::text, 32, '0')
    || '&SmsStatus=received&NumMedia=0&From=%2B12025550127&To=%2B12025550100&Body=stop&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fa');
select count(*) from entry where address = '+12025550127' and holds;
select status, error_code from twilio.message where from_address = '+12025550127';

-- Refusals teach; START unteaches. Other failures do not.
select * from failure('+12025550100', '+12025550128', 21610);
select * from failure('whatsapp:+12025550100', 'whatsapp:+12025550129', 63014);
select * from failure('+12025550100', '+12025550130', 30003);
select * from entry where kind = 'learnt';
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550130');
-- Another number was not refused.
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550128') as same, twilio_internal.suppression_of(:account, '+12025550199', '+12025550128') as other;
select * from inbound('+12025550128', '+12025550100', 'YES');
select holds, ended_reason from entry where address = '+12025550128';

-- Which codes, which words and how far is the user's to say.
insert into twilio.error_code_override (error_code, class) values (30003, 'consent'), (30004, 'recipient');
select twilio_internal.is_consent_code(30003), twilio_internal.is_consent_code(30004), twilio_internal.is_consent_code(21610);
insert into twilio.consent_keyword values (null, 'arrêt', 'stop'), (:account, 'end', 'none');
select twilio_internal.consent_action(:account, 'ARRÊT'), twilio_internal.consent_action(:account, 'end'),
    twilio_internal.consent_action('AC00000000000000000000000000000002', 'end');
insert into twilio.consent_keyword values (null, 'Stop ', 'none');
insert into twilio.consent_keyword values (null, 'arrêt', 'help');
insert into twilio.consent_scope values (:account, 'account');
select * from inbound('+12025550131', '+12025550100', 'stop');
select twilio_internal.suppression_of(:account, '+12025550199', '+12025550131') as other_sender,
    twilio_internal.suppression_of('AC00000000000000000000000000000002', '+12025550100', '+12025550131') as other_account;
update twilio.consent_scope set scope = 'everywhere';
select * from inbound('+12025550132', '+12025550100', 'stop');
select twilio_internal.suppression_of('AC00000000000000000000000000000002', '+12025550100', '+12025550132') as other_account;
-- Whatever the scope, START opens what STOP closed.
select * from inbound('+12025550132', '+12025550100', 'start');
select twilio_internal.suppression_of('AC00000000000000000000000000000002', '+12025550100', '+12025550132') as other_account;

-- A block is ours: it holds on every channel, START does not end it, and what comes in is marked.
select twilio.block('whatsapp:+12025550140', 'abuse') > 0 as is_blocked;
select twilio.block('+12025550140') = twilio.block('+12025550140', 'again') as is_the_same;
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550140'), twilio_internal.suppression_of(null, null, '+12025550140');
select * from inbound('+12025550140', '+12025550100', 'START');
select * from inbound('+12025550141', '+12025550100', 'hello');
select from_address, body, is_blocked from twilio.message where from_address in ('+12025550140', '+12025550141') order by 1;
select twilio.unblock('+12025550140', 'apologised');
select twilio.unblock('+12025550140');
select * from entry where address = '+12025550140';
select * from inbound('+12025550140', '+12025550100', 'hello');
select body, is_blocked from twilio.message where from_address = '+12025550140' order by message_id;

-- A block of one sender leaves the others.
select twilio.block('+12025550142', 'one only', :account, '+12025550100') > 0;
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550142'), twilio_internal.suppression_of(:account, '+12025550199', '+12025550142');

-- unblock leaves the recipient's own opt-out unless asked to end it.
select * from inbound('+12025550143', '+12025550100', 'stop');
select twilio.unblock('+12025550143');
select twilio.unblock('+12025550143', 'agreed on the phone', including_opt_out => true);
select twilio_internal.suppression_of(:account, '+12025550100', '+12025550143');

-- A value that cannot be an address is refused instead of blocked in vain.
select twilio.block('12025550123');
select twilio.block('+1 (202) 555-0123');
select twilio.block('');
select twilio.block(null);
select twilio.unblock('+0123');
select twilio.block('82555') > 0, twilio.block('rcs:brand_agent') > 0;
-- On channels with ids of their own, digits alone are a user; a phone number needs its +.
select twilio.block('messenger:1234567890123456', 'abuse') > 0 as is_blocked;
select twilio_internal.suppression_of(:account, 'messenger:110012345', 'messenger:1234567890123456');
select twilio.unblock('messenger:1234567890123456');
select * from inbound('messenger:1234567890123456', 'messenger:110012345', 'stop');
select twilio.unblock('messenger:1234567890123456', 'agreed', including_opt_out => true);
select twilio_internal.suppression_of(:account, 'messenger:110012345', 'messenger:1234567890123456');
select twilio.block('whatsapp:12025550123');

-- What was refused and is taken in late counts as of when it was said, in whatever order it comes: each
-- line is one recipient's words with their times, and L those that came late. SIDs run backwards.
create table word (n int, at interval, is_late boolean, body text, sid int);
insert into word (n, at, is_late, body) values
    (1, '9 h', true, 'start'), (1, '10 h', false, 'stop'),
    (2, '9 h', true, 'stop'), (2, '9.5 h', true, 'start'),
    (3, '9 h', true, 'start'), (3, '9.5 h', true, 'stop'),
    (4, '9 h', true, 'stop'), (4, '10 h', false, 'start'),
    (5, '9 h', false, 'stop'), (5, '9.5 h', true, 'start'),
    (6, '9 h', false, 'stop'), (6, '9.5 h', true, 'start'), (6, '10 h', false, 'stop'),
    (7, '8 h', false, 'stop'), (7, '9 h', true, 'stop'), (7, '10 h', false, 'unblock'),
    (8, '9 h', true, '21610'), (8, '10 h', false, 'start'),
    (9, '9 h', true, '21610'), (9, '8 h', true, 'start');
update word w set sid = 9000 - o.n from (select ctid, row_number() over (order by n, at) as n from word) o where o.ctid = w.ctid;
\set ECHO none
create function say(w word)
returns table (http_status int)
language sql
as $$
    select c.http_status
    from (
        select format('AccountSid=AC00000000000000000000000000000001&MessageSid=SM%s&', lpad(w.sid::text, 32, '0'))
            || case
                when w.body = '21610' then
                    format('MessageStatus=failed&ErrorCode=21610&From=%%2B12025550100&To=%%2B1202555020%s', w.n)
                else format('SmsStatus=received&From=%%2B1202555020%s&To=%%2B12025550100&Body=%s', w.n, w.body)
            end as body
    ) r
    cross join lateral twilio.sms_callback(
        '/x', r.body::bytea,
        twilio.compute_signature(
            case when w.is_late then 'https://late' else 'https://hooks' end || '.example.com/x', r.body::bytea, 'secret'
        )
    ) c
    where w.body <> 'unblock'
    union all
    select twilio.unblock('+1202555020' || w.n, 'agreed', including_opt_out => true) where w.body = 'unblock';
$$;
\set ECHO all
delete from twilio.consent_scope;
update twilio.signing_key set not_before = twilio.now() - interval '1 day';
select format($$set twilio_callback.clock_offset = '%s s'; select http_status from say(row(%s, '%s', %L, '%s', %s)::word);$$,
    extract(epoch from at - interval '24 h')::int, n, at, is_late, body, sid)
from word order by at, n
\gexec
reset twilio_callback.clock_offset;
select twilio.add_public_url('https://late.example.com') \gset
select verified, still_refused from twilio.reverify_rejected(batch_rows => 2);
select w.n, w.words, twilio_internal.suppression_of(:account, '+12025550100', '+1202555020' || w.n) as suppressed,
    s.entries
from (
    select n, string_agg(format('%s%s %s', case when is_late then 'L ' end, body, extract(hour from at)
        || case when extract(minute from at) > 0 then '.5' else '' end), ', ' order by at) as words
    from word group by n
) w
left join lateral (
    select string_agg(
        format('%s %s-%s', s.kind, round(24 - extract(epoch from twilio.now() - s.created_at) / 3600, 1),
            round(24 - extract(epoch from twilio.now() - s.ended_at) / 3600, 1)),
        ', ' order by s.created_at
    ) as entries
    from twilio.suppression s where s.address = '+1202555020' || w.n
) s on true
order by 1;

drop function say, inbound, failure, post;
drop table word;
drop view entry;
drop sequence sid;
drop extension twilio_callback;
