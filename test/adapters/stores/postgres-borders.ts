import assert from 'node:assert/strict';
import type pg from 'pg';
import { type PgPool, postgresStore, recordOnce } from '../../../adapters/stores/postgres/index.ts';
import { keyOf as keyOfId } from '../../../src/key.ts';
import { asCompleted, ask, asParked, asReleased, type Clause, claimed, keyOf, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { age, partsOf, type postgresHarness, turn } from './postgres-harness.ts';

/* What partitions have to keep at their borders. Each clause brings two transactions into the order in which it could go wrong. */

export type PartitionedHarness = Awaited<ReturnType<typeof postgresHarness>>;

const hour = 3_600_000;
/** Where in `recordOnce` and in the store the key is the same. */
const scope = 'billing';
const once = (id: string) => ({ ...ask(0, 'x'), key: keyOfId(scope, id) });

/** Stores that wait for a key for so long. */
function storeOf({ db, schema }: PartitionedHarness, lockTimeoutMs: number) {
  return postgresStore<pg.PoolClient>(db as unknown as PgPool<pg.PoolClient>, { schema, partitions: 'daily', lockTimeoutMs });
}

/** A transaction by hand, rolled back at the end if it is still open. */
async function inTransaction<T>({ db }: PartitionedHarness, begin: string, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await db.connect();
  try {
    await client.query(begin);
    return await work(client);
  } finally {
    await client.query('rollback');
    client.release();
  }
}

const record = ({ schema }: PartitionedHarness, tx: pg.PoolClient, id: string) =>
  recordOnce(tx as never, { scope, id, schema, partitions: 'daily' });

/** Resolves when so many statements wait for a lock. */
async function waiting({ db, schema }: PartitionedHarness, count = 1): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    const { rows } = await db.query(
      `select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and query like $1 and pid <> pg_backend_pid()`,
      [`%${schema}%`],
    );
    if (rows[0].n >= count) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('Expected a statement to wait for a lock');
}

/** Whether the partition is there. */
export const exists = async ({ db, schema }: PartitionedHarness, part: number) =>
  (await db.query('select to_regclass($1) is not null as there', [`${schema}.records_${part}`])).rows[0].there as boolean;

/** Purges until nothing more can be dropped: others' transactions on the server may have to end first. */
async function purgeAway(harness: PartitionedHarness, part: number): Promise<boolean> {
  for (let tries = 0; tries < 200; tries++) {
    assert.equal(await harness.store.purge(10), 0);
    if (!(await exists(harness, part))) return true;
    if (tries > 5 && (await harness.db.query(`select ended from ${harness.schema}.parts where part = $1`, [part])).rows[0].ended === null)
      return false;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

/** What is there is in a closed partition afterwards. */
export async function turnTwice({ db, schema }: PartitionedHarness): Promise<void> {
  await turn(db, schema);
  await turn(db, schema);
}

export const borderClauses: readonly Clause<PartitionedHarness>[] = [
  {
    id: 'border open',
    says: 'a key that an open transaction has recorded before the border is nobody else’s after it, however many days pass',
    async run(harness) {
      const { db, schema, store } = harness;
      const impatient = storeOf(harness, 100);
      await store.unit(async (unit) => {
        claimed((await unit.record([once('a')]))[0]!);
        for (let day = 0; day < 3; day++) {
          await turn(db, schema);
          assert.equal((await impatient.claim([once('a')]))[0]!.state, 'busy');
          assert.equal((await impatient.unit((other) => other.record([once('a')])))[0]!.state, 'busy');
          await inTransaction(harness, `begin; set local lock_timeout = 100`, (client) =>
            assert.rejects(record(harness, client, 'a'), { code: '55P03' }),
          );
          // All others go on, and this unit sees what they have done.
          claimed((await impatient.unit((other) => other.record([once(`b${day}`)])))[0]!);
          assert.equal((await unit.record([{ ...once(`b${day}`), token: 'late' }]))[0]!.state, 'completed');
        }
        assert.equal((await partsOf(db, schema)).part, 2, 'no third partition takes records while the first is open');
      });
      assert.equal((await impatient.claim([once('a')]))[0]!.state, 'completed');
      await turnTwice(harness);
      assert.equal((await partsOf(db, schema)).part, 4);
      assert.equal(await inTransaction(harness, 'begin', (client) => record(harness, client, 'a')), 'duplicate');
    },
  },
  {
    id: 'border waits',
    says: 'who waits for a key across the border is told what has become of it',
    async run(harness) {
      const { db, schema, store } = harness;
      for (const end of ['commit', 'rollback'] as const) {
        const patient = storeOf(harness, 20_000);
        let answer: Promise<readonly { state: string }[]> | undefined;
        await inTransaction(harness, 'begin', async (client) => {
          assert.equal(await record(harness, client, end), 'first');
          await turn(db, schema);
          answer = patient.claim([once(end)]);
          await waiting(harness);
          await client.query(end);
        });
        assert.equal((await answer!)[0]!.state, end === 'commit' ? 'completed' : 'claimed');
        await turn(db, schema);
        assert.equal((await store.claim([{ ...once(end), token: 'y' }]))[0]!.state, end === 'commit' ? 'completed' : 'busy');
      }
    },
  },
  {
    id: 'border looked',
    says: 'who has looked before the border, and writes after it, meets what was recorded in the meantime',
    async run(harness) {
      const { db, schema, store } = harness;
      const { claim, settle } = single(store);
      const patient = storeOf(harness, 20_000);
      claimed(await claim('held', 't'));
      await settle('held', 't', asReleased);
      let answers: Promise<readonly { state: string }[]> | undefined;
      await inTransaction(harness, 'begin', async (client) => {
        await client.query(`select from ${schema}.records where key = $1 for update`, [Buffer.from(keyOf('held'), 'base64url')]);
        // It has seen that nobody has the other, and waits for this one.
        answers = patient.claim([ask('held', 'late'), once('a')]);
        await waiting(harness);
        await turn(db, schema);
        claimed((await store.unit((unit) => unit.record([once('a')])))[0]!);
        await client.query('commit');
      });
      assert.deepEqual(
        (await answers!).map(({ state }) => state),
        ['claimed', 'completed'],
      );
    },
  },
  {
    id: 'border mark',
    says: 'a key that is forgotten is new, whatever it has left in the partition before',
    async run(harness) {
      const { db, schema, store } = harness;
      const other = storeOf(harness, 1_000);
      await store.unit(async (unit) => {
        // Keeps the first partition open.
        claimed((await unit.record([once('a')]))[0]!);
        await turn(db, schema);
        const first = claimed((await other.claim([once('b')]))[0]!);
        assert.deepEqual(await other.settle([{ ...once('b'), ...asCompleted }]), ['ok']);
        assert.equal(await other.forget(once('b').key), true);
        const again = claimed((await other.claim([{ ...once('b'), token: 'again' }]))[0]!);
        assert.equal(again.attempt, 1);
        assert.ok(again.fence > first.fence);
      });
    },
  },
  {
    id: 'border late',
    says: 'who comes to a partition when it has been closed goes on to the next',
    async run(harness) {
      const { db, schema, store } = harness;
      const { claim, settle } = single(store);
      claimed(await claim('held', 't'));
      await settle('held', 't', asReleased);
      const patient = storeOf(harness, 20_000);
      let answers: Promise<readonly { state: string }[]> | undefined;
      await inTransaction(harness, 'begin', async (holder) => {
        await holder.query(`select from ${schema}.records for update`);
        await inTransaction(harness, 'begin', async (closer) => {
          await closer.query('select pg_advisory_xact_lock(hashtext($1), 1)', [`idempotent-receiver "${schema}"`]);
          answers = patient.claim([ask('held', 'late'), { ...once('a'), token: 'late' }]);
          await waiting(harness);
          await closer.query(`update ${schema}.meta set part_began_at = part_began_at - interval '7 days'`);
          await closer.query(`select ${schema}.upkeep(); select ${schema}.upkeep()`);
          await closer.query('commit');
        });
        assert.deepEqual(await partsOf(db, schema), { part: 2, closed_part: 1, all: 3 });
        // It has seen by now that nobody has the other, and waits for the one that is held.
        await waiting(harness);
        claimed((await store.unit((unit) => unit.record([once('a')])))[0]!);
        await holder.query('commit');
      });
      assert.deepEqual(
        (await answers!).map(({ state }) => state),
        ['claimed', 'completed'],
      );
    },
  },
  {
    id: 'border snapshot',
    says: 'a transaction whose snapshot is older than the border is refused, not answered',
    async run(harness) {
      for (const isolation of ['repeatable read', 'serializable']) {
        const id = `key ${isolation}`;
        await inTransaction(harness, `begin isolation level ${isolation}`, async (client) => {
          await client.query('select 1 from pg_class');
          await turnTwice(harness);
          assert.equal(
            await inTransaction(harness, 'begin', async (other) => {
              const answer = await record(harness, other, id);
              await other.query('commit');
              return answer;
            }),
            'first',
          );
          await assert.rejects(record(harness, client, id), { code: '40001' });
        });
      }
    },
  },
  {
    id: 'border expired',
    says: 'an expired record is given up only if it is still expired when its key is taken',
    async run(harness) {
      const { db, schema, store } = harness;
      const { claim } = single(store);
      claimed(await claim('a', 'owner'));
      await turnTwice(harness);
      await age(db, schema, retainMs + 2_000);
      const patient = storeOf(harness, 20_000);
      let answers: Promise<readonly { state: string }[]> | undefined;
      await inTransaction(harness, 'begin', async (client) => {
        // An extension that began in time, and whose statement goes on now.
        await client.query(`update ${schema}.records set lease_until = now() + interval '1 hour', expires_at = now() + interval '1 hour'`);
        answers = patient.claim([ask('a', 'other')]);
        await waiting(harness);
        await client.query('commit');
      });
      assert.equal((await answers!)[0]!.state, 'busy');
      assert.equal((await store.settle([{ key: keyOf('a'), token: 'owner', retainMs, ...asCompleted }]))[0], 'ok');
    },
  },
  {
    id: 'drop',
    says: 'a partition is dropped when all of it has expired: its keys are new, their fences grow, and the journal has forgotten their steps',
    async run(harness) {
      const { db, schema, store } = harness;
      const { claim, settle } = single(store);
      const { fence } = claimed(await claim('a', 't'));
      await store.writeEntries([{ key: keyOf('a'), token: 't', name: 'step', state: 'done', text: '1' }]);
      await settle('a', 't', asCompleted);
      await turnTwice(harness);
      claimed(await claim('b', 't', { retainMs: 9 * hour }));
      await age(db, schema, retainMs + 2 * hour);
      assert.equal(await purgeAway(harness, 1), true);
      assert.equal(await exists(harness, 3), true);
      assert.deepEqual((await db.query(`select * from ${schema}.journal`)).rows, []);
      assert.deepEqual(
        (await db.query(`select 1 from pg_class where relname like '%\\_1' and relnamespace = '${schema}'::regnamespace`)).rows,
        [],
      );
      const again = claimed(await claim('a', 't'));
      assert.equal(again.attempt, 1);
      assert.ok(again.fence > fence);
      assert.deepEqual(await store.readEntries([{ key: keyOf('a'), token: 't' }]), [[]]);
      assert.equal((await claim('b', 'other')).state, 'claimed', 'its lease has ended');
    },
  },
  ...(['completed', 'released', 'parked', 'claimed'] as const).map(
    (state): Clause<PartitionedHarness> => ({
      id: `drop ${state}`,
      says: `a partition with a single record that is ${state} and has not expired is not dropped`,
      async run(harness) {
        const { db, schema, store } = harness;
        const { claim, settle, extend } = single(store);
        claimed(await claim('old', 't'));
        claimed(await claim('a', 't'));
        await turnTwice(harness);
        await age(db, schema, retainMs / 2);
        const endings = { completed: asCompleted, released: asReleased, parked: asParked };
        if (state === 'claimed') assert.equal(await extend('a', 't', 9 * hour), 'ok');
        else assert.equal(await settle('a', 't', endings[state], 9 * hour), 'ok');
        await age(db, schema, retainMs + 2 * hour);
        assert.equal(await purgeAway(harness, 1), false);
        const answer = await claim('a', 'other');
        assert.equal(state === 'claimed' ? 'busy' : state === 'released' ? 'claimed' : state, answer.state);
      },
    }),
  ),
  {
    id: 'drop later',
    says: 'what has expired may be somebody’s for an hour yet',
    async run(harness) {
      const { db, schema, store } = harness;
      claimed(await single(store).claim('a', 't'));
      await turnTwice(harness);
      await age(db, schema, retainMs + 0.9 * hour);
      assert.equal(await purgeAway(harness, 1), false);
      await age(db, schema, 0.2 * hour);
      assert.equal(await purgeAway(harness, 1), true);
    },
  },
  {
    id: 'drop revived',
    says: 'an open transaction that has taken a record for longer keeps its partition',
    async run(harness) {
      const { db, schema, store } = harness;
      const { claim } = single(store);
      claimed(await claim('a', 't'));
      await turnTwice(harness);
      await age(db, schema, retainMs + 2 * hour);
      const purging = await inTransaction(harness, 'begin', async (client) => {
        const later = `now() + interval '1 hour'`;
        await client.query(
          `update ${schema}.records set lease_until = ${later}, expires_at = ${later}, expires_minute = ceil(extract(epoch from ${later}) / 60)`,
        );
        const purging = (async () => {
          for (let i = 0; i < 4; i++) await store.purge(1);
        })();
        purging.catch(() => {});
        await Promise.race([purging, waiting(harness)]);
        await client.query('commit');
        return purging;
      });
      await purging;
      assert.equal((await claim('a', 'other')).state, 'busy');
    },
  },
  {
    id: 'drop unseen',
    says: 'a partition that has been taken out of use, and is found to be in use, is put back',
    async run(harness) {
      const { db, schema, store } = harness;
      claimed(await single(store).claim('a', 't'));
      await turnTwice(harness);
      for (const table of ['records', 'journal']) await db.query(`alter table ${schema}.${table} detach partition ${schema}.${table}_1`);
      assert.deepEqual((await db.query(`select ${schema}.drop_partition(1) as dropped`)).rows, [{ dropped: false }]);
      assert.equal((await single(store).claim('a', 'other')).state, 'busy');
    },
  },
];
