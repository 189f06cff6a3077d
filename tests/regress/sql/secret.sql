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

create function try(secret text)
returns text
language plpgsql
as $$
begin
    perform twilio.check_secret(secret);
    return 'good';
exception when others then
    return sqlstate || ' ' || sqlerrm;
end
$$;

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
select twilio.add_account('AC00000000000000000000000000000001', 'file:good', 'https://hooks.example.com');
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
select reason, finding, remedy from twilio.rejected_callback r, twilio.explain_rejected(r.rejected_id) where r.rejected_id = (select max(rejected_id) from twilio.rejected_callback);
\! mv "$DIRECTORY/gone" "$DIRECTORY/good"
select * from twilio.reverify_rejected();
-- One bad key does not hide a good one.
select twilio.rotate_auth_token('AC00000000000000000000000000000001', 'file:dos');
\! rm "$DIRECTORY/good"
select d.* from deliver(pg_read_file(:'directory' || '/dos', 0, 18), '7') d;

-- Nothing of it stands in the server's log, in a view, or in what was refused.
\getenv log PG_ABS_BUILDDIR
select count(*) > 5 as has_lines, count(*) filter (where line ~ '(secret-of|content-of)-the-file') as secrets
from regexp_split_to_table(pg_read_file(:'log' || '/log/postmaster.log'), E'\n') line;
select count(*) from twilio.rejected_callback r where r::text ~ '(secret-of|content-of)-the-file';

\! rm -rf "$DIRECTORY"
drop function try, deliver;
drop extension twilio_callback;
