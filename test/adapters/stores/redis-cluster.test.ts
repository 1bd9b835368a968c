import { Cluster, Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { redisStore } from '../../../adapters/stores/redis/index.ts';
import { layoutOf, shardOf, slotOf } from '../../../adapters/stores/redis/layout.ts';
import { asCompleted, ask, claimed, keyOf, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { storeContract } from '../../../src/testing/index.ts';
import { ownService, service } from '../../support/services/index.ts';
import { unique } from '../../support/unique.ts';
import { nodesOf, type RedisHarnessOptions, redisHarness, skip } from './redis-harness.ts';

const connect = (nodes: readonly { host: string; port: number }[]) =>
  // Gives up soon when a slot is being moved, instead of after 1.6 seconds.
  new Cluster([...nodes], { retryDelayOnTryAgain: 5, redisOptions: { maxRetriesPerRequest: 1 } });

let cluster: Cluster;
beforeAll(async () => void (cluster = connect((await service('redis-cluster')).nodes)));
afterAll(() => cluster?.disconnect());

const restart = { clause: '14', reason: 'the cluster is shared: redis-server.test.ts kills a server of its own' };
const compact = { retentionMs: retainMs, expectedIds: 10_000 };
function contract(name: string, options: RedisHarnessOptions): void {
  storeContract({ describe, it, name, open: () => redisHarness(cluster, options), skip: [...skip, restart] });
}

contract('redisStore on a cluster', {});
contract('redisStore on a cluster, compact', { compact });
contract('redisStore on a cluster, 1 shard', { shards: 1 });

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('redisStore on a cluster', () => {
  it('spreads a batch over all nodes, with one call for each of 16 shards', async () => {
    const { store, prefix } = redisHarness(cluster);
    await single(store).claim('first', 't');
    const calls = async () => {
      const stats = await Promise.all(nodesOf(cluster).map((node) => node.info('commandstats')));
      return stats.map((text) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(text)?.[1] ?? 0));
    };
    // The scripts are known everywhere from here on.
    await store.claim(range(200).map((i) => ask(`warm ${i}`, 't')));
    const before = await calls();
    await store.claim(range(2_000).map((i) => ask(i, 't')));
    const made = (await calls()).map((after, i) => after - before[i]!);
    expect(made.reduce((sum, each) => sum + each)).toBe(16);
    expect(Math.min(...made)).toBeGreaterThanOrEqual(5);
    const records = await Promise.all(nodesOf(cluster).map(async (node) => (await node.keys(`{${prefix}*`)).length));
    expect(Math.min(...records)).toBeGreaterThan(500);
  });

  it('refuses to wait for replicas', () => {
    expect(() => redisStore(cluster, { wait: { replicas: 1, timeoutMs: 100 } })).toThrow(
      'Expected `wait` to be left out on a Redis Cluster',
    );
  });

  it('gives back what it has claimed on other nodes when one fails, so that no attempt is counted', async () => {
    const own = await ownService('redis-cluster');
    const client = connect(own.address.nodes);
    try {
      const prefix = unique('own');
      const store = redisStore(client, { prefix });
      const asks = range(200).map((i) => ask(i, 't', { leaseMs: 3_600_000, retainMs: 3_600_000 }));
      await single(store).claim('first', 't');
      const full = new Redis(own.address.nodes[0]!.port);
      await full.config('SET', 'maxmemory', '1');
      for (let attempt = 0; attempt < 5; attempt++) {
        await expect(store.claim(asks.map((each) => ({ ...each, token: `attempt ${attempt}` })))).rejects.toMatchObject({
          code: 'store',
          message: expect.stringContaining('OOM'),
        });
      }
      expect((await store.stats()).claimed).toBeLessThanOrEqual(1);
      await full.config('SET', 'maxmemory', '0');
      full.disconnect();
      const answers = await store.claim(asks);
      expect(new Set(answers.map((answer) => claimed(answer).attempt))).toEqual(new Set([1]));
    } finally {
      client.disconnect();
      await own.stop();
    }
  });

  it.each([
    ['plain', {}],
    ['compact', { compact: { ...compact, resendMs: 1 } }],
  ] as const)('%s, answers nothing from a slot that is being moved, and everything when it has been', async (_, options) => {
    const own = await ownService('redis-cluster');
    const client = connect(own.address.nodes);
    const nodes = own.address.nodes.map(({ port }) => new Redis(port));
    try {
      const prefix = unique('moved');
      const store = redisStore(client, { ...options, prefix });
      const { shards } = layoutOf(prefix, 16, undefined);
      const slot = slotOf(/^\{(.*)\}:$/.exec(shards[3]!)![1]!);
      const names = range(2_000).filter((i) => shardOf(keyOf(i), 16) === 3);
      expect(names.length).toBeGreaterThan(80);
      const [done, held, fresh] = [names.slice(0, 40), names.slice(40, 60), names.slice(60, 80)];
      await store.claim([...done, ...held].map((name) => ask(name, 'owner')));
      await store.settle(done.map((name) => ({ key: keyOf(name), token: 'owner', retainMs, ...asCompleted })));
      const all = [...done, ...held, ...fresh];
      const answers = async (keys: readonly number[]) =>
        (await Promise.allSettled(keys.map((key) => single(store).claim(key, 'other')))).map((each) =>
          each.status === 'fulfilled' ? each.value.state : String(each.reason.message),
        );
      const expected = [...done.map(() => 'completed'), ...held.map(() => 'busy')];
      expect(await answers([...done, ...held])).toEqual(expected);

      const ids = await Promise.all(nodes.map((node) => node.cluster('MYID')));
      const owner = (await Promise.all(nodes.map((node) => node.cluster('COUNTKEYSINSLOT', slot)))).findIndex((count) => Number(count) > 0);
      const [from, to] = [owner, (owner + 1) % 3];
      await nodes[to]!.cluster('SETSLOT', slot, 'IMPORTING', ids[from]!);
      await nodes[from]!.cluster('SETSLOT', slot, 'MIGRATING', ids[to]!);
      const refused = async () => {
        const got = await answers(all);
        expect(got.filter((each) => !/TRYAGAIN|redirections/.test(each))).toEqual([]);
      };
      await refused();
      // The counter goes first, so that the other node would be asked, where nothing else is yet.
      const keys = (await nodes[from]!.cluster('GETKEYSINSLOT', slot, 10_000)) as string[];
      keys.sort((a, b) => Number(b.endsWith(':fence')) - Number(a.endsWith(':fence')));
      const { port } = own.address.nodes[to]!;
      for (const [i, key] of keys.entries()) {
        await nodes[from]!.migrate('127.0.0.1', port, key, 0, 5_000);
        if (i === 0 || i === Math.floor(keys.length / 2)) await refused();
      }
      await refused();
      for (const node of [nodes[to]!, nodes[from]!, ...nodes]) await node.cluster('SETSLOT', slot, 'NODE', ids[to]!);
      expect(await answers([...done, ...held])).toEqual(expected);
      expect(await answers(fresh)).toEqual(fresh.map(() => 'claimed'));
    } finally {
      client.disconnect();
      for (const node of nodes) node.disconnect();
      await own.stop();
    }
  });
});
