import { describe, expect, it } from 'vitest';
import type { Emit } from '../src/events.ts';
import { gate } from '../src/gate.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { latch, watch } from './support/stand.ts';

const down = new Error('down');

function stand(seed?: number) {
  const world = virtualWorld(seed === undefined ? {} : { seed });
  const told: unknown[] = [];
  const emit: Emit = (name, event) => void told.push({ name, ...event });
  const it = gate(world, 'test', emit);
  const stop = new AbortController();
  return {
    ...it,
    world,
    told,
    stop,
    fail: () => it.watch(() => Promise.reject(down)).catch(() => {}),
    succeed: () => it.watch(async () => 'answer'),
    open: () => it.open(stop.signal),
  };
}

/** The pause that the gate has told of last. */
const lastPause = (told: unknown[]) => (told.at(-1) as { pauseMs: number }).pauseMs;

describe('a gate whose store answers', () => {
  it('is open, hands on what the call gives, and tells nothing', async () => {
    const { succeed, open, told, world } = stand();
    expect(await succeed()).toBe('answer');
    expect(await open()).toBe(true);
    expect(told).toEqual([]);
    expect(world.timers).toBe(0);
  });
});

describe('a gate whose store fails', () => {
  it('hands on the very error, and tells that the store is down', async () => {
    const { watch: call, told } = stand();
    await expect(call(() => Promise.reject(down))).rejects.toBe(down);
    expect(told).toEqual([{ name: 'storeDown', scope: 'test', error: down, pauseMs: 100 }]);
  });

  it('takes a call that throws before it gives a promise for a failure', async () => {
    const { watch: call, told } = stand();
    await expect(
      call(() => {
        throw down;
      }),
    ).rejects.toBe(down);
    expect(told).toHaveLength(1);
  });

  it('stays closed for the pause, and then lets the next call probe', async () => {
    const { fail, open, world } = stand();
    await fail();
    const opened = watch(open());
    await world.advance(99);
    expect(opened.done).toBe(false);
    await world.advance(1);
    expect(opened.value).toBe(true);
    expect(world.timers).toBe(0);
  });

  it('doubles the pause with each failure in a row, from 0.1 s to 10 s', async () => {
    const { fail, told, world } = stand();
    const pauses: number[] = [];
    for (let i = 0; i < 9; i++) {
      await fail();
      pauses.push(lastPause(told));
      await world.advance(lastPause(told));
    }
    expect(pauses).toEqual([100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
  });

  it('never overflows, however long the store is down', async () => {
    const { fail, told, world } = stand();
    for (let i = 0; i < 2_000; i++) {
      await fail();
      await world.advance(10_000);
    }
    expect(lastPause(told)).toBe(10_000);
  });

  it('counts calls that fail together as one failure', async () => {
    const { fail, told, world } = stand();
    await Promise.all([fail(), fail(), fail()]);
    await world.advance(50);
    await fail();
    expect(told).toHaveLength(1);
    await world.advance(50);
    await fail();
    expect(lastPause(told)).toBe(200);
  });

  it('opens with one success, tells that the store is up, and begins again with a short pause', async () => {
    const { fail, succeed, open, told, world } = stand();
    await fail();
    await world.advance(100);
    await fail();
    await succeed();
    expect(told.at(-1)).toEqual({ name: 'storeUp', scope: 'test' });
    expect(await open()).toBe(true);
    await succeed();
    expect(told).toHaveLength(3);
    await fail();
    expect(lastPause(told)).toBe(100);
  });

  it('keeps everyone waiting if the pause has become longer meanwhile', async () => {
    const { fail, open, world, watch: call } = stand();
    await fail();
    const { promise, fail: failLate } = latch<never>();
    const slow = watch(call(() => promise));
    const opened = watch(open());
    await world.advance(99.5);
    // It fails within the pause, so it belongs to the same failure; the next one does not.
    failLate(down);
    await world.settle();
    expect(slow.error).toBe(down);
    await world.advance(0.5);
    expect(opened.value).toBe(true);
    await fail();
    const again = watch(open());
    await world.advance(199);
    expect(again.done).toBe(false);
    await world.advance(1);
    expect(again.value).toBe(true);
  });
});

describe('stopping', () => {
  it('ends the waiting at once with false, and leaves no timer', async () => {
    const { fail, open, stop, world } = stand();
    await fail();
    const opened = watch(open());
    await world.settle();
    stop.abort();
    await world.settle();
    expect(opened.value).toBe(false);
    expect(world.timers).toBe(0);
  });

  it('makes an open gate say false too', async () => {
    const { open, stop, fail } = stand();
    stop.abort();
    expect(await open()).toBe(false);
    await fail();
    expect(await open()).toBe(false);
  });
});

describe('a success', () => {
  it('wakes those who wait for the end of a pause; a failure right after it makes them wait again', async () => {
    const { fail, succeed, open, world } = stand();
    await fail();
    const first = watch(open());
    await world.settle();
    expect(first.done).toBe(false);
    await succeed();
    await world.settle();
    expect(first.value).toBe(true);
    await fail();
    const second = watch(open());
    await world.settle();
    await Promise.all([succeed(), fail()]);
    await world.settle();
    expect(second.done).toBe(false);
    await world.advance(10_000);
    expect(second.value).toBe(true);
    expect(world.timers).toBe(0);
  });
});

describe('the pause that is told to brokers', () => {
  it('is what is left of it, with up to 50 ms by chance, so that workers do not all come back at once', async () => {
    const seen = new Set<number>();
    for (let seed = 1; seed <= 20; seed++) {
      const { fail, pauseMs, world } = stand(seed);
      expect(pauseMs()).toBeLessThanOrEqual(50);
      await fail();
      expect(pauseMs()).toBeGreaterThanOrEqual(100);
      await world.advance(40);
      const left = pauseMs();
      expect(left).toBeGreaterThanOrEqual(60);
      expect(left).toBeLessThanOrEqual(110);
      expect(Number.isInteger(left)).toBe(true);
      seen.add(left);
    }
    expect(seen.size).toBeGreaterThan(5);
  });
});
