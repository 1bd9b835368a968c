// Kafka to Kafka, exactly once by business id: orders come in, some of them twice, each gets its customer's country and goes out. Meanwhile the
// workers are killed. `npm run example -- 06-kafka-to-kafka` starts a broker for it; another is named by TEST_KAFKA_BROKERS.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReceiver, header } from 'idempotent-receiver';
import { kafka } from 'idempotent-receiver/kafka';
import { kafkaTransactions } from 'idempotent-receiver/kafka-transactions';
import { Kafka, logLevel, Partitioners } from 'kafkajs';

interface Order {
  readonly id: string;
  readonly customer: string;
  readonly cents: number;
}

const brokers = (process.env['TEST_KAFKA_BROKERS'] ?? '127.0.0.1:9092').split(',');
const client = new Kafka({ brokers, logLevel: logLevel.NOTHING });
const createPartitioner = Partitioners.DefaultPartitioner;
const [run = `run-${Date.now()}`] = process.argv.slice(2);
const topics = { orders: `${run}-orders`, enriched: `${run}-enriched` };

if (process.argv[2]) await work();
else await main();

/** A worker: what you would deploy. It runs until it is killed. */
async function work(): Promise<void> {
  const groupId = `${run}-enrichment`;
  const consumer = client.consumer({ groupId, sessionTimeout: 6_000, heartbeatInterval: 1_000 });
  const store = kafkaTransactions({ kafka: client, groupId, dedupLog: `${run}-ids`, createPartitioner });
  const receiver = createReceiver({ scope: 'enrichment', key: header('message-id'), store, leaseMs: 6_000 }, async (order: Order, ctx) => {
    const country = order.customer.startsWith('a') ? 'AT' : 'BE';
    // Sent only if the transaction commits, together with the order's id and the offset.
    ctx.tx.publish(topics.enriched, { key: order.customer, value: JSON.stringify({ ...order, country }) });
    await new Promise((resolve) => setTimeout(resolve, 1));
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topics.orders], fromBeginning: true });
  await consumer.run(kafka(receiver, { consumer, transactions: store, deadLetter: 'drop', sessionTimeoutMs: 6_000 }).run());
}

async function main(): Promise<void> {
  const admin = client.admin();
  await admin.connect();
  const wanted = Object.values(topics).map((topic) => ({ topic, numPartitions: 3 }));
  await admin.createTopics({ topics: wanted, waitForLeaders: false });
  await new Promise((resolve) => setTimeout(resolve, 500));

  const orders = Array.from(
    { length: 3_000 },
    (_, i): Order => ({ id: `order-${i}`, customer: `${'ab'[i % 2]}${i % 40}`, cents: 100 + i }),
  );
  const copies = orders.filter((_, i) => i % 10 === 0);
  const producer = client.producer({ createPartitioner });
  await producer.connect();
  const messages = [...orders, ...copies].map((order) => ({
    // The key decides the partition, so the copies of an order are in one partition.
    key: order.customer,
    value: JSON.stringify(order),
    headers: { 'message-id': order.id },
  }));
  await producer.send({ topic: topics.orders, messages });
  await producer.disconnect();

  const start = () => spawn(process.execPath, ['--no-warnings', process.argv[1]!, run], { stdio: ['ignore', 'ignore', 'inherit'] });
  const workers = [start(), start()];
  const enriched: Order[] = [];
  const reader = client.consumer({ groupId: `${run}-reader` });
  await reader.connect();
  await reader.subscribe({ topics: [topics.enriched], fromBeginning: true });
  await reader.run({ eachMessage: async ({ message }) => void enriched.push(JSON.parse(message.value!.toString())) });

  let killed = 0;
  while (enriched.length < orders.length) {
    const before = enriched.length;
    while (enriched.length < Math.min(before + 700, orders.length)) await new Promise((resolve) => setTimeout(resolve, 50));
    if (killed === 3) continue;
    killed++;
    const victim = workers.shift()!;
    victim.kill('SIGKILL');
    workers.push(start());
  }
  // Nothing more comes, though all copies have been read.
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const different = new Set(enriched.map(({ id }) => id)).size;
  console.log(`${orders.length} orders and ${copies.length} copies came in, ${killed} workers were killed`);
  console.log(`${enriched.length} enriched orders went out, ${different} of them different`);
  process.exitCode = enriched.length === orders.length && different === orders.length ? 0 : 1;

  for (const worker of workers) {
    worker.kill('SIGKILL');
    await once(worker, 'exit');
  }
  await reader.disconnect();
  await admin.deleteTopics({ topics: [...Object.values(topics), `${run}-ids`] });
  await admin.disconnect();
}
