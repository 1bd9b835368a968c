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
  const requests: string[] = [];

  /** `requests` are all that this worker has made; `meets` says what becomes of one: it may wait, or get nowhere, or its reply may. */
  function worker(name: string, meets: (request: string) => Promise<void> | 'lost' | 'reply lost' | undefined = () => undefined) {
    const never = new Promise<never>(() => {});
    const call = async <T>(request: string, run: () => T | Promise<T>): Promise<T> => {
      requests.push(request);
      const fate = meets(request);
      if (fate === 'lost') return never;
      await (typeof fate === 'string' ? undefined : fate);
      const answer = await run();
      return fate === 'reply lost' ? never : answer;
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

  return { worker, within, requests };
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
  const old = worker('old', (request) => (hangs && request === 'EndTxn' ? 'lost' : undefined));
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

const sending = ['AddPartitionsToTxn', 'Produce', 'AddOffsetsToTxn', 'TxnOffsetCommit'];

/** A worker that owns the partition, and three units: what becomes of the first one's EndTxn, all others get through. */
async function three(fate: () => Promise<void> | 'lost' | 'reply lost' | undefined) {
  const made = stand();
  const { worker, within, requests } = made;
  let met = true;
  const store = worker('worker', (request) => {
    if (request !== 'EndTxn' || met) return undefined;
    met = true;
    return fate();
  });
  expect(await within(3_000, store.assign(partition))).toEqual({ offset: undefined });
  met = false;
  requests.length = 0;
  const units = [commits(store, '1'), commits(store, '2'), commits(store, '3')];
  async function outcomes(ms: number) {
    await within(ms, Promise.allSettled(units));
    return Promise.all(units.map((unit) => within(0, unit)));
  }
  /** What was asked of the coordinators and the partitions. */
  const asked = () => requests.filter((request) => [...sending, 'EndTxn'].includes(request));
  /** What the next owner finds, who waits for no timeout. */
  const found = async () => within(2_500, worker('next').assign(partition));
  return { ...made, store, outcomes, asked, found };
}

it('while one commits the next is sent, but for its commit; the one behind it waits', async () => {
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const { asked, outcomes, found } = await three(() => gate);
  expect(await outcomes(1_000)).toEqual(['nothing yet', 'nothing yet', 'nothing yet']);
  expect(asked()).toEqual([...sending, 'EndTxn', ...sending]);
  open();
  expect(await outcomes(1_000)).toEqual(['committed', 'committed', 'committed']);
  expect(asked().filter((request) => request === 'EndTxn').length).toBe(3);
  expect(await found()).toEqual({ offset: '3' });
});

it('one whose reply was lost has committed, and the next, which its producers’ end has undone, is sent anew', async () => {
  const { asked, outcomes, found } = await three(() => 'reply lost');
  expect(await outcomes(6_000)).toEqual(['committed', 'committed', 'committed']);
  // The three units, the mark of the take-over, and one of them again.
  expect(asked().filter((request) => request === 'Produce').length).toBe(5);
  expect(await found()).toEqual({ offset: '3' });
});

it('one that has not committed takes those with it that were sent meanwhile', async () => {
  const { store, within, outcomes, found } = await three(() => 'lost');
  expect(await outcomes(6_000)).toEqual(['store', 'store', 'store']);
  expect(await within(1_000, commits(store, '1'))).toBe('committed');
  expect(await found()).toEqual({ offset: '1' });
});

it('given back while one commits and the next has been sent: the next is aborted, and whoever reads what it has sent waits for no timeout', async () => {
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const { store, within, asked, outcomes, found } = await three(() => gate);
  await outcomes(1_000);
  const revoked = store.revoke(partition).then(() => 'revoked');
  open();
  expect(await within(1_000, revoked)).toBe('revoked');
  expect(await outcomes(0)).toEqual(['committed', 'claim-lost', 'claim-lost']);
  // That of the first, the abort of the second, and that of the record that says so.
  expect(asked().filter((request) => request === 'EndTxn').length).toBe(3);
  expect(await found()).toEqual({ offset: '1' });
});

it('one that comes while another is being settled waits for the new producers, and commits if that one has', async () => {
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const { worker, within, requests } = stand();
  let settling = false;
  const store = worker('worker', (request) => {
    if (!settling) return undefined;
    return request === 'EndTxn' ? 'reply lost' : request === 'InitProducerId' ? gate : undefined;
  });
  expect(await within(3_000, store.assign(partition))).toEqual({ offset: undefined });
  settling = true;
  const inDoubt = commits(store, '1');
  expect(await within(3_100, inDoubt)).toBe('nothing yet');
  const next = commits(store, '2');
  requests.length = 0;
  expect(await within(500, next)).toBe('nothing yet');
  expect(requests).not.toContain('AddPartitionsToTxn');
  settling = false;
  open();
  expect(await within(1_000, Promise.all([inDoubt, next]))).toEqual(['committed', 'committed']);
});
