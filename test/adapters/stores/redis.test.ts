import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { layoutOf } from '../../../adapters/stores/redis/layout.ts';
import { scriptsFor } from '../../../adapters/stores/redis/scripts.ts';
import { retainMs } from '../../../src/testing/clauses/kit.ts';
import { runClause, storeClauses, storeContract } from '../../../src/testing/index.ts';
import { service } from '../../support/services/index.ts';
import { type RedisHarnessOptions, redisHarness, skip } from './redis-harness.ts';
import { scriptMutants } from './redis-mutants.ts';

let client: Redis;
let nodeRedis: ReturnType<typeof createClient>;
beforeAll(async () => {
  const { url } = await service('redis');
  client = new Redis(url);
  nodeRedis = createClient({ url });
  await nodeRedis.connect();
});
afterAll(() => {
  client?.disconnect();
  nodeRedis?.destroy();
});

const restart = { clause: '14', reason: 'the server is shared: redis-faults.test.ts kills one of its own' };
const compact = { retentionMs: retainMs, expectedIds: 1_000 };
/** Completed records are in their buckets only. */
const bucketsOnly = { ...compact, resendMs: 1 };
const noOwner = { clause: '8c', reason: 'the token of a completed record is kept for `resendMs`, which is 1 ms here' };
const noAttempts = { clause: 'admin a', reason: 'a bucket does not keep attempts and fences' };

function contract(name: string, options: () => RedisHarnessOptions, more: readonly { clause: string; reason: string }[] = []) {
  storeContract({ describe, it, name, open: () => redisHarness(client, options()), skip: [...skip, restart, ...more] });
}

contract('redisStore', () => ({}));
contract('redisStore, 4 shards', () => ({ shards: 4 }));
contract('redisStore, compact', () => ({ compact }));
contract('redisStore, compact, when only the buckets are left', () => ({ compact: bucketsOnly }), [noOwner, noAttempts]);
contract('redisStore on node-redis', () => ({ client: nodeRedis }));
contract('redisStore on node-redis, compact', () => ({ client: nodeRedis, compact }));

describe.each([
  [-5, {}, []],
  [5, { compact: bucketsOnly }, [noOwner, noAttempts]],
] as const)('on a machine whose clock is %i hours off,', (hours, options, more) => {
  beforeAll(() => void vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + hours * 3_600_000 }));
  afterAll(() => void vi.useRealTimers());
  contract('redisStore', () => options, more);
});

describe('the store contract catches a Redis script that', () => {
  it.each(scriptMutants.map((mutant) => [`${mutant.name} → ${mutant.breaks}`, mutant] as const))('%s', async (_, mutant) => {
    const options = mutant.compact ? { compact: bucketsOnly } : {};
    let places = 0;
    const scripts = scriptsFor(layoutOf('any', 1, options.compact).compact, (text, name) => {
      if (name !== mutant.script) return text;
      places = text.split(mutant.from).length - 1;
      return text.replace(mutant.from, () => mutant.to);
    });
    expect(places, `places of ${mutant.from}`).toBe(1);
    const clause = storeClauses.find(({ id }) => id === mutant.breaks)!;
    await runClause(clause, () => redisHarness(client, options));
    await expect(runClause(clause, () => redisHarness(client, { ...options, scripts }))).rejects.toMatchObject({ name: 'AssertionError' });
  });
});
