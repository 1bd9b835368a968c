import { setTimeout as pause } from 'node:timers/promises';
import { type Consumer, type ConsumerConfig, Kafka, type KafkaMessage, logLevel, Partitioners } from 'kafkajs';
import { afterEach } from 'vitest';
import { type KafkaAdapter, type KafkaOptions, kafka } from '../../../../adapters/brokers/kafka/index.ts';
import type { Receiver } from '../../../../src/index.ts';
import { service } from '../../../support/services/index.ts';
import { unique } from '../../../support/unique.ts';

const cleanups: (() => Promise<unknown>)[] = [];

/** After each test, the last thing first. */
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

export function later(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup);
}

export interface Produced {
  readonly id: string;
  readonly key?: string | null;
  readonly value?: string | Buffer | null;
  readonly partition?: number;
  readonly headers?: Record<string, string | Buffer>;
}

/** A topic and a group of one test's own, on a real broker. */
export async function rig({
  partitions = 1,
  config = {},
  brokers,
}: {
  partitions?: number;
  config?: Record<string, string>;
  brokers?: readonly string[];
} = {}) {
  const address = brokers ?? (await service('kafka')).brokers;
  const client = clientOf(address);
  const topic = unique('topic');
  const groupId = unique('group');
  const admin = client.admin();
  await admin.connect();
  later(() => admin.disconnect());
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }] });
  // A broker that has just been started is still loading its groups.
  const isReady = () =>
    admin.fetchOffsets({ groupId, topics: [topic] }).then(
      () => true,
      () => false,
    );
  await until(isReady, 'the broker to know its groups');
  const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  later(() => producer.disconnect());

  return {
    client,
    brokers: address,
    topic,
    groupId,
    admin,
    producer,
    async produce(messages: readonly Produced[], to = topic): Promise<void> {
      await producer.send({
        topic: to,
        messages: messages.map(({ id, key = id, value = JSON.stringify({ id }), headers, ...more }) => ({
          key,
          value,
          headers: { 'message-id': id, ...headers },
          ...more,
        })),
      });
    },
    async newTopic(numPartitions = 1): Promise<string> {
      const name = unique('topic');
      await admin.createTopics({ topics: [{ topic: name, numPartitions }] });
      return name;
    },
    /** The committed offset; -1 if there is none. */
    async committed(partition = 0): Promise<number> {
      const [found] = await admin.fetchOffsets({ groupId, topics: [topic] });
      return Number(found!.partitions.find((each) => each.partition === partition)!.offset);
    },
    /** A consumer of the group, with an adapter around a receiver. */
    async worker(receiver: Receiver, options: WorkerOptions = {}): Promise<Worker> {
      const {
        client: own = clientOf(address),
        consumer: consumerConfig,
        start = (consumer, adapter) => consumer.run(adapter.run()),
        adapterConsumer,
        ...more
      } = options;
      const consumer = own.consumer({ groupId, maxWaitTimeInMs: 100, heartbeatInterval: 200, sessionTimeout: 6_000, ...consumerConfig });
      const errors: Worker['errors'] = [];
      const crashes: Error[] = [];
      consumer.on('consumer.crash', ({ payload }) => void crashes.push(payload.error));
      const adapter = kafka(receiver, {
        consumer: adapterConsumer ?? consumer,
        deadLetter: 'drop',
        sessionTimeoutMs: 60_000,
        onError: (error, during) => void errors.push({ error, during }),
        ...more,
      });
      await consumer.connect();
      await consumer.subscribe({ topics: [topic], fromBeginning: true });
      await start(consumer, adapter);
      const stop = async () => {
        await adapter.stop({ graceMs: 2_000 });
        await consumer.disconnect();
      };
      later(stop);
      return { consumer, adapter, errors, crashes, stop };
    },
    /** All that a reader with `read_committed` gets, up to a message that is written to each partition now. */
    async read(from: string): Promise<KafkaMessage[]> {
      const end = unique('end');
      const partitions = (await admin.fetchTopicOffsets(from)).map(({ partition }) => partition);
      await producer.send({ topic: from, messages: partitions.map((partition) => ({ value: end, partition })) });
      const found: KafkaMessage[] = [];
      let ended = 0;
      const consumer = client.consumer({ groupId: end, maxWaitTimeInMs: 100 });
      await consumer.connect();
      await consumer.subscribe({ topics: [from], fromBeginning: true });
      const eachMessage = async ({ message }: { message: KafkaMessage }) => {
        if (message.value?.toString() === end) ended++;
        else if (!message.value?.toString().startsWith('end_')) found.push(message);
      };
      await consumer.run({ autoCommit: false, eachMessage });
      await until(() => ended === partitions.length, `the end of ${from}: is a transaction left open?`);
      await consumer.disconnect();
      return found;
    },
  };
}

export type Rig = Awaited<ReturnType<typeof rig>>;

export type WorkerOptions = Partial<Omit<KafkaOptions, 'consumer'>> & {
  client?: Kafka;
  /** The consumer that the adapter is given, if it is not the one that runs. */
  adapterConsumer?: Consumer;
  consumer?: Partial<ConsumerConfig>;
  start?: (consumer: Consumer, adapter: KafkaAdapter) => Promise<void>;
};

export interface Worker {
  readonly consumer: Consumer;
  readonly adapter: KafkaAdapter;
  readonly errors: { error: unknown; during: string }[];
  readonly crashes: Error[];
  stop(): Promise<void>;
}

export function clientOf(brokers: readonly string[], retry = {}): Kafka {
  return new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, ...retry } });
}

/** Waits for something that real processes have to do. */
export async function until(isSo: () => boolean | Promise<boolean>, what: string, withinMs = 25_000): Promise<void> {
  for (const giveUpAt = performance.now() + withinMs; !(await isSo()); await pause(20)) {
    if (performance.now() > giveUpAt) throw new Error(`Expected ${what} within ${withinMs} ms`);
  }
}

export const ids = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `m${from + i}`);
