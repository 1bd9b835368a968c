import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import knexOf, { type Knex } from 'knex';
import { CamelCasePlugin, Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { drizzleTx, knexTx, kyselyTx, type PrismaTransaction, prismaTx } from '../../../adapters/sql/index.ts';
import { migrate, type PgPool, postgresOutbox, recordOnce } from '../../../adapters/stores/postgres/index.ts';
import { fencedWrite, insertOnce, type Outgoing, type SqlTx, updateIf } from '../../../src/index.ts';
import { service } from '../../support/services/index.ts';
import { unique } from '../../support/unique.ts';
import { poolOf } from '../stores/postgres-harness.ts';
import { prismaClient } from './prisma.ts';

/** A library: how to work in one of its transactions, how to write an effect there, and what is no transaction of its. */
interface Library {
  transaction(work: (tx: SqlTx, write: (text: string) => Promise<unknown>) => Promise<void>): Promise<void>;
  careless(): SqlTx;
}

let db: pg.Pool;
let knex: Knex;
let kysely: Kysely<any>;
let prisma: ReturnType<typeof prismaClient>;
const schema = unique('orm');
beforeAll(async () => {
  const { url } = await service('postgres');
  db = poolOf({ connectionString: url });
  // Libraries that rename columns, as many set-ups do.
  knex = knexOf({
    client: 'pg',
    connection: url,
    postProcessResponse: (result) => (Array.isArray(result) ? result.map((row) => ({ renamed: row })) : result),
    wrapIdentifier: (name, wrap) => wrap(`${name}_renamed`),
  });
  kysely = new Kysely<any>({ dialect: new PostgresDialect({ pool: db }), plugins: [new CamelCasePlugin()] });
  prisma = prismaClient(url);
  await migrate(db as unknown as PgPool, { schema });
  await db.query(`create table ${schema}.effects (text text); create table ${schema}.charges (id text primary key, cents integer, fence bigint not null,
    version bigint not null default 0)`);
});
afterAll(async () => {
  await db.query(`drop schema ${schema} cascade`);
  await knex.destroy();
  await prisma.$disconnect();
  await db.end();
});

const insert = `insert into ${schema}.effects values`;

const libraries: Record<string, Library> = {
  'pg client': {
    async transaction(work) {
      const client = await db.connect();
      try {
        await client.query('begin');
        await work(client, (text) => client.query(`${insert} ($1)`, [text]));
        await client.query('commit');
      } catch (error) {
        await client.query('rollback');
        throw error;
      } finally {
        client.release();
      }
    },
    careless: () => db,
  },
  drizzle: {
    transaction: (work) =>
      drizzle({ client: db }).transaction((tx) => work(drizzleTx(tx, sql), async (text) => tx.execute(sql`${sql.raw(insert)} (${text})`))),
    careless: () => drizzleTx(drizzle({ client: db }) as never, sql),
  },
  kysely: {
    transaction: (work) =>
      kysely
        .transaction()
        .execute((trx) => work(kyselyTx(trx), (text) => trx.withSchema(schema).insertInto('effects').values({ text }).execute())),
    careless: () => kyselyTx(kysely),
  },
  knex: {
    transaction: (work) => knex.transaction((trx) => work(knexTx(trx), async (text) => trx.raw(`${insert} (?)`, [text]))),
    careless: () => knexTx(knex),
  },
  prisma: {
    transaction: (work) =>
      prisma.$transaction((tx: PrismaTransaction) => work(prismaTx(tx), async (text) => tx.$queryRawUnsafe(`${insert} ($1)`, text))),
    careless: () => prismaTx(prisma as never),
  },
};

const outbox = () => postgresOutbox(db as unknown as PgPool<pg.PoolClient>, { destinations: ['orders', 'woken'], schema, notify: true });

async function published(): Promise<Outgoing[]> {
  const all: Outgoing[] = [];
  while ((await outbox().take('orders', 100, async (due) => (all.push(...due), due.map(() => ({ as: 'sent' }) as const)))) > 0);
  return all;
}

const effects = async () => (await db.query(`delete from ${schema}.effects returning text`)).rows.map(({ text }) => text).toSorted();

describe.each(Object.keys(libraries))('a transaction of %s', (name) => {
  const library = libraries[name]!;

  it('publishes if, and only if, it commits', async () => {
    const bytes = Uint8Array.from([0, 255, 39, 92]);
    await library.transaction(async (tx, write) => {
      await write('committed');
      await outbox().publish(tx, 'orders', [
        { body: bytes, id: 'a', orderingKey: "k'?$1", headers: { h: '"?' } },
        { body: null, id: 'b' },
        { body: { text: 'ü' }, id: 'c' },
      ]);
    });
    const failing = library.transaction(async (tx, write) => {
      await write('rolled back');
      await outbox().publish(tx, 'orders', { body: 'rolled back' });
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    expect(await effects()).toEqual(['committed']);
    const got = (await published()).toSorted((a, b) => a.id.localeCompare(b.id));
    expect(got.map(({ id, body }) => [id, body && [...body]])).toEqual([
      ['a', [...bytes]],
      ['b', null],
      ['c', [...Buffer.from('{"text":"ü"}')]],
    ]);
    expect(got[0]).toMatchObject({ orderingKey: "k'?$1", headers: { h: '"?' } });
  });

  it('records a message once, with its effect', async () => {
    const id = `order of ${name}`;
    const handle = (fails = false) =>
      library.transaction(async (tx, write) => {
        if ((await recordOnce(tx, { schema, scope: 'test', id })) === 'first') await write(name);
        if (fails) throw new Error('no');
      });
    await expect(handle(true)).rejects.toThrow('no');
    await handle();
    await handle();
    expect(await effects()).toEqual([name]);
  });

  it('makes conditional writes', async () => {
    const table = `${schema}.charges`;
    await library.transaction(async (tx) => {
      expect(await insertOnce(tx, table, { id: name, cents: 1, fence: 0 })).toBe(true);
      expect(await insertOnce(tx, table, { id: name, cents: 2, fence: 0 })).toBe(false);
      expect(await updateIf(tx, table, { where: { id: name }, version: 0, set: { cents: 3 } })).toBe(true);
      expect(await updateIf(tx, table, { where: { id: name }, version: 0, set: { cents: 4 } })).toBe(false);
      await fencedWrite(tx, table, { key: { id: name }, fence: 7, set: { cents: 5 } });
      await expect(fencedWrite(tx, table, { key: { id: name }, fence: 6, set: { cents: 6 } })).rejects.toMatchObject({
        code: 'claim-lost',
      });
    });
    expect((await db.query(`select cents, version from ${table} where id = $1`, [name])).rows).toEqual([{ cents: 5, version: '1' }]);
  });

  it('is told from what is none', async () => {
    await expect((async () => outbox().publish(library.careless(), 'orders', { body: 'careless' }))()).rejects.toMatchObject({
      code: 'invalid-message',
    });
    expect(await published()).toEqual([]);
  });
});

/** Runs transactions inside of one. */
type Nesting = (work: (nested: (inner: (tx: SqlTx) => Promise<void>) => Promise<void>) => Promise<void>) => Promise<void>;

const nestings: Record<string, Nesting> = {
  drizzle: (work) => drizzle({ client: db }).transaction((tx) => work((inner) => tx.transaction((each) => inner(drizzleTx(each, sql))))),
  knex: (work) => knex.transaction((trx) => work((inner) => trx.transaction((each) => inner(knexTx(each))))),
  prisma: (work) => prisma.$transaction((tx: any) => work((inner) => tx.$transaction((each: any) => inner(prismaTx(each))))),
};

it.each(Object.entries(nestings))('publishes in a transaction of %s that is inside of another one', async (_, nesting) => {
  await nesting(async (nested) => {
    await nested((tx) => outbox().publish(tx, 'orders', { body: 'kept' }));
    const failing = nested(async (tx) => {
      await outbox().publish(tx, 'orders', { body: 'undone' });
      throw new Error('inner');
    });
    await expect(failing).rejects.toThrow('inner');
  });
  expect((await published()).map(({ body }) => Buffer.from(body!).toString())).toEqual(['kept']);
});

it('a pg client without a transaction is told from one with it, also when it was used before', async () => {
  const client = new pg.Client({ connectionString: (await service('postgres')).url });
  await client.connect();
  try {
    const publish = async () => outbox().publish(client, 'orders', { body: 'x' });
    await expect(publish()).rejects.toMatchObject({ code: 'invalid-message' });
    await client.query('begin');
    await publish();
    await client.query('rollback');
    await expect(publish()).rejects.toMatchObject({ code: 'invalid-message' });
    expect(await published()).toEqual([]);
  } finally {
    await client.end();
  }
});
