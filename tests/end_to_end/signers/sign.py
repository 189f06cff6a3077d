"""Prints random requests, one JSON object a line, signed by Twilio's library for Python.

usage: sign.py COUNT SEED, with a JSON object on standard input: account_sid, auth_token, public_url,
status_path, inbound_path, shared_key_id, shared_key_secret
"""

import hashlib
import json
import random
import sys
from urllib.parse import quote, quote_plus

from twilio.request_validator import RequestValidator

SETTINGS = json.load(sys.stdin)
RANDOM = random.Random(int(sys.argv[2]))
PIECES = [
    "a", "Z", "0", " ", "  ", "+", "%", "&", "=", "?", "#", "/", ";", ",", "'", '"', "<", ">", "\\", "%41", "%zz",
    "\t", "\n", "\r\n", "é", "ñ", "ß", "İ", "ﬀ", "中文", "עברית", "👍🏽", "👩‍👩‍👧", "𝄞", "\u200b", "\u00a0", "\ufeff",
    "e\u0301", "\ufffd", "~", "*", "-", ".", "_", "null", "true",
]
NAMES = [
    "MessagingServiceSid2", "RawDlrDoneDate", "ChannelPrefix", "ChannelInstallSid", "EventType", "StructuredMessage",
    "Price", "SmsPrice", "Unknown", "unknown", "UNKNOWN", "messagesid", "New.Name", "new[0]", "new name", "naïve", "😀", "x",
]
# Parameters as they are signed, for texts of strangers who would like to be read as parameters.
SIGNED = [
    "AccountSid", "ApiVersion2010-04-01", "Body", "ButtonText", "ErrorCode30005", "From+12025550199", "Fromwhatsapp:+12025550199",
    "Label", "MediaUrl0https://a.example/", "MessageSid", "MessageStatusdelivered", "NumMedia1", "OptOutTypeSTOP", "ProfileName",
    "SmsMessageSid", "SmsSid", "MessageSidSM0123456789abcdef0123456789abcdef", "SmsSidSM0123456789abcdef0123456789abcdef", "SmsStatusreceived", "To+12025550100", "WaId12025550199", "Zz", "&From=%2B12025550199",
    "&MessageStatus=read", "?bodySHA256=", "SM0123456789abcdef0123456789abcdef", "AC0123456789abcdef0123456789abcdef",
]


class Repeated(dict):
    """Parameters some of which have several values, as Flask's MultiDict gives them."""

    def getall(self, name):
        return self[name]


def text(longest=12):
    return "".join(RANDOM.choice(PIECES) for _ in range(RANDOM.randrange(longest)))


def hostile(longest=12):
    if RANDOM.random() < 0.5:
        return text(longest)
    pieces = [RANDOM.choice(SIGNED + PIECES) for _ in range(RANDOM.randrange(longest))]
    # In the order of signing, a text looks most like a request.
    return "".join(sorted(pieces) if RANDOM.random() < 0.5 else pieces)


def number():
    return f"+1202555{RANDOM.randrange(10000):04}"


def sid(prefix, index):
    return f"{prefix}{index:04x}{RANDOM.getrandbits(112):028x}"


def status_callback(index):
    message = sid(RANDOM.choice(["SM", "MM"]), index)
    channel = RANDOM.choice(["", "", "whatsapp:", "rcs:", "messenger:"])
    status = RANDOM.choice(["queued", "sending", "sent", "delivered", "undelivered", "failed", "read", "beamed"])
    pairs = {
        "MessageSid": message,
        "SmsSid": message,
        "AccountSid": SETTINGS["account_sid"],
        "MessageStatus": status,
        "SmsStatus": status,
        "From": channel + number(),
        "To": channel + number(),
        "ApiVersion": "2010-04-01",
    }
    if status in ("failed", "undelivered"):
        pairs["ErrorCode"] = RANDOM.choice(["30003", "30008", "63049", "21610", "0", ""])
        pairs["ErrorMessage"] = text()
    if channel and RANDOM.random() < 0.5:
        pairs["ChannelStatusMessage"] = text()
    return pairs


def inbound_message(index):
    message = sid("SM", index)
    return {
        "MessageSid": message,
        "SmsSid": message,
        "SmsMessageSid": message,
        "AccountSid": SETTINGS["account_sid"],
        "SmsStatus": "received",
        "From": number(),
        "To": number(),
        "Body": hostile(40),
        "NumMedia": "0",
        "FromCity": "",
        "ToCity": text(),
        "ProfileName": hostile(),
        "ButtonText": hostile(),
    }


def with_extras(pairs):
    for _ in range(RANDOM.randrange(5)):
        pairs.setdefault(RANDOM.choice(NAMES), text())
    return pairs


def form(pairs):
    def escape(value):
        # Two spellings of the same: only the decoded text is signed.
        return RANDOM.choice([quote_plus(value), quote(value, safe=""), quote(value, safe="/:@!$*'(),")])

    items = [(name, value) for name, values in pairs.items() for value in values]
    RANDOM.shuffle(items)
    return "&".join(f"{escape(name)}={escape(value)}" for name, value in items)


def query():
    items = [f"{quote(text(4))}={quote(text(6))}" for _ in range(RANDOM.randrange(1, 4))]
    return RANDOM.choice(["", "", "?" + "&".join(items), "?attempt=0f8fad5b-d9cb-469f-a165-70867728950e", "?q=it's+(a)*~!"])


def request(index):
    kind = RANDOM.choice(["status"] * 5 + ["inbound"] * 3 + ["get", "json", "shared", "shared"])
    pairs = with_extras(inbound_message(index) if kind in ("inbound", "get") else status_callback(index))
    path = SETTINGS["inbound_path"] if kind in ("inbound", "get") else SETTINGS["status_path"]
    headers, body, signed = {}, "", {}
    validator, algorithm = RequestValidator(SETTINGS["auth_token"]), None
    if kind == "get":
        target = path + "?" + "&".join(f"{quote_plus(n)}={quote(v, safe='')}" for n, v in pairs.items())
    elif kind == "json":
        body = json.dumps(pairs, ensure_ascii=RANDOM.random() < 0.5)
        target = f"{path}?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
        headers["Content-Type"] = "application/json"
    else:
        signed = Repeated({name: [value] for name, value in pairs.items()})
        if RANDOM.random() < 0.2:
            signed["Repeated"] = [text(4) + "1", text(4) + "2", text(4) + "3"]
        body, target = form(signed), path + query()
        headers["Content-Type"] = "application/x-www-form-urlencoded" + RANDOM.choice(["", "; charset=UTF-8"])
    if kind == "shared":
        validator, algorithm = RequestValidator(SETTINGS["shared_key_secret"]), "HMAC_SHA256"
        headers["X-Twilio-Webhooks-Signature-Settings"] = f"key={SETTINGS['shared_key_id']},algorithm=HMAC_SHA256"
    url = SETTINGS["public_url"] + target
    headers["X-Twilio-Signature"] = validator.compute_signature(url, signed, algorithm)
    # The library has to agree with itself: what it signs, it must accept.
    assert validator.validate(url, body if kind == "json" else signed, headers["X-Twilio-Signature"], algorithm), url
    method = "GET" if kind == "get" else "POST"
    params = {name: values if len(values) > 1 else values[0] for name, values in (signed or {n: [v] for n, v in pairs.items()}).items()}
    return {"kind": kind, "method": method, "target": target, "headers": headers, "body": body, "params": params}


for number_of_request in range(int(sys.argv[1])):
    print(json.dumps(request(number_of_request)))
