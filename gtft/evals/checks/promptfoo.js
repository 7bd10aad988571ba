'use strict';
// Judges answers by the JavaScript of an eval suite, which is hostile until proven otherwise. Run by promptfoo.py with node's
// permission model on, without code generation from strings, inside cage.py. One JSON line in, one line out.
//
// The code runs in a fresh context per answer that gets strings only. This side looks at nothing that comes back, but whether it is
// a string: no property is read, no exception is opened, because a getter of theirs would run without a time limit.

const vm = require('node:vm');
const { readSync, writeSync } = require('node:fs');
const { parse, stringify } = JSON;
const seconds = Number(process.argv[1]);
const LONGEST = 4000;

// Judges inside the context, as promptfoo 0.121.2 does. `tools` are the compiled functions.
const JUDGE = `(function () {
  'use strict';
  let said = '{"failed":-1,"why":"the code waits for something that never comes"}';
  const isGrade = (r) => r !== null && typeof r === 'object' && typeof r.pass === 'boolean'
    && typeof r.score === 'number' && typeof r.reason === 'string';
  const list = (value) => typeof value === 'string' ? value.split(',').map((v) => v.trim()).filter((v) => v) : value;
  const low = (value) => String(value).toLowerCase();
  async function run(a, tool, output, text, context) {
    const inverse = a.type.startsWith('not-');
    const type = inverse ? a.type.slice(4) : a.type;
    const value = a.value;
    let met;
    if (type === 'javascript') {
      const result = await tool(output, context, undefined);
      if (typeof result === 'boolean') return result !== inverse;
      if (typeof result === 'number') return a.threshold === undefined ? result > 0 : result >= a.threshold;
      if (isGrade(result)) return result.pass;
      throw new Error('the code returns no boolean, number or grade');
    }
    if (type === 'is-json') {
      try { JSON.parse(text); met = true; } catch { met = false; }
    }
    else if (type === 'contains') met = text.includes(String(value));
    else if (type === 'icontains') met = low(text).includes(low(value));
    else if (type === 'contains-any') met = list(value).some((v) => text.includes(String(v)));
    else if (type === 'icontains-any') met = list(value).some((v) => low(text).includes(low(v)));
    else if (type === 'contains-all') met = list(value).every((v) => text.includes(String(v)));
    else if (type === 'icontains-all') met = list(value).every((v) => low(text).includes(low(v)));
    else if (type === 'starts-with') met = text.startsWith(value);
    else if (type === 'equals') met = String(value) === text;
    else if (type === 'regex') met = new RegExp(value).test(text);
    else throw new Error('no such assertion');
    return met !== inverse;
  }
  async function judge(task, tools) {
    let at = -1;
    try {
      const context = { vars: task.vars };
      let output = task.output;
      if (task.transform !== null) {
        output = await tools[0](output, context, undefined);
        if (output === null || output === undefined) throw new Error('the transform returns nothing');
      }
      const text = typeof output === 'string' ? output : JSON.stringify(output);
      for (const [n, a] of task.assertions.entries()) {
        at = n;
        if (!await run(a, tools[n + 1], output, text, context)) return { failed: at, why: 'not met' };
      }
      return { passed: true };
    } catch (e) {
      return { failed: at, why: 'threw ' + String(e && e.message).slice(0, 200) };
    }
  }
  return {
    start(text, tools) { judge(JSON.parse(text), tools).then((r) => { said = JSON.stringify(r); }); },
    finish() { return said; },
  };
})()`;

function decide(line) {
  const task = parse(line);
  const context = vm.createContext(vm.constants.DONT_CONTEXTIFY ?? Object.create(null), {
    codeGeneration: { strings: false, wasm: false },
    // Promises settle inside the time limit, or never.
    microtaskMode: 'afterEvaluate',
  });
  // All that is compiled is compiled before any of it runs.
  context.gtft = vm.runInContext(JUDGE, context);
  context.gtftTools = vm.runInContext('[]', context);
  let at = -1;
  try {
    for (const body of task.code) {
      context.gtftTools[at + 1] = body === null ? null
        : vm.compileFunction(body, ['output', 'context', 'process'], { parsingContext: context });
      at += 1;
    }
  } catch {
    return stringify({ failed: at, why: 'its code is no JavaScript' });
  }
  const timeout = seconds * 1000;
  const begin = `{ const g = gtft, t = gtftTools; delete globalThis.gtft; delete globalThis.gtftTools;
    globalThis.finish = g.finish; g.start(${stringify(line)}, t); }`;
  let said;
  try {
    vm.runInContext(begin, context, { timeout });
    said = vm.runInContext('finish()', context, { timeout });
  } catch {
    return stringify({ failed: -1, why: `the code does not end in ${seconds} s, or breaks its context` });
  }
  const fine = typeof said === 'string' && said.length < LONGEST && !said.includes('\n');
  return fine ? said : stringify({ failed: -1, why: 'the code breaks its context' });
}

// Whoever gets out of a context finds nothing here: what is left of this side cannot be changed, and what reaches outside is gone.
function strip() {
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    const descriptor = Object.getOwnPropertyDescriptor(globalThis, name);
    const value = descriptor.get ? undefined : descriptor.value;
    if (typeof value === 'function' && /^[A-Z]/.test(name) && value.prototype && name in STANDARD) {
      Object.freeze(value);
      Object.freeze(value.prototype);
    } else if (descriptor.configurable && !(name in STANDARD)) {
      delete globalThis[name];
    }
  }
}

const STANDARD = Object.fromEntries(
  'Object Function Array Number Boolean String Symbol Promise RegExp Error AggregateError EvalError RangeError ReferenceError SyntaxError TypeError URIError Math JSON Map Set WeakMap WeakSet WeakRef Proxy Reflect BigInt Date ArrayBuffer Uint8Array globalThis undefined NaN Infinity'
    .split(' ').map((name) => [name, true]),
);

const decoder = new TextDecoder();
const chunk = Buffer.alloc(1 << 16);
let held = '';
strip();
writeSync(1, 'ready\n');
for (;;) {
  const size = readSync(0, chunk, 0, chunk.length, null);
  if (size === 0) break;
  held += decoder.decode(chunk.subarray(0, size), { stream: true });
  for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
    const line = held.slice(0, end);
    held = held.slice(end + 1);
    writeSync(1, decide(line) + '\n');
  }
}
