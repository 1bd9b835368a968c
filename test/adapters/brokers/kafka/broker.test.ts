import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../../../adapters/stores/memory.ts';
import { createReceiver, header } from '../../../../src/index.ts';
import { ids, rig, until } from './rig.ts';

const receiverOf = (handler: (payload: any, context: any) => unknown, options: object = {}) =>
  createReceiver(
    { scope: 'test', key: header('message-id'), store: memoryStore(), backoff: { firstMs: 50 }, ...options } as {
      scope: string;
      key: ReturnType<typeof header>;
      store: ReturnType<typeof memoryStore>;
    },
    handler,
  );

describe('kafka(receiver), on a real broker', () => {
  it('handles every message once, in the order of its key, and commits the offsets of what is done', async () => {
    const { produce, worker, committed } = await rig();
    const seen: string[] = [];
    await produce(ids(1_000).map((id, i) => ({ id, key: `k${i % 7}` })));
    await worker(receiverOf(({ id }) => void seen.push(id)));
    await until(() => seen.length >= 1_000, '1,000 messages');
    await until(async () => (await committed()) === 1_000, 'all offsets to be committed');
    expect(new Set(seen).size).toBe(1_000);
    for (let key = 0; key < 7; key++) {
      const ofKey = seen.map((id) => Number(id.slice(1))).filter((n) => n % 7 === key);
      expect(ofKey).toEqual(ofKey.toSorted((a, b) => a - b));
    }
  });
});
