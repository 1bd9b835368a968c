import { digest } from '../digest.ts';
import type { Key } from '../store.ts';

/**
 * A UUID made of a message's key and a name: the same on every attempt. Version 8 of RFC 9562, 122 bits of SHA-256. Whoever knows the
 * key and the name can make it: it is no secret.
 */
export function uuidOf(key: Key, name: string): string {
  const bytes = Buffer.from(digest(['uuid', key, name], 22), 'base64url');
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join('-');
}

/** A number in [0, 1) made of a message's key and a name, with 53 bits: the same on every attempt. */
export function randomOf(key: Key, name: string): number {
  const bits = BigInt(`0x${Buffer.from(digest(['random', key, name], 11), 'base64url').toString('hex')}`);
  return Number(bits >> 11n) / 2 ** 53;
}
