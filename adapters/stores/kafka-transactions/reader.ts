import type { World } from '../../../src/clock.ts';
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
}

/**
 * kafkajs reads only as a member of a group, so this is one, of a group of its own, with one member: it has all partitions, and all but those that
 * are being read are paused. It commits nothing. Where it loses its place it begins again at the start of the log, so it never leaves out a record.
 */
export function logReader(
  kafka: KafkaClient,
  options: { readonly topic: string; readonly groupPrefix: string; readonly timeoutMs: number; readonly world: World },
): LogReader {
  const { topic, timeoutMs, world } = options;
  const readings = new Map<number, Reading>();
  let consumer: Promise<KafkaConsumer> | undefined;

  async function open(): Promise<KafkaConsumer> {
    const opening = kafka.consumer({
      groupId: `${options.groupPrefix}.${world.random.token()}`,
      maxWaitTimeInMs: 100,
      maxBytesPerPartition: 8 << 20,
      maxBytes: 32 << 20,
      allowAutoTopicCreation: false,
    });
    try {
      await opening.connect();
      await opening.subscribe({ topics: [topic], fromBeginning: true });
      await opening.run({ autoCommit: false, partitionsConsumedConcurrently: 4, eachBatch });
      opening.pause([{ topic }]);
      return opening;
    } catch (error) {
      void opening.disconnect().catch(() => {});
      throw error;
    }
  }

  async function eachBatch({ batch, pause, heartbeat }: KafkaBatch): Promise<void> {
    const reading = readings.get(batch.partition);
    if (!reading) return void pause();
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

  async function drop(): Promise<void> {
    const dropped = consumer;
    consumer = undefined;
    await dropped?.then((each) => each.disconnect()).catch(() => {});
  }

  return {
    async read(partition, offset, take) {
      const reading = Promise.withResolvers<void>();
      readings.set(partition, { take, done: reading.resolve, failed: reading.reject });
      try {
        await within(world.clock, timeoutMs, `partition ${partition} of ${topic} to be read`, async () => {
          consumer ??= open();
          const reader = await consumer;
          reader.seek({ topic, partition, offset });
          reader.resume([{ topic, partitions: [partition] }]);
          await reading.promise;
        });
      } catch (error) {
        // It may have ended by itself: kafkajs tells nobody. The next read makes a new one, the others that are under way fail with it.
        if (readings.get(partition)?.done === reading.resolve) void drop();
        throw error;
      } finally {
        readings.delete(partition);
      }
    },

    async close() {
      for (const { failed } of readings.values()) failed(new ReceiverError('store', 'The store was closed'));
      await drop();
    },
  };
}
