import { setTimeout as pause } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import { kafka } from '../../adapters/brokers/kafka/index.ts';
import type { Receiver } from '../../src/index.ts';
import type { Order } from './cell.ts';
import type { Task } from './wire.ts';

async function consumerOf(task: Task, working: () => void) {
  const client = new Kafka({
    brokers: [task.brokerUrl],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1_000,
    requestTimeout: 4_000,
    retry: { initialRetryTime: 50, maxRetryTime: 400, retries: 30 },
  });
  const consumer = client.consumer({
    groupId: task.name,
    sessionTimeout: task.times.sessionMs,
    rebalanceTimeout: 3_000,
    heartbeatInterval: 200,
    maxWaitTimeInMs: 50,
    maxBytesPerPartition: 16_384,
  });
  consumer.on('consumer.group_join', working);
  // The broker may be out for longer than kafkajs tries; and one that did not answer in time is one that kafkajs then takes for connected.
  for (;;) {
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [task.queue], fromBeginning: true });
      return consumer;
    } catch {
      await consumer.disconnect().catch(() => {});
      await pause(100);
    }
  }
}

/** Until `end`, with the adapter. */
export async function consume(task: Task, receiver: Receiver, working: () => void, end: Promise<void>): Promise<void> {
  const consumer = await consumerOf(task, working);
  const adapter = kafka(receiver, {
    consumer,
    sessionTimeoutMs: task.times.sessionMs,
    partitionsConsumedConcurrently: 3,
    maxInFlight: 50,
    deadLetter: 'drop',
    onError: () => {},
  });
  await consumer.run(adapter.run());
  await end;
  await adapter.stop({ graceMs: 2_000 });
  await consumer.disconnect();
}

/** As kafkajs's README shows it, or with the offset committed first. */
export async function consumeNaively(
  task: Task,
  effect: (order: Order) => Promise<void>,
  style: 'ack first' | 'ack last',
  working: () => void,
  end: Promise<void>,
): Promise<void> {
  const consumer = await consumerOf(task, working);
  await consumer.run({
    autoCommit: style === 'ack last',
    eachMessage: async ({ topic, partition, message }) => {
      const offset = String(BigInt(message.offset) + 1n);
      if (style === 'ack first') await consumer.commitOffsets([{ topic, partition, offset }]);
      await effect(JSON.parse(message.value!.toString()));
    },
  });
  await end;
  await consumer.disconnect();
}
