import { Redis } from 'ioredis';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate } from '../../adapters/stores/postgres/index.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';
import { expectAlways, expectSame, killRig } from './kill-rig.ts';

/** As kill.test.ts, on servers: there the table is shown whole, here that the other journals keep it too. */
const stores = {
  postgres: async () => {
    const { url } = await service('postgres');
    const schema = unique('steps');
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    await migrate(pool, { schema });
    await pool.query(`create table ${schema}.charges (id text); create table ${schema}.charges_once (id text primary key)`);
    return {
      storeOf: () => `postgres:${url} ${schema}`,
      async drop() {
        await pool.query(`drop schema ${schema} cascade`);
        await pool.end();
      },
    };
  },
  redis: async () => {
    const { url } = await service('redis');
    const prefix = unique('steps');
    return {
      storeOf: () => `redis:${url} ${prefix}`,
      async drop() {
        const client = new Redis(url);
        for (const key of await client.keys(`{${prefix}}*`)) await client.del(key);
        client.disconnect();
      },
    };
  },
};

describe.each(Object.entries(stores))('on %s, a worker that is killed wherever it waits', { timeout: 180_000 }, (name, open) => {
  let rig: Awaited<ReturnType<typeof killRig>>;
  let store: Awaited<ReturnType<typeof open>>;
  beforeAll(async () => {
    store = await open();
    rig = await killRig(store.storeOf, 1_500);
  });
  afterAll(async () => {
    await rig?.close();
    await store?.drop();
  });

  it('with a step that has `confirm`, and a gateway that ignores keys: the money moves once', async () => {
    const outcomes = await rig.killedEverywhere('confirm', 'ignored');
    expect(outcomes.size).toBe(12);
    expectAlways(outcomes, ['charge']);
  });

  it('with a saga that fails for good: each step and each compensation moves its money once, in order', async () => {
    expectAlways(await rig.killedEverywhere('refused saga', 'honoured'), ['flight', 'hotel', 'undo hotel', 'undo flight']);
  });

  it('`now`, `uuid` and `random` are the same on each attempt', async () => {
    expectSame(await rig.killedEverywhere('values', 'ignored'));
  });

  // Redis has no rows of the handler's own.
  if (name === 'postgres') {
    it('a row is there twice if it dies between the row and the record; with `insertOnce`, once', async () => {
      expect((await rig.killedEverywhere('row', 'ignored')).get('after insert')).toEqual(['row', 'row']);
      expectAlways(await rig.killedEverywhere('row once', 'ignored'), ['row']);
    });
  }

  it.each([
    ['step', 'honoured', 'after charge', 1],
    ['fenced step', 'ignored', 'before charge', 1],
    ['confirm', 'ignored', 'before write charge started', 1],
    ['step', 'ignored', 'before charge', 2],
  ] as const)(
    'with a %s, keys %s, stopped %s past its lease while another has its message: the money moves %i times',
    async (program, keys, place, times) => {
      expect(await rig.overtakenAt(place, program, keys)).toHaveLength(times);
    },
  );
});
