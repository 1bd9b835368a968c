import pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import type { PgPool, PostgresStoreOptions } from '../../../adapters/stores/postgres/index.ts';
import { postgresStore } from '../../../adapters/stores/postgres/index.ts';
import { attribute, createReceiver } from '../../../src/index.ts';
import { ask, asReleased, keyOf, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { actions, delivery, latch } from '../../support/stand.ts';
import { poolOf, postgresHarness } from './postgres-harness.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function stand(options: PostgresStoreOptions = {}, config: pg.PoolConfig = {}) {
  const harness = await postgresHarness(options, config);
  cleanups.push(() => harness.close!());
  const insert = (tx: pg.PoolClient, text: string) => tx.query(`insert into ${harness.schema}.effects values ($1)`, [text]);
  const state = async (name: string) => (await harness.store.inspect!(keyOf(name)))?.state;
  return { ...harness, insert, state, store: harness.store };
}

describe.each([false, true])('a handler that meddles with the transaction (pipelining: %s)', (pipeline) => {
  const config = { pipeline } as pg.PoolConfig;

  it.each(['commit', 'end', 'commit and chain'])('can not %s it: everything is undone, and the unit is broken', async (sql) => {
    const { store, insert, read, state } = await stand({}, config);
    const unit = store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      await unit.savepoint(async (tx) => {
        await insert(tx, 'a');
        await tx.query(sql);
      });
    });
    await expect(unit).rejects.toThrow(/only the unit to end its transaction|Expected the unit's transaction to stay open/);
    expect(await read()).toEqual([]);
    expect([await state('a'), await state('b')]).toEqual([undefined, undefined]);
  });

  it.each(['rollback', 'rollback; begin', 'release savepoint idempotent_message'])(
    'and runs "%s": the unit is broken, whatever its work says',
    async (sql) => {
      const { store, insert, read, state } = await stand({}, config);
      const unit = store.unit(async (unit) => {
        await unit.record([ask('a', 't'), ask('b', 't')]);
        await unit
          .savepoint(async (tx) => {
            await insert(tx, 'a');
            await tx.query(sql);
          })
          .catch(() => {});
        await unit.savepoint(async (tx) => void (await insert(tx, 'b'))).catch(() => {});
        return 'done';
      });
      await expect(unit).rejects.toThrow();
      expect([await state('a'), await state('b')]).toEqual([undefined, undefined]);
      expect((await read()).includes('a')).toBe(false);
    },
  );

  it('that goes on after a failed statement has failed itself, and only itself', async () => {
    const { store, insert, read, state } = await stand({}, config);
    await store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      const swallowing = unit.savepoint(async (tx) => {
        await insert(tx, 'a');
        await tx.query('select no_such_thing').catch(() => {});
        return 'fine';
      });
      await expect(swallowing).rejects.toMatchObject({ code: 'aborted-transaction' });
      await unit.settle([{ key: keyOf('a'), token: 't', retainMs, ...asReleased }]);
      await unit.savepoint(async (tx) => void (await insert(tx, 'b')));
    });
    expect(await read()).toEqual(['b']);
    expect([await state('a'), await state('b')]).toEqual(['released', 'completed']);
  });

  it('through a receiver: the message is tried again, the others of its group are done', async () => {
    const { store, insert, read } = await stand({}, config);
    const receiver = createReceiver({ scope: 'test', key: attribute('id'), store }, async ({ id }: { id: string }, { tx }) => {
      await insert(tx, id);
      if (id === 'b') await tx.query('select no_such_thing').catch(() => {});
    });
    expect(actions(await receiver.process(['a', 'b', 'c'].map((id) => delivery(id))))).toEqual([
      'ack completed',
      'retry failed',
      'ack completed',
    ]);
    expect([...(await read())].sort()).toEqual(['a', 'c']);
    await receiver.stop();
  });

  it('may use savepoints of its own', async () => {
    const { store, insert, read } = await stand({}, config);
    await store.unit(async (unit) => {
      await unit.record([ask('a', 't')]);
      await unit.savepoint(async (tx) => {
        await insert(tx, 'kept');
        await tx.query('savepoint mine');
        await insert(tx, 'undone');
        await tx.query('rollback to savepoint mine');
      });
    });
    expect(await read()).toEqual(['kept']);
  });
});

describe('a key that another transaction holds', () => {
  it('is answered busy by record and by claim, and does not keep others from their answer', async () => {
    const { store, another } = await stand({ lockTimeoutMs: 200 });
    const other = await another!();
    await store.unit(async (unit) => {
      await unit.record([ask('held', 't')]);
      const startedAt = performance.now();
      const asks = ['a', 'b', 'held', 'c', 'd'].map((name) => ask(name, 'other'));
      const states = ['claimed', 'claimed', 'busy', 'claimed', 'claimed'];
      expect((await other.claim(asks)).map(({ state }) => state)).toEqual(states);
      const recorded = ['e', 'f', 'held', 'g'].map((name) => ask(name, 'other'));
      const answers = await other.unit((inner) => inner.record(recorded));
      expect(answers.map(({ state }) => state)).toEqual(['claimed', 'claimed', 'busy', 'claimed']);
      // Halved down to the one that is held, each time after the lock timeout.
      expect(performance.now() - startedAt).toBeLessThan(8 * 200 + 1_500);
    });
    const { claim } = single(store);
    for (const name of ['held', 'e', 'f', 'g']) expect((await claim(name, 'x')).state).toBe('completed');
    for (const name of ['a', 'b', 'c', 'd']) expect((await claim(name, 'x')).state).toBe('busy');
  });

  it.each([10, 500])('holds up %d others of which all are held only for one lock timeout', async (count) => {
    const { store, another } = await stand({ lockTimeoutMs: 200 });
    const other = await another!();
    const names = Array.from({ length: count }, (_, i) => `m${i}`);
    await store.unit(async (unit) => {
      await unit.record(names.map((name) => ask(name, 't')));
      for (const answer of [other.claim, (asks: ReturnType<typeof ask>[]) => other.unit((inner) => inner.record(asks))]) {
        const startedAt = performance.now();
        const answers = await answer(names.map((name) => ask(name, 'other')));
        expect(new Set(answers.map(({ state }) => state))).toEqual(new Set(['busy']));
        // One by one it would be a hundred seconds.
        expect(performance.now() - startedAt).toBeLessThan(25_000);
      }
    });
  });

  it('is free again when its owner stood still for longer than the server lets it, and the owner has done nothing', async () => {
    const { store, another, insert, read } = await stand({ idleTimeoutMs: 300, lockTimeoutMs: 5_000 });
    const other = await another!();
    const zombie = store.unit(async (unit) => {
      await unit.record([ask('a', 'zombie')]);
      await unit.savepoint(async (tx) => void (await insert(tx, 'by the zombie')));
      // What a stopped process does: nothing, and its connection stays open.
      expect((await single(other).claim('a', 'mine')).state).toBe('claimed');
    });
    await expect(zombie).rejects.toThrow();
    expect(await read()).toEqual([]);
  });

  it('by two units in opposite orders is no deadlock that anybody sees', async () => {
    const { store, another } = await stand();
    const other = await another!();
    for (let round = 0; round < 20; round++) {
      const names = [`a${round}`, `b${round}`, `c${round}`];
      const both = await Promise.all([
        store.unit((unit) => unit.record(names.map((name) => ask(name, 't')))),
        other.unit((unit) => unit.record(names.toReversed().map((name) => ask(name, 'u')))),
      ]);
      expect(both.map((answers) => answers.filter(({ state }) => state === 'claimed').length).sort()).toEqual([0, 3]);
    }
  });
});

describe.each([false, true])('two groups whose messages change the same rows in opposite orders (pipelining: %s)', (pipeline) => {
  /** The handlers of each group change a row, wait until the other group has changed its own, and go on with the other's. */
  async function meet(swallow = false) {
    const { store, db, schema } = await stand({}, { pipeline } as pg.PoolConfig);
    await db.query(
      `create table ${schema}.accounts (id text primary key, n int); insert into ${schema}.accounts values ('x', 0), ('y', 0)`,
    );
    const both = latch();
    const started: string[] = [];
    const receivers = ['xy', 'yx'].map((order) =>
      createReceiver({ scope: order, key: attribute('id'), store }, async ({ id }: { id: string }, { tx, attempt }) => {
        started.push(`${order}${id} ${attempt}`);
        if (id === '1' && started.filter((each) => each.endsWith('1 1')).length === 2) both.open();
        if (id === '1') await both.promise;
        const change = tx.query(`update ${schema}.accounts set n = n + 1 where id = $1`, [order[Number(id)] ?? 'z']);
        await (swallow ? change.catch(() => {}) : change);
      }),
    );
    const verdicts = await Promise.all(receivers.map((receiver) => receiver.process(['0', '1', '2', '3'].map((id) => delivery(id)))));
    await Promise.all(receivers.map((receiver) => receiver.stop()));
    const { rows } = await db.query(`select id, n from ${schema}.accounts order by id`);
    return { started, rows, actions: actions(verdicts.flat()) };
  }

  it.each([false, true])(
    'do their work at once: what one of them has done is committed, and the other can go on (swallowed: %s)',
    async (swallow) => {
      const { started, rows, actions } = await meet(swallow);
      expect(actions).toEqual(Array(8).fill('ack completed'));
      expect(rows).toEqual([
        { id: 'x', n: 2 },
        { id: 'y', n: 2 },
      ]);
      // One of them has lost, and has not been counted.
      expect(started).toHaveLength(9);
      expect(started.filter((each) => !each.endsWith(' 1'))).toEqual([]);
    },
  );
});

describe('the round trips of a receiver', () => {
  /** What goes to the server while a batch of so many is handled. */
  async function textsOf(size: number, guarantee: 'transactional' | 'leased'): Promise<readonly string[]> {
    const texts: string[] = [];
    class Telling extends pg.Client {
      override query(...args: any[]): any {
        if (typeof args[0] === 'string') texts.push(args[0]);
        return (super.query as (...all: any[]) => any)(...args);
      }
    }
    const { store, insert } = await stand({}, { Client: Telling } as pg.PoolConfig);
    const options = { scope: 'test', key: attribute('id'), store };
    const receiver =
      guarantee === 'leased'
        ? createReceiver({ ...options, guarantee, concurrency: size }, () => {})
        : createReceiver(options, ({ id }: { id: string }, { tx }) => insert(tx, id).then(() => {}));
    await receiver.process([delivery('checks the tables first')]);
    texts.length = 0;
    const verdicts = await receiver.process(Array.from({ length: size }, (_, i) => delivery(`a${i}`)));
    expect(new Set(actions(verdicts))).toEqual(new Set(['ack completed']));
    await receiver.stop();
    return texts;
  }
  const isOwn = (text: string) => !text.startsWith('insert into');

  it.each([1, 50])('transactional, %d in a group: one to begin, one between two messages, one to commit', async (size) => {
    const texts = await textsOf(size, 'transactional');
    expect(texts.filter((text) => !isOwn(text))).toHaveLength(size);
    expect(texts.filter(isOwn).map((text) => text.split(/[ ;]/)[0])).toEqual(['begin', ...Array(size - 1).fill('release'), 'close']);
  });

  it.each([1, 50])('leased, %d in a batch: one to claim, one to settle the first, one for all that end in the meantime', async (size) => {
    const verbs = (await textsOf(size, 'leased')).map((text) => /\.(\w+)\(/.exec(text)?.[1]);
    expect(verbs.filter((verb) => verb === 'take')).toHaveLength(1);
    // Leases are extended if all this takes long.
    expect(verbs.filter((verb) => verb === 'settle').length).toBeLessThanOrEqual(Math.min(size, 3));
    expect(verbs.every((verb) => verb === 'take' || verb === 'settle' || verb === 'extend')).toBe(true);
  });
});

describe('units of one store', () => {
  it('run as many at once as unitsAtOnce says, and leave connections for claims', async () => {
    const { db, schema, insert } = await stand();
    let open = 0;
    let most = 0;
    const all = latch();
    const store = postgresStore<pg.PoolClient>(db as unknown as PgPool<pg.PoolClient>, { schema, unitsAtOnce: 3 });
    const receiver = createReceiver({ scope: 'test', key: attribute('id'), store }, async ({ id }: { id: string }, { tx }) => {
      most = Math.max(most, ++open);
      if (open === 3) all.open();
      await all.promise;
      await insert(tx, id);
      open--;
    });
    const calls = Array.from({ length: 9 }, async (_, i) => {
      await new Promise((resolve) => setTimeout(resolve, i));
      return receiver.process([delivery(`m${i}`)]);
    });
    expect(new Set(actions((await Promise.all(calls)).flat()))).toEqual(new Set(['ack completed']));
    expect(most).toBe(3);
    await receiver.stop();
  });

  it('refuse to take every connection of the pool', () => {
    const pool = poolOf({ max: 2 });
    expect(() => postgresStore(pool as unknown as PgPool, { unitsAtOnce: 2 })).toThrow(
      "Expected `unitsAtOnce` to be less than the pool's 2 connections",
    );
  });

  it('wait for the disk, whatever the server is set to', async () => {
    const { store, schema, db } = await stand({}, { options: '-c synchronous_commit=off' } as pg.PoolConfig);
    await store.unit(async (unit) => {
      await unit.record([ask('a', 't')]);
      await unit.savepoint(async (tx) => {
        const { rows } = await tx.query('show synchronous_commit');
        expect(rows).toEqual([{ synchronous_commit: 'on' }]);
      });
    });
    expect((await db.query(`select count(*)::int as n from ${schema}.records`)).rows).toEqual([{ n: 1 }]);
  });
});

describe.each([undefined, 'daily' as const])('on a server whose transactions are serializable (partitions: %s)', (partitions) => {
  it('a key is claimed, and recorded, by one of sixteen at once', async () => {
    const layout = partitions ? { partitions } : {};
    const { store } = await stand(layout, { options: '-c default_transaction_isolation=serializable', max: 20 } as pg.PoolConfig);
    for (let round = 0; round < 5; round++) {
      const claims = await Promise.all(Array.from({ length: 16 }, (_, i) => single(store).claim(`claimed ${round}`, `t${i}`)));
      expect(claims.map(({ state }) => state).sort()).toEqual([...Array(15).fill('busy'), 'claimed']);
      const records = await Promise.all(
        Array.from({ length: 16 }, (_, i) => store.unit(async (unit) => (await unit.record([ask(`recorded ${round}`, `t${i}`)]))[0]!)),
      );
      expect(records.map(({ state }) => state).sort()).toEqual(['claimed', ...Array(15).fill('completed')]);
    }
  });
});
