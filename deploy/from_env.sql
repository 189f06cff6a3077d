-- Sets up an account from the environment names that Twilio services commonly use. Run it again after a change:
--     psql -X -v ON_ERROR_STOP=1 -f deploy/from_env.sql
--
--   TWILIO_ACCOUNT_SID or TWILIO__ACCOUNT_SID      the account
--   TWILIO_AUTH_TOKEN or TWILIO__AUTH_TOKEN        its auth token, or file:name below twilio_callback.secret_directory
--   PUBLIC_URL, TWILIO__CALLBACK_URL               where Twilio calls: of the latter scheme and host count
--   TWILIO_API_KEY_SID, TWILIO_API_KEY_SECRET      an API key that sends in place of the token
--   TWILIO_DEFAULT_FROM_NUMBER, TWILIO_PHONE_NUMBER_REMINDERS, TWILIO_MESSAGING_SERVICE_SID   senders
--   SMSGATE__BASE_URL, SMSGATE__USERNAME, SMSGATE__PASSWORD   a gateway; SMSGATE__TIMEOUT is not needed: a try has
--       5 seconds, and one that got no answer is repeated under the same id
--
-- Values are sent as parameters of functions: with log_statement on, a token that is no file stands in the log.
\set QUIET on
\set account_sid ''
\set auth_token ''
\set public_url ''
\set callback_url ''
\set api_key_sid ''
\set api_key_secret ''
\set from_number ''
\set reminder_number ''
\set messaging_service ''
\set smsgate_url ''
\set smsgate_username ''
\set smsgate_password ''
-- A name that is not set leaves the variable as it is, so the later name wins where both are.
\getenv account_sid TWILIO__ACCOUNT_SID
\getenv account_sid TWILIO_ACCOUNT_SID
\getenv auth_token TWILIO__AUTH_TOKEN
\getenv auth_token TWILIO_AUTH_TOKEN
\getenv callback_url TWILIO__CALLBACK_URL
\getenv public_url PUBLIC_URL
\getenv api_key_sid TWILIO_API_KEY_SID
\getenv api_key_secret TWILIO_API_KEY_SECRET
\getenv from_number TWILIO_DEFAULT_FROM_NUMBER
\getenv reminder_number TWILIO_PHONE_NUMBER_REMINDERS
\getenv messaging_service TWILIO_MESSAGING_SERVICE_SID
\getenv smsgate_url SMSGATE__BASE_URL
\getenv smsgate_username SMSGATE__USERNAME
\getenv smsgate_password SMSGATE__PASSWORD

begin;
create extension if not exists twilio_callback;

select
    coalesce(
        nullif(rtrim(:'public_url', '/'), ''),
        substring(:'callback_url' from '^[A-Za-z]+://[^/?#]+')
    ) is not null as has_url,
    :'smsgate_username' <> '' as has_smsgate
\gset

select twilio.add_account(
    :'account_sid',
    :'auth_token',
    public_url => coalesce(
        nullif(rtrim(:'public_url', '/'), ''),
        substring(:'callback_url' from '^[A-Za-z]+://[^/?#]+')
    ),
    api_key_sid => nullif(:'api_key_sid', ''),
    api_key_secret => nullif(:'api_key_secret', '')
) \g /dev/null

-- The default sender first: the first of a channel is its default.
select twilio.add_sender(s.address, account_sid => :'account_sid')
from unnest(array[:'from_number', :'reminder_number', :'messaging_service']) with ordinality s (address, n)
where s.address <> ''
order by s.n \g /dev/null

\if :has_smsgate
select twilio.add_smsgate(
    :'smsgate_username',
    :'smsgate_password',
    base_url => coalesce(nullif(:'smsgate_url', ''), 'https://api.sms-gate.app/3rdparty/v1')
) \g /dev/null
\endif
commit;

\if :has_url
select twilio.status_callback_url() as "give this to Twilio";
\endif
select "check", verdict, detail, remedy from twilio.doctor() where verdict <> 'ok';
