import { describe, expect, it } from 'vitest';
import type { memoryStore } from '../adapters/stores/memory.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

const stats = (store: unknown) => (store as ReturnType<typeof memoryStore>).stats();

describe('stop', () => {
  it('lets running handlers finish, gives back what has not been started at once, and leaves nothing behind', async () => {
    const gate = latch();
    const started: string[] = [];
    const { receiver, world, store } = stand(
      async ({ id }) => {
        started.push(id);
        await gate.promise;
      },
      { concurrency: 1 },
    );
    const verdicts: string[] = [];
    const result = watch(
      receiver.process([delivery('a'), delivery('b'), delivery('c', { orderingKey: 'k' }), delivery('d', { orderingKey: 'k' })], {
        settled: ({ message }) => verdicts.push(message.id),
      }),
    );
    await world.settle();
    const stopped = watch(receiver.stop());
    await world.settle();
    expect(verdicts.sort()).toEqual(['b', 'c', 'd']);
    expect(stopped.done).toBe(false);
    gate.open();
    await world.settle();
    expect(actions(result.value!)).toEqual(['ack completed', 'retry stopped', 'retry stopped', 'retry order']);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(started).toEqual(['a']);
    expect(await stats(store)).toMatchObject({ claimed: 0, completed: 1 });
    expect(world.timers).toBe(0);
  });

  it('aborts handlers after graceMs; what they leave undone is released and not counted', async () => {
    let attempt = 0;
    const { receiver, world, store } = stand((_, ctx) => {
      attempt = ctx.attempt;
      return new Promise((__, reject) => ctx.signal.addEventListener('abort', () => reject(ctx.signal.reason)));
    });
    const result = watch(receiver.process([delivery('a')]));
    await world.settle();
    const stopped = watch(receiver.stop({ graceMs: 5_000 }));
    await world.advance(4_999);
    expect(result.done).toBe(false);
    await world.advance(1);
    expect(actions(result.value!)).toEqual(['retry stopped']);
    expect(result.value).toMatchObject([{ error: { code: 'stopped' } }]);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(world.timers).toBe(0);
    const next = stand((_, ctx) => void (attempt = ctx.attempt), {}, { world, store });
    await next.receiver.process([delivery('a')]);
    expect(attempt).toBe(1);
  });

  it('counts handlers that ignore their signal, and does not wait for them', async () => {
    const { receiver, world } = stand(() => new Promise(() => {}));
    const result = watch(receiver.process([delivery('a')]));
    await world.settle();
    const stopped = watch(receiver.stop({ graceMs: 1_000 }));
    await world.advance(3_000);
    expect(actions(result.value!)).toEqual(['retry stopped']);
    expect(stopped.value).toEqual({ abandoned: 1 });
    expect(world.timers).toBe(0);
  });

  it('does not keep the claim of a handler that obeys late, while it is still waiting for others', async () => {
    const late = latch();
    const other = latch();
    const { receiver, world, store, faults } = stand(({ id }) => (id === 'late' ? late.promise : other.promise));
    const settle = faults.store.settle;
    const held = latch();
    faults.store.settle = async (ends) => {
      if (ends.some(({ as }) => as === 'completed')) await held.promise;
      return settle(ends);
    };
    void receiver.process([delivery('late')]);
    void receiver.process([delivery('other')]);
    await world.settle();
    const stopped = watch(receiver.stop({ graceMs: 1_000 }));
    other.open();
    await world.advance(2_000);
    // Given up by now; the receiver still waits for the record of the other one.
    late.fail(new Error('stopped, at last'));
    await world.settle();
    held.open();
    await world.advance(2_000);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(await stats(store)).toMatchObject({ claimed: 0, completed: 1 });
    expect(world.timers).toBe(0);
  });

  it('takes no new work', async () => {
    const { receiver, faults } = stand(() => expect.fail('the handler ran'));
    await receiver.stop();
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['retry stopped']);
    expect(await receiver.ready()).toBe(false);
    expect(faults.calls).toEqual([]);
  });

  it('wakes those who wait: for a busy message, for the store, for a turn', async () => {
    const one = stand(() => new Promise(() => {}));
    void one.receiver.process([delivery('a')]);
    await one.world.settle();
    const two = stand(() => {}, { waitMs: 1_000_000 }, one);
    const waiting = watch(two.receiver.process([delivery('a')]));
    await one.world.settle();
    two.faults.broken.claim = 'before';
    const paused = watch(two.receiver.process([delivery('b')]).then(() => two.receiver.ready()));
    await one.world.settle();
    const stopped = watch(two.receiver.stop());
    await one.world.settle();
    expect(actions(waiting.value!)).toEqual(['retry busy']);
    expect(paused.value).toBe(false);
    expect(stopped.done).toBe(true);
  });

  it('answers those who wait for a store that hangs; a claim that comes later is given back', async () => {
    const reply = latch();
    const { receiver, world, store, faults, names } = stand(() => expect.fail('the handler ran'));
    faults.store.claim = async (asks) => {
      const answers = await store.claim(asks);
      await reply.promise;
      return answers;
    };
    const result = watch(receiver.process([delivery('a')]));
    const stopped = watch(receiver.stop({ graceMs: 0 }));
    await world.advance(2_000);
    expect(actions(result.value!)).toEqual(['retry store']);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(names()).not.toContain('storeDown');
    expect(world.timers).toBe(0);
    reply.open();
    await world.settle();
    expect(await stats(store)).toMatchObject({ claimed: 0 });
  });

  it('twice is once', async () => {
    const { receiver } = stand(() => {});
    expect(receiver.stop()).toBe(receiver.stop());
  });
});

describe('a handler that calls its own receiver', () => {
  it('with the message that it is handling gets an error, instead of waiting for itself', async () => {
    const seen: unknown[] = [];
    const inner: ReturnType<typeof stand> = stand(
      async () => {
        await inner.receiver.process([delivery('a')]).catch((error) => seen.push(error.code));
        await inner.receiver.process([delivery('b')]).catch((error) => seen.push(error.code));
      },
      { concurrency: 2 },
    );
    const result = watch(inner.receiver.process([delivery('a')]));
    await inner.world.settle();
    expect(seen).toEqual(['nested', 'nested']);
    expect(actions(result.value!)).toEqual(['ack completed']);
  });

  it('leaves nothing behind that is kept alive', async () => {
    const held: string[] = [];
    const made: ReturnType<typeof stand> = stand(async () => {
      const source = { hold: async (all: readonly unknown[]) => all.map(() => held.push('b') > 0) };
      await made.receiver.process([delivery('b')], source).catch(() => {});
    });
    await made.receiver.process([delivery('a')]);
    expect(made.world.timers).toBe(0);
    await made.world.advance(60_000);
    expect(held).toEqual([]);
  });

  it('after it has ended, from something that it has left running, is a caller like any other', async () => {
    const late: Promise<unknown>[] = [];
    const made: ReturnType<typeof stand> = stand(({ id }) => {
      if (id === 'a') late.push(ended.promise.then(() => made.receiver.process([delivery('b')])));
    });
    const ended = latch();
    await made.receiver.process([delivery('a')]);
    ended.open();
    expect(await Promise.all(late)).toMatchObject([[{ action: 'ack', outcome: 'completed' }]]);
  });

  it('leaves no timer behind when a heartbeat is still under way as the last handler ends', async () => {
    const gate = latch();
    const { receiver, world, faults } = stand(() => gate.promise, { leaseMs: 30_000 });
    const result = watch(receiver.process([delivery('a')]));
    faults.broken.extend = 'hang';
    await world.advance(10_000);
    expect(faults.calls.at(-1)?.verb).toBe('extend');
    const stopped = watch(receiver.stop());
    gate.open();
    await world.settle();
    expect(actions(result.value!)).toEqual(['ack completed']);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(world.timers).toBe(0);
  });
});
