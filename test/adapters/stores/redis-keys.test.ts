import { Redis } from 'ioredis';
import { createClient, createClientPool } from 'redis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openStore, redisStore } from '../../../adapters/stores/redis/index.ts';
import { layoutOf, slotOf } from '../../../adapters/stores/redis/layout.ts';
import { asCompleted, ask, asParked, asReleased, keyOf, retainMs, single, states } from '../../../src/testing/clauses/kit.ts';
import { service } from '../../support/services/index.ts';
import { type RedisHarness, type RedisHarnessOptions, redisHarness } from './redis-harness.ts';

let client: Redis;
beforeAll(async () => void (client = new Redis((await service('redis')).url)));
afterAll(() => client?.disconnect());

const opened: RedisHarness[] = [];
afterEach(async () => {
  for (const each of opened.splice(0)) await each.close!();
});
function open(options: RedisHarnessOptions = {}): RedisHarness {
  const harness = redisHarness(client, options);
  opened.push(harness);
  return harness;
}

const compact = { retentionMs: retainMs, expectedIds: 1_000, resendMs: 1 };
const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Claims and completes keys, in one batch each. */
async function complete({ store }: RedisHarness, names: readonly (string | number)[], retain = retainMs): Promise<void> {
  await store.claim(names.map((name) => ask(name, 'owner')));
  const ends = names.map((name) => ({ key: keyOf(name), token: 'owner', retainMs: retain, ...asCompleted }));
  expect(new Set(await store.settle(ends))).toEqual(new Set(['ok']));
}

describe('what redisStore leaves in Redis', () => {
  it.each([
    ['plain', {}],
    ['compact', { compact }],
    ['in 4 shards', { shards: 4 }],
  ] as const)('%s, expires, but for one counter a shard and the layout', async (_, options) => {
    const harness = open(options);
    for (const state of ['claimed', 'released', 'completed', 'parked'] as const) {
      for (const i of range(20)) await states[state](harness, `${state} ${i}`);
    }
    await harness.store.replay(keyOf('parked 3'));
    const keys = await client.keys(`{${harness.prefix}*`);
    const lasting: string[] = [];
    for (const key of keys) if ((await client.pttl(key)) === -1) lasting.push(key);
    const shards = 'shards' in options ? options.shards : 1;
    expect(lasting.filter((key) => key.endsWith(':fence')).length).toBe(shards);
    expect(lasting.filter((key) => !key.endsWith(':fence'))).toEqual([`{${harness.prefix}}:layout`]);
    await harness.elapse(2 * retainMs);
    expect((await client.keys(`{${harness.prefix}*`)).sort()).toEqual(lasting.sort());
  });

  it('has no index entry of what is parked no more, after a purge, and every other record', async () => {
    const harness = open();
    const { store } = harness;
    for (const i of range(30)) await states.parked(harness, `old ${i}`);
    await harness.elapse(retainMs / 2);
    for (const i of range(30)) await states.parked(harness, `young ${i}`);
    await single(store).settle('x', 'x', asParked);
    for (const i of range(10)) await store.replay(keyOf(`young ${i}`));
    await harness.elapse(retainMs / 2 + 1);
    await states.completed(harness, 'completed');
    const index = `{${harness.prefix}}:parked`;
    expect(await client.zcard(index)).toBe(50);
    expect([await store.purge(7), await client.zcard(index)]).toEqual([0, 43]);
    for (const _ of range(8)) expect(await store.purge(7)).toBe(0);
    expect(await client.zrange(index, '0', '-1')).toEqual((await store.listParked({ limit: 100 })).map(({ key }) => key));
    expect(await client.zcard(index)).toBe(20);
    expect(await store.stats()).toEqual({ claimed: 0, released: 10, completed: 1, parked: 20 });
  });

  it('lists parked records past those that have gone, and starts anew if the last one seen has', async () => {
    const harness = open({ shards: 2 });
    for (const i of range(6)) {
      await states.parked(harness, `p${i}`);
      await harness.elapse(10);
    }
    const all = (await harness.store.listParked({ limit: 10 })).map(({ key }) => key);
    expect(all).toEqual(range(6).map((i) => keyOf(`p${i}`)));
    for (const key of await client.keys(`{${harness.prefix}*${all[2]}`)) await client.del(key);
    expect((await harness.store.listParked({ limit: 2, after: all[1] })).map(({ key }) => key)).toEqual([all[3], all[4]]);
    expect((await harness.store.listParked({ limit: 2, after: all[2] })).map(({ key }) => key)).toEqual([all[0], all[1]]);
  });

  it('is found by other stores with the same layout only', async () => {
    const harness = open({ shards: 2, compact });
    await states.completed(harness, 'a');
    const same = harness.beside({ compact: { ...compact, resendMs: 1_000 } });
    expect(await single(same).claim('a', 'x')).toMatchObject({ state: 'completed' });
    for (const other of [
      { shards: 4 },
      { compact: { ...compact, retentionMs: 5_000 } },
      { compact: { ...compact, expectedIds: 100_000 } },
    ]) {
      const store = harness.beside(other);
      await expect(single(store).claim('a', 'x')).rejects.toMatchObject({
        code: 'store',
        message: expect.stringContaining('to have the layout "1 shards='),
      });
      await expect(store.inspect(keyOf('a'))).rejects.toMatchObject({ code: 'store' });
    }
    const plain = openStore(client, { prefix: harness.prefix, shards: 2 });
    await expect(single(plain).claim('a', 'x')).rejects.toMatchObject({ code: 'store' });
  });
});

describe('compact mode', () => {
  it('answers from the bucket alone as before, but for the token', async () => {
    const harness = open({ compact });
    const { claim, settle, extend } = single(harness.store);
    await complete(harness, range(500));
    await claim('none', 'owner', { fingerprint: '' });
    await settle('none', 'owner', asCompleted);
    await harness.elapse(5_000);
    expect((await client.keys(`{${harness.prefix}}:*`)).filter((key) => /:[\w-]{32}$/.test(key))).toEqual([]);
    const answers = await harness.store.claim(range(501).map((i) => ask(i, 'other')));
    expect(answers.map(({ state }) => state)).toEqual([...range(500).map(() => 'completed'), 'claimed']);
    for (const answer of answers.slice(0, 500)) expect(Math.abs((answer as { ageMs: number }).ageMs - 5_000)).toBeLessThan(2_000);
    expect(await claim(7, 'other', { fingerprint: '' })).toMatchObject({ state: 'completed' });
    expect(await claim(7, 'other', { fingerprint: ask('another', 't').fingerprint })).toEqual({ state: 'mismatch' });
    expect(await claim('none', 'other', { fingerprint: ask('another', 't').fingerprint })).toMatchObject({ state: 'completed' });
    for (const end of [asCompleted, asReleased, asParked]) expect(await settle(7, 'owner', end)).toBe('fenced');
    expect(await extend(7, 'owner')).toBe('fenced');
    expect(await harness.store.inspect(keyOf(7))).toMatchObject({ state: 'completed', attempts: 0, fence: 0 });
    expect(await harness.store.stats()).toEqual({ claimed: 1, released: 0, completed: 501, parked: 0 });
  });

  it('gives a greater fence after an entry has expired, or was forgotten', async () => {
    const harness = open({ compact });
    let last = 0;
    for (const round of range(6)) {
      const answer = await single(harness.store).claim('a', `t${round}`);
      expect(answer).toMatchObject({ state: 'claimed', attempt: 1 });
      expect((answer as { fence: number }).fence).toBeGreaterThan(last);
      last = (answer as { fence: number }).fence;
      await single(harness.store).settle('a', `t${round}`, asCompleted);
      await harness.elapse(round % 2 ? 10 : retainMs + 2_000);
      if (round % 2) expect(await harness.store.forget(keyOf('a'))).toBe(true);
    }
  });

  it('keeps records whole that have a result or another retention', async () => {
    const harness = open({ compact });
    const { claim, settle } = single(harness.store);
    await claim('result', 'owner');
    await settle('result', 'owner', { as: 'completed', result: 'kept' });
    await claim('longer', 'owner');
    await settle('longer', 'owner', asCompleted, 2 * retainMs);
    expect((await client.keys(`{${harness.prefix}}:~*`)).length).toBe(0);
    await harness.elapse(retainMs - 5_000);
    expect(await claim('result', 'x')).toMatchObject({ state: 'completed', result: 'kept' });
    await harness.elapse(10_000);
    expect(await claim('longer', 'x')).toMatchObject({ state: 'completed' });
  });

  it('takes expired entries out of a bucket that is still written, so that it does not grow', async () => {
    const harness = open({ compact: { ...compact, expectedIds: 64 } });
    for (const round of range(40)) {
      await complete(
        harness,
        range(16).map((i) => `${round} ${i}`),
      );
      await harness.elapse(retainMs / 4);
    }
    const [bucket] = await client.keys(`{${harness.prefix}}:~*`);
    expect((await harness.store.stats()).completed).toBe(48);
    expect(await client.hlen(bucket!), '640 have been in it').toBeLessThan(48 + 64);
    await harness.elapse(2 * retainMs);
    expect(await client.exists(bucket!), 'without writes it goes as a whole').toBe(0);
  });

  it('answers rightly when buckets have outgrown the lists that make them small', async () => {
    const harness = open({ compact: { ...compact, expectedIds: 1 } });
    await complete(harness, range(3_000));
    const [bucket] = await client.keys(`{${harness.prefix}}:~*`);
    expect(await client.object('ENCODING', bucket!)).toBe('hashtable');
    await harness.elapse(1_000);
    const answers = await harness.store.claim(range(3_010).map((i) => ask(i, 'x')));
    expect(answers.filter(({ state }) => state === 'completed').length).toBe(3_000);
    await harness.elapse(retainMs);
    await complete(
      harness,
      range(2_000).map((i) => `later ${i}`),
    );
    expect(await client.hlen(bucket!), 'cleaned by samples').toBeLessThan(2_600);
    expect((await harness.store.stats()).completed).toBe(2_000);
  });

  it('answers corrupt for an entry, or a bucket, that can not be read, and lets people forget it', async () => {
    const harness = open({ compact: { ...compact, expectedIds: 1 } });
    await complete(harness, ['a', 'b']);
    await harness.elapse(1_000);
    const [bucket] = await client.keys(`{${harness.prefix}}:~*`);
    await client.hset(bucket!, Buffer.from(keyOf('a').slice(16), 'base64url'), '7 bytes');
    const states = async () => (await harness.store.claim([ask('a', 'x'), ask('b', 'x')])).map(({ state }) => state);
    expect(await states()).toEqual(['corrupt', 'completed']);
    await expect(harness.store.inspect(keyOf('a'))).rejects.toMatchObject({
      code: 'store',
      message: expect.stringContaining("can't be read"),
    });
    expect(await harness.store.forget(keyOf('a'))).toBe(true);
    expect(await states()).toEqual(['claimed', 'completed']);
    await client.hset(bucket!, 'x', '');
    // Enough of them that the bucket is cleaned meanwhile.
    await complete(harness, range(50));
    expect(await client.hget(bucket!, 'x'), 'what can not be read is not thrown away').toBe('');
    await client.del(bucket!);
    await client.set(bucket!, 'not a hash', 'PX', 60_000);
    expect(await states()).toEqual(['corrupt', 'corrupt']);
    expect(await harness.store.forget(keyOf('b'))).toBe(true);
    expect(await single(harness.store).claim('b', 'x')).toMatchObject({ state: 'claimed' });
  });
});

describe('redisStore refuses', () => {
  it('keys, fingerprints and tokens that would run into each other', async () => {
    const { store } = open({ compact });
    for (const key of ['', 'short', `${'a'.repeat(31)}!`, `${'a'.repeat(31)}}`, `${'a'.repeat(31)}é`, 'a'.repeat(33)])
      await expect(store.claim([ask('a', 't'), { ...ask('b', 't'), key }])).rejects.toMatchObject({ code: 'invalid-key' });
    for (const fingerprint of ['short', `${'a'.repeat(21)}!`, 'a'.repeat(23)])
      await expect(store.claim([{ ...ask('x', 't'), fingerprint }])).rejects.toMatchObject({ code: 'invalid-key' });
    for (const token of ['', 'ö', 'x'.repeat(256)]) {
      await expect(store.claim([ask('x', 't'), ask('y', token)])).rejects.toMatchObject({ code: 'store' });
      await expect(store.settle([{ key: keyOf('x'), token, retainMs, ...asCompleted }])).rejects.toMatchObject({ code: 'store' });
      await expect(store.extend([{ key: keyOf('x'), token, leaseMs: 1 }])).rejects.toMatchObject({ code: 'store' });
    }
    for (const verb of ['inspect', 'replay', 'forget'] as const) {
      await expect(store[verb]('*')).rejects.toMatchObject({ code: 'invalid-key' });
    }
    expect(await store.stats()).toEqual({ claimed: 0, released: 0, completed: 0, parked: 0 });
  });

  it('to wait on a pool, whose connections know nothing of what others have written', () => {
    const wait = { replicas: 1, timeoutMs: 1 };
    expect(() => redisStore(createClientPool(), { wait })).toThrow('Expected `wait` to be left out with a pool: use a single client');
    expect(() => redisStore(createClientPool())).not.toThrow();
    expect(() => redisStore(createClient(), { wait })).not.toThrow();
  });

  it('options that are wrong, and says what they have to be', () => {
    const refused = (options: unknown) => {
      try {
        redisStore(client, options as object);
      } catch (error) {
        expect(error).toMatchObject({ code: 'invalid-option' });
        return (error as Error).message;
      }
      return 'accepted';
    };
    expect(refused({ prefix: 'a{b}' })).toBe(
      'Expected `prefix` to be 1 to 64 letters, digits, `_`, `.`, `:` or `-`, got `"a{b}"` (string)',
    );
    expect(refused({ shards: 3 })).toBe('Expected `shards` to be a power of 2, got `3` (number)');
    expect(refused({ shards: 512 })).toBe('Expected `shards` to be a whole number from 1 to 256, got `512` (number)');
    expect(refused({ compact: {} })).toContain('Expected `compact.retentionMs` to be a whole number from 1000 to');
    expect(refused({ compact: { ...compact, expectedIds: 0 } })).toContain('Expected `compact.expectedIds` to be');
    expect(refused({ compact: { ...compact, resendMs: 0 } })).toContain('Expected `compact.resendMs` to be');
    expect(refused({ allowEviction: 'yes' })).toContain('Expected `allowEviction` to be true or false');
    expect(refused({ wait: { replicas: 0, timeoutMs: 1 } })).toContain('Expected `wait.replicas` to be');
    expect(refused({ wait: { replicas: 1, timeoutMs: 0 } })).toContain('Expected `wait.timeoutMs` to be');
    for (const other of [
      undefined,
      null,
      {},
      { sendCommand: () => {}, nodeClient: () => {} },
      new Redis({ lazyConnect: true, keyPrefix: 'x' }),
    ]) {
      expect(() => redisStore(other as Redis)).toThrow(
        expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining('Expected `client` to be') }),
      );
    }
  });
});

it('the tags of shards are in equal parts of all slots, as Redis counts slots', () => {
  expect(slotOf('123456789')).toBe(12_739);
  for (const shards of [2, 16, 256]) {
    const slots = layoutOf('any', shards, undefined).shards.map((name) => slotOf(/^\{(.*)\}:$/.exec(name)![1]!));
    expect(slots.map((slot) => Math.floor((slot * shards) / 16_384))).toEqual(range(shards));
  }
});
