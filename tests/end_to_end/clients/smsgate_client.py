"""Uses SMSGate's API with SMSGate's own library for Python.

usage: smsgate_client.py, with a JSON object on standard input: url, username, password, device_id and webhook, a
URL. Prints one JSON object with what the library made of the answers.
"""

import json
import sys
import time

from android_sms_gateway import client, domain, errors
from android_sms_gateway.enums import ProcessState, WebhookEvent

SETTINGS = json.load(sys.stdin)
TEXT = "Grüße 🎉\nsecond line "


def connect(login, password):
    return client.APIClient(login, password, base_url=SETTINGS["url"])


def message(number, name, **more):
    return domain.Message(
        phone_numbers=[number], text_message=domain.TextMessage(TEXT), id=name,
        device_id=SETTINGS["device_id"], ttl=600, **more,
    )


def wait_for(api, name, state):
    deadline = time.monotonic() + 20
    while (found := api.get_state(name)).state != state:
        assert time.monotonic() < deadline, f"{name} is {found.state}, not {state}"
        time.sleep(0.01)
    return found


def refusal(action):
    try:
        action()
    except errors.APIError as error:
        return [type(error).__name__, error.status_code, error.response]
    raise AssertionError("it was not refused")


def as_list(state):
    recipients = [[r.phone_number, r.state.value, r.error] for r in state.recipients]
    return [state.id, state.device_id, state.state.value, recipients]


def messages(api):
    sent = api.send(message("+12025550123", "first", priority=domain.MessagePriority.BYPASS_THRESHOLD, sim_number=1))
    delivered = wait_for(api, "first", ProcessState.Delivered)
    api.send(message("+150100001000002", "second"))
    failed = wait_for(api, "second", ProcessState.Failed)
    # The phone never fetches this one, so that it can be taken back.
    api.send(message("+150100001000007", "third"), skip_phone_validation=True)
    api.cancel_message("third")
    cancelled = wait_for(api, "third", ProcessState.Cancelled)
    page = domain.QueryPagination(limit=2)
    return {
        "sent": as_list(sent),
        "delivered": as_list(delivered),
        "states": sorted(delivered.states),
        "failed": as_list(failed),
        "cancelled": cancelled.state.value,
        "page": len(api.get_messages(pagination=page)),
        "failed_ones": [m.id for m in api.get_messages(query=domain.MessagesQueryFilter(state="Failed"))],
        "again": refusal(lambda: api.send(message("+12025550123", "first"))),
        "unknown": refusal(lambda: api.get_state("nobody"))[:2],
        "no_device": refusal(lambda: api.send(message("+150100001000010", "fourth"))),
    }


def webhooks(api):
    before = api.get_webhooks()
    made = api.create_webhook(domain.Webhook(id=None, url=SETTINGS["webhook"], event=WebhookEvent.SMS_DELIVERED))
    listed = api.get_webhooks()
    api.delete_webhook(made.id)
    return [len(before), [[w.id == made.id, w.url, w.event.value] for w in listed], len(api.get_webhooks())]


def tokens(api):
    # The library looks for accessToken in the answer, where the server's own description says access_token.
    request = domain.TokenRequest(scopes=["messages:read"], ttl=600).asdict()
    made = api.http.post(f"{api.base_url}/auth/token", payload=request, headers=api.headers)
    refresh = {**api.headers, "Authorization": f"Bearer {made['refresh_token']}"}
    renewed = api.http.post(f"{api.base_url}/auth/token/refresh", payload={}, headers=refresh)
    with connect(None, renewed["access_token"]) as bearer:
        return [as_list(bearer.get_state("first"))[2], refusal(lambda: bearer.list_devices())[:2]]


with connect(SETTINGS["username"], SETTINGS["password"]) as gateway:
    result = messages(gateway)
    result["devices"] = [device.id for device in gateway.list_devices()]
    result["webhooks"] = webhooks(gateway)
    result["tokens"] = tokens(gateway)
    result["health"] = gateway.health_check().status.value
with connect(SETTINGS["username"], "another") as stranger:
    result["stranger"] = refusal(stranger.list_devices)[:2]
print(json.dumps(result))
