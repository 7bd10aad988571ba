#!/usr/bin/env node
// Stands in for the language model of an agent that gt starts (as `claude`). A polecat primes itself, as gt's hook
// has it do, and types the one command that it then sees; every other role waits. What it saw and did is logged.
const { spawnSync } = require("child_process");
const fs = require("fs");
const role = process.env.GT_ROLE || "";
const log = `${process.env.HOME}/agent-${role.replace(/\//g, "-")}.log`;
const say = (text) => fs.appendFileSync(log, text + "\n");
console.log("❯ ");
say(`started in ${process.cwd()} with ${process.argv.slice(2).join(" ")}`);
if (role.includes("polecats")) {
  const prime = spawnSync("gt", ["prime"], { encoding: "utf8" });
  say(prime.stdout + prime.stderr);
  const found = /Run: (gtft run [A-Za-z0-9.-]+)/.exec(prime.stdout);
  if (found) {
    const [program, ...args] = found[1].split(" ");
    const done = spawnSync(program, args, { encoding: "utf8" });
    say(`$ ${found[1]}\n${done.stdout}${done.stderr}exit ${done.status}`);
  } else say("no command in the prime");
}
process.stdin.resume();
