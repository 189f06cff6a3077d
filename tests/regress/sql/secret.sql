-- Secrets in files: read by the server, read again when they change, and named in errors without content.
create extension twilio_callback;
\set VERBOSITY terse
\getenv directory PG_ABS_BUILDDIR
\set directory :directory '/secret'
\setenv DIRECTORY :directory
\! rm -rf "$DIRECTORY" && mkdir -p "$DIRECTORY/below"
\! printf 'secret-of-the-file\n' >"$DIRECTORY/good"
\! printf 'secret-of-the-file\r\n' >"$DIRECTORY/dos"
\! : >"$DIRECTORY/empty"; printf '\n' >"$DIRECTORY/break"
\! head -c 4097 /dev/zero | tr '\0' x >"$DIRECTORY/long"; head -c 4096 /dev/zero | tr '\0' x >"$DIRECTORY/longest"
\! ln -s good "$DIRECTORY/link"; ln "$DIRECTORY/good" "$DIRECTORY/hard"; mkfifo "$DIRECTORY/pipe"
\! printf 'secret-of-the-file' >"$DIRECTORY/closed" && chmod 000 "$DIRECTORY/closed"

\set ECHO none
create function try(secret text)
returns text
language plpgsql
as $$
begin
    perform twilio.add_smsgate_key(secret, 'tried');
    delete from twilio_internal.smsgate_key k where k.device_id = 'tried';
    return 'good';
exception when others then
    return sqlstate || ' ' || sqlerrm;
end
$$;
\set ECHO all

-- Without a directory no file is read.
select try('file:good'), try('inline'), try('');
set twilio_callback.secret_directory = :'directory';
select name, try('file:' || name)
from unnest(array[
    'good', 'dos', 'hard', 'longest', 'empty', 'break', 'long', 'link', 'pipe', 'closed', 'below', 'missing', '',
    '.', '..', '../secret/good', 'below/../good', '/etc/passwd', 'a b', E'a\nb', '.hidden'
]) with ordinality u (name, n)
order by n;
set twilio_callback.secret_directory = '/nowhere';
select try('file:good');
set twilio_callback.secret_directory = :'directory';

-- It verifies what is signed with the file's content, and what is signed with it once it changes.
select twilio.add_account('AC00000000000000000000000000000001', 'file:good', 'https://hooks.example.com') \gset
select twilio.add_account('AC00000000000000000000000000000002', 'file:missing');
select secret from twilio.signing_key;
create function deliver(secret text, sid text)
returns table (http_status int, reason text)
language sql
begin atomic
    select c.http_status, c.reason
    from convert_to('MessageSid=SM' || lpad(sid, 32, '0') || '&AccountSid=AC00000000000000000000000000000001&MessageStatus=sent', 'UTF8') b (body)
    cross join lateral twilio.sms_callback('/x', b.body, twilio.compute_signature('https://hooks.example.com/x', b.body, secret)) c;
end;
select d.* from deliver(pg_read_file(:'directory' || '/dos', 0, 18), '1') d;
select d.* from deliver('file:good', '2') d;
\! printf 'changed-content-of-the-file' >"$DIRECTORY/good"
select d.* from deliver(pg_read_file(:'directory' || '/dos', 0, 18), '3') d;
select d.* from deliver(pg_read_file(:'directory' || '/good'), '4') d;
\! printf 'renamed-content-of-the-file' >"$DIRECTORY/new" && mv "$DIRECTORY/new" "$DIRECTORY/good"
select d.* from deliver(pg_read_file(:'directory' || '/good'), '5') d;

-- A file that is gone refuses, says so, and leaves what came to be verified later.
\! mv "$DIRECTORY/good" "$DIRECTORY/gone"
select d.* from deliver(pg_read_file(:'directory' || '/gone'), '6') d;
select reason, finding, remedy from twilio_internal.rejected_callback r, twilio.explain_rejected(r.rejected_id) where r.rejected_id = (select max(rejected_id) from twilio_internal.rejected_callback);
\! mv "$DIRECTORY/gone" "$DIRECTORY/good"
select * from twilio.reverify_rejected();
-- One bad key does not hide a good one.
select twilio.rotate_auth_token('AC00000000000000000000000000000001', 'file:dos');
\! rm "$DIRECTORY/good"
select d.* from deliver(pg_read_file(:'directory' || '/dos', 0, 18), '7') d;

-- Whatever is wrong with a call, its error shows nothing of the secret that came with it: neither text nor row.
\set ECHO none
create function leak(call text)
returns table (code text, message text, shows_secret boolean)
language plpgsql
as $$
declare
    detail text;
    hint text;
    context text;
begin
    execute call using 'DISTINCTIVE-SECRET';
    return query select '00000', '', false;
exception when others then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint, context = pg_exception_context;
    return query select sqlstate, sqlerrm, concat(sqlerrm, detail, hint, context) ~ 'DISTINCTIVE';
end
$$;
\set ECHO all
select twilio.add_account('AC00000000000000000000000000000003', 'third') \gset
select l.*
from unnest(array[
    'add_account(''AC00000000000000000000000000000004'', $1, api_url => ''ftp://x'')',
    'add_account(''AC00000000000000000000000000000004'', $1, api_url => ''https://x?y'')',
    'add_account(''AC00000000000000000000000000000004'', $1, api_url => '''')',
    'add_account(''AC00000000000000000000000000000003'', $1, api_url => ''ftp://x'')',
    'add_account(''AC00000000000000000000000000000004'', ''x'', api_key_sid => ''SK1'', api_key_secret => $1)',
    'add_account(''AC00000000000000000000000000000003'', ''x'', api_key_sid => ''SK1'', api_key_secret => $1)',
    'add_account(''AC00000000000000000000000000000003'', ''x'', api_key_sid => $1, api_key_secret => ''SK1'')',
    'add_account(''AC00000000000000000000000000000004'', null, api_key_sid => ''SK00000000000000000000000000000001'', api_key_secret => $1)',
    'add_account(''AC00000000000000000000000000000004'', $1, api_key_sid => ''SK00000000000000000000000000000001'', api_key_secret => '''')',
    'add_account(''AC00000000000000000000000000000004'', $1, ''no URL'')',
    'add_account(null, $1)',
    'rotate_auth_token(null, $1)',
    'rotate_auth_token(''AC00000000000000000000000000000005'', $1)',
    'rotate_auth_token(''AC00000000000000000000000000000003'', nullif($1, $1))',
    'add_shared_key(null, ''k'', $1)',
    'add_shared_key(''AC00000000000000000000000000000003'', null, $1)',
    'add_shared_key(''AC00000000000000000000000000000003'', ''k'', nullif($1, $1))',
    'add_shared_key(''AC00000000000000000000000000000003'', ''k'', $1, ''2200-01-02'', ''2200-01-01'')',
    'add_shared_key(''AC00000000000000000000000000000003'', ''k'', $1, not_before => null)',
    'add_shared_key(''AC00000000000000000000000000000003'', ''k'', $1, ''2200-01-01'', null)',
    'add_shared_key(''AC00000000000000000000000000000003'', ''auth_token_1'', $1)',
    'add_shared_key(''AC00000000000000000000000000000005'', ''k'', $1)'
]) with ordinality u (call, n)
cross join lateral leak('select twilio.' || u.call) l
order by u.n;
-- Nor of one that is in the place of another argument.
select l.*
from unnest(array[
    'add_account($1, ''x'')',
    'add_account(''AC00000000000000000000000000000003'', ''x'', $1)',
    'add_account(''AC00000000000000000000000000000003'', ''x'', null, $1, ''x'')',
    'add_account(''AC00000000000000000000000000000003'', ''x'', api_url => $1)',
    'rotate_auth_token($1, ''x'')',
    'add_shared_key($1, ''k'', ''x'')',
    'add_shared_key(''AC00000000000000000000000000000003'', $1 || '' '', ''x'')',
    'add_shared_key(''AC00000000000000000000000000000003'', ''auth_token_'' || $1, ''x'')',
    'add_smsgate(''user'', ''x'', $1)',
    'add_smsgate($1 || '':'', ''x'')',
    'add_smsgate(''user'', ''x'', device_id => $1)',
    'add_smsgate($1, ''x'', priority => 1000)',
    'add_smsgate($1, ''x'', rate_per_second => -1)',
    'add_smsgate(''user'', ''x'', from_address => $1, rate_per_second => -1)',
    'add_smsgate(''user'', ''x'', passphrase => ''file:/'' || $1)',
    'add_smsgate_key(''file:/'' || $1)',
    'add_smsgate_key(repeat($1, 1000))',
    'compute_signature(''https://x'', ''x'', ''x'', algorithm => $1)',
    'verify_signature(''https://x'', ''x'', ''x'', ''x'', algorithm => $1)'
]) with ordinality u (call, n)
cross join lateral leak('select twilio.' || u.call) l
order by u.n;
-- Nor does an error show it where a user's constraint refuses the row.
delete from twilio_internal.smsgate_key;
alter table twilio.signing_key add constraint no_more check (secret not like 'DIST%') not valid;
alter table twilio.account add column owner_name text not null default 'nobody', add constraint none check (api_key_secret not like 'DIST%');
alter table twilio.smsgate add constraint none check (password not like 'DIST%');
alter table twilio_internal.smsgate_key add column note text not null default 'none', add constraint none check (secret not like 'DIST%');
select l.*
from unnest(array[
    'rotate_auth_token(''AC00000000000000000000000000000003'', $1)',
    'add_shared_key(''AC00000000000000000000000000000003'', ''k'', $1)',
    'add_account(''AC00000000000000000000000000000003'', ''x'', null, ''SK00000000000000000000000000000001'', $1)',
    'add_smsgate(''user'', $1)',
    'add_smsgate_key($1)',
    -- Columns of users get their defaults.
    'add_smsgate_key(''x'')'
]) with ordinality u (call, n)
cross join lateral leak('select twilio.' || u.call) l
order by u.n;
alter table twilio.signing_key drop constraint no_more;
select twilio.rotate_auth_token('AC00000000000000000000000000000003', 'DISTINCTIVE-SECRET');
alter table twilio.signing_key add constraint no_more check (not_after = 'infinity') not valid;
select l.* from leak('select twilio.retire_signing_key(''AC00000000000000000000000000000003'', ''auth_token_2''), $1') l;
alter table twilio.signing_key drop constraint no_more;
delete from twilio.signing_key where key_id = 'auth_token_2' and account_sid like '%3';
alter table twilio_internal.rejected_callback add constraint none check (headers not like '%DIST%');
select l.* from leak('select twilio.sms_callback(''/x'', '''', $1)') l;
alter table twilio_internal.rejected_callback drop constraint none;
alter table twilio.account drop column owner_name, drop constraint none;
alter table twilio.smsgate drop constraint none;
alter table twilio_internal.smsgate_key drop column note, drop constraint none;
-- What stores a secret stores none by itself.
select l.*
from unnest(array[
    'twilio_internal.secret_argument(''secret'')', 'twilio_internal.upsert_account(''AC00000000000000000000000000000003'', null)',
    'twilio_internal.insert_auth_token(''AC00000000000000000000000000000003'', ''infinity'')', 'twilio_internal.insert_smsgate_key()'
]) with ordinality u (call, n)
cross join lateral leak('select ' || u.call) l
order by u.n;
\set VERBOSITY default
select twilio.add_account('AC00000000000000000000000000000003', auth_token => 'DISTINCTIVE-SECRET', api_url => 'ftp://x');
select twilio.add_shared_key('AC00000000000000000000000000000003', 'k', 'DISTINCTIVE-SECRET', '2200-01-02', '2200-01-01');
\set VERBOSITY terse

-- What is left out of a second add_account stays; a token that comes back is the one that sends, without an end.
select twilio.add_account('AC00000000000000000000000000000003', 'third', null, 'SK00000000000000000000000000000001', 'of the API', 'https://api.example.com/') \gset
select twilio.add_account('AC00000000000000000000000000000003', 'third') \gset
select api_url, api_key_sid, api_key_secret from twilio.account where account_sid like '%3';
update twilio.account set api_key_sid = null, api_key_secret = null;
select twilio.rotate_auth_token('AC00000000000000000000000000000003', 'fourth', old_token_until => twilio.now() + interval '1 day');
select secret from twilio.signing_key where key_id = twilio_internal.newest_auth_token(account_sid) and account_sid like '%3';
select twilio.rotate_auth_token('AC00000000000000000000000000000003', 'third');
select secret from twilio.signing_key where key_id = twilio_internal.newest_auth_token(account_sid) and account_sid like '%3';
select key_id, not_after from twilio.signing_key where account_sid like '%3' order by 1;
-- The same within one transaction, and ids are never given twice.
begin;
select twilio.rotate_auth_token('AC00000000000000000000000000000003', w) from unnest(array['fifth', 'third', 'fifth', 'third']) w;
select secret from twilio.signing_key where key_id = twilio_internal.newest_auth_token(account_sid) and account_sid like '%3';
delete from twilio.signing_key where key_id = 'auth_token_1' and account_sid like '%3';
select twilio.rotate_auth_token('AC00000000000000000000000000000003', 'sixth');
commit;
select twilio.add_shared_key('AC00000000000000000000000000000003', 'auth_token_9', 'x');
insert into twilio.signing_key (account_sid, key_id, algorithm, secret) values ('AC00000000000000000000000000000003', 'mine', 'HMAC_SHA1', 'x');
select twilio.add_shared_key('AC00000000000000000000000000000003', 'mine', 'y');
delete from twilio.account where account_sid like '%3';

-- None of it is in the server's log, in a view, or in a refused request.
\getenv log PG_ABS_BUILDDIR
select count(*) > 5 as has_lines, count(*) filter (where line ~ '(secret-of|content-of)-the-file') as secrets
from regexp_split_to_table(pg_read_file(:'log' || '/log/postmaster.log'), E'\n') line;
select count(*) from twilio_internal.rejected_callback r where r::text ~ '(secret-of|content-of)-the-file';

\! rm -rf "$DIRECTORY"
drop function try, deliver, leak;
drop extension twilio_callback;
