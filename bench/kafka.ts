/** What deduplication costs on Kafka: of consuming, of Kafka transactions, and of remembering ids. One file for each. */
import { Kafka, logLevel } from 'kafkajs';
import { service, stopAll } from '../test/support/services/index.ts';
import type { Bench } from './bench.ts';
import { consumption } from './kafka-consumption.ts';
import { rememberedIds } from './kafka-ids.ts';
import { deleteTopics } from './kafka-topics.ts';
import { transactions } from './kafka-transactions.ts';

export const bench: Bench = async ({ seconds }) => {
  try {
    const kafka = new Kafka({ brokers: [...(await service('kafka')).brokers], logLevel: logLevel.NOTHING });
    const consumed = await consumption(kafka, seconds);
    const sent = await transactions(kafka, seconds);
    const aims = [...consumed.aims, ...sent.aims, ...(await rememberedIds(kafka))];
    await deleteTopics(kafka);
    return { cases: [...consumed.cases, ...sent.cases], aims };
  } finally {
    await stopAll();
  }
};
