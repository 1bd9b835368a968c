import { realWorld, type World } from '../../../src/clock.ts';
import type { Journal } from '../../../src/effects/journal.ts';
import { expectNumber, ReceiverError, refuseOption } from '../../../src/errors.ts';
import type { DedupStore, StoreAdmin, TransactionalStore } from '../../../src/store.ts';
import { adminVerbs } from './admin.ts';
import type { PgClient, PgPool } from './client.ts';
import { journalVerbs } from './journal.ts';
import { leasedVerbs } from './leased.ts';
import { namesOf, type SchemaOptions } from './names.ts';
import { boundedPool } from './pool.ts';
import { checker } from './schema.ts';
import { transactionalUnit } from './unit.ts';

export type { PgClient, PgPool, PgQueryable, PgResult } from './client.ts';
export type { Partitions, SchemaOptions } from './names.ts';
export { type PostgresOutbox, type PostgresOutboxOptions, postgresOutbox } from './outbox.ts';
export { type RecordOnce, recordOnce } from './record-once.ts';
export { migrate, migrationSql } from './schema.ts';
export { migrateWatermarks, postgresWatermarks, watermarksSql } from './watermarks.ts';

/** Options of {@link postgresStore}. All times are in milliseconds. */
export interface PostgresStoreOptions extends SchemaOptions {
  /**
   * How long the store waits for a key that another transaction holds. Its message is then answered `busy`. Handlers wait for locks as long as
   * your own `lock_timeout` says. Default: 1,000.
   */
  readonly lockTimeoutMs?: number;
  /**
   * The longest statement of a unit, also of its handlers: the server cancels it. A connection that has not answered for twice as long is cut
   * off, whatever it was asked. Default: 30,000.
   */
  readonly statementTimeoutMs?: number;
  /**
   * How long a unit's transaction may stand idle, while a handler does something else, before the server ends it: the process may be dead or
   * stopped, and holds its keys. Default: 60,000.
   */
  readonly idleTimeoutMs?: number;
  /** Units that a receiver may have open at once, each on a connection of its own. Default: a quarter of `pool.options.max`, at least 1. */
  readonly unitsAtOnce?: number;
  /** Takes a server with `fsync` off, and tables that are unlogged: a crash of the server may forget what was acknowledged. Default: false. */
  readonly allowDataLoss?: boolean;
  /** Time and chance for waiting. Default: the machine's. */
  readonly world?: World;
}

/**
 * A store in PostgreSQL 14 or later. `pool` is a pg `Pool` or anything like it, and `ctx.tx` is the client of the transaction. Run
 * `migrate(pool)` before, at deployment. A single `Client` won't do: a unit holds its connection while handlers run, and what has become of a COMMIT
 * that got no answer is asked on another one.
 *
 * Works behind PgBouncer in transaction mode: no statement is prepared by name, nothing is set for longer than a transaction, and all locks
 * end with it. `synchronous_commit = off` is turned on for the store's own transactions. The server's clock decides.
 *
 * A unit holds a connection for as long as its handlers run, so the pool needs more than `unitsAtOnce`; as the `journal` of its own units the store
 * takes one more, so the units of all receivers on the pool must leave one. Handlers write through `ctx.tx` alone;
 * they may use savepoints of other names, but not begin, commit or roll back, nor `close all` cursors: a COMMIT of theirs fails.
 * A constraint of yours that is deferred to the commit fails all messages of the group: make it immediate.
 *
 * @throws ReceiverError `invalid-option`. Its methods reject with code `store` if the tables are missing or of another version, and with
 *   what the client rejects with.
 */
export function postgresStore<Client extends PgClient>(
  pool: PgPool<Client>,
  options: PostgresStoreOptions = {},
): DedupStore & TransactionalStore<Client> & Journal & StoreAdmin {
  expectPool(pool);
  const { allowDataLoss = false, world = realWorld } = options;
  if (typeof allowDataLoss !== 'boolean') refuseOption('allowDataLoss', 'true or false', allowDataLoss);
  const limit = (name: 'lockTimeoutMs' | 'statementTimeoutMs' | 'idleTimeoutMs', by: number) =>
    expectNumber(name, options[name] ?? by, { atLeast: 1, atMost: 86_400_000, integer: true });
  const statementTimeoutMs = limit('statementTimeoutMs', 30_000);
  const limits = {
    lockTimeoutMs: limit('lockTimeoutMs', 1_000),
    statementTimeoutMs,
    idleTimeoutMs: limit('idleTimeoutMs', 60_000),
    silenceMs: 2 * statementTimeoutMs,
  };
  const connections = pool.options?.max ?? 10;
  const unitsAtOnce = expectNumber('unitsAtOnce', options.unitsAtOnce ?? Math.max(1, Math.floor(connections / 4)), {
    atLeast: 1,
    integer: true,
  });
  if (unitsAtOnce > 1 && unitsAtOnce >= connections)
    refuseOption('unitsAtOnce', `less than the pool's ${connections} connections, because claims need one too`, unitsAtOnce);
  const names = namesOf(options);
  const bounded = boundedPool(pool, world.clock, limits.silenceMs);
  const ready = checker(bounded, names, { allowDataLoss });
  return {
    ...leasedVerbs(bounded, names, limits.lockTimeoutMs, ready),
    ...adminVerbs(bounded, names, ready),
    ...journalVerbs(bounded, names, limits.lockTimeoutMs, connections > unitsAtOnce, ready),
    unitsAtOnce,
    unit: transactionalUnit(bounded, names, limits, world, ready),
  };
}

function expectPool(pool: PgPool): void {
  const { query, connect, release, connectionParameters } = (pool ?? {}) as Partial<PgClient & PgPool> & { connectionParameters?: unknown };
  if (typeof query !== 'function') refuseOption('pool', 'a pg Pool', pool);
  // pg's own client connects too, and one that was taken from a pool is given back to it.
  if (typeof connect === 'function' && release === undefined && connectionParameters === undefined) return;
  throw new ReceiverError(
    'invalid-option',
    'Expected `pool` to be a pg Pool, got a single client: a transaction holds its connection while handlers run, and what has become of a COMMIT ' +
      'that got no answer is asked on another one. Give `new pg.Pool(…)`, or use `recordOnce(client, …)` in transactions of your own',
  );
}
