// What both Node.js suites share: arguments, the table, one line a check.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mode: { type: 'string' },
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string' },
    proto: { type: 'string', default: '2' },
    table: { type: 'string' },
    name: { type: 'string' },
  },
});

export const what = positionals[0];
export const cluster = values.mode === 'cluster';
export const { host, name } = values;
export const port = Number(values.port);
export const proto = Number(values.proto);
export const key = (suffix) => `{${name}}:${suffix}`;
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function check(label, run) {
  try {
    await run();
    console.log(`ok ${label}`);
  } catch (error) {
    console.log(`FAIL ${label}: ${String(error?.message ?? error).replaceAll('\n', ' ')}`);
  }
}

export function equal(actual, expected, label = 'value') {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${label} is ${a}, not ${b}`);
}

// `call(firstKey, args)` gives the reply as it came, or throws the server's error.
export async function tableChecks(call) {
  const table = JSON.parse(readFileSync(values.table, 'utf8'));
  for (const [number, { name: label, steps, keyless, cluster: clusterOnly }] of table.entries()) {
    if (cluster ? keyless : clusterOnly) continue;
    const prefix = `{${name}:${number}}:`;
    await check(`table: ${label}`, async () => {
      for (const [template, expected] of steps) {
        const args = template.map((arg) => (arg.startsWith('$') ? prefix + arg.slice(1) : arg));
        let actual;
        try {
          actual = await call(prefix, args);
        } catch (error) {
          actual = error;
        }
        if (!matches(expected, actual)) {
          const got = actual instanceof Error ? actual.message : JSON.stringify(actual);
          throw new Error(`${JSON.stringify(args)} gave ${got}, not ${JSON.stringify(expected)}`);
        }
      }
    });
  }
}

function matches(expected, actual) {
  if (expected !== null && typeof expected === 'object' && !Array.isArray(expected)) {
    if (expected.error) return actual instanceof Error && actual.message.startsWith(expected.error);
    if (expected.int) return Number(actual) >= expected.int[0] && Number(actual) <= expected.int[1];
    return true;
  }
  if (actual instanceof Error) return false;
  return JSON.stringify(expected) === JSON.stringify(actual);
}

// Writes until stdin says stop, each key once and again until acknowledged; then reads all of it back.
export async function failover(set, get) {
  let stopped = false;
  process.stdin.once('data', () => (stopped = true));
  const acknowledged = [];
  let [errors, longest, last, deadline] = [0, 0, performance.now(), null];
  while (!stopped || deadline === null || performance.now() < deadline) {
    if (stopped && deadline === null) deadline = performance.now() + 1000;
    const label = `${name}:f:${acknowledged.length}`;
    try {
      await set(label, String(acknowledged.length));
    } catch {
      errors += 1;
      await sleep(50);
      continue;
    }
    const now = performance.now();
    [longest, last] = [Math.max(longest, now - last), now];
    acknowledged.push(label);
    if (acknowledged.length === 10) console.log('ready');
    await sleep(10);
  }
  await check('writes go on after a leader is killed', () => {
    if (acknowledged.length < 50) throw new Error(`only ${acknowledged.length} writes`);
    if (performance.now() - last > 3000) throw new Error('no write in the end');
  });
  await check('nothing acknowledged is lost', async () => {
    let lost = 0;
    for (const [number, label] of acknowledged.entries()) {
      if ((await get(label)) !== String(number)) lost += 1;
    }
    if (lost) throw new Error(`${lost} of ${acknowledged.length} acknowledged writes lost`);
  });
  console.log(`note ${acknowledged.length} writes, ${errors} errors, longest gap ${(longest / 1000).toFixed(2)} s`);
}
