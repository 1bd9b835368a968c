import { expect, it } from 'vitest';
import { kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { kafkajsClient } from '../../brokers/kafka/model-client.ts';
import { ClusterModel } from '../../brokers/kafka/model-cluster.ts';
import { TransactionsModel } from '../../brokers/kafka/model-transactions.ts';

/** On the model that the simulator runs on, in virtual time. */
it('a world’s tokens may have any characters: the ids of records are told apart by all of them', async () => {
  const { clock, advance } = virtualWorld();
  const cluster = new ClusterModel(clock);
  cluster.createTopic('in');
  const transactions = new TransactionsModel(clock, cluster, () => 1);
  const wire = {
    now: clock.now,
    sleep: (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve)),
    call: async <T>(_: string, run: () => T | Promise<T>) => run(),
  };
  let tokens = 0;
  const store = kafkaTransactions({
    kafka: kafkajsClient(cluster, transactions, wire, 'client'),
    groupId: 'g',
    dedupLog: 'log',
    world: { clock, random: { number: () => 0.5, token: () => `worker one, ${++tokens}` } },
  });
  let offset: { offset: string | undefined } | undefined;
  void store.assign({ topic: 'in', partition: 0 }).then((assigned) => {
    offset = assigned;
  });
  await advance(3_000);
  expect(offset).toEqual({ offset: undefined });
  const closed = store.close();
  await advance(10_000);
  await closed;
});
