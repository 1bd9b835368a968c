/**
 * What deduplication costs a Kafka consumer: the same records, read by kafkajs alone and by the adapter around it, with a handler that does nothing, and
 * with one that writes a row. Each stretch is a group of its own that reads from the beginning. The broker, Redis,
 * Postgres and Node share the machine.
 */
import { randomBytes } from 'node:crypto';
import { createReceiver, header } from 'idempotent-receiver';
import { type KafkaOptions, kafka, offset, watermarkOnly } from 'idempotent-receiver/kafka';
import { memoryStore } from 'idempotent-receiver/memory';
import { migrate, migrateWatermarks, type PgPool, type PgQueryable, postgresStore, postgresWatermarks } from 'idempotent-receiver/postgres';
import { redisStore } from 'idempotent-receiver/redis';
import { Redis } from 'ioredis';
import { type Consumer, type EachBatchPayload, type Kafka, type KafkaMessage, Partitioners } from 'kafkajs';
import pg from 'pg';
import { service } from '../test/support/services/index.ts';
import { type Aim, type CaseResult, type Contender, comparing, type Stretch, sideBySide } from './bench.ts';
import { makeTopic } from './kafka-topics.ts';

const partitions = 3;
const records = 450_000;
const customers = 1_000;
/** Not counted of each partition: an adapter that has just got one looks at its first 100 messages one by one. */
const warmUp = 500;
/** Messages of one transaction, or claimed together, in all ways. */
const perTransaction = 500;

interface Order {
  readonly id: string;
  readonly customer: string;
  readonly cents: number;
}

type Handle = (order: Order, tx?: PgQueryable) => unknown;

/** How one group reads: `run` begins, and what it answers ends it. `seen`: that a message has been handled. */
type Way = (consumer: Consumer, groupId: string, seen: (partition: number) => void) => Promise<() => Promise<unknown>>;

async function filledTopic(client: Kafka): Promise<string> {
  const topic = await makeTopic(client, 'orders', partitions);
  const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  const note = 'x'.repeat(120);
  for (let at = 0; at < records; at += 3_000) {
    const messages = Array.from({ length: 3_000 }, (_, i) => {
      const order: Order & { note: string } = { id: `order-${at + i}`, customer: `customer-${(at + i) % customers}`, cents: 100 + i, note };
      return { key: order.customer, value: JSON.stringify(order), headers: { 'message-id': order.id }, partition: i % partitions };
    });
    await producer.send({ topic, messages });
  }
  await producer.disconnect();
  return topic;
}

const parsed = ({ value }: KafkaMessage) => JSON.parse(value!.toString()) as Order;

/** kafkajs alone. */
function plain(eachBatch: (messages: readonly KafkaMessage[], seen: () => void) => Promise<void>): Way {
  return async (consumer, _, seen) => {
    await consumer.run({
      partitionsConsumedConcurrently: partitions,
      eachBatch: ({ batch }: EachBatchPayload) => eachBatch(batch.messages, () => seen(batch.partition)),
    });
    return async () => {};
  };
}

type Options = Parameters<typeof createReceiver>[0];

/** The adapter, around a receiver of its own: each group has its own records. */
function adapted(options: (groupId: string) => Partial<Options> & Pick<Options, 'store'>, handle: Handle): Way {
  return async (consumer, groupId, seen) => {
    const own = { key: header('message-id'), ...options(groupId), scope: groupId } as unknown as Options;
    const watermark = 'watermark' in own.store ? { watermark: own.store } : {};
    const receiver = createReceiver(own, async (order: any, ctx: any) => {
      await handle(order, ctx.tx);
      seen(ctx.message.partition);
    });
    const failed = (error: unknown) => {
      console.error(error);
      process.exitCode = 1;
    };
    const settings = { consumer, deadLetter: failed, onError: failed, partitionsConsumedConcurrently: partitions, ...watermark };
    const adapter = kafka(receiver, settings as unknown as KafkaOptions);
    await consumer.run(adapter.run());
    return () => adapter.stop();
  };
}

function reader(client: Kafka, topic: string, name: string, ms: number, way: Way): Contender {
  return {
    name,
    async run(): Promise<Stretch> {
      const groupId = `bench-${randomBytes(6).toString('hex')}`;
      const consumer = client.consumer({ groupId, maxWaitTimeInMs: 100 });
      const { promise: over, resolve: end } = Promise.withResolvers<Stretch>();
      const cold = Array.from({ length: partitions }, () => warmUp);
      let startedAt: number | undefined;
      let messages = 0;
      let handled = 0;
      const stop = () => end({ messages, ms: performance.now() - startedAt! });
      await consumer.connect();
      await consumer.subscribe({ topics: [topic], fromBeginning: true });
      const finish = await way(consumer, groupId, (partition) => {
        handled++;
        if (startedAt !== undefined) {
          messages++;
          if (handled === records) stop();
          return;
        }
        cold[partition]!--;
        if (cold.some((left) => left > 0)) return;
        startedAt = performance.now();
        setTimeout(stop, ms);
      });
      const stretch = await over;
      await finish();
      await consumer.disconnect();
      return stretch;
    },
    close: () => {},
  };
}

/** kafkajs alone, a transaction for each 500 messages. */
function inTransactions(pool: pg.Pool, handle: Handle, savepoints: boolean): Way {
  return plain(async (messages, seen) => {
    const client = await pool.connect();
    for (let at = 0; at < messages.length; at += perTransaction) {
      await client.query('begin; savepoint message');
      for (const message of messages.slice(at, at + perTransaction)) {
        await handle(parsed(message), client);
        if (savepoints) void client.query('release message; savepoint message');
        seen();
      }
      await client.query('commit');
    }
    client.release();
  });
}

/** kafkajs alone, each row by itself, ten at a time as the receiver does it. */
function oneByOne(handle: Handle): Way {
  return plain(async (messages, seen) => {
    const rest = messages.values();
    const worker = async () => {
      for (const message of rest) {
        await handle(parsed(message));
        seen();
      }
    };
    await Promise.all(Array.from({ length: 10 }, worker));
  });
}

const names = {
  nothing: 'no-op: kafkajs alone',
  parsing: 'no-op: kafkajs alone, JSON parsed',
  memory: `no-op: memory store, ${perTransaction} at once`,
  redis: `no-op: Redis, ${perTransaction} at once`,
  watermark: 'no-op: Postgres, watermark only',
  records: 'no-op: Postgres, records',
  rows: `a row: kafkajs alone, transactions of ${perTransaction}`,
  savepoints: `a row: kafkajs alone, transactions of ${perTransaction}, a savepoint per message`,
  watermarkRows: 'a row: Postgres, watermark only',
  recordsRows: 'a row: Postgres, records',
  single: 'a row: kafkajs alone, row by row, 10 at once',
  memoryRows: 'a row: memory store, 10 at once',
  redisRows: 'a row: Redis, 10 at once',
};

export async function consumption(client: Kafka, seconds: number): Promise<{ cases: readonly CaseResult[]; aims: readonly Aim[] }> {
  const schema = `bench_${randomBytes(4).toString('hex')}`;
  const pool = new pg.Pool({ connectionString: (await service('postgres')).url, max: 20, pipeline: true } as pg.PoolConfig);
  const redis = new Redis((await service('redis')).url);
  try {
    const topic = await filledTopic(client);
    await migrate(pool as unknown as PgPool, { schema });
    await migrateWatermarks(pool as unknown as PgQueryable, { schema });
    await pool.query(`create table ${schema}.rows (id text not null, customer text not null, cents integer not null)`);
    const sql = `insert into ${schema}.rows values ($1, $2, $3)`;
    const row: Handle = ({ id, customer, cents }, tx = pool as unknown as PgQueryable) => tx.query(sql, [id, customer, cents]);
    const nothing: Handle = () => {};

    const store = postgresStore(pool as unknown as PgPool, { schema, unitsAtOnce: partitions });
    const rows = postgresWatermarks({ schema });
    const inMemory = () => ({ store: memoryStore() });
    const inRedis = () => ({ store: redisStore(redis, { prefix: schema }) });
    const inPostgres = () => ({ store });
    // Nothing but the offset is remembered, so nothing else need be computed.
    const byWatermark = () => ({ store: watermarkOnly({ store, rows }), key: offset({ topicEpoch: '1' }), fingerprint: false as const });
    const ways: Record<keyof typeof names, Way> = {
      nothing: plain(async (messages, seen) => messages.forEach(seen)),
      parsing: plain(async (messages, seen) => messages.forEach((message) => parsed(message) && seen())),
      memory: adapted(() => ({ ...inMemory(), concurrency: perTransaction }), nothing),
      redis: adapted(() => ({ ...inRedis(), concurrency: perTransaction }), nothing),
      watermark: adapted(byWatermark, nothing),
      records: adapted(inPostgres, nothing),
      rows: inTransactions(pool, row, false),
      savepoints: inTransactions(pool, row, true),
      watermarkRows: adapted(byWatermark, row),
      recordsRows: adapted(inPostgres, row),
      single: oneByOne(row),
      memoryRows: adapted(inMemory, row),
      redisRows: adapted(inRedis, row),
    };
    const contenders = Object.entries(ways).map(([name, way]) =>
      reader(client, topic, names[name as keyof typeof names], (seconds * 1_000) / 3, way),
    );
    const cases = await sideBySide(contenders, { seconds: 0, rounds: 5 });
    const compare = comparing(cases);
    const { recordsRows, savepoints } = names;
    return {
      cases,
      aims: [
        { name: 'watermark against kafkajs alone, no-op', ...compare(names.watermark, names.nothing), atLeast: 0.9 },
        { name: 'Redis against kafkajs alone, no-op', ...compare(names.redis, names.nothing), atLeast: 0.4 },
        { name: 'Postgres records against the same rows without dedup', ...compare(recordsRows, names.rows), atLeast: 0.85 },
        { name: 'the same, against a savepoint per message', ...compare(recordsRows, savepoints), atLeast: 0.85 },
      ],
    };
  } finally {
    await pool.query(`drop schema if exists ${schema} cascade`);
    await pool.end();
    redis.disconnect();
  }
}
