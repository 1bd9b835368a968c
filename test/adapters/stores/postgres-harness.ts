import pg from 'pg';
import { migrate, type PgPool, type PostgresStoreOptions, postgresStore } from '../../../adapters/stores/postgres/index.ts';
import type { TransactionalHarness } from '../../../src/testing/index.ts';
import { service } from '../../support/services/index.ts';
import { unique } from '../../support/unique.ts';

/** A pool of a test's own. Connections that die while they are idle are nobody's failure. */
export function poolOf(config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool({ max: 10, connectionTimeoutMillis: 20_000, ...config });
  pool.on('error', () => {});
  return pool;
}

/** A client whose next COMMIT fails for the driver in one way or another. */
function failing(pool: pg.Pool): { pool: PgPool<pg.PoolClient>; failCommit(lost: 'request' | 'reply' | 'silent'): void } {
  let fault: 'request' | 'reply' | 'silent' | undefined;
  let blind = false;
  const wrapped = new WeakSet<object>();
  const proxy = new Proxy(pool, {
    get(target, property) {
      if (blind && (property === 'query' || property === 'connect'))
        return () => Promise.reject(new Error('connection refused (injected)'));
      if (property !== 'connect') {
        const value = Reflect.get(target, property, target) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      }
      return async () => {
        const client = await target.connect();
        if (wrapped.has(client)) return client;
        wrapped.add(client);
        const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
        // The pool itself calls it too, with a callback.
        client.query = ((...args: unknown[]) => {
          if (!fault || typeof args[0] !== 'string' || !/\bcommit$/.test(args[0])) return query(...args);
          const lost = fault;
          fault = undefined;
          blind = lost === 'silent';
          return (lost === 'request' ? query('rollback') : query(args[0])).then(() => {
            throw new Error('Connection terminated unexpectedly');
          });
        }) as unknown as typeof client.query;
        return client;
      };
    },
  });
  return { pool: proxy as unknown as PgPool<pg.PoolClient>, failCommit: (lost) => void (fault = lost) };
}

/** The times of all records, moved into the past: the server's clock can't be moved into the future. */
export async function age(pool: pg.Pool, schema: string, ms: number): Promise<void> {
  const by = `interval '${ms} ms'`;
  await pool.query(
    `update ${schema}.records set lease_until = lease_until - ${by}, written_at = written_at - ${by}, expires_at = expires_at - ${by},
     expires_minute = ceil(extract(epoch from expires_at - ${by}) / 60) where state > 0`,
  );
  await pool.query(`update ${schema}.meta set part_began_at = part_began_at - ${by}`);
}

/** Begins the next partition, as if the day had ended, and closes the one before if nobody is in its way. */
export async function turn(pool: pg.Pool, schema: string): Promise<void> {
  await pool.query(`update ${schema}.meta set part_began_at = part_began_at - interval '7 days'`);
  await pool.query(`select ${schema}.upkeep()`);
}

/** The state of the partitions: the newest, and the newest of those that are closed. */
export async function partsOf(
  pool: pg.Pool,
  schema: string,
): Promise<{ readonly part: number; readonly closed_part: number; readonly all: number }> {
  return (await pool.query(`select part, closed_part, (select count(*)::int from ${schema}.parts) as all from ${schema}.meta`)).rows[0];
}

/** Clauses that say what partitions do in another way. */
export const skipOfPartitions = ['6c', '12a', '12b', '20i'].map((clause) => ({
  clause,
  reason: 'Partitions are dropped as a whole, and purge answers 0: postgres-partitions.test.ts shows what is dropped, and what is not',
}));

/** A store in a schema of its own. */
export async function postgresHarness(
  options: PostgresStoreOptions = {},
  config: pg.PoolConfig = {},
): Promise<
  TransactionalHarness<pg.PoolClient> & {
    readonly schema: string;
    readonly db: pg.Pool;
    readonly store: ReturnType<typeof postgresStore<pg.PoolClient>>;
  }
> {
  const { url } = await service('postgres');
  const schema = unique('contract');
  const db = poolOf({ connectionString: url, ...config });
  const { partitions } = options;
  await migrate(db, partitions ? { schema, partitions } : { schema });
  await db.query(`create table ${schema}.effects (text text not null)`);
  const all = { ...options, schema };
  const { pool, failCommit } = failing(db);
  const others: pg.Pool[] = [];
  const another = () => {
    const other = poolOf({ connectionString: url, ...config });
    others.push(other);
    return postgresStore<pg.PoolClient>(other as unknown as PgPool<pg.PoolClient>, all);
  };
  return {
    schema,
    db,
    store: postgresStore(pool, all),
    precisionMs: 2_000,
    async elapse(ms) {
      await age(db, schema, ms);
      // A border each time, as long as there are not too many.
      if (partitions && (await partsOf(db, schema)).all < 8) await turn(db, schema);
    },
    another: async () => another(),
    // The server keeps what it was told; only this process's memory of it is gone.
    reopen: async () => another(),
    async corrupt(key) {
      await db.query(`update ${schema}.records set fingerprint = '\\x0102' where key = $1`, [Buffer.from(key, 'base64url')]);
    },
    async write(tx, text) {
      await tx.query(`insert into ${schema}.effects values ($1)`, [text]);
    },
    read: async () => (await db.query(`select text from ${schema}.effects`)).rows.map((row) => row.text as string),
    failCommit,
    async close() {
      await db.query(`drop schema ${schema} cascade`);
      await Promise.all([db, ...others].map((each) => each.end()));
    },
  };
}
