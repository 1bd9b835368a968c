import { describe, expect, it } from 'vitest';
import type { memoryStore } from '../adapters/stores/memory.ts';
import type { Ask } from '../src/index.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

type Stand = ReturnType<typeof stand>;

const verbs = ({ faults }: Stand) => faults.calls.map(({ verb }) => verb);

/** Claims messages for workers that die at once; their leases end. */
async function dying({ receiver, store, world }: Stand, ...ids: string[]): Promise<void> {
  const asks = ids.map((id): Ask => {
    const { message } = delivery(id);
    return { key: receiver.keyOf(message), fingerprint: '', token: `dead ${id}`, leaseMs: 1_000, retainMs: 100_000 };
  });
  expect(await store.claim(asks)).toMatchObject(ids.map(() => ({ state: 'claimed' })));
  await world.advance(1_000);
}

describe('messages of workers that have died', () => {
  it('cost no more than any other, if there is one only', async () => {
    const alive = stand(() => {});
    await dying(alive, 'a');
    expect(actions(await alive.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(verbs(alive)).toEqual(['claim', 'settle']);
  });

  it('don’t hold up those that come with them', async () => {
    const alive = stand(() => {});
    await dying(alive, 'a', 'b');
    expect(actions(await alive.receiver.process([delivery('a'), delivery('b'), delivery('c')]))).toEqual([
      'ack completed',
      'ack completed',
      'ack completed',
    ]);
    // Three claims in one call, two given back; then each of the two by itself.
    expect(alive.faults.calls.filter(({ verb }) => verb === 'claim').map(({ items }) => items)).toEqual([3, 1, 1]);
  });

  it('that wait for their turn come back at once when the receiver stops', async () => {
    const gate = latch();
    const alive = stand(() => gate.promise);
    await dying(alive, 'a', 'b');
    const running = watch(alive.receiver.process([delivery('a'), delivery('b')]));
    await alive.world.settle();
    const stopped = watch(alive.receiver.stop({ graceMs: 60_000 }));
    gate.open();
    await alive.world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'retry stopped']);
    expect(stopped.value).toEqual({ abandoned: 0 });
  });

  it('that wait for their turn for longer than the broker keeps them are not even claimed again', async () => {
    const gate = latch();
    const alive = stand(({ id }) => (id === 'a' ? gate.promise : expect.fail('the handler ran')));
    await dying(alive, 'a', 'b');
    const heldUntil = alive.world.clock.now() + 5_000;
    const running = watch(alive.receiver.process([delivery('a'), delivery('b', { heldUntil })]));
    await alive.world.advance(6_000);
    gate.open();
    await alive.world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'retry expired']);
    expect(await (alive.store as ReturnType<typeof memoryStore>).stats()).toMatchObject({ claimed: 0, released: 1 });
  });

  it('that can’t be claimed again, because the store is down by then, are tried again', async () => {
    const alive = stand(() => {});
    await dying(alive, 'a', 'b');
    const { settle } = alive.faults.store;
    alive.faults.store.settle = async (ends) => {
      alive.faults.broken.claim = 'before';
      return settle(ends);
    };
    expect(actions(await alive.receiver.process([delivery('a'), delivery('b')]))).toEqual(['retry store', 'retry store']);
  });
});

describe('behind a failure in its key', () => {
  it('a message that needs nothing of the store asks nothing of it', async () => {
    const one = stand(
      ({ id }) => {
        if (id === 'bad') throw new Error('no');
      },
      { cacheSize: 0 },
    );
    await one.receiver.process([delivery('done', { orderingKey: 'k' })]);
    one.faults.calls.length = 0;
    const verdicts = await one.receiver.process([delivery('bad', { orderingKey: 'k' }), delivery('done', { orderingKey: 'k' })]);
    expect(actions(verdicts)).toEqual(['retry failed', 'retry order']);
    expect(verbs(one)).toEqual(['claim', 'settle']);
    expect(one.names()).not.toContain('fenced');
  });
});

describe('copies of a running message', () => {
  it('come back after its lease, spread over a second', async () => {
    const one = stand(() => new Promise(() => {}));
    const two = stand(() => {}, {}, one);
    const ids = Array.from({ length: 20 }, (_, i) => `m${i}`);
    void one.receiver.process(ids.map((id) => delivery(id)));
    await one.world.settle();
    const verdicts = await two.receiver.process(ids.map((id) => delivery(id)));
    const delays = verdicts.map((verdict) => (verdict as { afterMs: number }).afterMs - 30_000);
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...delays)).toBeLessThanOrEqual(1_000);
    expect(Math.max(...delays) - Math.min(...delays)).toBeGreaterThan(500);
  });
});

describe('a handler that was given up', () => {
  it('because its claim was lost says so in its verdict', async () => {
    const one = stand(() => new Promise(() => {}), { leaseMs: 3_000 });
    one.faults.broken.extend = 'before';
    const running = watch(one.receiver.process([delivery('a')]));
    await one.world.advance(3_500);
    expect(running.done).toBe(false);
    await one.world.advance(500);
    expect(running.value).toEqual([{ action: 'retry', reason: 'fenced', afterMs: 0 }]);
    expect(one.told.find(([name]) => name === 'released')?.[1]).toMatchObject({ reason: 'fenced', attempt: 1 });
  });
});

describe("with onStoreDown: 'run', while the store is down", () => {
  const down = (handler: Parameters<typeof stand>[0], options: Record<string, unknown> = {}) => {
    const made = stand(handler, { onStoreDown: 'run', ...options });
    made.faults.broken.claim = 'before';
    return made;
  };

  it('what completes is told as any other, and is the first attempt for all that anybody knows', async () => {
    const attempts: number[] = [];
    const gate = latch();
    const { receiver, told, world } = down((_, { attempt }) => (attempts.push(attempt), gate.promise));
    await world.advance(1_000);
    const running = watch(receiver.process([delivery('a')]));
    await world.advance(2_000);
    gate.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed']);
    expect(told.find(([name]) => name === 'completed')?.[1]).toMatchObject({ attempt: 1, durationMs: 2_000 });
    expect(attempts).toEqual([1]);
  });

  it('a handler that fails is tried again', async () => {
    const error = new Error('no');
    const { receiver } = down(() => {
      throw error;
    });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'failed', error }]);
  });

  it('handlers share the places of all others, and give them back', async () => {
    const gate = latch();
    let running = 0;
    let most = 0;
    const { receiver, world } = down(
      async () => {
        most = Math.max(most, ++running);
        await gate.promise;
        running--;
      },
      { concurrency: 2 },
    );
    const all = watch(receiver.process(Array.from({ length: 6 }, (_, i) => delivery(`m${i}`))));
    await world.settle();
    expect(most).toBe(2);
    gate.open();
    await world.settle();
    expect(actions(all.value!)).toEqual(Array(6).fill('ack completed'));
    expect(most).toBe(2);
  });

  it('messages that wait for a place come back when the receiver stops', async () => {
    const gate = latch();
    const { receiver, world } = down(() => gate.promise, { concurrency: 1 });
    const running = watch(receiver.process([delivery('a'), delivery('b')]));
    await world.settle();
    void receiver.stop({ graceMs: 60_000 });
    gate.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'retry stopped']);
  });
});

describe('a message that is taken back while its outcome is recorded', () => {
  it('leaves no timer behind: its handler has ended, and need not be given up', async () => {
    const recorded = latch();
    const { store, world } = stand(() => {});
    const settle: typeof store.settle = (ends) => recorded.promise.then(() => store.settle(ends));
    const { receiver } = stand(async () => {}, { store: { ...store, settle } }, { world, store });
    const gone = new AbortController();
    const running = watch(receiver.process([delivery('a')], { lost: gone.signal }));
    await world.settle();
    gone.abort();
    recorded.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed']);
    expect(await receiver.stop()).toEqual({ abandoned: 0 });
    expect(world.timers).toBe(0);
  });
});
