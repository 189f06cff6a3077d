"""Goes through sinks and subscriptions of the Events API with Twilio's library for Python, as its users do.

usage: twilio_events.py, with a JSON object on standard input: url, account_sid, auth_token and destination, a URL
that answers. Prints a JSON object: for each thing tried, what the library made of the answer.
"""

import json
import sys
import time
import urllib.request

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

SETTINGS = json.load(sys.stdin)
SENT = "com.twilio.messaging.message.sent"
DELIVERED = "com.twilio.messaging.message.delivered"
INBOUND = "com.twilio.messaging.inbound-message.received"


class Elsewhere(TwilioHttpClient):
    """The library's own HTTP client, with another host."""

    def request(self, method, url, *arguments, **named):
        return super().request(method, url.replace("https://events.twilio.com", SETTINGS["url"]), *arguments, **named)


def refusal(call):
    try:
        call()
    except TwilioRestException as error:
        return [error.status, error.code, error.msg.split(": ", 1)[-1]]
    return "not refused"


def test_id(sink):
    """The id of the test event that the sink has taken."""
    deadline = time.monotonic() + 20
    while True:
        with urllib.request.urlopen(f"{SETTINGS['url']}/_events?id={sink}") as answer:
            deliveries = json.load(answer)["events"]
        if deliveries and deliveries[-1]["outcome"] == "delivered":
            event = deliveries[-1]["events"][0]
            return event["type"], event["data"]["test_id"]
        assert time.monotonic() < deadline, "the test event does not arrive"
        time.sleep(0.01)


events = Client(SETTINGS["account_sid"], SETTINGS["auth_token"], http_client=Elsewhere()).events.v1
sinks, subscriptions = events.sinks, events.subscriptions
found = {}


def create_sink(description, **configuration):
    configuration = {"destination": SETTINGS["destination"], "method": "POST", **configuration}
    return sinks.create(description=description, sink_configuration=configuration, sink_type="webhook")


sink = create_sink("first", batch_events=False)
found["sink"] = [
    sink.sid[:2], sink.status, sink.sink_type, sink.description, sink.sink_configuration["batch_events"],
    type(sink.date_created).__name__, sorted(sink.links),
]
found["kinesis"] = refusal(lambda: sinks.create(description="x", sink_configuration={"arn": "x"}, sink_type="kinesis"))
found["no_destination"] = refusal(lambda: create_sink("x", destination=""))

found["tested"] = [sinks(sink.sid).sink_test.create().result, sink.fetch().status]
kind, proof = test_id(sink.sid)
found["wrong_proof"] = refusal(lambda: sinks(sink.sid).sink_validate.create(test_id="x"))
found["validated"] = [kind, sinks(sink.sid).sink_validate.create(test_id=proof).result, sink.fetch().status]
found["renamed"] = sinks(sink.sid).update(description="renamed").description

subscription = subscriptions.create(
    description="messages", sink_sid=sink.sid, types=[{"type": SENT, "schema_version": 7}, {"type": DELIVERED}]
)
found["subscription"] = [
    subscription.sid[:2], subscription.account_sid == SETTINGS["account_sid"], subscription.sink_sid == sink.sid,
    type(subscription.date_created).__name__, sorted(subscription.links),
]
again = {"description": "again", "sink_sid": sink.sid, "types": [{"type": SENT}]}
found["second"] = refusal(lambda: subscriptions.create(**again))[:2]
found["no_sink"] = refusal(lambda: subscriptions.create(**{**again, "sink_sid": "DG" + "0" * 32}))[:2]
found["bad_type"] = refusal(lambda: subscriptions.create(**{**again, "types": [{"type": "x"}]}))[:2]
subscribed = subscriptions(subscription.sid).subscribed_events
found["added"] = subscribed.create(type=INBOUND).schema_version
found["types"] = [[event.type, event.schema_version] for event in subscribed.list()]
found["removed"] = [subscribed(INBOUND).delete(), len(subscribed.list())]

others = [create_sink(f"number {number}") for number in range(4)]
found["listed"] = [len(sinks.list()), len(sinks.list(page_size=2)), len(sinks.list(limit=3))]
page = sinks.page(page_size=2)
found["pages"] = [len(list(page)), len(list(page.next_page()))]
found["in_use"] = [len(sinks.list(in_use=True)), len(sinks.list(in_use=False)), len(sinks.list(status="active"))]
found["of_sink"] = [len(subscriptions.list(sink_sid=sink.sid)), len(subscriptions.list(sink_sid=others[0].sid))]

found["delete_in_use"] = refusal(sink.delete)[:2]
found["deleted"] = [subscription.delete(), sink.delete(), refusal(sink.fetch)[:2]]
stranger = Client(SETTINGS["account_sid"], "wrong", http_client=Elsewhere())
found["stranger"] = refusal(stranger.events.v1.sinks(others[0].sid).fetch)[:2]
print(json.dumps(found))
