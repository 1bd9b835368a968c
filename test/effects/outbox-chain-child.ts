/**
 * One of the workers of the chain, in a process of its own: handler → outbox → relay → Kafka and SQS → receivers → ledger, all on one Postgres.
 *
 * argv: JSON of `ChainTask`. Prints a line whenever it has done something.
 */
import '../support/ends-with-parent.ts';
import { SQS } from '@aws-sdk/client-sqs';
import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { kafka, kafkaDestination } from '../../adapters/brokers/kafka/index.ts';
import { sqsDestination, sqsPoller } from '../../adapters/brokers/sqs/index.ts';
import { type PgPool, postgresOutbox, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { attribute, createReceiver, header, relay } from '../../src/index.ts';

export interface ChainTask {
  readonly role: 'handler' | 'relay' | 'kafka' | 'sqs';
  readonly url: string;
  readonly schema: string;
  readonly brokers: readonly string[];
  readonly topic: string;
  readonly endpoint: string;
  readonly queueUrl: string;
  readonly inputs: number;
  readonly keys: number;
}

const task = JSON.parse(process.argv[2]!) as ChainTask;
const { schema, topic, queueUrl, inputs, keys } = task;
const pool = new pg.Pool({ connectionString: task.url, max: 8 });
pool.on('error', () => {});
const pgPool = pool as unknown as PgPool<pg.PoolClient>;
const store = postgresStore(pgPool, { schema });
const client = new Kafka({ brokers: [...task.brokers], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 20 } });
const sqs = new SQS({ endpoint: task.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'x', secretAccessKey: 'x' } });
const outbox = postgresOutbox(pgPool, { destinations: ['orders', 'billing'], schema, leaseMs: 5_000 });
const did = () => void process.stdout.write('.\n');
const common = { leaseMs: 1_400, backoff: { firstMs: 0 } } as const;

/** The ledger has no key of its own: what happens twice is there twice. */
const enter = (tx: pg.PoolClient, via: string, n: number) => tx.query(`insert into ${schema}.ledger (via, n) values ($1, $2)`, [via, n]);

const roles: Record<ChainTask['role'], () => Promise<unknown>> = {
  /** Stands for a broker that delivers everything until it is acked; a worker that is killed gets it all again. */
  async handler() {
    const receiver = createReceiver(
      { ...common, scope: 'handler', key: attribute('id'), store, outbox },
      async ({ n }: { n: number }, ctx) => {
        const message = { body: { n }, orderingKey: `k${n % keys}` };
        await ctx.publish('orders', message);
        await ctx.publish('billing', message);
        await ctx.tx.query(`insert into ${schema}.handled values ($1)`, [n]);
      },
    );
    for (let at = 0; at < inputs; ) {
      const batch = Array.from({ length: Math.min(200, inputs - at) }, (_, i) => at + i);
      const verdicts = await receiver.process(
        batch.map((n) => ({
          message: { id: String(n), body: JSON.stringify({ n }), headers: { id: String(n) } },
          orderingKey: `k${n % keys}`,
        })),
      );
      if (verdicts.every(({ action }) => action === 'ack')) at += batch.length;
      did();
    }
    await receiver.stop();
  },

  async relay() {
    const to = { orders: kafkaDestination(client, topic), billing: sqsDestination(sqs, queueUrl) };
    const told = Object.fromEntries(
      Object.entries(to).map(([name, destination]) => [
        name,
        {
          ...destination,
          send: async (...args: Parameters<typeof destination.send>) => {
            const results = await destination.send(...args);
            did();
            return results;
          },
        },
      ]),
    ) as typeof to;
    await relay({ outbox, to: told, batchSize: 200, pollMs: 50, onError: () => {} }).run(new AbortController().signal);
  },

  async kafka() {
    const receiver = createReceiver(
      { ...common, scope: 'ledger of orders', key: header('message-id'), store },
      async ({ n }: { n: number }, ctx) => {
        await enter(ctx.tx, 'orders', n);
        did();
      },
    );
    const consumer = client.consumer({
      groupId: topic,
      sessionTimeout: 1_500,
      rebalanceTimeout: 5_000,
      heartbeatInterval: 200,
      maxWaitTimeInMs: 100,
    });
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run(kafka(receiver, { consumer, sessionTimeoutMs: 1_500, deadLetter: 'drop', onError: () => {} }).run());
    await new Promise(() => {});
  },

  async sqs() {
    const receiver = createReceiver(
      { ...common, scope: 'ledger of billing', key: attribute('idempotency-key'), store },
      async ({ n }: { n: number }, ctx) => {
        await enter(ctx.tx, 'billing', n);
        did();
      },
    );
    await sqsPoller({ client: sqs, queueUrl, receiver, polls: 4, visibilityMs: 3_000, waitMs: 1_000, onError: () => {} }).run();
  },
};

await roles[task.role]();
await pool.end();
