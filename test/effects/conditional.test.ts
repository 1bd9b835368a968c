import { DatabaseSync } from 'node:sqlite';
import Database from 'better-sqlite3';
import { afterAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import { fencedWrite, fencedWriteSql, insertOnce, insertOnceSql, updateIf, updateIfSql } from '../../src/index.ts';
import { conditionalContract, ddl, type Place } from './conditional-contract.ts';

const closing: { close(): void }[] = [];
afterAll(() => {
  for (const each of closing) each.close();
});

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

conditionalContract('node:sqlite', () => sqlitePlace(new DatabaseSync(':memory:')));
conditionalContract('better-sqlite3', () => sqlitePlace(new Database(':memory:')));

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
    expect(fencedWriteSql('t', { key: { id: 'x', part: 2 }, fence: 9, set: { a: 1 } })).toEqual({
      text: [
        'insert into "t" as own ("id", "part", "a", "fence") values ($1, $2, $3, $4)',
        'on conflict ("id", "part") do update set "a" = excluded."a", "fence" = excluded."fence" ' +
          'where own."fence" <= excluded."fence" returning 1 as done',
      ].join('\n'),
      values: ['x', 2, 1, 9],
    });
  });

  it('take versions that are greater than a number can be', () => {
    expect(updateIfSql('t', { where: { id: 1 }, version: 2n ** 62n, set: { a: 1 } }).values).toEqual([1, 1, 2n ** 62n]);
  });

  it('are run by a client that has `query`, and by what the statement answers it is known whether it has written', async () => {
    const asked: unknown[] = [];
    const client = (rows: object[]) => ({ query: async (...given: unknown[]) => (asked.push(given), { rows }) });
    expect(await insertOnce(client([{ done: 1 }]), 't', { a: 1 })).toBe(true);
    expect(await updateIf(client([]), 't', { where: { id: 1 }, version: 1, set: { a: 2 } })).toBe(false);
    await expect(fencedWrite(client([]), 't', { key: { id: 1 }, fence: 7, set: { a: 1 } })).rejects.toThrow(
      expect.objectContaining({ code: 'claim-lost', message: expect.stringContaining('A write to t with fence 7 was refused') }),
    );
    expect(asked[0]).toEqual(['insert into "t" ("a") values ($1) on conflict do nothing returning 1 as done', [1]]);
  });

  it('have room for many columns', async () => {
    const connection = new DatabaseSync(':memory:');
    closing.push(connection);
    const names = Array.from({ length: 25 }, (_, i) => `c${i}`);
    connection.exec(`create table wide (${names.join(', ')})`);
    const row = Object.fromEntries(names.map((name, i) => [name, i]));
    expect(await insertOnce(connection, 'wide', row)).toBe(true);
    expect({ ...connection.prepare('select * from wide').get() }).toEqual(row);
  });

  it('do not write beside a row because a part of its key is null, nor to another row than they were asked for', async () => {
    const connection = new DatabaseSync(':memory:');
    closing.push(connection);
    connection.exec('create table t (tenant text, id text, cents int, fence int, unique (tenant, id))');
    const write = (fence: number, key: object, set: object) =>
      fencedWrite(connection, 't', { key: { id: 'a', ...key }, fence, set: { cents: fence, ...set } });
    await write(5, { tenant: 'x' }, {});
    for (const fence of [7, 6]) await write(fence, { tenant: null }, {}).catch(() => {});
    await write(8, { tenant: 'x' }, { id: 'b' }).catch(() => {});
    expect(
      connection
        .prepare('select id, cents from t')
        .all()
        .map((row) => ({ ...row })),
    ).toEqual([{ id: 'a', cents: 5 }]);
  });

  const where = { id: 1 };
  const noColumns = (option: string) => `Expected \`${option}\` to be columns with their values, got`;
  const noName = 'Expected `name` to be the name of a table or column, got';
  it.each<[string, () => unknown, string]>([
    ['no columns', () => insertOnceSql('t', {}), noColumns('row')],
    ['columns that are null', () => insertOnceSql('t', null as never), noColumns('row')],
    ['columns that are text', () => insertOnceSql('t', 'text' as never), noColumns('row')],
    ['no table', () => insertOnceSql('', { a: 1 }), noName],
    ['undefined, which would be null', () => insertOnceSql('t', { b: 1, a: undefined }), 'Expected `row.a` to be a value, or null, got'],
    ['a column without a name', () => insertOnceSql('t', { '': 1 }), noName],
    ['a NUL', () => insertOnceSql('t\0', { a: 1 }), noName],
    ['a column whose name is a number', () => updateIfSql('t', { where, version: 1, set: { a: 1 }, versionColumn: 1 as never }), noName],
    [
      'a version that is none',
      () => updateIfSql('t', { where, version: 1.5, set: { a: 1 } }),
      'Expected `version` to be a whole number, got `1.5`',
    ],
    ['no row', () => updateIfSql('t', { where: {}, version: 1, set: { a: 1 } }), noColumns('where')],
    ['no change', () => updateIfSql('t', { where, version: 1, set: {} }), noColumns('set')],
    [
      'the version among the changes',
      () => updateIfSql('t', { where, version: 1, set: { version: 1 } }),
      'Expected `set` to be without "version", which is counted up, got',
    ],
    [
      'no fence',
      () => fencedWriteSql('t', { key: where, fence: undefined as never, set: { a: 1 } }),
      'Expected `fence` to be the `ctx.fence` of a handler, got `undefined`',
    ],
    [
      'a fence that is none',
      () => fencedWriteSql('t', { key: where, fence: 1.5, set: { a: 1 } }),
      'Expected `fence` to be the `ctx.fence` of a handler, got `1.5`',
    ],
    [
      'a key that is null, which is unlike any other',
      () => fencedWriteSql('t', { key: { id: null }, fence: 1, set: { a: 1 } }),
      'Expected `key.id` to be a value, because nothing equals null, got `null`',
    ],
    [
      'a row that is found by null',
      () => updateIfSql('t', { where: { id: null }, version: 1, set: { a: 1 } }),
      'Expected `where.id` to be a value, because nothing equals null, got `null`',
    ],
    [
      'a part of the key among the changes',
      () => fencedWriteSql('t', { key: { id: 1, at: 2 }, fence: 1, set: { at: 3 } }),
      'Expected `set` to be without "at", which is in the key, got',
    ],
    ['no key', () => fencedWriteSql('t', { key: {}, fence: 1, set: { a: 1 } }), noColumns('key')],
    [
      'an undefined member of the key',
      () => fencedWriteSql('t', { key: { id: undefined }, fence: 1, set: { a: 1 } }),
      'Expected `key.id` to be a value, or null, got',
    ],
  ])('refuse %s', (_, make, complaint) => {
    expect(make).toThrow(expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(complaint) }));
  });
});
