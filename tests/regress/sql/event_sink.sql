-- Sinks of Event Streams: what is asked of Twilio step by step, and what its answers lead to.
create extension twilio_callback;
\set VERBOSITY default
select twilio.add_event_sink();
select twilio.add_account('AC00000000000000000000000000000001', 'right', 'https://hooks.example.com') \gset
select twilio.add_event_sink('AC00000000000000000000000000000009');
select twilio.add_event_sink(url => 'https://elsewhere.example.com/twilio/events');
select twilio.add_event_sink(url => 'https://hooks.example.com/a b');
select twilio.add_event_sink(types => '{}');
select twilio.add_event_sink(types => '{com.twilio.x/0}');
select twilio.add_event_sink(types => '{com.twilio.x,NULL}');
\set VERBOSITY terse

\set ECHO none
-- Carries out the next step: the request, and what the answer makes of the sink.
create function answer(http_status int, response text default null, reason text default null, wait_ms bigint default null)
returns table (request text, form text, step text, sink text, subscription text, due_in interval, problem text)
language plpgsql
as $$
declare
    job record;
begin
    update twilio.event_sink s set due_at = twilio.now() where s.due_at > twilio.now();
    select c.* into job from twilio_internal.claim_event_sink(10) c;
    if job.sink_id is null then
        request := 'nothing to ask';
    else
        request := job.method || ' ' || job.path;
        form := job.form;
        perform twilio_internal.finish_event_sink(job.sink_id, job.lease_token, http_status, response, reason, wait_ms);
    end if;
    select s.step, s.sink_sid, s.subscription_sid, date_trunc('second', s.due_at - twilio.now()), s.problem
    into step, sink, subscription, due_in, problem
    from twilio.event_sink s;
    return next;
end
$$;
\set dg DG00000000000000000000000000000001
\set df DF00000000000000000000000000000001
\set ECHO all
\x on
select twilio.add_event_sink(types => '{com.twilio.messaging.message.sent/8,com.twilio.x}') as first;
-- Nothing is made that is there already.
select * from answer(200, '{"sinks": [{"sid": "DG00000000000000000000000000000009", "sink_configuration": {"destination": "https://elsewhere.example.com"}}]}');
-- Whether a lost answer made a sink is looked up.
select * from answer(null, null, 'connection was reset');
select * from answer(200, '{"sinks": []}');
select * from answer(429, '{"message": "Too many requests"}', null, 90000);
select * from answer(201, '{"sid": "DG00000000000000000000000000000001"}');
select * from answer(400, '{"message": "Invalid type"}');
select * from answer(201, '{"sid": "DF00000000000000000000000000000001"}');
select * from answer(200, '{"result": "submitted"}');
-- The test event has not come yet; after a time, another one is asked for.
select * from answer(200);
update twilio.event_sink set tested_at = tested_at - interval '1 minute';
select * from answer(200);
select * from answer(200, '{"result": "submitted"}');
insert into twilio.provider_event (account_sid, event_sid, type, event)
values ('AC00000000000000000000000000000001', 'x', 'com.twilio.eventstreams.test-event', '{"data": {"test_id": "x"}}');
select * from answer(200, '{"result": "valid"}');
select s.active_at is not null as is_active, s.checked_at is not null as is_checked from twilio.event_sink s;
-- Once a day both sides are compared.
select * from answer(200, '{"status": "active"}');
select * from answer(200, '{"types": [{"type": "com.twilio.x"}]}');
select d.verdict, d.detail, d.remedy from twilio.doctor() d where d."check" = 'event sinks';
-- What is missing is added, once a day.
select * from answer(201, '{}');
select * from answer(200, '{"types": [{"type": "com.twilio.x"}]}');
-- A sink that failed is tried again. An earlier test event does not count.
select * from answer(200, '{"status": "failed"}');
select * from answer(200, '{"result": "submitted"}');
select * from answer(200);
-- A test event of another try is refused.
insert into twilio.provider_event (account_sid, event_sid, type, event)
values ('AC00000000000000000000000000000001', 'z', 'com.twilio.eventstreams.test-event', '{"data": {"test_id": "z"}}');
select * from answer(400, '{"message": "Invalid TestId"}');
select * from answer(200, '{"result": "submitted"}');
insert into twilio.provider_event (account_sid, event_sid, type, event)
values ('AC00000000000000000000000000000001', 'y', 'com.twilio.eventstreams.test-event', '{"data": {"test_id": "y"}}');
select * from answer(200, '{"result": "valid"}');
select * from answer(200, '{}');
select * from answer(200, '{"types": [{"type": "com.twilio.x"}, {"type": "com.twilio.messaging.message.sent"}]}');
select d.verdict, d.detail from twilio.doctor() d where d."check" = 'event sinks';
-- What somebody removed is not made anew by itself.
select * from answer(404);
select * from answer(404);
-- What is not JSON, or another shape, is a failure.
select twilio.add_event_sink() = min(sink_id) as same from twilio.event_sink;
select * from answer(200, '{"sinks": 7}');
select * from answer(201, '[]');
-- Removing starts with a look, since a request under way may have made something.
select twilio.remove_event_sink(url => 'https://hooks.example.com/other') as none, twilio.remove_event_sink() as one;
select * from answer(200, '{"sinks": [{"sid": "DG00000000000000000000000000000001", "sink_configuration": {"destination": "https://hooks.example.com/twilio/events"}}]}');
select * from answer(200, '{"subscriptions": [{"sid": "DF00000000000000000000000000000001", "sink_sid": "DG00000000000000000000000000000001"}]}');
select * from answer(503, null, null);
select * from answer(404);
select * from answer(204);
select * from answer(200, '{"sinks": []}');
select count(*) from twilio.event_sink;
select twilio.disable_sending() \gset
select twilio.add_event_sink() > 0 as added;
select * from answer(200);
\x off
drop function answer;
drop extension twilio_callback cascade;
