/** How fast a new owner of a partition reads its ids from the dedup log, and what they take of its memory. */
import { randomBytes, randomFillSync } from 'node:crypto';
import { kafkaTransactions } from 'idempotent-receiver/kafka-transactions';
import { type Kafka, Partitioners } from 'kafkajs';
import { entryWords } from '../adapters/stores/kafka-transactions/ids.ts';
import { encodeRecord } from '../adapters/stores/kafka-transactions/record.ts';
import type { Aim } from './bench.ts';
import { makeTopic } from './kafka-topics.ts';

const createPartitioner = Partitioners.DefaultPartitioner;
const ids = 10_000_000;
/** In each record, as units of 500 messages write them. */
const perRecord = 500;
const recordsAtOnce = 40;

export async function rememberedIds(kafka: Kafka): Promise<readonly Aim[]> {
  const input = await makeTopic(kafka, 'remembered', 1);
  const partition = { topic: input, partition: 0 };
  const options = { kafka, groupId: input, dedupLog: `${input}-ids`, createPartitioner };
  const before = kafkaTransactions(options);
  await before.assign(partition);
  await before.close();
  const producer = kafka.producer({ createPartitioner });
  await producer.connect();
  for (let written = 0; written < ids; written += recordsAtOnce * perRecord) {
    const messages = Array.from({ length: recordsAtOnce }, () => {
      const entries = randomFillSync(new Int32Array(perRecord * entryWords));
      const value = encodeRecord({ kind: 'unit', id: randomBytes(16), probation: { limit: 0, left: 0 }, entries, notes: [] });
      return { key: `${input}/${input}`, value, partition: 0 };
    });
    await producer.send({ topic: options.dedupLog, messages });
  }
  await producer.disconnect();
  const store = kafkaTransactions(options);
  const began = performance.now();
  await store.assign(partition);
  const ms = performance.now() - began;
  const read = store.stats();
  await store.close();
  if (read.ids !== ids) throw new Error(`Expected ${ids} ids, got ${read.ids}`);
  return [
    { name: 'ids a second that a new owner of ten million reads', measured: Math.round((ids / ms) * 1_000), atLeast: 2_000_000 },
    { name: 'bytes of memory for each of them', measured: Number((read.bytes / ids).toFixed(1)), atMost: 32 },
  ];
}
