// Prints random requests, one JSON object a line, signed by Twilio's library for Node.
//
// usage: sign.js COUNT SEED, with a JSON object on standard input: account_sid, auth_token, public_url,
// status_path, inbound_path
"use strict";

const { readFileSync } = require("fs");
const { getExpectedBodyHash, getExpectedTwilioSignature, validateRequest, validateRequestWithBody } =
  require(`${process.env.SIGNERS}/node/node_modules/twilio/lib/webhooks/webhooks.js`);

const settings = JSON.parse(readFileSync(0, "utf8"));
const [count, seed] = process.argv.slice(2).map(Number);

// mulberry32: Node has no random numbers that can be repeated.
let state = seed >>> 0;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}
const below = (bound) => Math.floor(random() * bound);
const pick = (items) => items[below(items.length)];

const pieces = [
  "a", "Z", "0", " ", "  ", "+", "%", "&", "=", "?", "#", "/", ";", ",", "'", '"', "<", ">", "\\", "%41", "%zz",
  "\t", "\n", "\r\n", "é", "ñ", "ß", "İ", "ﬀ", "中文", "עברית", "👍🏽", "👩‍👩‍👧", "𝄞", "\u200b", "\u00a0", "\ufeff",
  "e\u0301", "\ufffd", "~", "*", "-", ".", "_", "null", "true",
];
const names = [
  "MessagingServiceSid2", "RawDlrDoneDate", "ChannelPrefix", "ChannelInstallSid", "EventType", "StructuredMessage",
  "Price", "SmsPrice", "Unknown", "unknown", "UNKNOWN", "messagesid", "New.Name", "new[0]", "new name", "naïve", "😀", "x",
];
// Parameters as they are signed, for texts of strangers who would like to be read as parameters.
const signedPieces = [
  "AccountSid", "ApiVersion2010-04-01", "Body", "ButtonText", "ErrorCode30005", "From+12025550199", "Fromwhatsapp:+12025550199",
  "Label", "MediaUrl0https://a.example/", "MessageSid", "MessageStatusdelivered", "NumMedia1", "OptOutTypeSTOP", "ProfileName",
  "SmsMessageSid", "SmsSid", "MessageSidSM0123456789abcdef0123456789abcdef", "SmsSidSM0123456789abcdef0123456789abcdef", "SmsStatusreceived", "To+12025550100", "WaId12025550199", "Zz", "&From=%2B12025550199",
  "&MessageStatus=read", "?bodySHA256=", "SM0123456789abcdef0123456789abcdef", "AC0123456789abcdef0123456789abcdef",
];

const text = (longest = 12) => Array.from({ length: below(longest) }, () => pick(pieces)).join("");
function hostile(longest = 12) {
  if (below(2)) return text(longest);
  const chosen = Array.from({ length: below(longest) }, () => pick([...signedPieces, ...pieces]));
  // In the order of signing, a text looks most like a request.
  return (below(2) ? chosen.sort() : chosen).join("");
}
const number = () => `+1202555${String(below(10000)).padStart(4, "0")}`;
const hex = (length) => Array.from({ length }, () => below(16).toString(16)).join("");
const sid = (prefix, index) => prefix + index.toString(16).padStart(4, "0") + hex(28);

function statusCallback(index) {
  const message = sid(pick(["SM", "MM"]), index);
  const channel = pick(["", "", "whatsapp:", "rcs:", "messenger:"]);
  const status = pick(["queued", "sending", "sent", "delivered", "undelivered", "failed", "read", "beamed"]);
  const params = {
    MessageSid: message,
    SmsSid: message,
    AccountSid: settings.account_sid,
    MessageStatus: status,
    SmsStatus: status,
    From: channel + number(),
    To: channel + number(),
    ApiVersion: "2010-04-01",
  };
  if (status === "failed" || status === "undelivered") {
    params.ErrorCode = pick(["30003", "30008", "63049", "21610", "0", ""]);
    params.ErrorMessage = text();
  }
  if (channel && below(2)) params.ChannelStatusMessage = text();
  return params;
}

function inboundMessage(index) {
  const message = sid("SM", index);
  return {
    MessageSid: message,
    SmsSid: message,
    SmsMessageSid: message,
    AccountSid: settings.account_sid,
    SmsStatus: "received",
    From: number(),
    To: number(),
    Body: hostile(40),
    NumMedia: "0",
    FromCity: "",
    ToCity: text(),
    ProfileName: hostile(),
    ButtonText: hostile(),
  };
}

function form(params) {
  // Two spellings of the same: only the decoded text is signed.
  const escapes = [
    encodeURIComponent,
    (value) => encodeURIComponent(value).replace(/%20/g, "+"),
    (value) => new URLSearchParams({ "": value }).toString().slice(1),
  ];
  const items = Object.entries(params).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));
  for (let index = items.length - 1; index > 0; index--) {
    const other = below(index + 1);
    [items[index], items[other]] = [items[other], items[index]];
  }
  return items.map(([name, value]) => `${pick(escapes)(name)}=${pick(escapes)(value)}`).join("&");
}

function query() {
  // Versions before 6 do not accept a raw apostrophe in a query, not even in what they signed themselves.
  const escape = (value) => encodeURIComponent(value).replace(/'/g, "%27");
  const items = Array.from({ length: 1 + below(3) }, () => `${escape(text(4))}=${escape(text(6))}`);
  return pick(["", "", "?" + items.join("&"), "?attempt=0f8fad5b-d9cb-469f-a165-70867728950e", "?q=(a)*~!+b"]);
}

function request(index) {
  const kind = pick(["status", "status", "status", "status", "status", "inbound", "inbound", "inbound", "get", "json"]);
  const isInbound = kind === "inbound" || kind === "get";
  const params = isInbound ? inboundMessage(index) : statusCallback(index);
  for (let extras = below(5); extras > 0; extras--) {
    const name = pick(names);
    if (!(name in params)) params[name] = text();
  }
  const path = isInbound ? settings.inbound_path : settings.status_path;
  const headers = {};
  let [body, target, signed] = ["", path, {}];
  if (kind === "get") {
    target += "?" + new URLSearchParams(params).toString();
  } else if (kind === "json") {
    body = JSON.stringify(params);
    target += "?bodySHA256=" + getExpectedBodyHash(body);
    headers["Content-Type"] = "application/json";
  } else {
    signed = params;
    if (random() < 0.2) signed.Repeated = [`${below(1000)}1`, `${below(1000)}2`, `${below(1000)}3`];
    body = form(signed);
    target += query();
    headers["Content-Type"] = "application/x-www-form-urlencoded" + pick(["", "; charset=UTF-8"]);
  }
  const url = settings.public_url + target;
  const signature = getExpectedTwilioSignature(settings.auth_token, url, signed);
  headers["X-Twilio-Signature"] = signature;
  // The library has to agree with itself: what it signs, it must accept.
  const isValid =
    kind === "json"
      ? validateRequestWithBody(settings.auth_token, signature, url, body)
      : validateRequest(settings.auth_token, signature, url, signed);
  if (!isValid) throw new Error(`the library refuses its own signature of ${url}`);
  const method = kind === "get" ? "GET" : "POST";
  return { kind, method, target, headers, body, params };
}

for (let index = 0; index < count; index++) {
  process.stdout.write(JSON.stringify(request(index)) + "\n");
}
