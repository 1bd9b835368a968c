import { afterEach } from 'vitest';
import { type KafkaTransactionsOptions, kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import type { AnyHandler } from '../../../../src/handler.ts';
import { attribute, createReceiver, type Delivery } from '../../../../src/index.ts';
import { service } from '../../../support/services/index.ts';
import { clientOf, createPartitioner, processAll, readCommitted } from './rig-base.ts';

export { clientOf, deliveries, valuesOf } from './rig-base.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

export function later(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup);
}

/** Topics and a group of one test's own, on a real broker. */
export async function rig({ partitions = 1, brokers }: { partitions?: number; brokers?: readonly string[] } = {}) {
  const address = brokers ?? (await service('kafka')).brokers;
  const kafka = clientOf(address);
  const name = `tx-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
  const names = { input: `${name}-in`, output: `${name}-out`, dedupLog: `${name}-log`, groupId: `${name}-group` };
  const admin = kafka.admin();
  await admin.connect();
  later(() => admin.disconnect());
  /** Brokers learn of a new topic one after another, which kafkajs takes for an error. */
  async function createTopic(topic: string, numPartitions: number, config: Readonly<Record<string, string>> = {}): Promise<void> {
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
    await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false });
    for (let tries = 0; tries < 50; tries++) {
      const known = await admin.fetchTopicMetadata({ topics: [topic] }).then(
        ({ topics }) => topics[0]!.partitions.every(({ leader }) => leader >= 0),
        () => false,
      );
      if (known) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  await createTopic(names.input, partitions);
  await createTopic(names.output, partitions);
  const producer = kafka.producer({ createPartitioner });
  await producer.connect();
  later(() => producer.disconnect());

  const common = { kafka, groupId: names.groupId, dedupLog: names.dedupLog, createPartitioner };
  /** A worker of its own: store and receiver. Its handler publishes what it gets, unless another is given. */
  function worker(options: { store?: Partial<KafkaTransactionsOptions>; receiver?: object; handler?: AnyHandler } = {}) {
    const store = kafkaTransactions({ ...common, ...options.store });
    later(() => store.close());
    const handler: AnyHandler =
      options.handler ??
      ((payload, { tx }) => {
        tx.publish(names.output, { key: payload.id, value: payload.id, partition: 0 });
      });
    const receiver = createReceiver(
      { scope: 'test', key: attribute('id'), store, cacheSize: 0, backoff: { firstMs: 0 }, ...options.receiver },
      handler,
    );
    later(() => receiver.stop({ graceMs: 100 }));
    return {
      store,
      receiver,
      process: (deliveries: readonly Delivery[], partition = 0) => processAll(receiver, names.input, deliveries, partition),
    };
  }

  /** The group's committed offset, once it stays: a commit is answered before the broker has applied it. */
  async function committed(partition = 0): Promise<string> {
    for (let before = ''; ; ) {
      const [topic] = await admin.fetchOffsets({ groupId: names.groupId, topics: [names.input] });
      const { offset } = topic!.partitions.find((each) => each.partition === partition)!;
      if (offset === before) return offset;
      before = offset;
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
  }

  return {
    ...names,
    names,
    kafka,
    brokers: address,
    admin,
    createTopic,
    producer,
    worker,
    committed,
    read: (topic = names.output, count = partitions) => readCommitted(kafka, topic, count),
  };
}
