import { ReceiverError } from '../../../src/errors.ts';
import type { Key } from '../../../src/store.ts';
import { keyBytes, view } from './record.ts';

/**
 * Why there is a table `recent` beside `records`. A key is random, so each new row of `records` dirties another page: 500 messages of a
 * unit would write 500 pages, many times what their effects write. So a unit appends the keys that it has completed, without
 * results, as one row to `recent`, and every process knows the keys of `recent` by heart: it reads what others have appended at the start of
 * each transaction, under the write lock, so that it misses nothing. When there are many, one range of keys at a time is moved to
 * `records`, where its keys then share pages.
 *
 * Invariant: the entry of batch `id` in range `r` counts only while `id > merged[r]`; before that, it is in `records`. Where both an entry
 * and a row of `records` stand for a key, the greater fence counts, whatever the clock says.
 */
export interface Batch {
  /** A fence of its own, so ids only grow. */
  readonly id: number;
  readonly writtenAt: number;
  readonly expiresAt: number;
  /** 48 bytes each: key (24), fingerprint (16, zeros for none), fence (8). */
  readonly entries: Buffer;
}

export const entryBytes = 48;
export const ranges = 16;

/** Which 16th of all keys a key belongs to: its first four bits. */
export function rangeOf(key: Key): number {
  return rangeByCode[key.charCodeAt(0)] ?? 0;
}

const rangeByCode: number[] = [];
for (const [value, character] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].entries()) {
  rangeByCode[character.charCodeAt(0)] = value >> 2;
}

/** The keys of `recent`, in memory. About 150 bytes a key. */
export interface RecentIndex {
  /** How far each range has been moved to `records`. */
  readonly merged: readonly number[];
  readonly batches: ReadonlyMap<number, Batch>;
  size(): number;
  /** The batch that holds a key, expired or not. */
  find(key: Key): Batch | undefined;
  range(range: number): ReadonlyMap<Key, Batch>;
  add(batch: Batch, keys?: readonly Key[]): void;
  /** Takes over how far others have merged. */
  merge(merged: readonly number[]): void;
  drop(id: number): void;
}

export function recentIndex(): RecentIndex {
  let merged: readonly number[] = Array.from({ length: ranges }, () => 0);
  const maps = Array.from({ length: ranges }, () => new Map<Key, Batch>());
  const batches = new Map<number, Batch>();

  return {
    get merged() {
      return merged;
    },
    batches,
    size: () => maps.reduce((sum, map) => sum + map.size, 0),
    find: (key) => maps[rangeOf(key)]!.get(key),
    range: (range) => maps[range]!,

    add(batch, keys = keysOf(batch)) {
      batches.set(batch.id, batch);
      for (const key of keys) {
        const range = rangeOf(key);
        if (batch.id > merged[range]!) maps[range]!.set(key, batch);
      }
    },

    merge(next) {
      for (const [range, map] of maps.entries()) {
        if (next[range] === merged[range]) continue;
        for (const [key, batch] of map) if (batch.id <= next[range]!) map.delete(key);
      }
      merged = next;
      const all = Math.min(...merged);
      for (const id of batches.keys()) if (id <= all) batches.delete(id);
    },

    drop(id) {
      for (const key of keysOf(batches.get(id)!)) if (maps[rangeOf(key)]!.get(key)?.id === id) maps[rangeOf(key)]!.delete(key);
      batches.delete(id);
    },
  };
}

/** A row of `recent` as a batch. @throws ReceiverError `store`: nobody can tell which keys a broken one held, so nothing is answered */
export function readBatch(row: { id: number; written_at: number; expires_at: number; entries: Uint8Array }): Batch {
  if (row.entries.length % entryBytes !== 0 || !(row.expires_at >= row.written_at)) {
    throw new ReceiverError(
      'store',
      `Expected batch ${row.id} of the recent keys to be entries of ${entryBytes} bytes, got ${row.entries.length} bytes: the file is corrupt`,
    );
  }
  return { id: row.id, writtenAt: row.written_at, expiresAt: row.expires_at, entries: view(row.entries) };
}

function keysOf(batch: Batch): Key[] {
  return entriesOf(batch).map(({ key }) => key);
}

export function entriesOf({ entries }: Batch): { key: Key; bytes: Buffer }[] {
  const list: { key: Key; bytes: Buffer }[] = [];
  for (let at = 0; at < entries.length; at += entryBytes) {
    list.push({ key: entries.toString('base64url', at, at + keyBytes), bytes: entries.subarray(at, at + entryBytes) });
  }
  return list;
}

/** The entry of a key in its batch. */
export function entryOf({ entries }: Pick<Batch, 'entries'>, key: Buffer): { fingerprint: Uint8Array; fence: number } | undefined {
  let at = entries.indexOf(key);
  while (at >= 0 && at % entryBytes !== 0) at = entries.indexOf(key, at + 1);
  return at < 0 ? undefined : readEntry({ entries }, at);
}

export function readEntry({ entries }: Pick<Batch, 'entries'>, at: number): { fingerprint: Uint8Array; fence: number } {
  const fingerprint = entries.subarray(at + keyBytes, at + 40);
  return {
    fingerprint: fingerprint.equals(noFingerprint) ? fingerprint.subarray(0, 0) : fingerprint,
    fence: entries.readUIntBE(at + 42, 6),
  };
}

const noFingerprint = Buffer.alloc(16);

/** The entries of keys that are completed, in one buffer: decoded in one go, which is ten times cheaper than one by one. */
export function writeEntries(
  list: readonly { readonly ask: { readonly key: Key; readonly fingerprint: string }; readonly fence: number }[],
): Buffer {
  let text = '';
  let fits = true;
  for (const { ask } of list) {
    const fingerprint = ask.fingerprint === '' ? blank : ask.fingerprint;
    fits &&= fingerprint.length === blank.length;
    text += `${ask.key}${fingerprint}AAAAAAAAAA`;
  }
  // Not from the pool that small buffers share: it would be kept in memory whole, for as long as the batch is.
  const entries = Buffer.allocUnsafeSlow(list.length * entryBytes);
  if (!fits || entries.write(text, 'base64url') !== entries.length)
    throw new ReceiverError('invalid-key', 'Expected every fingerprint to be empty or 22 characters of base64url');
  let at = 42;
  for (const { fence } of list) {
    entries[at - 2] = 0;
    entries.writeUIntBE(fence, at, 6);
    at += entryBytes;
  }
  return entries;
}

const blank = 'A'.repeat(22);
