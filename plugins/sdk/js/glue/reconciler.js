import { connected, required } from './component.js';

export function component(plugin) {
  const { setup, config, call } = connected(plugin);
  const reconcile = required(plugin, 'reconcile');
  const reconciling = {
    reconcile: (mediaType, base, ours, theirs) => call(() => reconcile({ mediaType, base, ours, theirs }, config())),
  };
  return { setup, reconciling };
}
