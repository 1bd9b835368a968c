import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, expect, it } from 'vitest';
import { sqliteStore } from '../../../adapters/stores/sqlite/index.ts';
import { ask, keyOf } from '../../../src/testing/clauses/kit.ts';
import { type Child, race, startChild } from './processes.ts';
import { temporaryFolder } from './sqlite-harness.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

function newFile(): string {
  const folder = temporaryFolder();
  cleanups.push(folder.remove);
  return join(folder.path, 'store.db');
}

function fileWithEffects(): string {
  const path = newFile();
  const db = connect(path);
  sqliteStore(db);
  db.exec('create table effects (key integer not null, client integer not null)');
  return path;
}

function connect(path: string): DatabaseSync {
  const db = new DatabaseSync(path);
  cleanups.push(() => db.close());
  return db;
}

const start = (path: string, mode: 'claim' | 'unit', client: number, keys: number, size: number): Child =>
  startChild(new URL('./sqlite-child.ts', import.meta.url), [path, mode, client, keys, size], cleanups);

describe('processes that share a SQLite file', () => {
  it('16 of them, which make the tables at once, claim each of 10,000 keys exactly once', { timeout: 120_000 }, async () => {
    const path = newFile();
    const children = Array.from({ length: 16 }, (_, client) => start(path, 'claim', client, 10_000, 100));
    await race(children);
    await Promise.all(children.map(({ gone }) => gone));
    const claimed = children.flatMap(({ batches }) => batches.flatMap((batch) => batch.claimed));
    expect(children.flatMap(({ batches }) => batches.flatMap((batch) => batch.others))).toEqual([]);
    expect(claimed.length).toBe(10_000);
    expect(new Set(claimed).size).toBe(10_000);
    const winners = children.filter(({ batches }) => batches.some((batch) => batch.claimed.length > 0));
    expect(winners.length, 'no race, if few have won anything').toBeGreaterThan(4);
    const fences = connect(path).prepare('select count(distinct fence) as n from idempotent_records').get();
    expect(fences).toEqual({ n: 10_000 });
  });

  it('8 of them run units for 4,000 messages: one effect each', { timeout: 120_000 }, async () => {
    const path = fileWithEffects();
    const children = Array.from({ length: 8 }, (_, client) => start(path, 'unit', client, 4_000, 100));
    await race(children);
    await Promise.all(children.map(({ gone }) => gone));
    const effects = connect(path)
      .prepare('select count(*) as n, count(distinct key) as keys, count(distinct client) as clients from effects')
      .get();
    expect(effects).toMatchObject({ n: 4_000, keys: 4_000 });
    expect(effects!['clients'], 'no race, if few have won anything').toBeGreaterThan(2);
  });

  it('a claimer that is killed leaves whole batches, which others can claim when the leases have ended', { timeout: 60_000 }, async () => {
    const path = fileWithEffects();
    const child = start(path, 'claim', 0, 10_000, 100);
    child.onBatch = () => child.batches.length === 5 && child.process.kill('SIGKILL');
    await race([child]);
    expect(await child.gone).toBe('SIGKILL');

    const early = sqliteStore(connect(path));
    const { claimed } = await early.stats();
    expect(claimed).toBeGreaterThanOrEqual(500);
    expect(claimed % 100, 'a batch is claimed as a whole or not at all').toBe(0);
    const told = child.batches.flatMap((batch) => batch.claimed);
    const [busy] = await early.claim([ask(told[0]!, 'another')]);
    expect(busy).toMatchObject({ state: 'busy' });

    const later = sqliteStore(connect(path), { now: () => Date.now() + 30_001 });
    const answers = await later.claim(Array.from({ length: 10_000 }, (_, i) => ask(i, 'another')));
    const orphans = answers.filter((answer) => answer.state === 'claimed' && answer.orphaned && answer.attempt === 2);
    const fresh = answers.filter((answer) => answer.state === 'claimed' && !answer.orphaned && answer.attempt === 1);
    expect([orphans.length, fresh.length]).toEqual([claimed, 10_000 - claimed]);
    expect(told.every((name) => (answers[name] as { orphaned?: boolean }).orphaned)).toBe(true);
  });

  it('units that are killed at any moment leave effect and record together, or neither', { timeout: 120_000 }, async () => {
    const path = fileWithEffects();
    const db = connect(path);
    const store = sqliteStore(db);
    const effects = db.prepare('select key, count(*) as n from effects group by key');
    let kills = 0;
    for (let round = 0; round < 8; round++) {
      const children = [start(path, 'unit', 2 * round, 2_000, 20), start(path, 'unit', 2 * round + 1, 2_000, 20)];
      // Not at a batch's end, where the child waits for its message to be sent, but a little later.
      for (const child of children)
        child.onBatch = () => child.batches.length === 2 + round && setTimeout(() => child.process.kill('SIGKILL'), round % 4);
      await race(children);
      for (const signal of await Promise.all(children.map(({ gone }) => gone))) if (signal === 'SIGKILL') kills++;
      const found = effects.all() as { key: number; n: number }[];
      expect(found.filter(({ n }) => n !== 1)).toEqual([]);
      expect((await store.stats()).completed).toBe(found.length);
      for (const { key } of found.slice(0, 50)) expect(await store.inspect(keyOf(key))).toMatchObject({ state: 'completed' });
      const told = children.flatMap(({ batches }) => batches.flatMap((batch) => batch.claimed));
      const there = new Set(found.map(({ key }) => key));
      expect(
        told.filter((key) => !there.has(key)),
        'what was told as committed has committed',
      ).toEqual([]);
    }
    expect(kills, 'a run without kills shows nothing').toBeGreaterThan(8);
    const last = start(path, 'unit', 99, 2_000, 100);
    await race([last]);
    await last.gone;
    expect(effects.all().length).toBe(2_000);
    expect(db.prepare('pragma integrity_check').get()).toEqual({ integrity_check: 'ok' });
  });
});
