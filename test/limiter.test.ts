import { describe, expect, it } from 'vitest';
import { limiter } from '../src/limiter.ts';
import { watch } from './support/stand.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('a limiter', () => {
  it('lets in as many as its limit at once, and the next when one has left', async () => {
    const { enter, leave } = limiter(2);
    const asked = [1, 2, 3, 4].map(() => watch(enter()));
    await turn();
    expect(asked.map(({ value }) => value)).toEqual([true, true, undefined, undefined]);
    leave();
    await turn();
    expect(asked.map(({ value }) => value)).toEqual([true, true, true, undefined]);
    leave();
    leave();
    leave();
    await turn();
    expect(asked.map(({ value }) => value)).toEqual([true, true, true, true]);
  });

  it('lets people in in the order in which they came, and nobody past those who wait', async () => {
    const { enter, leave } = limiter(1);
    const order: string[] = [];
    const come = (name: string) => void enter().then(() => order.push(name));
    for (const name of ['a', 'b', 'c']) come(name);
    await turn();
    leave();
    come('d');
    await turn();
    expect(order).toEqual(['a', 'b']);
    leave();
    leave();
    await turn();
    expect(order).toEqual(['a', 'b', 'c', 'd']);
  });

  it('has its place back after everybody has left', async () => {
    const { enter, leave } = limiter(1);
    for (let i = 0; i < 5; i++) {
      expect(await enter()).toBe(true);
      leave();
    }
    expect(await enter()).toBe(true);
    const next = watch(enter());
    await turn();
    expect(next.done).toBe(false);
  });

  it('without a limit lets everybody in', async () => {
    const { enter } = limiter(Number.POSITIVE_INFINITY);
    expect(await Promise.all(Array.from({ length: 1_000 }, enter))).not.toContain(false);
  });

  it('turns away everyone who waits, and who comes later, when it is closed', async () => {
    const { enter, leave, close } = limiter(1);
    expect(await enter()).toBe(true);
    const waiting = [watch(enter()), watch(enter())];
    close();
    const late = watch(enter());
    await turn();
    expect([...waiting, late].map(({ value }) => value)).toEqual([false, false, false]);
    leave();
    expect(await enter()).toBe(false);
  });
});
