import { describe, expect, it } from 'vitest';
import type { KafkaTransactionsOptions } from '../../../../adapters/stores/kafka-transactions/index.ts';
import { realWorld } from '../../../../src/index.ts';
import { actions } from '../../../support/stand.ts';
import { api, faultProxy } from './proxy.ts';
import { clientOf, deliveries, rig, valuesOf } from './rig.ts';

/** A worker whose connections go through a proxy that loses what it is told to. */
async function faulty(options: Partial<KafkaTransactionsOptions> = {}) {
  const made = await rig();
  const proxy = await faultProxy();
  const kafka = clientOf(made.brokers, { socketFactory: proxy.socketFactory });
  const ran: string[] = [];
  const handler = (payload: { id: string }, { tx }: any) => {
    ran.push(payload.id);
    tx.publish(made.output, { value: payload.id, partition: 0 });
  };
  const worker = made.worker({ store: { kafka, ...options }, handler });
  const partition = { topic: made.input, partition: 0 };
  await worker.store.assign(partition);
  return { ...made, ...worker, proxy, ran, partition };
}

const batch = (input: string, ids: readonly string[], from = 0) => deliveries(input, ids, { from });

describe('a commit in doubt', () => {
  it('whose request was lost has not committed: the unit rejects, nothing is published, and the messages run again', async () => {
    const { input, process, proxy, ran, read, committed } = await faulty();
    proxy.strike({ api: api.endTxn, lost: 'request' });
    const first = await process(batch(input, ['a', 'b']));
    expect([actions(first), proxy.struck(), await committed()]).toEqual([['retry store', 'retry store'], 1, '-1']);
    expect(actions(await process(batch(input, ['a', 'b'])))).toEqual(['ack completed', 'ack completed']);
    expect(ran).toEqual(['a', 'b', 'a', 'b']);
    expect([valuesOf(await read()), await committed()]).toEqual([['a', 'b'], '2']);
  });

  it('whose reply was lost has committed: the unit resolves, and the next one goes on', async () => {
    const { input, process, proxy, ran, read, committed } = await faulty();
    proxy.strike({ api: api.endTxn, lost: 'reply' });
    expect(actions(await process(batch(input, ['a', 'b'])))).toEqual(['ack completed', 'ack completed']);
    expect(proxy.struck()).toBe(1);
    expect(actions(await process(batch(input, ['b', 'c'], 2)))).toEqual(['ack duplicate', 'ack completed']);
    expect(ran).toEqual(['a', 'b', 'c']);
    expect([valuesOf(await read()), await committed()]).toEqual([['a', 'b', 'c'], '4']);
  });

  it('that hangs is given up after flushTimeoutMs, and settled', async () => {
    const { input, process, proxy, read } = await faulty({ flushTimeoutMs: 500 });
    proxy.strike({ api: api.endTxn, lost: 'hold', ms: 60_000 });
    expect(actions(await process(batch(input, ['a'])))).toEqual(['retry store']);
    expect(actions(await process(batch(input, ['a'])))).toEqual(['ack completed']);
    expect([valuesOf(await read()), proxy.struck()]).toEqual([['a'], 1]);
  });

  it('a unit that ran on top of one that did not commit does not commit either, and a duplicate in it is not acked', async () => {
    const made = await rig();
    const proxy = await faultProxy();
    const kafka = clientOf(made.brokers, { socketFactory: proxy.socketFactory });
    const { store, process } = made.worker({ store: { kafka }, receiver: { groupSize: 2 } });
    await store.assign({ topic: made.input, partition: 0 });
    proxy.strike({ api: api.endTxn, lost: 'request' });
    // The copy of `a` in the second unit is known from the first one, which is about to fail.
    const copy = { ...deliveries(made.input, ['a'], { from: 2 })[0]!, orderingKey: 'other' };
    const verdicts = await process([...deliveries(made.input, ['a', 'b']), copy, ...deliveries(made.input, ['c'], { from: 3 })]);
    expect([actions(verdicts), proxy.struck()]).toEqual([Array.from({ length: 4 }, () => 'retry store'), 1]);
    expect(valuesOf(await made.read())).toEqual([]);
  });
});

describe('a transaction that breaks off before its commit', () => {
  for (const [what, lost] of [
    ['addPartitions', 'request'],
    ['produce', 'request'],
    ['produce', 'reply'],
    ['addOffsets', 'request'],
    ['txnOffsetCommit', 'request'],
    ['txnOffsetCommit', 'reply'],
  ] as const) {
    it(`${what}, ${lost} lost: every message takes effect once`, async () => {
      const { input, process, proxy, read, committed } = await faulty();
      proxy.strike({ api: api[what], lost });
      const verdicts = await process(batch(input, ['a', 'b']));
      expect(proxy.struck()).toBe(1);
      if (verdicts[0]!.action === 'retry')
        expect(actions(await process(batch(input, ['a', 'b'])))).toEqual(['ack completed', 'ack completed']);
      expect(actions(await process(batch(input, ['a', 'b'])))).toEqual(['ack duplicate', 'ack duplicate']);
      expect([valuesOf(await read()), await committed()]).toEqual([['a', 'b'], '2']);
    });
  }

  it('one that takes longer than transactionTimeoutMs is aborted by the broker: claim-lost, until the partition is assigned again', async () => {
    // The timers of a process that is stopped don't fire.
    let stopped = false;
    const { clock } = realWorld;
    const world = { ...realWorld, clock: { ...clock, after: (ms: number, task: () => void) => clock.after(ms, () => stopped || task()) } };
    const { input, process, proxy, store, partition, ran, read } = await faulty({
      flushTimeoutMs: 999,
      transactionTimeoutMs: 1_000,
      world,
    });
    proxy.strike({ api: api.endTxn, lost: 'hold', ms: 4_000 });
    stopped = true;
    expect(actions(await process(batch(input, ['a'])))).toEqual(['retry fenced']);
    stopped = false;
    expect(actions(await process(batch(input, ['a'])))).toEqual(['retry fenced']);
    expect([ran, proxy.struck()]).toEqual([['a'], 1]);
    expect(await store.assign(partition)).toEqual({ offset: undefined });
    expect(actions(await process(batch(input, ['a'])))).toEqual(['ack completed']);
    expect(valuesOf(await read())).toEqual(['a']);
  });

  it('an offset commit that meets a coordinator that is not ready is tried again, which kafkajs does not do', async () => {
    const made = await rig();
    let failures = 0;
    const kafka = {
      consumer: (config: object) => made.kafka.consumer(config as never),
      admin: () => made.kafka.admin(),
      producer: (config: object) => {
        const producer = made.kafka.producer(config);
        return Object.assign(Object.create(producer), {
          transaction: async () => {
            const tx = await producer.transaction();
            return {
              ...tx,
              sendOffsets: async (offsets: never) => {
                for (const type of [
                  'CONCURRENT_TRANSACTIONS',
                  'GROUP_LOAD_IN_PROGRESS',
                  'GROUP_COORDINATOR_NOT_AVAILABLE',
                  'NOT_COORDINATOR_FOR_GROUP',
                ].slice(failures)) {
                  failures++;
                  throw Object.assign(new Error(type), { cause: { type } });
                }
                return tx.sendOffsets(offsets);
              },
            };
          },
        });
      },
    };
    const { store, process } = made.worker({ store: { kafka } });
    await store.assign({ topic: made.input, partition: 0 });
    expect(actions(await process(deliveries(made.input, ['a'])))).toEqual(['ack completed']);
    expect([failures, await made.committed()]).toEqual([4, '1']);
  });
});

describe('a zombie, whose partition somebody else has taken over', () => {
  it('can’t commit, not even offsets, and stays out until the partition is assigned to it again', async () => {
    const { worker, input, read, committed } = await rig();
    const partition = { topic: input, partition: 0 };
    const zombie = worker();
    await zombie.store.assign(partition);
    expect(actions(await zombie.process(deliveries(input, ['a'])))).toEqual(['ack completed']);
    const owner = worker();
    expect(await owner.store.assign(partition)).toEqual({ offset: '1' });

    expect(actions(await zombie.process(deliveries(input, ['b'], { from: 1 })))).toEqual(['retry fenced']);
    expect(actions(await owner.process(deliveries(input, ['a', 'b', 'c'])))).toEqual(['ack duplicate', 'ack completed', 'ack completed']);
    // Again and again: it does not fence the owner.
    expect(actions(await zombie.process(deliveries(input, ['c'], { from: 2 })))).toEqual(['retry fenced']);
    expect(actions(await owner.process(deliveries(input, ['d'], { from: 3 })))).toEqual(['ack completed']);
    // Its old offset would move the group back.
    expect(await committed()).toBe('4');

    expect(await zombie.store.assign(partition)).toEqual({ offset: '4' });
    expect(actions(await zombie.process(deliveries(input, ['b', 'c', 'd', 'e'], { from: 1 })))).toEqual([
      'ack duplicate',
      'ack duplicate',
      'ack duplicate',
      'ack completed',
    ]);
    expect(actions(await owner.process(deliveries(input, ['f'], { from: 5 })))).toEqual(['retry fenced']);
    expect(valuesOf(await read())).toEqual(['a', 'b', 'c', 'd', 'e']);
  });

  it('that is fenced in the middle of its transaction leaves nothing, and the new owner waits for no timeout', async () => {
    for (const what of ['produce', 'txnOffsetCommit', 'endTxn'] as const) {
      const { input, process, proxy, partition, worker, read, committed } = await faulty();
      proxy.strike({ api: api[what], lost: 'hold', ms: 3_000 });
      const late = process(batch(input, ['a', 'b']));
      while (proxy.struck() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      const owner = worker();
      const began = performance.now();
      expect(await owner.store.assign(partition), what).toEqual({ offset: undefined });
      expect(performance.now() - began).toBeLessThan(3_000);
      expect(actions(await owner.process(batch(input, ['a', 'b'])))).toEqual(['ack completed', 'ack completed']);
      expect(actions(await late)).toEqual(['retry fenced', 'retry fenced']);
      expect([valuesOf(await read()), await committed()], what).toEqual([['a', 'b'], '2']);
    }
  });

  it('what it had asked to commit before it was fenced is known to the new owner', async () => {
    const { input, process, proxy, partition, worker, ran, read } = await faulty();
    proxy.strike({ api: api.endTxn, lost: 'reply' });
    const late = process(batch(input, ['a', 'b']));
    while (proxy.struck() === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const owner = worker();
    expect(await owner.store.assign(partition)).toEqual({ offset: '2' });
    expect(actions(await owner.process(batch(input, ['a', 'b'])))).toEqual(['ack duplicate', 'ack duplicate']);
    await late;
    expect([ran, valuesOf(await read())]).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ]);
  });

  it('what it commits while the new owner is on its way is known too: the offset is read after the fence', async () => {
    const { input, process, proxy, partition, worker, brokers, read } = await faulty();
    proxy.strike({ api: api.endTxn, lost: 'hold', ms: 700 });
    const late = process(batch(input, ['a', 'b']));
    while (proxy.struck() === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const slow = await faultProxy();
    slow.strike({ api: api.initProducerId, lost: 'hold', ms: 3_000, times: 2 });
    const owner = worker({ store: { kafka: clientOf(brokers, { socketFactory: slow.socketFactory }) } });
    expect(await owner.store.assign(partition)).toEqual({ offset: '2' });
    expect(slow.struck()).toBe(2);
    await late;
    expect(valuesOf(await read())).toEqual(['a', 'b']);
  });

  it('a partition that was revoked commits nothing any more, units that are under way included', async () => {
    const { worker, input, read, committed } = await rig();
    const running = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const { store, process } = worker({
      handler: async (payload, { tx }) => {
        tx.publish(`${input.slice(0, -3)}-out`, { value: payload.id, partition: 0 });
        running.resolve();
        await go.promise;
      },
    });
    await store.assign({ topic: input, partition: 0 });
    const late = process(deliveries(input, ['a']));
    await running.promise;
    await store.revoke({ topic: input, partition: 0 });
    go.resolve();
    expect(actions(await late)).toEqual(['retry fenced']);
    expect(actions(await process(deliveries(input, ['b'])))).toEqual(['retry fenced']);
    expect([valuesOf(await read()), await committed()]).toEqual([[], '-1']);
  });
});
