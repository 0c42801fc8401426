// A merger: files whose lines are a sorted set, such as lists of words.
//
// The host asks where both sides of a merge changed the same place. What either side added is in the result, what either side
// removed is not. The host checks each answer: a line that a side added and the result lacks must be named as discarded.
import { conflict, resolved } from '../vendor/pointsman/merger.js';
import { lines, text } from '../vendor/pointsman/text.js';

export const describe = { scope: 'hunks', paths: ['*.words', 'CODEOWNERS'] };

export function mergeHunk(_place, hunk) {
  const [base, ours, theirs] = [hunk.base, hunk.ours, hunk.theirs].map((side) => lines(text(side)));
  const isSet = (all) => all.every((line, at) => at === 0 || all[at - 1] < line);
  if (![base, ours, theirs].every(isSet)) return conflict('the lines of a side are not sorted, or one stands twice');
  const kept = (line) => !base.includes(line) || (ours.includes(line) && theirs.includes(line));
  const merged = [...new Set([...ours, ...theirs])].filter(kept).sort();
  return resolved(merged.map((line) => `${line}\n`).join(''));
}
