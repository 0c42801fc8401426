// The answers of a router. Export `route(message, candidates, config)` from src/plugin.js and return one of these.
//
// message: kind, author, provenance ('human', 'agent', 'plugin', 'host'), owner, priority, sizeBytes, attempt, ageMs, paths, tags,
// capabilities. A candidate: position, agent, owner, satisfies, load, openReviews, idleMs, acked, nacked, refused, teams,
// capabilities. Names are texts. Export `configure(config)` besides to check the configuration, or to return something prepared
// from it, which `route` then gets; what it throws is shown to the operator.

const verdict = (tag, val, reason) => ({ decision: val === undefined ? { tag } : { tag, val }, reason });
const positions = (candidates) => Uint32Array.from(candidates, (one) => one.position);

/** No opinion: the next router decides. */
export const pass = (reason = '') => verdict('pass', undefined, reason);

/** To the first of these candidates that takes it; who gives it back sends it to the next. */
export const ranked = (candidates, reason = '') =>
  candidates.length === 0 ? pass(reason) : verdict('ranked', positions(candidates), reason);

/** To every one of these candidates. */
export const broadcast = (candidates, reason = '') =>
  candidates.length === 0 ? pass(reason) : verdict('broadcast', positions(candidates), reason);

/** To nobody; told to the sender. */
export const drop = (reason) => verdict('drop', undefined, reason);

/** Ask again after so many milliseconds. */
export const defer = (delayMs, reason) => verdict('defer', delayMs, reason);
