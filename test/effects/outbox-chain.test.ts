import { type ChildProcess, spawn } from 'node:child_process';
import { once as happened } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, expect, it } from 'vitest';
import { migrate, type PgPool } from '../../adapters/stores/postgres/index.ts';
import { queues, sqs } from '../adapters/brokers/sqs/http.ts';
import { clientOf } from '../adapters/stores/kafka-transactions/rig-base.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';
import type { ChainTask } from './outbox-chain-child.ts';

const script = fileURLToPath(new URL('outbox-chain-child.ts', import.meta.url));
const children = new Set<ChildProcess>();
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
});

const [inputs, keys] = [10_000, 50];

it('20,000 messages, from handlers by an outbox and relays to Kafka and SQS and on into a ledger, while all of these are killed: nothing is lost, nothing happens twice', async () => {
  const { url } = await service('postgres');
  const { brokers } = await service('kafka');
  const { endpoint } = await service('elasticmq');
  const schema = unique('chain');
  const topic = unique('chain');
  const db = poolOf({ connectionString: url });
  await migrate(db as unknown as PgPool<pg.PoolClient>, { schema });
  await db.query(
    `create table ${schema}.handled (n integer); create table ${schema}.ledger (at bigint generated always as identity, via text, n integer)`,
  );
  const admin = clientOf(brokers).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true });
  await admin.disconnect();
  // Deliveries of killed workers count too: only the receiver's own limit is meant to park a message.
  const { url: queueUrl } = await queues(sqs(endpoint), 'chain', { maxReceiveCount: '1000' });
  const task = { url, schema, brokers, topic, endpoint, queueUrl, inputs, keys };

  let healed = false;
  const failed: string[] = [];
  const kills: Record<string, number> = {};
  const seed = Date.now() % 1_000_000;
  let state = seed;
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;

  /** Keeps a worker running, and kills it in the middle of its work. */
  async function keep(role: ChainTask['role'], mostKills: number): Promise<void> {
    for (let killed = 0; ; killed++) {
      const child = spawn(
        process.execPath,
        [
          '--disable-warning=ExperimentalWarning',
          '--disable-warning=TimeoutNegativeWarning',
          script,
          JSON.stringify({ ...task, role } satisfies ChainTask),
        ],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      );
      children.add(child);
      const ended = happened(child, 'exit').then(([code]) => (children.delete(child), code as number | null));
      // From its first deed on.
      const deeds = happened(child.stdout!, 'data');
      child.stdout!.on('data', () => {});
      if (killed < mostKills && !healed) {
        await Promise.race([deeds, ended]);
        await Promise.race([pause(random() * 800), ended]);
        if (child.exitCode === null && child.kill('SIGKILL')) kills[role] = (kills[role] ?? 0) + 1;
      }
      const code = await ended;
      if (code === 0 || done) return;
      if (code !== null) failed.push(`${role} ended with exit code ${code}`);
    }
  }

  let done = false;
  const crew = [keep('handler', 3), keep('relay', 5), keep('relay', 5), keep('kafka', 3), keep('sqs', 4)];
  const count = async () => {
    const { rows } = await db.query(
      `select count(*)::integer as entries, count(distinct (via, n))::integer as messages from ${schema}.ledger`,
    );
    return rows[0] as { entries: number; messages: number };
  };
  try {
    const start = performance.now();
    for (let messages = 0; messages < 2 * inputs && failed.length === 0 && performance.now() - start < 150_000; await pause(300))
      ({ messages } = await count());
    healed = true;
    // What was sent twice has to come, and be dropped.
    await pause(2_500);
  } finally {
    done = true;
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(crew);
  }
  const about = `seed ${seed}, kills ${JSON.stringify(kills)}`;
  expect(failed).toEqual([]);
  expect(await count(), about).toEqual({ entries: 2 * inputs, messages: 2 * inputs });
  const { rows: handled } = await db.query(`select count(*)::integer as all, count(distinct n)::integer as once from ${schema}.handled`);
  expect(handled, about).toEqual([{ all: inputs, once: inputs }]);
  const { rows: left } = await db.query(
    `select (select count(*) from ${schema}.outbox)::integer as waiting, (select count(*) from ${schema}.outbox_parked)::integer as parked`,
  );
  expect(left, about).toEqual([{ waiting: 0, parked: 0 }]);
  // Kafka keeps the order of each key.
  const { rows: unordered } = await db.query(
    `select n from (select n, lag(n) over (partition by n % ${keys} order by at) as before from ${schema}.ledger where via = 'orders') o where before > n`,
  );
  expect(unordered, about).toEqual([]);
  // A run that was not disturbed proves nothing.
  for (const [role, least] of Object.entries({ handler: 1, relay: 4, kafka: 1, sqs: 1 }))
    expect(kills[role] ?? 0, about).toBeGreaterThanOrEqual(least);
  await db.query(`drop schema ${schema} cascade`);
  await db.end();
}, 240_000);
