import assert from 'node:assert/strict';
import test from 'node:test';

import { branchName, mergeOrder } from '../src/plugin.js';

test('branches carry the kind', () => {
  assert.equal(branchName({ id: 'T-12', title: 'Sort the inbox', kind: 'fix' }, 0, {}), 'fix/t-12-sort-the-inbox');
});

test('the urgent land first', () => {
  assert.deepEqual(mergeOrder([{ priority: 4, waitedMs: 1 }, { priority: 9, waitedMs: 1 }, { priority: 4, waitedMs: 2 }]), [1, 2, 0]);
});
