import { canonicalJson, isPlain } from './canonical.ts';
import { digest, digestBytes } from './digest.ts';
import { refuseOption } from './errors.ts';
import type { Message } from './message.ts';
import type { Fingerprint } from './store.ts';

/**
 * What of a payload has to be equal for two messages with the same key to be the same message.
 *
 * - left out: the whole payload, in canonical JSON, so that the order of members does not matter.
 * - `{ omit }`: the same without some members, as paths: `['sentAt', 'trace.id']`. A path leads through every item of an array:
 *   `items.readAt`. For fields that differ in each retry of a producer.
 * - a function: what it returns is compared instead.
 * - `false`: nothing is compared. Two different messages with one key then pass for duplicates, and the second is lost.
 */
export type FingerprintOption =
  | { readonly omit: readonly string[] }
  | ((payload: unknown, message: Message) => unknown)
  | false
  | undefined;

const characters = 22;

/** Makes the function that fingerprints payloads. Numbers beyond 2^53 are compared as JavaScript reads them, with 53 bits. */
export function fingerprinter(option: FingerprintOption): (payload: unknown, message: Message) => Fingerprint {
  if (option === false) return () => '';
  if (option === undefined) return (payload) => fingerprintOf(payload);
  if (typeof option === 'function') return (payload, message) => fingerprintOf(option(payload, message));
  const omit: readonly unknown[] | undefined = option?.omit;
  if (!Array.isArray(omit)) return refuseOption('fingerprint', '`{ omit: [paths] }`, a function or false', option);
  const paths = omit.map((path) =>
    typeof path === 'string' && path !== '' ? path.split('.') : refuseOption('fingerprint.omit', 'member paths', path),
  );
  return (payload) => fingerprintOf(paths.reduce(without, payload));
}

/** Digest of any payload: text and bytes as they are, everything else by its canonical JSON. @throws ReceiverError `not-canonical` */
export function fingerprintOf(payload: unknown): Fingerprint {
  if (payload instanceof Uint8Array) return digestBytes(payload, characters);
  if (payload === undefined) return digest(['undefined'], characters);
  return digest(['json', canonicalJson(payload)], characters);
}

function without(value: unknown, path: readonly string[]): unknown {
  const [first, ...rest] = path;
  if (first === undefined || typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => without(item, path));
  if ('toJSON' in value && typeof value.toJSON === 'function') return without(value.toJSON(), path);
  // What is no JSON data stays as it is, to be refused rather than compared by some of its members.
  if (!isPlain(value) || !Object.hasOwn(value, first)) return value;
  const { [first]: member, ...others } = value as Record<string, unknown>;
  return rest.length ? { ...others, [first]: without(member, rest) } : others;
}
