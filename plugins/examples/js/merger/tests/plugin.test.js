import assert from 'node:assert/strict';
import test from 'node:test';

import { mergeHunk } from '../src/plugin.js';
import { bytes, text } from '../vendor/pointsman/text.js';

test('what both sides added stands in order', () => {
  const { tag, val } = mergeHunk({}, { base: bytes('b\nd\n'), ours: bytes('a\nb\nd\n'), theirs: bytes('b\nc\nd\n') });
  assert.deepEqual([tag, text(val.bytes)], ['resolved', 'a\nb\nc\nd\n']);
});
