import type pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { migrate, type PgPool, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
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
