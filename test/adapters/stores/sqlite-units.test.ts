import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, expect, it } from 'vitest';
import { type SqliteDatabase, type SqliteStoreOptions, sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import { entryBytes, writeEntries } from '../../../adapters/stores/sqlite/recent.ts';
import { ask, asReleased, keyOf, retainMs } from '../../../src/testing/clauses/kit.ts';
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

function stand(options: SqliteStoreOptions & { path?: string; driver?: string } = {}) {
  const { path = newFile(), driver = 'node:sqlite', ...rest } = options;
  const db = drivers[driver]!(path);
  cleanups.push(() => db.close());
  db.exec('create table if not exists effects (text text)');
  const outside = new DatabaseSync(path);
  cleanups.push(() => outside.close());
  const effects = () =>
    outside
      .prepare('select text from effects order by text')
      .all()
      .map((row) => row['text']);
  return { path, db, outside, effects, store: sqliteStore<SqliteDatabase>(db, rest) };
}

const insert = (tx: SqliteDatabase, text: string) => void tx.prepare('insert into effects values (?)').run(text);
const state = async (store: ReturnType<typeof stand>['store'], name: string | number) => (await store.inspect(keyOf(name)))?.state;

describe.each(Object.keys(drivers))('a handler that meddles with the transaction, on %s', (driver) => {
  it.each(['commit', 'end'])('can not %s it: the unit goes on, and only this handler has failed', async (sql) => {
    const { store, effects } = stand({ driver });
    await store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      const meddling = unit.savepoint(async (tx) => {
        insert(tx, 'a');
        tx.exec(sql);
      });
      await expect(meddling).rejects.toThrow('FOREIGN KEY constraint failed');
      await unit.settle([{ key: keyOf('a'), token: 't', retainMs, ...asReleased }]);
      await unit.savepoint(async (tx) => insert(tx, 'b'));
    });
    expect(effects()).toEqual(['b']);
    expect([await state(store, 'a'), await state(store, 'b')]).toEqual(['released', 'completed']);
  });

  it.each(['rollback', 'rollback; begin', 'release idempotent_message'])(
    'and runs "%s": the unit is broken, whatever its work says',
    async (sql) => {
      const { store, effects } = stand({ driver });
      const unit = store.unit(async (unit) => {
        await unit.record([ask('a', 't'), ask('b', 't')]);
        await unit.savepoint(async (tx) => insert(tx, 'b'));
        const meddling = unit.savepoint(async (tx) => {
          insert(tx, 'a');
          tx.exec(sql);
        });
        await expect(meddling).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('BEGIN, COMMIT or ROLLBACK') });
        await expect(unit.settle([])).rejects.toMatchObject({ code: 'store' });
        return 'all is well';
      });
      await expect(unit).rejects.toMatchObject({ code: 'store' });
      expect(effects()).toEqual([]);
      expect(await state(store, 'b')).toBe(undefined);
      expect(await store.unit(async (unit) => (await unit.record([ask('a', 'u')]))[0])).toMatchObject({ state: 'claimed', attempt: 1 });
    },
  );

  it('and covers up a rollback: the unit is broken all the same', async () => {
    const { store, effects } = stand({ driver });
    const unit = store.unit(async (unit) => {
      await unit.record([ask('a', 't'), ask('b', 't')]);
      await unit.savepoint(async (tx) => insert(tx, 'b'));
      await unit.savepoint(async (tx) => tx.exec('rollback; begin; savepoint idempotent_message'));
    });
    await expect(unit).rejects.toMatchObject({ code: 'store' });
    expect(effects()).toEqual([]);
    expect(await state(store, 'b')).toBe(undefined);
  });

  it('and swallows an error by which SQLite has rolled back: the unit is broken, but what it writes then is there, as the README says', async () => {
    const { store, db, effects } = stand({ driver });
    db.exec('create unique index one on effects (text)');
    const unit = store.unit(async (unit) => {
      await unit.record([ask('a', 't')]);
      await unit.savepoint(async (tx) => {
        insert(tx, 'undone');
        expect(() => tx.exec("insert or rollback into effects values ('undone')")).toThrow('UNIQUE');
        insert(tx, 'late');
      });
    });
    await expect(unit).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('or SQLite rolled back') });
    expect(effects()).toEqual(['late']);
    expect(await state(store, 'a')).toBe(undefined);
  });

  it('and begins one gets the error of SQLite', async () => {
    const { store } = stand({ driver });
    const beginning = store.unit((unit) => unit.savepoint(async (tx) => tx.exec('begin')));
    await expect(beginning).rejects.toThrow('cannot start a transaction within a transaction');
  });

  it('may nest savepoints of its own, and may violate and mend deferred constraints', async () => {
    const { store, db, effects } = stand({ driver });
    db.exec(
      'create table parent (id integer primary key); create table child (parent references parent (id) deferrable initially deferred)',
    );
    await store.unit(async (unit) => {
      await unit.savepoint(async (tx) => {
        insert(tx, 'kept');
        tx.exec('savepoint mine');
        insert(tx, 'undone');
        tx.exec('rollback to mine; release mine');
        tx.exec('insert into child values (1); insert into parent values (1)');
      });
    });
    expect(effects()).toEqual(['kept']);
    const orphan = store.unit((unit) => unit.savepoint(async (tx) => tx.exec('insert into child values (2)')));
    await expect(orphan).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('FOREIGN KEY constraint failed') });
  });
});

describe('units of one connection', () => {
  it('run one after another, in the order in which they came, with the claims between them', async () => {
    const { store, effects } = stand();
    const order: string[] = [];
    const unit = (name: string) =>
      store.unit(async (unit) => {
        order.push(`${name} begins`);
        await unit.record([ask(name, 't')]);
        await unit.savepoint(async (tx) => {
          await new Promise(setImmediate);
          insert(tx, name);
        });
        order.push(`${name} ends`);
      });
    const claim = store.claim([ask('c', 't')]).then(() => order.push('claim'));
    await Promise.all([unit('a'), unit('b'), claim]);
    expect(order).toEqual(['claim', 'a begins', 'a ends', 'b begins', 'b ends']);
    expect(effects()).toEqual(['a', 'b']);
  });

  it('refuse savepoints at the same time, and everything after their end', async () => {
    const { store } = stand();
    let late: (() => Promise<unknown>) | undefined;
    await store.unit(async (unit) => {
      const both = await Promise.allSettled([unit.savepoint(() => new Promise(setImmediate)), unit.savepoint(async () => {})]);
      expect(both[1]).toMatchObject({ status: 'rejected', reason: { code: 'store' } });
      late = () => unit.record([ask('a', 't')]);
    });
    await expect(late!()).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('it has ended') });
  });

  it('a handler that calls its own store does not wait for ever', async () => {
    const { store } = stand({ lockTimeoutMs: 50 });
    const waiting = store.unit((unit) => unit.savepoint(async () => store.claim([ask('a', 't')])));
    await expect(waiting).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('waits for itself') });
    expect((await store.claim([ask('a', 't')]))[0]).toMatchObject({ state: 'claimed' });
  });

  it('that are rolled back take no fence with them: what a handler has seen is not given again', async () => {
    const { store } = stand();
    let seen = 0;
    const failing = store.unit(async (unit) => {
      const [answer] = await unit.record([ask('a', 't')]);
      seen = (answer as { fence: number }).fence;
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    const [again] = await store.claim([ask('a', 'u')]);
    expect((again as { fence: number }).fence).toBeGreaterThan(seen);
  });

  it('an error of work is the same object, whatever it is', async () => {
    const { store } = stand();
    const failure = { not: 'even an Error' };
    await expect(store.unit(async () => Promise.reject(failure))).rejects.toBe(failure);
  });
});

describe('two connections to one file', () => {
  it('wait for the lock without blocking the event loop, and say so when it takes too long', async () => {
    const path = newFile();
    const [slow, quick] = [stand({ path }), stand({ path, lockTimeoutMs: 80 })];
    let beats = 0;
    const beat = setInterval(() => beats++, 5);
    let release = () => {};
    const unit = slow.store.unit((unit) => unit.savepoint(() => new Promise<void>((resolve) => (release = resolve))));
    const locked = quick.store.claim([ask('a', 't')]);
    await expect(locked).rejects.toMatchObject({
      code: 'store',
      message: "Expected SQLite's write lock within 80 ms, but other connections held it",
    });
    clearInterval(beat);
    expect(beats).toBeGreaterThan(5);
    release();
    await unit;
    expect((await quick.store.claim([ask('a', 't')]))[0]).toMatchObject({ state: 'claimed' });
  });

  it('read without waiting for a unit', async () => {
    const path = newFile();
    const [a, b] = [stand({ path }), stand({ path, lockTimeoutMs: 0 })];
    await a.store.unit((unit) => unit.record([ask('a', 't')]));
    await a.store.unit(async (unit) => {
      await unit.record([ask('b', 't')]);
      expect([await state(b.store, 'a'), await state(b.store, 'b')]).toEqual(['completed', undefined]);
    });
    expect(await state(b.store, 'b')).toBe('completed');
  });

  it('know the keys that the other has completed, also when it has moved, purged or forgotten them', async () => {
    let now = 1_700_000_000_000;
    const path = newFile();
    const [a, b] = [stand({ path, now: () => now }), stand({ path, now: () => now })];
    const record = (store: typeof a.store, names: readonly (string | number)[], retain = retainMs) =>
      store.unit(async (unit) =>
        (await unit.record(names.map((name) => ask(name, 't', { retainMs: retain })))).map((answer) => answer.state),
      );
    const names = Array.from({ length: 100 }, (_, i) => i);
    await record(a.store, names);
    expect(await record(b.store, names)).toEqual(names.map(() => 'completed'));
    // Forgetting moves a 16th of all keys, of both processes' batches.
    expect(await b.store.forget(keyOf(7))).toBe(true);
    expect(await record(a.store, names)).toEqual(names.map((name) => (name === 7 ? 'claimed' : 'completed')));
    expect(await b.store.stats()).toMatchObject({ completed: 100 });
    now += retainMs + 1;
    expect(await a.store.purge(30)).toBe(30);
    expect(await b.store.purge(30)).toBe(30);
    expect(await a.store.purge(1_000)).toBe(40);
    expect(await b.store.purge(1_000)).toBe(0);
    expect(
      b.outside.prepare('select (select count(*) from idempotent_records) + (select count(*) from idempotent_recent) as n').get(),
    ).toEqual({ n: 0 });
    expect(await record(b.store, names)).toEqual(names.map(() => 'claimed'));
    expect(await record(a.store, names)).toEqual(names.map(() => 'completed'));
  });

  it('do not move a range of keys twice: what was forgotten stays forgotten', async () => {
    const { store } = stand();
    // Two keys of the same 16th, and one batch that both are in.
    const [first, second] = Array.from({ length: 17 * 17 }, (_, i) => i).filter((i) => keyOf(i)[0] === keyOf(0)[0]);
    await store.unit((unit) => unit.record([ask(first!, 't'), ask(second!, 't')]));
    expect(await store.forget(keyOf(first!))).toBe(true);
    await store.unit((unit) => unit.record([ask('later', 't'), ask(first! + 1_000, 't')]));
    expect(await store.forget(keyOf(second!))).toBe(true);
    await store.unit((unit) => unit.record([ask(second!, 'u')]));
    expect(await store.forget(keyOf(second!))).toBe(true);
    expect(await state(store, first!)).toBe(undefined);
  });

  it('move recent keys to the table of records when there are many, and lose none', async () => {
    const path = newFile();
    const [a, b] = [stand({ path, durability: 'normal' }), stand({ path, durability: 'normal' })];
    const size = 1_000;
    const batch = (n: number) => Array.from({ length: size }, (_, i) => ask(`${n}/${i}`, 't'));
    for (let n = 0; n < 80; n++) await (n % 2 ? a : b).store.unit((unit) => unit.record(batch(n)));
    const { moved } = a.outside.prepare('select count(*) as moved from idempotent_records').get() as { moved: number };
    expect(moved).toBeGreaterThan(10_000);
    const fresh = stand({ path });
    for (const { store } of [a, b, fresh]) {
      expect(await store.stats()).toEqual({ claimed: 0, released: 0, completed: 80 * size, parked: 0 });
      for (const n of [0, 1, 40, 79]) {
        const answers = await store.unit((unit) => unit.record(batch(n)));
        expect(answers.filter(({ state }) => state !== 'completed')).toEqual([]);
      }
      const other = await store.claim(batch(3).map((each) => ({ ...each, fingerprint: ask('another', 't').fingerprint })));
      expect(other.filter(({ state }) => state !== 'mismatch')).toEqual([]);
    }
  });
});

describe('a recent key that expired and was claimed anew, when the clock then goes back', () => {
  it.each(['claimed', 'parked', 'completed'] as const)('is still %s, also after its range has been moved', async (as) => {
    let now = 1_700_000_000_000;
    const { store } = stand({ now: () => now });
    const neighbour = Array.from({ length: 1_000 }, (_, i) => i).find((i) => keyOf(i)[0] === keyOf('x')[0])!;
    await store.unit((unit) => unit.record([ask('x', 'first', { retainMs: 1_000 }), ask(neighbour, 't')]));
    now += 1_001;
    expect((await store.claim([ask('x', 'second', { leaseMs: 500 })]))[0]).toMatchObject({ state: 'claimed' });
    const settle = () => {
      const ending = as === 'parked' ? { as, reason: 'r', detail: 'd', label: 'l' } : { as: 'completed' as const, result: '"second"' };
      return store.settle([{ key: keyOf('x'), token: 'second', retainMs, ...ending }]);
    };
    if (as !== 'claimed') await settle();
    now -= 600;
    const expected =
      as === 'claimed' ? { state: 'busy' } : as === 'parked' ? { state: as, reason: 'r' } : { state: as, result: '"second"' };
    expect((await store.claim([ask('x', 'third')]))[0]).toMatchObject(expected);
    expect(await store.forget(keyOf(neighbour))).toBe(true);
    expect((await store.claim([ask('x', 'third')]))[0]).toMatchObject(expected);
    if (as === 'claimed') expect(await settle()).toEqual(['ok']);
    now += 2_000;
    expect(await state(store, 'x')).toBe(as === 'claimed' ? 'completed' : as);
  });
});

it('the entries of a small unit keep no shared memory of 8 kB alive', () => {
  const entries = writeEntries([{ ask: ask('a', 't'), fence: 7 }]);
  expect([entries.length, entries.buffer.byteLength]).toEqual([entryBytes, entryBytes]);
});

describe('a handler that leaves a statement unfinished', () => {
  it('on better-sqlite3 undoes its unit, and the store works again when the statement has ended', async () => {
    const { store, db, effects } = stand({ driver: 'better-sqlite3' });
    db.exec("insert into effects values ('1'), ('2')");
    const rows = (db.prepare('select text from effects') as unknown as { iterate(): Iterator<unknown> }).iterate();
    const unit = store.unit(async (unit) => {
      await unit.record([ask('a', 't')]);
      await unit.savepoint(async (tx) => {
        insert(tx, 'a');
        rows.next();
      });
    });
    await expect(unit).rejects.toMatchObject({ code: 'store', message: expect.stringContaining('busy executing a query') });
    await expect(store.claim([ask('b', 't')])).rejects.toMatchObject({ code: 'store' });
    rows.return!();
    expect(await state(store, 'a')).toBe(undefined);
    expect((await store.claim([ask('b', 't')]))[0]).toMatchObject({ state: 'claimed' });
    expect(effects()).toEqual(['1', '2']);
  });

  it('on node:sqlite is told so, when others have written since', async () => {
    const path = newFile();
    const [a, b] = [stand({ path, lockTimeoutMs: 50 }), stand({ path })];
    a.db.exec("insert into effects values ('1'), ('2')");
    const rows = (a.db.prepare('select text from effects') as unknown as { iterate(): Iterator<unknown> }).iterate();
    await a.store.unit((unit) => unit.savepoint(async () => void rows.next()));
    await b.store.claim([ask('b', 't')]);
    await expect(a.store.claim([ask('b', 'u')])).rejects.toThrow('a handler left a statement unfinished');
    rows.return!();
    expect((await a.store.claim([ask('b', 'u')]))[0]).toMatchObject({ state: 'busy' });
  });
});
