// Prints requests whose URLs arrive in another spelling than they were signed, one JSON object per line. Twilio's
// library for Node accepts each of them.
//
// usage: spell.js COUNT SEED, with a JSON object on standard input: account_sid, auth_token, public_url, paths
"use strict";

const { readFileSync } = require("fs");
const querystring = require("querystring");
const { getExpectedTwilioSignature, validateRequest } =
  require(`${process.env.SIGNERS}/node/node_modules/twilio/lib/webhooks/webhooks.js`);

const settings = JSON.parse(readFileSync(0, "utf8"));
const [count, seed] = process.argv.slice(2).map(Number);

// mulberry32, since Node's random numbers cannot be seeded.
let state = seed >>> 0;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}
const below = (bound) => Math.floor(random() * bound);
const pick = (items) => items[below(items.length)];

const pieces = ["a", "Z", "0", "7", " ", "+", "&", "=", "?", "/", ":", "@", ";", ",", "'", "%", "(", "*", "~", "!", "é", "中", "👍🏽"];
const text = (longest) => Array.from({ length: below(longest) }, () => pick(pieces)).join("");
// Ways to escape a value that are valid in HTTP.
const escapes = [
  encodeURIComponent,
  (value) => encodeURIComponent(value).replace(/'/g, "%27"),
  (value) => encodeURIComponent(value).replace(/%20/g, "+"),
  (value) => encodeURIComponent(value).replace(/%3A/g, ":").replace(/%40/g, "@").replace(/%2F/g, "/"),
  (value) => encodeURIComponent(value).replace(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase()),
  (value) => Array.from(new TextEncoder().encode(value), (byte) => "%" + byte.toString(16).padStart(2, "0")).join(""),
  (value) => new URLSearchParams({ "": value }).toString().slice(1),
];
// Spellings that may have been signed.
const signers = [
  (url) => new URL(url).toString(),
  (url) => url.split("?")[0] + "?" + querystring.stringify(querystring.parse(url.split("?")[1])),
  (url) => url.replace(/%3A/g, ":").replace(/%40/g, "@"),
  (url) => url.replace(/\+/g, "%20"),
  (url) => url.replace(/%27/g, "'"),
  (url) => url.replace(/'/g, "%27"),
  (url) => url.split("?")[0] + "?" + url.split("?")[1].split("&").sort().join("&"),
];

let printed = 0;
for (let index = 0; printed < count; index++) {
  const sid = "SM" + index.toString(16).padStart(8, "0") + "0123456789abcdef01234567";
  const params = { AccountSid: settings.account_sid, MessageSid: sid, MessageStatus: "sent", To: "+12025550123", Zz: text(6) };
  const escape = pick(escapes);
  // No parameter is empty: the library would drop it.
  const items = Array.from({ length: 1 + below(3) }, () => escape(pick(["n", "7", "é"]) + text(4)) + (below(5) ? "=" + escape(text(8)) : ""));
  const target = `${pick(settings.paths)}?${items.join("&")}`;
  const url = settings.public_url + target;
  let signed = pick(signers)(url);
  if (below(3) === 0) signed = signed.replace(settings.public_url, settings.public_url + ":443");
  const signature = getExpectedTwilioSignature(settings.auth_token, signed, params);
  if (signed.replace(":443", "") === url || !validateRequest(settings.auth_token, signature, url, params)) continue;
  const headers = { "X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded" };
  const body = new URLSearchParams(params).toString();
  process.stdout.write(JSON.stringify({ kind: "spelled", method: "POST", target, headers, body, params }) + "\n");
  printed++;
}
