import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate, type PgPool, postgresOutbox, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { createReceiver, type Outgoing } from '../../src/index.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { type FaultProxy, proxyTo } from '../support/proxy.ts';
import { service } from '../support/services/index.ts';
import { actions, delivery } from '../support/stand.ts';
import { unique } from '../support/unique.ts';
import { textOf } from './outbox-contract.ts';
import { common, destinations, type Place, publishContract, texts } from './outbox-publish-contract.ts';

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
    idsInside: async (tx: pg.PoolClient) => (await tx.query(`select id from ${schema}.outbox`)).rows.map(({ id }) => id),
  };
}

publishContract('PostgreSQL', () => postgresPlace());

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
      // What is taken first commits before it is sent too; here it is about what has been sent.
      for (let taken = await some(); taken > 0; ) {
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
