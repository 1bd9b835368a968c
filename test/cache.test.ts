import { describe, expect, it } from 'vitest';
import { completedCache } from '../src/cache.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';

function stand(options: { size?: number; retentionMs?: number } = {}) {
  const world = virtualWorld();
  const cache = completedCache(world.clock, { size: 100, retentionMs: 1_000_000, ...options });
  const add = (key: string, more: { fingerprint?: string; result?: string; at?: number } = {}) =>
    cache.add(key, { fingerprint: 'f', result: undefined, at: world.clock.now(), ...more });
  return { world, cache, add, knows: (key: string, fingerprint = 'f') => cache.get(key, fingerprint) !== undefined };
}

describe('the cache of completed keys', () => {
  it('gives back what it was given', () => {
    const { cache, add } = stand();
    add('a', { result: '{"receipt":7}', at: -5 });
    expect(cache.get('a', 'f')).toMatchObject({ fingerprint: 'f', result: '{"receipt":7}', at: -5 });
    expect(cache.get('b', 'f')).toBeUndefined();
  });

  it('knows nothing about another payload with the same key: the store decides', () => {
    const { add, knows } = stand();
    add('a');
    expect(knows('a', 'other')).toBe(false);
    expect(knows('a', '')).toBe(false);
    expect(knows('a')).toBe(true);
  });

  it('knows keys without fingerprints', () => {
    const { add, knows } = stand();
    add('a', { fingerprint: '' });
    expect(knows('a', '')).toBe(true);
  });

  it('holds the newest half of its size for sure, and never more than its size', () => {
    const { add, knows } = stand({ size: 100 });
    const keys = Array.from({ length: 1_000 }, (_, i) => `key ${i}`);
    for (const [i, key] of keys.entries()) {
      add(key);
      for (const recent of keys.slice(Math.max(0, i - 49), i + 1)) expect(knows(recent)).toBe(true);
    }
    expect(keys.filter((each) => knows(each)).length).toBeLessThanOrEqual(100);
  });

  it('keeps a key that is used all the time, and gives its newest entry', () => {
    const { cache, add } = stand({ size: 4 });
    add('hot', { result: 'first' });
    for (let i = 0; i < 20; i++) {
      add(`key ${i}`);
      add('hot', { result: `result ${i}` });
      expect(cache.get('hot', 'f')?.result).toBe(`result ${i}`);
    }
  });

  it('leaves long results to the store', () => {
    const { add, knows } = stand();
    add('short', { result: 'x'.repeat(1_024) });
    add('long', { result: 'x'.repeat(1_025) });
    expect([knows('short'), knows('long')]).toEqual([true, false]);
  });

  it('of size 0 remembers nothing', () => {
    const { add, knows } = stand({ size: 0 });
    add('a');
    expect(knows('a')).toBe(false);
  });

  it('uses an entry for a minute, so that a record that people forget through the store is soon forgotten here too', async () => {
    const { world, add, knows } = stand();
    add('a');
    await world.advance(59_999);
    expect(knows('a')).toBe(true);
    await world.advance(1);
    expect(knows('a')).toBe(false);
  });

  it('does not use an entry for longer because it is asked for again and again', async () => {
    const { world, cache, add, knows } = stand();
    add('a');
    for (let i = 0; i < 3; i++) {
      await world.advance(20_000);
      const known = cache.get('a', 'f');
      // What a receiver does with every answer `completed`, also with those that came from here.
      if (known) cache.add('a', known);
    }
    expect(knows('a')).toBe(false);
    add('a');
    expect(knows('a')).toBe(true);
  });

  it('takes an entry with another payload in place of the old one', async () => {
    const { world, add, knows } = stand();
    add('a');
    await world.advance(30_000);
    add('a', { fingerprint: 'g' });
    expect(knows('a')).toBe(false);
    await world.advance(59_999);
    expect(knows('a', 'g')).toBe(true);
  });

  it('never remembers for longer than the store, counted from the completion', async () => {
    const { world, add, knows } = stand({ retentionMs: 10_000 });
    add('a');
    await world.advance(8_999);
    expect(knows('a')).toBe(true);
    await world.advance(1);
    expect(knows('a')).toBe(false);
    add('old', { at: world.clock.now() - 9_000 });
    expect(knows('old')).toBe(false);
    add('young', { at: world.clock.now() - 8_000 });
    expect(knows('young')).toBe(true);
    await world.advance(1_000);
    expect(knows('young')).toBe(false);
  });
});
