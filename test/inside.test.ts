import { AsyncLocalStorage } from 'node:async_hooks';
import { describe, expect, it } from 'vitest';
import { isInside, runInside } from '../src/inside.ts';

describe('being inside', () => {
  const [owner, other] = [{}, {}];

  it('is told by owner, and by key if one is given', async () => {
    expect(isInside(owner)).toBe(false);
    const seen = await runInside(owner, 'a', async () => [isInside(owner), isInside(owner, 'a'), isInside(owner, 'b'), isInside(other)]);
    expect(seen).toEqual([true, true, false, false]);
  });

  it.each([
    ['well', () => {}],
    ['badly', () => Promise.reject(new Error('no'))],
  ])('is over for what was left behind when the work has ended %s', async (_, end) => {
    let leftBehind!: ReturnType<typeof AsyncLocalStorage.snapshot>;
    const work = runInside(owner, 'a', async () => {
      leftBehind = AsyncLocalStorage.snapshot();
      expect(leftBehind(() => isInside(owner))).toBe(true);
      await end();
    });
    await work.catch(() => {});
    expect(leftBehind(() => isInside(owner))).toBe(false);
  });
});
