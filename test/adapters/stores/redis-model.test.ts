import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { service } from '../../support/services/index.ts';
import { answersAsTheModel } from './model.ts';
import { type RedisHarnessOptions, redisHarness } from './redis-harness.ts';

let client: Redis;
beforeAll(async () => void (client = new Redis((await service('redis')).url)));
afterAll(() => client?.disconnect());

/** Two stores of one prefix. A tick is long, because the clock of Redis goes on by itself. */
const tickMs = 100_000;

function open(options: RedisHarnessOptions) {
  const { store, beside, elapse, close } = redisHarness(client, options);
  return { stores: [store, beside()], elapse: elapse!, close: close! };
}

describe('redisStore answers as memoryStore does', { timeout: 900_000 }, () => {
  const common = { tickMs, commands: 30, purgesItself: true, compareEvery: 10 };

  it('in 1,000 random sequences of 30 commands', async () => {
    await answersAsTheModel({ ...common, open: () => open({}), runs: 1_000 });
    expect.hasAssertions();
  });

  const compact = { retentionMs: 200 * tickMs, expectedIds: 100 };

  it('in as many in compact mode, which keeps one retention of three in buckets', async () => {
    await answersAsTheModel({ ...common, open: () => open({ compact: { ...compact, resendMs: 200 * tickMs }, shards: 2 }), runs: 1_000 });
    expect.hasAssertions();
  });

  it('in as many in compact mode when the record itself is gone at once, but for who owned it', async () => {
    await answersAsTheModel({ ...common, open: () => open({ compact: { ...compact, resendMs: 1 } }), runs: 1_000, forgetsOwners: true });
    expect.hasAssertions();
  });
});
