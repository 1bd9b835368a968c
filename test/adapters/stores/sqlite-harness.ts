import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import Better from 'better-sqlite3';
import { type SqliteDatabase, sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import type { TransactionalHarness } from '../../../src/testing/index.ts';

export type Open = (path: string) => SqliteDatabase & { close(): unknown };

/** The drivers that the store is for. */
export const drivers: Readonly<Record<string, Open>> = {
  'node:sqlite': (path) => new DatabaseSync(path),
  'better-sqlite3': (path) => new Better(path),
};

/** A new folder, and what removes it again. */
export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'idempotent-sqlite-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** A connection whose next COMMIT can be made to fail, before or after it happens. */
function faulty<Db extends SqliteDatabase>(db: Db): { db: Db; failCommit(lost: 'request' | 'reply' | 'silent'): void } {
  let fault: 'request' | 'reply' | 'silent' | undefined;
  let blind = false;
  const wrapped = new Proxy(db, {
    get(target, property) {
      const value = Reflect.get(target, property, target) as unknown;
      if (property !== 'prepare') return typeof value === 'function' ? value.bind(target) : value;
      return (sql: string) => {
        const statement = target.prepare(sql);
        const failing = (run: () => unknown) => {
          if (blind && sql.startsWith('select')) throw new Error('disk I/O error (injected)');
          if (sql !== 'commit' || !fault) return run();
          const lost = fault;
          fault = undefined;
          blind = lost === 'silent';
          if (lost === 'request') target.exec('rollback');
          else run();
          throw new Error(`commit failed, ${lost} (injected)`);
        };
        return {
          get: (...values: unknown[]) => failing(() => statement.get(...values)),
          all: (...values: unknown[]) => failing(() => statement.all(...values)),
          run: (...values: unknown[]) => failing(() => statement.run(...values)),
        };
      };
    },
  });
  return { db: wrapped, failCommit: (lost) => void (fault = lost) };
}

/** A store on a file of its own, with a clock that stands still unless it is moved. */
export function sqliteHarness(open: Open): TransactionalHarness<SqliteDatabase> {
  const folder = temporaryFolder();
  const path = join(folder.path, 'store.db');
  let now = 1_700_000_000_000;
  const options = { now: () => now };
  const opened: { close(): unknown }[] = [];
  const connect = () => {
    const db = open(path);
    opened.push(db);
    return db;
  };
  const first = connect();
  first.exec('create table effects (text text not null)');
  const { db, failCommit } = faulty<SqliteDatabase>(first);
  const outside = connect();
  return {
    store: sqliteStore(db, options),
    elapse: (ms) => void (now += ms),
    another: async () => sqliteStore<SqliteDatabase>(connect(), options),
    async reopen() {
      while (opened.length > 0) opened.pop()!.close();
      return sqliteStore<SqliteDatabase>(connect(), options);
    },
    corrupt(key) {
      outside.prepare('update idempotent_records set state = 9 where key = ?').run(Buffer.from(key, 'base64url'));
    },
    write: (tx, text) => void tx.prepare('insert into effects values (?)').run(text),
    read: async () =>
      outside
        .prepare('select text from effects')
        .all()
        .map((row) => (row as { text: string }).text),
    failCommit,
    close() {
      for (const each of opened) each.close();
      folder.remove();
    },
  };
}
