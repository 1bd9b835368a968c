import { expectNumber, ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { Fingerprint, Key } from '../../../src/store.ts';

/** How completed records without results are remembered in few bytes. See the README. */
export interface CompactOptions {
  /** The receiver's `retentionMs`. Records with another retention, or with a result, are kept whole. At least 1,000, at most 99 days. */
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
  /** A retention has so many windows of this length; a window's entries go together, one window after their retention at the latest. */
  readonly windows: number;
  readonly windowMs: number;
  /** Buckets of a window, in each shard. */
  readonly buckets: number;
}

/** Of each window a claim looks into one bucket, so few of them; the last one's entries outlive their retention by 1/8 of it, on average. */
const windows = 4;
/** Small enough to be scanned quickly, and to stay a list when there are three times as many; large enough to share the price of a key. */
const entriesPerBucket = 40;

const day = 86_400_000;

export function layoutOf(prefix: string, shards: number, compact: CompactOptions | undefined): Layout {
  if (typeof prefix !== 'string' || !/^[\w.:-]{1,64}$/.test(prefix)) {
    refuseOption('prefix', '1 to 64 letters, digits, `_`, `.`, `:` or `-`', prefix);
  }
  expectNumber('shards', shards, { atLeast: 1, atMost: 256, integer: true });
  if (Math.log2(shards) % 1 !== 0) refuseOption('shards', 'a power of 2', shards);
  const small = compact && compactLayout(compact, shards);
  const { windowMs, buckets } = small ?? {};
  return {
    shards: shards === 1 ? [`{${prefix}}:`] : Array.from({ length: shards }, (_, i) => `{${spreadTag(prefix, i, shards)}}:`),
    compact: small,
    layoutKey: `{${prefix}}:layout`,
    text: `1 shards=${shards}${small ? ` compact=${small.retainMs}/${windowMs}/${buckets}` : ''}`,
  };
}

function compactLayout(compact: CompactOptions, shards: number): CompactLayout {
  const retainMs = expectNumber('compact.retentionMs', compact.retentionMs, { atLeast: 1_000, atMost: 99 * day, integer: true });
  const expected = expectNumber('compact.expectedIds', compact.expectedIds ?? 1_000_000, { atLeast: 1, atMost: 1e10, integer: true });
  const resendMs = expectNumber('compact.resendMs', compact.resendMs ?? 60_000, { atLeast: 1, atMost: day, integer: true });
  return {
    retainMs,
    resendMs: Math.min(resendMs, retainMs),
    windows,
    windowMs: Math.ceil(retainMs / windows),
    buckets: Math.ceil(expected / windows / shards / entriesPerBucket),
  };
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

const digit = new Uint8Array(128);
[...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].forEach((letter, value) => {
  digit[letter.charCodeAt(0)] = value;
});

/** The shard of a key: its first 12 bits. */
export function shardOf(key: Key, shards: number): number {
  return shards === 1 ? 0 : (digit[key.charCodeAt(0)]! * 64 + digit[key.charCodeAt(1)]!) % shards;
}

/** A key becomes part of a name in Redis, so it must be what it is meant to be. */
export function expectKey(key: Key): Key {
  if (/^[\w-]{32}$/.test(key)) return key;
  throw new ReceiverError('invalid-key', `Expected a key of 32 characters of base64url, got ${JSON.stringify(key)}`);
}

export function expectFingerprint(fingerprint: Fingerprint): Fingerprint {
  if (fingerprint === '' || /^[\w-]{22}$/.test(fingerprint)) return fingerprint;
  throw new ReceiverError(
    'invalid-key',
    `Expected a fingerprint of 22 characters of base64url or none, got ${JSON.stringify(fingerprint)}`,
  );
}
