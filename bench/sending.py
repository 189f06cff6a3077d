"""How fast the worker sends: messages a second against a provider that takes 50 ms, the time from a commit to
the provider when idle, and the memory of the worker with all requests under way. Times are the provider's."""

import json
import pathlib
import subprocess
import threading
import time
import urllib.request

LATENCY_MS = 50
SENDER = "+12025550100"
SENDS_A_SECOND_AT_MOST = 4000


def anonymous_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


def requests(port):
    """What the provider received, oldest first, and nothing of it a second time."""
    url = f"http://127.0.0.1:{port}/_requests"
    with urllib.request.urlopen(url, timeout=60) as answer:
        heard = json.load(answer)["requests"]
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()
    return [(request["to"], request["received_us"]) for request in heard if request["method"] == "POST"]


def wait_until_sent(cluster, database, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if cluster.sql("select count(*) from twilio_internal.outbox", database) == "0":
            return
        time.sleep(0.1)
    raise SystemExit(f"the worker did not send all within {seconds} s")


class Peak(threading.Thread):
    """The most private memory that a process has while this runs."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.mib, self.is_over = pid, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.is_over.wait(0.05):
            self.mib = max(self.mib, anonymous_mib(self.pid))

    def end(self):
        self.is_over.set()
        self.join()
        return self.mib


def throughput(cluster, database, port, seconds):
    """Sends a second, from the first tenth of the requests to the last, and the worker's memory meanwhile."""
    count = int(seconds * SENDS_A_SECOND_AT_MOST)
    cluster.sql(f"""
        set client_min_messages = warning;
        select twilio.disable_sending();
        select count(twilio.send_message('+1303' || lpad(n::text, 7, '0'), 'Your table is ready'))
        from generate_series(1, {count}) n;
    """, database)
    peak = Peak(int(cluster.sql("select pid from twilio_internal.worker", database)))
    cluster.sql("select twilio.enable_sending()", database)
    wait_until_sent(cluster, database, 120)
    mib = peak.end()
    times = [received_us for _, received_us in requests(port)]
    if len(times) != count:
        raise SystemExit(f"{count} messages were queued and {len(times)} sent")
    # The first requests also make their connections.
    times = times[count // 10:]
    return (len(times) - 1) * 1e6 / (times[-1] - times[0]), mib


def wake(cluster, database, port, count):
    """Milliseconds from each commit to the arrival of its request, with nothing else to do."""
    def queue(n):
        return f"""
            begin;
            select twilio.send_message('+1404' || lpad('{n}', 7, '0'), 'Your table is ready') \\gset
            select (extract(epoch from clock_timestamp()) * 1000000)::bigint;
            commit;
            select from pg_sleep(0.03 + random() * 0.02);
        """
    lines = cluster.sql("".join(map(queue, range(count))), database).split()
    committed = [int(line) for line in lines]
    wait_until_sent(cluster, database, 30)
    arrived = {int(to[-7:]): received_us for to, received_us in requests(port)}
    return sorted((arrived[n] - committed[n]) / 1000 for n in range(count))


def measure(cluster, database, port, seconds):
    """The figures by name; the worker of the database sends to the sandbox on this port."""
    cluster.sql(f"select twilio.add_sender('{SENDER}'); select twilio.start_worker()", database)
    wake(cluster, database, port, 10)
    latencies = wake(cluster, database, port, int(seconds * 40))
    rate, mib = throughput(cluster, database, port, seconds)
    cluster.sql("select twilio.stop_worker()", database)
    return {
        "sends_per_s": rate,
        "wake_p50_ms": latencies[len(latencies) // 2],
        "wake_p99_ms": latencies[int(len(latencies) * 0.99)],
        "worker_anon_mib": mib,
    }
