// Bytes and texts. A merger and a reconciler get bytes, as they lie in the repository or the document.

/** Returns bytes as a text. Throws where they are no UTF-8. */
export function text(bytes) {
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

/** Returns a text, or bytes, as bytes. */
export function bytes(of) {
  return typeof of === 'string' ? new TextEncoder().encode(of) : of;
}

/** Returns the lines of a text without their ends. */
export function lines(text) {
  const all = text.split(/\r?\n/);
  if (all[all.length - 1] === '') all.pop();
  return all;
}
