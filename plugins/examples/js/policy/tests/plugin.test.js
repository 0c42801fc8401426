import assert from 'node:assert/strict';
import test from 'node:test';

import { check } from '../src/plugin.js';

test('large changes need more approvals', () => {
  const facts = (linesChanged, ...by) => ({ owner: 'ana', linesChanged, approvals: by.map((agent) => ({ by: { agent }, approves: true })) });
  assert.deepEqual(check('land', facts(10, 'bob'), {}), { tag: 'allow' });
  assert.equal(check('land', facts(401, 'bob', 'ana'), {}).val.approvals, 2);
  assert.deepEqual(check('claim', facts(0), {}), { tag: 'allow' });
});
