import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownService } from '../../../support/services/index.ts';
import { actions } from '../../../support/stand.ts';
import { deliveries, rig, valuesOf } from './rig.ts';

/** A broker of this file's own, that is paused and killed. */
let broker: Awaited<ReturnType<typeof ownService<'kafka'>>>;
beforeAll(async () => {
  broker = await ownService('kafka');
});
afterAll(() => broker?.stop());

const partition = (topic: string) => ({ topic, partition: 0 });
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A worker that calls `strike` when it has asked for its n-th commit, and waits for it to have taken effect before the request is sent, or just after. */
async function struckAtCommit(when: 'before' | 'after', strike: () => Promise<unknown> | undefined) {
  const made = await rig({ brokers: broker.address.brokers });
  let armed = false;
  const kafka = {
    consumer: (config: object) => made.kafka.consumer(config as never),
    admin: () => made.kafka.admin(),
    producer: (config: object) => {
      const producer = made.kafka.producer(config);
      return {
        connect: () => producer.connect(),
        disconnect: () => producer.disconnect(),
        transaction: async () => {
          const tx = await producer.transaction();
          return {
            ...tx,
            async commit() {
              const mine = armed;
              armed = false;
              if (mine && when === 'before') await strike();
              const committing = tx.commit();
              if (mine && when === 'after') {
                committing.catch(() => {});
                await new Promise((resolve) => setImmediate(resolve));
                await strike();
              }
              return committing;
            },
          };
        },
      };
    },
  };
  const worker = made.worker({ store: { kafka, flushTimeoutMs: 2_000, takeOverTimeoutMs: 40_000 } });
  await worker.store.assign(partition(made.input));
  expect(actions(await worker.process(deliveries(made.input, ['a'])))).toEqual(['ack completed']);
  armed = true;
  return { ...made, ...worker };
}

describe('a broker that', () => {
  it('is stopped when the commit is asked for, and wakes up later: the commit is settled, not assumed', async () => {
    const { input, process, read, committed } = await struckAtCommit('before', async () => {
      broker.pause();
      setTimeout(() => broker.resume(), 4_000);
    });
    const verdicts = actions(await process(deliveries(input, ['b', 'c'], { from: 1 })));
    // The request was in the broker's socket when it was stopped, or the fence was first.
    expect(new Set(verdicts).size).toBe(1);
    expect(['ack completed', 'retry store']).toContain(verdicts[0]);
    const again = actions(await process(deliveries(input, ['b', 'c'], { from: 1 })));
    expect(again[0]).toBe(verdicts[0] === 'ack completed' ? 'ack duplicate' : 'ack completed');
    expect([valuesOf(await read()), await committed()]).toEqual([['a', 'b', 'c'], '3']);
  });

  it.each(['before', 'after'] as const)(
    'is killed %s the commit is sent, and starts again: every message takes effect once',
    async (when) => {
      const { input, process, read, committed } = await struckAtCommit(when, async () => {
        await broker.kill();
        setTimeout(() => void broker.restart(), 3_000);
      });
      const verdicts = actions(await process(deliveries(input, ['b', 'c'], { from: 1 })));
      expect(new Set(verdicts).size).toBe(1);
      const again = actions(await process(deliveries(input, ['b', 'c'], { from: 1 })));
      expect(again[0]).toBe(verdicts[0] === 'ack completed' ? 'ack duplicate' : 'ack completed');
      expect([valuesOf(await read()), await committed()]).toEqual([['a', 'b', 'c'], '3']);
    },
    90_000,
  );

  it('is away for longer than takeOverTimeoutMs: commit-in-doubt, then claim-lost, until the partition is assigned again', async () => {
    const made = await rig({ brokers: broker.address.brokers });
    const { store, process } = made.worker({ store: { flushTimeoutMs: 300, takeOverTimeoutMs: 500 } });
    // Half a second may be too short on a busy machine, when the broker is there.
    const assigned = async () => {
      for (let tries = 0; tries < 20; tries++) {
        const done = await store.assign(partition(made.input)).then(
          () => true,
          () => sleep(200).then(() => false),
        );
        if (done) return;
      }
    };
    await assigned();
    broker.pause();
    try {
      const [verdict] = await process(deliveries(made.input, ['a']));
      expect(verdict).toMatchObject({ action: 'retry', reason: 'store', error: { code: 'commit-in-doubt' } });
      expect(actions(await process(deliveries(made.input, ['a'])))).toEqual(['retry fenced']);
      await expect(store.assign(partition(made.input))).rejects.toMatchObject({ code: 'store' });
    } finally {
      broker.resume();
    }
    await assigned();
    expect(actions(await process(deliveries(made.input, ['a', 'b'])))).toEqual([expect.stringMatching(/^ack/), 'ack completed']);
    expect(valuesOf(await made.read())).toEqual(['a', 'b']);
  }, 60_000);
});
