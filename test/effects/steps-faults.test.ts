import type pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { type PgPool, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { attribute, createReceiver, type DedupStore, type Journal, SagaUndone, TerminalError } from '../../src/index.ts';
import { poolOf, postgresHarness } from '../adapters/stores/postgres-harness.ts';
import { drivers, sqliteHarness } from '../adapters/stores/sqlite-harness.ts';
import { proxyTo } from '../support/proxy.ts';
import { service } from '../support/services/index.ts';
import { delivery } from '../support/stand.ts';

/* The COMMIT of each write to the journal fails, or is not answered, right after the effect. */

let cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

interface Site {
  readonly store: DedupStore & Journal;
  /** Makes the next write to the journal fail. */
  fail(): void;
  failed(): number;
}

async function postgres(fault: 'lose-request' | 'lose-reply' | 'reset' | 'hang-request' | 'hang-reply'): Promise<Site> {
  const harness = await postgresHarness();
  const { user, password, database, ...server } = await service('postgres');
  const proxy = await proxyTo(server);
  const { host, port } = proxy;
  const pool = poolOf({ ...{ host, port, user, password, database }, query_timeout: 300, connectionTimeoutMillis: 1_000 });
  cleanups = [() => proxy.close(), () => harness.close!(), () => pool.end()];
  return {
    store: postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, { schema: harness.schema }),
    fail: () => proxy.next({ fault, when: 'as c(key, token, name' }),
    failed: () => proxy.injected[fault] ?? 0,
  };
}

async function sqlite(lost: 'request' | 'reply'): Promise<Site> {
  const harness = sqliteHarness(drivers['node:sqlite']!);
  cleanups = [() => harness.close!()];
  let armed = 0;
  return {
    store: harness.store as unknown as DedupStore & Journal,
    fail: () => (armed++, harness.failCommit!(lost)),
    failed: () => armed,
  };
}

const sites: readonly [string, () => Promise<Site>][] = [
  ...(['lose-request', 'lose-reply', 'reset', 'hang-request', 'hang-reply'] as const).map((fault): [string, () => Promise<Site>] => [
    `${fault} on PostgreSQL`,
    () => postgres(fault),
  ]),
  ...(['request', 'reply'] as const).map((lost): [string, () => Promise<Site>] => [`${lost} lost on SQLite`, () => sqlite(lost)]),
];

describe('steps whose records are not answered for', { timeout: 60_000 }, () => {
  it.each(sites)('with %s: each effect of a step and of a saga happens once, without any key', async (_, open) => {
    const { store, fail, failed } = await open();
    const done: string[] = [];
    const effect = (what: string) => () => {
      fail();
      return done.push(what);
    };
    const times = new Set<number>();
    const receiver = createReceiver(
      { scope: 'test', key: attribute('id'), store, guarantee: 'fenced', backoff: { firstMs: 1, maxMs: 1 } },
      async (_payload: unknown, ctx) => {
        times.add(await ctx.now());
        await ctx.step('charge', effect('charge'));
        await ctx.step('mail', effect('mail'), { confirm: () => 'unknown' });
        const trip = ctx.saga('trip', async (saga) => {
          await saga.step('flight', effect('flight'), { undo: effect('undo flight') });
          await saga.step('car', () => Promise.reject(new TerminalError('no car is left')));
        });
        await expect(trip).rejects.toThrow(SagaUndone);
      },
    );
    let tries = 0;
    for (let acked = false; !acked; tries++) {
      expect(tries).toBeLessThan(20);
      const [verdict] = await receiver.process([delivery('a')]);
      acked = verdict!.action === 'ack';
    }
    expect(done).toEqual(['charge', 'mail', 'flight', 'undo flight']);
    expect(times.size).toBe(1);
    expect(failed()).toBe(4);
    await receiver.stop();
  });
});
