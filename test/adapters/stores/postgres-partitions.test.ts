import type pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { type PgPool, postgresStore, recordOnce } from '../../../adapters/stores/postgres/index.ts';
import { keyOf as keyOfId } from '../../../src/key.ts';
import { ask, claimed, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { runClause } from '../../../src/testing/index.ts';
import { borderClauses, exists, turnTwice } from './postgres-borders.ts';
import { age, partsOf, postgresHarness, turn } from './postgres-harness.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function stand() {
  const harness = await postgresHarness({ partitions: 'daily' });
  cleanups.push(() => harness.close!());
  return harness;
}

const hour = 3_600_000;

describe('postgresStore in partitions', { timeout: 60_000 }, () => {
  it.each(borderClauses.map((clause) => [clause.says, clause] as const))('%s', (_, clause) =>
    runClause(clause, () => postgresHarness({ partitions: 'daily' })),
  );

  it('nobody waits for a partition that is dropped, while its removal waits for who has used it', async () => {
    const harness = await stand();
    const { db, schema, store } = harness;
    claimed(await single(store).claim('old', 't'));
    await turnTwice(harness);
    await age(db, schema, retainMs + 2 * hour);
    // It has read all partitions, and stays.
    const reader = await db.connect();
    try {
      await reader.query(`begin; select count(*) from ${schema}.records`);
      let over = false;
      const purging = (async () => {
        while (await exists(harness, 1)) await store.purge(1);
        over = true;
      })();
      const detached = async () =>
        (await db.query('select from pg_inherits where inhrelid = $1::regclass and inhdetachpending', [`${schema}.records_1`])).rows
          .length > 0;
      await expect.poll(detached, { timeout: 20_000 }).toBe(true);
      for (let i = 0; i < 50; i++) claimed(await single(store).claim(`new ${i}`, 't'));
      await store.unit((unit) => unit.record([ask('old', 'again')]).then(([answer]) => claimed(answer!)));
      expect(over).toBe(false);
      await reader.query('commit');
      await purging;
    } finally {
      reader.release();
    }
    expect(await exists(harness, 1)).toBe(false);
  });

  it('a removal that was interrupted is ended by the next purge', async () => {
    const harness = await stand();
    const { db, schema, store } = harness;
    claimed(await single(store).claim('old', 't'));
    await turnTwice(harness);
    await age(db, schema, retainMs + 2 * hour);
    const reader = await db.connect();
    const remover = await db.connect();
    try {
      await reader.query(`begin; select count(*) from ${schema}.records`);
      await remover.query('set statement_timeout = 200');
      await expect(remover.query(`alter table ${schema}.records detach partition ${schema}.records_1 concurrently`)).rejects.toMatchObject({
        code: '57014',
      });
      await reader.query('commit');
    } finally {
      remover.release(true);
      reader.release();
    }
    claimed(await single(store).claim('new', 't'));
    await expect.poll(() => store.purge(1).then(() => exists(harness, 1)), { timeout: 20_000 }).toBe(false);
  });

  it('what keeps the next one from being made, or a clock that is set back, keeps nobody from claiming', async () => {
    const harness = await stand();
    const { db, schema, store } = harness;
    await db.query(`update ${schema}.meta set part_began_at = now() + interval '100 days'`);
    await store.purge(1);
    expect((await partsOf(db, schema)).part).toBe(1);
    claimed(await single(store).claim('a', 't'));
    const holder = await db.connect();
    try {
      await holder.query(`begin; lock table ${schema}.records in share update exclusive mode`);
      await db.query(`update ${schema}.meta set part_began_at = now() - interval '3 days'`);
      await expect(store.purge(1)).rejects.toMatchObject({ code: '55P03' });
      claimed(await single(store).claim('b', 't'));
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    await store.purge(1);
    expect((await partsOf(db, schema)).part).toBe(2);
    expect((await single(store).claim('b', 'u')).state).toBe('busy');
  });

  it('each of 120 keys is recorded once by 8 workers in all ways, with a border every few of them', async () => {
    const harness = await stand();
    const { db, schema } = harness;
    const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    const random = (() => {
      let state = seed;
      return (below: number) => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return (state >>> 8) % below;
      };
    })();
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    const store = postgresStore<pg.PoolClient>(db as unknown as PgPool<pg.PoolClient>, { schema, partitions: 'daily', unitsAtOnce: 5 });
    const ids = Array.from({ length: 120 }, (_, i) => `m${i}`);
    const effects: string[] = [];
    let working = true;
    const turning = (async () => {
      for (; working; await pause(20)) if ((await partsOf(db, schema)).all < 16) await turn(db, schema);
    })();

    /** Answers whether the key is done. */
    async function handle(id: string, worker: number): Promise<boolean> {
      const asked = { ...ask(id, `${worker}`), key: keyOfId('test', id), leaseMs: hour, retainMs: hour };
      const [way, ms, fails] = [random(3), random(8), random(5) === 0];
      if (way === 0) {
        const { state } = (await store.claim([asked]))[0]!;
        if (state !== 'claimed') return state === 'completed';
        await pause(ms);
        if (!fails) effects.push(id);
        await store.settle([{ ...asked, ...(fails ? { as: 'released', counted: true } : { as: 'completed' }) }]);
        return !fails;
      }
      const effect = `insert into ${schema}.effects values ('${id}')`;
      if (way === 1)
        return store
          .unit(async (unit) => {
            const { state } = (await unit.record([asked]))[0]!;
            if (state !== 'claimed') return state === 'completed';
            await pause(ms);
            await unit.savepoint((tx) => tx.query(effect));
            if (fails) throw new Error('rolled back');
            return true;
          })
          .catch((error: Error) => (error.message === 'rolled back' ? false : Promise.reject(error)));
      const client = await db.connect();
      try {
        await client.query('begin');
        const first = await recordOnce(client as never, { scope: 'test', id, schema, partitions: 'daily' });
        if (first === 'first') await client.query(effect);
        await pause(ms);
        await client.query(fails ? 'rollback' : 'commit');
        return !fails;
      } catch (error) {
        await client.query('rollback');
        if ((error as { code?: unknown }).code === 'busy') return false;
        throw error;
      } finally {
        client.release();
      }
    }

    const workers = Array.from({ length: 8 }, async (_, worker) => {
      let open = ids.map((id) => ({ id, at: random(1_000) })).sort((a, b) => a.at - b.at);
      while (open.length > 0) {
        const next = [];
        for (const each of open) if (!(await handle(each.id, worker))) next.push(each);
        open = next;
      }
    });
    try {
      await Promise.all(workers);
    } finally {
      working = false;
      await turning;
    }
    const all = [...effects, ...(await harness.read())];
    expect([...all].sort(), `seed ${seed}`).toEqual([...ids].sort());
    expect((await partsOf(db, schema)).part, 'borders').toBeGreaterThan(5);
  });
});
