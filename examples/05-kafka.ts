// A kafkajs consumer with effects in Postgres, made idempotent by one line: a producer that sends again, a handler with a typo, poison. `npm run
// example -- 05-kafka` starts a broker and a database for it; others are named by TEST_KAFKA_BROKERS and TEST_POSTGRES_URL.

import { createReceiver, header, TerminalError } from 'idempotent-receiver';
import { kafka, watermark } from 'idempotent-receiver/kafka';
import { migrate, migrateWatermarks, postgresStore, postgresWatermarks } from 'idempotent-receiver/postgres';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import pg from 'pg';

interface Order {
  readonly id: string;
  readonly customer: string;
  readonly cents: number;
}

const run = `run_${Date.now()}`;
const topics = { orders: `${run}-orders`, dead: `${run}-orders.dead` };
const client = new Kafka({ brokers: (process.env['TEST_KAFKA_BROKERS'] ?? '127.0.0.1:9092').split(','), logLevel: logLevel.NOTHING });
const pool = new pg.Pool({ connectionString: process.env['TEST_POSTGRES_URL'] ?? 'postgres://postgres@127.0.0.1/postgres' });
const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
const consumer = client.consumer({ groupId: `${run}-billing`, maxWaitTimeInMs: 100 });
const admin = client.admin();
await Promise.all([producer.connect(), consumer.connect(), admin.connect()]);
await admin.createTopics({ topics: [{ topic: topics.orders, numPartitions: 3 }, { topic: topics.dead }] });

// At deployment.
await migrate(pool, { schema: run });
await migrateWatermarks(pool, { schema: run });
await pool.query(`create table ${run}.charges (order_id text, cents integer)`);

// Before: await consumer.run({ eachMessage: async ({ message }) => charge(JSON.parse(message.value)) });
const store = watermark({ store: postgresStore(pool, { schema: run }), rows: postgresWatermarks({ schema: run }) });
const receiver = createReceiver(
  {
    scope: 'billing',
    key: header('message-id'),
    store,
    backoff: { firstMs: 200 },
    on: {
      duplicate: ({ message }) => console.log(`a copy of ${message.headers['message-id']} was stopped`),
      released: ({ message, reason, error }) => console.log(`${message.headers['message-id']} will be tried again: ${error ?? reason}`),
      parked: ({ message, detail }) => console.log(`${message.headers['message-id']} was put aside: ${detail}`),
    },
  },
  async (order: Order, ctx) => {
    if (order.cents <= 0) throw new TerminalError('Nothing to charge');
    await ctx.tx.query(`insert into ${run}.charges values ($1, $2)`, [order.id, order.cents]);
    // kafkajs by itself would be dead now, for good and in silence; and the charge would have been made.
    if (order.id === 'order-2' && ctx.attempt === 1) throw new TypeError('order.customer.adress is undefined');
  },
);
const adapter = kafka(receiver, { consumer, watermark: store, admin, deadLetter: { producer, topic: topics.dead } });

await consumer.subscribe({ topics: [topics.orders], fromBeginning: true });
await consumer.run(adapter.run());

const orders: Order[] = [
  { id: 'order-1', customer: 'ann', cents: 1_000 },
  { id: 'order-2', customer: 'bob', cents: 2_000 },
  { id: 'order-3', customer: 'ann', cents: 0 },
  { id: 'order-4', customer: 'bob', cents: 4_000 },
];
// The producer sends order-1 again: another offset, the same id.
for (const order of [...orders, orders[0]!]) {
  await producer.send({
    topic: topics.orders,
    messages: [{ key: order.customer, value: JSON.stringify(order), headers: { 'message-id': order.id } }],
  });
}

const isDone = async () => {
  const [offsets] = await admin.fetchOffsets({ groupId: `${run}-billing`, topics: [topics.orders] });
  return offsets!.partitions.reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0) === 5;
};
while (!(await isDone())) await new Promise((resolve) => setTimeout(resolve, 50));
await adapter.stop();
await consumer.disconnect();

for (const { order_id, cents } of (await pool.query(`select * from ${run}.charges order by order_id`)).rows) console.log(order_id, cents);
await pool.query(`drop schema ${run} cascade`);
await Promise.all([producer.disconnect(), admin.disconnect(), pool.end()]);
