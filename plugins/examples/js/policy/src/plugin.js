// A policy: a large change needs more approvals than a small one.
//
// The host asks at each gate, with everything that may be judged by. What is refused names a rule and what would help: both are
// told to the agent.
import { allow, need } from '../vendor/pointsman/policy.js';

export function check(gate, facts, { lines_max: linesMax = 400, approvals = 2 }) {
  if (gate !== 'land') return allow();
  const needed = facts.linesChanged > linesMax ? approvals : 1;
  const given = facts.approvals.filter((one) => one.approves && one.by.agent !== facts.owner).length;
  if (given >= needed) return allow();
  return need('approvals', needed, `${facts.linesChanged} lines are changed, which asks for ${needed} approvals; there are ${given}`);
}
