"""Compares, for each JSON line of standard input, TwiML of ours and of the library for Node with what Twilio's
library for Python writes, after parsing all of it; prints the number of lines that it compared."""

import json
import sys
from xml.etree import ElementTree

from twilio.twiml.messaging_response import MessagingResponse


def expected(case):
    response = MessagingResponse()
    message = response.message(**{{"from": "from_", "statusCallback": "status_callback"}.get(n, n): v for n, v in case["attributes"].items()})
    if case["body"]:
        message.body(case["body"])
    for url in case["media"]:
        message.media(url)
    return str(response)


def tree(xml):
    def of(element):
        return element.tag, element.attrib, (element.text or ""), [of(child) for child in element]

    return of(ElementTree.fromstring(xml.encode()))


count = 0
for line in sys.stdin.read().split("\n")[:-1]:
    case = json.loads(line)
    # The library for Python leaves a carriage return as it is, which every parser reads as a line feed.
    mine, theirs = tree(case["ours"]), expected(case).replace("\r", "&#xD;")
    assert mine == tree(theirs), (case["ours"], theirs)
    assert mine == tree(case["node"]), (case["ours"], case["node"])
    count += 1
print(count)
