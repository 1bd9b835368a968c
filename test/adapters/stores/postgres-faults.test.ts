import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PgPool, postgresStore } from '../../../adapters/stores/postgres/index.ts';
import { migrate } from '../../../adapters/stores/postgres/schema.ts';
import { attribute, createReceiver } from '../../../src/index.ts';
import { asCompleted, ask, asReleased, claimed, keyOf, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { type FaultProxy, proxyTo } from '../../support/proxy.ts';
import { ownService, service } from '../../support/services/index.ts';
import { actions, delivery } from '../../support/stand.ts';
import { unique } from '../../support/unique.ts';
import { poolOf, postgresHarness } from './postgres-harness.ts';

/* The connection fails under each verb. `mine` is a store behind the proxy, `harness.store` one that sees what has really happened. */

let proxy: FaultProxy;
let cleanups: (() => unknown)[] = [];
beforeEach(async () => {
  proxy = await proxyTo(await service('postgres'));
  cleanups = [() => proxy.close()];
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

const faults = ['lose-request', 'lose-reply', 'reset', 'hang-request', 'hang-reply'] as const;

async function stand() {
  const harness = await postgresHarness();
  const { user, password, database } = await service('postgres');
  // A driver without a time limit of its own would wait for ever for an answer that never comes; the receiver's limit is not tested here.
  const behind = poolOf({
    host: proxy.host,
    port: proxy.port,
    user,
    password,
    database,
    query_timeout: 300,
    connectionTimeoutMillis: 1_000,
  });
  cleanups.push(
    () => harness.close!(),
    () => behind.end(),
  );
  const mine = postgresStore<pg.PoolClient>(behind as unknown as PgPool<pg.PoolClient>, { schema: harness.schema });
  await single(mine).settle('any', 'looks at the tables first', asReleased);
  return { harness, mine, behind };
}

/** Asks until there is an answer, as a receiver does that gets the message again. */
async function insist<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await call();
    } catch (error) {
      if (tries === 10) throw error;
    }
  }
}

describe('postgresStore, whose connection fails', { timeout: 60_000 }, () => {
  it.each(faults)('with %s under a claim: it is given once, to the token that asked', async (fault) => {
    const { mine, harness } = await stand();
    for (let i = 0; i < 3; i++) {
      proxy.next({ fault, when: '.take(' });
      const answer = claimed(await insist(() => single(mine).claim(`key ${i}`, 'mine')));
      expect(answer).toMatchObject({ attempt: 1, orphaned: false });
      expect(await harness.store.inspect!(keyOf(`key ${i}`))).toMatchObject({ state: 'claimed', attempts: 1, fence: answer.fence });
      expect((await single(harness.store).claim(`key ${i}`, 'other')).state).toBe('busy');
    }
    expect(proxy.injected[fault]).toBe(3);
  });

  it.each(faults)('with %s under settle and extend: each has happened once', async (fault) => {
    const { mine, harness } = await stand();
    const { claim, settle, extend } = single(mine);
    await claim('done', 't');
    await claim('back', 't');
    proxy.next({ fault, when: '.extend(' });
    expect(await insist(() => extend('done', 't'))).toBe('ok');
    proxy.next({ fault, when: '.settle(' });
    expect(await insist(() => settle('done', 't', { as: 'completed', result: 'r' }))).toBe('ok');
    proxy.next({ fault, when: '.settle(' });
    expect(await insist(() => settle('back', 't', asReleased))).toBe('ok');
    const { claim: look } = single(harness.store);
    expect(await look('done', 'x')).toMatchObject({ state: 'completed', result: 'r' });
    expect(await look('back', 'x')).toMatchObject({ state: 'claimed', attempt: 2 });
    expect(proxy.injected[fault]).toBe(3);
  });

  it.each(faults)('with %s under a purge: what has expired goes in the end, and nothing else', async (fault) => {
    const { mine, harness } = await stand();
    const names = (of: string) => Array.from({ length: 20 }, (_, i) => `${of} ${i}`);
    await harness.store.claim(names('old').map((name) => ask(name, 't')));
    await harness.elapse(retainMs + 1);
    await harness.store.claim(names('new').map((name) => ask(name, 't')));
    proxy.next({ fault, when: 'skip locked' });
    while ((await insist(() => mine.purge(7))) === 7);
    expect(proxy.injected[fault]).toBe(1);
    expect((await harness.db.query(`select count(*)::int as n from ${harness.schema}.records`)).rows).toEqual([{ n: 20 }]);
    for (const answer of await harness.store.claim(names('new').map((name) => ask(name, 'u')))) expect(answer.state).toBe('busy');
  });

  it.each(faults)('with %s under the COMMIT of a unit: it rejects if nothing has committed, and resolves if all has', async (fault) => {
    const { mine, harness } = await stand();
    const outcomes = { resolved: 0, rejected: 0 };
    for (let i = 0; i < 3; i++) {
      proxy.next({ fault, when: 'close idempotent_guard; commit' });
      const unit = mine.unit(async (unit) => {
        await unit.record([ask(`m${i}`, 't')]);
        await unit.savepoint((tx) => harness.write(tx, `effect ${i}`) as Promise<void>);
      });
      const ended = await unit.then(
        () => 'resolved' as const,
        (error) => {
          expect(error).not.toMatchObject({ code: 'commit-in-doubt' });
          return 'rejected' as const;
        },
      );
      outcomes[ended]++;
      const committed = (await harness.read()).includes(`effect ${i}`);
      expect(committed, `${fault}: ${ended}`).toBe(ended === 'resolved');
      expect((await single(harness.store).claim(`m${i}`, 'x')).state).toBe(committed ? 'completed' : 'claimed');
    }
    expect(proxy.injected[fault]).toBe(3);
    expect(outcomes[fault === 'lose-reply' || fault === 'hang-reply' ? 'resolved' : 'rejected']).toBe(3);
  });

  it.each(['lose-request', 'lose-reply'] as const)(
    'with %s under the COMMIT of a unit whose message was claimed before with the same token, as one that comes again is: a claim is no record',
    async (fault) => {
      const { mine, harness } = await stand();
      await single(mine).claim('again', 't');
      proxy.next({ fault, when: 'close idempotent_guard; commit' });
      const unit = mine.unit(async (unit) => {
        await unit.record([ask('again', 't')]);
        await unit.savepoint((tx) => harness.write(tx, 'effect') as Promise<void>);
      });
      const ended = await unit.then(
        () => 'resolved',
        () => 'rejected',
      );
      expect(proxy.injected[fault]).toBe(1);
      expect(ended).toBe(fault === 'lose-reply' ? 'resolved' : 'rejected');
      expect(await harness.read()).toEqual(ended === 'resolved' ? ['effect'] : []);
    },
  );

  it('while it is given out, it takes nobody with it: the server’s farewell may come with its welcome', async () => {
    const { harness } = await stand();
    const pool = poolOf({ connectionString: (await service('postgres')).url });
    cleanups.push(() => pool.end());
    const store = postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, { schema: harness.schema });
    const thrown: unknown[] = [];
    // As pg tells it where both are in one packet: the pool has stopped listening, and nobody has got the client yet.
    const farewell = (client: pg.PoolClient) => {
      try {
        thrown.push(client.emit('error', new Error('terminating connection due to administrator command')));
      } catch (error) {
        thrown.push(error);
      }
    };
    pool.on('connect', (client) => process.nextTick(farewell, client));
    expect(claimed(await single(store).claim('one', 't'))).toMatchObject({ attempt: 1 });
    expect(thrown).toEqual([true]);
  });

  it.each(['begin isolation', 'release savepoint', 'insert into', 'commit'])(
    'at "%s" of a receiver’s units: all messages are done in the end, each effect once',
    async (when) => {
      const { mine, harness } = await stand();
      const receiver = createReceiver(
        { scope: 'test', key: attribute('id'), store: mine, backoff: { firstMs: 1, maxMs: 1 }, cacheSize: 0 },
        ({ id }: { id: string }, { tx }) => harness.write(tx, id) as Promise<void>,
      );
      const open = new Set(Array.from({ length: 20 }, (_, i) => `m${i}`));
      for (const fault of faults) {
        proxy.next({ fault, when });
        const ids = [...open];
        const verdicts = await receiver.process(ids.map((id) => delivery(id)));
        for (const [i, verdict] of verdicts.entries()) if (verdict.action === 'ack' && fault !== 'hang-reply') open.delete(ids[i]!);
        if (fault !== 'hang-reply') for (let i = 0; i < 20; i++) open.add(`m${i}`);
      }
      proxy.heal();
      for (let tries = 0; tries < 20; tries++) {
        const verdicts = await receiver.process([...Array(20).keys()].map((i) => delivery(`m${i}`)));
        if (actions(verdicts).every((each) => each.startsWith('ack'))) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      expect([...(await harness.read())].sort()).toEqual(Array.from({ length: 20 }, (_, i) => `m${i}`).sort());
      expect(Object.values(proxy.injected).reduce((a, b) => a + b)).toBeGreaterThanOrEqual(4);
      await receiver.stop();
    },
  );

  it('a reply that comes after the lease has ended: the claim is somebody else’s, and its settle is fenced', async () => {
    const { mine, harness } = await stand();
    proxy.delayReplies(200);
    claimed(await single(mine).claim('a', 'mine'));
    await harness.elapse(10_001);
    claimed(await single(harness.store).claim('a', 'other'));
    expect(await single(mine).settle('a', 'mine', asCompleted)).toBe('fenced');
  });

  it('a server that nobody can reach: every verb rejects, and nothing is answered', async () => {
    const { mine } = await stand();
    proxy.cut();
    const { claim, settle, extend } = single(mine);
    for (const call of [
      () => claim('a', 't'),
      () => settle('a', 't', asCompleted),
      () => extend('a', 't'),
      () => mine.purge(1),
      () => mine.unit(async () => {}),
    ])
      await expect(call()).rejects.toThrow();
    proxy.heal();
    expect((await claim('a', 't')).state).toBe('claimed');
  });
});

describe('postgresStore, whose server dies', { timeout: 120_000 }, () => {
  it('is killed and comes back while receivers work: nothing is lost, nothing is done twice', async () => {
    const server = await ownService('postgres');
    const pool = poolOf({ connectionString: server.address.url, connectionTimeoutMillis: 500 });
    try {
      const schema = unique('killed');
      await migrate(pool as unknown as PgPool, { schema });
      await pool.query('create table effects (id text)');
      const store = postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, { schema });
      const receiver = createReceiver(
        { scope: 'test', key: attribute('id'), store, cacheSize: 0, groupSize: 20 },
        async ({ id }: { id: string }, { tx }) => void (await tx.query('insert into effects values ($1)', [id])),
      );
      const ids = Array.from({ length: 600 }, (_, i) => `m${i}`);
      const acked = new Set<string>();
      let kills = 0;
      const killing = (async () => {
        for (let i = 0; i < 3; i++) {
          await new Promise((resolve) => setTimeout(resolve, 150));
          await server.kill();
          kills++;
          await server.restart();
        }
      })();
      let over = false;
      void killing.finally(() => (over = true));
      // As long as the server is killed, also what is done already comes again.
      while (!over || acked.size < ids.length) {
        const verdicts = await receiver.process(ids.map((id) => delivery(id)));
        for (const [i, verdict] of verdicts.entries()) if (verdict.action === 'ack') acked.add(ids[i]!);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await killing;
      const { rows } = await pool.query('select count(*)::int as all, count(distinct id)::int as different from effects');
      expect(rows).toEqual([{ all: 600, different: 600 }]);
      expect(kills).toBe(3);
      await receiver.stop();
    } finally {
      await pool.end();
      await server.stop();
    }
  });
});
