-- Faults are staged one at a time; each is the only one that is named.
create extension twilio_callback;
\set VERBOSITY terse
select "check", verdict, detail from twilio.doctor() where verdict <> 'ok';
select twilio.status_callback_url();

\getenv directory PG_ABS_BUILDDIR
\set directory :directory '/doctor'
\setenv DIRECTORY :directory
\! rm -rf "$DIRECTORY" && mkdir -p "$DIRECTORY" && printf 'the-token' >"$DIRECTORY/token"
set twilio_callback.secret_directory = :'directory';
select twilio.add_account('AC00000000000000000000000000000001', 'file:token', 'https://hooks.example.com') \gset
create function deliver(status text, signed_url text default 'https://hooks.example.com/x', secret text default 'the-token')
returns int
language sql
begin atomic
    select c.http_status
    from convert_to('MessageSid=SM00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001&MessageStatus=' || status, 'UTF8') b (body)
    cross join lateral twilio.sms_callback('/x', b.body, twilio.compute_signature(signed_url, b.body, secret)) c;
end;
select deliver('sent');
create view fault as select "check", verdict, detail, remedy from twilio.doctor() where verdict <> 'ok';

-- All is well.
select "check", verdict, regexp_replace(detail, ' at .*', '') as detail, remedy from twilio.doctor();
select count(*) from twilio.message_event;

-- 1: a secret's file is gone.
\! mv "$DIRECTORY/token" "$DIRECTORY/elsewhere"
select * from fault;
\! mv "$DIRECTORY/elsewhere" "$DIRECTORY/token"
-- 2: an account without a live key.
select twilio.add_account('AC00000000000000000000000000000002', 'second') \gset
select twilio.retire_signing_key('AC00000000000000000000000000000002', 'auth_token_1') \gset
select * from fault;
delete from twilio.account where account_sid = 'AC00000000000000000000000000000002';
-- 3: a URL that Twilio cannot reach, and one that is not encrypted.
select twilio.add_public_url('https://10.0.0.5:8443/hooks') \gset
select * from fault;
delete from twilio.public_url where url ~ '10.0';
select twilio.add_public_url('http://plain.example.com') \gset
select * from fault;
delete from twilio.public_url where url ~ 'plain';
-- 4: nothing came for a day.
set twilio_callback.clock_offset = '2 d';
select "check", verdict, regexp_replace(detail, ' at .*', '') as detail, remedy from fault;
reset twilio_callback.clock_offset;
-- 5: Twilio calls another URL.
select deliver('delivered', 'https://other.example.com/x');
select "check", verdict, regexp_replace(detail, ', at [^ ]* [^ ]*:', ':') as detail, remedy from fault;
select twilio.add_public_url('https://other.example.com') \gset
select * from twilio.reverify_rejected();
-- 6: the quarantine has no room.
update twilio.quarantine set max_rows = 0 where is_plausible;
select * from fault;
update twilio.quarantine set max_rows = 50000 where is_plausible;
-- 7: something is public, or a role can read a secret.
grant select on twilio.message to public;
select * from fault;
revoke select on twilio.message from public;
create role twilio_test_nosy;
grant select (account_sid, secret) on twilio.signing_key to twilio_test_nosy;
select * from fault;
grant select (passphrase) on twilio.smsgate to twilio_test_nosy;
select * from fault;
drop owned by twilio_test_nosy;
drop role twilio_test_nosy;
-- 8: tables that pg_dump would leave out: one that lost its registration, and one that never had any.
create temp table registration as
select e.extconfig, e.extcondition from pg_extension e where e.extname = 'twilio_callback';
update pg_extension e
set extconfig = (
        select array_agg(t.oid order by t.n)
        from unnest(e.extconfig) with ordinality t (oid, n) where t.oid <> 'twilio.message'::regclass
    ),
    extcondition = trim_array(e.extcondition, 1)
where e.extname = 'twilio_callback';
select * from fault;
update pg_extension e
set extconfig = r.extconfig, extcondition = r.extcondition
from registration r
where e.extname = 'twilio_callback';
create table twilio.stray ();
alter extension twilio_callback add table twilio.stray;
select * from fault;
alter extension twilio_callback drop table twilio.stray;
drop table twilio.stray;
-- 9: commits that do not wait.
set synchronous_commit = off;
select * from fault;
reset synchronous_commit;
-- 10: an account is paused.
select twilio_internal.pause_account('AC00000000000000000000000000000001', 'suspended by Twilio') \gset
select * from fault;
select twilio.resume_account('AC00000000000000000000000000000001');
-- 11: a sender, but no worker.
select twilio.add_sender('+12025550100') \gset
select * from fault;
delete from twilio.sender;
-- 12: a library that signs otherwise than it verifies.
begin;
create or replace function twilio_internal.try_signatures(at_most int, out account_sid text, out key_id text, out url text, out verifies boolean)
returns setof record
language sql
begin atomic
    select k.account_sid, k.key_id, u.url, false from twilio.signing_key k, twilio.public_url u;
end;
select * from fault;
rollback;
-- 13: the log gets the parameters of a role that delivers. One that grant_front prepared has none logged.
create role twilio_test_front login;
grant usage on schema twilio to twilio_test_front;
grant execute on function twilio.receive(text[], text[], text[], bytea[], text[]) to twilio_test_front;
select * from fault;
select format('alter role twilio_test_front in database %I set log_min_duration_statement = ''1 s''', current_database()) \gexec
select "check", verdict, detail, replace(remedy, current_database(), '…') as remedy from fault;
select twilio.grant_front('twilio_test_front') \gset
select * from fault;
select format('alter role twilio_test_front in database %I set log_parameter_max_length_on_error = -1', current_database()) \gexec
select "check", verdict from fault;
-- A role that may not see to that is not refused, but warned.
create role twilio_test_clerk createrole;
grant usage on schema twilio to twilio_test_clerk;
grant usage on schema twilio_internal to twilio_test_clerk;
grant execute on function twilio_internal.disable_parameter_logging(regrole) to twilio_test_clerk;
set role twilio_test_clerk;
select twilio_internal.disable_parameter_logging('twilio_test_front');
reset role;
drop owned by twilio_test_front, twilio_test_clerk;
drop role twilio_test_front, twilio_test_clerk;
-- What needs a running worker is staged in tests/end_to_end/tests/doctor.rs.
select count(*) as faults from fault;

-- The URL for Twilio: base, path, parameters, and overrides within Twilio's ranges.
select twilio.status_callback_url();
select twilio.status_callback_url('/sms', '{"b": "ä &=?#/%+", "a": 1, "c": null, "": true}', 'https://other.example.com/', 100, 15000, 15000, 5, 'all');
select twilio.status_callback_url(public_url => 'https://unknown.example.com');
select twilio.status_callback_url('twilio/status');
select twilio.status_callback_url('/x?y=1');
select twilio.status_callback_url(parameters => '[]');
select twilio.status_callback_url(retries => 6);
select twilio.status_callback_url(read_timeout_ms => null);
select twilio.status_callback_url(retry_on => '4xx,nothing');

\! rm -rf "$DIRECTORY"
drop view fault;
drop function deliver;
drop extension twilio_callback;
