/**
 * What a Kafka transaction with deduplication costs, against a plain send of the same messages: parse an order, publish it. Each way
 * has a topic of its own, on one broker, and every one is done once all brokers have it.
 */
import { attribute, createReceiver, type Delivery } from 'idempotent-receiver';
import { type KafkaTx, kafkaTransactions } from 'idempotent-receiver/kafka-transactions';
import { type Kafka, Partitioners } from 'kafkajs';
import { type Aim, type CaseResult, type Contender, comparing, sideBySide } from './bench.ts';
import { makeTopic } from './kafka-topics.ts';

const createPartitioner = Partitioners.DefaultPartitioner;
const partitions = 3;
/** Messages of one call of `run`, in all ways. */
const together = 8_000;
const text = 'x'.repeat(200);

const retry = { initialRetryTime: 5, retries: 20 };

function deliveries(input: string, batch: number, count: number, at: number): Delivery[] {
  return Array.from({ length: count }, (_, i) => {
    const id = `order-${batch}-${at + i}`;
    return { message: { id: `${input}/0/${batch * together + at + i}`, body: JSON.stringify({ id, text }), headers: { id } } };
  });
}

/** The message that a handler would publish, with headers of the same size as the store's. */
function outgoingOf({ message }: Delivery) {
  const { id, text } = JSON.parse(message.body as string) as { id: string; text: string };
  return { key: id, value: text, headers: { 'message-id': `${'k'.repeat(32)}.0`, 'causation-id': message.id } };
}

async function plainSend(kafka: Kafka, name: string, size: number): Promise<Contender> {
  const output = await makeTopic(kafka, `plain-${size}`, partitions);
  const producer = kafka.producer({ createPartitioner });
  await producer.connect();
  return {
    name,
    async run(batch) {
      for (let at = 0; at < together; at += size)
        await producer.send({ topic: output, messages: deliveries('input', batch, size, at).map(outgoingOf) });
      return together;
    },
    close: () => void producer.disconnect(),
  };
}

/** The least that a transaction by hand is: messages and offset. No ids, so a producer's duplicate goes through. */
async function byHand(kafka: Kafka, name: string, size: number): Promise<Contender> {
  const output = await makeTopic(kafka, `by-hand-${size}`, partitions);
  const producer = kafka.producer({ createPartitioner, transactionalId: output, maxInFlightRequests: 1, retry });
  await producer.connect();
  return {
    name,
    async run(batch) {
      for (let at = 0; at < together; at += size) {
        const tx = await producer.transaction();
        await tx.send({ topic: output, messages: deliveries('input', batch, size, at).map(outgoingOf) });
        const offset = String(batch * together + at + size);
        await tx.sendOffsets({ consumerGroupId: output, topics: [{ topic: output, partitions: [{ partition: 0, offset }] }] });
        await tx.commit();
      }
      return together;
    },
    close: () => void producer.disconnect(),
  };
}

async function withIds(kafka: Kafka, name: string, size: number): Promise<Contender> {
  const [input, output] = [await makeTopic(kafka, `input-${size}`, 1), await makeTopic(kafka, `output-${size}`, partitions)];
  const store = kafkaTransactions({ kafka, groupId: input, dedupLog: `${input}-ids`, createPartitioner });
  await store.assign({ topic: input, partition: 0 });
  const receiver = createReceiver(
    { scope: 'bench', key: attribute('id'), store, groupSize: size },
    (order: { id: string; text: string }, ctx) => ctx.tx.publish(output, { key: order.id, value: order.text }),
  );
  return {
    name,
    async run(batch) {
      // As the Kafka adapter does: the next messages are taken while the last ones commit.
      const flying: Promise<void>[] = [];
      for (let at = 0; at < together; at += size) {
        const next = String(batch * together + at + size);
        const committing = async (tx: unknown) => (tx as KafkaTx & { commitOffset(next: string): void }).commitOffset(next);
        const verdicts = receiver.process(deliveries(input, batch, size, at), { partition: `${input}/0`, committing });
        flying.push(
          verdicts.then((all) => {
            const bad = all.find((verdict) => verdict.action !== 'ack' || verdict.outcome !== 'completed');
            if (bad) throw new Error(`Expected every message to be handled, got ${JSON.stringify(bad)}`);
          }),
        );
        if (flying.length > 2) await flying.shift();
      }
      await Promise.all(flying);
      return together;
    },
    close: () => void receiver.stop().then(() => store.close()),
  };
}

export async function transactions(kafka: Kafka, seconds: number): Promise<{ cases: readonly CaseResult[]; aims: readonly Aim[] }> {
  const plain = (size: number) => `plain send, ${size} at once`;
  const hand = (size: number) => `transaction by hand, no ids, ${size} in each`;
  const ours = (size: number) => `kafkaTransactions, ${size} in each`;
  const contenders: Contender[] = [];
  for (const size of [500, 2_000]) {
    contenders.push(await plainSend(kafka, plain(size), size), await byHand(kafka, hand(size), size));
    contenders.push(await withIds(kafka, ours(size), size));
  }
  const cases = await sideBySide(contenders, { seconds });
  const compare = comparing(cases);
  return {
    cases,
    aims: [
      { name: 'transactions of 500 messages against a plain send of the same messages', ...compare(ours(500), plain(500)), atLeast: 0.4 },
      {
        name: 'transactions of 2,000 messages against a plain send of the same messages',
        ...compare(ours(2_000), plain(2_000)),
        atLeast: 0.7,
      },
    ],
  };
}
