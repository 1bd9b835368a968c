import { describe, expect, it } from 'vitest';
import { cells } from './scenario.ts';
import { simulate } from './simulate.ts';

/** The same seeds each time, and new ones each day; `npm run simulate` runs many more. */
const fixed = 150;
const fresh = 50;
const freshFrom = Math.floor(Date.now() / 86_400_000) * 1_000;

describe.each(cells)('$way × $broker', ({ way, broker }) => {
  it.each([
    ['fixed', 1, fixed],
    ['fresh', freshFrom, fresh],
  ])('%s seeds, %i and on', async (_, from, count) => {
    for (let seed = from; seed < from + count; seed++) {
      const { violations } = await simulate({ seed, way, broker });
      expect(violations, `npm run simulate -- --way ${way} --broker ${broker} --seed ${seed}`).toEqual([]);
    }
  });

  it('is the same again for the same seed', async () => {
    const [first, second] = [
      await simulate({ seed: 7, way, broker, telling: true }),
      await simulate({ seed: 7, way, broker, telling: true }),
    ];
    expect(second.story).toEqual(first.story);
  });
});
