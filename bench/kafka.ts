/** What deduplication costs on Kafka: of consuming (`kafka-consumption.ts`), and of Kafka transactions (`kafka-transactions.ts`). */
import { Kafka, logLevel } from 'kafkajs';
import { service, stopAll } from '../test/support/services/index.ts';
import type { Bench } from './bench.ts';
import { consumption } from './kafka-consumption.ts';
import { transactions } from './kafka-transactions.ts';

export const bench: Bench = async ({ seconds }) => {
  try {
    const client = new Kafka({ brokers: [...(await service('kafka')).brokers], logLevel: logLevel.NOTHING });
    const parts = [await consumption(client, seconds), await transactions(client, seconds)];
    return { cases: parts.flatMap(({ cases }) => cases), aims: parts.flatMap(({ aims }) => aims) };
  } finally {
    await stopAll();
  }
};
