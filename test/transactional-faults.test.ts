import { describe, expect, it } from 'vitest';
import type { AnyHandler } from '../src/handler.ts';
import { createReceiver, ReceiverError } from '../src/index.ts';
import type { Answer, Ask, End, Settled, TransactionalStore, Unit } from '../src/store.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

type Changes = Partial<{
  record(asks: readonly Ask[]): Answer[];
  settle(ends: readonly End[]): Settled[];
  savepoint: Unit<object>['savepoint'];
}>;

/** A receiver on a store that has nothing but transactions, and remembers nothing; `changes` are what goes wrong in it. */
function onUnits(handler: AnyHandler, changes: Changes = {}, options: Record<string, unknown> = {}) {
  const world = virtualWorld();
  let commits = 0;
  const ends: End[] = [];
  const store: TransactionalStore<object> = {
    async unit(work) {
      const result = await work({
        record: async (asks) => changes.record?.(asks) ?? asks.map(() => ({ state: 'claimed', fence: 1, attempt: 1, orphaned: false })),
        settle: async (all) => {
          ends.push(...all);
          return changes.settle?.(all) ?? all.map(() => 'ok');
        },
        savepoint: changes.savepoint ?? ((run) => run({})),
      });
      commits++;
      return result;
    },
  };
  const told: [string, object][] = [];
  const on = {
    busy: (event: object) => told.push(['busy', event]),
    claimed: (event: object) => told.push(['claimed', event]),
    completed: (event: object) => told.push(['completed', event]),
  };
  const receiver = createReceiver({ scope: 'test', key: ({ id }) => id, store, world, on, ...options }, handler);
  return { receiver, world, ends, told, commits: () => commits };
}

const errorOf = (verdict: unknown) => (verdict as { error: ReceiverError }).error;

describe('a store with transactions that breaks its word', () => {
  it.each([
    ['answers less than it was asked to record', { record: () => [] }, /`record` to answer 1 times with success, got 0/],
    ['answers more', { record: () => Array(2).fill({ state: 'completed', ageMs: 0 }) }, /`record` to answer 1 times with success, got 2/],
    ['settles less than it was asked to', { settle: () => [] }, /`settle` to answer 1 times with success, got 0/],
    [
      'refuses to settle what it has just recorded',
      { settle: () => ['fenced'] },
      /`settle` to answer 1 times with success, got 1 answers or a/,
    ],
  ] as [string, Changes, RegExp][])('and %s commits nothing, and acks nothing', async (_, changes, text) => {
    const { receiver, commits } = onUnits(() => 'done', changes, { results: true });
    const [verdict] = await receiver.process([delivery('a')]);
    expect(verdict).toMatchObject({ action: 'retry', reason: 'store' });
    expect(errorOf(verdict)).toBeInstanceOf(ReceiverError);
    expect(errorOf(verdict)).toMatchObject({ code: 'store', message: expect.stringMatching(text) });
    expect(commits()).toBe(0);
  });

  it('and fails at a savepoint fails the unit, not the handler', async () => {
    const lost = new Error('connection lost');
    const { receiver, ends, commits } = onUnits(() => {}, { savepoint: (run) => run({}).then(() => Promise.reject(lost)) });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'store', error: lost }]);
    expect([ends, commits()]).toEqual([[], 0]);
  });

  it('and fails at the end of a savepoint whose handler has failed fails the unit, too', async () => {
    const lost = new Error('connection lost');
    const { receiver, ends } = onUnits(() => Promise.reject(new Error('no')), {
      savepoint: (run) => run({}).catch(() => Promise.reject(lost)) as never,
    });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'store', error: lost }]);
    expect(ends).toEqual([]);
  });

  it('but says that the handler has broken its transaction: that is the handler’s failure, and counts', async () => {
    const broken = new ReceiverError('aborted-transaction', 'the handler has gone on after an error');
    const { receiver, ends, commits } = onUnits(() => {}, { savepoint: (run) => run({}).then(() => Promise.reject(broken)) });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'failed', error: broken }]);
    expect(ends).toMatchObject([{ as: 'released', counted: true }]);
    expect(commits()).toBe(1);
  });

  it('or throws another error of ours: that is the unit’s', async () => {
    const error = new ReceiverError('store', 'read-only');
    const { receiver } = onUnits(() => {}, { savepoint: () => Promise.reject(error) });
    expect(await receiver.process([delivery('a')])).toMatchObject([{ action: 'retry', reason: 'store', error }]);
  });
});

describe('a handler inside a transaction that calls its own receiver', () => {
  it('with any message is refused, also where handlers share no places: units come one after another', async () => {
    const codes: unknown[] = [];
    const made: ReturnType<typeof onUnits> = onUnits(
      async () => {
        await made.receiver.process([delivery('b')]).catch((error) => codes.push(error.code));
      },
      {},
      { concurrency: Number.POSITIVE_INFINITY },
    );
    expect(actions(await made.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(codes).toEqual(['nested']);
  });
});

describe('a message that comes again, on a store that has nothing but transactions', () => {
  it('can’t be counted beforehand, and runs like any other', async () => {
    const { receiver, commits } = onUnits(() => {});
    expect(actions(await receiver.process([delivery('a', { redelivered: true })]))).toEqual(['ack completed']);
    expect(commits()).toBe(1);
  });
});

describe('a message that must not run', () => {
  it('for it is older than the store remembers is parked in the transaction, unstarted', async () => {
    const { receiver, world, ends, commits } = onUnits(() => expect.fail('the handler ran'), {}, { retentionMs: 60_000 });
    const old = delivery('a', { sentAtMs: world.clock.wall() - 60_001 });
    expect(await receiver.process([old])).toMatchObject([{ action: 'dead-letter', reason: 'too-old', attempts: 0 }]);
    expect(ends).toMatchObject([{ as: 'parked', reason: 'too-old' }]);
    expect(commits()).toBe(1);
  });

  it('for the broker has taken it back while others ran is given back, uncounted', async () => {
    const gate = latch();
    const { receiver, world, ends } = onUnits(({ id }) => (id === 'a' ? gate.promise : expect.fail('the handler ran')));
    const running = watch(receiver.process([delivery('a'), delivery('b', { heldUntil: world.clock.now() + 5_000 })]));
    await world.advance(6_000);
    gate.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'retry expired']);
    expect(ends).toMatchObject([{ as: 'released', counted: false }]);
  });
});

describe('what is told of a unit', () => {
  it('in which another worker runs a message: what is left of its lease', async () => {
    const { receiver, told } = onUnits(() => expect.fail('the handler ran'), { record: () => [{ state: 'busy', remainingMs: 5_000 }] });
    expect(await receiver.process([delivery('a')])).toEqual([{ action: 'retry', reason: 'busy', afterMs: 5_000 }]);
    expect(told).toMatchObject([['busy', { remainingMs: 5_000 }]]);
  });

  it('is told when it has committed: attempts, orphans, and how long each handler took', async () => {
    const gate = latch();
    const { receiver, world, told } = onUnits(() => gate.promise, {
      record: () => [{ state: 'claimed', fence: 7, attempt: 3, orphaned: true }],
    });
    await world.advance(1_000);
    const running = watch(receiver.process([delivery('a')]));
    await world.advance(2_000);
    expect(told).toEqual([]);
    gate.open();
    await world.settle();
    expect(running.done).toBe(true);
    expect(told).toMatchObject([
      ['claimed', { attempt: 3, orphaned: true }],
      ['completed', { attempt: 3, durationMs: 2_000 }],
    ]);
  });

  it('is told of those that nobody has begun before, too', async () => {
    const { receiver, told } = onUnits(() => {});
    await receiver.process([delivery('a')]);
    expect(told[0]).toMatchObject(['claimed', { attempt: 1, orphaned: false }]);
  });

  it('that keeps no results writes none: what was recorded is the record', async () => {
    const { receiver, ends } = onUnits(() => 'done');
    await receiver.process([delivery('a')]);
    expect(ends).toEqual([]);
  });
});

describe('a message that comes again, while others do', () => {
  /** Transactions and the verbs of a store. */
  function both(handler: AnyHandler) {
    const { world, store, faults } = stand(() => {});
    const units: TransactionalStore<object> = {
      unit: (work) =>
        work({
          record: async (asks) => asks.map(() => ({ state: 'claimed', fence: 1, attempt: 1, orphaned: false })),
          settle: async (ends) => ends.map(() => 'ok'),
          savepoint: (run) => run({}),
        }),
    };
    const receiver = createReceiver({ scope: 'test', key: ({ id }) => id, store: { ...faults.store, ...units }, world }, handler);
    return { receiver, world, faults, store };
  }
  const again = (id: string) => delivery(id, { redelivered: true });

  it('waits for its turn, and comes back when the receiver stops', async () => {
    const gate = latch();
    const { receiver, world } = both(() => gate.promise);
    const running = watch(receiver.process([again('a'), again('b')]));
    await world.settle();
    void receiver.stop({ graceMs: 60_000 });
    gate.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'retry stopped']);
  });

  it('is tried again if it can’t be counted', async () => {
    const { receiver, faults } = both(() => expect.fail('the handler ran'));
    faults.broken.claim = 'before';
    expect(actions(await receiver.process([again('a')]))).toEqual(['retry store']);
  });

  it('leaves those of other keys that have not come before in one transaction', async () => {
    const { receiver, faults } = both(() => {});
    expect(actions(await receiver.process([delivery('a'), again('b'), delivery('c')]))).toEqual(Array(3).fill('ack completed'));
    expect(faults.calls.filter(({ verb }) => verb === 'claim')).toEqual([{ verb: 'claim', items: 1 }]);
  });

  it('is counted before all that come behind it in its key', async () => {
    const { receiver, faults } = both(() => {});
    const key = { orderingKey: 'k' };
    await receiver.process([delivery('a', key), { ...again('b'), ...key }, delivery('c', key)]);
    expect(faults.calls.filter(({ verb }) => verb === 'claim')).toEqual([{ verb: 'claim', items: 1 }]);
  });
});
