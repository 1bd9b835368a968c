import { describe, expect, it } from 'vitest';
import type { memoryStore } from '../adapters/stores/memory.ts';
import type { DedupStore } from '../src/store.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

describe('while the store is down', () => {
  it('no handler runs, nothing is acked, the source is told to pause, and it recovers by itself', async () => {
    let runs = 0;
    const { receiver, faults, world, names } = stand(() => void runs++);
    faults.broken.claim = 'before';
    expect(actions(await receiver.process([delivery('a'), delivery('b')]))).toEqual(['retry store', 'retry store']);
    expect(runs).toBe(0);
    const ready = watch(receiver.ready());
    await world.advance(99);
    expect(ready.done).toBe(false);
    await world.advance(1);
    expect(ready.value).toBe(true);
    faults.broken.claim = undefined!;
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(names().filter((name) => name.startsWith('store'))).toEqual(['storeDown', 'storeUp']);
    expect(world.timers).toBe(0);
  });

  it('pauses grow from 0.1 to 10 seconds', async () => {
    const { receiver, faults, told, world } = stand(() => {});
    faults.broken.claim = 'before';
    for (let i = 0; i < 9; i++) {
      await receiver.process([delivery('a')]);
      await world.advance(10_000);
    }
    const pauses = told.flatMap(([name, event]) => (name === 'storeDown' ? [event.pauseMs] : []));
    expect(pauses).toEqual([100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
  });

  it('a store that hangs counts as down after storeTimeoutMs', async () => {
    const { receiver, faults, world } = stand(() => expect.fail('the handler ran'), { storeTimeoutMs: 2_000 });
    faults.broken.claim = 'hang';
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(1_999);
    expect(result.done).toBe(false);
    await world.advance(1);
    expect(actions(result.value!)).toEqual(['retry store']);
    expect(world.timers).toBe(0);
  });

  it.each([
    ['too few answers', async () => []],
    ['no array', async () => undefined],
    ['an unknown state', async () => [{ state: 'fine' }]],
    ['a null', async () => [null]],
    ['a corrupt record', async () => [{ state: 'corrupt', detail: 'bytes' }]],
  ])('a store that answers nonsense acks nothing: %s', async (_, claim) => {
    const { receiver, faults } = stand(() => expect.fail('the handler ran'));
    faults.store.claim = claim as unknown as DedupStore['claim'];
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['retry store']);
  });

  it('a record that cannot be read does not come back before people can have repaired it', async () => {
    const { receiver, faults } = stand(() => expect.fail('the handler ran'));
    faults.store.claim = async () => [{ state: 'corrupt', detail: 'bytes' }];
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'store', afterMs: 300_000 }]);
  });

  it('a synchronous throw of the store is a failure like any other', async () => {
    const { receiver, faults } = stand(() => expect.fail('the handler ran'));
    faults.store.claim = () => {
      throw new Error('sync');
    };
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['retry store']);
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['retry store']);
  });

  it("handlers run without protection only where onStoreDown: 'run' asks for it by name", async () => {
    const { receiver, faults } = stand(() => 'done', { onStoreDown: 'run' });
    faults.broken.claim = 'before';
    expect(actions(await receiver.process([delivery('a'), delivery('a'), delivery('b')]))).toEqual([
      'ack completed',
      'ack duplicate',
      'ack completed',
    ]);
    faults.broken.claim = undefined!;
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
  });
});

describe("with onStoreDown: 'run'", () => {
  it('a handler that ignores its signal is given up', async () => {
    const { receiver, faults, world } = stand(() => new Promise(() => {}), { onStoreDown: 'run', handlerTimeoutMs: 60_000 });
    faults.broken.claim = 'before';
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(61_000);
    expect(actions(result.value!)).toEqual(['retry timeout']);
    expect(world.timers).toBe(0);
  });
});

describe('a lost reply', () => {
  it("to a claim does not look like somebody else's claim: the message is tried again, and runs", async () => {
    const { receiver, faults, world } = stand(() => {});
    faults.broken.claim = 'after';
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['retry store']);
    faults.broken.claim = undefined!;
    await world.advance(30_000);
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
  });

  it('that comes after the time-out gives the claim back, so that nobody has to wait for its lease', async () => {
    const reply = latch();
    const { receiver, faults, store, world } = stand(() => {}, { storeTimeoutMs: 2_000 });
    faults.store.claim = async (asks) => {
      const answers = await store.claim(asks);
      await reply.promise;
      return answers;
    };
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(2_000);
    expect(actions(result.value!)).toEqual(['retry store']);
    reply.open();
    await world.settle();
    expect(await (store as ReturnType<typeof memoryStore>).stats()).toMatchObject({ claimed: 0 });
    const other = stand(() => {}, {}, { world, store });
    expect(actions(await other.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(other.told.find(([name]) => name === 'claimed')?.[1]).toMatchObject({ attempt: 1 });
  });

  it('to a settle is settled by asking again with the same token; the handler does not run again', async () => {
    let runs = 0;
    const { receiver, faults, world } = stand(() => void runs++);
    faults.broken.settle = 'after';
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(40);
    expect(result.done).toBe(false);
    faults.broken.settle = undefined!;
    await world.advance(100);
    expect(actions(result.value!)).toEqual(['ack completed']);
    expect(runs).toBe(1);
  });

  it('to a settle that never comes through is never acked', async () => {
    const { receiver, faults, world } = stand(() => {});
    faults.broken.settle = 'before';
    const result = watch(receiver.process([delivery('a')]));
    await world.advance(31_000);
    expect(actions(result.value!)).toEqual(['retry store']);
    expect(world.timers).toBe(0);
  });
});

describe("the broker's hold", () => {
  it('is kept with the lease, by one call per source and beat', async () => {
    const gate = latch();
    const holds: string[][] = [];
    const { receiver, world } = stand(() => gate.promise);
    const result = watch(
      receiver.process([delivery('a'), delivery('b')], {
        hold: async (deliveries, forMs) => {
          holds.push([...deliveries.map(({ message }) => message.id), String(forMs)]);
          return deliveries.map(() => true);
        },
      }),
    );
    await world.advance(20_000);
    expect(holds).toEqual([
      ['a', 'b', '30000'],
      ['a', 'b', '30000'],
    ]);
    gate.open();
    await world.settle();
    expect(result.done).toBe(true);
  });

  it('is kept from arrival to verdict: for copies in the batch too, and for those who wait for their turn', async () => {
    const gate = latch();
    const holds: string[][] = [];
    const { receiver, world } = stand(() => gate.promise, { concurrency: 1 });
    const copies = [delivery('a', { messageId: 'a1' }), delivery('a', { messageId: 'a2' }), delivery('b', { messageId: 'b1' })];
    const result = watch(
      receiver.process(copies, {
        hold: async (deliveries) => {
          holds.push(deliveries.map(({ message }) => message.id));
          return deliveries.map(() => true);
        },
      }),
    );
    await world.advance(10_000);
    expect(holds).toEqual([['a1', 'a2', 'b1']]);
    gate.open();
    await world.settle();
    expect(result.done).toBe(true);
    expect(world.timers).toBe(0);
  });

  it('when lost, aborts the handler', async () => {
    const { receiver, world } = stand(
      (_, { signal }) => new Promise((__, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    );
    const result = watch(receiver.process([delivery('a')], { hold: async () => [false] }));
    await world.advance(10_000);
    expect(result.value).toMatchObject([{ action: 'retry', reason: 'fenced', error: { code: 'claim-lost' } }]);
  });

  it('that has run out before its turn keeps a message from being started', async () => {
    const { receiver, world } = stand(() => expect.fail('the handler ran'));
    await world.advance(1_000);
    expect(actions(await receiver.process([delivery('a', { heldUntil: 1_000 })]))).toEqual(['retry expired']);
  });

  it('that cannot be renewed, for the broker does not answer, is lost when it runs out', async () => {
    const { receiver, world } = stand(
      (_, { signal }) => new Promise((__, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    );
    const result = watch(
      receiver.process([delivery('a', { heldUntil: 25_000 })], {
        hold: async () => {
          throw new Error('no route');
        },
      }),
    );
    await world.advance(20_000);
    expect(result.done).toBe(false);
    await world.advance(10_000);
    expect(actions(result.value!)).toEqual(['retry fenced']);
  });
});

describe('a source whose `settled` throws', () => {
  it('gets its verdicts all the same', async () => {
    const { receiver } = stand(() => {});
    const throwing = () => {
      throw new Error('adapter bug');
    };
    expect(actions(await receiver.process([delivery('a')], { settled: throwing }))).toEqual(['ack completed']);
  });

  it('later, in a promise, does not end the process', async () => {
    const { receiver, world } = stand(() => {});
    const rejecting = async () => {
      throw new Error('adapter bug');
    };
    // A rejection that nobody handles fails the run.
    expect(actions(await receiver.process([delivery('a')], { settled: rejecting }))).toEqual(['ack completed']);
    await world.settle();
  });
});
