import type { ClaimRef, Entries, Entry, EntryWrite, Journal } from '../../../src/effects/journal.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { Settled } from '../../../src/store.ts';
import type { Connection } from './connection.ts';
import { type SqliteDatabase, statements } from './database.ts';
import { claimed, decodeKey, view } from './record.ts';
import { expiryBucketMs, type Tables } from './schema.ts';
import type { Session } from './session.ts';

/** The entries of records that go, under the connection's lock: they go in the same transaction. */
export interface JournalUpkeep {
  /** Deletes what belongs to a record that has expired, or is deleted. */
  drop(key: Uint8Array): void;
  /** Deletes what belongs to the records that a purge with the same arguments deletes. */
  purge(now: number, limit: number): void;
}

export function journalUpkeep(db: SqliteDatabase, t: Tables): JournalUpkeep {
  const any = db.prepare(`select 1 from ${t.journal} limit 1`);
  const remove = db.prepare(`delete from ${t.journal} where key = ?`);
  const purge = db.prepare(`delete from ${t.journal} where key in (${expiredKeys(t)})`);
  return {
    drop: (key) => void remove.run(key),
    purge: (now, limit) => void (any.get() && purge.run(Math.floor(now / expiryBucketMs), now, now, limit)),
  };
}

/** The keys that a purge deletes next. Arguments: now in buckets, now, now, limit. */
export const expiredKeys = (t: Tables): string =>
  `select key from ${t.records} where expires_at / ${expiryBucketMs} <= ? and expires_at <= ? and lease_until <= ?
   order by expires_at / ${expiryBucketMs}, key limit ?`;

/** The journal: each call is one transaction for its whole batch. */
export function journalVerbs(db: SqliteDatabase, t: Tables, connection: Connection, session: Session): Journal {
  const write = db.prepare(
    `insert into ${t.journal} (key, name, state, text) values (?, ?, ?, ?)
     on conflict (key, name) do update set state = excluded.state, text = excluded.text where state = 'started'`,
  );
  // Bytes are whole everywhere, see session.ts.
  const read = db.prepare(`select name, state, cast(text as blob) as text from ${t.journal} where key = ?`);

  /** The key's bytes, if the token holds its claim. An unreadable record is nobody's claim. */
  function held({ key, token }: ClaimRef): Buffer | undefined {
    const bytes = decodeKey(key);
    const row = session.find(key, bytes);
    return row && !('corrupt' in row) && row.state === claimed && row.token === token ? bytes : undefined;
  }

  function writeOne({ name, state, text, ...claim }: EntryWrite): Settled {
    const key = held(claim);
    if (!key) return 'fenced';
    write.run(key, name, state, text);
    return 'ok';
  }

  function readOne(claim: ClaimRef): Entries {
    const key = held(claim);
    return key ? (read.all(key) as RawEntry[]).map(entryOf) : 'fenced';
  }

  return {
    async writeEntries(writes) {
      if (writes.length === 0) return [];
      return connection.write(() =>
        statements('journal entries were written', () => {
          session.load();
          return { result: writes.map(writeOne) };
        }),
      );
    },
    async readEntries(claims) {
      if (claims.length === 0) return [];
      return connection.read(() =>
        statements('journal entries were read', () => {
          session.load();
          return claims.map(readOne);
        }),
      );
    },
  };
}

interface RawEntry {
  readonly name: string;
  readonly state: string;
  readonly text: Uint8Array;
}

function entryOf({ name, state, text }: RawEntry): Entry {
  if (state !== 'started' && state !== 'done' && state !== 'failed') {
    throw new ReceiverError(
      'store',
      `Expected the state of journal entry ${JSON.stringify(name)} to be started, done or failed, got ${state}`,
    );
  }
  return { name, state, text: view(text).toString() };
}
