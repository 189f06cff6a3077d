-- Indexes for the queries of applications and of people on call. docs/design.md says what they cost.
-- An update stays HOT unless it changes an indexed column. A failure does, and the sender that a messaging service chose; an
-- event older than the message, a merge and redact do so rarely.

-- The newest messages, page by page: those of one statement have the same created_at.
create index message_created on twilio.message (created_at, message_id);
create index message_inbound_created on twilio.message (created_at, message_id) where direction = 'inbound';
create index message_failed_created on twilio.message (created_at, message_id) where failed_at is not null;
create index message_failed on twilio.message (failed_at) where failed_at is not null;

-- The messages of an address as it is written. The second one also finds a person's last message to a WhatsApp sender.
create index message_to on twilio.message (to_address, created_at, message_id);
create index message_inbound_from on twilio.message (from_address, to_address, created_at) where direction = 'inbound';
create index message_inbound_person on twilio.message (twilio.person_key(from_address), created_at, message_id) where direction = 'inbound';
-- The person of a national number depends on the country, so twilio.redact examines each of them.
create index message_inbound_national on twilio.message (created_at, message_id)
where direction = 'inbound' and from_address not like '%+%';
-- With message_to, the messages to a person, however the number is written: most addresses are their own key, and need one
-- entry only.
create index message_to_person on twilio.message (twilio.person_key(to_address), created_at, message_id)
where twilio.person_key(to_address) <> to_address;
-- Of a partial index's expression PostgreSQL keeps no statistics. Without these it expects many messages for a person, and compiles
-- queries that take less time than that.
create statistics twilio.message_to_person_statistics on (twilio.person_key(to_address)) from twilio.message;
create statistics twilio.message_from_person_statistics on (twilio.person_key(from_address)) from twilio.message;

comment on statistics twilio.message_to_person_statistics is 'How many messages a recipient has, for the planner.';
comment on statistics twilio.message_from_person_statistics is 'How many messages a sender has, for the planner.';

-- The newest events.
create index message_event_received on twilio.message_event (received_at);
