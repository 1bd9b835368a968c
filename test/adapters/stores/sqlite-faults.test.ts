import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, expect, it } from 'vitest';
import { type SqliteStoreOptions, sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import { asCompleted, ask, keyOf, retainMs } from '../../../src/testing/clauses/kit.ts';
import { drivers, temporaryFolder } from './sqlite-harness.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

function newFile(): string {
  const folder = temporaryFolder();
  cleanups.push(folder.remove);
  return join(folder.path, 'store.db');
}

function connect(path: string, options: { readOnly?: boolean } = {}): DatabaseSync {
  const db = new DatabaseSync(path, options);
  cleanups.push(() => db.isOpen && db.close());
  return db;
}

const open = (path: string, options: SqliteStoreOptions = {}) => sqliteStore(connect(path), options);

describe('sqliteStore, opening a file that it can not use', () => {
  it.each(Object.entries(drivers))('that is not a database, with %s', (_, driver) => {
    const path = newFile();
    writeFileSync(path, 'this is a text and not a database, '.repeat(100));
    const db = driver(path);
    cleanups.push(() => db.close());
    expect(() => sqliteStore(db)).toThrow(
      expect.objectContaining({ code: 'store', message: expect.stringContaining('file is not a database') }),
    );
  });

  it('that is opened for reading only', () => {
    const path = newFile();
    connect(path).exec('pragma journal_mode = wal; create table t (a)');
    const db = connect(path, { readOnly: true });
    expect(() => sqliteStore(db)).toThrow(expect.objectContaining({ code: 'store', message: expect.stringMatching(/readonly/) }));
  });

  it('that has tables of the same names', () => {
    const path = newFile();
    connect(path).exec('create table idempotent_records (mine)');
    expect(() => open(path)).toThrow('Expected all or none of the tables idempotent_records, ');
    expect(() => open(path)).toThrow('got only idempotent_records: is it a table of your own? Choose another `tablePrefix`');
    expect(() => open(path, { tablePrefix: 'other_' })).not.toThrow();
    const second = newFile();
    for (const name of ['records', 'recent', 'meta', 'guard']) connect(second).exec(`create table idempotent_${name} (mine)`);
    expect(() => open(second)).toThrow("Expected table idempotent_meta to be the store's, got another one");
  });

  it('that another version has made', () => {
    const path = newFile();
    open(path);
    connect(path).exec('update idempotent_meta set version = 7');
    expect(() => open(path)).toThrow('Expected schema version 1 in table idempotent_meta, got 7');
    expect(() => open(path)).toThrow(expect.objectContaining({ code: 'store' }));
  });

  it('whose foreign keys are off, because a handler could then commit a unit', () => {
    const db = connect(newFile());
    db.exec('pragma foreign_keys = off');
    expect(() => sqliteStore(db)).toThrow("Expected SQLite's foreign_keys to be 1, got 0");
  });

  it('whose text is not UTF-8, because results would be read back garbled', () => {
    const db = connect(newFile());
    db.exec("pragma encoding = 'UTF-16le'");
    expect(() => sqliteStore(db)).toThrow("Expected SQLite's encoding to be UTF-8, got UTF-16le");
  });

  it('whose connection gives arrays or bigints', () => {
    const path = newFile();
    for (const options of [{ returnArrays: true }, { readBigInts: true }]) {
      const db = new DatabaseSync(path, options);
      cleanups.push(() => db.close());
      expect(() => sqliteStore(db)).toThrow('Expected the SQLite connection to give rows as objects and integers as numbers');
    }
  });

  it('whose connection is in a transaction', () => {
    const db = connect(newFile());
    db.exec('begin');
    expect(() => sqliteStore(db)).toThrow('Expected the SQLite connection to be idle');
  });

  it('that stays locked', () => {
    const path = newFile();
    const other = connect(path);
    other.exec('pragma journal_mode = wal; begin immediate');
    expect(() => open(path, { lockTimeoutMs: 60 })).toThrow(
      expect.objectContaining({ code: 'store', message: expect.stringContaining('locked') }),
    );
    other.exec('rollback');
    expect(() => open(path, { lockTimeoutMs: 60 })).not.toThrow();
  });

  it('and says what is wrong with its options', () => {
    const path = newFile();
    for (const tablePrefix of ['', 'a-b', 'x"; drop table effects; --', 'sqlite_', '1a', 'a'.repeat(60), 'ä', 7, null]) {
      expect(() => open(path, { tablePrefix: tablePrefix as string })).toThrow(expect.objectContaining({ code: 'invalid-option' }));
    }
    expect(() => open(path, { lockTimeoutMs: -1 })).toThrow('Expected `lockTimeoutMs` to be a number from 0 to 600000, got `-1`');
    expect(() => open(path, { durability: 'off' as 'full' })).toThrow('Expected `durability` to be `full` or `normal`, got `"off"`');
  });
});

describe('sqliteStore, set up', () => {
  it.each([
    ['full', 2],
    ['normal', 1],
  ] as const)('at durability %s sets synchronous to it, in WAL mode', (durability, synchronous) => {
    const db = connect(newFile());
    sqliteStore(db, { durability });
    expect({ ...db.prepare('pragma synchronous').get(), ...db.prepare('pragma journal_mode').get() }).toEqual({
      synchronous,
      journal_mode: 'wal',
    });
  });

  it('keeps two stores with different prefixes apart in one file', async () => {
    const path = newFile();
    const [a, b] = [open(path, { tablePrefix: 'a_' }), open(path, { tablePrefix: 'b_' })];
    expect((await a.claim([ask('x', 't')]))[0]).toMatchObject({ state: 'claimed' });
    expect((await b.claim([ask('x', 'u')]))[0]).toMatchObject({ state: 'claimed' });
  });

  it('refuses keys and fingerprints that are no digests, whose bytes could run into each other', async () => {
    const store = open(newFile());
    for (const key of ['', 'short', `${'a'.repeat(31)}!`, `${'a'.repeat(31)}/`, `+${'a'.repeat(31)}`, 'a'.repeat(33)]) {
      await expect(store.claim([{ ...ask('x', 't'), key }])).rejects.toMatchObject({ code: 'invalid-key' });
      await expect(store.unit((unit) => unit.record([{ ...ask('x', 't'), key }]))).rejects.toMatchObject({ code: 'invalid-key' });
    }
    for (const fingerprint of ['short', `${'a'.repeat(21)}!`]) {
      await expect(store.claim([{ ...ask('x', 't'), fingerprint }])).rejects.toMatchObject({ code: 'invalid-key' });
      await expect(store.unit((unit) => unit.record([{ ...ask('x', 't'), fingerprint }]))).rejects.toMatchObject({ code: 'invalid-key' });
    }
    // Too short and too long, so that together they have the right length, and the second key would be read at the wrong place.
    const crooked = [
      { ...ask('x', 't'), fingerprint: 'a'.repeat(18) },
      { ...ask('y', 't'), fingerprint: 'a'.repeat(26) },
    ];
    await expect(store.unit((unit) => unit.record(crooked))).rejects.toMatchObject({ code: 'invalid-key' });
    expect(await store.stats()).toEqual({ claimed: 0, released: 0, completed: 0, parked: 0 });
  });
});

describe('sqliteStore, when the file goes bad', () => {
  it('rejects and records nothing while the disk is full, and recovers', async () => {
    const db = connect(newFile());
    db.exec('create table effects (text text)');
    const store = sqliteStore(db);
    const pages = Number(db.prepare('pragma page_count').get()!['page_count']);
    db.exec(`pragma max_page_count = ${pages}`);
    const big = 'x'.repeat(20_000);
    const asks = Array.from({ length: 400 }, (_, i) => ask(i, 't'));
    await expect(store.claim(asks)).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('full') });
    // On a full disk SQLite rolls the whole transaction back by itself. A handler that swallows the error must not hide that.
    const unit = store.unit(async (unit) => {
      await unit.record([ask('u', 't')]);
      await unit.savepoint(async (tx) => {
        try {
          tx.prepare('insert into effects values (?)').run(big);
        } catch {}
      });
    });
    await expect(unit).rejects.toMatchObject({ code: 'store' });
    const failing = store.unit((unit) => unit.savepoint(async (tx) => void tx.prepare('insert into effects values (?)').run(big)));
    await expect(failing).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('database or disk is full') });
    db.exec('pragma max_page_count = 1000000');
    expect(db.prepare('select count(*) as n from effects').get()).toEqual({ n: 0 });
    expect(await store.stats()).toEqual({ claimed: 0, released: 0, completed: 0, parked: 0 });
    expect((await store.claim(asks)).every(({ state }) => state === 'claimed')).toBe(true);
  });

  it('rejects and records nothing while the file is read-only', async () => {
    const path = newFile();
    const db = connect(path);
    const store = sqliteStore(db);
    db.exec('pragma query_only = on');
    await expect(store.claim([ask('a', 't')])).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('readonly') });
    await expect(store.unit((unit) => unit.record([ask('a', 't')]))).rejects.toMatchObject({ code: 'store' });
    db.exec('pragma query_only = off');
    expect((await store.claim([ask('a', 't')]))[0]).toMatchObject({ state: 'claimed', attempt: 1 });
  });

  it('rejects when the connection has been closed', async () => {
    const db = connect(newFile());
    const store = sqliteStore(db);
    db.close();
    await expect(store.claim([ask('a', 't')])).rejects.toMatchObject({ code: 'store' });
    await expect(store.inspect(keyOf('a'))).rejects.toMatchObject({ code: 'store' });
  });

  it('rejects when its tables have gone, or its counter has gone back', async () => {
    const path = newFile();
    const store = open(path);
    await store.unit((unit) => unit.record([ask('a', 't')]));
    const other = connect(path);
    other.exec('update idempotent_meta set fence = 0');
    await expect(store.claim([ask('b', 't')])).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('not to go back') });
    other.exec('drop table idempotent_records');
    await expect(store.claim([ask('b', 't')])).rejects.toMatchObject({ code: 'store' });
  });

  it.each([
    ['an unknown state', 'state = 9'],
    ['a fingerprint of the wrong length', "fingerprint = x'0102'"],
    ['a fence of 0', 'fence = 0'],
    ['negative attempts', 'attempts = -1'],
    ['an end before its lease', 'lease_until = expires_at + 1'],
    ['no reason for being parked', 'state = 4'],
  ])('answers a record with %s as corrupt, and lets people forget it', async (_, damage) => {
    const path = newFile();
    const store = open(path);
    await store.claim([ask('a', 't'), ask('b', 't')]);
    connect(path).exec(`update idempotent_records set ${damage}`);
    const answers = await store.claim([ask('a', 't'), ask('c', 't')]);
    expect(answers.map(({ state }) => state)).toEqual(['corrupt', 'claimed']);
    expect(await store.settle([{ key: keyOf('a'), token: 't', retainMs, ...asCompleted }])).toEqual(['fenced']);
    expect((await store.unit((unit) => unit.record([ask('b', 't')])))[0]).toMatchObject({ state: 'corrupt' });
    await expect(store.inspect(keyOf('a'))).rejects.toMatchObject({ code: 'store', message: expect.stringContaining("can't be read") });
    expect(await store.forget(keyOf('a'))).toBe(true);
    expect((await store.claim([ask('a', 't')]))[0]).toMatchObject({ state: 'claimed', attempt: 1 });
  });

  it('answers nothing at all when a batch of recent keys is damaged: nobody knows which keys it held', async () => {
    const path = newFile();
    await open(path).unit((unit) => unit.record([ask('a', 't')]));
    connect(path).exec('update idempotent_recent set entries = substr(entries, 1, 40)');
    const store = open(path);
    for (const call of [store.claim([ask('a', 't')]), store.unit((unit) => unit.record([ask('b', 't')])), store.inspect(keyOf('a'))]) {
      await expect(call).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('corrupt') });
    }
  });

  it('rejects when a page of the file is overwritten', async () => {
    const path = newFile();
    const db = connect(path);
    const store = sqliteStore(db);
    await store.claim(Array.from({ length: 500 }, (_, i) => ask(i, 't')));
    db.exec('pragma wal_checkpoint(truncate)');
    db.close();
    const { openSync, writeSync, closeSync, fstatSync } = await import('node:fs');
    chmodSync(path, 0o644);
    const file = openSync(path, 'r+');
    for (let page = 2; page < fstatSync(file).size / 4096; page++) writeSync(file, Buffer.alloc(4096, 0xff), 0, 4096, page * 4096);
    closeSync(file);
    const damaged = Promise.resolve().then(() => open(path).claim(Array.from({ length: 500 }, (_, i) => ask(i, 'other'))));
    await expect(damaged).rejects.toMatchObject({ code: 'store' });
  });
});
