import { ReceiverError } from '../../../src/errors.ts';
import type { DedupStore, Key, RecordView, StoreAdmin, StoreStats } from '../../../src/store.ts';
import type { Connection, Work } from './connection.ts';
import { type SqliteDatabase, statements } from './database.ts';
import { expiredKeys, type JournalUpkeep } from './journal.ts';
import { entriesOf, rangeOf } from './recent.ts';
import {
  type Corrupt,
  claimed,
  decodeKey,
  encodeKey,
  keyBytes,
  nameOf,
  parked,
  type RawRow,
  type Row,
  readRow,
  released,
  type State,
  touch,
} from './record.ts';
import { expiryBucketMs, type Tables } from './schema.ts';
import { readColumns, type Session } from './session.ts';

export function adminVerbs(
  db: SqliteDatabase,
  t: Tables,
  connection: Connection,
  session: Session,
  journal: JournalUpkeep,
): StoreAdmin & Pick<DedupStore, 'purge'> {
  const purgeRecords = db.prepare(`delete from ${t.records} where key in (${expiredKeys(t)})`);
  const firstParked = db.prepare(
    `select ${readColumns} from ${t.records} where state = 4 and expires_at > ? order by written_at, key limit ?`,
  );
  const nextParked = db.prepare(
    `select ${readColumns} from ${t.records} where state = 4 and expires_at > ? and (written_at, key) > (?, ?) order by written_at, key limit ?`,
  );
  const count = db.prepare(`select state, count(*) as records from ${t.records} where expires_at > ? group by state`);

  function purgeOld(now: number, limit: number): number {
    journal.purge(now, limit);
    return Number(purgeRecords.run(Math.floor(now / expiryBucketMs), now, now, limit).changes);
  }

  /** Deletes expired keys of the batches that are not in `records` yet. Answers how many, and what to forget after the commit. */
  function purgeRecent(limit: number): { purged: number; forget: () => void } {
    const now = session.now();
    const changes: (() => void)[] = [];
    let purged = 0;
    for (const { id, expiresAt } of session.recent.batches.values()) {
      if (expiresAt > now || purged >= limit) continue;
      // Another process may have purged it, or a part of it.
      const batch = session.recentInFile(id);
      const entries = batch ? entriesOf(batch).filter(({ key }) => session.recent.find(key)?.id === id) : [];
      let at = 0;
      // An entry whose key has a row has been replaced by it: it is no record any more.
      for (; at < entries.length && purged < limit; at++) if (!session.hasRow(entries[at]!.bytes.subarray(0, keyBytes))) purged++;
      const left =
        batch && at < entries.length ? { ...batch, entries: Buffer.concat(entries.slice(at).map(({ bytes }) => bytes)) } : undefined;
      session.trimRecent(id, left?.entries);
      changes.push(() => {
        session.recent.drop(id);
        if (left) session.recent.add(left);
      });
    }
    return { purged, forget: () => changes.forEach((change) => change()) };
  }

  const write = <R>(work: () => Work<R>): Promise<R> =>
    connection.write(() =>
      statements('records were written', () => {
        session.load();
        return work();
      }),
    );

  const read = <R>(work: (now: number) => R): Promise<R> =>
    connection.read(() =>
      statements('records were read', () => {
        session.load();
        return work(session.now());
      }),
    );

  return {
    purge: (limit) =>
      write(() => {
        const { purged, forget } = purgeRecent(limit);
        return { result: purged + (purged < limit ? purgeOld(session.now(), limit - purged) : 0), afterCommit: forget };
      }),

    inspect: (key) =>
      read((now) => {
        const row = session.find(key, decodeKey(key));
        return row && viewOf(key, readable(key, row), now);
      }),

    listParked: ({ limit, after }) =>
      read((now) => {
        const last = after === undefined ? undefined : session.find(after, decodeKey(after));
        const known = last && !('corrupt' in last) && last.state === parked;
        const rows = known ? nextParked.all(now, last.writtenAt, decodeKey(after!), limit) : firstParked.all(now, limit);
        return (rows as RawRow[]).map((raw) => viewOf(encodeKey(raw.key!), readable(encodeKey(raw.key!), readRow(raw)), now));
      }),

    replay: (key) =>
      write(() => {
        const bytes = decodeKey(key);
        const row = session.find(key, bytes);
        if (!row || 'corrupt' in row || row.state !== parked) return { result: false };
        const again: Row = { ...row, state: released, attempts: 0, reason: null, detail: null, label: null };
        session.put(bytes, touch(again, session.now(), 0, row.expiresAt - row.writtenAt));
        return { result: true };
      }),

    forget: (key) =>
      write(() => {
        const bytes = decodeKey(key);
        const row = session.find(key, bytes);
        // One that can't be read may be forgotten: that is how people get rid of it.
        if (!row || (!('corrupt' in row) && row.state === claimed && row.leaseUntil > session.now())) return { result: false };
        // A recent key is moved to `records` first, with its range, so that all processes learn that it has left its batch.
        journal.drop(bytes);
        const afterCommit = session.recent.find(key) ? session.mergeRecent(rangeOf(key)) : () => {};
        return { result: session.remove(bytes), afterCommit };
      }),

    stats: () =>
      read((now) => {
        const stats: Record<RecordView['state'], number> = { claimed: 0, released: 0, completed: 0, parked: 0 };
        for (const { state, records } of count.all(now) as { state: State; records: number }[]) {
          if (nameOf(state)) stats[nameOf(state)] = records;
        }
        for (let range = 0; range < session.recent.merged.length; range++) {
          for (const batch of session.recent.range(range).values()) if (batch.expiresAt > now) stats.completed++;
        }
        return stats satisfies StoreStats;
      }),
  };
}

function readable(key: Key, row: Row | Corrupt): Row {
  if ('corrupt' in row) throw new ReceiverError('store', `The record of key ${key} can't be read: ${row.corrupt}`);
  return row;
}

function viewOf(key: Key, row: Row, now: number): RecordView {
  const { attempts, fence, reason, detail, label } = row;
  const shown = {
    key,
    state: nameOf(row.state),
    attempts,
    fence,
    ageMs: Math.max(0, now - row.writtenAt),
    remainingMs: row.expiresAt - now,
  };
  return row.state === parked ? { ...shown, reason: reason ?? '', detail: detail ?? '', label: label ?? '' } : shown;
}
