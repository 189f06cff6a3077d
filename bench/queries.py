"""What `bench/run --queries` measures: the queries of applications and of people on call, on tables of two sizes."""

import random
import re
import statistics

import scale

# Both sizes have the same traffic: the larger one has a longer history.
MESSAGES_A_DAY, MESSAGES_A_PERSON = 220_000, 10

# Of 50 messages three failed, of which one has a fallback; two came in; the others were delivered, half of them with three events.
FILL = """
    set synchronous_commit = off;
    create temporary table made as
    select
        n as message_id, n - case n % 50 when 11 then 1 else 0 end as root_id, case n % 50 when 11 then 1 else 0 end as step,
        now() - make_interval(secs => ({messages} - n) * 86400.0 / {a_day}) as created_at,
        case when n % 50 in (20, 40) then 'inbound' else 'outbound' end as direction,
        'SM' || md5('full ' || n) as message_sid,
        -- Two accounts: one message of a hundred belongs to the smaller one.
        case when n % 100 = 7 then '{small_account}' else '{account}' end as account_sid,
        case when n % 3 = 0 then 'whatsapp' else 'sms' end as channel,
        case when n % 3 = 0 then 'whatsapp:' else '' end || '+1202555' || lpad((n % 100)::text, 4, '0') as own,
        case when n % 3 = 0 then 'whatsapp:' else '' end || '+1' || 3000000000 + (hashint8extended(n - case n % 50 when 11 then 1 else 0 end, 0) & 2147483647) % {persons} as person,
        case when n % 50 = 10 then 'undelivered' when n % 50 in (30, 31) then 'failed' when n % 50 in (20, 40) then 'received' else 'delivered' end as status,
        case when n % 50 = 10 then 63016 when n % 50 in (30, 31) then 30003 + n % 5 end as error_code
    from generate_series({low}, {high}) n;
    insert into twilio.message (
        message_id, root_id, step, direction, message_sid, account_sid, channel, from_address, to_address, status, error_code,
        created_at, sent_at, delivered_at, failed_at, body
    )
    overriding system value
    select message_id, root_id, step, direction, message_sid, account_sid, channel,
        case direction when 'inbound' then person else own end, case direction when 'inbound' then own else person end,
        status, error_code, created_at, created_at, case status when 'delivered' then created_at + interval '2 s' end,
        case when error_code is not null then created_at + interval '3 s' end, 'Your parcel ' || message_id || ' comes today.'
    from made;
    insert into twilio.message_event (message_id, status, error_code, source, is_advance, received_at, key_id, public_url, params)
    select m.message_id, s.status, case when s.status = m.status then m.error_code end, 'callback', true, m.created_at + s.after, 'auth_token_1', '{url}',
        jsonb_build_object('MessageSid', m.message_sid, 'MessageStatus', s.status, 'AccountSid', m.account_sid,
            'From', m.own, 'To', m.person, 'ApiVersion', '2010-04-01')
    from made m
    cross join lateral (
        values ('queued', interval '0.1 s'), ('sent', interval '1 s'), (m.status, interval '2 s')
    ) s (status, after)
    where case when m.direction = 'inbound' then s.status = 'received' else s.status <> 'queued' or m.message_id % 2 = 0 end
    order by m.message_id;
    drop table made;
"""

# Times each query is run, each time about another message; every time it is run twice, of which the second one counts.
TIMES = 7

# {n} is one of the last messages, {sid} its SID, {to} its recipient's address, {sender} that of an incoming message.
QUERIES = {
    "message by SID": "select * from twilio.message_status where message_sid = '{sid}'",
    "timeline of a message": "select * from twilio.message_timeline where message_sid = '{sid}' order by event_id",
    "chain of a message": "select * from twilio.message_chain where root_id = {n}",
    "queue": "select * from twilio.queue_status",
    "last failed messages by id": "select * from twilio.failed_message order by message_id desc limit 100",
    "failed messages by created_at": "select * from twilio.failed_message order by created_at desc limit 100",
    "last messages": "select * from twilio.message_status order by created_at desc limit 100",
    "messages of a page in the past": "select * from twilio.message_status where (created_at, message_id) < (select created_at, message_id from twilio.message where message_id = {n}) order by created_at desc, message_id desc limit 100",
    "messages of a recipient": "select * from twilio.message_status where to_address = '{to}' order by created_at desc limit 100",
    "last events": "select * from twilio.message_timeline order by received_at desc limit 100",
    "last chains": "select * from twilio.message_chain order by created_at desc limit 100",
    "failures by status": "select * from twilio.message_status where status = 'failed' order by created_at desc limit 100",
    "messages by status of the last day": "select status, count(*) from twilio.message where created_at > now() - interval '1 day' group by status",
    "number_health of a number": "select * from twilio.number_health where person_key = twilio.person_key('{to}')",
    "last incoming messages": "select * from twilio.inbound_message order by received_at desc limit 100",
    "incoming messages of a sender": "select * from twilio.inbound_message where from_address = '{sender}' order by received_at desc limit 100",
    "find_messages of a recipient": "select * from twilio.find_messages(recipient => '{to}')",
    "find_messages that failed": "select * from twilio.find_messages(status => 'failed')",
    "redact of a number": "call twilio.redact('0 s', '{to}')",
}


def times(bench, name, query, messages):
    """Median milliseconds of a query."""
    drawn, script = random.Random(query), ["\\o /dev/null", "set client_min_messages = warning;", "\\timing on"]
    for _ in range(TIMES):
        # One that was delivered, and an incoming one before it.
        n = drawn.randrange(messages - min(messages // 2, MESSAGES_A_DAY), messages - 50) // 50 * 50 + 3
        sid, to = bench.cluster.sql(f"select message_sid, to_address from twilio.message where message_id = {n}", name).split("|")
        sender = bench.cluster.sql(f"select from_address from twilio.message where message_id = {n - 13}", name)
        script += [query.format(n=n, sid=sid, to=to, sender=sender) + ";"] * 2
    output = bench.cluster.sql("\n".join(script), name)
    elapsed = [float(ms) for ms in re.findall(r"^Time: ([0-9.]+) ms", output, re.M)]
    # A person is blanked once.
    return statistics.median(elapsed[::2] if query.startswith("call") else elapsed[1::2])


def measure(bench, setup, sizes, account, public_url):
    """Prints how long each query takes on tables of these sizes."""
    results = {}
    for messages in sizes:
        print(f"==> filling tables with {messages:,} messages", flush=True)
        values = dict(account=account, small_account=account[:-1] + "0", url=public_url, a_day=MESSAGES_A_DAY,
                      persons=max(messages // MESSAGES_A_PERSON, 1))
        scale.fill(bench, "filled", setup, FILL, messages, **values)
        for title, query in QUERIES.items():
            results.setdefault(title, []).append(times(bench, "filled", query, messages))
    print(f"\n{'median in ms, of messages':<36}" + "".join(f"{messages:>16,}" for messages in sizes) + f"{'growth':>10}")
    for title, medians in results.items():
        print(f"{title:<36}" + "".join(f"{ms:>16.2f}" for ms in medians) + f"{medians[-1] / medians[0]:>10.2f}")
