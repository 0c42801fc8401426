// A workflow: branches carry the kind of their task, and what is urgent lands first.
//
// What is not exported here has the plain answer of vendor/pointsman/workflow.js. The host checks each name against git's rules
// and keeps dependencies whatever the order says.
import { branchName as plainBranch } from '../vendor/pointsman/workflow.js';

export function branchName(task, attempt, { prefixes = { fix: 'fix', feature: 'feat' } }) {
  return `${prefixes[task.kind] ?? 'task'}/${plainBranch(task, attempt)}`;
}

export function mergeOrder(queue) {
  const order = queue.map((one, position) => ({ ...one, position }));
  order.sort((a, b) => b.priority - a.priority || b.waitedMs - a.waitedMs);
  return order.map((one) => one.position);
}
