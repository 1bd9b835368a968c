import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import { attribute, type Context, createReceiver, type DedupStore, type Delivery, type Journal, type Verdict } from '../../src/index.ts';
import { type VirtualWorld, virtualWorld } from '../../src/testing/virtual-world.ts';
import { delivery, latch } from '../support/stand.ts';
import { effects, failing } from './stand.ts';

type Ctx = Context<'transactional', DatabaseSync, true>;
const code = (expected: string) => expect.objectContaining({ name: 'ReceiverError', code: expected });

/** A transactional receiver on SQLite whose steps are kept beside its transactions. */
function worker(
  handle: (ctx: Ctx) => unknown,
  options: Record<string, unknown> = {},
  shared: { world?: VirtualWorld; journal?: DedupStore & Journal } = {},
) {
  const world = shared.world ?? virtualWorld();
  const db = new DatabaseSync(':memory:');
  db.exec('create table effects (what text)');
  const store = sqliteStore(db, { world });
  const journal = shared.journal ?? memoryStore({ now: world.clock.now });
  const receiver = createReceiver({ scope: 'test', key: attribute('id'), store, journal, world, ...(options as object) }, (_, ctx) =>
    handle(ctx),
  );
  async function process(deliveries: readonly Delivery[]): Promise<Verdict[]> {
    let verdicts: Verdict[] | undefined;
    void receiver.process(deliveries).then((given) => (verdicts = given));
    for (let i = 0; i < 100 && !verdicts; i++) await (i < 20 ? world.settle() : world.advance(1_000));
    return verdicts!;
  }
  const write = (ctx: Ctx, what: string) => void ctx.tx.prepare('insert into effects values (?)').run(what);
  const committed = () =>
    db
      .prepare('select what from effects')
      .all()
      .map(({ what }) => what);
  return {
    world,
    db,
    store,
    journal,
    receiver,
    process,
    write,
    committed,
    deliver: async (more: Partial<Delivery> = {}) => (await process([delivery('a', more)]))[0]!,
  };
}

describe('steps of a transactional handler, in a journal beside its transaction', () => {
  it('outlive its rollback: what was charged is not charged again', async () => {
    const { done, now } = effects();
    const fail = failing(2);
    const stand = worker(async (ctx) => {
      const receipt = await ctx.step('charge', () => now('charge'));
      stand.write(ctx, receipt);
      fail();
    });
    for (const redelivered of [false, true]) {
      expect(await stand.deliver({ redelivered })).toMatchObject({ action: 'retry', reason: 'failed' });
      expect(stand.committed()).toEqual([]);
    }
    expect(await stand.deliver({ redelivered: true })).toMatchObject({ action: 'ack', outcome: 'completed' });
    expect(done).toEqual(['charge']);
    expect(stand.committed()).toEqual(['receipt 1 for charge']);
    expect(await stand.deliver({ redelivered: true })).toMatchObject({ action: 'ack', outcome: 'duplicate' });
    expect(stand.world.timers).toBe(0);
  });

  it('are remembered as long as their message, also when that is replayed at the end of its retention', async () => {
    const { done, now } = effects();
    const fail = failing(1);
    const stand = worker(
      async (ctx) => {
        await ctx.step('charge', () => now('charge'));
        fail();
      },
      { retentionMs: 100_000, maxAttempts: 1, cacheSize: 0 },
    );
    expect(await stand.deliver()).toMatchObject({ action: 'dead-letter', reason: 'max-attempts' });
    await stand.world.advance(90_000);
    expect(await stand.store.replay(stand.receiver.keyOf(delivery('a').message))).toBe(true);
    await stand.world.advance(90_000);
    expect(await stand.deliver()).toMatchObject({ action: 'ack', outcome: 'completed' });
    expect(done).toEqual(['charge']);
  });

  it('are those of their own message', async () => {
    const { done, now } = effects();
    const stand = worker(async (ctx) => void (await ctx.step('charge', () => now(ctx.message.headers['id'] as string))));
    const verdicts = await stand.process(['a', 'b'].map((id) => delivery(id)));
    expect(verdicts.map(({ action }) => action)).toEqual(['ack', 'ack']);
    expect(done).toEqual(['a', 'b']);
  });

  it('are found in the journal that an earlier version of this library has left', async () => {
    const { done, now } = effects();
    const journal = memoryStore();
    const key = 'm-1iyH1OEgWKRdigwV9KwY9j2fDpjZeU';
    const claim = { key, token: 'of the earlier one', fingerprint: '', leaseMs: 10_000, retainMs: 86_400_000 };
    await journal.claim([claim]);
    await journal.writeEntries([{ key, token: claim.token, name: 'charge', state: 'done', text: '"paid"' }]);
    await journal.settle([{ key, token: claim.token, retainMs: 86_400_000, as: 'released', counted: true }]);
    const stand = worker(async (ctx) => stand.write(ctx, await ctx.step('charge', () => now('charge'))), {}, { journal });
    expect(await stand.deliver()).toMatchObject({ action: 'ack' });
    expect(done).toEqual([]);
    expect(stand.committed()).toEqual(['paid']);
  });

  it('are not begun if their journal can not be had', async () => {
    const { done, now } = effects();
    const journal = memoryStore();
    const parked = { state: 'parked', reason: 'terminal', detail: 'by hand' } as const;
    const stand = worker(
      (ctx) => ctx.step('charge', () => now('charge')),
      {},
      { journal: { ...journal, claim: async () => [parked as never] } },
    );
    expect(await stand.deliver()).toMatchObject({
      action: 'retry',
      error: expect.objectContaining({
        code: 'store',
        message: expect.stringContaining('Expected the journal of a message to be there for its steps, got {"state":"parked"'),
      }),
    });
    expect(done).toEqual([]);
  });

  it('outlive a commit that fails', async () => {
    const { done, now } = effects();
    let broken = true;
    const stand = worker(async (ctx) => {
      const receipt = await ctx.step('charge', () => now('charge'));
      stand.write(ctx, receipt);
      // A deferred constraint is checked at the commit.
      if (broken) ctx.tx.exec('insert into child values (7)');
    });
    stand.db.exec('create table parent (id integer primary key)');
    stand.db.exec('create table child (id integer references parent (id) deferrable initially deferred)');
    expect(await stand.deliver()).toMatchObject({ action: 'retry', reason: 'store' });
    expect(stand.committed()).toEqual([]);
    broken = false;
    await stand.world.advance(60_000);
    expect(await stand.deliver({ redelivered: true })).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['charge']);
    expect(stand.committed()).toEqual(['receipt 1 for charge']);
  });

  it('have one message to a transaction', async () => {
    const { now } = effects();
    const stand = worker(async (ctx) => {
      stand.write(ctx, 'x');
      await ctx.step('charge', () => now('charge'));
    });
    let units = 0;
    const { unit } = stand.store;
    Object.assign(stand.store, { unit: ((work) => (units++, unit(work))) as typeof unit });
    const verdicts = await stand.process(['a', 'b', 'c'].map((id) => delivery(id)));
    expect(verdicts.map(({ action }) => action)).toEqual(['ack', 'ack', 'ack']);
    expect(stand.committed()).toHaveLength(3);
    expect(units).toBe(3);
  });

  it('cost those nothing that have none', async () => {
    const journal = memoryStore();
    const stand = worker((ctx) => stand.write(ctx, 'x'), {}, { journal });
    expect(await stand.deliver()).toMatchObject({ action: 'ack' });
    expect(await journal.stats()).toEqual({ claimed: 0, released: 0, completed: 0, parked: 0 });
  });

  it('are refused to a worker whose transaction is gone while another has the message', async () => {
    const { done, now } = effects();
    const hanging = latch();
    const first = worker((ctx) => ctx.step('charge', () => hanging.promise.then(() => now('charge by the zombie'))), { leaseMs: 10_000 });
    const { journal, world } = first;
    const zombie = first.receiver.process([delivery('a')]);
    for (let i = 0; i < 10; i++) await world.settle();
    // Its database has ended its transaction; the other worker's own knows nothing of the message.
    const second = worker(
      async (ctx) => second.write(ctx, await ctx.step('charge', () => now('charge'))),
      { leaseMs: 10_000 },
      { world, journal },
    );
    const early = await second.deliver();
    expect(early).toMatchObject({ action: 'retry', reason: 'failed', error: expect.objectContaining({ name: 'RetryAfter' }) });
    expect((early as { afterMs: number }).afterMs).toBeLessThanOrEqual(10_000);
    // The zombie lives, so its claim is extended; then it is stopped, and its claim ends.
    Object.assign(journal, { extend: async (holds: readonly unknown[]) => holds.map(() => 'fenced') });
    await world.advance(21_000);
    expect(await second.deliver({ redelivered: true })).toMatchObject({ action: 'ack' });
    hanging.open();
    await world.advance(1_000);
    expect((await zombie)[0]).toMatchObject({ action: 'retry' });
    expect(done).toEqual(['charge', 'charge by the zombie']);
    expect(second.committed()).toEqual(['receipt 1 for charge']);
    expect(first.committed()).toEqual([]);
  });

  it('keep their claim while the handler runs', async () => {
    const { done, now } = effects();
    const stand = worker(
      async (ctx) => {
        await ctx.step('slow', async () => {
          await new Promise<void>((resolve) => void stand.world.clock.after(60_000, resolve));
          return now('slow');
        });
        await ctx.step('after it', () => now('after it'));
      },
      { leaseMs: 10_000 },
    );
    expect(await stand.deliver()).toMatchObject({ action: 'ack' });
    expect(done).toEqual(['slow', 'after it']);
  });
});

describe('a journal that can’t be', () => {
  const db = () => new DatabaseSync(':memory:');
  const make = (options: object) => () => createReceiver({ scope: 'test', key: attribute('id'), ...options } as never, () => {});

  it.each([
    [
      'the SQLite store itself, whose only writer is the transaction',
      () => {
        const store = sqliteStore(db());
        return { store, journal: store };
      },
      'Expected `journal` to be another store, or one with a connection to spare: while a transaction is open in this one, nothing can be written beside it, got `"the store itself"`',
    ],
    [
      'one beside a handler whose claim is in a journal',
      () => ({ store: memoryStore(), journal: memoryStore() }),
      'Expected `journal` to be left out: the steps of a leased handler are kept in `store`',
    ],
    [
      'a store that is none',
      () => ({ store: sqliteStore(db()), journal: { ...memoryStore(), writeEntries: undefined } }),
      'Expected `journal` to be a DedupStore that is a Journal',
    ],
    [
      'one for several messages to a transaction',
      () => ({ store: sqliteStore(db()), journal: memoryStore(), groupSize: 2 }),
      'Expected `groupSize` to be a whole number from 1 to 1',
    ],
  ])('is %s', (_, options, message) => {
    expect(make(options())).toThrow(expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining(message) }));
  });

  it('is another store on the same file: it waits for the transaction that waits for it, for as long as its `lockTimeoutMs`', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'idempotent-journal-'));
    const connections = [new DatabaseSync(`${folder}/x.db`), new DatabaseSync(`${folder}/x.db`)] as const;
    try {
      const { done, now } = effects();
      const receiver = createReceiver(
        {
          scope: 'test',
          key: attribute('id'),
          store: sqliteStore(connections[0]),
          journal: sqliteStore(connections[1], { lockTimeoutMs: 50 }),
        },
        (_, ctx) => ctx.step('charge', () => now('charge')),
      );
      const [verdict] = await receiver.process([delivery('a')]);
      expect(verdict).toMatchObject({ action: 'retry', error: code('store') });
      expect(done).toEqual([]);
      await receiver.stop();
    } finally {
      for (const each of connections) each.close();
      rmSync(folder, { recursive: true });
    }
  });
});
