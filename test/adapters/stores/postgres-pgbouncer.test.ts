import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { type PgPool, type PostgresStoreOptions, postgresStore } from '../../../adapters/stores/postgres/index.ts';
import { attribute, createReceiver } from '../../../src/index.ts';
import type { Clause } from '../../../src/testing/clauses/kit.ts';
import { runClause, storeClauses, transactionalClauses } from '../../../src/testing/index.ts';
import { pgbouncer } from '../../support/pgbouncer.ts';
import { service } from '../../support/services/index.ts';
import { delivery } from '../../support/stand.ts';
import { borderClauses } from './postgres-borders.ts';
import { poolOf, postgresHarness, skipOfPartitions } from './postgres-harness.ts';

/* In transaction mode, a session of the server serves another client with each transaction. */

const sessions = 8;
let bouncer: Awaited<ReturnType<typeof pgbouncer>>;
beforeAll(async () => {
  bouncer = await pgbouncer(await service('postgres'), sessions);
});
afterAll(() => bouncer?.stop());

/** A store whose connections go through PgBouncer. */
function behindBouncer({ skip }: TestContext, options: PostgresStoreOptions = {}): ReturnType<typeof postgresHarness> {
  if (!bouncer) skip('pgbouncer is not installed, and only root can install it (Debian: apt-get install pgbouncer)');
  return postgresHarness(options, { connectionString: bouncer!.url });
}

const clauses = [...storeClauses, ...transactionalClauses] as unknown as readonly Clause<Awaited<ReturnType<typeof postgresHarness>>>[];

describe('postgresStore behind PgBouncer in transaction mode', { timeout: 60_000 }, () => {
  it.for(clauses.map((clause) => [`${clause.id}: ${clause.says}`, clause] as const))('keeps %s', async ([, clause], context) => {
    await runClause(clause, () => behindBouncer(context));
  });

  const skipped = new Set(skipOfPartitions.map(({ clause }) => clause));
  const inPartitions = [...clauses.filter(({ id }) => !skipped.has(id)), ...borderClauses];
  it.for(inPartitions.map((clause) => [`${clause.id}: ${clause.says}`, clause] as const))(
    'in partitions keeps %s',
    async ([, clause], context) => {
      await runClause(clause, () => behindBouncer(context, { partitions: 'daily' }));
    },
  );

  it('leaves nothing behind in the sessions that others get', async (context) => {
    const { db, schema, insert, close } = await (async () => {
      const harness = await behindBouncer(context);
      return {
        ...harness,
        insert: (tx: pg.PoolClient, text: string) => tx.query(`insert into ${harness.schema}.effects values ($1)`, [text]),
      };
    })();
    const settings = [
      'lock_timeout',
      'statement_timeout',
      'idle_in_transaction_session_timeout',
      'synchronous_commit',
      'transaction_isolation',
    ];
    const sql = `select pg_backend_pid() as pid, ${settings.map((name) => `current_setting('${name}') as ${name}`)},
      (select count(*)::int from pg_prepared_statements) as prepared, (select count(*)::int from pg_locks where pid = pg_backend_pid() and locktype = 'advisory') as locks`;
    const direct = poolOf({ connectionString: (await service('postgres')).url, max: 1 });
    try {
      const store = postgresStore<pg.PoolClient>(db as unknown as PgPool<pg.PoolClient>, { schema, unitsAtOnce: 4 });
      const common = { scope: 'test', key: attribute('id'), store, cacheSize: 0 };
      const receivers = [
        createReceiver(common, ({ id }: { id: string }, { tx }) => insert(tx, id).then(() => {})),
        createReceiver({ ...common, scope: 'leased', guarantee: 'leased' as const }, () => {}),
      ];
      const ids = Array.from({ length: 200 }, (_, i) => `m${i}`);
      for (const receiver of receivers) {
        const verdicts = await Promise.all(ids.map((id) => receiver.process([delivery(id)])));
        expect(new Set(verdicts.flat().map(({ action }) => action))).toEqual(new Set(['ack']));
        await receiver.stop();
      }
      expect((await db.query(`select count(*)::int as n from ${schema}.effects`)).rows).toEqual([{ n: 200 }]);
      const { pid: _, ...untouched } = (await direct.query(sql)).rows[0];
      const seen = new Map<number, object>();
      for (let round = 0; round < 20; round++) {
        // At the same time, so that each needs a session of its own.
        const all = await Promise.all(Array.from({ length: sessions }, () => db.query(`${sql}, pg_sleep(0.01)`)));
        for (const { pid, pg_sleep: _, ...rest } of all.map(({ rows }) => rows[0])) seen.set(pid, rest);
      }
      expect(seen.size, 'sessions').toBeGreaterThan(1);
      for (const session of seen.values()) expect(session).toEqual(untouched);
    } finally {
      await direct.end();
      await close!();
    }
  });
});
