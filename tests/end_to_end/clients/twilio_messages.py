"""Goes through the whole Messages resource with Twilio's library for Python, as its users do.

usage: twilio_messages.py, with a JSON object on standard input: url, account_sid and auth_token. Prints a JSON
object: for each thing tried, what the library made of the answer.
"""

import datetime
import json
import sys
import time

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

SETTINGS = json.load(sys.stdin)
SENDER = "+12025550100"
RECIPIENT = "+12025550123"
# Twilio takes what goes to these numbers and says nothing more, refuses it, or is busy: see docs/sandbox.md.
SILENT = "+150000000000005"
FINAL = ("delivered", "undelivered", "failed")
SERVICE = "MG00000000000000000000000000000001"


class Elsewhere(TwilioHttpClient):
    """The library's own HTTP client, with another host."""

    def request(self, method, url, *arguments, **named):
        return super().request(method, url.replace("https://api.twilio.com", SETTINGS["url"]), *arguments, **named)


def refusal(call):
    try:
        call()
    except TwilioRestException as error:
        return [error.status, error.code]
    return "not refused"


def finished(message):
    deadline = time.monotonic() + 20
    while message.status not in FINAL:
        assert time.monotonic() < deadline, "the message does not end"
        time.sleep(0.01)
        message = message.fetch()
    return message


client = Client(SETTINGS["account_sid"], SETTINGS["auth_token"], http_client=Elsewhere())
messages = client.messages
found = {}

created = messages.create(to=RECIPIENT, from_=SENDER, body="first 🎉", media_url=["https://example.com/a.png"])
found["created"] = [
    created.sid[:2], created.status, created.to, created.from_, created.body, created.direction, created.num_media,
    created.error_code, type(created.date_created).__name__,
]
found["fetched"] = messages(created.sid).fetch().body == created.body
others = [messages.create(to=SILENT, from_=SENDER, body=f"number {n}") for n in range(7)]
sids = {message.sid for message in others}

# Newest first, page by page, however large the pages are.
found["listed"] = [len(messages.list()), len(messages.list(limit=3)), len(messages.list(page_size=2))]
found["to"] = {message.sid for message in messages.list(to=SILENT, page_size=3)} == sids
found["from"] = [len(messages.list(from_=SENDER)), len(messages.list(from_="+12025550199"))]
finished(created)
today = datetime.datetime.now(datetime.timezone.utc)
day = datetime.timedelta(days=1)
found["sent_today"] = [
    len(messages.list(to=RECIPIENT, date_sent_after=today - day)), len(messages.list(to=RECIPIENT, date_sent_before=today - day))
]
page = messages.page(page_size=3)
first = [message.sid for message in page]
second = [message.sid for message in page.next_page()]
found["pages"] = [len(first), len(second), len(set(first) & set(second))]

scheduled = messages.create(
    to=RECIPIENT, messaging_service_sid=SERVICE, body="later", schedule_type="fixed", send_at=today + datetime.timedelta(hours=1)
)
found["scheduled"] = scheduled.status
found["canceled"] = scheduled.update(status="canceled").status
found["cancel_twice"] = refusal(lambda: messages(scheduled.sid).update(status="canceled"))

redacted = finished(messages.create(to="+150000000230005", from_=SENDER, body="secret"))
found["failed"] = [redacted.status, redacted.error_code, redacted.error_message is not None]
found["redacted"] = redacted.update(body="").body

media = messages(created.sid).media.list()
found["media"] = len(media)
found["one_media"] = messages(created.sid).media(media[0].sid).fetch().content_type if media else None
found["feedback"] = messages(created.sid).feedback.create(outcome="confirmed").outcome
found["deleted"] = [messages(redacted.sid).delete(), refusal(lambda: messages(redacted.sid).fetch())]

found["bad_number"] = refusal(lambda: messages.create(to="+1", from_=SENDER, body="x"))
found["no_body"] = refusal(lambda: messages.create(to=RECIPIENT, from_=SENDER))
found["too_long"] = refusal(lambda: messages.create(to=RECIPIENT, from_=SENDER, body="x" * 1601))
found["stopped"] = refusal(lambda: messages.create(to="+150000000321610", from_=SENDER, body="x"))
found["throttled"] = refusal(lambda: messages.create(to="+150000000400002", from_=SENDER, body="x"))
found["unknown"] = refusal(lambda: messages("SM" + "0" * 32).fetch())
stranger = Client(SETTINGS["account_sid"], "wrong", http_client=Elsewhere())
found["stranger"] = refusal(lambda: stranger.messages(created.sid).fetch())
print(json.dumps(found))
