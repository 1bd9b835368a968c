import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { endsWithin, realWorld, sleep } from '../src/clock.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { watch } from './support/stand.ts';

const { clock, random } = realWorld;

describe('the real world', () => {
  it('has a monotonic clock and a wall clock, both in milliseconds', async () => {
    const [from, wallFrom] = [clock.now(), Date.now()];
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(clock.now() - from).toBeGreaterThan(15);
    expect(clock.now() - from).toBeLessThan(5_000);
    expect(clock.wall()).toBeGreaterThanOrEqual(wallFrom + 15);
    expect(clock.wall()).toBeLessThanOrEqual(Date.now());
  });

  it('runs a task after a delay, and not if it was cancelled', async () => {
    const ran: string[] = [];
    const cancel = clock.after(1, () => ran.push('cancelled'));
    cancel();
    cancel();
    await new Promise<void>((resolve) => {
      clock.after(10, () => {
        ran.push('after');
        resolve();
      });
    });
    expect(ran).toEqual(['after']);
  });

  it('does not run at once what is further away than a timer of Node can wait', async () => {
    let ran = false;
    const cancel = clock.after(2 ** 31 + 5, () => {
      ran = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    cancel();
    expect(ran).toBe(false);
  });

  it('draws numbers from [0, 1), and tokens that are never the same', () => {
    const numbers = Array.from({ length: 1_000 }, () => random.number());
    expect(numbers.every((number) => number >= 0 && number < 1)).toBe(true);
    expect(new Set(numbers).size).toBeGreaterThan(990);
    const tokens = new Set(Array.from({ length: 1_000 }, () => random.token()));
    expect(tokens.size).toBe(1_000);
    for (const token of tokens) expect(token).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  });
});

describe('sleep', () => {
  it('resolves with true when the time is over', async () => {
    const world = virtualWorld();
    const slept = watch(sleep(world.clock, 1_000));
    await world.advance(999);
    expect(slept.done).toBe(false);
    await world.advance(1);
    expect(slept.value).toBe(true);
  });

  it('is ended by its signal, with false, and leaves no timer and no listener behind either way', async () => {
    const world = virtualWorld();
    const over = new AbortController();
    const [first, second] = [watch(sleep(world.clock, 1_000, over.signal)), watch(sleep(world.clock, 5_000, over.signal))];
    await world.advance(1_000);
    expect([first.value, second.done, world.timers]).toEqual([true, false, 1]);
    expect(getEventListeners(over.signal, 'abort')).toHaveLength(1);
    over.abort();
    await world.settle();
    expect([second.value, world.timers]).toEqual([false, 0]);
    expect(getEventListeners(over.signal, 'abort')).toHaveLength(0);
  });

  it('does not begin if its signal has been aborted already', async () => {
    const world = virtualWorld();
    const slept = watch(sleep(world.clock, 1_000, AbortSignal.abort()));
    await world.settle();
    expect([slept.value, world.timers]).toEqual([false, 0]);
  });
});

describe('endsWithin', () => {
  it('tells whether work has ended in time, and leaves no timer behind either way', async () => {
    const world = virtualWorld();
    const work = Promise.withResolvers<void>();
    const [patient, hasty] = [watch(endsWithin(world.clock, 5_000, work.promise)), watch(endsWithin(world.clock, 1_000, work.promise))];
    await world.advance(1_000);
    expect([patient.done, hasty.value, world.timers]).toEqual([false, false, 1]);
    work.resolve();
    await world.settle();
    expect([patient.value, world.timers]).toEqual([true, 0]);
  });

  it('rejects as the work does', async () => {
    const world = virtualWorld();
    await expect(endsWithin(world.clock, 1_000, Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(world.timers).toBe(0);
  });
});
