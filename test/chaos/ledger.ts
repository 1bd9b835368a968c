import { DatabaseSync } from 'node:sqlite';
import type { Order } from './cell.ts';

/** One effect, as a ledger has it. */
export interface Entry extends Order {
  /** The pid of who did it. */
  readonly worker: number;
  readonly fence?: number | undefined;
  /** When, by the host's clock. A ledger inside the store's transactions does not tell. */
  readonly at?: number | undefined;
}

/**
 * The ledger outside: a SQLite file of the harness's own, which nothing here kills. Appends what it is asked for, and refuses fences that are
 * smaller than one that it has seen for the message. It has no unique index: what happens twice is there twice.
 */
export interface Ledger {
  /** `done` is called when the entry has been committed, or has been refused. */
  append(entry: Entry, done: (accepted: boolean) => void): void;
  entries(): Entry[];
  readonly refused: number;
  close(): void;
}

export function openLedger(file: string): Ledger {
  const db = new DatabaseSync(file);
  db.exec(`
    pragma journal_mode = wal;
    pragma synchronous = full;
    create table ledger (row integer primary key, id text, key text, n integer, worker integer, fence integer, at integer);
    create table fences (id text primary key, fence integer) without rowid`);
  const insert = db.prepare('insert into ledger (id, key, n, worker, fence, at) values (?, ?, ?, ?, ?, ?)');
  const raise = db.prepare('insert into fences values (?1, ?2) on conflict do update set fence = ?2 where ?2 >= fence');
  let waiting: { entry: Entry; done: (accepted: boolean) => void }[] = [];
  let refused = 0;

  /** One commit for all that came in together. */
  function commit(): void {
    const group = waiting;
    waiting = [];
    db.exec('begin immediate');
    const accepted = group.map(({ entry: { id, key, n, worker, fence, at } }) => {
      if (fence !== undefined && raise.run(id, fence).changes === 0) return false;
      insert.run(id, key, n, worker, fence ?? null, at ?? null);
      return true;
    });
    db.exec('commit');
    group.forEach(({ done }, i) => {
      if (!accepted[i]) refused++;
      done(accepted[i]!);
    });
  }

  return {
    append(entry, done) {
      if (waiting.push({ entry, done }) === 1) setImmediate(commit);
    },
    entries: () =>
      db
        .prepare('select id, key, n, worker, fence, at from ledger order by row')
        .all()
        .map((row) => ({ ...row, fence: row['fence'] ?? undefined, at: row['at'] ?? undefined }) as unknown as Entry),
    get refused() {
      return refused;
    },
    close: () => db.close(),
  };
}
