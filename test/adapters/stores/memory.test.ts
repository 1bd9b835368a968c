import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../../adapters/stores/memory.ts';
import { ask } from '../../../src/testing/clauses/kit.ts';
import { storeContract } from '../../../src/testing/index.ts';

storeContract({
  describe,
  it,
  name: 'memoryStore',
  open() {
    let now = 0;
    const elapse = (ms: number) => void (now += ms);
    return { store: memoryStore({ now: () => now }), elapse };
  },
  skip: [
    { clause: '14', reason: 'nothing in memory survives the process, and the store says so' },
    { clause: '15', reason: 'nobody else can write the records of this store' },
  ],
});

describe('memoryStore', () => {
  it('uses a monotonic clock unless it is given one', async () => {
    const real = Date.now;
    try {
      const store = memoryStore();
      await store.claim([ask('a', 'owner')]);
      Date.now = () => real() + 86_400_000;
      const [answer] = await store.claim([ask('a', 'other')]);
      expect(answer).toMatchObject({ state: 'busy' });
    } finally {
      Date.now = real;
    }
  });
});
