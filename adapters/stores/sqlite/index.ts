import { realWorld, type World } from '../../../src/clock.ts';
import type { Journal } from '../../../src/effects/journal.ts';
import { expectNumber, refuseOption } from '../../../src/errors.ts';
import type { DedupStore, StoreAdmin, TransactionalStore } from '../../../src/store.ts';
import { adminVerbs } from './admin.ts';
import { connection } from './connection.ts';
import { expectDatabase, type SqliteDatabase, statements } from './database.ts';
import { journalUpkeep, journalVerbs } from './journal.ts';
import { leasedVerbs } from './leased.ts';
import { prepareDatabase, tableNames } from './schema.ts';
import { openSession } from './session.ts';
import { transactionalUnit } from './unit.ts';

export type { SqliteDatabase, SqliteStatement } from './database.ts';
export { type SqliteOutbox, type SqliteOutboxOptions, sqliteOutbox } from './outbox.ts';
export { type SqliteWatermarksOptions, sqliteWatermarks } from './watermarks.ts';

/** Options of {@link sqliteStore}. */
export interface SqliteStoreOptions {
  /** The store's tables begin with it: letters, digits, `_`. Default: `idempotent_`. */
  readonly tablePrefix?: string;
  /** How long a call waits for SQLite's write lock, and for this connection, in milliseconds. Default: 5,000. */
  readonly lockTimeoutMs?: number;
  /** `full`: what was answered survives a power cut. `normal`: it survives the death of the process, not of the machine. Default: `full`. */
  readonly durability?: 'full' | 'normal';
  /**
   * The host's clock, in milliseconds since the Unix epoch, the same for all processes that share the file. Default: `Date.now`. A step
   * forward ends leases early, a step back prolongs them; tokens are compared either way.
   */
  readonly now?: () => number;
  /** Time and chance for waiting. Default: the machine's. */
  readonly world?: World;
}

/**
 * A store in a SQLite file, for one or more processes of one host. `db` is an open connection of `node:sqlite` or better-sqlite3, and
 * `ctx.tx` is that very connection. Both drivers work synchronously; only waiting for the lock does not block the event loop.
 *
 * The connection belongs to the receiver: it sets WAL mode, `synchronous` and `busy_timeout`, and nobody but handlers may use
 * it. Open a second one for reading, with the same driver: the locks of two drivers do not hold inside one process. SQLite has one writer
 * at a time: while a unit runs, every other writer of the file waits, in all processes, so keep handlers short, read iterators to their
 * end, and write through `ctx.tx` alone: another connection would wait for the handler that waits for it. A handler may use savepoints, but can't begin, commit or roll back: its COMMIT fails with
 * "FOREIGN KEY constraint failed". Effects in an attached file are not atomic with those in the main file. SQLite itself rolls back on
 * `or rollback`, `raise(rollback)` and a full disk: nothing of the unit is recorded then, but a handler that swallows that error and
 * writes on has its next writes committed one by one, so let such errors out.
 *
 * Memory: SQLite's page cache of 16 MB, and the keys that units have completed last, 65,536 of them, in about 10 MB for units of many
 * messages, 45 MB for units of one.
 *
 * Makes its tables at once. @throws ReceiverError `store` if the file can't be used, `invalid-option`
 */
export function sqliteStore<Db extends SqliteDatabase>(
  db: Db,
  options: SqliteStoreOptions = {},
): DedupStore & TransactionalStore<Db> & Journal & StoreAdmin {
  expectDatabase(db);
  const { tablePrefix = 'idempotent_', lockTimeoutMs = 5_000, durability = 'full', world = realWorld, now = world.clock.wall } = options;
  const tables = tableNames(tablePrefix);
  expectNumber('lockTimeoutMs', lockTimeoutMs, { atLeast: 0, atMost: 600_000 });
  if (durability !== 'full' && durability !== 'normal') refuseOption('durability', '`full` or `normal`', durability);

  prepareDatabase(db, tables, { durability, lockTimeoutMs });
  const session = statements('the store was opened', () => openSession(db, tables, now));
  const writes = connection(db, lockTimeoutMs, world);
  const upkeep = statements('the store was opened', () => journalUpkeep(db, tables));
  return {
    ...leasedVerbs(writes, session, upkeep),
    ...adminVerbs(db, tables, writes, session, upkeep),
    ...journalVerbs(db, tables, writes, session),
    unit: transactionalUnit(db, tables, writes, session, upkeep),
  };
}
