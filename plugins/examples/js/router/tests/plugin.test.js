import assert from 'node:assert/strict';
import test from 'node:test';

import { configure, route } from '../src/plugin.js';

const candidate = (position, agent, facts = {}) => ({ position, agent, satisfies: true, refused: false, load: 0, openReviews: 0, ...facts });

test('the least busy comes first, the author never', () => {
  const candidates = [candidate(0, 'ana'), candidate(1, 'bob', { load: 3 }), candidate(2, 'cleo', { openReviews: 1 })];
  const { decision } = route({ kind: 'question', author: 'ana' }, candidates, configure({}));
  assert.deepEqual(decision, { tag: 'ranked', val: Uint32Array.of(2, 1) });
});

test('a configuration that does not fit is refused', () => {
  assert.throws(() => configure({ broadcast_kinds: 'notice' }), /is a list of kinds/);
});
