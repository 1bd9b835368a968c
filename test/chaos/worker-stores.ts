import type { DedupStore, TransactionalStore } from '../../src/store.ts';
import type { Order } from './cell.ts';
import type { Task } from './wire.ts';

interface Opened {
  readonly store: DedupStore & Partial<TransactionalStore<any>>;
  /** An effect in the transaction. The table has no unique index: what happens twice is there twice. */
  readonly write?: (tx: any, order: Order) => unknown;
}

const stores = {
  async sqlite({ storeUrl }: Task): Promise<Opened> {
    const { DatabaseSync } = await import('node:sqlite');
    const { sqliteStore } = await import('../../adapters/stores/sqlite/index.ts');
    return {
      store: sqliteStore(new DatabaseSync(storeUrl)),
      write: (tx, { id, key, n }) => tx.prepare('insert into ledger (id, key, n, worker) values (?, ?, ?, ?)').run(id, key, n, process.pid),
    };
  },
  async redis({ storeUrl, name }: Task): Promise<Opened> {
    const { Redis } = await import('ioredis');
    const { redisStore } = await import('../../adapters/stores/redis/index.ts');
    const client = new Redis(storeUrl);
    client.on('error', () => {});
    return { store: redisStore(client, { prefix: name }) };
  },
  async postgres({ storeUrl, name, times }: Task): Promise<Opened> {
    const { default: pg } = await import('pg');
    const { postgresStore } = await import('../../adapters/stores/postgres/index.ts');
    const pool = new pg.Pool({ connectionString: storeUrl, max: 4, connectionTimeoutMillis: 2_000 });
    pool.on('error', () => {});
    return {
      // Shorter than the lease: a key that a stopped worker's transaction holds must not make those of others wait until theirs is over.
      store: postgresStore(pool, { schema: name, lockTimeoutMs: Math.floor(times.leaseMs / 6), idleTimeoutMs: 5_000 }),
      write: (tx, { id, key, n }) =>
        tx.query(`insert into ${name}.ledger (id, key, n, worker) values ($1, $2, $3, $4)`, [id, key, n, process.pid]),
    };
  },
};

export const openStore = (task: Task): Promise<Opened> => stores[task.store](task);
