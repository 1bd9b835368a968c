import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { memoryStore } from '../adapters/stores/memory.ts';
import { gate } from '../src/gate.ts';
import { guardedStore } from '../src/guarded-store.ts';
import { commonSettings } from '../src/options.ts';
import type { Ask, DedupStore } from '../src/store.ts';
import { virtualWorld } from '../src/testing/virtual-world.ts';
import { latch, watch } from './support/stand.ts';

const timeoutMs = 1_000;

function stand(more: Partial<DedupStore> = {}) {
  const world = virtualWorld();
  const real = memoryStore({ now: world.clock.now });
  const told: string[] = [];
  const settings = commonSettings({ scope: 'test', world, storeTimeoutMs: timeoutMs }, { waitMs: 0 });
  const store = guardedStore(
    { ...real, ...more },
    gate(world, 'test', (name) => told.push(name)),
    settings,
  );
  return { world, real, store, told };
}

function ask(key: string): Ask {
  return { key, fingerprint: '', token: `token ${key}`, leaseMs: 30_000, retainMs: 60_000 };
}

const failure = (message: string) => expect.objectContaining({ code: 'store', message });

// A store must not be able to bring the process down.
const unhandled: unknown[] = [];
const listen = (reason: unknown) => void unhandled.push(reason);
beforeEach(() => void process.on('unhandledRejection', listen));
afterEach(async () => {
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', listen);
  expect(unhandled.splice(0)).toEqual([]);
});

describe('a guarded store', () => {
  it('hands on asks and answers, gathers concurrent calls, and leaves no timer', async () => {
    const batches: number[] = [];
    const { store, world, real, told } = stand({
      claim: (asks) => {
        batches.push(asks.length);
        return real.claim(asks);
      },
    });
    const answers = await Promise.all([store.claim([ask('a')]), store.claim([ask('b'), ask('a')])]);
    expect(answers.map((each) => each.map(({ state }) => state))).toEqual([['claimed'], ['claimed', 'claimed']]);
    expect(batches).toEqual([3]);
    expect(await store.extend([{ key: 'a', token: 'token a', leaseMs: 1_000 }])).toEqual(['ok']);
    expect(await store.settle([{ key: 'a', token: 'other', retainMs: 1, as: 'completed' }])).toEqual(['fenced']);
    expect([world.timers, told]).toEqual([0, []]);
  });

  it.each(['claim', 'settle', 'extend'] as const)('gives up a `%s` that takes too long, and tells that the store is down', async (verb) => {
    const { store, world, told } = stand({ [verb]: () => new Promise(() => {}) });
    const call = watch<unknown>((store[verb] as (items: unknown[]) => Promise<unknown>)([ask('a')]));
    await world.advance(timeoutMs - 1);
    expect(call.done).toBe(false);
    await world.advance(1);
    expect(call.error).toEqual(failure(`Expected the store's \`${verb}\` to answer within 1000 ms, got no answer`));
    expect(told).toEqual(['storeDown']);
    expect(world.timers).toBe(0);
  });

  it('hands on the very error of the store', async () => {
    const down = new Error('down');
    const { store, told, world } = stand({ claim: () => Promise.reject(down) });
    await expect(store.claim([ask('a')])).rejects.toBe(down);
    expect([world.timers, told]).toEqual([0, ['storeDown']]);
  });

  it('leaves no timer behind a store that hangs after the receiver has stopped', async () => {
    const { store, world } = stand({ settle: () => new Promise(() => {}) });
    store.close();
    void store.settle([{ key: 'a', token: 't', retainMs: 1, as: 'released', counted: true }]);
    await world.settle();
    expect(world.timers).toBe(0);
  });

  it('leaves no timer behind a store that throws before it gives a promise', async () => {
    const down = new Error('down');
    const { store, world } = stand({
      claim: () => {
        throw down;
      },
    });
    await expect(store.claim([ask('a')])).rejects.toBe(down);
    expect(world.timers).toBe(0);
  });

  it.each<[unknown, string]>([
    [[], 'got 0'],
    [[{ state: 'busy' }, { state: 'busy' }], 'got 2'],
    [undefined, 'got undefined'],
    [{ state: 'claimed' }, 'got object'],
  ])('takes %j for nonsense, where one answer was asked for', async (answers, got) => {
    const { store, told } = stand({ claim: async () => answers as never });
    await expect(store.claim([ask('a')])).rejects.toEqual(failure(`Expected the store's \`claim\` to give 1 answers, ${got}`));
    expect(told).toEqual(['storeDown']);
  });
});

describe('claims that come too late', () => {
  it('are given back uncounted, so that their messages need not wait for the lease', async () => {
    const { promise, open } = latch();
    const { store, world, real } = stand({
      claim: async (asks) => {
        const answers = await real.claim(asks);
        await promise;
        return answers;
      },
    });
    await real.claim([{ ...ask('busy'), token: 'other' }]);
    const call = watch(store.claim([ask('a'), ask('busy')]));
    await world.advance(timeoutMs);
    expect(call.error).toMatchObject({ code: 'store' });
    expect(await real.inspect('a')).toMatchObject({ state: 'claimed' });
    open();
    await world.settle();
    expect(await real.inspect('a')).toMatchObject({ state: 'released', attempts: 0 });
    expect(await real.inspect('busy')).toMatchObject({ state: 'claimed', attempts: 1 });
  });

  it('and are none ask for nothing; of the others only what was given is given back', async () => {
    const settled: string[][] = [];
    const late = async (other: string) => {
      const { promise, open } = latch();
      const { store, world, real } = stand({
        claim: async (asks) => {
          const answers = await real.claim(asks);
          await promise;
          return answers;
        },
        settle: async (ends) => {
          settled.push(ends.map(({ key }) => key));
          return real.settle(ends);
        },
      });
      await real.claim([{ ...ask('busy'), token: 'other' }]);
      void store.claim([ask('busy'), ask(other)]).catch(() => {});
      await world.advance(timeoutMs);
      open();
      await world.settle();
    };
    await late('busy');
    await late('a');
    expect(settled).toEqual([['a']]);
  });

  it.each<[string, Partial<DedupStore>]>([
    ['are nonsense', {}],
    ['can not be given back', { settle: () => Promise.reject(new Error('down')) }],
    [
      'can not be given back, with an error at once',
      {
        settle: () => {
          throw new Error('down');
        },
      },
    ],
  ])('change nothing more if they %s', async (what, more) => {
    const { promise, open } = latch<unknown>();
    const { store, world } = stand({ ...more, claim: () => promise as never });
    const call = watch(store.claim([ask('a')]));
    await world.advance(timeoutMs);
    open(what === 'are nonsense' ? undefined : [{ state: 'claimed', fence: 1, attempt: 1, orphaned: false }]);
    await world.settle();
    expect(call.error).toMatchObject({ code: 'store' });
  });

  it('that fail after all are of no interest any more', async () => {
    const { promise, fail } = latch<never>();
    const { store, world } = stand({ claim: () => promise });
    const call = watch(store.claim([ask('a')]));
    await world.advance(timeoutMs);
    fail(new Error('late'));
    await world.settle();
    expect(call.error).toMatchObject({ code: 'store' });
  });
});
