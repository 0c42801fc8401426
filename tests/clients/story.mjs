// A real JavaScript client tells one story: list tools, start, send, wait, ack.
//
//     story.mjs URL TOKEN ERA [FOLDER]  ERA is `modern` (2026-07-28, pinned) or `legacy` (initialize)
//
// Prints one JSON line and exits 0, or says what was wrong and exits 1. The package is found in FOLDER's node_modules,
// else beside this file.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const [url, token, era, folder] = process.argv.slice(2);
const MODES = { modern: { pin: '2026-07-28' }, legacy: 'legacy' };
const STORY_MS = 60_000;

function check(holds, what, shown) {
  if (!holds) throw new Error(shown === undefined ? what : `${what}: ${JSON.stringify(shown)}`);
}

async function library() {
  if (!folder) return import('@modelcontextprotocol/client');
  const require = createRequire(path.join(path.resolve(folder), 'package.json'));
  return import(pathToFileURL(require.resolve('@modelcontextprotocol/client')).href);
}

// The host as an agent sees it. In the modern era nothing but the handle says which agent calls.
class Host {
  handle;

  constructor(client, tools) {
    this.client = client;
    this.schemas = new Map(tools.map((tool) => [tool.name, tool.inputSchema]));
  }

  async call(tool, given) {
    check(this.schemas.has(tool), `there is no tool \`${tool}\``, [...this.schemas.keys()]);
    const takesAgent = 'agent' in (this.schemas.get(tool).properties ?? {});
    const agent = this.handle && era === 'modern' && takesAgent ? { agent: this.handle } : {};
    const answer = await this.client.callTool({ name: tool, arguments: { ...given, ...agent } });
    const text = answer.content.filter((part) => part.type === 'text').map((part) => part.text).join('');
    check(!answer.isError, `\`${tool}\` was refused`, text);
    check(answer.structuredContent instanceof Object, `\`${tool}\` has no structured content`, text);
    return answer.structuredContent;
  }
}

function messages(answer) {
  check(Array.isArray(answer.result?.messages), '`wait_for_events` has no `result.messages`', answer);
  return answer.result.messages;
}

async function story() {
  const { Client, StreamableHTTPClientTransport } = await library();
  const client = new Client({ name: 'story', version: '1' }, { versionNegotiation: { mode: MODES[era] } });
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
  });
  await client.connect(transport);
  try {
    const { tools } = await client.listTools();
    check(tools.length > 0, 'the host lists no tools');
    const host = new Host(client, tools);
    // A name of its own for each era: stories may run one after another on one host.
    const name = `echo-js-${era}`;
    const body = `from JavaScript, ${era}`;

    const started = await host.call('start', { name, capabilities: ['echo'] });
    host.handle = started.result?.handle;
    check(typeof host.handle === 'string', '`start` has no `result.handle`', started);
    const sent = await host.call('send_message', { to: [`agent:${name}`], kind: 'note', subject: 'hello', body });
    check('result' in sent, '`send_message` has no result', sent);

    const waited = await host.call('wait_for_events', { max_s: 5 });
    const ours = messages(waited).filter((message) => message.subject === 'hello');
    check(ours.length === 1, 'the message was not delivered once', waited);
    check(ours[0].body === body, 'the body changed on its way', ours);

    const again = await host.call('wait_for_events', { ack: [ours[0].id], max_s: 0 });
    check(messages(again).every((message) => message.id !== ours[0].id), 'an acked message came again', again);
    return tools.map((tool) => tool.name);
  } finally {
    await client.close();
  }
}

if (!url || !token || !(era in MODES)) {
  console.error('usage: story.mjs URL TOKEN modern|legacy');
  process.exit(2);
}
const deadline = setTimeout(() => {
  console.error(`story.mjs ${era}: not done after ${STORY_MS} ms`);
  process.exit(1);
}, STORY_MS);
try {
  console.log(JSON.stringify({ tools: await story(), ok: true }));
  clearTimeout(deadline);
} catch (error) {
  const cause = error.cause ? ` (${error.cause.message ?? error.cause})` : '';
  console.error(`story.mjs ${era}: ${error.message}${cause}`);
  process.exit(1);
}
