"""A status callback in Flask with Twilio's library: verify, two statements in one transaction, 204."""

import json
import os

from flask import Flask, request
from psycopg_pool import ConnectionPool
from twilio.request_validator import RequestValidator

URL = os.environ["CALLBACK_URL"]
EVENT = (
    "insert into message_event (message_sid, status, error_code, params) values (%s, %s, %s, %s)"
    " on conflict do nothing"
)
MESSAGE = (
    "insert into message as m (message_sid, account_sid, from_address, to_address, status, rank, error_code)"
    " values (%s, %s, %s, %s, %s, rank_of(%s), %s)"
    " on conflict (message_sid) do update set status = excluded.status, rank = excluded.rank,"
    " error_code = excluded.error_code, updated_at = now() where m.rank < excluded.rank"
)

app = Flask(__name__)
validator = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])
pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=16, open=True)


@app.post("/twilio/status")
def status():
    form = request.form
    if not validator.validate(URL, form, request.headers.get("X-Twilio-Signature", "")):
        return "", 403
    sid, state, code = form["MessageSid"], form["MessageStatus"], form.get("ErrorCode")
    with pool.connection() as connection:
        connection.execute(EVENT, (sid, state, code, json.dumps(form.to_dict())))
        connection.execute(
            MESSAGE,
            (sid, form["AccountSid"], form.get("From"), form.get("To"), state, state, code),
        )
    return "", 204
