import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate, type PgPool, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { fencedWrite, insertOnce, updateIf } from '../../src/index.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { proxyTo } from '../support/proxy.ts';
import { service } from '../support/services/index.ts';
import { unique } from '../support/unique.ts';
import { conditionalContract, ddl, type Place } from './conditional-contract.ts';

let db: pg.Pool;
const schemas: string[] = [];
beforeAll(async () => {
  db = poolOf({ connectionString: (await service('postgres')).url, max: 20 });
});
afterAll(async () => {
  for (const schema of schemas) await db.query(`drop schema ${schema} cascade`);
  await db.end();
});

async function postgresPlace(): Promise<Place> {
  const schema = unique('conditional');
  schemas.push(schema);
  await migrate(db as unknown as PgPool, { schema });
  await db.query(ddl(`${schema}.`));
  return {
    tx: db,
    table: (name) => `${schema}.${name}`,
    store: postgresStore(db as unknown as PgPool<pg.PoolClient>, { schema }),
    rows: async (name) =>
      (await db.query(`select * from ${schema}.${name} order by id`)).rows.map((row) =>
        Object.fromEntries(Object.entries(row).map(([column, value]) => [column, column === 'id' ? value : Number(value)])),
      ),
  };
}

conditionalContract('PostgreSQL', postgresPlace);

describe('a conditional write that gets no answer (PostgreSQL, behind a proxy)', () => {
  it.each(['lose-request', 'lose-reply', 'reset'] as const)('with %s: asked again it has happened once', async (fault) => {
    const { user, password, database, ...server } = await service('postgres');
    const proxy = await proxyTo(server);
    const tx = poolOf({ host: proxy.host, port: proxy.port, user, password, database, query_timeout: 300 });
    try {
      const { table, rows } = await postgresPlace();
      const twice = async <T>(write: () => Promise<T>): Promise<T> => {
        proxy.next({ fault, when: 'returning 1 as done' });
        await expect(write()).rejects.toThrow();
        return write();
      };
      const arrives = fault === 'lose-reply';
      expect(await twice(() => insertOnce(tx, table('charges'), { id: 'a', cents: 5, fence: 0 }))).toBe(!arrives);
      await twice(() => fencedWrite(tx, table('charges'), { key: { id: 'a' }, fence: 3, set: { cents: 7 } }));
      expect(await rows('charges')).toEqual([{ id: 'a', cents: 7, fence: 3 }]);
      await insertOnce(tx, table('accounts'), { id: 'a', balance: 10, version: 1 });
      expect(await twice(() => updateIf(tx, table('accounts'), { where: { id: 'a' }, version: 1, set: { balance: 15 } }))).toBe(!arrives);
      expect(await rows('accounts')).toEqual([{ id: 'a', balance: 15, version: 2 }]);
      expect(proxy.injected[fault]).toBe(3);
    } finally {
      await tx.end();
      await proxy.close();
    }
  });
});
