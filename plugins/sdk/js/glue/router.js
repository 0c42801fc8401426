import { symbolName } from 'pointsman:types/symbols@0.1.0';
import { connected, required } from './component.js';

// Texts by their numbers: a number means the same for as long as the instance lives.
const NAMES_MAX = 4096;
const names = new Map();
function name(symbol) {
  let text = names.get(symbol);
  if (text === undefined) {
    text = symbolName(symbol);
    if (names.size >= NAMES_MAX) names.clear();
    names.set(symbol, text);
  }
  return text;
}
const texts = (symbols) => Array.from(symbols, name);

/** The message, with names as texts. */
class Message {
  #raw;
  constructor(raw) { this.#raw = raw; }
  get kind() { return name(this.#raw.kind); }
  get author() { return name(this.#raw.author); }
  get provenance() { return this.#raw.provenance; }
  get owner() { return name(this.#raw.owner); }
  get priority() { return this.#raw.priority; }
  get sizeBytes() { return this.#raw.sizeBytes; }
  get attempt() { return this.#raw.attempt; }
  get ageMs() { return Number(this.#raw.ageMs); }
  get paths() { return texts(this.#raw.paths); }
  get tags() { return texts(this.#raw.tags); }
  get capabilities() { return texts(this.#raw.capabilities); }
}

/** One who could get it. */
class Candidate {
  #raw;
  constructor(raw, position) { this.#raw = raw; this.position = position; }
  get agent() { return name(this.#raw.agent[this.position]); }
  get owner() { return name(this.#raw.owner[this.position]); }
  get satisfies() { return this.#raw.satisfies[this.position] !== 0; }
  get load() { return this.#raw.load[this.position]; }
  get openReviews() { return this.#raw.openReviews[this.position]; }
  get idleMs() { return Number(this.#raw.idleMs[this.position]); }
  get acked() { return this.#raw.acked[this.position]; }
  get nacked() { return this.#raw.nacked[this.position]; }
  get refused() { return this.#raw.refused[this.position] !== 0; }
  get teams() { return texts(part(this.#raw.teams, this.#raw.teamStart, this.position)); }
  get capabilities() { return texts(part(this.#raw.capabilities, this.#raw.capabilityStart, this.position)); }
}

const part = (all, starts, position) => all.slice(starts[position], starts[position + 1]);

export function component(plugin) {
  const { setup, config, call } = connected(plugin);
  const route = required(plugin, 'route');
  const routing = {
    route: (message, candidates) =>
      call(() => {
        const among = Array.from(candidates.agent, (_, position) => new Candidate(candidates, position));
        return route(new Message(message), among, config());
      }),
  };
  return { setup, routing };
}
