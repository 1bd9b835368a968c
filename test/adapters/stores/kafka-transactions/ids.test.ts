import { randomFillSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { entryWords, idIndex } from '../../../../adapters/stores/kafka-transactions/ids.ts';

const entries = (count: number) => randomFillSync(new Int32Array(count * entryWords));
const year = 365 * 86_400_000;

describe('the index of ids', () => {
  it('finds every id that was added, with its fingerprint, and no other, through all growth and many tables', () => {
    const index = idIndex({ spanMs: 1_000 });
    const known = entries(50_000);
    const unknown = entries(20_000);
    for (let i = 0; i < 50_000; i++) index.add(known, i, Math.floor(i / 10));
    expect(index.size).toBe(50_000);
    for (let i = 0; i < 50_000; i++) expect(index.find(known, i)?.fingerprint).toBe(known[i * entryWords + 4]);
    for (let i = 0; i < 20_000; i++) expect(index.find(unknown, i)).toBeUndefined();
  });

  it('tells ids apart by each of their 128 bits', () => {
    const index = idIndex({ spanMs: year });
    const [id] = [entries(1)];
    index.add(id!, 0, 0);
    for (let bit = 0; bit < 128; bit++) {
      const other = Int32Array.from(id!);
      other[bit >> 5]! ^= 1 << (bit & 31);
      expect(index.find(other, 0), `bit ${bit}`).toBeUndefined();
    }
    expect(index.find(id!, 0)).toBeDefined();
  });

  it('adding an id twice changes nothing but its fingerprint', () => {
    const index = idIndex({ spanMs: year });
    const id = entries(1);
    index.add(id, 0, 0);
    id[4] = 77;
    index.add(id, 0, 1);
    expect([index.size, index.find(id, 0)?.fingerprint]).toEqual([1, 77]);
  });

  it('remembers an id for as long as it is told, and forgets it with its table', () => {
    const index = idIndex({ spanMs: 100 });
    const ids = entries(2_000);
    for (let i = 0; i < 2_000; i++) index.add(ids, i, i);
    index.expire(1_000);
    for (let i = 1_000; i < 2_000; i++) expect(index.find(ids, i), `id of ${i} ms`).toBeDefined();
    // A table spans 100 ms, so what is older than that is gone.
    for (let i = 0; i < 898; i++) expect(index.find(ids, i), `id of ${i} ms`).toBeUndefined();
    index.expire(5_000);
    expect([index.size, index.bytes]).toEqual([0, 0]);
  });

  it('takes at most 32 bytes for an id among ten million', () => {
    const index = idIndex({ spanMs: year });
    const chunk = new Int32Array(10_000 * entryWords);
    for (let i = 0; i < 1_000; i++) {
      randomFillSync(chunk);
      for (let at = 0; at < 10_000; at++) index.add(chunk, at, i);
    }
    expect(index.size).toBe(10_000_000);
    expect(index.bytes / index.size).toBeLessThanOrEqual(32);
  });
});
