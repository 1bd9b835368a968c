import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { storeContract } from '../../../src/testing/index.ts';
import { compact, redisHarness, skip } from './redis-harness.ts';

const client = new Redis(Number(process.env['TEST_REDIS_PORT'] ?? 7901), { lazyConnect: true });
beforeAll(() => client.connect());
afterAll(() => client.disconnect());

const restart = { clause: '14', reason: 'the server is shared: redis-faults.test.ts kills one of its own' };

storeContract({ describe, it, name: 'redisStore', open: () => redisHarness(client), skip: [...skip, restart] });
storeContract({ describe, it, name: 'redisStore, compact', open: () => redisHarness(client, { compact }), skip: [...skip, restart] });
storeContract({ describe, it, name: 'redisStore, 4 shards', open: () => redisHarness(client, { shards: 4 }), skip: [...skip, restart] });
void expect;
