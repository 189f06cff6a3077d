-- Consent comes from typed text alone: how a keyword may be written, what does not count as one, other languages.
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
\set account '''AC00000000000000000000000000000001'''
create sequence sid;
create function encode_form(value text) returns text language sql immutable as $$
    select coalesce(string_agg('%' || upper(substr(h, n, 2)), '' order by n), '')
    from (select encode(convert_to(value, 'UTF8'), 'hex') as h) x
    cross join lateral generate_series(1, length(x.h), 2) n
$$;
\i shared/post.sql
-- An inbound message, and what is entered of its sender afterwards.
\set ECHO none
create function inbound(sender text, body text, more text default '', recipient text default '+12025550100')
returns text
language plpgsql
as $$
begin
    perform post('/twilio/inbound', format('MessageSid=SM%s&SmsStatus=received&NumMedia=0&From=%s&To=%s&Body=%s%s',
        lpad(nextval('sid')::text, 32, '0'), encode_form(sender), encode_form(recipient), encode_form(body), more));
    return (
        select coalesce(string_agg(s.kind || ': ' || s.reason || coalesce(', ended: ' || s.ended_reason, ''), '; ' order by s.suppression_id), '-')
        from twilio.suppression s where s.address = twilio_internal.bare_address(sender)
    );
end
$$;
\set ECHO all

-- One keyword, as keyboards, phones and networks write it.
select decoration, count(*) as keywords, count(*) filter (where twilio_internal.consent_action(:account, format(pattern, w.word)) = 'stop') as found
from (values
    ('plain', '%s'), ('blanks', '  %s '), ('line break', E'%s\r\n'), ('no-break space', U&'\00a0%s\00a0'),
    ('zero width space', U&'\200b%s\200b'), ('byte order mark', U&'\feff%s'), ('soft hyphen', U&'\00ad%s'),
    ('variation selector', U&'%s\fe0f'), ('bidi marks', U&'\202a%s\202c'), ('bidi isolate', U&'\2068%s\2069'),
    ('word joiner', U&'\2060%s'), ('quotes', '"%s"'), ('typographic quotes', '“%s”'), ('guillemets', '« %s »'),
    ('apostrophes', '''%s'''), ('full stop', '%s.'), ('exclamation marks', '%s!!'), ('quotes and full stop', '“%s.”'),
    ('full-width stop', U&'%s\ff0e'), ('ideographic space', U&'\3000%s\3000')
) d (decoration, pattern)
cross join unnest(array[
    'stop', 'STOP', 'Quit', 'end', 'REVOKE', 'opt out', 'Opt-Out', 'OPTOUT', 'cancel', 'Unsubscribe', 'stopall', 'STOP ALL', 'opt  out'
]) w (word)
group by decoration
order by decoration;
-- Full-width and mathematical letters, invisible characters within, several blanks, other hyphens.
select n, twilio_internal.consent_action(:account, word)
from unnest(array[
    U&'\ff33\ff34\ff2f\ff30', U&'\+01d412\+01d413\+01d40e\+01d40f', U&'S\00adT\200dO\2060P', U&'opt\2011out', U&'opt\2013out',
    U&'opt\3000\3000out', U&'\ff35\ff2e\ff33\ff34\ff2f\ff30', '¡Help!', 'info', 'Info.'
]) with ordinality w (word, n)
order by n;
-- Not a keyword: there is more to it.
select word, twilio_internal.consent_action(:account, word)
from unnest(array[
    'STOP 12345', 'Stop. Thank you', 'please stop', 'stop?', 'nonstop', 'opt', 'out', 'opt in', '"', '...', '', 'don''t stop', 'ST OP'
]) with ordinality w (word, n)
order by n;
select twilio_internal.consent_action(:account, repeat(U&'\200b', 300) || 'stop') as too_long, twilio_internal.consent_word(repeat('x', 201)) as word;

-- A choice that is not typed changes nothing, on whatever channel; OptOutType does.
select n, inbound('whatsapp:+1202555030' || n, body, more) as entered
from (values
    (0, 'Cancel', '&ButtonText=Cancel&ButtonPayload=order_cancel_7'), (1, 'End', '&ListId=end&ListTitle=End'),
    (2, 'Stop', '&MessageType=interactive&InteractiveData=%7B%7D'), (3, 'STOP', '&MessageType=button'),
    (4, 'Quit', '&ButtonPayload=quit'), (5, 'STOP', '&FlowData=%7B%22a%22%3A1%7D'),
    (6, 'Cancel', '&ButtonText=Cancel&OptOutType=STOP'), (7, 'STOP', '&MessageType=text&ButtonText=&ListId='),
    (8, 'stop', '&MessageType=image')
) x (n, body, more)
order by n;
select inbound('rcs:+12025550310', 'Cancel', '&ButtonText=Cancel&ButtonPayload=x', 'rcs:brand_agent') as rcs,
    inbound('messenger:1234567890123456', 'End', '&ButtonPayload=end', 'messenger:110012345') as messenger;
-- Nor does a choice of Yes end an opt-out.
select inbound('whatsapp:+12025550311', 'STOP');
select inbound('whatsapp:+12025550311', 'Yes', '&ButtonText=Yes&ButtonPayload=yes');
select inbound('whatsapp:+12025550311', 'Start', '&ListId=1&ListTitle=Start');
select inbound('whatsapp:+12025550311', 'Yes');
select from_address, body, keyword, opt_out_type from twilio.inbound_message where from_address ~ '30[067]$' order by 1;
-- A button is answered by the rules for texts that are not a keyword.
select twilio.add_reply_rule('Received.');
select body, is_typed, (rule).rule_id is not null as is_answered
from (
    select m.body, twilio_internal.is_typed(i.params) as is_typed, twilio_internal.reply_rule_of(m) as rule
    from twilio.message m join twilio.inbound_message i using (message_id)
    where m.from_address in ('whatsapp:+12025550300', 'whatsapp:+12025550301', 'whatsapp:+12025550311') and m.body in ('Cancel', 'End', 'Yes')
) x order by is_typed, body;

-- Toll-free numbers: START and UNSTOP alone end an opt-out.
create table toll_free (n int, recipient text, word text);
insert into toll_free values
    (0, '+18005550100', 'YES'), (1, '+18335550100', 'yes'), (2, '+18445550100', 'START'), (3, '+18555550100', 'Unstop.'),
    (4, '+18665550100', 'YES'), (5, '+18775550100', 'YES'), (6, '+18885550100', 'YES'), (7, '+12025550100', 'YES'),
    (8, '+448005550100', 'YES'), (9, '+18225550100', 'YES');
select distinct inbound('+1202555032' || n, 'Stop', recipient => recipient) from toll_free;
select n, recipient, inbound('+1202555032' || n, word, recipient => recipient) from toll_free order by n;
drop table toll_free;

-- Other languages: nothing before they are added, then their keywords however written, for whom they were added.
create table foreign_word (language text, action text, word text);
insert into foreign_word values
    ('de', 'stop', 'Stopp!'), ('de', 'stop', 'ABMELDEN'), ('de', 'stop', 'kündigen'), ('de', 'stop', U&'ku\0308ndigen'), ('de', 'start', '„Anmelden“'), ('de', 'help', 'HILFE'),
    ('es', 'stop', '¡ALTO!'), ('es', 'stop', 'Baja.'), ('es', 'stop', 'parar'), ('es', 'start', 'ALTA'), ('es', 'help', 'Ayuda'),
    ('fr', 'stop', 'ARRÊT'), ('fr', 'stop', 'arret'), ('fr', 'stop', '« Arrêter »'), ('fr', 'stop', U&'De\0301sabonner'), ('fr', 'help', 'aide'),
    ('it', 'stop', 'Basta!'), ('it', 'stop', 'ANNULLA'), ('it', 'start', 'iscrivimi'), ('it', 'help', 'aiuto'),
    ('nl', 'stop', 'afmelden'), ('nl', 'stop', 'Uitschrijven.'), ('nl', 'stop', 'Geen  SMS  meer'), ('nl', 'help', 'hulp'),
    ('pl', 'stop', 'REZYGNUJĘ'), ('pl', 'stop', 'Wypisz'), ('pl', 'start', 'wznów'), ('pl', 'help', 'POMOC'),
    ('pt', 'stop', 'SAIR'), ('pt', 'stop', 'Parar.'), ('pt', 'stop', 'Descadastrar'), ('pt', 'help', 'Ajuda!');
select count(*) filter (where twilio_internal.consent_action(:account, word) is not null) as before, count(*) as words from foreign_word;
select language, twilio.add_consent_keywords(language) > 0 as added, twilio.add_consent_keywords(language) as again
from (select distinct language from foreign_word) l order by 1;
select language, word, action, twilio_internal.consent_action(:account, word) as found from foreign_word where twilio_internal.consent_action(:account, word) is distinct from action;
select k.language, count(*) > 0 as has_some, count(*) filter (where twilio_internal.consent_action(:account, format(pattern, upper(w.word))) is distinct from k.action) as lost
from twilio.language_keywords() k
cross join lateral unnest(k.keywords) w (word)
cross join unnest(array['%s', U&'\feff%s\00a0', '"%s"', '%s!', U&'«\00a0%s\00a0».', U&'\2067%s\2069']) pattern
group by k.language order by 1;
-- No word means one thing in one language and something else in another.
select w.word, array_agg(distinct k.action) from twilio.language_keywords() k cross join lateral unnest(k.keywords) w (word) group by 1 having count(distinct k.action) > 1;
-- Each is stored as it is looked up.
select keyword from twilio.consent_keyword where keyword <> twilio_internal.consent_word(keyword);
truncate twilio.consent_keyword;
insert into twilio.consent_keyword values (:account, 'basta', 'none');
select twilio.add_consent_keywords(' IT-it ', :account) > 0 as added;
select twilio_internal.consent_action(:account, 'Basta') as as_configured, twilio_internal.consent_action(:account, 'annulla'),
    twilio_internal.consent_action('AC00000000000000000000000000000002', 'annulla') as other_account;
select twilio.add_consent_keywords('xx');
select twilio.add_consent_keywords(null);
select inbound('+12025550340', 'Annulla.');
-- A carrier knows none of these.
select inbound('+12025550341', 'stop', recipient => '+18005550100');
select inbound('+12025550341', 'riattiva', recipient => '+18005550100');

drop table foreign_word;
drop function inbound, encode_form, post;
drop sequence sid;
drop extension twilio_callback;
