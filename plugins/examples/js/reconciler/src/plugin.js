// A reconciler: documents that are lists, one entry a line, in no order.
//
// The host asks when a document was written from a version that is no longer the newest. What either side added is in the
// result, what either side removed is not.
import { declined, merged } from '../vendor/pointsman/reconciler.js';
import { lines, text } from '../vendor/pointsman/text.js';

export function reconcile(edits, { media_type: mediaType = 'text/x-list' }) {
  if (edits.mediaType !== mediaType) return declined(`${edits.mediaType} is not ${mediaType}`);
  const [base, ours, theirs] = [edits.base, edits.ours, edits.theirs].map((side) => lines(text(side)).filter((line) => line !== ''));
  const kept = ours.filter((entry) => theirs.includes(entry) || !base.includes(entry));
  const added = theirs.filter((entry) => !ours.includes(entry) && !base.includes(entry));
  return merged([...kept, ...added].map((entry) => `${entry}\n`).join(''));
}
