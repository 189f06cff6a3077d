"""Prints the requests that it is given, one JSON object a line, signed by Twilio's library for Python.

usage: given.py, with a JSON object on standard input: auth_token, public_url, path, and requests, each with
method and params, in which a repeated name has an array, or with a body of JSON
"""

import hashlib
import json
import sys
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator

SETTINGS = json.load(sys.stdin)
VALIDATOR = RequestValidator(SETTINGS["auth_token"])


class Repeated(dict):
    """Parameters some of which have several values, as Flask's MultiDict gives them."""

    def getall(self, name):
        return self[name]


def signed_json(body):
    digest = hashlib.sha256(body.encode()).hexdigest()
    target = f"{SETTINGS['path']}?bodySHA256={digest}"
    url = SETTINGS["public_url"] + target
    signature = VALIDATOR.compute_signature(url, {})
    assert VALIDATOR.validate(url, body, signature), url
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/json"}
    return {"kind": "given", "method": "POST", "target": target, "headers": headers, "body": body, "params": {}}


for given in SETTINGS["requests"]:
    if "body" in given:
        print(json.dumps(signed_json(given["body"])))
        continue
    params = given["params"]
    lists = Repeated({name: value if isinstance(value, list) else [value] for name, value in params.items()})
    encoded = urlencode(lists, doseq=True)
    is_get = given["method"] == "GET"
    target = SETTINGS["path"] + ("?" + encoded if is_get else "")
    url, signed = SETTINGS["public_url"] + target, {} if is_get else lists
    signature = VALIDATOR.compute_signature(url, signed)
    # The library has to agree with itself: what it signs, it must accept.
    assert VALIDATOR.validate(url, signed, signature), url
    headers = {"X-Twilio-Signature": signature}
    if not is_get:
        headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
    body = "" if is_get else encoded
    print(json.dumps({"kind": "given", "method": given["method"], "target": target, "headers": headers, "body": body, "params": params}))
