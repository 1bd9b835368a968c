import pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { type PgPool, type PostgresStoreOptions, postgresStore } from '../../../adapters/stores/postgres/index.ts';
import { asCompleted, ask, asReleased, claimed, keyOf, retainMs, single } from '../../../src/testing/clauses/kit.ts';
import { proxyTo } from '../../support/proxy.ts';
import { service } from '../../support/services/index.ts';
import { latch } from '../../support/stand.ts';
import { poolOf, postgresHarness } from './postgres-harness.ts';

/* Who waits for whom, and for how long; and who no longer may. */

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function stand(options: PostgresStoreOptions = {}, config: pg.PoolConfig = {}) {
  const harness = await postgresHarness(options, config);
  cleanups.push(() => harness.close!());
  const insert = (tx: pg.PoolClient, text: string) => tx.query(`insert into ${harness.schema}.effects values ($1)`, [text]);
  return { ...harness, insert, other: await harness.another!() };
}

describe.each([false, true])('a handler that has ended (pipelining: %s)', (pipeline) => {
  const config = { pipeline } as pg.PoolConfig;

  it('writes no more: neither in the savepoint of the next message, nor after the commit', async () => {
    const { store, insert, read, db } = await stand({}, config);
    const late: Promise<unknown>[] = [];
    let mine: pg.PoolClient | undefined;
    const query = { of: undefined as pg.PoolClient['query'] | undefined };
    await store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      await unit.savepoint(async (tx) => {
        mine = tx;
        query.of = tx.query;
        await insert(tx, 'a');
      });
      await unit.savepoint(async (tx) => {
        late.push(insert(mine!, 'late'), query.of!('select 1') as unknown as Promise<unknown>);
        await Promise.allSettled(late);
        await insert(tx, 'b');
      });
    });
    late.push(insert(mine!, 'later'));
    for (const each of await Promise.allSettled(late))
      expect(each).toMatchObject({ status: 'rejected', reason: { code: 'store', message: expect.stringContaining('it has ended') } });
    expect(await read()).toEqual(['a', 'b']);
    expect(db.totalCount).toBeGreaterThan(0);
  });

  it('but had sent a statement that fails: nobody else’s message is taken for done', async () => {
    const { store, insert, read } = await stand({}, config);
    const unit = store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      await unit.savepoint(async (tx) => void tx.query('select no_such_thing').catch(() => {}));
      await unit.savepoint((tx) => insert(tx, 'b') as Promise<unknown>);
    });
    await expect(unit).rejects.toMatchObject({ code: expect.stringMatching(/store|aborted-transaction/) });
    expect(await read()).toEqual([]);
    expect(await store.inspect!(keyOf('b'))).toBeUndefined();
  });

  it.each(['release', 'end'] as const)('can not %s the connection', async (method) => {
    const { store, insert, read, db } = await stand({}, config);
    await store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      const meddling = unit.savepoint(async (tx) => {
        await insert(tx, 'a');
        await (tx as unknown as Record<typeof method, () => Promise<void>>)[method]();
      });
      await expect(meddling).rejects.toMatchObject({ code: 'store', message: expect.stringContaining(`it called \`${method}\``) });
      expect(db.idleCount, 'connections that others could take').toBe(db.totalCount - 1);
      await unit.savepoint((tx) => insert(tx, 'b') as Promise<unknown>);
    });
    expect(await read()).toEqual(['b']);
  });
});

describe('copies of what is done', () => {
  it('are answered at once, whoever else has just seen them, and leave the row as it is', async () => {
    const { store, other, db, schema } = await stand({ lockTimeoutMs: 20_000 });
    await store.unit((unit) => unit.record([ask('done', 't')]));
    const row = async () => (await db.query(`select xmax::text, ctid::text, age(xmin) from ${schema}.records`)).rows[0];
    const before = await row();
    const startedAt = performance.now();
    await store.unit(async (unit) => {
      expect(await unit.record([ask('done', 'u')])).toMatchObject([{ state: 'completed' }]);
      expect(await other.unit((inner) => inner.record([ask('done', 'v')]))).toMatchObject([{ state: 'completed' }]);
      expect(await single(other).claim('done', 'w')).toMatchObject({ state: 'completed' });
    });
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    const { xmax, ctid } = await row();
    expect({ xmax, ctid }).toEqual({ xmax: before.xmax, ctid: before.ctid });
  });

  it('and those of what is running are too, while a settle or an extension holds the row', async () => {
    const { store, other, db, schema } = await stand({ lockTimeoutMs: 20_000 });
    claimed(await single(store).claim('a', 't'));
    const holder = await db.connect();
    try {
      await holder.query('begin');
      await holder.query(`select from ${schema}.records for update`);
      const startedAt = performance.now();
      expect((await single(other).claim('a', 'u')).state).toBe('busy');
      expect(performance.now() - startedAt).toBeLessThan(10_000);
    } finally {
      await holder.query('rollback');
      holder.release();
    }
  });
});

describe('statements that meet', () => {
  it('lock rows in one order: the journal’s do not deadlock with those that extend', async () => {
    const codes: unknown[] = [];
    class Telling extends pg.Client {
      override query(...args: any[]): any {
        const sent = (super.query as (...all: any[]) => any)(...args);
        sent?.catch?.((error: { code?: unknown }) => codes.push(error.code));
        return sent;
      }
    }
    const { store, db, schema } = await stand({ lockTimeoutMs: 20_000 }, { Client: Telling } as pg.PoolConfig);
    // Two keys whose bytes are in another order than their texts.
    const bytesOf = (name: string) => Buffer.from(keyOf(name), 'base64url');
    const names = Array.from({ length: 100 }, (_, i) => `${i}`).sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    const at = names.findIndex((name, i) => i > 0 && bytesOf(names[i - 1]!).compare(bytesOf(name)) > 0);
    const both = [names[at - 1]!, names[at]!];
    await store.claim(both.map((name) => ask(name, 't')));
    const waiters = async () =>
      (
        await db.query(
          `select from pg_locks where not granted and pid in (select pid from pg_stat_activity where query like '%${schema}%')`,
        )
      ).rowCount;
    const holder = await db.connect();
    try {
      await holder.query('begin');
      await holder.query(`select from ${schema}.records where key = $1 for update`, [bytesOf(both[1]!)]);
      const writing = store.writeEntries(both.map((name) => ({ key: keyOf(name), token: 't', name: 'x', state: 'done', text: '1' })));
      await expect.poll(waiters, { timeout: 20_000, interval: 20 }).toBe(1);
      const extending = store.extend(both.map((name) => ({ key: keyOf(name), token: 't', leaseMs: 10_000 })));
      await expect.poll(waiters, { timeout: 20_000, interval: 20 }).toBe(2);
      await holder.query('commit');
      expect([await writing, await extending]).toEqual([
        ['ok', 'ok'],
        ['ok', 'ok'],
      ]);
    } finally {
      holder.release();
    }
    expect(codes).toEqual([]);
  });
});

describe('handlers wait for locks', () => {
  it('as long as the pool’s own lock_timeout says, also after the store has waited with little patience', async () => {
    const { store, other } = await stand({ lockTimeoutMs: 100 }, { options: '-c lock_timeout=7s' });
    const timeout = (unit: Parameters<Parameters<typeof store.unit>[0]>[0]) =>
      unit.savepoint(async (tx) => (await (tx as pg.PoolClient).query('show lock_timeout')).rows[0].lock_timeout as string);
    await store.unit(async (unit) => {
      expect(await timeout(unit)).toBe('7s');
      await unit.record([ask('held', 't')]);
      expect(await timeout(unit)).toBe('7s');
      await other.unit(async (inner) => {
        const answers = await inner.record(['held', 'free'].map((name) => ask(name, 'u')));
        expect(answers.map(({ state }) => state)).toEqual(['busy', 'claimed']);
        expect(await timeout(inner)).toBe('7s');
        expect(await inner.record([ask('held', 'u')])).toMatchObject([{ state: 'busy' }]);
        expect(await timeout(inner)).toBe('7s');
      });
    });
  });
});

describe('a connection that never answers, on a pool without any limit of time', () => {
  async function behindProxy(options: PostgresStoreOptions, config: object = {}) {
    const { harness, proxy } = { harness: await stand(), proxy: await proxyTo(await service('postgres')) };
    const { user, password, database } = await service('postgres');
    const pool = poolOf({ host: proxy.host, port: proxy.port, user, password, database, max: 2, connectionTimeoutMillis: 0, ...config });
    cleanups.push(
      () => proxy.close(),
      () => pool.end(),
      () => proxy.cut(),
    );
    const mine = postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, { schema: harness.schema, ...options });
    await single(mine).settle('any', 'looks at the tables first', asCompleted);
    return { ...harness, proxy, mine, pool };
  }

  it.each([false, true])('at the COMMIT of a unit is cut off, and what has become of it found out (pipelining: %s)', async (pipeline) => {
    const { mine, proxy, insert, read } = await behindProxy({ statementTimeoutMs: 300 }, { pipeline });
    for (const fault of ['hang-reply', 'hang-request'] as const) {
      proxy.next({ fault, when: 'close idempotent_guard; commit' });
      const unit = mine.unit(async (unit) => {
        await unit.record([ask(fault, 't')]);
        await unit.savepoint((tx) => insert(tx, fault) as Promise<unknown>);
      });
      if (fault === 'hang-reply') await unit;
      else await expect(unit).rejects.not.toMatchObject({ code: 'commit-in-doubt' });
    }
    expect(await read()).toEqual(['hang-reply']);
  });

  it.each([false, true])('under a handler is cut off, and the unit undone (pipelining: %s)', async (pipeline) => {
    const { mine, proxy, insert, read, other } = await behindProxy({ statementTimeoutMs: 300 }, { pipeline });
    proxy.next({ fault: 'hang-request', when: 'effects values' });
    const unit = mine.unit(async (unit) => {
      await unit.record([ask('a', 't')]);
      await unit.savepoint((tx) => insert(tx, 'a') as Promise<unknown>);
    });
    await expect(unit).rejects.toMatchObject({ code: 'store' });
    expect(await read()).toEqual([]);
    // Its transaction does not hold the key until it has stood idle for a minute: the server was told to end it.
    await expect.poll(async () => (await single(other).claim('a', 'u')).state, { timeout: 20_000 }).toBe('claimed');
  });

  it('under each verb is cut off, and does not use up the pool', async () => {
    const { mine, proxy, pool } = await behindProxy({ statementTimeoutMs: 750 });
    const { claim, settle, extend } = single(mine);
    for (const [when, call] of [
      ['.take(', () => claim('a', 't')],
      ['.settle(', () => settle('a', 't', asCompleted)],
      ['.extend(', () => extend('a', 't')],
      ['skip locked', () => mine.purge(1)],
    ] as const) {
      proxy.next({ fault: 'hang-request', when });
      await expect(call()).rejects.toThrow('Expected an answer of Postgres within 1500 ms, got none');
      expect(pool.idleCount).toBe(pool.totalCount);
    }
    expect(claimed(await claim('b', 't')).attempt).toBe(1);
  });

  it('nor can be had at all: every verb rejects', async () => {
    const { mine, proxy, pool } = await behindProxy({ statementTimeoutMs: 100 });
    const idle = await pool.connect();
    idle.release(true);
    proxy.freeze();
    await expect(single(mine).claim('a', 't')).rejects.toThrow('Expected a connection of Postgres within 200 ms, got none');
    await expect(mine.unit(async () => {})).rejects.toThrow('Expected a connection of Postgres within 200 ms, got none');
    proxy.heal();
    const gate = latch();
    setImmediate(() => gate.open());
    await gate.promise;
    claimed(await single(mine).claim('a', 't'));
  });
});

describe('what has become of a COMMIT', () => {
  /** A store whose question about it is asked in another way, or later. */
  async function asking(change: (text: string) => Promise<string> | string) {
    class Changing extends pg.Client {
      override query(...args: any[]): any {
        const query = (text: unknown) => (super.query as (...all: any[]) => any)(text, ...args.slice(1));
        if (!String(args[0]).includes('pg_xact_status')) return query(args[0]);
        return Promise.resolve(change(args[0])).then(query);
      }
    }
    const [harness, proxy, address] = [await stand(), await proxyTo(await service('postgres')), await service('postgres')];
    const { user, password, database } = address;
    const pool = poolOf({ host: proxy.host, port: proxy.port, user, password, database, Client: Changing } as pg.PoolConfig);
    cleanups.push(
      () => proxy.close(),
      () => pool.end(),
      () => proxy.cut(),
    );
    const mine = postgresStore<pg.PoolClient>(pool as unknown as PgPool<pg.PoolClient>, {
      schema: harness.schema,
      statementTimeoutMs: 300,
    });
    await single(mine).settle('any', 'looks at the tables first', asCompleted);
    return { ...harness, proxy, mine };
  }

  it('that arrives while it is asked is known: records are looked for anew', async () => {
    const stood = await asking((text) =>
      text.replace('pg_xact_status($1::text::xid8)', '(select pg_xact_status($1::text::xid8) from pg_sleep(0.4))'),
    );
    const { mine, proxy, insert, read, db } = stood;
    proxy.next({ fault: 'hold-request', when: 'close idempotent_guard; commit' });
    const unit = mine.unit(async (unit) => {
      await unit.record([ask('a', 't')]);
      await unit.savepoint((tx) => insert(tx, 'a') as Promise<unknown>);
    });
    const asked = async () =>
      (await db.query(`select from pg_stat_activity where wait_event = 'PgSleep' and query like '%pg_xact_status%'`)).rowCount;
    await expect.poll(asked, { timeout: 20_000, interval: 20 }).toBe(1);
    proxy.heal();
    await unit;
    expect(await read()).toEqual(['a']);
  });

  it('is known by a record that nobody else may have taken meanwhile', async () => {
    const stood = await asking(async (text) => {
      await single(stood.other).claim('released', 'another');
      return text;
    });
    const { mine, proxy, insert, read } = stood;
    proxy.next({ fault: 'lose-reply', when: 'close idempotent_guard; commit' });
    await mine.unit(async (unit) => {
      await unit.record([ask('released', 't'), ask('done', 't')]);
      await unit.settle([{ key: keyOf('released'), token: 't', retainMs, ...asReleased }]);
      await unit.savepoint((tx) => insert(tx, 'done') as Promise<unknown>);
    });
    expect(await read()).toEqual(['done']);
  });
});
