import { sleep, type World } from '../../../src/clock.ts';
import { ReceiverError } from '../../../src/errors.ts';
import type { KafkaBatch, KafkaClient, KafkaConsumer, KafkaRecord } from './client.ts';
import { within } from './within.ts';

/** Reads partitions of the dedup log, committed records only. */
export interface LogReader {
  /** Gives each record from `offset` on to `take`, until it answers true. @throws what `take` throws, and ReceiverError `store` */
  read(partition: number, offset: string, take: (record: KafkaRecord) => boolean): Promise<void>;
  close(): Promise<void>;
}

interface Reading {
  take(record: KafkaRecord): boolean;
  done(): void;
  failed(error: unknown): void;
  /** How many batches have come. */
  batches: number;
}

interface Member {
  readonly consumer: Promise<KafkaConsumer>;
  readonly readings: Map<number, Reading>;
}

/** A consumer that is joining its group; brokers let a new group wait for 3 s by default. */
const openTimeoutMs = 15_000;
/** One from which nothing has come for so long is replaced: kafkajs may be waiting for up to 30 s after a failure, or have ended, and tells nobody. */
const stalledAfterMs = 5_000;

/**
 * kafkajs reads only as a member of a group, so this is one, of a group of its own, with one member: it has all partitions, and all but those that
 * are being read are paused. It commits nothing. Where it loses its place it begins again at the start of the log, so it never leaves out a record.
 */
export function logReader(kafka: KafkaClient, topic: string, groupPrefix: string, { clock, random }: World): LogReader {
  let current: Member | undefined;

  function join(): Member {
    // One that was replaced may still give out a batch: not to its successor's readings.
    const readings: Member['readings'] = new Map();
    return { readings, consumer: open(readings) };
  }

  async function open(readings: Member['readings']): Promise<KafkaConsumer> {
    const consumer = kafka.consumer({
      groupId: `${groupPrefix}.${random.token()}`,
      maxWaitTimeInMs: 100,
      maxBytesPerPartition: 8 << 20,
      maxBytes: 32 << 20,
      allowAutoTopicCreation: false,
    });
    try {
      await within(clock, openTimeoutMs, `a consumer of ${topic}`, async () => {
        await consumer.connect();
        await consumer.subscribe({ topics: [topic], fromBeginning: true });
        const eachBatch = (batch: KafkaBatch) => handOut(batch, readings.get(batch.batch.partition));
        await consumer.run({ autoCommit: false, partitionsConsumedConcurrently: 4, eachBatch });
      });
      consumer.pause([{ topic }]);
      return consumer;
    } catch (error) {
      void consumer.disconnect().catch(() => {});
      throw error;
    }
  }

  /** Rejects when nothing has come for some time. */
  async function stall(reading: Reading, partition: number, ended: AbortSignal): Promise<void> {
    for (let seen = -1; seen !== reading.batches && !ended.aborted; ) {
      seen = reading.batches;
      await sleep(clock, stalledAfterMs, ended);
    }
    if (!ended.aborted)
      throw new ReceiverError('store', `Expected partition ${partition} of ${topic} to be read, but nothing came for ${stalledAfterMs} ms`);
  }

  async function drop(dropped: Member | undefined): Promise<void> {
    if (dropped === current) current = undefined;
    await dropped?.consumer.then((consumer) => consumer.disconnect()).catch(() => {});
  }

  return {
    async read(partition, offset, take) {
      current ??= join();
      const member = current;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const reading: Reading = { take, done: resolve, failed: reject, batches: 0 };
      const ended = new AbortController();
      member.readings.set(partition, reading);
      try {
        const consumer = await member.consumer;
        consumer.seek({ topic, partition, offset });
        consumer.resume([{ topic, partitions: [partition] }]);
        await Promise.race([promise, stall(reading, partition, ended.signal)]);
      } catch (error) {
        void drop(member);
        throw error;
      } finally {
        ended.abort();
        member.readings.delete(partition);
      }
    },

    async close() {
      for (const { failed } of current?.readings.values() ?? []) failed(new ReceiverError('store', 'The store was closed'));
      await drop(current);
    },
  };
}

async function handOut({ batch, pause, heartbeat }: KafkaBatch, reading: Reading | undefined): Promise<void> {
  if (!reading) return void pause();
  reading.batches++;
  try {
    for (const record of batch.messages) {
      if (!reading.take(record)) continue;
      pause();
      return reading.done();
    }
    await heartbeat();
  } catch (error) {
    // Nothing may get through to kafkajs, which would stop the consumer.
    pause();
    reading.failed(error);
  }
}
