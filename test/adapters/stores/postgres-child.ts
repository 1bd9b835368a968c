/* A process of its own that works on a Postgres store, started by postgres-processes.test.ts. */
import '../../support/ends-with-parent.ts';
import pg from 'pg';
import { type Partitions, type PgPool, postgresStore } from '../../../adapters/stores/postgres/index.ts';
import { attribute, createReceiver } from '../../../src/index.ts';
import { beChild, claimAll, tell } from './processes.ts';

const [kind, url, schema] = process.argv.slice(2) as ['claim' | 'receive', string, string];
const [client, keys, size] = process.argv.slice(5, 8).map(Number) as [number, number, number];
const partitions = process.argv[8] as Partitions | undefined;
const pool = new pg.Pool({ connectionString: url, max: 4, application_name: `child ${client}` });
pool.on('error', () => {});
const store = postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, {
  schema,
  idleTimeoutMs: 700,
  ...(partitions ? { partitions } : {}),
});

if (kind === 'claim') await beChild(() => claimAll(store, client, keys, size));
else await beChild(receive);
await pool.end();

/** Handles all messages again and again, in batches, until each is known to be done. */
async function receive(): Promise<void> {
  const receiver = createReceiver({ scope: 'test', key: attribute('id'), store, cacheSize: 0 }, async ({ id }: { id: string }, { tx }) => {
    await tx.query(`insert into ${schema}.effects values ($1)`, [id]);
  });
  let open = Array.from({ length: keys }, (_, i) => `m${i}`);
  while (open.length > 0) {
    const batch = open.splice(0, size);
    const verdicts = await receiver.process(
      batch.map((id) => ({ message: { id, body: JSON.stringify({ id }), headers: { id } }, redelivered: false })),
    );
    const again = batch.filter((_, i) => verdicts[i]!.action !== 'ack');
    await tell({ claimed: batch.filter((id) => !again.includes(id)).map((id) => Number(id.slice(1))) });
    open = [...open, ...again];
    if (again.length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await receiver.stop();
}
