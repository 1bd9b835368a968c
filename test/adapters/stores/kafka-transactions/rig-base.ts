import { Kafka, logLevel, Partitioners } from 'kafkajs';
import type { Delivery, Receiver, Verdict } from '../../../../src/index.ts';

export const createPartitioner = Partitioners.DefaultPartitioner;

export function clientOf(brokers: readonly string[], more: object = {}): Kafka {
  return new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING, ...more });
}

/** A message as it was read. */
export interface Read {
  readonly partition: number;
  readonly offset: string;
  readonly key: string | undefined;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Deliveries as the Kafka adapter makes them: offsets from `from` on. */
export function deliveries(topic: string, ids: readonly string[], { from = 0, partition = 0 } = {}): Delivery[] {
  return ids.map((id, i) => ({
    message: { id: `${topic}/${partition}/${from + i}`, body: JSON.stringify({ id }), headers: { id } },
    orderingKey: id,
  }));
}

/** Gives deliveries to a receiver, as one batch, with the offset behind the contiguous prefix of what is done of `all`. */
export function processAll(
  receiver: Receiver,
  topic: string,
  batch: readonly Delivery[],
  partition = 0,
  { all, done }: { all: readonly Delivery[]; done: Set<Delivery> } = { all: batch, done: new Set() },
): Promise<Verdict[]> {
  const offsetOf = ({ message }: Delivery) => Number(message.id.split('/').at(-1));
  return receiver.process(batch, {
    partition: `${topic}/${partition}`,
    async committing(tx, verdicts) {
      for (const [delivery, { action }] of verdicts) if (action !== 'retry') done.add(delivery);
      const first = all.find((delivery) => !done.has(delivery));
      (tx as { commitOffset(next: string): void }).commitOffset(String(first ? offsetOf(first) : offsetOf(all.at(-1)!) + 1));
    },
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
