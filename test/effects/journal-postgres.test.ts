import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import type { PostgresStoreOptions } from '../../adapters/stores/postgres/index.ts';
import { attribute, createReceiver, type DedupStore, type Journal, type TransactionalStore } from '../../src/index.ts';
import { keyOf, retainMs, single } from '../../src/testing/clauses/kit.ts';
import { type JournalHarness, journalClauses, journalContract, runClause } from '../../src/testing/index.ts';
import { postgresHarness } from '../adapters/stores/postgres-harness.ts';
import { delivery } from '../support/stand.ts';

const open = (config: object = {}, options: PostgresStoreOptions = {}) =>
  postgresHarness(options, config) as Promise<unknown> as Promise<JournalHarness & Awaited<ReturnType<typeof postgresHarness>>>;

for (const pipeline of [false, true]) {
  journalContract({ describe, it, name: `postgresStore, ${pipeline ? 'with' : 'without'} pipelining`, open: () => open({ pipeline }) });
}

const inPartitions = () => open({}, { partitions: 'daily' });
const skip = ['33h', '33j'].map((clause) => ({
  clause,
  reason: 'what expires is dropped with its partition: postgres-partitions.test.ts',
}));
journalContract({ describe, it, name: 'postgresStore in partitions', open: inPartitions, skip });

describe('the journal contract catches a schema', () => {
  it.each([
    ['journal_of_expired', '33g'],
    ['journal_of_deleted', '33h'],
    ['journal_of_deleted', '33i'],
  ])('without its trigger %s → %s', async (trigger, id) => {
    const broken = async () => {
      const harness = await open();
      await harness.db.query(`drop trigger ${trigger} on ${harness.schema}.records`);
      return harness;
    };
    await expect(runClause(journalClauses.find((each) => each.id === id)!, broken)).rejects.toMatchObject({ name: 'AssertionError' });
  });
});

describe('the journal in Postgres', () => {
  it('can be that of its own transactions: what was charged is not charged again when they roll back', async () => {
    const harness = await postgresHarness();
    try {
      const charged: string[] = [];
      let attempts = 0;
      const store = harness.store as DedupStore & TransactionalStore<pg.PoolClient> & Journal;
      const receiver = createReceiver({ scope: 'test', key: attribute('id'), store, journal: store }, async (_, ctx) => {
        const receipt = await ctx.step('charge', ({ key }) => `receipt ${charged.push(key)}`);
        await harness.write(ctx.tx, receipt);
        if (++attempts < 3) throw new Error('try again');
      });
      const actions: string[] = [];
      for (let i = 0; i < 4; i++) {
        const [verdict] = await receiver.process([delivery('a', { redelivered: i > 0 })]);
        actions.push(verdict!.action);
      }
      expect(actions).toEqual(['retry', 'retry', 'ack', 'ack']);
      expect(charged).toHaveLength(1);
      expect(await harness.read()).toEqual(['receipt 1']);
      await receiver.stop();
    } finally {
      await harness.close!();
    }
  });

  it('is not that of its own transactions where one of them has the only connection: each step would wait for it in vain', async () => {
    const harness = await postgresHarness({}, { max: 1 });
    try {
      const store = harness.store as DedupStore & TransactionalStore<pg.PoolClient> & Journal;
      expect(() => createReceiver({ scope: 'test', key: attribute('id'), store, journal: store }, () => {})).toThrow(
        'Expected `journal` to be another store, or one with a connection to spare: while a transaction is open',
      );
    } finally {
      await harness.close!();
    }
  });

  it('refuses a write that waits for a takeover which is under way', async () => {
    const harness = await open();
    const { store, db, schema } = harness;
    try {
      await single(store).claim('a', 'owner');
      // Another worker takes the claim over; its transaction has not committed yet.
      const other = await db.connect();
      await other.query('begin');
      await other.query(`update ${schema}.records set token = 'of another'`);
      const writing = store.writeEntries([{ key: keyOf('a'), token: 'owner', name: 'x', state: 'done', text: '1' }]);
      await expect
        .poll(
          async () => (await db.query(`select from pg_stat_activity where wait_event_type = 'Lock' and query like '%${schema}%'`)).rowCount,
        )
        .toBe(1);
      await other.query('commit');
      other.release();
      expect(await writing).toEqual(['fenced']);
      expect((await db.query(`select from ${schema}.journal`)).rowCount).toBe(0);
    } finally {
      await harness.close!();
    }
  });

  it('leaves no entry behind when records are purged', async () => {
    const harness = await open();
    const { store, db, schema } = harness;
    try {
      for (let i = 0; i < 20; i++) {
        await single(store).claim(i, 'owner');
        await store.writeEntries([{ key: keyOf(i), token: 'owner', name: 'x', state: 'done', text: '1' }]);
      }
      await harness.elapse(retainMs + 5_000);
      expect(await store.purge(15)).toBe(15);
      expect((await db.query(`select from ${schema}.journal`)).rowCount).toBe(5);
      expect(await store.purge(15)).toBe(5);
      expect((await db.query(`select from ${schema}.journal`)).rowCount).toBe(0);
    } finally {
      await harness.close!();
    }
  });
});
