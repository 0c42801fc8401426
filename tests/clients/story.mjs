// The npm clients tell a story; the test plays the rest of the world.
//
//     story.mjs STORY CLIENT ERA URL TOKEN FOLDER
//
// STORY   work: list, start, send, wait, ack, hear of a change, cancel, outlive the host's death;  elicit: be asked by a tool
// CLIENT  client: `@modelcontextprotocol/client`;  sdk: `@modelcontextprotocol/sdk`, which speaks the legacy era only
// ERA     modern (2026-07-28, pinned), auto (negotiated), legacy (initialize)
// FOLDER  in whose node_modules the packages are

import { elicit, form, library, told, work, Player } from './stage.mjs';

const MODES = { modern: { pin: '2026-07-28' }, auto: 'auto', legacy: 'legacy' };
const INFO = { name: 'story', version: '1' };
const CAPABILITIES = { elicitation: {} };

// What an agent says when it is asked.
const answered = async (request) => ({ action: 'accept', content: form(request.params.requestedSchema) });

// A queue of changes: those that came, then those that come.
class Changes {
  came = 0;
  wanted = [];

  // What came before somebody asked is old.
  forget() {
    this.came = 0;
  }

  add() {
    const wanted = this.wanted.shift();
    if (wanted) wanted();
    else this.came += 1;
  }

  next() {
    if (this.came === 0) return new Promise((resolve) => this.wanted.push(resolve));
    this.came -= 1;
    return Promise.resolve();
  }
}

async function viaClient(folder, era, url, requestInit) {
  const { Client, StreamableHTTPClientTransport } = await library(folder, '@modelcontextprotocol/client');
  const client = new Client(INFO, { capabilities: CAPABILITIES, versionNegotiation: { mode: MODES[era] } });
  const changes = new Changes();
  client.setRequestHandler('elicitation/create', answered);
  client.setNotificationHandler('notifications/resources/updated', () => changes.add());
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
  const isModern = era !== 'legacy';
  return new Player(client, isModern, async (uri) => {
    changes.forget();
    if (!isModern) {
      await client.subscribeResource({ uri });
      return { changed: () => changes.next(), end: () => client.unsubscribeResource({ uri }) };
    }
    const subscription = await client.listen({ resourceSubscriptions: [uri] });
    return { changed: () => changes.next(), end: () => subscription.close() };
  });
}

async function viaSdk(folder, url, requestInit) {
  const { Client } = await library(folder, '@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await library(folder, '@modelcontextprotocol/sdk/client/streamableHttp.js');
  const types = await library(folder, '@modelcontextprotocol/sdk/types.js');
  const client = new Client(INFO, { capabilities: CAPABILITIES });
  const changes = new Changes();
  client.setRequestHandler(types.ElicitRequestSchema, answered);
  client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, () => changes.add());
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
  const player = new Player(client, false, async (uri) => {
    changes.forget();
    await client.subscribeResource({ uri });
    return { changed: () => changes.next(), end: () => client.unsubscribeResource({ uri }) };
  });
  player.callTool = (params, options) => client.callTool(params, undefined, options);
  return player;
}

const [story, which, era, url, token, folder] = process.argv.slice(2);
const stories = { elicit, work: (player) => work(player, `echo-${which}-${era}`) };
if (!folder || !(story in stories) || !(era in MODES) || !['client', 'sdk'].includes(which)) {
  console.error('usage: story.mjs work|elicit client|sdk modern|auto|legacy URL TOKEN FOLDER');
  process.exit(2);
}
await told(`story.mjs ${story} ${which} ${era}`, async () => {
  const requestInit = { headers: { Authorization: `Bearer ${token}` } };
  const player = await (which === 'sdk' ? viaSdk(folder, url, requestInit) : viaClient(folder, era, url, requestInit));
  try {
    return await stories[story](player);
  } finally {
    await player.client.close();
  }
});
