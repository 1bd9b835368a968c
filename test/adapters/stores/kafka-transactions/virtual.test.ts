import { describe, expect, it } from 'vitest';
import { kafkaTransactions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { digest } from '../../../../src/digest.ts';
import type { Key } from '../../../../src/store.ts';
import { virtualWorld } from '../../../../src/testing/virtual-world.ts';
import { kafkajsClient } from '../../brokers/kafka/model-client.ts';
import { ClusterModel } from '../../brokers/kafka/model-cluster.ts';
import { TransactionsModel } from '../../brokers/kafka/model-transactions.ts';

/** On the model that the simulator runs on, in virtual time. */
function stand() {
  const { clock, advance } = virtualWorld();
  const cluster = new ClusterModel(clock);
  cluster.createTopic('in');
  cluster.createTopic('other');
  const transactions = new TransactionsModel(clock, cluster, () => 1);
  const sleep = (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve));
  let tokens = 0;

  /** `hangs` says which requests of this worker get nowhere, or no reply; `fails` which are refused. */
  function worker(
    name: string,
    hangs: (request: string) => boolean | 'reply' = () => false,
    fails: (request: string) => boolean = () => false,
  ) {
    const call = async <T>(request: string, run: () => T | Promise<T>) => {
      if (fails(request)) throw Object.assign(new Error(`${request} failed`), { retriable: false });
      const hung = hangs(request);
      if (hung === 'reply') await run();
      return hung ? new Promise<T>(() => {}) : run();
    };
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

/** How many of so many messages one unit takes. */
const takes = (store: ReturnType<ReturnType<typeof stand>['worker']>, count: number) =>
  store.unit(async (unit) => {
    const asks = Array.from({ length: count }, (_, i) => ({
      key: digest([`m${i}`], 32) as Key,
      fingerprint: '',
      token: `t${i}`,
      leaseMs: 1_000,
      retainMs: 60_000,
    }));
    const answers = await unit.record(asks);
    return answers.filter(({ state }) => state === 'claimed').length;
  }, 'in/0');

it('a topic that is not there, or does not fit, does not keep the store from the right one', async () => {
  const { worker, within } = stand();
  const store = worker('client');
  expect(await within(3_000, store.assign({ topic: 'inn', partition: 0 }))).toBe('broker');
  expect(await within(3_000, store.assign(partition))).toEqual({ offset: undefined });
  expect(await within(1_000, commits(store, '1'))).toBe('committed');
  expect(await within(3_000, store.assign({ topic: 'other', partition: 0 }))).toBe('broker');
  await within(10_000, store.close());
});

it('a result is refused rather than forgotten, also where no receiver has asked before', async () => {
  const { worker, within } = stand();
  const store = worker('client');
  await within(3_000, store.assign(partition));
  const key = digest(['m'], 32) as Key;
  const kept = store.unit(async (unit) => {
    await unit.record([{ key, fingerprint: '', token: 't', leaseMs: 1_000, retainMs: 60_000 }]);
    await unit.settle([{ key, token: 't', as: 'completed', result: '1', retainMs: 60_000 }]);
  }, 'in/0');
  expect(await within(1_000, kept)).toBe('store');
  await within(10_000, store.close());
});

describe('nobody has died, and the next owner takes as many messages as it likes, when', () => {
  // The consumer that reads the log asks for its offsets too, when it joins.
  it.each(['the log could not be read', 'the offset could not be read'])('a take-over was given up, as often as %s', async (what) => {
    const { worker, within } = stand();
    let fails = false;
    const store = worker('client', undefined, (request) => fails && request === 'OffsetFetch');
    if (what.startsWith('the offset')) {
      await within(5_000, store.assign(partition));
      await within(5_000, store.revoke(partition));
    }
    fails = true;
    for (let tries = 0; tries < 3; tries++) expect(await within(12_000, store.assign(partition))).toBe('store');
    fails = false;
    expect(await within(5_000, store.assign(partition))).toEqual({ offset: undefined });
    expect(await within(1_000, takes(store, 100))).toBe(100);
    await within(10_000, store.close());
  });

  it.each([
    ['before it was its own', 'OffsetFetch', 1],
    ['when it was told to be its own', 'EndTxn', 2],
  ])('a partition was given back while it was taken over, %s', async (_, request, time) => {
    const { worker, within } = stand();
    let left = 0;
    const old = worker('old', (name) => name === request && --left === 0 && 'reply');
    for (let times = 0; times < 3; times++) {
      left = time;
      const taking = old.assign(partition);
      expect(await within(2_000, taking)).toBe('nothing yet');
      expect(left).toBe(0);
      await within(30_000, old.revoke(partition));
    }
    const owner = worker('owner');
    expect(await within(5_000, owner.assign(partition))).toEqual({ offset: undefined });
    expect(await within(1_000, takes(owner, 100))).toBe(100);
    await within(30_000, Promise.all([old.close(), owner.close()]));
  });
});
