import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { memoryStore } from '../../adapters/stores/memory.ts';
import { sqliteStore } from '../../adapters/stores/sqlite/index.ts';
import type { AnyHandler } from '../../src/handler.ts';
import { attribute, createReceiver, type DedupStore, type Journal, SagaUndone, TerminalError, type Verdict } from '../../src/index.ts';
import { type VirtualWorld, virtualWorld } from '../../src/testing/virtual-world.ts';
import { delivery } from '../support/stand.ts';
import type { StepsContext } from './stand.ts';

/** A program of steps. Names are given to its steps in the order of the text. */
type Program =
  | { readonly is: 'step'; readonly confirm: boolean; readonly fails: number; readonly refused: boolean }
  | { readonly is: 'serial' | 'parallel'; readonly of: readonly Program[] }
  | { readonly is: 'saga'; readonly of: readonly Program[]; readonly refused: boolean }
  | { readonly is: 'now' };

const step = fc.record({
  is: fc.constant('step' as const),
  confirm: fc.boolean(),
  fails: fc.nat({ max: 2 }),
  refused: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
});
const sagaStep = step.map((each) => ({ ...each, refused: false }));
const { program } = fc.letrec<{ program: Program }>((tie) => ({
  program: fc.oneof(
    { depthSize: 'medium', withCrossShrink: true },
    step,
    fc.constant({ is: 'now' } as const),
    fc.record({
      is: fc.constantFrom('serial' as const, 'parallel' as const),
      of: fc.array(tie('program'), { minLength: 1, maxLength: 4 }),
    }),
    fc.record({
      is: fc.constant('saga' as const),
      refused: fc.boolean(),
      of: fc.array(
        fc.oneof(
          sagaStep,
          fc.record({
            is: fc.constantFrom('serial' as const, 'parallel' as const),
            of: fc.array(sagaStep, { minLength: 1, maxLength: 3 }),
          }),
        ),
        { minLength: 1, maxLength: 3 },
      ),
    }),
  ),
}));

const programs = fc.array(program, { minLength: 1, maxLength: 5 });
/** The place at which each worker dies, one after the other. */
const deaths = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 });

/** What has been exercised: a test in which too little happens proves nothing. */
interface Seen {
  deaths: number;
  /** Effects that were found done, by their keys or by `confirm`. */
  found: number;
  undone: number;
}

/** The outside: it honours keys, but for the steps that have `confirm`, which can only be asked for. It outlives all workers. */
class Outside {
  readonly moved: { readonly what: string; readonly key: string }[] = [];
  readonly #failed = new Map<string, number>();
  readonly #seen: Seen;

  constructor(seen: Seen) {
    this.#seen = seen;
  }

  move(what: string, key: string, { honours, fails }: { honours: boolean; fails: number }): string {
    const failed = this.#failed.get(what) ?? 0;
    if (failed < fails) {
      this.#failed.set(what, failed + 1);
      throw new Error(`${what}: try again`);
    }
    if (!honours || !this.find(key)) this.moved.push({ what, key });
    if (what.startsWith('undo')) this.#seen.undone++;
    return `receipt for ${what}`;
  }

  find(key: string): boolean {
    const found = this.moved.some((each) => each.key === key);
    if (found) this.#seen.found++;
    return found;
  }
}

/** Where a worker waits, and where it dies: nothing that it asks for afterwards happens, and it learns of no answer. */
function mortal(diesAt: number) {
  let places = 0;
  const alive = () => (places >= diesAt ? new Promise<never>(() => {}) : undefined);
  return {
    get dead() {
      return places >= diesAt;
    },
    async around<T>(call: () => T | Promise<T>): Promise<T> {
      places++;
      await alive();
      const answer = await call();
      places++;
      await alive();
      return answer;
    },
  };
}

type Mortal = ReturnType<typeof mortal>;

function handlerOf(program: Program, outside: Outside, worker: Mortal): AnyHandler {
  return async (_: unknown, ctx: StepsContext) => {
    let names = 0;
    type Steps = Pick<Parameters<Parameters<StepsContext['saga']>[1]>[0], 'step'>;

    function run(part: Program, steps: Steps): () => Promise<unknown> {
      switch (part.is) {
        case 'step': {
          const name = `s${names++}`;
          const move = (what: string, key: string, fails: number) =>
            worker.around(() => outside.move(what, key, { honours: !part.confirm || what !== name, fails }));
          const confirm = (key: string) => worker.around(() => (outside.find(key) ? { done: `receipt for ${name}` } : ('absent' as const)));
          const effect = ({ key }: { key: string }) => {
            if (part.refused) throw new TerminalError(`${name} is refused`);
            return move(name, key, part.fails);
          };
          const options = {
            ...(part.confirm && { confirm }),
            undo: (_: unknown, { key }: { key: string }) => move(`undo ${name}`, key, part.fails),
          };
          return () => steps.step(name, effect, options).catch((error) => (part.refused ? String(error) : Promise.reject(error)));
        }
        case 'serial': {
          const parts = part.of.map((each) => run(each, steps));
          return async () => {
            const results: unknown[] = [];
            for (const each of parts) results.push(await each());
            return results;
          };
        }
        case 'parallel': {
          const parts = part.of.map((each) => run(each, steps));
          return () => Promise.all(parts.map((each) => each()));
        }
        case 'saga': {
          const name = `saga${names++}`;
          const own: { steps?: Steps } = {};
          const parts = part.of.map((each) => run(each, { step: (...args: any[]) => (own.steps!.step as any)(...args) } as Steps));
          return () =>
            ctx
              .saga(name, async (saga) => {
                own.steps = saga;
                const results: unknown[] = [];
                for (const each of parts) results.push(await each());
                if (part.refused) throw new TerminalError(`${name} is refused`);
                return results;
              })
              .catch((error) => (error instanceof SagaUndone ? error.message : Promise.reject(error)));
        }
        case 'now':
          return async () => typeof (await ctx.now());
      }
    }

    return run(program, ctx)();
  };
}

/** Delivers a message to one worker after the other, of which each dies at its place, until one of them has settled it. */
async function outcome(program: Program, deaths: readonly number[], open: (world: VirtualWorld) => DedupStore & Journal, seen: Seen) {
  const world = virtualWorld();
  const store = open(world);
  const outside = new Outside(seen);
  for (let i = 0; i < 200; i++) {
    const worker = mortal(deaths[i] ?? Number.POSITIVE_INFINITY);
    const verbs = ['claim', 'settle', 'extend', 'writeEntries', 'readEntries'] as const;
    const wrapped = Object.fromEntries(
      verbs.map((verb) => [verb, (items: never) => worker.around(() => store[verb](items) as Promise<unknown>)]),
    );
    const receiver = createReceiver(
      {
        ...{ scope: 'test', key: attribute('id'), store: { ...store, ...wrapped } as never as DedupStore & Journal, world },
        ...{ guarantee: 'fenced', results: true, maxAttempts: Number.POSITIVE_INFINITY, storeTimeoutMs: 20_000 },
      },
      handlerOf(program, outside, worker) as () => unknown,
    );
    let verdict: Verdict | undefined;
    void receiver.process([delivery('a')]).then(([given]) => (verdict = given));
    for (let turns = 0; turns < 60 && !verdict && !worker.dead; turns++) await (turns < 20 ? world.settle() : world.advance(1_000));
    if (worker.dead) seen.deaths++;
    if (verdict && verdict.action !== 'retry') return { verdict, moved: outside.moved.map(({ what }) => what).sort() };
    await world.advance(verdict ? verdict.afterMs : 31_000);
  }
  throw new Error('The message was never settled');
}

const stores: Readonly<Record<string, (world: VirtualWorld) => DedupStore & Journal>> = {
  memoryStore: (world) => memoryStore({ now: world.clock.now }),
  sqliteStore: (world) => sqliteStore(new DatabaseSync(':memory:'), { world }),
};

describe('a random program of steps, with workers that die anywhere', () => {
  it.each([
    ['memoryStore', 500],
    ['sqliteStore', 200],
  ] as const)(
    '%s: gives what it would give without deaths, and each effect happens once',
    async (name, numRuns) => {
      const seen: Seen = { deaths: 0, found: 0, undone: 0 };
      await fc.assert(
        fc.asyncProperty(programs, deaths, async (of, deaths) => {
          const program: Program = { is: 'serial', of };
          const undisturbed = await outcome(program, [], stores[name]!, { ...seen });
          const disturbed = await outcome(program, deaths, stores[name]!, seen);
          expect(disturbed).toEqual(
            undisturbed.verdict.action === 'ack'
              ? { ...undisturbed, verdict: { ...undisturbed.verdict, outcome: expect.any(String) } }
              : undisturbed,
          );
          expect(new Set(undisturbed.moved).size).toBe(undisturbed.moved.length);
        }),
        { numRuns },
      );
      expect(seen.deaths).toBeGreaterThan(numRuns / 2);
      expect(seen.found).toBeGreaterThan(numRuns / 50);
      expect(seen.undone).toBeGreaterThan(numRuns / 10);
    },
    120_000,
  );
});
