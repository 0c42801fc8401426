import * as plain from '../../vendor/pointsman/workflow.js';
import { connected, required } from './component.js';

export function component(plugin) {
  const { setup, config, call } = connected(plugin);
  const own = (name) => required(plugin, name, plain[name]);
  const flow = {
    branchName: (task, attempt) => call(() => own('branchName')(task, attempt, config())),
    commitMessage: (facts) => call(() => own('commitMessage')(facts, config())),
    mergeMessage: (facts) => call(() => own('mergeMessage')(facts, config())),
    writePullRequest: (facts) => call(() => own('pullRequest')(facts, config())),
    mergeOrder: (queue) =>
      call(() => Uint32Array.from(own('mergeOrder')(queue.map((one) => ({ ...one, waitedMs: Number(one.waitedMs) })), config()))),
  };
  return { setup, flow };
}
