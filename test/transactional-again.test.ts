import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sqliteStore } from '../adapters/stores/sqlite/index.ts';
import type { AnyHandler } from '../src/handler.ts';
import type { Answer, Ask, End, TransactionalStore } from '../src/store.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

/*
 * Messages that come again, in a store with transactions: counted before they run. How many are counted in one call, what is given back, and
 * what runs by itself.
 */

let db: DatabaseSync;
beforeEach(() => {
  db = new DatabaseSync(':memory:');
});
afterEach(() => db.close());

/** `seen.claims` and `seen.settles`: of how many each call was, outside of units. `faults.claim` may answer in the store's place. */
function counting(handler: AnyHandler, options: Record<string, unknown> = {}) {
  const world = virtualWorld();
  const real = sqliteStore(db, { now: world.clock.wall, world });
  const seen = { claims: [] as number[], settles: [] as number[], units: 0 };
  const faults: { claim?: (asks: readonly Ask[], call: number) => Answer[] | undefined; unit?: Error } = {};
  const store: typeof real = {
    ...real,
    claim(asks) {
      seen.claims.push(asks.length);
      const changed = faults.claim?.(asks, seen.claims.length);
      return changed ? Promise.resolve(changed) : real.claim(asks);
    },
    settle(ends: readonly End[]) {
      seen.settles.push(ends.length);
      return real.settle(ends);
    },
    unit: ((work) => {
      seen.units++;
      return faults.unit ? Promise.reject(faults.unit) : real.unit(work);
    }) as TransactionalStore<DatabaseSync>['unit'],
  };
  const made = stand(handler, { store, cacheSize: 0, leaseMs: 1_000, ...options }, { world, store: real });
  const stateOf = async (id: string) => (await real.inspect(made.receiver.keyOf(delivery(id).message)))?.state;
  /** A worker has counted these, and died with them in its hands. */
  async function died(...ids: string[]): Promise<void> {
    await real.claim(
      ids.map((id) => ({
        key: made.receiver.keyOf(delivery(id).message),
        fingerprint: '',
        token: `died with ${id}`,
        leaseMs: 1_000,
        retainMs: 60_000,
      })),
    );
    await world.advance(1_000);
  }
  return { ...made, seen, faults, died, stateOf };
}

const inKey = (orderingKey: string, id: string, redelivered = false) => delivery(id, { orderingKey, redelivered });
const again = (id: string) => delivery(id, { redelivered: true });
const fails =
  (...ids: string[]): AnyHandler =>
  ({ id }) => {
    if (ids.includes(id)) throw new Error('no');
  };

describe('a group of messages that come again', () => {
  it('keeps the order of its keys beyond the group: the first failure stops what is behind it, uncounted', async () => {
    const { receiver, seen } = counting(fails('a1'), { groupSize: 2 });
    const batch = ['a1', 'b1', 'a2', 'b2', 'a3', 'c1'].map((id) => inKey(id[0]!, id, true));
    expect(actions(await receiver.process(batch))).toEqual([
      'retry failed',
      'ack completed',
      'retry order',
      'ack completed',
      'retry order',
      'ack completed',
    ]);
    // A key at a time: a1 and a2, then b1, then b2 and c1.
    expect(seen.claims).toEqual([2, 1, 2]);
  });

  it('is not counted in one call where the first attempt is the last: a process that dies must not use up those of others', async () => {
    const { receiver, seen } = counting(() => {}, { maxAttempts: 1 });
    expect(actions(await receiver.process(['a', 'b', 'c'].map(again)))).toEqual(Array(3).fill('ack completed'));
    expect(seen.claims).toEqual([1, 1, 1]);
  });

  it('is a duplicate if it is done, however long ago it was sent: only what is claimed can be too old', async () => {
    const { receiver, world } = counting(() => {}, { maxAttempts: 1, retentionMs: 60_000 });
    const sentAtMs = world.clock.wall();
    await world.advance(40_000);
    expect(actions(await receiver.process([delivery('a', { sentAtMs })]))).toEqual(['ack completed']);
    await world.advance(40_000);
    expect(actions(await receiver.process([delivery('a', { sentAtMs, redelivered: true })]))).toEqual(['ack duplicate']);
  });

  it('needs no transaction for what turns out to be done', async () => {
    const { receiver, seen } = counting(() => {});
    await receiver.process([delivery('a')]);
    seen.units = 0;
    expect(actions(await receiver.process([again('a')]))).toEqual(['ack duplicate']);
    expect([seen.claims, seen.units]).toEqual([[1], 0]);
  });

  it('whose transaction fails gives back what was counted, and only that', async () => {
    const { receiver, seen, faults, stateOf } = counting(() => {});
    faults.unit = new Error('disk full');
    expect(actions(await receiver.process([inKey('k', 'a'), inKey('k', 'b', true)]))).toEqual(['retry store', 'retry store']);
    expect([seen.claims, seen.settles]).toEqual([[1], [1]]);
    expect([await stateOf('a'), await stateOf('b')]).toEqual([undefined, 'released']);
  });

  it('does not run what somebody else has counted since', async () => {
    const { receiver, faults, died } = counting(() => expect.fail('the handler ran'));
    await died('a');
    // What is claimed has lapsed when its transaction begins, and was counted by another one that has died, too.
    faults.claim = (asks) => asks.map(() => ({ state: 'claimed', fence: 1, attempt: 1, orphaned: false }));
    expect(actions(await receiver.process([again('a')]))).toEqual(['retry expired']);
  });
});

describe('a message that had been counted before', () => {
  it('runs by itself, and so does all of its key; what has not come before is not counted', async () => {
    const ran: string[] = [];
    const { receiver, seen, died } = counting(({ id }, { attempt }) => void ran.push(`${id} ${attempt}`));
    await died('b');
    const batch = [inKey('k', 'a'), inKey('k', 'b', true), inKey('k', 'c')];
    expect(actions(await receiver.process(batch))).toEqual(Array(3).fill('ack completed'));
    expect(ran).toEqual(['a 1', 'b 2', 'c 1']);
    // Counted with all, given back, and counted again when its turn has come.
    expect(seen).toEqual({ claims: [1, 1], settles: [1], units: 3 });
  });

  it('stops those behind it if it fails', async () => {
    const { receiver, died } = counting(fails('a'));
    await died('a');
    expect(actions(await receiver.process([inKey('k', 'a', true), inKey('k', 'b'), inKey('k', 'c')]))).toEqual([
      'retry failed',
      'retry order',
      'retry order',
    ]);
  });

  it('is busy if somebody else is quicker', async () => {
    const { receiver, died, faults } = counting(() => expect.fail('the handler ran'));
    await died('a');
    faults.claim = (asks, call) => (call === 2 ? asks.map(() => ({ state: 'busy', remainingMs: 700 })) : undefined);
    expect(await receiver.process([again('a')])).toEqual([{ action: 'retry', reason: 'busy', afterMs: 700 }]);
  });

  it('is tried again if it can’t be counted when its turn has come', async () => {
    const { receiver, died, faults } = counting(() => expect.fail('the handler ran'));
    await died('a');
    faults.claim = (_, call) => {
      if (call === 2) throw new Error('no connection');
      return undefined;
    };
    expect(actions(await receiver.process([again('a')]))).toEqual(['retry store']);
  });

  it('comes back if the receiver stops while it waits for its turn', async () => {
    const gate = latch();
    const { receiver, died, world } = counting(() => gate.promise);
    await died('a', 'b');
    const running = watch(receiver.process([again('a'), again('b')]));
    await world.settle();
    void receiver.stop({ graceMs: 60_000 });
    gate.open();
    await world.settle();
    expect(actions(running.value!)).toEqual(['ack completed', 'retry stopped']);
  });
});
