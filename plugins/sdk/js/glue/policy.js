import { connected, required } from './component.js';

export function component(plugin) {
  const { setup, config, call } = connected(plugin);
  const check = required(plugin, 'check');
  const gates = { check: (gate, facts) => call(() => check(gate, facts, config())) };
  return { setup, gates };
}
