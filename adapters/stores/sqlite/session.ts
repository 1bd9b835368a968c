import { ReceiverError } from '../../../src/errors.ts';
import type { Key } from '../../../src/store.ts';
import type { SqliteDatabase } from './database.ts';
import { type Batch, entryBytes, entryOf, type RecentIndex, ranges, readBatch, readEntry, recentIndex } from './recent.ts';
import { blank, type Corrupt, completed, keyBytes, type RawRow, type Row, readRow, view } from './record.ts';
import type { Tables } from './schema.ts';

/** All statements of the store, and what it keeps in memory of the file. Used under the connection's lock only. */
export interface Session {
  readonly recent: RecentIndex;
  /** Milliseconds since the Unix epoch, whole ones. */
  now(): number;
  /** Takes over what other processes have committed. The first thing in each transaction; undoes what a failed one left in memory. */
  load(): void;
  /** A number greater than all before it, in this file. */
  nextFence(): number;
  /** Writes the last fence, if it has changed. The last thing in each transaction that took one. */
  saveFence(): void;
  /** The record of a key, unless it has expired: an expired record is absent, purged or not. */
  find(key: Key, bytes: Buffer): Row | Corrupt | undefined;
  /** The same, but tells an expired row, which is to be replaced where it is. */
  look(key: Key, bytes: Buffer): Row | Corrupt | 'expired' | undefined;
  /** Whether `records` has a row for a key, expired or not. */
  hasRow(bytes: Uint8Array): boolean;
  put(bytes: Uint8Array, row: Row): void;
  remove(bytes: Uint8Array): boolean;
  appendRecent(batch: Batch): void;
  /** Takes over what this process itself has appended. After the commit only. */
  committedRecent(batch: Batch, keys: readonly Key[]): void;
  /** A batch as it is in the file now: others purge too. */
  recentInFile(id: number): Batch | undefined;
  trimRecent(id: number, entries: Uint8Array | undefined): void;
  /** Moves one range of recent keys to `records`, expired ones excepted. What it returns is to be called after the commit. */
  mergeRecent(range: number): () => void;
}

const columns =
  'key, fingerprint, state, token, fence, attempts, orphaned, lease_until, written_at, expires_at, result, reason, detail, label';

/** As they are read: node:sqlite of Node 22 cuts text at its first NUL, and bytes are whole everywhere. */
export const readColumns: string = columns.replace(/result|reason|detail|label/g, 'cast($& as blob) as $&');

export function openSession(db: SqliteDatabase, t: Tables, wall: () => number): Session {
  const readMeta = db.prepare(`select fence, merges, merged from ${t.meta} where id = 1`);
  const writeFence = db.prepare(`update ${t.meta} set fence = ? where id = 1`);
  const writeMerged = db.prepare(`update ${t.meta} set merges = ?, merged = ? where id = 1`);
  const readRecent = db.prepare(`select id, written_at, expires_at, entries from ${t.recent} where id > ? order by id`);
  const readOneRecent = db.prepare(`select id, written_at, expires_at, entries from ${t.recent} where id = ?`);
  const insertRecent = db.prepare(`insert into ${t.recent} (id, written_at, expires_at, entries) values (?, ?, ?, ?)`);
  const updateRecent = db.prepare(`update ${t.recent} set entries = ? where id = ?`);
  const deleteRecent = db.prepare(`delete from ${t.recent} where id = ?`);
  const deleteMerged = db.prepare(`delete from ${t.recent} where id <= ?`);
  const select = db.prepare(`select ${readColumns} from ${t.records} where key = ?`);
  const upsert = db.prepare(`insert or replace into ${t.records} (${columns}) values (${columns.replace(/\w+/g, '?')})`);
  const mergeOne = db.prepare(
    `insert into ${t.records} (key, fingerprint, state, token, fence, attempts, orphaned, lease_until, written_at, expires_at)
     values (?, ?, ${completed}, '', ?, 1, 0, 0, ?, ?)
     on conflict (key) do update set fingerprint = excluded.fingerprint, state = excluded.state, token = excluded.token,
     fence = excluded.fence, attempts = 1, orphaned = 0, lease_until = 0, written_at = excluded.written_at,
     expires_at = excluded.expires_at, result = null, reason = null, detail = null, label = null where excluded.fence > fence`,
  );
  const remove = db.prepare(`delete from ${t.records} where key = ?`);

  const recent = recentIndex();
  /** All batches up to this id, which is a fence, are in memory. */
  let seen = 0;
  let merges = 0;
  let fence = 0;
  let savedFence = 0;

  const now = (): number => Math.floor(wall());

  function put(bytes: Uint8Array, row: Row): void {
    upsert.run(
      bytes,
      row.fingerprint,
      row.state,
      row.token,
      row.fence,
      row.attempts,
      row.orphaned ? 1 : 0,
      row.leaseUntil,
      row.writtenAt,
      row.expiresAt,
      row.result,
      row.reason,
      row.detail,
      row.label,
    );
  }

  function look(key: Key, bytes: Buffer): Row | Corrupt | 'expired' | undefined {
    const batch = recent.find(key);
    const at = now();
    const raw = select.get(bytes) as RawRow | undefined;
    if (batch && batch.expiresAt > at) {
      const entry = entryOf(batch, bytes);
      if (!entry) return { corrupt: 'Expected the key in its batch of recent keys' };
      // A row that is younger was written when the batch had expired, and the clock has gone back since.
      if (!raw || entry.fence > raw.fence) return recentRow(batch, entry);
    }
    if (!raw) return undefined;
    const row = readRow(raw);
    return 'corrupt' in row || row.expiresAt > at ? row : 'expired';
  }

  return {
    recent,
    now,
    put,

    load() {
      const meta = readMeta.get() as { fence: number; merges: number; merged: string } | undefined;
      if (!meta || meta.fence < seen)
        throw new ReceiverError('store', 'Expected the last fence in the SQLite file not to go back: was the file replaced or emptied?');
      savedFence = meta.fence;
      // Fences that a rolled back unit has shown to its handlers are not used again.
      fence = Math.max(fence, savedFence);
      if (meta.merges !== merges) {
        recent.merge(readMerged(meta.merged));
        merges = meta.merges;
      }
      if (savedFence === seen) return;
      for (const row of readRecent.all(seen)) recent.add(readBatch(row as Parameters<typeof readBatch>[0]));
      seen = savedFence;
    },

    nextFence: () => ++fence,

    saveFence() {
      if (fence === savedFence) return;
      writeFence.run(fence);
      savedFence = fence;
    },

    look,

    find(key, bytes) {
      const row = look(key, bytes);
      return row === 'expired' ? undefined : row;
    },

    hasRow: (bytes) => select.get(bytes) !== undefined,

    remove: (bytes) => Number(remove.run(bytes).changes) > 0,

    appendRecent(batch) {
      insertRecent.run(batch.id, batch.writtenAt, batch.expiresAt, batch.entries);
    },

    committedRecent(batch, keys) {
      recent.add(batch, keys);
      seen = savedFence;
    },

    recentInFile(id) {
      const row = readOneRecent.get(id);
      return row === undefined ? undefined : readBatch(row as Parameters<typeof readBatch>[0]);
    },

    trimRecent(id, entries) {
      if (entries) updateRecent.run(entries, id);
      else deleteRecent.run(id);
    },

    mergeRecent(range) {
      const list: { order: number; bytes: Buffer; batch: Batch; at: number }[] = [];
      for (const batch of recent.batches.values()) {
        if (batch.id <= recent.merged[range]! || batch.expiresAt <= now()) continue;
        for (let at = 0; at < batch.entries.length; at += entryBytes) {
          if (batch.entries[at]! >> 4 === range) {
            list.push({ order: batch.entries.readUIntBE(at, 6), bytes: batch.entries.subarray(at, at + keyBytes), batch, at });
          }
        }
      }
      // In the order of the table, so that neighbours share a page.
      list.sort((a, b) => a.order - b.order);
      for (const { bytes, batch, at } of list) {
        const { fingerprint, fence } = readEntry(batch, at);
        mergeOne.run(bytes, fingerprint, fence, batch.writtenAt, batch.expiresAt);
      }
      const merged = recent.merged.map((until, each) => (each === range ? savedFence : until));
      writeMerged.run(merges + 1, JSON.stringify(merged));
      deleteMerged.run(Math.min(...merged));
      return () => {
        merges++;
        recent.merge(merged);
      };
    },
  };
}

/** An entry of a batch as the record that it stands for. */
function recentRow(batch: Batch, entry: { fingerprint: Uint8Array; fence: number }): Row {
  return {
    ...blank,
    state: completed,
    fingerprint: view(entry.fingerprint),
    fence: entry.fence,
    attempts: 1,
    writtenAt: batch.writtenAt,
    expiresAt: batch.expiresAt,
  };
}

function readMerged(text: string): number[] {
  const merged: unknown = JSON.parse(text);
  if (Array.isArray(merged) && merged.length === 0) return Array.from({ length: ranges }, () => 0);
  if (Array.isArray(merged) && merged.length === ranges && merged.every(Number.isSafeInteger)) return merged;
  throw new ReceiverError(
    'store',
    'Expected the merge state of the recent keys to be a list of numbers, got something else: the file is corrupt',
  );
}
