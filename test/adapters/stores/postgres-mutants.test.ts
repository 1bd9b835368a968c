import assert from 'node:assert/strict';
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import type { PostgresStoreOptions } from '../../../adapters/stores/postgres/index.ts';
import { ask, type Clause, claimed, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { runClause, storeClauses, transactionalClauses } from '../../../src/testing/index.ts';
import { borderClauses } from './postgres-borders.ts';
import { postgresHarness } from './postgres-harness.ts';
import { partitionMutants, type StatementMutant, statementMutants } from './postgres-mutants.ts';

type Harness = Awaited<ReturnType<typeof postgresHarness>>;

/** What no other store needs to be asked. */
const ownClauses: readonly Clause<Harness>[] = [
  {
    id: 'stale result',
    says: 'a record that has taken the place of an expired one has no result of that one',
    async run({ store, elapse }) {
      const { claim, settle } = single(store);
      claimed(await claim('a', 't'));
      await settle('a', 't', { as: 'completed', result: 'of the first' });
      await elapse(retainMs + 1);
      await store.unit((unit) => unit.record([ask('a', 'u')]));
      const answer = await claim('a', 'x');
      assert.deepEqual({ ...answer, ageMs: 0 }, { state: 'completed', result: undefined, ageMs: 0 });
    },
  },
  {
    id: 'minute',
    says: 'what expires within the minute that is being purged is not purged before it has expired',
    async run({ store, db, schema }) {
      claimed(await single(store).claim('a', 't'));
      await db.query(`update ${schema}.records set expires_minute = 0`);
      assert.equal(await store.purge(9), 0);
    },
  },
  ...(['commit', 'begin'] as const).map(
    (id): Clause<Harness> => ({
      id,
      says: `a handler that runs ${id === 'commit' ? 'COMMIT' : 'ROLLBACK and BEGIN'} breaks the unit`,
      async run({ store, read, write }) {
        const unit = store.unit(async (unit) => {
          await unit.record([ask('a', 't')]);
          await unit.savepoint(async (tx) => {
            await write(tx, 'torn');
            await tx.query(
              id === 'commit' ? 'commit; begin; savepoint idempotent_message' : 'rollback; begin; savepoint idempotent_message',
            );
          });
        });
        await assert.rejects(unit);
        assert.deepEqual(await read(), []);
      },
    }),
  ),
];

const clauses = [...storeClauses, ...transactionalClauses, ...ownClauses, ...borderClauses] as unknown as readonly Clause<Harness>[];

/** Connections whose statements are changed on their way; of a migration, each of its functions. */
function changing({ from, to, where }: StatementMutant) {
  let places = 0;
  class Changing extends pg.Client {
    override query(...args: any[]): any {
      const [text] = args as [unknown];
      if (typeof text === 'string') {
        const parts = text.split(/(?=create function )/).map((part) => {
          if (where && !part.includes(where)) return part;
          const changed = typeof from === 'string' ? part.replaceAll(from, () => to) : part.replace(from, () => to);
          if (changed !== part) places++;
          return changed;
        });
        args[0] = parts.join('');
      }
      return (super.query as (...all: any[]) => any)(...args);
    }
  }
  return { config: { Client: Changing } as pg.PoolConfig, places: () => places };
}

async function expectCaught(mutant: StatementMutant, options: PostgresStoreOptions = {}): Promise<void> {
  const clause = clauses.find(({ id }) => id === mutant.breaks)!;
  const { config, places } = changing(mutant);
  // Outside of what is expected to fail: a server that can't be had has caught nothing.
  const { close, ...harness } = await postgresHarness(options, config);
  try {
    await expect(runClause(clause, () => harness)).rejects.toSatisfy(isNoSyntaxError);
    expect(places(), `statements with ${mutant.from}`).toBeGreaterThan(0);
  } finally {
    // What a mutant has left under way may hold what is to be dropped.
    await Promise.resolve(close?.()).catch(() => {});
  }
}

const titled = (mutants: readonly StatementMutant[]) => mutants.map((mutant) => [`${mutant.name} → ${mutant.breaks}`, mutant] as const);

describe('postgresStore', () => {
  it.each(ownClauses.map((clause) => [clause.says, clause] as const))('%s', (_, clause) => runClause(clause, () => postgresHarness()));
});

describe('the contract catches a Postgres statement that', () => {
  it.concurrent.each(titled(statementMutants))('%s', (_, mutant) => expectCaught(mutant));
});

describe('where records are in partitions, the contract and its borders catch a statement that', { timeout: 60_000 }, () => {
  const same = statementMutants.flatMap((mutant) => (mutant.partitioned === null ? [] : [{ ...mutant, ...mutant.partitioned }]));
  it.concurrent.each(titled([...same, ...partitionMutants]))('%s', (_, mutant) => expectCaught(mutant, { partitions: 'daily' }));
});

/** A mutant that Postgres itself refuses would prove nothing. */
function isNoSyntaxError(error: unknown): boolean {
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  const state = String(code);
  return !state.startsWith('42') && !state.startsWith('08') && (cause === undefined || cause === null || isNoSyntaxError(cause));
}
