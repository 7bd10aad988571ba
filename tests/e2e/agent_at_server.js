#!/usr/bin/env node
// Stands in for Claude Code (as `claude`): it asks the server that its environment names one question, in Anthropic's
// protocol, writes down what came of it, and waits as an agent does.
const fs = require("fs");
const base = process.env.ANTHROPIC_BASE_URL || "";
const role = (process.env.GT_ROLE || "").replace(/\//g, "-");
const log = `${process.env.HOME}/asked-${role}.jsonl`;
const say = (found) =>
  fs.appendFileSync(log, JSON.stringify({ base, agent: process.env.GT_AGENT, argv: process.argv.slice(2), ...found }) + "\n");
console.log("❯ ");
if (!base) say({});
else
  fetch(`${base}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": "made-up", "anthropic-version": "2023-06-01" },
    body: JSON.stringify({ model: "any", max_tokens: 24, messages: [{ role: "user", content: "which polecat is stuck?" }] }),
  })
    .then(async (r) => say({ status: r.status, body: await r.text() }))
    .catch((e) => say({ error: String(e) }));
process.stdin.resume();
