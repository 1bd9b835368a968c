import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { offset, watermark, watermarkOnly } from '../../../../adapters/brokers/kafka/index.ts';
import { sqliteStore, sqliteWatermarks } from '../../../../adapters/stores/sqlite/index.ts';
import { RetryAfter, TerminalError } from '../../../../src/index.ts';
import type { TransactionalStore } from '../../../../src/store.ts';
import { ids } from './rig.ts';
import { virtual, type WorkerOptions } from './virtual.ts';

/** Effects in SQLite in memory, with a watermark, in virtual time. */
function place(kind: 'watermark' | 'watermark only') {
  const at = virtual();
  const db = new DatabaseSync(':memory:');
  db.exec('create table effects (id text)');
  const base = sqliteStore(db, { world: at.world });
  /** What happens to a commit: `fail` before it, `doubt` after it. */
  const fault: { next?: 'fail' | 'doubt' | undefined } = {};
  const store: TransactionalStore<DatabaseSync> = {
    async unit(work, partition) {
      const next = fault.next;
      fault.next = undefined;
      if (next === 'fail') throw new Error('no connection');
      const done = await base.unit(work, partition);
      if (next === 'doubt') throw new Error('the reply was lost');
      return done;
    },
  };
  const made = () =>
    kind === 'watermark'
      ? watermark({ store: { ...base, unit: store.unit }, rows: sqliteWatermarks() })
      : watermarkOnly({ store, rows: sqliteWatermarks() });
  const effects = () =>
    db
      .prepare('select id from effects order by rowid')
      .all()
      .map((row) => row['id'] as string);
  const row = () =>
    db.prepare('select name, next, done from idempotent_watermarks').get() as { name: string; next: number; done: string } | undefined;
  let handler: (payload: any, context: any) => void = () => {};
  return {
    ...at,
    fault,
    effects,
    row,
    store,
    handled: (by: typeof handler) => {
      handler = by;
    },
    worker(options: WorkerOptions = {}) {
      const own = made();
      const effect = (payload: any, context: any) => {
        handler(payload, context);
        context.tx.prepare('insert into effects values (?)').run(payload.id);
      };
      const receiver = { store: own, cacheSize: 0, ...options.receiver };
      return at.worker(effect, { ...options, receiver, kafka: { watermark: own, ...options.kafka } });
    },
    /** Runs timers, and what SQLite's turns of the event loop need. */
    async advance(ms: number) {
      for (let left = ms; left > 0; left -= 100) {
        await at.world.advance(Math.min(100, left));
        for (let i = 0; i < 5; i++) await at.world.settle();
      }
    },
  };
}

const messages = (count: number, from = 0) => ids(count, from).map((id) => ({ id }));

describe.each(['watermark', 'watermark only'] as const)('with %s', (kind) => {
  it('the row has the group, the topic and its epoch, the partition, and the first offset that is not done', async () => {
    const { model, worker, advance, row, effects, committed } = place(kind);
    model.produce('t', messages(5));
    await worker();
    await advance(1_000);
    expect(effects()).toEqual(ids(5));
    expect(row()).toEqual({ name: 't@1/0/g', next: 5, done: '' });
    expect(committed()).toBe(5);
  });

  it('what is below it is acked without a look, and without its handler, if Kafka brings it again', async () => {
    const { model, worker, advance, effects, committed } = place(kind);
    model.produce('t', messages(5));
    const first = await worker();
    first.consumer.intercept = async (name) => {
      if (name === 'OffsetCommit') throw new Error('lost');
    };
    await advance(1_000);
    expect(committed()).toBeUndefined();
    model.group('g').expel('member-1');
    first.consumer.intercept = async () => {};
    model.produce('t', messages(2, 5));
    await advance(60_000);
    expect(effects()).toEqual(ids(7));
    expect(committed()).toBe(7);
  });

  it('a message that waits for its next try holds it, and what was done behind it is not done again by the next owner', async () => {
    const { model, worker, advance, effects, row, handled } = place(kind);
    let broken = true;
    handled(({ id }) => {
      if (id === 'm2' && broken) throw new RetryAfter(5_000);
    });
    model.produce('t', messages(6));
    const { consumer } = await worker();
    await advance(1_000);
    expect(effects()).toEqual(['m0', 'm1', 'm3', 'm4', 'm5']);
    expect(row()).toMatchObject({ next: 2, done: kind === 'watermark' ? '' : '3-5' });
    model.group('g').expel('member-1');
    broken = false;
    await advance(60_000);
    expect(effects()).toEqual(['m0', 'm1', 'm3', 'm4', 'm5', 'm2']);
    expect(row()).toMatchObject({ next: 6, done: '' });
    expect(consumer.crashes).toEqual([]);
  });

  it('a commit that fails, and one whose reply is lost, take nothing twice', async () => {
    const { model, worker, advance, effects, row, fault } = place(kind);
    const { errors } = await worker();
    model.produce('t', messages(2));
    await advance(1_000);
    fault.next = 'fail';
    model.produce('t', messages(2, 2));
    await advance(10_000);
    fault.next = 'doubt';
    model.produce('t', messages(2, 4));
    await advance(10_000);
    model.produce('t', messages(2, 6));
    await advance(10_000);
    expect(effects()).toEqual(ids(8));
    expect(row()).toMatchObject({ next: 8, done: '' });
    expect(errors.map(({ error }) => error.message)).toEqual(['no connection', 'the reply was lost']);
  });

  it('a commit whose reply is lost, and that had filled the window, does not keep the partition paused', async () => {
    const { model, worker, advance, effects, row, fault, committed } = place(kind);
    const { consumer } = await worker({ kafka: { window: 4 } });
    model.produce('t', messages(1));
    await advance(1_000);
    fault.next = 'doubt';
    model.produce('t', messages(4, 1));
    await advance(100);
    expect([...consumer.paused]).toEqual(['t/0']);
    await advance(10_000);
    expect([...consumer.paused]).toEqual([]);
    expect(committed()).toBe(5);
    model.produce('t', messages(2, 5));
    await advance(10_000);
    expect(effects()).toEqual(ids(7));
    expect(row()).toMatchObject({ next: 7, done: '' });
  });

  it('a dead letter is passed only when it has arrived, by a transaction of its own', async () => {
    const { model, worker, advance, row, handled } = place(kind);
    let isUp = false;
    handled(({ id }) => {
      if (id === 'm1') throw new TerminalError('no');
    });
    model.produce('t', messages(2));
    await worker({ kafka: { deadLetter: () => (isUp ? undefined : Promise.reject(new Error('down'))) } });
    await advance(1_000);
    expect(row()).toMatchObject({ next: 1 });
    isUp = true;
    await advance(30_000);
    expect(row()).toMatchObject({ next: 2, done: '' });
  });

  it('somebody else’s row is left alone: nothing commits, and it is said', async () => {
    const { model, worker, advance, effects, store, committed } = place(kind);
    const { errors, consumer } = await worker();
    model.produce('t', messages(2));
    await advance(1_000);
    await store.unit((unit) => unit.savepoint(async (tx) => sqliteWatermarks().take(tx, 't@1/0/g', 'somebody')));
    model.produce('t', messages(3, 2));
    await advance(5_000);
    expect(effects()).toEqual(ids(2));
    expect(committed()).toBe(2);
    expect(errors.map(({ error }) => error.message)).toEqual([
      'Somebody else has taken t/0; it is left alone until the group assigns it again',
    ]);
    // The next assignment is the proof that it is ours.
    model.group('g').rebalance();
    await advance(10_000);
    expect(effects()).toEqual(ids(5));
    expect(consumer.crashes).toEqual([]);
  });

  it('a topic that was made again is noticed while it is shorter than before, and handled under another epoch', async () => {
    const { model, worker, advance, effects, world } = place(kind);
    model.produce('t', messages(5));
    const first = await worker();
    await advance(1_000);
    model.recreateTopic('t');
    model.produce('t', [{ id: 'new' }]);
    const stopped = first.adapter.stop().then(() => first.consumer.stop());
    // kafkajs waits for its fetch to end.
    await advance(6_000);
    await stopped;
    model.group('g').history.length = 0;
    const back = (to: { seek(to: object): void }) => to.seek({ topic: 't', partition: 0, offset: '0' });
    const second = await worker({
      start: async (to, adapter) => {
        await to.run(adapter.run());
        back(to as never);
      },
    });
    await advance(3_000);
    expect(effects()).toEqual(ids(5));
    expect(second.errors[0]!.error.message).toContain('was the topic made again? Then change `topicEpoch`');
    expect(world.clock.now()).toBeGreaterThan(0);
  });

  it('a topic that is made again while it is read is noticed too: its messages are not passed for those that were done', async () => {
    const { model, worker, advance, effects, row, handled } = place(kind);
    const { errors, consumer } = await worker();
    model.produce('t', messages(5));
    await advance(1_000);
    handled(() => {
      model.recreateTopic('t');
      model.produce('t', messages(2, 100));
      handled(() => {});
    });
    model.produce('t', messages(1, 5));
    await advance(10_000);
    expect([effects(), row()!.next]).toEqual([ids(6), 6]);
    expect(errors[0]!.error.message).toContain('Expected partition t/0 to reach offset 6, up to which it was read, got 2 as its end');
    expect(consumer.crashes).toEqual([]);
  });
});

describe('watermarkOnly', () => {
  it('recognises redeliveries and nothing else: what a producer sends twice is handled again, and its type says so', async () => {
    const { model, worker, advance, effects } = place('watermark only');
    model.produce('t', [{ id: 'a' }]);
    // The key is the same for both, but nobody remembers keys.
    await worker();
    await advance(1_000);
    model.produce('t', [{ id: 'a' }]);
    await advance(10_000);
    expect(effects()).toEqual(['a', 'a']);
    expect(watermarkOnly({ store: place('watermark only').store, rows: sqliteWatermarks() }).producerDuplicates).toBe('not recognised');
  });

  it('keeps no results: a receiver that wants them is refused', async () => {
    const { worker } = place('watermark only');
    await expect(worker({ receiver: { results: true } })).rejects.toThrow('Expected `results` to be false, because the store keeps none');
  });

  it('counts attempts in memory, and gives a message up after maxAttempts', async () => {
    const { model, worker, advance, effects, handled, row } = place('watermark only');
    const attempts: number[] = [];
    const dead: unknown[] = [];
    handled(({ id }, { attempt }) => {
      if (id !== 'm1') return;
      attempts.push(attempt);
      throw new Error('no');
    });
    model.produce('t', messages(3));
    await worker({
      receiver: { maxAttempts: 3, key: offset({ topicEpoch: '1' }) },
      kafka: { deadLetter: ({ record, reason }) => void dead.push([record.offset, reason]) },
    });
    await advance(20_000);
    expect(attempts).toEqual([1, 2, 3]);
    expect(dead).toEqual([['1', 'max-attempts']]);
    expect(effects()).toEqual(['m0', 'm2']);
    expect(row()).toMatchObject({ next: 3 });
  });

  it('without the adapter’s option nothing would be remembered: no transaction commits', async () => {
    const { model, worker, advance, effects } = place('watermark only');
    const reasons: unknown[] = [];
    model.produce('t', messages(1));
    await worker({
      kafka: { watermark: undefined as never },
      receiver: { on: { storeDown: ({ error }: any) => void reasons.push(error.message) } },
    });
    await advance(1_000);
    expect(effects()).toEqual([]);
    expect(reasons[0]).toContain('Expected `kafka(receiver, { watermark })` to be given the same `watermarkOnly` store as the receiver');
  });

  it.each([
    [{ store: {} }, 'Expected `store` to be a store with transactions'],
    [{ rows: {} }, 'Expected `rows` to be rows such as `sqliteWatermarks()`'],
    [{ topicEpoch: 'a/b' }, 'Expected `topicEpoch` to be 1 to 100 letters'],
  ])('%o is refused', (options, message) => {
    const { store } = place('watermark only');
    expect(() => watermarkOnly({ store, rows: sqliteWatermarks(), ...options } as never)).toThrow(message);
  });
});
