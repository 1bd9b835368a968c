import { setTimeout as pause } from 'node:timers/promises';
import { Partitioners } from 'kafkajs';
import { describe, expect, it } from 'vitest';
import { type KafkaTransactionsOptions, type KafkaTx, kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { createReceiver, header, TerminalError } from '../../../../src/index.ts';
import { unique } from '../../../support/unique.ts';
import { ids, later, type Rig, rig, until, type WorkerOptions } from './rig.ts';

const createPartitioner = Partitioners.DefaultPartitioner;

async function place({ partitions = 1 } = {}) {
  const at = await rig({ partitions });
  const output = await at.newTopic(partitions);
  const names = { groupId: at.groupId, dedupLog: unique('log') };
  const publish = ({ id }: { id: string }, { tx, message }: { tx: KafkaTx; message: any }) =>
    tx.publish(output, { key: id, value: id, partition: message.partition });

  async function worker(
    handler: (payload: { id: string }, context: any) => unknown = publish,
    options: WorkerOptions & { store?: Partial<KafkaTransactionsOptions>; receiver?: object } = {},
  ) {
    const { store: storeOptions, receiver: receiverOptions, ...more } = options;
    const transactions = kafkaTransactions({ kafka: at.client, ...names, createPartitioner, ...storeOptions });
    later(() => transactions.close());
    const receiver = createReceiver(
      {
        scope: 'test',
        key: header('message-id'),
        store: transactions,
        backoff: { firstMs: 50 },
        groupSize: 50,
        cacheSize: 0,
        ...receiverOptions,
      },
      handler,
    );
    return at.worker(receiver, { transactions, maxInFlight: 100, ...more });
  }

  return { ...at, names, output, worker, publish, published: async () => (await at.read(output)).map(({ value }) => value!.toString()) };
}

const isCommitted = ({ committed }: Pick<Rig, 'committed'>, offset: number, partition = 0) =>
  until(async () => (await committed(partition)) === offset, `offset ${offset} of ${partition} to be committed`);

describe('with a store whose transactions commit the offsets', () => {
  it('offsets commit with what handlers publish, and by no request of the consumer', async () => {
    const here = await place();
    await here.produce(ids(300).flatMap((id, i) => [{ id, key: `k${i % 9}` }, ...(i % 10 === 0 ? [{ id, key: `k${i % 9}` }] : [])]));
    const { consumer, errors } = await here.worker();
    let commits = 0;
    consumer.on('consumer.commit_offsets', () => void commits++);
    await isCommitted(here, 330);
    expect(await here.published()).toHaveLength(300);
    expect((await here.published()).toSorted()).toEqual(ids(300).toSorted());
    expect(commits).toBe(0);
    expect(errors).toEqual([]);
  });

  it('where reading begins is committed before anything is handled: a group that reads from the end must not skip what it died of', async () => {
    const here = await place();
    await here.produce(ids(5).map((id) => ({ id })));
    const committedAt: number[] = [];
    let hasFetched = false;
    const look = async () => {
      // What a transaction has committed is shown a moment later.
      await until(async () => (await here.committed()) >= 0, 'an offset', 5_000).catch(() => {});
      committedAt.push(await here.committed());
    };
    await here.worker(look, {
      start: async (consumer, adapter) => {
        consumer.on('consumer.fetch', () => void (hasFetched = true));
        await consumer.subscribe({ topics: [here.topic], fromBeginning: false });
        await consumer.run(adapter.run());
      },
    });
    await until(() => hasFetched, 'the end to be known');
    await here.produce([{ id: 'm5' }]);
    await isCommitted(here, 6);
    expect(committedAt).toEqual([5]);
  });

  it('a message that failed and one that can never succeed hold their offsets until they are done, and no transaction passes them', async () => {
    const here = await place();
    let failures = 2;
    const dead: string[] = [];
    await here.produce(ids(60).map((id) => ({ id })));
    await here.worker(
      (payload, context) => {
        if (payload.id === 'm20' && failures-- > 0) throw new TypeError('again');
        if (payload.id === 'm30') throw new TerminalError('never');
        here.publish(payload, context);
      },
      {
        deadLetter: async ({ record }) => {
          await pause(300);
          dead.push(record.headers['message-id']!);
        },
      },
    );
    await isCommitted(here, 60);
    expect(dead).toEqual(['m30']);
    expect((await here.published()).toSorted()).toEqual(
      ids(60)
        .filter((id) => id !== 'm30')
        .toSorted(),
    );
  });

  it('a rebalance in the middle of batches publishes each message once', async () => {
    const here = await place({ partitions: 2 });
    const slow = async (payload: { id: string }, context: any) => {
      await pause(4);
      here.publish(payload, context);
    };
    await here.produce(ids(600).map((id, i) => ({ id, partition: i % 2 })));
    await here.worker(slow);
    await until(async () => (await here.committed(0)) > 0, 'the first to have committed');
    await here.worker(slow);
    await isCommitted(here, 300, 0);
    await isCommitted(here, 300, 1);
    expect((await here.published()).toSorted()).toEqual(ids(600).toSorted());
  });

  it('a partition that somebody has fenced is taken back only after a heartbeat has proved that it is ours, and nothing is published twice', async () => {
    const here = await place();
    const { consumer, errors } = await here.worker(undefined, { consumer: { heartbeatInterval: 1_500 } });
    await here.produce(ids(50).map((id) => ({ id })));
    await isCommitted(here, 50);
    const stray = kafkaTransactions({ kafka: here.client, ...here.names, createPartitioner });
    later(() => stray.close());
    await stray.assign({ topic: here.topic, partition: 0 });
    let provenAt = 0;
    consumer.on('consumer.heartbeat', () => void (provenAt ||= performance.now()));
    const fencedAt = performance.now();
    await here.produce(ids(50, 50).map((id) => ({ id })));
    await isCommitted(here, 100);
    expect(provenAt).toBeGreaterThan(fencedAt);
    expect((await here.published()).toSorted()).toEqual(ids(100).toSorted());
    expect(errors).toEqual([]);
  });
});
