// Prints the requests that it is given, one JSON object a line, signed by Twilio's library for Node.
//
// usage: given.js, with a JSON object on standard input: auth_token, public_url, path, and requests, each with
// method and params, in which a repeated name has an array
"use strict";

const { readFileSync } = require("fs");
const { getExpectedTwilioSignature, validateRequest } =
  require(`${process.env.SIGNERS}/node/node_modules/twilio/lib/webhooks/webhooks.js`);

const settings = JSON.parse(readFileSync(0, "utf8"));

for (const { method, params } of settings.requests) {
  const encoded = new URLSearchParams(
    Object.entries(params).flatMap(([name, values]) => [values].flat().map((value) => [name, value])),
  ).toString();
  const isGet = method === "GET";
  const target = settings.path + (isGet ? "?" + encoded : "");
  const url = settings.public_url + target;
  const signed = isGet ? {} : params;
  const signature = getExpectedTwilioSignature(settings.auth_token, url, signed);
  // The library has to agree with itself: what it signs, it must accept.
  if (!validateRequest(settings.auth_token, signature, url, signed)) {
    throw new Error(`the library refuses its own signature of ${url}`);
  }
  const headers = { "X-Twilio-Signature": signature };
  if (!isGet) headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8";
  const body = isGet ? "" : encoded;
  process.stdout.write(JSON.stringify({ kind: "given", method, target, headers, body, params }) + "\n");
}
