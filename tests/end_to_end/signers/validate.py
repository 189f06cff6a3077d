"""Prints for each request that it is given whether Twilio's library for Python takes it for one of Twilio's.

usage: validate.py, with a JSON object on standard input: auth_token, and requests, each with url, signature and the
body, a text whose hash is in the URL. Prints a JSON array of booleans.
"""

import json
import sys

from twilio.request_validator import RequestValidator

SETTINGS = json.load(sys.stdin)
VALIDATOR = RequestValidator(SETTINGS["auth_token"])

print(json.dumps([VALIDATOR.validate(r["url"], r["body"], r["signature"]) for r in SETTINGS["requests"]]))
