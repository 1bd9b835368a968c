/** Type tests, like those in `types.check.ts`: the clients that people have are taken as they are, and their types are kept. */
import type { DatabaseSync } from 'node:sqlite';
import { SQSClient } from '@aws-sdk/client-sqs';
import type BetterSqlite3 from 'better-sqlite3';
import { Cluster, Redis } from 'ioredis';
import { type ConsumerRunConfig, Kafka } from 'kafkajs';
import pg from 'pg';
import { createClient, createClientPool } from 'redis';
import { kafka, kafkaDestination } from '../adapters/brokers/kafka/index.ts';
import { sqsDestination, sqsPoller, sqsSender } from '../adapters/brokers/sqs/index.ts';
import { type KafkaTx, kafkaTransactions } from '../adapters/stores/kafka-transactions/index.ts';
import { type PgClient, type PgPool, postgresOutbox, postgresStore, recordOnce } from '../adapters/stores/postgres/index.ts';
import { redisStore } from '../adapters/stores/redis/index.ts';
import { sqliteStore } from '../adapters/stores/sqlite/index.ts';
import { type Context, createReceiver, header, relay, type TransactionalStore } from '../src/index.ts';

/** Compiles only if both are the same type. */
declare function same<A, B>(...equal: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? [] : [never]): void;

declare const nodeSqlite: DatabaseSync;
declare const betterSqlite: BetterSqlite3.Database;
declare const order: { id: string; cents: number };
type Order = typeof order;

const base = { scope: 'billing', key: header('message-id') } as const;

export async function postgres(): Promise<void> {
  const pool = new pg.Pool();
  const store = postgresStore(pool);
  createReceiver({ ...base, store: postgresStore(new pg.Pool()) }, async (_, ctx) => {
    same<typeof ctx.tx, pg.PoolClient>();
    const { rows } = await ctx.tx.query<Order>('select id, cents from charges');
    same<typeof rows, Order[]>();
  });
  // A handler of its own, and functions that take pg's own types.
  const charge = async ({ id }: Order, { tx }: Context<'transactional', pg.PoolClient>) => void (await tx.query('', [id]));
  createReceiver({ ...base, store }, charge);
  const insist = (any: TransactionalStore<pg.ClientBase>) => any;
  insist(store);

  class OwnPool extends pg.Pool {}
  createReceiver({ ...base, store: postgresStore(new OwnPool()) }, (_, ctx) => same<typeof ctx.tx, pg.PoolClient>());
  interface OwnClient extends PgClient {
    readonly name: string;
  }
  const own = pool as unknown as { connect(): Promise<OwnClient>; query: PgPool['query'] };
  createReceiver({ ...base, store: postgresStore(own) }, (_, ctx) => same<typeof ctx.tx, OwnClient>());

  const outbox = postgresOutbox(pool, { destinations: ['charged'] });
  createReceiver({ ...base, store, outbox, journal: store }, async (_, ctx) => {
    same<typeof ctx, Context<'transactional', pg.PoolClient, true, 'charged'>>();
    await ctx.publish('charged', { body: order });
    await outbox.publish(ctx.tx, 'charged', { body: order });
  });
  await recordOnce(new pg.Client(), { scope: 'billing', id: 'order-7' });
  // @ts-expect-error a transaction and the question what became of it need two connections
  postgresStore({ query: async () => ({ rows: [] }) });
}

export function redis(): void {
  redisStore(new Redis());
  redisStore(new Cluster([]));
  redisStore(createClient());
  redisStore(createClientPool());
  createReceiver({ ...base, store: redisStore(new Redis()) }, (_, ctx) => same<typeof ctx, Context<'leased', never, true>>());
}

export function sqlite(): void {
  createReceiver({ ...base, store: sqliteStore(nodeSqlite) }, (_, ctx) => same<typeof ctx.tx, DatabaseSync>());
  createReceiver({ ...base, store: sqliteStore(betterSqlite) }, (_, ctx) => same<typeof ctx.tx, BetterSqlite3.Database>());
}

export function kafkajs(): void {
  const client = new Kafka({ brokers: [] });
  const [producer, consumer, admin] = [client.producer(), client.consumer({ groupId: 'g' }), client.admin()];
  const store = kafkaTransactions({ kafka: client, groupId: 'g', dedupLog: 'ids' });
  const receiver = createReceiver({ ...base, store }, (_, ctx) => same<typeof ctx.tx, KafkaTx>());
  const adapter = kafka(receiver, { consumer, admin, transactions: store, deadLetter: { producer, topic: 'dead' } });
  const settings = { autoCommit: false, eachBatchAutoResolve: false };
  const runs: ConsumerRunConfig[] = [
    adapter.run(),
    { ...settings, eachBatch: adapter.eachBatch },
    { ...settings, eachMessage: adapter.eachMessage },
  ];
  void runs.map((run) => consumer.run(run));
  const outbox = postgresOutbox(new pg.Pool(), { destinations: ['charged'] });
  relay({ outbox, to: { charged: kafkaDestination(client, 'charged') } });
}

export function sqs(): void {
  const client = new SQSClient({});
  const receiver = createReceiver({ ...base, store: sqliteStore(nodeSqlite) }, () => {});
  sqsPoller({ client, queueUrl: '', receiver });
  const sender = sqsSender({ client, queueUrl: '', key: ({ id }: Order) => id });
  void sender.send([order]);
  const outbox = postgresOutbox(new pg.Pool(), { destinations: ['charged'] });
  relay({ outbox, to: { charged: sqsDestination(client, '') } });
}
