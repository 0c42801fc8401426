import { connected, required } from './component.js';

const declined = () => ({ tag: 'declined', val: 'this merger works on something else' });

export function component(plugin) {
  const { setup, config, call } = connected(plugin);
  const mergeHunk = required(plugin, 'mergeHunk', declined);
  const mergeFile = required(plugin, 'mergeFile', declined);
  const merging = {
    describe: () =>
      call(() => {
        const described = typeof plugin.describe === 'function' ? plugin.describe(config()) : plugin.describe;
        return { scope: described.scope, paths: described.paths ?? [] };
      }),
    mergeHunks: (place, hunks) => call(() => hunks.map((hunk) => mergeHunk(place, hunk, config()))),
    mergeFile: (place, base, ours, theirs, soFar) => call(() => mergeFile({ place, base, ours, theirs, soFar }, config())),
  };
  return { setup, merging };
}
