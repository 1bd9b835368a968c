import { DatabaseSync } from 'node:sqlite';
import Database from 'better-sqlite3';
import { afterAll, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import { fencedWriteSql, insertOnceSql, updateIfSql } from '../../src/index.ts';
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
