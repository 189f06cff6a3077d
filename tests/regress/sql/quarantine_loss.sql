-- Refused requests that could not be kept are reported until they are acknowledged.
set timezone = 'UTC';
create extension twilio_callback;
select twilio.add_account('AC00000000000000000000000000000001', 'right', 'https://hooks.example.com') \gset
select twilio.set_quarantine('callback', max_rows => 2) \gset
\set ECHO none
create function refused(n int, signature text default 'AAAAAAAAAAAAAAAAAAAAAAAAAAA=') returns setof text language sql return (
    select r.reason
    from twilio.sms_callback(
        '/x', convert_to(format('AccountSid=AC00000000000000000000000000000001&MessageSid=SM%s&MessageStatus=sent', lpad(n::text, 32, '0')), 'UTF8'),
        signature
    ) r
);
create function told() returns record language sql return (
    select row(count(*), max(e.data ->> 'lost'), string_agg(distinct e.data ->> 'kind', ' ')) from twilio_internal.feed_event e where e.kind = 'requests.lost'
);
\set ECHO all
create view losses as
select verdict, regexp_replace(detail, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00', '…', 'g') as detail, remedy
from twilio.doctor() where "check" = 'losses';
create view counters as
select kind, kept_rows, not_kept, displaced, lost, lost_since is not null as since, last_lost_at is not null as at from twilio.quarantine_status order by 1;

-- While there is room nothing is lost.
select refused(1), refused(2);
table losses;
select twilio.acknowledge_losses(), twilio.lost_requests();
-- The first loss is reported in the log and the feed at once, further losses a minute later.
\set VERBOSITY sqlstate
select refused(3);
\set VERBOSITY default
select refused(4), refused(5);
table counters;
table losses;
select told(), twilio.lost_requests();
set twilio_callback.clock_offset = '61 s';
\set VERBOSITY sqlstate
select refused(6);
\set VERBOSITY default
select told();
-- Requests of strangers do not count as lost.
select twilio.set_quarantine('stranger', max_rows => 0) \gset
select refused(7, 'short');
select lost > 0 as is_counted from twilio.quarantine_status where kind = 'stranger';
-- Losses stay reported until they are acknowledged, even after there is room again.
select twilio.set_quarantine('callback', max_rows => 100) \gset
set twilio_callback.clock_offset = '30 d';
select verdict, detail from losses;
select twilio.acknowledge_losses();
table losses;
table counters;
select twilio.lost_requests(), twilio.acknowledge_losses();
-- The first loss after that is reported at once.
select twilio.set_quarantine('callback', max_rows => 2) \gset
\set VERBOSITY sqlstate
select refused(8);
\set VERBOSITY default
select verdict, detail from losses;
select told(), twilio.lost_requests();
-- A transaction that fails leaves the count without a time.
select refused(9);
select twilio.acknowledge_losses();
begin;
\set VERBOSITY sqlstate
select refused(10);
\set VERBOSITY default
rollback;
select verdict, detail from losses;
select twilio.lost_requests(), twilio.acknowledge_losses();
table losses;
drop extension twilio_callback cascade;
