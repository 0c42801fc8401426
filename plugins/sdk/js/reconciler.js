// The answers of a reconciler. Export `reconcile(edits, config)` from src/plugin.js: edits.mediaType, and as bytes edits.base,
// edits.ours, edits.theirs.
import { bytes } from './text.js';

/** Both edits in one document. */
export const merged = (document) => ({ tag: 'merged', val: bytes(document) });

/** Nothing is written: [{ pointer, reason, base, ours, theirs }], the last three bytes, texts or left out. */
export const conflicts = (places) => ({
  tag: 'conflicts',
  val: places.map(({ pointer, reason, base, ours, theirs }) => ({
    pointer,
    reason,
    base: bytes(base),
    ours: bytes(ours),
    theirs: bytes(theirs),
  })),
});

/** Not mine: ask the next reconciler. */
export const declined = (reason) => ({ tag: 'declined', val: reason });
