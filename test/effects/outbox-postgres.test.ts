import type pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { migrate, type PgPool, postgresOutbox } from '../../adapters/stores/postgres/index.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';
import { type Box, message, outboxContract } from './outbox-contract.ts';

let db: pg.Pool;
const schemas: string[] = [];
beforeAll(async () => {
  db = poolOf({ connectionString: (await service('postgres')).url, max: 20 });
});
afterAll(async () => {
  for (const schema of schemas) await db.query(`drop schema ${schema} cascade`);
  await db.end();
});

const pool = () => db as unknown as PgPool<pg.PoolClient>;

async function openBox(more: { notify?: boolean } = {}): Promise<Box & { schema: string }> {
  const schema = unique('outbox');
  await migrate(pool(), { schema });
  schemas.push(schema);
  const options = { destinations: ['orders', 'mails'], schema, ...more } as const;
  const outbox = postgresOutbox(pool(), options);
  return {
    schema,
    outbox,
    another: () => postgresOutbox(pool(), options),
    async publishing(work) {
      const client = await db.connect();
      try {
        await client.query('begin');
        await work(async (destination, given) => outbox.publish(client, destination, given));
        await client.query('commit');
      } catch (error) {
        await client.query('rollback');
        throw error;
      } finally {
        client.release();
      }
    },
    async careless() {
      const client = await db.connect();
      try {
        await outbox.publish(client, 'orders', message('careless'));
      } finally {
        client.release();
      }
    },
    advance: (ms) => db.query(`update ${schema}.outbox set retry_at = retry_at - interval '${ms} ms'`).then(() => {}),
  };
}

outboxContract('PostgreSQL', () => openBox());
outboxContract('PostgreSQL with NOTIFY', () => openBox({ notify: true }));
