"""What `bench/run --long` measures besides: connections that were opened on empty tables, and tables that are full."""

import concurrent.futures
import shutil
import statistics
import subprocess
import sys
import time

# Tables and indexes, as measured at a million messages, and the WAL that the server keeps.
BYTES_A_MESSAGE, BYTES_OF_WAL = 1900, 13e9

# Loading is faster without them. The catalog has their definitions, so that none is stated twice.
DROP = """
    create schema kept;
    create table kept.statement as
    select format('alter table %s add constraint %I %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid)) as make,
        format('alter table %s drop constraint %I cascade', c.conrelid::regclass, c.conname) as remove
    from pg_constraint c
    where c.conrelid in ('twilio.message'::regclass, 'twilio.message_event'::regclass) and c.contype = 'u'
    union all
    select pg_get_indexdef(i.indexrelid), format('drop index %s', i.indexrelid::regclass)
    from pg_index i
    where i.indrelid in ('twilio.message'::regclass, 'twilio.message_event'::regclass)
        and not exists (select from pg_constraint c where c.conindid = i.indexrelid);
    do $$
    declare
        s record;
    begin
        for s in select * from kept.statement loop
            execute s.remove;
        end loop;
    end
    $$;
    alter table twilio.message set (autovacuum_enabled = off);
    alter table twilio.message_event set (autovacuum_enabled = off);
"""

# Of two messages one has three events and one two. All are final and old, so a purge finds something to do.
FILL = """
    set synchronous_commit = off;
    insert into twilio.message (
        message_id, root_id, message_sid, account_sid, from_address, to_address, status, created_at, sent_at, delivered_at
    )
    overriding system value
    select n, n, 'SM' || md5('full ' || n), '{account}', '+12025550100', '+1202555' || lpad((n % 10000)::text, 4, '0'),
        'delivered', t.at, t.at, t.at
    from generate_series({low}, {high}) n
    cross join (select now() - interval '200 days' as at) t;
    insert into twilio.message_event (message_id, status, source, is_advance, received_at, key_id, public_url, params)
    select m.message_id, s.status, 'callback', true, m.created_at, 'auth_token_1', '{url}',
        jsonb_build_object('MessageSid', m.message_sid, 'MessageStatus', s.status, 'AccountSid', m.account_sid,
            'From', m.from_address, 'To', m.to_address, 'ApiVersion', '2010-04-01')
    from twilio.message m
    cross join (values ('queued'), ('sent'), ('delivered')) s (status)
    where m.message_id between {low} and {high} and (s.status <> 'queued' or m.message_id % 2 = 0);
"""

FINISH = [
    "alter table twilio.message reset (autovacuum_enabled)",
    "alter table twilio.message_event reset (autovacuum_enabled)",
    "select setval('twilio.message_message_id_seq', (select max(message_id) from twilio.message))",
    "vacuum (analyze, freeze) twilio.message",
    "vacuum (analyze, freeze) twilio.message_event",
    "checkpoint",
]


def fill(bench, name, setup, statement, messages, **values):
    """A database of that many messages and 2.5 times as many events, which a statement makes from {low} to {high}."""
    free = shutil.disk_usage(bench.cluster.directory).free
    needed = messages * BYTES_A_MESSAGE + BYTES_OF_WAL
    if free < needed:
        sys.exit(f"{messages:,} messages need {needed / 1e9:.0f} GB, and {free / 1e9:.0f} are free: see --messages")
    start = time.monotonic()
    url = bench.cluster.database(name, setup + DROP)
    step = min(100_000, messages)
    made = 0

    def make(low):
        bench.cluster.sql(statement.format(low=low, high=min(low + step - 1, messages), messages=messages, **values), name)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in pool.map(make, range(1, messages + 1, step)):
            made += step
            if made % 2_000_000 == 0:
                print(f"    {made:,} messages", flush=True)
    makes = bench.cluster.sql("select make from kept.statement order by make", name).splitlines()
    for finish in makes + FINISH:
        bench.cluster.sql(f"set maintenance_work_mem = '2GB'; {finish}" if finish in makes else finish, name)
    size = int(bench.cluster.sql("select pg_database_size(current_database())", name))
    print(f"    {messages:,} messages in {size / 1e9:.1f} GB, made in {time.monotonic() - start:.0f} s", flush=True)
    return url


def open_connections(bench, rate, seconds=10, minutes=2):
    """The shim's connections open on empty tables: the first ten seconds beside the second minute. And beside
    connections that are opened on what the tables hold then, by turns: tables that grow slow both down."""
    url = bench.prepared("open")
    with bench.running_shim(url) as port:
        rates = [rate(port, 64, seconds) for _ in range(minutes * 60 // seconds)]
        with bench.running_shim(url) as other:
            turns = [(rate(port, 64, seconds // 2), rate(other, 64, seconds // 2)) for _ in range(4)]
    late = rates[len(rates) // 2:]
    bench.add("open_connections_first_10_s", rates[0])
    bench.add("open_connections_second_minute", statistics.mean(late))
    bench.add("open_connections_ratio", statistics.mean(late) / rates[0])
    bench.add("old_connections_ratio", statistics.median(old / new for old, new in turns))


def full_tables(bench, url, rate, command):
    """The rate on full tables, alone and beside a purge, by that on empty ones of the same minutes."""
    seconds = bench.options.seconds
    with bench.running_shim(bench.prepared("empty")) as port:
        empty = rate(port, 64, seconds)
    with bench.running_shim(url) as port:
        # What a server that has run for a while has in its cache.
        rate(port, 64, seconds)
        full = rate(port, 64, seconds)
        purge = subprocess.Popen([*command, "-c", "call twilio.purge('100 days')"], stderr=subprocess.DEVNULL)
        try:
            beside = rate(port, 64, seconds)
            if purge.poll() is not None:
                sys.exit("the purge ended before the measurement did")
        finally:
            purge.terminate()
            purge.wait(30)
    bench.add("empty_table_per_s_64", empty)
    bench.add("full_table_per_s_64", full)
    bench.add("full_table_purge_per_s_64", beside)
    bench.add("full_table_ratio", full / empty)
    bench.add("full_table_purge_ratio", beside / empty)
