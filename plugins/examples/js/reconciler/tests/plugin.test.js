import assert from 'node:assert/strict';
import test from 'node:test';

import { reconcile } from '../src/plugin.js';
import { bytes, text } from '../vendor/pointsman/text.js';

test('additions of both stand and removals hold', () => {
  const edits = { mediaType: 'text/x-list', base: bytes('a\nb\n'), ours: bytes('b\nc\n'), theirs: bytes('a\nb\nd\n') };
  const { tag, val } = reconcile(edits, {});
  assert.deepEqual([tag, text(val)], ['merged', 'b\nc\nd\n']);
});
