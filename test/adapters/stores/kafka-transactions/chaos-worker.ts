/*
 * A worker of chaos.test.ts, in a process of its own: reads orders and publishes a receipt for each. `ours` with the Kafka adapter and
 * kafkaTransactions; `plain` as the front page of kafkajs does it: `eachMessage`, `producer.send`. Leaves the group in good order on SIGTERM.
 *
 * argv: JSON of ChaosTask.
 */
import '../../../support/ends-with-parent.ts';
import { kafka as adapterOf } from '../../../../adapters/brokers/kafka/index.ts';
import { kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { attribute, createReceiver } from '../../../../src/index.ts';
import { clientOf, createPartitioner } from './rig-base.ts';

export interface ChaosTask {
  readonly kind: 'ours' | 'plain';
  readonly brokers: readonly string[];
  readonly input: string;
  readonly output: string;
  readonly dedupLog: string;
  readonly groupId: string;
}

const { kind, brokers, input, output, dedupLog, groupId } = JSON.parse(process.argv[2]!) as ChaosTask;
const client = clientOf(brokers);
const sessionTimeout = 3_000;
const consumer = client.consumer({ groupId, sessionTimeout, heartbeatInterval: 300, rebalanceTimeout: 6_000, maxWaitTimeInMs: 200 });
await consumer.connect();
await consumer.subscribe({ topics: [input], fromBeginning: true });
const slowly = () => Math.random() < 0.05 && new Promise((resolve) => setTimeout(resolve, 4));

if (kind === 'plain') {
  const producer = client.producer({ createPartitioner });
  await producer.connect();
  await consumer.run({
    eachMessage: async ({ message }) => {
      await slowly();
      await producer.send({ topic: output, messages: [{ key: message.key, value: message.headers!['id']!.toString() }] });
    },
  });
  process.once('SIGTERM', async () => {
    await consumer.disconnect();
    process.exit(0);
  });
} else {
  const store = kafkaTransactions({ kafka: client, groupId, dedupLog, createPartitioner, retentionMs: 3_600_000 });
  const receiver = createReceiver(
    {
      scope: 'chaos',
      key: attribute('id'),
      store,
      leaseMs: sessionTimeout,
      retentionMs: 3_600_000,
      backoff: { firstMs: 20 },
      groupSize: 200,
    },
    async ({ id, key }: { id: string; key: string }, ctx) => {
      await slowly();
      ctx.tx.publish(output, { key, value: id });
      if (Math.random() < 0.002) throw new TypeError('undefined is not a function');
    },
  );
  const assign = async (partition: { topic: string; partition: number }) => {
    const began = performance.now();
    const slow = setInterval(
      () => process.stderr.write(`${process.pid} assigns ${partition.partition} for ${Math.round(performance.now() - began)} ms\n`),
      4_000,
    );
    say(`assign ${partition.partition}`);
    try {
      const assigned = await store.assign(partition);
      say(`assigned ${partition.partition} at ${assigned.offset}`);
      return assigned;
    } catch (error) {
      say(`assign ${partition.partition}: ${error}`);
      throw error;
    } finally {
      clearInterval(slow);
    }
  };
  const said: string[] = [];
  const say = (text: string) => said.push(`${new Date().toISOString().slice(14, 23)} ${text}`);
  consumer.on('consumer.group_join', ({ payload }) => say(`joined ${JSON.stringify(payload.memberAssignment)}`));
  consumer.on('consumer.rebalancing', () => say('rebalancing'));
  consumer.on('consumer.crash', ({ payload }) => say(`crash ${payload.error}`));
  process.on('SIGUSR2', () =>
    process.stderr.write(`${process.pid} at ${new Date().toISOString().slice(14, 23)}: ${said.slice(-25).join('\n  ')}\n`),
  );
  const adapter = adapterOf(receiver, {
    consumer,
    transactions: {
      ...store,
      assign,
      revoke: async (partition) => {
        say(`revoke ${partition.partition}`);
        await store.revoke(partition);
        say(`revoked ${partition.partition}`);
      },
    },
    deadLetter: 'drop',
    sessionTimeoutMs: sessionTimeout,
    partitionsConsumedConcurrently: 3,
    onError: (error, during) => say(`${during}: ${error}`),
  });
  await consumer.run(adapter.run());
  process.once('SIGTERM', async () => {
    let stage = 'adapter';
    setTimeout(() => process.stderr.write(`${process.pid} still stops the ${stage}\n`), 10_000);
    await adapter.stop({ graceMs: 2_000 });
    stage = 'consumer';
    await consumer.disconnect();
    stage = 'store';
    await store.close();
    process.exit(0);
  });
}
