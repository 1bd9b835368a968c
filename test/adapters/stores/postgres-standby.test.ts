import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { migrate, type PgPool, postgresStore } from '../../../adapters/stores/postgres/index.ts';
import { realWorld, type World } from '../../../src/clock.ts';
import { ask, keyOf } from '../../../src/testing/clauses/kit.ts';
import { ownService } from '../../support/services/index.ts';
import { unique } from '../../support/unique.ts';
import { poolOf } from './postgres-harness.ts';

/*
 * `synchronous_standby_names` names a standby, so a COMMIT waits until that has it: what it is told before may be lost with the primary. The standby of
 * these tests has gone away. Whoever ends a session that waits so has its transaction committed all the same, without the standby.
 */

let server: Awaited<ReturnType<typeof ownService<'postgres'>>>;
let db: pg.Pool;
let schema: string;
beforeAll(async () => {
  server = await ownService('postgres');
  db = poolOf({ connectionString: server.address.url });
});
beforeEach(async () => {
  schema = unique('standby');
  await migrate(db as unknown as PgPool, { schema });
});
afterEach(() => standby(''));
afterAll(async () => {
  await db?.end();
  await server?.stop();
});

const waiting = async (): Promise<number[]> =>
  (await db.query(`select pid from pg_stat_activity where wait_event = 'SyncRep'`)).rows.map(({ pid }) => pid);

async function standby(name: string): Promise<void> {
  await db.query(`alter system set synchronous_standby_names = '${name}'`);
  await db.query('select pg_reload_conf()');
  // Those who wait are let go with the name; and it is there when somebody waits.
  if (name === '') await expect.poll(waiting, { timeout: 20_000 }).toEqual([]);
  else
    await expect
      .poll(() => (db.query(`select pg_logical_emit_message(true, '', '')`).catch(() => {}), waiting()), { timeout: 20_000 })
      .not.toEqual([]);
}

/** Its seconds are a twentieth as long. */
const hasty: World = {
  ...realWorld,
  clock: { ...realWorld.clock, now: () => realWorld.clock.now() * 20, after: (ms, task) => realWorld.clock.after(ms / 20, task) },
};

/** A unit whose COMMIT has gone to the server, which waits for the standby with it. */
async function committing() {
  const store = postgresStore<pg.PoolClient>(db as unknown as PgPool<pg.PoolClient>, { schema, statementTimeoutMs: 10_000, world: hasty });
  await store.claim([]);
  await store.inspect(keyOf('looks at the tables first'));
  await standby('gone');
  const begun = Promise.withResolvers<number>();
  const unit = store.unit(async (unit) => {
    await unit.record([ask('a', 't')]);
    await unit.savepoint(async (tx) => begun.resolve((await tx.query('select pg_backend_pid() as pid')).rows[0].pid));
  });
  const outcome = unit.then(
    () => 'committed',
    (error) => error.code as unknown,
  );
  const pid = await begun.promise;
  await expect.poll(waiting, { timeout: 20_000 }).toContain(pid);
  return { store, outcome, pid };
}

describe('a COMMIT that waits for a standby', { timeout: 60_000 }, () => {
  it('and gets no answer is in doubt, and is left to wait: nobody is told that it is done', async () => {
    const { store, outcome, pid } = await committing();
    expect(await outcome).toBe('commit-in-doubt');
    expect(await waiting()).toContain(pid);
    expect(await store.inspect(keyOf('a'))).toBeUndefined();
    await standby('');
    await expect.poll(() => store.inspect(keyOf('a')), { timeout: 20_000 }).toMatchObject({ state: 'completed' });
  });

  it('whose session is ended by others is told to be done when the standby has it, and not before', async () => {
    const { store, outcome, pid } = await committing();
    await db.query('select pg_terminate_backend($1)', [pid]);
    await expect.poll(() => store.inspect(keyOf('a')), { timeout: 20_000 }).toMatchObject({ state: 'completed' });
    expect(await outcome).toBe('commit-in-doubt');
  });

  it('and whose session is ended, is told to be done if the standby comes back in the meantime', async () => {
    const { outcome, pid } = await committing();
    const before = await waiting();
    await db.query('select pg_terminate_backend($1)', [pid]);
    // Who asks what has become of it waits too.
    await expect.poll(async () => (await waiting()).some((each) => !before.includes(each)), { timeout: 20_000 }).toBe(true);
    await standby('');
    expect(await outcome).toBe('committed');
  });
});
