// A router: of the agents that are able, whoever has the least to do comes first.
//
// The host asks once for each message. The same question must have the same answer: there is no clock and no chance here.
import { broadcast, ranked } from '../vendor/pointsman/router.js';

/** Checks what the operator set under `[plugins.NAME.config]`; what it throws is shown to the operator. */
export function configure({ broadcast_kinds = [] }) {
  if (!Array.isArray(broadcast_kinds)) throw new Error('`broadcast_kinds` is a list of kinds');
  return { broadcastKinds: new Set(broadcast_kinds) };
}

export function route(message, candidates, { broadcastKinds }) {
  const able = candidates.filter((one) => one.satisfies && !one.refused && one.agent !== message.author);
  if (broadcastKinds.has(message.kind)) return broadcast(able, 'a kind for everyone');
  const cost = (one) => one.load + 2 * one.openReviews;
  // The reason is what `pointsman why` shows; nobody ranked means "no opinion".
  return ranked(able.sort((a, b) => cost(a) - cost(b)).slice(0, 8), 'the least busy first');
}
