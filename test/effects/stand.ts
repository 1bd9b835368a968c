import { memoryStore } from '../../adapters/stores/memory.ts';
import type { AnyHandler } from '../../src/handler.ts';
import { attribute, type Context, createReceiver, type Verdict } from '../../src/index.ts';
import { type VirtualWorld, virtualWorld } from '../../src/testing/virtual-world.ts';
import { delivery } from '../support/stand.ts';

export type StepsContext = Context<'fenced', never, true>;
type Store = ReturnType<typeof memoryStore>;
type Verb = 'claim' | 'settle' | 'extend' | 'writeEntries' | 'readEntries';

export interface Faults {
  /** What happens to the next calls of a verb: `before` is a lost request, `after` a lost reply. */
  readonly next: Partial<Record<Verb, ('before' | 'after')[]>>;
  /** What happens to all of them until it is deleted. */
  readonly broken: Partial<Record<Verb, 'before' | 'after'>>;
  readonly calls: { readonly verb: Verb; readonly items: number }[];
}

/** A store in memory whose calls are counted, and can be made to fail. */
function journal(real: Store): { store: Store; faults: Faults } {
  const faults: Faults = { next: {}, broken: {}, calls: [] };
  const verbs: readonly Verb[] = ['claim', 'settle', 'extend', 'writeEntries', 'readEntries'];
  const wrapped = verbs.map((verb) => [
    verb,
    async (items: never) => {
      faults.calls.push({ verb, items: (items as unknown[]).length });
      const fault = faults.next[verb]?.shift() ?? faults.broken[verb];
      if (fault === 'before') throw new Error(`${verb}: request lost`);
      const answer = await real[verb](items);
      if (fault === 'after') throw new Error(`${verb}: reply lost`);
      return answer;
    },
  ]);
  return { store: { ...real, ...Object.fromEntries(wrapped) } as Store, faults };
}

/** A worker for messages whose handler has steps. Several of them can share a world and a store, as processes do. */
export function worker(
  handle: (ctx: StepsContext) => unknown,
  shared: { world?: VirtualWorld; store?: Store } = {},
  options: Record<string, unknown> = {},
) {
  const world = shared.world ?? virtualWorld();
  const real = shared.store ?? memoryStore({ now: world.clock.now });
  const { store, faults } = journal(real);
  const receiver = createReceiver(
    { scope: 'test', key: attribute('id'), store, world, guarantee: 'fenced', results: true, ...(options as object) },
    ((_: unknown, ctx: StepsContext) => handle(ctx)) as AnyHandler,
  );

  async function deliver(id = 'a'): Promise<Verdict> {
    let verdict: Verdict | undefined;
    const processing = receiver.process([delivery(id)]).then(([given]) => (verdict = given!));
    for (let i = 0; i < 100 && !verdict; i++) await (i < 5 ? world.settle() : world.advance(1_000));
    if (!verdict) throw new Error('The message has no verdict after 95 s');
    await processing;
    return verdict;
  }

  /** Delivers again after each retry, as a broker does. */
  async function finish(id = 'a', tries = 20): Promise<Verdict> {
    for (let i = 0; i < tries; i++) {
      const verdict = await deliver(id);
      if (verdict.action !== 'retry') return verdict;
      await world.advance(verdict.afterMs);
    }
    throw new Error(`The message has not been settled in ${tries} tries`);
  }

  return { world, store: real, faults, receiver, deliver, finish, key: receiver.keyOf(delivery('a').message) };
}

/** An external effect that counts. */
export function effects() {
  const done: string[] = [];
  return {
    done,
    /** Does it, and gives a receipt. */
    now: async (what: string): Promise<string> => {
      done.push(what);
      return `receipt ${done.length} for ${what}`;
    },
    count: (what: string) => done.filter((each) => each === what).length,
  };
}

/** A function that throws for its first `times` calls. */
export function failing(times: number, error: () => unknown = () => new Error('try again')): () => void {
  let left = times;
  return () => {
    if (left-- > 0) throw error();
  };
}
