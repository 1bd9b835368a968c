import { DatabaseSync } from 'node:sqlite';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate, type PgPool, postgresOutbox, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { sqliteOutbox, sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import type { AnyHandler } from '../../src/handler.ts';
import { attribute, createReceiver, type OutboxAdmin, type OutboxQueue, type Outgoing, type Receiver } from '../../src/index.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { type FaultProxy, proxyTo } from '../support/proxy.ts';
import { service } from '../support/services/index.ts';
import { actions, delivery } from '../support/stand.ts';
import { unique } from '../support/unique.ts';
import { type Name, textOf } from './outbox-contract.ts';

/** A place where a receiver and an outbox share a database. */
interface Place {
  readonly outbox: OutboxQueue<Name> & OutboxAdmin;
  receiver(handler: AnyHandler, options?: object): Receiver;
  /** Writes an effect of the handler's own. */
  effect(tx: any, text: string): Promise<void> | void;
  effects(): Promise<string[]>;
}

const common = { scope: 'test', key: attribute('id'), backoff: { firstMs: 0 } };
const destinations = ['orders', 'mails'] as const;

function sqlitePlace(): Place {
  const db = new DatabaseSync(':memory:');
  db.exec('create table effects (text text)');
  const outbox = sqliteOutbox(db, { destinations });
  const store = sqliteStore(db);
  return {
    outbox,
    receiver: (handler, options) => createReceiver({ ...common, store, outbox, ...options }, handler),
    effect: (tx: DatabaseSync, text) => void tx.prepare('insert into effects values (?)').run(text),
    effects: async () =>
      db
        .prepare('select text from effects order by text')
        .all()
        .map(({ text }) => text as string),
  };
}

let db: pg.Pool;
let proxy: FaultProxy;
let behind: pg.Pool;
const schemas: string[] = [];
beforeAll(async () => {
  const address = await service('postgres');
  db = poolOf({ connectionString: address.url });
  proxy = await proxyTo(address);
  behind = poolOf({ ...address, host: proxy.host, port: proxy.port, query_timeout: 500, connectionTimeoutMillis: 1_000 });
});
afterAll(async () => {
  for (const schema of schemas) await db.query(`drop schema ${schema} cascade`);
  await Promise.all([db.end(), behind.end()]);
  await proxy.close();
});

async function postgresPlace(own: pg.Pool = db): Promise<Place> {
  const schema = unique('publish');
  schemas.push(schema);
  await migrate(db, { schema });
  await db.query(`create table ${schema}.effects (text text)`);
  const store = postgresStore(own as unknown as PgPool<pg.PoolClient>, { schema });
  const outboxOf = (pool: pg.Pool) => postgresOutbox(pool as unknown as PgPool<pg.PoolClient>, { destinations, schema });
  const outbox = outboxOf(own);
  return {
    outbox: outboxOf(db),
    receiver: (handler, options) => createReceiver({ ...common, store, outbox, ...options }, handler),
    effect: async (tx: pg.PoolClient, text) => void (await tx.query(`insert into ${schema}.effects values ($1)`, [text])),
    effects: async () => (await db.query(`select text from ${schema}.effects order by text`)).rows.map(({ text }) => text),
  };
}

/** Everything that is waiting for a destination, which it leaves there. */
async function waiting(outbox: OutboxQueue<Name>, name: Name = 'orders'): Promise<Outgoing[]> {
  const all: Outgoing[] = [];
  const some = () => outbox.take(name, 1_000, async (due) => (all.push(...due), due.map(() => ({ as: 'sent' }) as const)));
  while ((await some()) > 0);
  return all;
}

const texts = async (outbox: OutboxQueue<Name>, name?: Name) => (await waiting(outbox, name)).map(textOf).toSorted();

describe.each([
  ['SQLite', async () => sqlitePlace()],
  ['PostgreSQL', () => postgresPlace()],
])('a handler that publishes (%s)', (_, open) => {
  it('publishes if, and only if, it succeeds, whatever becomes of the others in its batch', async () => {
    const place = await open();
    const receiver = place.receiver(async (payload, ctx) => {
      await place.effect(ctx.tx, payload.id);
      await ctx.publish('orders', { body: payload.id, orderingKey: 'k' });
      await ctx.publish('mails', [{ body: 'a' }, { body: 'b' }]);
      if (payload.id === '2') throw new Error('no');
    });
    const verdicts = await receiver.process(['1', '2', '3', '1'].map((id) => delivery(id)));
    expect(actions(verdicts)).toEqual(['ack completed', 'retry failed', 'ack completed', 'ack duplicate']);
    expect(await place.effects()).toEqual(['1', '3']);
    expect(await texts(place.outbox)).toEqual(['1', '3']);
    expect(await texts(place.outbox, 'mails')).toEqual(['a', 'a', 'b', 'b']);
    await receiver.stop();
  });

  it('gives a message the same id on each attempt, another for each place, destination and cause, and one of its own if it has one', async () => {
    const place = await open();
    const seen: string[][] = [];
    const run = async (id: string, fails: boolean) => {
      const receiver = place.receiver(
        async (_payload, ctx) => {
          await ctx.publish('orders', { body: 'x' });
          await ctx.publish('orders', [{ body: 'y' }, { body: 'z', id: ctx.uuid('z') }]);
          await ctx.publish('mails', { body: 'x' });
          if (fails) seen.push((await idsInside(ctx.tx)).toSorted());
          if (fails) throw new Error('again');
        },
        { cacheSize: 0 },
      );
      const [verdict] = await receiver.process([delivery(id)]);
      await receiver.stop();
      return verdict!.action;
    };
    expect(await run('1', true)).toBe('retry');
    expect(await run('1', true)).toBe('retry');
    expect(await run('1', false)).toBe('ack');
    expect(await run('2', false)).toBe('ack');
    const ids = [...(await waiting(place.outbox)), ...(await waiting(place.outbox, 'mails'))].map(({ id }) => id);
    expect(new Set(ids).size).toBe(8);
    expect(seen[0]).toHaveLength(4);
    expect(seen[1]).toEqual(seen[0]);
    for (const id of seen[0]!) expect(ids).toContain(id);
  });

  it('has what it did not wait for waited for, and fails if that fails', async () => {
    const place = await open();
    const receiver = place.receiver((payload, ctx) => {
      void ctx.publish('orders', { body: payload.id });
      if (payload.id === 'bad') void ctx.publish('orders', { body: undefined });
    });
    expect(actions(await receiver.process([delivery('good'), delivery('bad')]))).toEqual(['ack completed', 'retry failed']);
    expect(await texts(place.outbox)).toEqual(['good']);
    await receiver.stop();
  });

  it('can not publish after it has ended: the transaction is others’ by then', async () => {
    const place = await open();
    let late: Promise<void> | undefined;
    let kept: any;
    const receiver = place.receiver((payload, ctx) => {
      if (payload.id === '1') kept = ctx;
      else late = kept.publish('orders', { body: 'late' });
    });
    await receiver.process([delivery('1'), delivery('2')]);
    await expect(late).rejects.toMatchObject({ code: 'invalid-message' });
    expect(await texts(place.outbox)).toEqual([]);
    await receiver.stop();
  });

  it('has to be in a transaction', async () => {
    const place = await open();
    expect(() => place.receiver(() => {}, { guarantee: 'leased' })).toThrow(/`outbox` to be an outbox, in transactional mode/);
    expect(() => place.receiver(() => {}, { outbox: {} })).toThrow(/`outbox`/);
  });
});

/** The ids that a transaction has written, which nobody else sees yet. */
async function idsInside(tx: any): Promise<string[]> {
  const found =
    'prepare' in tx
      ? tx.prepare('select id from idempotent_outbox').all()
      : (await tx.query(`select id from ${schemas.at(-1)}.outbox`)).rows;
  return (found as { id: string }[]).map(({ id }) => id);
}

describe('a COMMIT whose answer is lost (PostgreSQL, behind a proxy)', () => {
  it.each(['lose-reply', 'lose-request', 'reset'] as const)(
    'of a handler that publishes: its effect and its message happen once (%s)',
    async (fault) => {
      const place = await postgresPlace(behind);
      const receiver = place.receiver(async (payload, ctx) => {
        await place.effect(ctx.tx, payload.id);
        await ctx.publish('orders', { body: payload.id });
      });
      expect(actions(await receiver.process([delivery('warm')]))).toEqual(['ack completed']);
      for (let i = 0; i < 5; i++) {
        const before = proxy.injected[fault];
        proxy.next({ fault, when: 'commit\0' });
        for (let tries = 0; ; tries++) {
          const [verdict] = await receiver.process([delivery(String(i))]);
          if (verdict!.action === 'ack') break;
          expect(tries).toBeLessThan(20);
        }
        expect(proxy.injected[fault]).toBe(before + 1);
      }
      expect(await place.effects()).toEqual(['0', '1', '2', '3', '4', 'warm']);
      expect(await texts(place.outbox)).toEqual(['0', '1', '2', '3', '4', 'warm']);
      await receiver.stop();
    },
  );

  it.each(['lose-reply', 'lose-request', 'reset'] as const)(
    'of a relay: nothing is lost, and what is sent again has the same id (%s)',
    async (fault) => {
      const place = await postgresPlace(behind);
      const schema = schemas.at(-1)!;
      const outbox = postgresOutbox(behind as unknown as PgPool<pg.PoolClient>, { destinations, schema });
      const client = await db.connect();
      await client.query('begin');
      await outbox.publish(
        client,
        'orders',
        Array.from({ length: 20 }, (_, i) => ({ body: String(i), orderingKey: 'k' })),
      );
      await client.query('commit');
      client.release();
      const got: Outgoing[] = [];
      const some = () => outbox.take('orders', 5, async (due) => (got.push(...due), due.map(() => ({ as: 'sent' }) as const)));
      let failures = 0;
      for (let taken = 1; taken > 0; ) {
        if (failures < 3) proxy.next({ fault, when: 'commit\0' });
        taken = await some().catch(() => (failures++, 1));
      }
      proxy.heal();
      expect(failures).toBe(3);
      const ids = new Map(got.map((each) => [textOf(each), each.id]));
      expect([...ids.keys()]).toEqual(Array.from({ length: 20 }, (_, i) => String(i)));
      for (const each of got) expect(each.id).toBe(ids.get(textOf(each)));
      expect(got.length).toBe(fault === 'lose-reply' ? 20 : 35);
      expect(await place.outbox.stats()).toEqual([]);
    },
  );
});
