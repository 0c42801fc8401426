// What every world shares: the configuration, and what is told of an error.
import { report } from 'pointsman:types/panics@0.1.0';

/** Returns the export of `setup`, the configuration as it was prepared, and how the plugin's functions are called. */
export function connected(plugin) {
  let config = {};
  const setup = {
    configure(json) {
      try {
        const given = json.trim() === '' ? {} : JSON.parse(json);
        config = plugin.configure ? (plugin.configure(given) ?? given) : given;
      } catch (error) {
        const said = String(error?.message ?? error);
        throw Object.assign(new Error(said), { payload: said });
      }
    },
  };
  return { setup, config: () => config, call };
}

/** Calls a function; what it throws is told to the host before the component ends itself. */
function call(f) {
  try {
    return f();
  } catch (error) {
    report(`${error?.name ?? 'thrown'}: ${error?.message ?? error}`, place(error));
    throw error;
  }
}

/** Returns the first place of the stack that is not the SDK's own. */
function place(error) {
  const places = String(error?.stack ?? '').split('\n').map((line) => line.replace(/^.*@/, ''));
  return places.find((one) => one.includes('src/')) ?? places[0] ?? '';
}

/** Returns a function that the plugin exports, or says that it does not. */
export function required(plugin, name, otherwise = undefined) {
  const found = plugin[name] ?? otherwise;
  if (typeof found !== 'function') throw new Error(`src/plugin.js does not export a function \`${name}\``);
  return found;
}
