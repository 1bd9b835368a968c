/**
 * What an outbox costs on Postgres, at full durability: publishing, against the same row written by hand; and a relay to Kafka, against kafkajs
 * alone. Beside both, pg-transactional-outbox. And what steps cost. Postgres, Kafka and Node share the machine.
 */
import { randomBytes } from 'node:crypto';
import { relay } from 'idempotent-receiver';
import { kafkaDestination } from 'idempotent-receiver/kafka';
import { migrate, type PgPool, postgresOutbox } from 'idempotent-receiver/postgres';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import pg from 'pg';
import { service, stopAll } from '../test/support/services/index.ts';
import { type Bench, type CaseResult, type Contender, comparing, sideBySide } from './bench.ts';
import { openPeer } from './outbox-peer.ts';
import { stepCases } from './steps.ts';

const perTransaction = 100;
const keys = 5_000;
const body = { order: 'order-1', account: 5, cents: 4_200, currency: 'EUR', lines: [{ sku: 'A-1', quantity: 2 }], note: 'x'.repeat(80) };

let made = 0;
const nextKey = () => `k${made++ % keys}`;
const messages = (count: number) => Array.from({ length: count }, () => ({ body, orderingKey: nextKey() }));

/** Runs `work` in transactions of 100 messages. */
async function inTransactions(pool: pg.Pool, count: number, work: (client: pg.PoolClient) => Promise<unknown>): Promise<number> {
  const client = await pool.connect();
  for (let at = 0; at < count; at += perTransaction) {
    await client.query('begin');
    await work(client);
    await client.query('commit');
  }
  client.release();
  return count;
}

/** Measures in rounds: `prepare` is not counted, `work` is. */
async function timed(
  name: string,
  seconds: number,
  prepare: () => Promise<number>,
  work: (count: number) => Promise<unknown>,
): Promise<CaseResult> {
  let [sum, ms] = [0, 0];
  for (let round = 0; round === 0 || ms < seconds * 1_000; round++) {
    const count = await prepare();
    const startedAt = performance.now();
    await work(count);
    if (round === 0) continue;
    sum += count;
    ms += performance.now() - startedAt;
  }
  return { name, messages: sum, perSecond: Math.round((sum / ms) * 1_000) };
}

export const bench: Bench = async ({ seconds }) => {
  const { url } = await service('postgres');
  const { brokers } = await service('kafka');
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  try {
    const schema = `bench_${randomBytes(4).toString('hex')}`;
    await migrate(pool as unknown as PgPool, { schema });
    await pool.query(`create table ${schema}.by_hand (position bigint generated always as identity primary key, destination text not null,
      ordering_key text, id text not null, body bytea, headers text not null)`);
    const outbox = postgresOutbox(pool as unknown as PgPool, { destinations: ['orders'], schema });
    const peer = await openPeer(pool, url);
    const each = (publish: (client: pg.PoolClient) => Promise<unknown>) => async (client: pg.PoolClient) => {
      for (let i = 0; i < perTransaction; i++) await publish(client);
    };
    const byHand = `insert into ${schema}.by_hand (destination, ordering_key, id, body, headers) values ($1, $2, $3, $4, $5)`;
    const writer = (name: string, work: (client: pg.PoolClient) => Promise<unknown>): Contender => ({
      name,
      run: () => inTransactions(pool, 5 * perTransaction, work),
      close: () => {},
    });
    const rowsAlone = 'the rows alone, written by hand one by one';
    const published = 'outbox.publish, one by one';
    const publishing = await sideBySide(
      [
        writer(
          rowsAlone,
          each((client) => client.query(byHand, ['orders', nextKey(), `id-${made}`, Buffer.from(JSON.stringify(body)), '{}'])),
        ),
        writer(
          published,
          each((client) => outbox.publish(client, 'orders', { body, orderingKey: nextKey() })),
        ),
        writer('outbox.publish, 100 in a call', (client) => outbox.publish(client, 'orders', messages(perTransaction))),
        writer(
          'pg-transactional-outbox, one by one',
          each((client) => peer.publish(client, nextKey(), body)),
        ),
      ],
      { seconds },
    );

    const kafka = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING });
    const admin = kafka.admin();
    await admin.connect();
    await admin.createTopics({ topics: [{ topic: schema, numPartitions: 3 }], waitForLeaders: true });
    await admin.disconnect();
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner });
    await producer.connect();
    const fill = async (count: number) => {
      await pool.query(`truncate ${schema}.outbox`);
      return inTransactions(pool, count, (client) => outbox.publish(client, 'orders', messages(perTransaction)));
    };
    const [relayed, kafkajsAlone] = ['relay to Kafka', 'kafkajs alone, 1,000 in a send'];
    const record = (key: string, value: unknown) => ({ key, value: JSON.stringify(value), headers: { 'message-id': `id-${key}` } });
    const relays = [
      await timed(
        relayed,
        seconds,
        () => fill(30_000),
        () => relay({ outbox, to: { orders: kafkaDestination(kafka, schema) } }).drain(),
      ),
      await timed(
        'relay to nowhere',
        seconds,
        () => fill(30_000),
        () => relay({ outbox, to: { orders: { send: async (due) => due.map(() => ({ state: 'sent' })) } } }).drain(),
      ),
      await timed(
        kafkajsAlone,
        seconds,
        async () => 30_000,
        async (count) => {
          for (let at = 0; at < count; at += 1_000)
            await producer.send({ topic: schema, messages: messages(1_000).map(({ orderingKey }) => record(orderingKey, body)) });
        },
      ),
      await timed(
        'pg-transactional-outbox, polling, to Kafka',
        seconds,
        async () => {
          await peer.clear();
          return inTransactions(
            pool,
            1_000,
            each((client) => peer.publish(client, nextKey(), body)),
          );
        },
        (count) => peer.relay(count, (key, payload) => producer.send({ topic: schema, messages: [record(key, payload)] })),
      ),
    ];
    await producer.disconnect();
    await pool.query(`drop schema ${schema} cascade`);
    const cases = [...publishing, ...relays, ...(await stepCases(seconds))];
    const compare = comparing(cases);
    return {
      cases,
      aims: [
        { name: 'messages a second that a relay sends to Kafka', measured: compare(relayed, kafkajsAlone).perSecond, atLeast: 20_000 },
        { name: 'publishing on Postgres against the rows alone', ...compare(published, rowsAlone), atLeast: 0.8 },
      ],
    };
  } finally {
    await pool.end();
    await stopAll();
  }
};
