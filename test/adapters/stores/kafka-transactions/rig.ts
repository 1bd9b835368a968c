import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { afterEach } from 'vitest';
import {
  type KafkaTransactions,
  type KafkaTransactionsOptions,
  kafkaTransactions,
} from '../../../../adapters/stores/kafka-transactions/index.ts';
import type { AnyHandler } from '../../../../src/handler.ts';
import { attribute, createReceiver, type Delivery, type Receiver, type Verdict } from '../../../../src/index.ts';
import { service } from '../../../support/services/index.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

export function later(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup);
}

export const createPartitioner = Partitioners.DefaultPartitioner;

export function clientOf(brokers: readonly string[], more: object = {}): Kafka {
  return new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING, ...more });
}

export interface Sent {
  readonly id: string;
  readonly value?: string;
  readonly key?: string;
}

/** A message as it was read. */
export interface Read {
  readonly partition: number;
  readonly offset: string;
  readonly key: string | undefined;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
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
  await admin.createTopics({
    topics: [
      { topic: names.input, numPartitions: partitions },
      { topic: names.output, numPartitions: partitions },
    ],
  });
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

  const committed = async (partition = 0) => {
    const [topic] = await admin.fetchOffsets({ groupId: names.groupId, topics: [names.input] });
    return topic!.partitions.find((each) => each.partition === partition)!.offset;
  };

  return {
    ...names,
    kafka,
    brokers: address,
    admin,
    producer,
    worker,
    committed,
    read: (topic = names.output, count = partitions) => readCommitted(kafka, topic, count),
  };
}

/** Deliveries as the Kafka adapter makes them: offsets from `from` on. */
export function deliveries(topic: string, ids: readonly string[], { from = 0, partition = 0 } = {}): Delivery[] {
  return ids.map((id, i) => ({
    message: { id: `${topic}/${partition}/${from + i}`, body: JSON.stringify({ id }), headers: { id } },
    orderingKey: id,
  }));
}

/** Gives deliveries to a receiver, as one batch, with the offset behind the contiguous prefix of what is done. */
export function processAll(receiver: Receiver, topic: string, batch: readonly Delivery[], partition = 0): Promise<Verdict[]> {
  const done = new Set<Delivery>();
  const nextOf = (verdicts: ReadonlyMap<Delivery, Verdict>) => {
    for (const [delivery, { action }] of verdicts) if (action !== 'retry') done.add(delivery);
    const first = batch.findIndex((delivery) => !done.has(delivery));
    const offset = Number(batch[0]!.message.id.split('/').at(-1));
    return String(offset + (first < 0 ? batch.length : first));
  };
  return receiver.process(batch, {
    partition: `${topic}/${partition}`,
    committing: async (tx, verdicts) => (tx as { commitOffset(next: string): void }).commitOffset(nextOf(verdicts)),
  });
}

/** All that a reader with `read_committed` gets, up to a message that is written to each partition now. */
export async function readCommitted(kafka: Kafka, topic: string, partitions: number): Promise<Read[]> {
  const end = `end-${Math.random()}`;
  const producer = kafka.producer({ createPartitioner });
  await producer.connect();
  await producer.send({ topic, messages: Array.from({ length: partitions }, (_, partition) => ({ value: end, partition })) });
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: end, maxWaitTimeInMs: 100 });
  const read: Read[] = [];
  const ended = new Set<number>();
  const all = Promise.withResolvers<void>();
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      const value = message.value?.toString() ?? '';
      if (value === end && ended.add(partition).size === partitions) all.resolve();
      if (value.startsWith('end-')) return;
      const headers = Object.fromEntries(Object.entries(message.headers ?? {}).map(([name, text]) => [name, String(text)]));
      read.push({ partition, offset: message.offset, key: message.key?.toString(), value, headers });
    },
  });
  const timeout = setTimeout(() => all.reject(new Error(`Expected the end of ${topic} within 60 s: a transaction is left open`)), 60_000);
  await all.promise.finally(() => clearTimeout(timeout));
  await consumer.disconnect();
  return read;
}

export const valuesOf = (read: readonly Read[]): string[] => read.map(({ value }) => value);

export type { KafkaTransactions };
