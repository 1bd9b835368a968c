import { expectNumber, ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { Fingerprint, Key } from '../../../src/store.ts';

/** How completed records without results are remembered in few bytes. See the README. */
export interface CompactOptions {
  /** The receiver's `retentionMs`. Records with another retention, or with a result, are kept whole. From 1,000 to 10 years. */
  readonly retentionMs: number;
  /**
   * How many ids are remembered at a time, about. Far fewer cost more bytes each; so do more than three times as many. The answers
   * are right in any case. Default: 1,000,000.
   */
  readonly expectedIds?: number;
  /** How long a completed record stays whole, so that its settle can be sent again, in milliseconds. Default: 60,000. */
  readonly resendMs?: number;
}

/** Where in Redis everything is. The same for all processes that share the records. */
export interface Layout {
  /** Put before each key of a shard: its hash tag, and a colon. */
  readonly shards: readonly string[];
  readonly compact: CompactLayout | undefined;
  /** Key and text of what is written down of the layout, so that nobody uses another one on the same records. */
  readonly layoutKey: string;
  readonly text: string;
}

export interface CompactLayout {
  readonly retainMs: number;
  readonly resendMs: number;
  /** A shard has 2 to the power of this many buckets. */
  readonly bucketBits: number;
  /** The letters that name a bucket within its shard. */
  readonly bucketLetters: number;
}

/** About, if as many ids are remembered as expected. Few enough to be scanned quickly, and to stay a list; enough to share the price of a key. */
const entriesPerBucket = 32;

const day = 86_400_000;

export function layoutOf(prefix: string, shards: number, compact: CompactOptions | undefined): Layout {
  if (typeof prefix !== 'string' || !/^[\w.:-]{1,64}$/.test(prefix)) {
    refuseOption('prefix', '1 to 64 letters, digits, `_`, `.`, `:` or `-`', prefix);
  }
  expectNumber('shards', shards, { atLeast: 1, atMost: 256, integer: true });
  if (Math.log2(shards) % 1 !== 0) refuseOption('shards', 'a power of 2', shards);
  const small = compact && compactLayout(compact, shards);
  return {
    shards: shards === 1 ? [`{${prefix}}:`] : Array.from({ length: shards }, (_, i) => `{${spreadTag(prefix, i, shards)}}:`),
    compact: small,
    layoutKey: `{${prefix}}:layout`,
    text: `1 shards=${shards}${small ? ` compact=${small.retainMs}/${small.bucketBits}` : ''}`,
  };
}

function compactLayout(compact: CompactOptions, shards: number): CompactLayout {
  const retainMs = expectNumber('compact.retentionMs', compact.retentionMs, { atLeast: 1_000, atMost: 3_650 * day, integer: true });
  const expected = expectNumber('compact.expectedIds', compact.expectedIds ?? 1_000_000, { atLeast: 1, atMost: 1e10, integer: true });
  const resendMs = expectNumber('compact.resendMs', compact.resendMs ?? 60_000, { atLeast: 1, atMost: day, integer: true });
  const bucketBits = Math.max(0, Math.round(Math.log2(expected / shards / entriesPerBucket)));
  return { retainMs, resendMs: Math.min(resendMs, retainMs), bucketBits, bucketLetters: Math.ceil(bucketBits / 6) };
}

/** A tag whose slot is in the i-th of equal parts of all slots: nodes own neighbouring slots, so that each gets its share of the shards. */
function spreadTag(prefix: string, i: number, shards: number): string {
  for (let n = 0; ; n++) {
    const tag = `${prefix}/${i}/${n.toString(36)}`;
    if (Math.floor((slotOf(tag) * shards) / 16_384) === i) return tag;
  }
}

/** Redis Cluster's slot of a hash tag: CRC-16/XMODEM of its bytes. */
export function slotOf(tag: string): number {
  let crc = 0;
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  }
  return (crc & 0xffff) % 16_384;
}

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const digitOf = new Uint8Array(128);
for (let digit = 0; digit < 64; digit++) digitOf[letters.charCodeAt(digit)] = digit;

/** The shard of a key: its first 12 bits. */
export function shardOf(key: Key, shards: number): number {
  return shards === 1 ? 0 : (digitOf[key.charCodeAt(0)]! * 64 + digitOf[key.charCodeAt(1)]!) % shards;
}

/** Gives the name of a key's bucket, from the bits that follow. The last letter stands for what is left of 6. */
export function bucketNamer({ bucketBits }: CompactLayout): (key: Key, shard: string) => string {
  const whole = Math.floor(bucketBits / 6);
  const rest = bucketBits % 6;
  const last = [...letters].map((_, digit) => (rest === 0 ? '' : letters[digit >> (6 - rest)]!));
  return (key, shard) => `${shard}~${key.slice(2, 2 + whole)}${last[digitOf[key.charCodeAt(2 + whole)]!]}`;
}

/** The second half of each key, 12 bytes: the name of its entry in its bucket. */
export function fieldsOf(items: readonly { readonly key: Key }[]): Buffer {
  let text = '';
  for (const { key } of items) text += key.slice(16);
  return Buffer.from(text, 'base64url');
}

const keyForm = /^[\w-]{32}$/;
const fingerprintForm = /^[\w-]{22}$/;

/** A key becomes part of a name in Redis, so it must be what it is meant to be. */
export function expectKey(key: Key): Key {
  if (keyForm.test(key)) return key;
  throw new ReceiverError('invalid-key', `Expected a key of 32 characters of base64url, got ${JSON.stringify(key)}`);
}

export function expectFingerprint(fingerprint: Fingerprint): Fingerprint {
  if (fingerprint === '' || fingerprintForm.test(fingerprint)) return fingerprint;
  throw new ReceiverError(
    'invalid-key',
    `Expected a fingerprint of 22 characters of base64url or none, got ${JSON.stringify(fingerprint)}`,
  );
}

/** The length of a token is one byte of its record. */
export function expectToken(token: string): void {
  if (!(token.length >= 1 && token.length <= 255)) {
    throw new ReceiverError('store', `Expected a token of 1 to 255 characters, got ${token.length}`);
  }
}
