import { DatabaseSync } from 'node:sqlite';
import Database from 'better-sqlite3';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate, type PgPool, postgresStore } from '../../adapters/stores/postgres/index.ts';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import {
  attribute,
  createReceiver,
  type DedupStore,
  fencedWrite,
  fencedWriteSql,
  insertOnce,
  insertOnceSql,
  type SqliteTx,
  type SqlTx,
  updateIf,
  updateIfSql,
} from '../../src/index.ts';
import { virtualWorld } from '../../src/testing/virtual-world.ts';
import { poolOf } from '../adapters/stores/postgres-harness.ts';
import { service } from '../support/services/index.ts';
import { actions, delivery, latch } from '../support/stand.ts';
import { unique } from '../support/unique.ts';

/** A database with tables `charges` (id, cents, fence) and `accounts` (id, balance, version), and a store. */
interface Place {
  readonly tx: SqlTx | SqliteTx;
  readonly table: (name: string) => string;
  readonly store: DedupStore;
  rows(name: string): Promise<readonly object[]>;
}

let db: pg.Pool;
const schemas: string[] = [];
const closing: { close(): void }[] = [];
beforeAll(async () => {
  db = poolOf({ connectionString: (await service('postgres')).url, max: 20 });
});
afterAll(async () => {
  for (const schema of schemas) await db.query(`drop schema ${schema} cascade`);
  await db.end();
  for (const each of closing) each.close();
});

const ddl = (prefix: string) => `create table ${prefix}charges (id text primary key, cents integer, fence bigint not null);
  create table ${prefix}accounts (id text primary key, balance integer, version bigint not null);
  create table ${prefix}"we""ird $1" ("key $2" text primary key, "a.b" text)`;

const sqlitePlace = async (connection: DatabaseSync | Database.Database): Promise<Place> => {
  closing.push(connection);
  const store = sqliteStore(connection as DatabaseSync);
  connection.exec(ddl(''));
  return {
    tx: connection,
    table: (name) => name,
    store,
    rows: async (name) => (connection as DatabaseSync).prepare(`select * from ${name} order by id`).all(),
  };
};

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

describe.each([
  ['node:sqlite', () => sqlitePlace(new DatabaseSync(':memory:'))],
  ['better-sqlite3', () => sqlitePlace(new Database(':memory:'))],
  ['PostgreSQL', postgresPlace],
])('conditional writes (%s)', (_, open) => {
  it('insertOnce inserts a row once, and keeps the first', async () => {
    const { tx, table, rows } = await open();
    expect(await insertOnce(tx, table('charges'), { id: 'a', cents: 5, fence: 0 })).toBe(true);
    expect(await insertOnce(tx, table('charges'), { id: 'a', cents: 7, fence: 0 })).toBe(false);
    expect(await insertOnce(tx, table('charges'), { id: 'b', cents: 1, fence: 0 })).toBe(true);
    expect(await rows('charges')).toEqual([
      { id: 'a', cents: 5, fence: 0 },
      { id: 'b', cents: 1, fence: 0 },
    ]);
  });

  it('insertOnce: of many at once, one has inserted', async () => {
    const { tx, table } = await open();
    const all = await Promise.all(
      Array.from({ length: 50 }, (_each, i) => insertOnce(tx, table('charges'), { id: 'a', cents: i, fence: 0 })),
    );
    expect(all.filter((inserted) => inserted)).toHaveLength(1);
  });

  it('updateIf changes a row of the version that was read, and counts it up; others do nothing', async () => {
    const { tx, table, rows } = await open();
    await insertOnce(tx, table('accounts'), { id: 'a', balance: 0, version: 1 });
    await insertOnce(tx, table('accounts'), { id: 'b', balance: 0, version: 1 });
    const add = (version: number, balance: number) => updateIf(tx, table('accounts'), { where: { id: 'a' }, version, set: { balance } });
    expect(await add(1, 10)).toBe(true);
    expect(await add(1, 99)).toBe(false);
    expect(await add(2, 20)).toBe(true);
    expect(await updateIf(tx, table('accounts'), { where: { id: 'none' }, version: 1, set: { balance: 1 } })).toBe(false);
    expect(await rows('accounts')).toEqual([
      { id: 'a', balance: 20, version: 3 },
      { id: 'b', balance: 0, version: 1 },
    ]);
  });

  it('updateIf: no update of many at once is lost', async () => {
    const { tx, table, rows } = await open();
    await insertOnce(tx, table('accounts'), { id: 'a', balance: 0, version: 0 });
    const version = async () => (await rows('accounts'))[0] as { balance: number; version: number };
    const add = async () => {
      for (;;) {
        const seen = await version();
        if (await updateIf(tx, table('accounts'), { where: { id: 'a' }, version: seen.version, set: { balance: seen.balance + 1 } }))
          return;
      }
    };
    await Promise.all(Array.from({ length: 20 }, add));
    expect(await version()).toMatchObject({ balance: 20, version: 20 });
  });

  it('fencedWrite takes a first write, the same fence again, and a greater one; it refuses a smaller one', async () => {
    const { tx, table, rows } = await open();
    const write = (fence: number, cents: number) => fencedWrite(tx, table('charges'), { key: { id: 'a' }, fence, set: { cents } });
    await write(5, 50);
    await write(5, 51);
    await write(7, 70);
    await expect(write(6, 60)).rejects.toMatchObject({ code: 'claim-lost' });
    await expect(write(5, 50)).rejects.toMatchObject({ code: 'claim-lost' });
    expect(await rows('charges')).toEqual([{ id: 'a', cents: 70, fence: 7 }]);
  });

  it('takes names as they are, whatever is in them', async () => {
    const { tx, table } = await open();
    const write = () => insertOnce(tx, table('we"ird $1'), { 'key $2': 'k', 'a.b': '$1 ?' });
    expect(await write()).toBe(true);
    expect(await write()).toBe(false);
  });

  it('a handler with `guarantee: fenced` that was overtaken changes nothing by fencedWrite, and does without it', async () => {
    const { tx, table, store, rows } = await open();
    // No time passes for the zombie, so it never extends its lease, nor learns that it is over.
    const frozen = virtualWorld();
    const common = { scope: 'test', key: attribute('id'), store, guarantee: 'fenced', leaseMs: 300, backoff: { firstMs: 0 } } as const;
    const isThere = latch();
    const goOn = latch();
    const naive: number[] = [];
    const fences: number[] = [];
    const refusals: unknown[] = [];
    const zombie = createReceiver({ ...common, world: frozen }, async (_payload, ctx) => {
      isThere.open();
      await goOn.promise;
      naive.push(1);
      fences.push(ctx.fence);
      await fencedWrite(tx, table('charges'), { key: { id: ctx.message.headers['id'] }, fence: ctx.fence, set: { cents: 1 } }).catch(
        (error) => {
          refusals.push(error.code);
          throw error;
        },
      );
    });
    const owner = createReceiver(common, async (_payload, ctx) => {
      naive.push(2);
      fences.push(ctx.fence);
      await fencedWrite(tx, table('charges'), { key: { id: ctx.message.headers['id'] }, fence: ctx.fence, set: { cents: 2 } });
    });
    const late = zombie.process([delivery('a')]);
    await isThere.promise;
    for (let verdict = 'retry'; verdict !== 'ack'; ) {
      const [answer] = await owner.process([delivery('a')]);
      verdict = answer!.action;
      if (answer!.action === 'retry') await new Promise((resolve) => setTimeout(resolve, 50));
    }
    goOn.open();
    expect(actions(await late)).toEqual(['retry fenced']);
    expect(refusals).toEqual(['claim-lost']);
    expect(fences[1]!).toBeLessThan(fences[0]!);
    expect(await rows('charges')).toMatchObject([{ id: 'a', cents: 2, fence: fences[0] }]);
    // Who just writes has the zombie's word as the last one.
    expect(naive).toEqual([2, 1]);
    expect(actions(await owner.process([delivery('a')]))).toEqual(['ack duplicate']);
    await owner.stop();
  });
});

describe('conditional writes as text', () => {
  it('are one statement each, with their values', () => {
    expect(insertOnceSql('s.t', { a: 1, b: 2 })).toEqual({
      text: 'insert into "s"."t" ("a", "b") values ($1, $2) on conflict do nothing returning 1 as done',
      values: [1, 2],
    });
    expect(updateIfSql('t', { where: { id: 'x' }, version: 3, set: { a: 1 }, versionColumn: 'v' })).toEqual({
      text: 'update "t" set "a" = $1, "v" = "v" + 1 where "id" = $2 and "v" = $3 returning 1 as done',
      values: [1, 'x', 3],
    });
    expect(fencedWriteSql('t', { key: { id: 'x' }, fence: 9, set: { a: 1 } }).values).toEqual(['x', 1, 9]);
  });

  it.each<[string, () => unknown]>([
    ['no columns', () => insertOnceSql('t', {})],
    ['no table', () => insertOnceSql('', { a: 1 })],
    ['undefined, which would be null', () => insertOnceSql('t', { a: undefined })],
    ['a column without a name', () => insertOnceSql('t', { '': 1 })],
    ['a NUL', () => insertOnceSql('t\0', { a: 1 })],
    ['a version that is none', () => updateIfSql('t', { where: { id: 1 }, version: 1.5, set: { a: 1 } })],
    ['no row', () => updateIfSql('t', { where: {}, version: 1, set: { a: 1 } })],
    ['the version among the changes', () => updateIfSql('t', { where: { id: 1 }, version: 1, set: { version: 1 } })],
    ['a fence that is none', () => fencedWriteSql('t', { key: { id: 1 }, fence: undefined as never, set: { a: 1 } })],
    ['no key', () => fencedWriteSql('t', { key: {}, fence: 1, set: { a: 1 } })],
  ])('refuse %s', (_, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'invalid-option' }));
  });
});
