import fc from 'fast-check';
import { expect } from 'vitest';
import { memoryStore } from '../../../adapters/stores/memory.ts';
import type { Answer, Ask, DedupStore, End, StoreAdmin, TransactionalStore } from '../../../src/store.ts';
import { fingerprintOf, keyOf } from '../../../src/testing/clauses/kit.ts';

/*
 * Random command sequences on a store, compared with the memory store as their model. fast-check makes a failing sequence as short as it can,
 * and prints its seed: run that again with SEED=…
 */

type Store = DedupStore & StoreAdmin & Partial<TransactionalStore<unknown>>;

export interface ModelStand {
  /** Clients of the same data, which are used in turn. With `unit`, the sequences have units too. */
  readonly stores: readonly Store[];
  /** Moves the stores' clock. */
  elapse(ms: number): Promise<void> | void;
  close(): Promise<void> | void;
}

export interface ModelOptions {
  open(): Promise<ModelStand> | ModelStand;
  readonly runs: number;
  readonly commands: number;
  /** The least time of the sequences, in milliseconds; far more than the stores' clock moves by itself. Default: 1. */
  readonly tickMs?: number;
  /** The store deletes expired records by itself, so `purge` has nothing to answer. */
  readonly purgesItself?: boolean;
  /** Compared after every so many commands, and at the end. Default: 1. */
  readonly compareEvery?: number;
  readonly units?: boolean;
  /** The store forgets tokens and attempts of completed records: settles of those, and what a view tells of attempts, are left out. */
  readonly forgetsOwners?: boolean;
}

const names = ['a', 'b', 'c', 'd', 'e'];
const one = <T>(...values: readonly T[]) => fc.constantFrom(...values);

/** Finds no difference between a store and the memory store, or rejects with the shortest sequence of commands that shows one. */
export async function answersAsTheModel(options: ModelOptions): Promise<void> {
  const tick = options.tickMs ?? 1;
  const times = (...ticks: readonly number[]) => one(...ticks.map((each) => each * tick));
  const ask = fc.record({
    key: one(...names).map(keyOf),
    fingerprint: one('', fingerprintOf(1), fingerprintOf(1), fingerprintOf(1), fingerprintOf(2)),
    token: one('t', 'u', 'v'),
    leaseMs: times(50, 100),
    retainMs: times(100, 200, 400),
  });
  const ending = fc.oneof(
    fc.constant({ as: 'completed' as const }),
    fc.nat(9).map((n) => ({ as: 'completed' as const, result: `r${n}` })),
    fc.boolean().map((counted) => ({ as: 'released' as const, counted })),
    fc.nat(9).map((n) => ({ as: 'parked' as const, reason: 'r', detail: `d${n}`, label: 'l' })),
  );
  const end = fc
    .record({ key: one(...names).map(keyOf), token: one('t', 'u', 'v'), retainMs: times(100, 200, 400), ending })
    .map(({ ending, ...rest }): End => ({ ...rest, ...ending }));
  const some = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 3 });
  const inUnit = fc.record({ ask, held: fc.boolean(), token: one('x', 'y'), end: fc.option(end, { nil: undefined }) });
  const command = fc.oneof(
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('elapse' as const), ms: times(1, 10, 49, 50, 51, 100, 200, 400) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('claim' as const), asks: some(ask) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('settle' as const), ends: some(end) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('extend' as const), holds: some(ask) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('purge' as const), limit: one(1, 2, 10) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), key: one(...names).map(keyOf) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('replay' as const), key: one(...names).map(keyOf) }) },
    {
      weight: options.units ? 2 : 0,
      arbitrary: fc.record({
        kind: fc.constant('unit' as const),
        items: fc.uniqueArray(inUnit, { maxLength: 3, selector: (item) => item.ask.key }),
        commits: one(true, true, false),
      }),
    },
  );
  type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;

  async function run(commands: readonly Command[], pick: readonly number[]): Promise<void> {
    const stand = await options.open();
    let now = 1_700_000_000_000;
    let turn = 0;
    const model = memoryStore({ now: () => now });
    const real = () => stand.stores[pick[turn++ % pick.length]! % stand.stores.length]!;
    const fences = new Map<string, number>();
    const owners = new Map<string, string>();
    const about = (ms: number) => Math.round(ms / tick);

    /** Times are compared as far as the clock stands still, fences by what is promised of them: they grow. */
    function shown(asks: readonly Ask[], answers: readonly Answer[], isReal: boolean): unknown[] {
      return answers.map((answer, i) => {
        const { key, token } = asks[i]!;
        if (answer.state === 'busy') return { ...answer, remainingMs: about(answer.remainingMs) };
        if (answer.state === 'completed') return { result: undefined, ...answer, ageMs: about(answer.ageMs) };
        if (answer.state !== 'claimed') return answer;
        if (isReal) {
          expect(answer.fence, 'a fence').toBeGreaterThanOrEqual(fences.get(key) ?? 1);
          fences.set(key, answer.fence);
        }
        owners.set(key, token);
        return { ...answer, fence: 0 };
      });
    }

    async function both<T>(
      what: string,
      ask: (store: Store) => Promise<T>,
      show: (value: T, isReal: boolean) => unknown = (value) => value,
    ) {
      const [got, expected] = [show(await ask(real()), true), show(await ask(model), false)];
      expect(got, what).toEqual(expected);
    }

    /** A unit on the real store; on the model, if it commits, a claim and a settle for each key. */
    async function unit({ items, commits }: Extract<Command, { kind: 'unit' }>): Promise<void> {
      const asks: Ask[] = [];
      for (const { ask, held, token } of items) {
        // Tokens of units are their own, except for a claim that becomes the record: what a unit completes has no token to be settled by.
        const isHeld = held && (await model.inspect(ask.key))?.state === 'claimed';
        asks.push({ ...ask, token: isHeld ? (owners.get(ask.key) ?? 'x') : token });
      }
      const ends = items.flatMap(({ end }, i): End[] => (end ? [{ ...end, key: asks[i]!.key, token: asks[i]!.token }] : []));
      let answers: readonly Answer[] = [];
      await real().unit!(async (unit) => {
        answers = await unit.record(asks);
        const claimed = new Set(asks.filter((_, i) => answers[i]!.state === 'claimed').map(({ key }) => key));
        await unit.settle(ends.filter(({ key }) => claimed.has(key)));
        if (!commits) throw new Error('rolled back');
      }).catch((error: Error) => expect(error.message).toBe('rolled back'));
      if (!commits) return;
      const expected = await model.claim(asks);
      expect(shown(asks, answers, true), 'unit').toEqual(shown(asks, expected, false));
      const recorded = asks.filter((_, i) => expected[i]!.state === 'claimed');
      await model.settle(
        recorded.map(({ key, token, retainMs }) => ends.find((end) => end.key === key) ?? { key, token, retainMs, as: 'completed' }),
      );
    }

    /** Which expired records go first is the store's affair, so the rest goes too, before any is replaced. */
    async function purgeAll(): Promise<void> {
      if (options.purgesItself) {
        expect(await real().purge(100)).toBe(0);
        await model.purge(100);
      } else await both('purge the rest', (store) => store.purge(100));
    }

    async function execute(command: Command): Promise<void> {
      switch (command.kind) {
        case 'elapse':
          now += command.ms;
          return stand.elapse(command.ms);
        case 'claim':
          return both(
            'claim',
            (store) => store.claim(command.asks),
            (answers, isReal) => shown(command.asks, answers, isReal),
          );
        case 'settle':
          if (!options.forgetsOwners) return both('settle', (store) => store.settle(command.ends));
          for (const end of command.ends)
            if ((await model.inspect(end.key))?.state !== 'completed') await both('settle', (store) => store.settle([end]));
          return;
        case 'extend':
          return both('extend', (store) => store.extend(command.holds));
        case 'purge':
          if (!options.purgesItself) await both('purge', (store) => store.purge(command.limit));
          return purgeAll();
        case 'forget':
          await purgeAll();
          return both('forget', (store) => store.forget(command.key));
        case 'replay':
          return both('replay', (store) => store.replay(command.key));
        case 'unit':
          return unit(command);
      }
    }

    async function compare(): Promise<void> {
      const unknown = options.forgetsOwners ? { attempts: 0 } : {};
      for (const name of names)
        await both(
          `inspect ${name}`,
          (store) => store.inspect(keyOf(name)),
          (view) => view && { ...view, fence: 0, ageMs: about(view.ageMs), remainingMs: about(view.remainingMs), ...unknown },
        );
      await both('stats', (store) => store.stats());
      await both(
        'parked',
        (store) => store.listParked({ limit: 9 }),
        (list) => list.map(({ key }) => key).sort(),
      );
    }

    try {
      for (const [i, command] of commands.entries()) {
        await execute(command);
        if ((i + 1) % (options.compareEvery ?? 1) === 0) await compare();
      }
      await compare();
    } finally {
      await stand.close();
    }
  }

  const property = fc.asyncProperty(
    fc.array(command, { minLength: options.commands, maxLength: options.commands, size: 'max' }),
    fc.array(fc.nat(3), { minLength: 7, maxLength: 7 }),
    run,
  );
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  await fc.assert(property, {
    numRuns: options.runs,
    seed,
    endOnFailure: false,
    // Below the limits of the tests, so that one that has failed still shows what it has shrunk to.
    interruptAfterTimeLimit: 800_000,
    markInterruptAsFailure: true,
  });
}
