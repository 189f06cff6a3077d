// A status callback in Express with Twilio's library: verify, two statements in one transaction, 204.
const cluster = require("node:cluster");

if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork();
  process.on("SIGTERM", () => process.exit(0));
} else {
  const express = require("express");
  const { Pool } = require("pg");
  const { validateRequest } = require("twilio");

  const pool = new Pool({ host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE, max: 16 });
  const event = {
    name: "event",
    text: `insert into message_event (message_sid, status, error_code, params) values ($1, $2, $3, $4)
      on conflict do nothing`,
  };
  const message = {
    name: "message",
    text: `insert into message as m (message_sid, account_sid, from_address, to_address, status, rank, error_code)
      values ($1, $2, $3, $4, $5, rank_of($5), $6)
      on conflict (message_sid) do update set status = excluded.status, rank = excluded.rank,
        error_code = excluded.error_code, updated_at = now() where m.rank < excluded.rank`,
  };

  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post("/twilio/status", async (request, response) => {
    const form = request.body;
    const signature = request.get("X-Twilio-Signature") || "";
    if (!validateRequest(process.env.TWILIO_AUTH_TOKEN, signature, process.env.CALLBACK_URL, form)) {
      return response.sendStatus(403);
    }
    const code = form.ErrorCode || null;
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query({ ...event, values: [form.MessageSid, form.MessageStatus, code, JSON.stringify(form)] });
      await client.query({
        ...message,
        values: [form.MessageSid, form.AccountSid, form.From, form.To, form.MessageStatus, code],
      });
      await client.query("commit");
      response.status(204).end();
    } catch (error) {
      await client.query("rollback").catch(() => {});
      response.status(503).end();
    } finally {
      client.release();
    }
  });
  app.listen(Number(process.env.PORT), "127.0.0.1");
}
