// What the JavaScript stories have in common: finding a package, asking the test, checking, the outcome.
//
// What only the test can do is asked for by a line `{"ask": …}`; a line on standard input says that it is done. The last line
// is the outcome: `{"ok": true, …}`, or exit 1 and what was wrong on standard error.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const STORY_MS = 120_000;
const STEP_MS = 30_000;
const WAITS = 10;
const TASKS = 'pointsman://tasks';

export function check(holds, what, shown) {
  if (!holds) throw new Error(shown === undefined ? what : `${what}: ${JSON.stringify(shown)}`);
}

// Imports a package from a folder's node_modules.
export function library(folder, name) {
  const require = createRequire(path.join(path.resolve(folder), 'package.json'));
  return import(pathToFileURL(require.resolve(name)).href);
}

// The process reads its input only while it asks, so that it can end.
let answers;
export async function ask(what) {
  answers ??= createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log(JSON.stringify({ ask: what }));
  check(!(await answers.next()).done, `the test did not ${what}`);
}

// Returns a promise's value, or fails when it takes too long.
export function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${STEP_MS} ms`)), STEP_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// A client with what the stories need of it. `subscribe(uri)` resolves to `{ changed, end }`: `changed()` waits for the next one.
export class Player {
  handle;

  constructor(client, isModern, subscribe) {
    Object.assign(this, { client, isModern, subscribe });
  }

  async listTools() {
    const { tools } = await this.client.listTools();
    check(tools.length > 0, 'the host lists no tools');
    this.schemas = new Map(tools.map((tool) => [tool.name, tool.inputSchema]));
    return [...this.schemas.keys()];
  }

  // Calls a tool of the host's own; returns its `result`. In the modern era only the handle says which agent calls.
  async call(tool, given, options) {
    check(this.schemas.has(tool), `there is no tool \`${tool}\``, [...this.schemas.keys()]);
    const takesAgent = 'agent' in (this.schemas.get(tool).properties ?? {});
    const agent = this.handle && this.isModern && takesAgent ? { agent: this.handle } : {};
    const params = { name: tool, arguments: { ...given, ...agent } };
    const answer = await this.callTool(params, options);
    const text = answer.content.filter((part) => part.type === 'text').map((part) => part.text).join('');
    check(!answer.isError, `\`${tool}\` was refused`, text);
    check(answer.structuredContent instanceof Object, `\`${tool}\` has no structured content`, text);
    return answer.structuredContent.result;
  }

  callTool(params, options) {
    return this.client.callTool(params, options);
  }

  async messages(given) {
    const { messages } = await this.call('wait_for_events', given);
    check(Array.isArray(messages), '`wait_for_events` has no `result.messages`');
    return messages;
  }
}

// Sends the agent itself a message, takes it, acks it.
async function exchange(player, name, subject) {
  const body = `from ${name}`;
  await player.call('send_message', { to: [`agent:${name}`], kind: 'note', subject, body });
  const waited = await player.messages({ max_s: 5 });
  const ours = waited.filter((message) => message.subject === subject);
  check(ours.length === 1, 'the message was not delivered once', waited);
  check(ours[0].body === body, 'the body changed on its way', ours);
  const left = await player.messages({ ack: [ours[0].id], max_s: 0 });
  check(left.every((message) => message.id !== ours[0].id), 'an acked message came again', left);
}

async function hearsOfAChange(player) {
  const subscription = await soon(player.subscribe(TASKS), 'the subscription');
  await ask('change');
  await soon(subscription.changed(), 'the news of a change');
  await subscription.end();
}

// Gives up long waits: the host notices, and hands what comes next to who still waits. Waits that nobody gave up would take most
// messages; one may be taken while the host notices.
async function cancelled(player, name) {
  const giveUp = new AbortController();
  const waits = Array.from({ length: WAITS }, () => player.call('wait_for_events', { max_s: 50 }, { signal: giveUp.signal }));
  const ended = Promise.allSettled(waits);
  await player.call('lookup', { uri: 'agents' });
  giveUp.abort();
  await soon(ended, 'the end of the waits');
  let missed = 0;
  for (let n = 0; n < WAITS / 2; n += 1) {
    const subject = `after cancelled waits, ${n}`;
    await player.call('send_message', { to: [`agent:${name}`], kind: 'note', subject, body: '' });
    const came = await player.messages({ max_s: 2 });
    await player.messages({ ack: came.map((message) => message.id), max_s: 0 });
    if (!came.some((message) => message.subject === subject)) missed += 1;
  }
  check(missed <= 1, 'cancelled waits took messages', missed);
}

export async function work(player, name) {
  const tools = await player.listTools();
  player.handle = (await player.call('start', { name, capabilities: ['echo'] })).handle;
  check(typeof player.handle === 'string', '`start` has no `result.handle`');
  await exchange(player, name, 'hello');
  await hearsOfAChange(player);
  await cancelled(player, name);

  await ask('restart');
  // What was under way when the host died is lost; what is asked from now on is answered.
  const again = await player.listTools();
  check(JSON.stringify(again) === JSON.stringify(tools), 'other tools after the restart', again);
  await exchange(player, name, 'hello again');
  await hearsOfAChange(player);
  return { tools };
}

// Fills in a form: `Alice` wherever a text is asked for.
export function form(schema) {
  const filled = ([name, kind]) => [name, kind.format === 'email' ? 'alice@example.invalid' : 'Alice'];
  return Object.fromEntries(Object.entries(schema?.properties ?? {}).map(filled));
}

export async function elicit(player) {
  const [name, given, said] = player.isModern
    ? ['test_input_required_result_elicitation', {}, 'Hello, Alice!']
    : ['test_elicitation', { message: 'Who are you?' }, 'accept'];
  check((await player.listTools()).includes(name), `there is no tool \`${name}\``);
  const answer = await player.callTool({ name, arguments: given });
  const text = answer.content.filter((part) => part.type === 'text').map((part) => part.text).join('');
  check(!answer.isError && text.includes(said), 'the tool did not hear the answer', text);
  return { said: text };
}

// Runs a story; prints its outcome.
export async function told(what, story) {
  const complain = (why) => {
    console.error(`${what}: ${why}`);
    process.exit(1);
  };
  const deadline = setTimeout(() => complain(`not done after ${STORY_MS} ms`), STORY_MS);
  try {
    const outcome = await story();
    clearTimeout(deadline);
    process.stdout.write(`${JSON.stringify({ ...outcome, ok: true })}\n`, () => process.exit(0));
  } catch (error) {
    complain(`${error.stack}${error.cause ? ` (${error.cause.message ?? error.cause})` : ''}`);
  }
}
