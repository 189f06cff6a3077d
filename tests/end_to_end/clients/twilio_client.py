"""Creates messages with Twilio's library for Python, as an application does that knows nothing of us.

usage: twilio_client.py, with a JSON object on standard input: url, account_sid, auth_token and messages,
each with the arguments of messages.create and, if it is to lose its text, redact. Prints a JSON array: the
SIDs, or the codes of Twilio's errors.
"""

import json
import sys
import time

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

SETTINGS = json.load(sys.stdin)
FINAL = ("delivered", "undelivered", "failed")


class Elsewhere(TwilioHttpClient):
    """The library's own HTTP client, with another host."""

    def request(self, method, url, *arguments, **named):
        return super().request(method, url.replace("https://api.twilio.com", SETTINGS["url"]), *arguments, **named)


def redact(message):
    # Twilio takes the text back only from what is over.
    deadline = time.monotonic() + 20
    while message.fetch().status not in FINAL:
        assert time.monotonic() < deadline, "the message does not end"
        time.sleep(0.01)
    message.update(body="")


def create(client, arguments):
    is_redacted = arguments.pop("redact", False)
    try:
        message = client.messages.create(**arguments)
    except TwilioRestException as error:
        return error.code
    if is_redacted:
        redact(client.messages(message.sid))
    return message.sid


twilio = Client(SETTINGS["account_sid"], SETTINGS["auth_token"], http_client=Elsewhere())
print(json.dumps([create(twilio, arguments) for arguments in SETTINGS["messages"]]))
