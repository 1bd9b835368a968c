import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, expect, it } from 'vitest';
import { sqliteStore } from '../adapters/stores/sqlite/index.ts';
import type { AnyHandler } from '../src/handler.ts';
import { type Delivery, ReceiverError, RetryAfter, TerminalError, type Verdict } from '../src/index.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { actions, delivery, latch, stand, watch } from './support/stand.ts';

const opened: DatabaseSync[] = [];
afterEach(() => {
  for (const db of opened.splice(0)) db.close();
});

/** A transactional receiver on a SQLite database in memory, and the effects that its handlers have left. */
function transactional(handler: AnyHandler, options: Record<string, unknown> = {}, shared?: { db: DatabaseSync; seed?: number }) {
  const db = shared?.db ?? new DatabaseSync(':memory:');
  if (!shared) {
    opened.push(db);
    db.exec('create table effects (id text)');
  }
  const world = virtualWorld({ seed: shared?.seed ?? 1 });
  const store = sqliteStore(db, { now: world.clock.wall, world });
  const made = stand(handler, { store, ...options }, { world, store });
  const effects = () =>
    db
      .prepare('select id from effects order by rowid')
      .all()
      .map((row) => row['id']);
  return { ...made, db, store, effects };
}

const charge: AnyHandler = ({ id }, { tx }) => void tx.prepare('insert into effects values (?)').run(id);

describe('the transactional way', () => {
  it('is what a store with transactions gives by default', () => {
    expect(transactional(charge).receiver.guarantee).toBe('transactional');
    expect(transactional(charge, { guarantee: 'leased' }).receiver.guarantee).toBe('leased');
  });

  it('commits effect and record together; copies are acked without the handler', async () => {
    const { receiver, effects, names } = transactional(charge, { cacheSize: 0 });
    expect(actions(await receiver.process([delivery('a'), delivery('b'), delivery('a')]))).toEqual([
      'ack completed',
      'ack completed',
      'ack duplicate',
    ]);
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack duplicate']);
    expect(effects()).toEqual(['a', 'b']);
    expect(names().filter((name) => name === 'completed')).toHaveLength(2);
  });

  it('a batch shares one transaction, up to groupSize; verdicts come after the commit', async () => {
    const { receiver, store } = transactional(charge, { groupSize: 10 });
    let units = 0;
    const unit = store.unit;
    const counted = { ...store, unit: (work: never) => unit(work).finally(() => units++) };
    const { receiver: counting } = stand(charge, { store: counted, groupSize: 10 }, { world: receiver.world as never, store });
    const committed: number[] = [];
    await counting.process(
      Array.from({ length: 25 }, (_, i) => delivery(`m${i}`)),
      { settled: () => committed.push(units) },
    );
    expect(units).toBe(3);
    expect(committed.map((unitsBefore, i) => unitsBefore * 10 > i)).not.toContain(false);
  });

  it('has nothing to publish with where there is no outbox', async () => {
    const has: boolean[] = [];
    await transactional((_, ctx) => void has.push('publish' in ctx)).receiver.process([delivery('a')]);
    expect(has).toEqual([false]);
  });

  it('takes a message that comes again also with a store that has nothing but transactions', async () => {
    const { store, world, effects } = transactional(charge);
    const { receiver } = stand(charge, { store: { unit: store.unit } }, { world, store });
    expect(actions(await receiver.process([delivery('a', { redelivered: true })]))).toEqual(['ack completed']);
    expect(effects()).toEqual(['a']);
    expect(await receiver.stop()).toEqual({ abandoned: 0 });
  });

  it('gives back what is behind a failure, although nothing of its group is left to be run, in a store with a unit for each partition', async () => {
    const { store, world } = transactional(charge);
    const handled: string[] = [];
    const { receiver } = stand(
      ({ id }) => {
        handled.push(id);
        throw new Error('no');
      },
      { store: { unit: store.unit, perPartition: true }, groupSize: 1 },
      { world, store },
    );
    const both = ['a', 'b'].map((id) => delivery(id, { orderingKey: 'k' }));
    expect(actions(await receiver.process(both, { partition: 'p' }))).toEqual(['retry failed', 'retry order']);
    expect(handled).toEqual(['a']);
  });

  it('refuses every call from inside a handler, which would wait for its transaction, however many may run at once', async () => {
    const errors: unknown[] = [];
    const made: ReturnType<typeof transactional> = transactional(
      ({ id }) => (id === 'a' ? made.receiver.process([delivery('b')]).catch((error) => void errors.push(error)) : undefined),
      { concurrency: Number.POSITIVE_INFINITY },
    );
    expect(actions(await made.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(errors).toEqual([expect.objectContaining({ code: 'nested' })]);
  });

  it('a failing handler undoes only its own effects, and is counted', async () => {
    const attempts: number[] = [];
    const { receiver, effects } = transactional(
      (payload, ctx) => {
        charge(payload, ctx);
        if (payload.id !== 'bad') return;
        attempts.push(ctx.attempt);
        throw new Error('no');
      },
      { maxAttempts: 3 },
    );
    expect(actions(await receiver.process([delivery('a'), delivery('bad'), delivery('c')]))).toEqual([
      'ack completed',
      'retry failed',
      'ack completed',
    ]);
    expect(actions(await receiver.process([delivery('bad')]))).toEqual(['retry failed']);
    expect(actions(await receiver.process([delivery('bad')]))).toEqual(['dead-letter max-attempts']);
    expect(actions(await receiver.process([delivery('bad')]))).toEqual(['dead-letter max-attempts']);
    expect(effects()).toEqual(['a', 'c']);
    expect(attempts).toEqual([1, 2, 3]);
  });

  it('errors decide by their class', async () => {
    const { receiver, store } = transactional(({ id }) => {
      throw id === 'never' ? new TerminalError('closed') : new RetryAfter(5_000);
    });
    expect(await receiver.process([delivery('never'), delivery('later')])).toMatchObject([
      { action: 'dead-letter', reason: 'terminal' },
      { action: 'retry', afterMs: 5_000 },
    ]);
    expect(await store.listParked({ limit: 9 })).toMatchObject([{ reason: 'terminal', detail: 'TerminalError: closed' }]);
  });

  it('keeps order within a key: the first failure stops it, and what it stops is not recorded', async () => {
    let fail = true;
    const { receiver, effects } = transactional((payload, ctx) => {
      if (payload.id === 'a2' && fail) throw new Error('no');
      charge(payload, ctx);
    });
    const batch = ['a1', 'a2', 'a3', 'b1'].map((id) => delivery(id, { orderingKey: id[0]! }));
    expect(actions(await receiver.process(batch))).toEqual(['ack completed', 'retry failed', 'retry order', 'ack completed']);
    fail = false;
    expect(actions(await receiver.process(batch))).toEqual(['ack duplicate', 'ack completed', 'ack completed', 'ack duplicate']);
    expect(effects()).toEqual(['a1', 'b1', 'a2', 'a3']);
  });

  it('a copy in the same batch is not acked if the first one failed, and comes back with it', async () => {
    const { receiver } = transactional(({ id }) => {
      if (id === 'bad') throw new RetryAfter(7_000);
    });
    const verdicts = await receiver.process([delivery('bad'), delivery('bad'), delivery('good'), delivery('good')]);
    expect(actions(verdicts)).toEqual(['retry failed', 'retry failed', 'ack completed', 'ack duplicate']);
    expect(verdicts[1]).toMatchObject({ afterMs: 7_000 });
  });

  it('a copy under another ordering key is not acked before the commit', async () => {
    const { receiver, effects } = transactional(charge);
    const copies = [delivery('a', { orderingKey: 'x' }), delivery('a', { orderingKey: 'y' })];
    expect(actions(await receiver.process(copies))).toEqual(['ack completed', 'retry busy']);
    expect(actions(await receiver.process(copies))).toEqual(['ack duplicate', 'ack duplicate']);
    expect(effects()).toEqual(['a']);
  });

  it('results are stored in the same transaction', async () => {
    const { receiver } = transactional(({ id }) => ({ receipt: id }), { results: true, cacheSize: 0 });
    await receiver.process([delivery('a')]);
    expect(await receiver.process([delivery('a')])).toEqual([{ action: 'ack', outcome: 'duplicate', result: { receipt: 'a' } }]);
  });

  it('a result that cannot be encoded undoes the effect', async () => {
    const { receiver, effects } = transactional(
      (payload, ctx) => {
        charge(payload, ctx);
        return 1n;
      },
      { results: true },
    );
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['dead-letter unencodable-result']);
    expect(effects()).toEqual([]);
  });

  it('same key, other payload is a mismatch', async () => {
    const { receiver } = transactional(charge, { cacheSize: 0 });
    await receiver.process([delivery('a')]);
    expect(actions(await receiver.process([delivery('a', { payload: { id: 'other' } })]))).toEqual(['dead-letter mismatch']);
  });

  it('a message that another worker has claimed is busy', async () => {
    const one = transactional(charge);
    const claimed = stand(() => new Promise(() => {}), { guarantee: 'leased' }, { world: virtualWorld({ seed: 9 }), store: one.store });
    void claimed.receiver.process([delivery('a')]);
    await one.world.settle();
    expect(actions(await one.receiver.process([delivery('a')]))).toEqual(['retry busy']);
    expect(one.effects()).toEqual([]);
  });

  it('tells of a message that another worker has claimed, in a batch and alone', async () => {
    const one = transactional(charge);
    const claimed = stand(() => new Promise(() => {}), { guarantee: 'leased' }, { world: virtualWorld({ seed: 9 }), store: one.store });
    void claimed.receiver.process([delivery('a')]);
    await one.world.settle();
    await one.receiver.process([delivery('a')]);
    await one.receiver.process([delivery('a', { redelivered: true })]);
    expect(one.names().filter((name) => name === 'busy')).toHaveLength(2);
  });

  it('copies that this process knows to be completed, and poison, need no transaction', async () => {
    const made = transactional(charge);
    let units = 0;
    const unit: typeof made.store.unit = (work) => made.store.unit(work).finally(() => units++);
    const { receiver } = stand(charge, { store: { ...made.store, unit } }, { world: made.world, store: made.store });
    await receiver.process([delivery('a')]);
    const again = [delivery('a'), { message: { id: '1', body: '{', headers: {} } }, delivery('a')];
    expect(actions(await receiver.process(again))).toEqual(['ack duplicate', 'dead-letter undecodable', 'ack duplicate']);
    expect(units).toBe(1);
  });

  it('poison in an ordered batch keeps its place', async () => {
    const { receiver } = transactional(charge);
    const bad = { message: { id: '1', body: '{', headers: {} }, orderingKey: 'k' };
    expect(actions(await receiver.process([delivery('a', { orderingKey: 'k' }), bad, delivery('b', { orderingKey: 'k' })]))).toEqual([
      'ack completed',
      'dead-letter undecodable',
      'ack completed',
    ]);
  });
});

describe('a transaction that fails', () => {
  it('to commit takes all of its effects back, acks nothing, tells nothing, and the messages run again', async () => {
    const { receiver, effects, store, names, world } = transactional(charge);
    const unit = store.unit;
    let broken = true;
    const failing = {
      ...store,
      unit: (work: (unit: never) => Promise<unknown>) =>
        unit(async (inner) => {
          const done = await work(inner as never);
          if (broken) throw new Error('disk full');
          return done;
        }),
    };
    const made = stand(charge, { store: failing }, { world, store });
    expect(actions(await made.receiver.process([delivery('a'), delivery('b')]))).toEqual(['retry store', 'retry store']);
    expect(effects()).toEqual([]);
    expect(made.names()).not.toContain('completed');
    broken = false;
    expect(actions(await made.receiver.process([delivery('a'), delivery('b')]))).toEqual(['ack completed', 'ack completed']);
    expect(effects()).toEqual(['a', 'b']);
    void receiver;
    void names;
  });

  it('takes nothing of the next one of the same call along', async () => {
    const { store, world } = transactional(charge);
    let units = 0;
    const unit = ((work: never) => (units++ === 0 ? Promise.reject(new Error('disk full')) : store.unit(work))) as typeof store.unit;
    const { receiver } = stand(charge, { store: { ...store, unit }, groupSize: 2 }, { world, store });
    const verdicts = await receiver.process(['a', 'b', 'c', 'd'].map((id) => delivery(id)));
    expect(actions(verdicts)).toEqual(['retry store', 'retry store', 'ack completed', 'ack completed']);
  });

  it('because of one message is tried again message by message, so that the culprit is found, counted and parked', async () => {
    const made = transactional(charge);
    // A store whose unit breaks whenever "bad" is part of it: a trigger, a driver bug, a handler that ends the transaction.
    const bad = made.receiver.keyOf(delivery('bad').message);
    const breaking = {
      ...made.store,
      unit: (work: (unit: never) => Promise<unknown>) =>
        made.store.unit((unit) =>
          work({
            ...unit,
            record: async (asks: readonly { key: string }[]) => {
              if (asks.some(({ key }) => key === bad)) throw new Error('broken by bad');
              return unit.record(asks as never);
            },
          } as never),
        ),
    };
    const { receiver } = stand(charge, { store: breaking, maxAttempts: 2 }, { world: made.world, store: made.store });
    expect(actions(await receiver.process([delivery('a'), delivery('bad')]))).toEqual(['retry store', 'retry store']);
    const again = (id: string) => delivery(id, { redelivered: true });
    // Counted together the first time, and each alone from then on.
    expect(actions(await receiver.process([again('a'), again('bad')]))).toEqual(['retry store', 'retry store']);
    expect(actions(await receiver.process([again('a'), again('bad')]))).toEqual(['ack completed', 'retry store']);
    expect(actions(await receiver.process([again('bad')]))).toEqual(['dead-letter max-attempts']);
    expect(made.effects()).toEqual(['a']);
    expect(await made.store.stats()).toMatchObject({ claimed: 0, parked: 1 });
  });

  it('stops the poison behind it in its key too', async () => {
    const made = transactional(charge);
    const unit = () => Promise.reject(new Error('disk full'));
    const { receiver } = stand(charge, { store: { ...made.store, unit } }, { world: made.world, store: made.store });
    const bad = (orderingKey: string) => ({ message: { id: '1', body: '{', headers: {} }, orderingKey });
    const batch = [bad('k'), delivery('a', { orderingKey: 'k' }), bad('k'), bad('j')];
    const verdicts = await receiver.process(batch);
    expect(actions(verdicts)).toEqual(['dead-letter undecodable', 'retry store', 'retry store', 'dead-letter undecodable']);
  });

  it.each([[Number.NaN], [undefined], [null]])('is not what a handler makes that throws %s', async (thrown) => {
    const { receiver, effects } = transactional((payload, ctx) => {
      charge(payload, ctx);
      if (payload.id !== 'a') throw thrown;
    });
    const batch = [delivery('a'), delivery('b'), delivery('c', { redelivered: true })];
    expect(actions(await receiver.process(batch))).toEqual(['ack completed', 'retry failed', 'retry failed']);
    expect(effects()).toEqual(['a']);
  });

  it("can't be ended by a handler: its commit fails, and with it only that handler", async () => {
    const { receiver, effects } = transactional((payload, ctx) => {
      charge(payload, ctx);
      if (payload.id === 'bad') ctx.tx.exec('commit');
    });
    expect(actions(await receiver.process([delivery('a'), delivery('bad'), delivery('c')]))).toEqual([
      'ack completed',
      'retry failed',
      'ack completed',
    ]);
    expect(effects()).toEqual(['a', 'c']);
  });
});

describe('a unit that stands in the way of another transaction', () => {
  /** Handlers of messages called `crowded…` lose to another transaction, so often. */
  function crowding(times: number) {
    const started: string[] = [];
    let left = times;
    const handler: AnyHandler = (payload, ctx) => {
      started.push(`${payload.id} ${ctx.attempt}`);
      charge(payload, ctx);
      if (payload.id === 'fails') throw new Error('fails');
      if (payload.id.startsWith('crowded') && left-- > 0) throw new Error('deadlock detected');
    };
    const { store, world, effects } = transactional(handler);
    let units = 0;
    const unit: typeof store.unit = (work) => {
      units++;
      return store.unit((inner) => {
        let crowded = false;
        const savepoint: typeof inner.savepoint = (run, cause) =>
          inner.savepoint(run, cause).catch((error: Error) => {
            crowded = error.message === 'deadlock detected';
            throw error;
          });
        const { record, settle } = inner;
        return work({
          record: record.bind(inner),
          settle: settle.bind(inner),
          savepoint,
          get crowded() {
            return crowded;
          },
        });
      });
    };
    return { ...stand(handler, { store: { ...store, unit } }, { world, store }), started, effects, units: () => units };
  }

  it('commits what it has done, and the next one begins with who has lost, who is not counted; order holds across both', async () => {
    const { receiver, started, effects, units } = crowding(1);
    const told: string[][] = [];
    const source = {
      committing: async (_: unknown, known: ReadonlyMap<Delivery, Verdict>) => void told.push(actions([...known.values()])),
    };
    // Calls that share a unit.
    const calls = [
      [delivery('a'), delivery('fails', { orderingKey: 'k' })],
      [delivery('crowded', { orderingKey: 'l' }), delivery('after it', { orderingKey: 'l' }), delivery('behind', { orderingKey: 'k' })],
    ];
    const verdicts = (await Promise.all(calls.map((deliveries) => receiver.process(deliveries, { ...source })))).flat();
    expect(actions(verdicts)).toEqual(['ack completed', 'retry failed', 'ack completed', 'ack completed', 'retry order']);
    expect(started).toEqual(['a 1', 'fails 1', 'crowded 1', 'crowded 1', 'after it 1']);
    expect(effects()).toEqual(['a', 'crowded', 'after it']);
    expect(told).toEqual([
      ['ack completed', 'retry failed'],
      ['ack completed', 'ack completed', 'retry order'],
    ]);
    expect(units()).toBe(2);
  });

  it('is not to blame where nothing was done in it before: that is a failure of the message, and is counted', async () => {
    const { receiver, started, units } = crowding(2);
    expect(actions(await receiver.process([delivery('a'), delivery('crowded'), delivery('b')]))).toEqual([
      'ack completed',
      'retry failed',
      'ack completed',
    ]);
    expect(units()).toBe(2);
    expect(actions(await receiver.process([delivery('crowded')]))).toEqual(['ack completed']);
    expect(started).toEqual(['a 1', 'crowded 1', 'crowded 1', 'b 1', 'crowded 2']);
  });
});

describe('a message that comes again', () => {
  it('is counted before it runs, so that one that kills its process is parked after maxAttempts', async () => {
    const one = transactional(() => expect.fail('the handler ran'), { maxAttempts: 2, leaseMs: 1_000 });
    // Each time the process dies inside the handler: the claim is durable, the transaction is not.
    for (let i = 0; i < 2; i++) {
      const ask = { key: one.receiver.keyOf(delivery('a').message), fingerprint: '', token: `died-${i}`, leaseMs: 1_000, retainMs: 60_000 };
      expect(await one.store.claim([ask])).toMatchObject([{ state: 'claimed', attempt: i + 1 }]);
      await one.world.advance(1_000);
    }
    expect(await one.receiver.process([delivery('a', { redelivered: true })])).toMatchObject([
      { action: 'dead-letter', reason: 'max-attempts', attempts: 2 },
    ]);
  });

  it('runs once, with the attempt that was counted, and its claim becomes the record', async () => {
    const attempts: number[] = [];
    const { receiver, effects, store } = transactional((payload, ctx) => {
      attempts.push(ctx.attempt);
      charge(payload, ctx);
      if (ctx.attempt === 1) throw new Error('once more');
    });
    expect(actions(await receiver.process([delivery('a', { redelivered: true })]))).toEqual(['retry failed']);
    expect(actions(await receiver.process([delivery('a', { redelivered: true })]))).toEqual(['ack completed']);
    expect(actions(await receiver.process([delivery('a', { redelivered: true })]))).toEqual(['ack duplicate']);
    expect(attempts).toEqual([1, 2]);
    expect(effects()).toEqual(['a']);
    expect(await store.stats()).toMatchObject({ claimed: 0, completed: 1 });
  });

  it('is counted in one call with others that come again, and shares a unit with them, unless one had been counted before', async () => {
    const made = transactional(charge);
    const counted: number[] = [];
    let units = 0;
    const counting = {
      ...made.store,
      claim: (asks: never[]) => (counted.push(asks.length), made.store.claim(asks)),
      unit: (work: never) => (units++, made.store.unit(work)),
    };
    const { receiver } = stand(charge, { store: counting as never, leaseMs: 1_000 }, { world: made.world, store: made.store });
    const again = (ids: string[]) => receiver.process(ids.map((id) => delivery(id, { redelivered: true })));
    expect(actions(await again(['a', 'b', 'c']))).toEqual(['ack completed', 'ack completed', 'ack completed']);
    expect([counted, units]).toEqual([[3], 1]);
    // The process of before died with `d` and `e` in its hands.
    const died = ['d', 'e'].map((id) => ({ key: receiver.keyOf(delivery(id).message), fingerprint: '', token: id }));
    await made.store.claim(died.map((ask) => ({ ...ask, leaseMs: 1_000, retainMs: 60_000 })) as never);
    await made.world.advance(1_000);
    counted.length = 0;
    units = 0;
    expect(actions(await again(['d', 'e', 'f']))).toEqual(['ack completed', 'ack completed', 'ack completed']);
    expect([counted, units]).toEqual([[3, 1, 1], 3]);
    expect(made.effects().toSorted()).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
  });

  it('takes no more than one attempt of its company along, however often it kills its process', async () => {
    const attempts = new Map<string, number>();
    const { receiver, store, world } = transactional((payload, ctx) => void attempts.set(payload.id, ctx.attempt), { leaseMs: 1_000 });
    const keys = ['good', 'poison', 'late'].map((id) => receiver.keyOf(delivery(id).message));
    const asks = keys.map((key) => ({ key, fingerprint: '', token: 'died', leaseMs: 1_000, retainMs: 60_000 }));
    // All three are counted, and it dies in the handler of the second. From then on only that is begun before it dies.
    await store.claim(asks);
    await world.advance(1_000);
    for (const token of ['died 2', 'died 3']) {
      await store.claim([{ ...asks[1]!, token }]);
      await world.advance(1_000);
    }
    await receiver.process(['good', 'poison', 'late'].map((id) => delivery(id, { redelivered: true })));
    expect(Object.fromEntries(attempts)).toEqual({ good: 2, poison: 4, late: 2 });
  });

  it('is given back uncounted behind a failure in its key, and counted if its unit fails', async () => {
    const made = transactional((payload, ctx) => {
      charge(payload, ctx);
      if (payload.id === 'a') throw new Error('no');
    });
    const receive = (ids: string[]) => made.receiver.process(ids.map((id) => delivery(id, { orderingKey: 'k', redelivered: true })));
    const attemptsOf = async (id: string) => {
      const ask = { key: made.receiver.keyOf(delivery(id).message), fingerprint: '', token: 'x', leaseMs: 1_000, retainMs: 60_000 };
      const [answer] = await made.store.claim([ask]);
      return (answer as { attempt?: number }).attempt;
    };
    const many = Array.from({ length: 120 }, (_, i) => `m${i}`);
    expect(actions(await receive(['a', ...many]))).toEqual(['retry failed', ...many.map(() => 'retry order')]);
    expect([await attemptsOf('a'), await attemptsOf('m0'), await attemptsOf('m119')]).toEqual([2, 1, 1]);
    const broken = { ...made.store, unit: () => Promise.reject(new Error('disk full')) };
    const { receiver } = stand(charge, { store: broken as never }, { world: made.world, store: made.store });
    expect(actions(await receiver.process([delivery('z', { redelivered: true })]))).toEqual(['retry store']);
    expect(await attemptsOf('z')).toBe(2);
  });

  it('is not even counted if the broker has taken it back before its turn', async () => {
    const { receiver, store, world } = transactional(() => expect.fail('the handler ran'));
    await world.advance(1_000);
    const late = delivery('a', { redelivered: true, heldUntil: 1_000 });
    expect(actions(await receiver.process([late]))).toEqual(['retry expired']);
    expect(await store.inspect(receiver.keyOf(late.message))).toBeUndefined();
  });

  it('keeps the order of its key', async () => {
    const { receiver, effects } = transactional((payload, ctx) => {
      charge(payload, ctx);
      if (payload.id === 'b') throw new Error('no');
    });
    const batch = ['a', 'b', 'c'].map((id) => delivery(id, { orderingKey: 'k', redelivered: id === 'b' }));
    expect(actions(await receiver.process(batch))).toEqual(['ack completed', 'retry failed', 'retry order']);
    expect(effects()).toEqual(['a']);
  });
});

describe('stopping', () => {
  it('gives back what has not been started, uncounted, and commits what has', async () => {
    const gate = latch();
    const { receiver, effects, world, store } = transactional(async (payload, ctx) => {
      charge(payload, ctx);
      await gate.promise;
    });
    const result = watch(receiver.process([delivery('a'), delivery('b')]));
    await world.settle();
    const stopped = watch(receiver.stop());
    gate.open();
    await world.settle();
    expect(actions(result.value!)).toEqual(['ack completed', 'retry stopped']);
    expect(stopped.value).toEqual({ abandoned: 0 });
    expect(effects()).toEqual(['a']);
    expect(await store.stats()).toMatchObject({ claimed: 0, completed: 1 });
    expect(world.timers).toBe(0);
  });

  it('does not wait for a handler that ignores its signal; its transaction stays open, and dies with the process', async () => {
    const { receiver, world } = transactional(() => new Promise(() => {}));
    const result = watch(receiver.process([delivery('a')]));
    await world.settle();
    const stopped = watch(receiver.stop({ graceMs: 1_000 }));
    await world.advance(5_000);
    expect(stopped.value).toEqual({ abandoned: 1 });
    expect(result.done).toBe(false);
    expect(world.timers).toBe(0);
  });
});

describe('a handler inside a transaction that calls its own receiver', () => {
  it('gets an error, instead of waiting for itself', async () => {
    const codes: unknown[] = [];
    const made: ReturnType<typeof transactional> = transactional(async () => {
      await made.receiver.process([delivery('b')]).catch((error) => codes.push(error.code));
    });
    expect(actions(await made.receiver.process([delivery('a')]))).toEqual(['ack completed']);
    expect(codes).toEqual(['nested']);
  });
});

describe('a source that takes part in the commit', () => {
  const progress = (offsets: [string, string][][], write: (tx: DatabaseSync) => void = () => {}) => ({
    async committing(tx: unknown, verdicts: ReadonlyMap<Delivery, Verdict>) {
      offsets.push([...verdicts].map(([{ message }, verdict]) => [message.id, actions([verdict])[0]!]));
      write(tx as DatabaseSync);
    },
  });
  const write = (tx: DatabaseSync) => void tx.prepare('insert into effects values (?)').run('offset');

  it('writes in the transaction, after the handlers, knowing their verdicts', async () => {
    const { receiver, effects } = transactional((payload, ctx) => {
      if (payload.id === 'bad') throw new TerminalError('no');
      charge(payload, ctx);
    });
    const told: [string, string][][] = [];
    await receiver.process([delivery('a'), delivery('bad'), delivery('c')], progress(told, write));
    expect(effects()).toEqual(['a', 'c', 'offset']);
    expect(told).toEqual([
      [
        ['a', 'ack completed'],
        ['bad', 'dead-letter terminal'],
        ['c', 'ack completed'],
      ],
    ]);
  });

  it('is asked also where every message is a duplicate', async () => {
    const { receiver, effects } = transactional(charge);
    await receiver.process([delivery('a')]);
    const told: [string, string][][] = [];
    await receiver.process([delivery('a')], progress(told, write));
    expect(told).toEqual([[['a', 'ack duplicate']]]);
    expect(effects()).toEqual(['a', 'offset']);
  });

  it('undoes everything when it rejects', async () => {
    const { receiver, effects, names } = transactional(charge);
    const source = progress([], (tx) => {
      write(tx);
      throw new Error('disk full');
    });
    expect(actions(await receiver.process([delivery('a')], source))).toEqual(['retry store']);
    expect(effects()).toEqual([]);
    expect(names()).toContain('storeDown');
    expect(actions(await receiver.process([delivery('a')]))).toEqual(['ack completed']);
  });

  it('fences the whole transaction when somebody else has the partition, and the store is not blamed for it', async () => {
    const { receiver, effects, names } = transactional(charge);
    const source = progress([], () => {
      throw new ReceiverError('claim-lost', 'Offset 7 was moved by another worker');
    });
    expect(actions(await receiver.process([delivery('a'), delivery('b')], source))).toEqual(['retry fenced', 'retry fenced']);
    expect(effects()).toEqual([]);
    expect(names()).not.toContain('storeDown');
  });

  it('of a store with a transaction per partition, gets transactions that span no two of them', async () => {
    const { receiver, store } = transactional(charge);
    const opened: [string | undefined, number][] = [];
    const perPartition = {
      ...store,
      perPartition: true,
      unit: (work: (unit: never) => Promise<Verdict[]>, partition?: string) =>
        store.unit(async (unit) => {
          const verdicts = await work(unit as never);
          opened.push([partition, verdicts.length]);
          return verdicts;
        }),
    };
    const { receiver: own } = stand(charge, { store: perPartition }, { world: receiver.world as never, store });
    await Promise.all(
      ['orders/0', 'orders/1', 'orders/0', undefined].map((partition, i) =>
        own.process([delivery(`m${i}`)], partition ? { partition } : {}),
      ),
    );
    expect(opened.sort()).toEqual([
      [undefined, 1],
      ['orders/0', 2],
      ['orders/1', 1],
    ]);
  });
});

describe('a source that is lost', () => {
  it('while its handler runs: the signal is aborted at once, nothing of the unit commits, and the messages run once elsewhere', async () => {
    const gone = new AbortController();
    const reasons: unknown[] = [];
    const started: string[] = [];
    const { receiver, effects, names } = transactional(
      async (payload, ctx) => {
        started.push(payload.id);
        await charge(payload, ctx);
        if (payload.id !== 'b' || reasons.length > 0) return;
        gone.abort();
        // It ends as if nothing had happened.
        reasons.push(ctx.signal.reason.code);
      },
      { cacheSize: 0 },
    );
    const verdicts = await receiver.process([delivery('a'), delivery('b'), delivery('c')], { lost: gone.signal });
    expect(actions(verdicts)).toEqual(Array(3).fill('retry fenced'));
    expect(verdicts[0]).toMatchObject({ error: { code: 'claim-lost', message: 'The broker has taken deliveries back' } });
    expect([started, reasons, effects()]).toEqual([['a', 'b'], ['claim-lost'], []]);
    expect(names()).not.toContain('storeDown');
    expect(actions(await receiver.process(['a', 'b', 'c'].map((id) => delivery(id))))).toEqual(Array(3).fill('ack completed'));
    expect(effects()).toEqual(['a', 'b', 'c']);
  });

  it('takes what came from elsewhere in the same transaction back too, to run again', async () => {
    const gone = new AbortController();
    const open = latch();
    const { receiver, effects, world } = transactional(async (payload, ctx) => {
      await charge(payload, ctx);
      await open.promise;
    });
    const both = Promise.all([
      receiver.process([delivery('a')], { lost: gone.signal }),
      receiver.process([delivery('b')], { lost: new AbortController().signal }),
    ]);
    await world.settle();
    gone.abort();
    open.open();
    const [[lost], [other]] = await both;
    expect([lost, other].map((verdict) => verdict!.action)).toEqual(['retry', 'retry']);
    expect(effects()).toEqual([]);
    expect(actions(await receiver.process([delivery('b')]))).toEqual(['ack completed']);
  });

  it('before its turn has come takes nothing back of those that share the transaction', async () => {
    const gone = new AbortController();
    const open = latch();
    const { receiver, effects, world } = transactional(async (payload, ctx) => {
      await charge(payload, ctx);
      if (payload.id === 'first') await open.promise;
    });
    const first = receiver.process([delivery('first')]);
    await world.settle();
    const both = Promise.all([receiver.process([delivery('a')], { lost: gone.signal }), receiver.process([delivery('b')])]);
    gone.abort();
    open.open();
    await first;
    expect((await both).map((verdicts) => actions(verdicts)[0])).toEqual(['retry expired', 'ack completed']);
    expect(effects()).toEqual(['first', 'b']);
  });
});
