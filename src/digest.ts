import { createHash, hash } from 'node:crypto';

/**
 * SHA-256 of a sequence of texts, each with its length before it, so that `['a', 'bc']` and `['ab', 'c']` differ. `characters` of
 * base64url are kept, 6 bits each.
 */
export function digest(parts: readonly string[], characters: number): string {
  let text = '';
  for (const part of parts) text += `${part.length}:${part};`;
  return hash('sha256', text, 'base64url').slice(0, characters);
}

/** SHA-256 of bytes, cut in the same way. No bytes have the digest of a sequence of texts, which begins with a length. */
export function digestBytes(bytes: Uint8Array, characters: number): string {
  return createHash('sha256').update('bytes;').update(bytes).digest('base64url').slice(0, characters);
}
