-- The two roles of PostgREST: one that logs in, one that requests run as. To be run once, as a superuser,
-- in the database that has the extension; running it again does no harm.

do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'twilio_authenticator') then
        create role twilio_authenticator login noinherit;
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname = 'twilio_anonymous') then
        create role twilio_anonymous nologin;
    end if;
end
$$;

grant twilio_anonymous to twilio_authenticator;

-- Below the time after which Twilio gives up, so that it hears of it.
alter role twilio_authenticator set statement_timeout = '8s';
alter role twilio_authenticator set idle_in_transaction_session_timeout = '15s';

-- What Twilio is told to be received must be on the disk, whatever the server's default is.
alter role twilio_authenticator set synchronous_commit = on;
alter role twilio_authenticator set lock_timeout = '2s';

select twilio.grant_front('twilio_anonymous');

-- PostgREST reads the functions of its schema once, and again when told to.
notify pgrst, 'reload schema';
