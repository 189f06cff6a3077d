-- URLs whose host can be read in two ways are refused wherever they are given, and none is repeated in an error.
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
set client_min_messages = warning;
select twilio.add_sender('+12025550100') \gset

\set ECHO none
create function fault_of(statement text) returns text language plpgsql as $$
declare
    message text;
    detail text;
begin
    execute statement;
    return 'accepted';
exception when others then
    get stacked diagnostics message = message_text, detail = pg_exception_detail;
    return concat_ws(' ', sqlstate, message, detail);
end
$$;
\set ECHO all

create table given (place int generated always as identity, url text);
insert into given (url)
values
    ('https://a.example'), ('https://a.example:8443/b'), ('http://127.0.0.1:4010'), ('http://localhost:4010'),
    ('http://[::1]:4010'), ('http://192.0.2.1'), ('https://[2001:db8::1]'),
    ('https://[127.0.0.1]'), ('https://[127.0.0.1].twilio.com'), ('https://[127.0.0.1].twilio.com:443'),
    ('https://a[::1]'), ('https://[::1'), ('https://[::1%25eth0]'),
    ('https://user:password@a.example'), ('https://api.twilio.com@a.example'),
    ('https://a.example.'), ('https://a..example'), ('https://%61.example'), ('https://ä.example'),
    ('https://127.1'), ('https://2130706433'), ('https://0x7f.1'), ('https://0177.0.0.1'),
    ('https://a.example:'), ('https://a.example:0'), ('https://a.example:65536'), ('https://a.example:+443'),
    ('https://a.example?b'), ('https://a.example#b'), ('https://a b'), ('ftp://a.example'), ('a.example'), ('');

select g.url, fault_of(format('select twilio.add_public_url(%L)', g.url)) as public_url
from given g
order by g.place;
select g.url, fault_of(format('select twilio.add_account(''AC00000000000000000000000000000001'', ''secret'', api_url => %L)', g.url)) as api_url
from given g
order by g.place;
select g.url, fault_of(format('select twilio.add_smsgate(''user'', ''password'', %L)', g.url)) as base_url
from given g
order by g.place;
select g.url, fault_of(format('select twilio.send_message(''+12025550123'', ''x'', media_urls => array[%L])', g.url)) as media_urls
from given g
order by g.place;
select g.url, fault_of(format('select twilio.send_message(''+12025550123'', ''x'', status_callback => %L)', g.url)) as status_callback
from given g
order by g.place;
select g.url, fault_of(format('select twilio.twiml_message(''x'', array[%L])', g.url)) as media_urls
from given g
order by g.place;

-- The constraints hold behind the functions' backs.
select fault_of('update twilio.account set api_url = ''https://[127.0.0.1].twilio.com''') ~ 'api_url_is_a_base' as is_refused;
select fault_of('update twilio.account set api_url = ''https://192.0.2.1''') ~ 'api_url_is_a_base' as is_refused;
select fault_of('update twilio.smsgate set base_url = ''https://[127.0.0.1]''') ~ 'base_url_is_a_base' as is_refused;
select fault_of('insert into twilio.public_url (url) values (''https://[127.0.0.1]'')') ~ 'url_is_a_base' as is_refused;

-- The picture of an advertisement counts as one of a message's files where credentials may be shown.
update twilio.account set api_url = 'http://127.0.0.1:4010';
select r.url, exists (
    select
    from twilio_internal.listed_media(null, jsonb_build_object('ReferralMediaUrl', r.url), 'AC00000000000000000000000000000001')
) as is_listed
from unnest(array[
    'https://api.twilio.com/a', 'https://twilio.com:443/a', 'http://127.0.0.1:4010/a',
    'http://api.twilio.com/a', 'https://api.twilio.com:8443/a', 'https://user@api.twilio.com/a', 'https://twilio.com.evil/a',
    'https://[127.0.0.1].twilio.com/a', 'http://127.0.0.1:4011/a', 'http://localhost:4010/a', 'http://127.1:4010/a',
    'http://127.0.0.1:4010@evil.example/a'
]) with ordinality r (url, n)
order by r.n;

drop extension twilio_callback cascade;
drop table given;
drop function fault_of(text);
