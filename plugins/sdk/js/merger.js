// The answers of a merger. Export from src/plugin.js what it is for,
//     export const describe = { scope: 'hunks', paths: ['CHANGELOG*'] };   // or (config) => ({ … })
// and the function that the scope names: `mergeHunk(place, hunk, config)` or `mergeFile(file, config)`. Sides are bytes:
// hunk.base, hunk.ours, hunk.theirs; file.base (undefined where both added it), file.ours, file.theirs, file.soFar. place.path
// and file.place.path say where.
import { bytes } from './text.js';

/** Merged. `discards` names what was left out on purpose: [{ side: 'ours' or 'theirs', text, reason }]. */
export const resolved = (merged, discards = []) => ({
  tag: 'resolved',
  val: { bytes: bytes(merged), discards: discards.map((one) => ({ ...one, text: bytes(one.text) })) },
});

/** Of a hunk: left in conflict. */
export const conflict = (reason) => ({ tag: 'conflict', val: reason });

/** Of a file: in conflict at these places, [{ baseLine, baseLines, reason }]. */
export const conflicts = (places) => ({ tag: 'conflicts', val: places });

/** Not mine: ask the next merger. */
export const declined = (reason = '') => ({ tag: 'declined', val: reason });
