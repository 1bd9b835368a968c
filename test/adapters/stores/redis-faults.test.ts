import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DedupStore, Settled } from '../../../src/store.ts';
import { asReleased, asUncounted, claimed, keyOf, leaseMs, single } from '../../../src/testing/clauses/kit.ts';
import { type FaultProxy, proxyTo } from '../../support/proxy.ts';
import { service } from '../../support/services/index.ts';
import { type RedisHarness, redisHarness } from './redis-harness.ts';

/* The connection fails under each verb. `mine` is a store behind the proxy, `harness.store` one that sees what has really happened. */

let direct: Redis;
let proxy: FaultProxy;
let cleanups: (() => unknown)[] = [];
beforeEach(async () => {
  const address = await service('redis');
  direct = new Redis(address.url);
  proxy = await proxyTo(address);
  cleanups = [() => direct.disconnect(), () => proxy.close()];
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

const faults = ['lose-request', 'lose-reply', 'reset', 'hang-request', 'hang-reply'] as const;

/** Clients that behave differently: ioredis sends again by itself, node-redis rejects. */
const drivers = {
  async ioredis(timeoutMs: number) {
    const client = new Redis(proxy.port, proxy.host, { commandTimeout: timeoutMs, retryStrategy: () => 5 });
    client.on('error', () => {});
    cleanups.push(() => client.disconnect());
    return client;
  },
  async 'node-redis'(timeoutMs: number) {
    const socket = { host: proxy.host, port: proxy.port, reconnectStrategy: () => 5, socketTimeout: timeoutMs };
    const client = createClient({ socket });
    client.on('error', () => {});
    await client.connect();
    cleanups.push(() => client.destroy());
    return client;
  },
};

async function stand(driver: keyof typeof drivers, timeoutMs = 250): Promise<{ mine: DedupStore; harness: RedisHarness }> {
  const harness = redisHarness(direct);
  cleanups.push(() => harness.close!());
  const mine = harness.beside({}, await drivers[driver](timeoutMs));
  await insist(() => single(mine).settle('any', 'looks at the server first', asReleased));
  return { mine, harness };
}

/** Asks until there is an answer, as a receiver does that gets the message again, or a client that sends again. */
async function insist<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await call();
    } catch (error) {
      expect(error).toMatchObject({ code: 'store' });
      if (tries === 10) throw error;
      // What hangs has to be broken for the client to connect anew.
      proxy.cut();
      proxy.heal();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

for (const driver of Object.keys(drivers) as (keyof typeof drivers)[]) {
  describe(`redisStore on ${driver}, whose connection fails`, { timeout: 60_000 }, () => {
    it.each(faults)('with %s under a claim: it is given once, to the token that asked', async (fault) => {
      const { mine, harness } = await stand(driver);
      for (let i = 0; i < 5; i++) {
        proxy.next({ fault, when: 'evalsha' });
        const answer = claimed(await insist(() => single(mine).claim(`key ${i}`, 'mine')));
        expect(answer).toMatchObject({ attempt: 1, orphaned: false });
        expect(await harness.store.inspect(keyOf(`key ${i}`))).toMatchObject({ state: 'claimed', attempts: 1, fence: answer.fence });
        expect(await single(harness.store).claim(`key ${i}`, 'other')).toMatchObject({ state: 'busy' });
      }
      expect(proxy.injected[fault]).toBe(5);
    });

    it.each(faults)('with %s under a settle: it has ended once', async (fault) => {
      const { mine, harness } = await stand(driver);
      const { claim, settle } = single(mine);
      for (let i = 0; i < 3; i++) {
        for (const name of [`done ${i}`, `given back ${i}`]) {
          claimed(await insist(() => claim(name, 'first')));
          await insist(() => settle(name, 'first', asReleased));
          claimed(await insist(() => claim(name, 'second')));
        }
        proxy.next({ fault, when: 'evalsha' });
        expect(await insist(() => settle(`done ${i}`, 'second', { as: 'completed', result: 'kept' }))).toBe('ok');
        expect(await single(harness.store).claim(`done ${i}`, 'x')).toMatchObject({ state: 'completed', result: 'kept' });
        proxy.next({ fault, when: 'evalsha' });
        expect(await insist(() => settle(`given back ${i}`, 'second', asUncounted))).toBe('ok');
        expect(await harness.store.inspect(keyOf(`given back ${i}`)), 'given back once').toMatchObject({ state: 'released', attempts: 1 });
      }
      expect(proxy.injected[fault]).toBe(6);
    });

    it.each(faults)('with %s under an extension: it has the new lease', async (fault) => {
      const { mine, harness } = await stand(driver);
      for (let i = 0; i < 5; i++) {
        claimed(await insist(() => single(mine).claim(i, 'mine')));
        proxy.next({ fault, when: 'evalsha' });
        expect(await insist(() => single(mine).extend(i, 'mine', 5 * leaseMs))).toBe('ok');
        const answer = await single(harness.store).claim(i, 'other');
        expect(answer.state === 'busy' && answer.remainingMs).toBeGreaterThan(4 * leaseMs);
      }
      expect(proxy.injected[fault]).toBe(5);
    });

    it('so slowly that the lease has ended and others have taken over: every late verb is fenced', async () => {
      const { mine, harness } = await stand(driver, 20_000);
      const { claim, settle, extend } = single(mine);
      for (let i = 0; i < 3; i++) {
        proxy.delayReplies(60);
        const late = claim(i, 'mine');
        await expect.poll(() => harness.store.inspect(keyOf(i)), { interval: 1 }).toMatchObject({ state: 'claimed' });
        await harness.elapse(leaseMs + 1);
        const successor = claimed(await single(harness.store).claim(i, 'successor'));
        expect(successor).toMatchObject({ attempt: 2, orphaned: true });
        expect(claimed(await late).fence).toBeLessThan(successor.fence);
        proxy.delayReplies(0);
        const verbs: (() => Promise<Settled>)[] = [
          () => extend(i, 'mine'),
          () => settle(i, 'mine', { as: 'completed', result: 'of a zombie' }),
          () => settle(i, 'mine', asReleased),
        ];
        for (const verb of verbs) expect(await verb()).toBe('fenced');
        expect(await claim(i, 'mine')).toMatchObject({ state: 'busy' });
        expect(await single(harness.store).settle(i, 'successor', { as: 'completed', result: 'right' })).toBe('ok');
        for (const verb of verbs) expect(await verb()).toBe('fenced');
        expect(await claim(i, 'mine')).toMatchObject({ state: 'completed', result: 'right' });
      }
    });

    it('for good: every verb rejects, and works again when there is a connection', async () => {
      const { mine, harness } = await stand(driver);
      claimed(await insist(() => single(mine).claim('a', 'mine')));
      proxy.freeze();
      const calls = await Promise.allSettled([single(mine).claim('b', 'mine'), single(mine).extend('a', 'mine')]);
      for (const call of calls) expect(call).toMatchObject({ status: 'rejected', reason: { code: 'store' } });
      proxy.cut();
      proxy.heal();
      expect(await insist(() => single(mine).extend('a', 'mine'))).toBe('ok');
      expect(await insist(() => single(mine).claim('b', 'mine'))).toMatchObject({ state: 'claimed', attempt: 1 });
      expect(await single(harness.store).claim('b', 'other')).toMatchObject({ state: 'busy' });
    });
  });
}
