import { describe, expect, it } from 'vitest';
import type { AnyHandler } from '../src/handler.ts';
import { attribute, createReceiver, ReceiverError, type TransactionalStore, type Verdict } from '../src/index.ts';
import type { Key } from '../src/store.ts';
import { actions, delivery } from './support/stand.ts';

/** The least that a chained store can be: commits go by when the test says so, in order, and all after one that fails fail too. */
function chainedStore(before: (unit: number) => Promise<unknown> | undefined = () => undefined) {
  let begun = 0;
  let ended = 0;
  const records = new Set<Key>();
  const pending: { keys: Set<Key>; settle: PromiseWithResolvers<void> }[] = [];
  let failed = 0;
  const store: TransactionalStore<string[]> = {
    unitsAtOnce: 2,
    chained: true,
    perPartition: true,
    async unit(work) {
      const wait = before(++begun);
      if (wait) await wait;
      const mine = { keys: new Set<Key>(), settle: Promise.withResolvers<void>() };
      const began = failed;
      const result = await Promise.resolve(
        work({
          record: async (asks) =>
            asks.map(({ key }) => {
              if (records.has(key) || pending.some(({ keys }) => keys.has(key))) return { state: 'completed', ageMs: 0 };
              mine.keys.add(key);
              return { state: 'claimed', fence: 1, attempt: 1, orphaned: false };
            }),
          savepoint: (run) => run([]),
          settle: async (ends) => ends.map(({ key, as }) => (as === 'released' && mine.keys.delete(key), 'ok')),
        }),
      ).catch((error: unknown) => {
        ended++;
        throw error;
      });
      pending.push(mine);
      await mine.settle.promise.finally(() => ended++);
      if (began !== failed) throw new Error('the unit before did not commit');
      for (const key of mine.keys) records.add(key);
      return result;
    },
  };
  const next = async () => {
    while (pending.length === 0) await new Promise((resolve) => setImmediate(resolve));
    return pending.shift()!.settle;
  };
  return {
    store,
    open: () => begun - ended,
    recorded: () => records.size,
    commit: async () => (await next()).resolve(),
    fail: async () => {
      failed++;
      (await next()).reject(new ReceiverError('store', 'no'));
    },
  };
}

const idle = () => new Promise((resolve) => setTimeout(resolve, 5));

function chained(handle: AnyHandler = () => {}, options: object = {}, before?: Parameters<typeof chainedStore>[0]) {
  const made = chainedStore(before);
  const ran: string[] = [];
  const handler: AnyHandler = (payload, ctx) => {
    ran.push(payload.id);
    return handle(payload, ctx);
  };
  const receiver = createReceiver(
    { scope: 'test', key: attribute('id'), store: made.store, groupSize: 2, cacheSize: 0, ...options },
    handler,
  );
  return { ...made, receiver, ran };
}

const lanes = (...names: string[]) => names.map((name) => delivery(name, { orderingKey: name[0]! }));

describe('chained units of one call', () => {
  it('overlap: the handlers of the next run while one commits, and no more than two are open', async () => {
    const { receiver, ran, open, commit } = chained();
    const told: string[] = [];
    const verdicts = receiver.process(lanes('a1', 'b1', 'c1', 'd1', 'e1', 'f1'), { settled: ({ message }) => told.push(message.id) });
    await idle();
    expect([ran, open(), told]).toEqual([['a1', 'b1', 'c1', 'd1'], 2, []]);
    await commit();
    await idle();
    expect([ran.slice(4), told]).toEqual([
      ['e1', 'f1'],
      ['a1', 'b1'],
    ]);
    await commit();
    await commit();
    expect(actions(await verdicts)).toEqual(Array.from({ length: 6 }, () => 'ack completed'));
  });

  it('keep the order of a key: what is going to be tried again stops it in the next one, before the commit', async () => {
    const { receiver, ran, commit } = chained(({ id }) => {
      if (id === 'a1') throw new Error('no');
    });
    const verdicts = receiver.process(lanes('a1', 'b1', 'a2', 'b2', 'a3', 'c1'));
    await commit();
    await commit();
    await commit();
    expect(actions(await verdicts)).toEqual([
      'retry failed',
      'ack completed',
      'retry order',
      'ack completed',
      'retry order',
      'ack completed',
    ]);
    expect(ran).toEqual(['a1', 'b1', 'b2', 'c1']);
  });

  it('a copy in a later one takes the verdict of the first, and is acked only if that commits', async () => {
    for (const outcome of ['commit', 'fail'] as const) {
      const made = chained();
      const batch = lanes('a1', 'a1', 'a1', 'b1');
      const told: Verdict[] = [];
      const verdicts = made.receiver.process(batch, { settled: (_, verdict) => void told.push(verdict) });
      await idle();
      expect(told, 'nothing is told before the commit').toEqual([]);
      await made[outcome]();
      if (outcome === 'commit') await made.commit();
      expect(actions(await verdicts)).toEqual(
        outcome === 'commit'
          ? ['ack completed', 'ack duplicate', 'ack duplicate', 'ack completed']
          : ['retry store', 'retry store', 'retry store', 'retry store'],
      );
    }
  });

  it('poison behind a message of a unit that does not commit waits for it', async () => {
    const { receiver, fail, open } = chained(undefined, { groupSize: 1 });
    const poison = { message: { id: 'a2', body: '{', headers: {} }, orderingKey: 'a' };
    const free = { message: { id: 'c2', body: '{', headers: {} }, orderingKey: 'c' };
    const verdicts = receiver.process([...lanes('a1'), poison, free]);
    await idle();
    expect(open()).toBe(1);
    await fail();
    expect(actions(await verdicts)).toEqual(['retry store', 'retry order', 'dead-letter undecodable']);
  });

  it('when one does not commit, the next one, which has run on top of it, does not either', async () => {
    const { receiver, fail, open } = chained();
    const verdicts = receiver.process(lanes('a1', 'b1', 'c1', 'd1'));
    await idle();
    expect(open()).toBe(2);
    await fail();
    expect(actions(await verdicts)).toEqual(Array.from({ length: 4 }, () => 'retry store'));
  });

  it('nor if the store begins it only after the one before has failed: its order and its copies were foreseen otherwise', async () => {
    for (const second of ['a1', 'a2']) {
      const late = Promise.withResolvers<void>();
      const { receiver, fail, commit, recorded } = chained(undefined, { groupSize: 1 }, (unit) => (unit === 2 ? late.promise : undefined));
      const acked: number[] = [];
      const committing = async (_: unknown, verdicts: ReadonlyMap<unknown, Verdict>) =>
        void acked.push([...verdicts.values()].filter(({ action }) => action === 'ack').length);
      const verdicts = receiver.process(lanes('a1', second), { committing });
      await idle();
      await fail();
      late.resolve();
      await Promise.race([commit(), idle()]);
      expect([actions(await verdicts)[0], recorded(), acked]).toEqual(['retry store', 0, [1]]);
    }
  });

  it('nor if all that has not committed of the one before is a part: the rest was waiting for the one before that', async () => {
    const late = Promise.withResolvers<void>();
    const fails: AnyHandler = ({ id }) => {
      if (id === 'a1') throw new Error('no');
    };
    const { receiver, fail, commit, recorded } = chained(fails, {}, (unit) => (unit === 3 ? late.promise : undefined));
    const verdicts = receiver.process(lanes('a1', 'a2', 'a3', 'b1', 'c1', 'd1'));
    await idle();
    await commit();
    await idle();
    await fail();
    late.resolve();
    await Promise.race([commit(), idle()]);
    expect(actions(await verdicts)).toEqual(['retry failed', 'retry order', 'retry order', 'retry store', 'retry store', 'retry store']);
    expect((await verdicts)[4]).toMatchObject({ error: { code: 'store', message: 'The unit before this one did not commit' } });
    expect(recorded()).toBe(0);
  });

  it('but one that was begun when it had failed is not built on it, nor is the next one', async () => {
    const { receiver, commit } = chained(undefined, { groupSize: 1 }, (unit) => (unit === 1 ? Promise.reject(new Error('no')) : undefined));
    const verdicts = receiver.process(lanes('a1', 'b1', 'c1'));
    await idle();
    await commit();
    await commit();
    expect(actions(await verdicts)).toEqual(['retry store', 'ack completed', 'ack completed']);
  });

  it('what one has found to be done by the one before, which did not commit, is not remembered: its message runs again', async () => {
    const { receiver, ran, commit, fail } = chained(undefined, { groupSize: 1, cacheSize: 100 });
    const first = receiver.process(lanes('a1'));
    await idle();
    const copy = receiver.process(lanes('a1'));
    await idle();
    await fail();
    await fail();
    expect(actions([...(await first), ...(await copy)])).toEqual(['retry store', 'retry store']);
    const again = receiver.process(lanes('a1'));
    await commit();
    expect(actions(await again)).toEqual(['ack completed']);
    expect(ran).toEqual(['a1', 'a1']);
    expect(actions(await receiver.process(lanes('a1')))).toEqual(['ack duplicate']);
  });
});
