import { expect, it } from 'vitest';
import { kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { kafkajsClient } from '../../brokers/kafka/model-client.ts';
import { ClusterModel } from '../../brokers/kafka/model-cluster.ts';
import { TransactionsModel } from '../../brokers/kafka/model-transactions.ts';

/** On the model that the simulator runs on, in virtual time. */
function stand() {
  const { clock, advance } = virtualWorld();
  const cluster = new ClusterModel(clock);
  cluster.createTopic('in');
  const transactions = new TransactionsModel(clock, cluster, () => 1);
  const sleep = (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve));
  let tokens = 0;

  /** `hangs` says which requests of this worker get nowhere. */
  function worker(name: string, hangs: (request: string) => boolean = () => false) {
    const call = async <T>(request: string, run: () => T | Promise<T>) => (hangs(request) ? new Promise<T>(() => {}) : run());
    return kafkaTransactions({
      kafka: kafkajsClient(cluster, transactions, { now: clock.now, sleep, call }, name),
      groupId: 'g',
      dedupLog: 'log',
      flushTimeoutMs: 3_000,
      takeOverTimeoutMs: 10_000,
      world: { clock, random: { number: () => 0.5, token: () => `worker one, ${++tokens}` } },
    });
  }

  /** What comes of it within so much time. */
  async function within<T>(ms: number, task: Promise<T>): Promise<T | string> {
    let outcome: T | string = 'nothing yet';
    void task.then(
      (result) => (outcome = result),
      (error: Error & { code?: string }) => (outcome = `${error.code}`),
    );
    await advance(ms);
    return outcome;
  }

  return { worker, within };
}

const partition = { topic: 'in', partition: 0 };

/** A unit that does nothing but to commit how far the partition has been read. */
const commits = (store: ReturnType<ReturnType<typeof stand>['worker']>, offset: string) =>
  store.unit(async (unit) => {
    await unit.savepoint(async (tx) => (tx as unknown as { commitOffset(next: string): void }).commitOffset(offset));
    return 'committed';
  }, 'in/0');

it('a world’s tokens may have any characters: the ids of records are told apart by all of them', async () => {
  const { worker, within } = stand();
  const store = worker('client');
  expect(await within(3_000, store.assign(partition))).toEqual({ offset: undefined });
  await within(10_000, store.close());
});

it('a commit that gets no answer is settled, but who finds then that somebody else was assigned the partition takes no offset back', async () => {
  const { worker, within } = stand();
  let hangs = false;
  const old = worker('old', (request) => hangs && request === 'EndTxn');
  const owner = worker('owner');
  expect(await within(3_000, old.assign(partition))).toEqual({ offset: undefined });
  hangs = true;
  const inDoubt = commits(old, '1');
  expect(await within(1_000, inDoubt)).toBe('nothing yet');
  expect(await within(1_500, owner.assign(partition))).toEqual({ offset: undefined });
  expect(await within(200, commits(owner, '2'))).toBe('committed');
  hangs = false;
  expect(await within(5_000, inDoubt)).toBe('claim-lost');
  expect(await within(1_000, commits(old, '0'))).toBe('claim-lost');
  // It was fenced, once, and goes on from what it had committed.
  expect(await within(1_000, commits(owner, '3'))).toBe('claim-lost');
  expect(await within(5_000, owner.assign(partition))).toEqual({ offset: '2' });
  expect(await within(1_000, commits(owner, '3'))).toBe('committed');
  await within(10_000, Promise.all([old.close(), owner.close()]));
});

it('a take-over whose partition has been given back before it began does not fence whoever has the partition by then', async () => {
  const { worker, within } = stand();
  const old = worker('old');
  const owner = worker('owner');
  expect(await within(3_000, owner.assign(partition))).toEqual({ offset: undefined });
  const late = old.assign(partition);
  const left = old.revoke(partition);
  expect(await within(5_000, late)).toBe('claim-lost');
  await left;
  expect(await within(1_000, commits(owner, '1'))).toBe('committed');
  await within(10_000, Promise.all([old.close(), owner.close()]));
});
