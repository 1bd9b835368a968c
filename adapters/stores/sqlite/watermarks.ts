import { refuseOption } from '../../../src/errors.ts';
import type { Watermark, Watermarks } from '../../../src/watermarks.ts';
import type { SqliteDatabase } from './database.ts';

/** Options of {@link sqliteWatermarks}. */
export interface SqliteWatermarksOptions {
  /** Name of the table: letters, digits, `_`. It is made when it is missing. Default: `idempotent_watermarks`. */
  readonly table?: string;
}

/**
 * Watermarks in a table of a SQLite file: a row for each partition, next to the effects. SQLite has one writer at a time, so whoever takes a
 * row has it before any other transaction begins.
 *
 * @throws ReceiverError `invalid-option`
 */
export function sqliteWatermarks(options: SqliteWatermarksOptions = {}): Watermarks<SqliteDatabase> {
  const { table = 'idempotent_watermarks' } = options;
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,60}$/.test(table) || /^sqlite_/i.test(table)) {
    refuseOption('table', 'a letter or _ and up to 60 letters, digits or _, not beginning with sqlite_', table);
  }

  function read(tx: SqliteDatabase, name: string): Row | undefined {
    return tx.prepare(`select owner, next, done from ${table} where name = ?`).get(name) as Row | undefined;
  }

  return {
    async take(tx, name, owner) {
      // Inside the transaction, and undone with it.
      tx.exec(
        `create table if not exists ${table} (name text primary key, owner text not null, next integer not null, done text not null) strict, without rowid`,
      );
      tx.prepare(`insert into ${table} values (?, ?, -1, '') on conflict (name) do update set owner = excluded.owner`).run(name, owner);
      return markOf(read(tx, name)!);
    },

    async read(tx, name, owner) {
      const row = read(tx, name);
      return row?.owner === owner ? markOf(row) : 'lost';
    },

    async advance(tx, name, owner, to, from) {
      const { changes } =
        from === undefined
          ? tx.prepare(`update ${table} set next = max(next, ?), done = '' where name = ? and owner = ?`).run(to.next, name, owner)
          : tx
              .prepare(`update ${table} set next = ?, done = ? where name = ? and owner = ? and next = ? and done = ?`)
              .run(to.next, to.done, name, owner, from?.next ?? -1, from?.done ?? '');
      return Number(changes) === 1;
    },
  };
}

interface Row {
  readonly owner: string;
  readonly next: number;
  readonly done: string;
}

/** -1: taken, and not advanced yet. */
function markOf({ next, done }: Row): Watermark | undefined {
  return next < 0 ? undefined : { next, done };
}
