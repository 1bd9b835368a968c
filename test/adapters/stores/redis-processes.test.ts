import { Redis } from 'ioredis';
import { afterEach, describe, expect, it } from 'vitest';
import { redisStore } from '../../../adapters/stores/redis/index.ts';
import { ask } from '../../../src/testing/clauses/kit.ts';
import { ownService, service } from '../../support/services/index.ts';
import { unique } from '../../support/unique.ts';
import { race, startChild } from './processes.ts';
import { makeOlder } from './redis-harness.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const textOf = ({ host, port }: { host: string; port: number }) => `${host}:${port}`;
const start = (kind: 'server' | 'compact' | 'cluster', prefix: string, nodes: string, client: number, size = 100) =>
  startChild(new URL('./redis-child.ts', import.meta.url), [kind, prefix, nodes, client, 10_000, size], cleanups);

describe('processes that share a Redis', { timeout: 120_000 }, () => {
  it.each(['server', 'compact', 'cluster'] as const)('(%s): 16 of them claim each of 10,000 keys exactly once', async (kind) => {
    const nodes = kind === 'cluster' ? (await service('redis-cluster')).nodes.map(textOf).join(',') : textOf(await service('redis'));
    const prefix = unique('race');
    const children = Array.from({ length: 16 }, (_, client) => start(kind, prefix, nodes, client));
    await race(children);
    await Promise.all(children.map(({ gone }) => gone));
    const batches = children.flatMap((child) => child.batches);
    expect(batches.flatMap(({ others }) => others)).toEqual([]);
    const claimed = batches.flatMap((batch) => batch.claimed);
    expect([claimed.length, new Set(claimed).size]).toEqual([10_000, 10_000]);
    const winners = children.filter((child) => child.batches.some((batch) => batch.claimed.length > 0));
    expect(winners.length, 'no race, if few have won anything').toBeGreaterThan(4);
  });

  it('a claimer that is killed leaves claims that others get when the leases have ended', async () => {
    const server = await ownService('redis');
    cleanups.push(() => server.stop());
    const client = new Redis(server.address.url);
    cleanups.push(() => client.disconnect());
    const prefix = unique('killed');
    const child = start('server', prefix, textOf(server.address), 0);
    child.onBatch = () => child.batches.length === 5 && child.process.kill('SIGKILL');
    await race([child]);
    expect(await child.gone).toBe('SIGKILL');

    const store = redisStore(client, { prefix });
    const { claimed } = await store.stats();
    expect(claimed).toBeGreaterThanOrEqual(500);
    expect(claimed % 100, 'a batch is claimed as a whole or not at all').toBe(0);
    const asks = Array.from({ length: 10_000 }, (_, i) => ask(i, 'another'));
    const told = child.batches.flatMap((batch) => batch.claimed);
    const early = await store.claim(told.map((name) => asks[name]!));
    expect(new Set(early.map(({ state }) => state))).toEqual(new Set(['busy']));

    await makeOlder(client, prefix, 30_001);
    const answers = await store.claim(asks);
    const orphans = answers.filter((answer) => answer.state === 'claimed' && answer.orphaned && answer.attempt === 2);
    const fresh = answers.filter((answer) => answer.state === 'claimed' && !answer.orphaned && answer.attempt === 1);
    expect([orphans.length, fresh.length]).toEqual([claimed, 10_000 - claimed]);
    expect(told.every((name) => (answers[name] as { orphaned?: boolean }).orphaned)).toBe(true);
  });
});
