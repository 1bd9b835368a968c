/** What steps cost: the same messages with a handler that has three, and with one that has none, by each store that has a journal. */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { attribute, createReceiver, type DedupStore, type Journal } from 'idempotent-receiver';
import { memoryStore } from 'idempotent-receiver/memory';
import { migrate, type PgPool, postgresStore } from 'idempotent-receiver/postgres';
import { redisStore } from 'idempotent-receiver/redis';
import { sqliteStore } from 'idempotent-receiver/sqlite';
import { Redis } from 'ioredis';
import pg from 'pg';
import { ownService, service } from '../test/support/services/index.ts';
import { type CaseResult, type Contender, sideBySide } from './bench.ts';

const batchSize = 500;

function contender(name: string, store: DedupStore & Journal, steps: number): Contender {
  const run = randomUUID();
  const receiver = createReceiver(
    { store, scope: `bench ${steps}`, key: attribute('id'), guarantee: 'leased', concurrency: batchSize },
    async (order: { cents: number }, ctx) => {
      for (let i = 0; i < steps; i++) await ctx.step(`step ${i}`, () => order.cents);
    },
  );
  return {
    name,
    async run(batch) {
      const deliveries = Array.from({ length: batchSize }, (_, i) => {
        const id = `${run} ${batch} ${i}`;
        return { message: { id, body: '{"cents":4200}', headers: { id } } };
      });
      const verdicts = await receiver.process(deliveries);
      if (!verdicts.every(({ action }) => action === 'ack'))
        throw new Error(`Expected all to be acked, got ${JSON.stringify(verdicts[0])}`);
      return batchSize;
    },
    close: () => void receiver.stop(),
  };
}

export async function stepCases(seconds: number): Promise<CaseResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'idempotent-receiver-bench-'));
  const redisServer = await ownService('redis');
  const redis = new Redis(redisServer.address.url);
  const pool = new pg.Pool({ connectionString: (await service('postgres')).url, max: 10 });
  const schema = `bench_${randomBytes(4).toString('hex')}`;
  try {
    await migrate(pool as unknown as PgPool, { schema });
    const stores: Record<string, () => DedupStore & Journal> = {
      memory: () => memoryStore(),
      SQLite: () => sqliteStore(new DatabaseSync(join(folder, `${randomUUID()}.db`))),
      Redis: () => redisStore(redis, { prefix: randomUUID() }),
      Postgres: () => postgresStore(pool as unknown as PgPool, { schema }),
    };
    const cases: CaseResult[] = [];
    for (const [name, open] of Object.entries(stores)) {
      const contenders = [0, 3].map((steps) =>
        contender(`${name}, ${steps === 0 ? 'no' : steps} steps, batches of ${batchSize}`, open(), steps),
      );
      cases.push(...(await sideBySide(contenders, { seconds })));
    }
    return cases;
  } finally {
    redis.disconnect();
    await redisServer.stop();
    await pool.query(`drop schema if exists ${schema} cascade`);
    await pool.end();
    rmSync(folder, { recursive: true, force: true });
  }
}
