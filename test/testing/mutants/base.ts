import { memoryStore } from '../../../adapters/stores/memory.ts';
import type { Answer, Ask, DedupStore, End, Key, StoreAdmin } from '../../../src/store.ts';
import type { StoreHarness } from '../../../src/testing/index.ts';

type Store = DedupStore & StoreAdmin;

/** The good store that mutants wrap, with what they need to know to be wrong in a credible way. */
export interface Base {
  readonly store: Store;
  readonly now: () => number;
  /** Who was given each key last. */
  readonly owners: Map<Key, Ask>;
  /** When that was. */
  readonly claimedAt: Map<Key, number>;
}

/** A store that is wrong in one way, and the clause that must notice. */
export interface Mutant {
  readonly name: string;
  readonly breaks: string;
  mutate(base: Base): Partial<Store>;
}

export function baseHarness(mutate: (base: Base) => Partial<Store> = () => ({}), change: Partial<StoreHarness> = {}): StoreHarness {
  let now = 0;
  const corrupted = new Set<Key>();
  const clean = memoryStore({ now: () => now });
  const owners = new Map<Key, Ask>();
  const claimedAt = new Map<Key, number>();
  const base: Store = {
    ...clean,
    async claim(asks) {
      const answers = await clean.claim(asks);
      return asks.map((ask, i) => {
        if (corrupted.has(ask.key)) return { state: 'corrupt', detail: 'damaged by the test' };
        if (answers[i]!.state === 'claimed') {
          owners.set(ask.key, ask);
          claimedAt.set(ask.key, now);
        }
        return answers[i]!;
      });
    },
    settle: async (ends) => (ends.some(({ key }) => corrupted.has(key)) ? ends.map(() => 'fenced') : clean.settle(ends)),
    extend: async (holds) => (holds.some(({ key }) => corrupted.has(key)) ? holds.map(() => 'fenced') : clean.extend(holds)),
  };
  const store = { ...base, ...mutate({ store: base, now: () => now, owners, claimedAt }) };
  return { store, elapse: (ms) => void (now += ms), reopen: async () => store, corrupt: (key) => void corrupted.add(key), ...change };
}

/** Changes each answer of `claim`. */
export const answers = (change: (answer: Answer, ask: Ask, base: Base) => Answer) => (base: Base) => ({
  claim: async (asks: readonly Ask[]) => (await base.store.claim(asks)).map((answer, i) => change(answer, asks[i]!, base)),
});

/** Changes each ask. */
export const asks =
  (change: (ask: Ask) => Ask) =>
  ({ store }: Base) => ({ claim: (all: readonly Ask[]) => store.claim(all.map(change)) });

/** Changes each end. */
export const ends = (change: (end: End, base: Base) => End) => (base: Base) => ({
  settle: (all: readonly End[]) => base.store.settle(all.map((end) => change(end, base))),
});

/** Makes a key absent before it is asked for, if `when` says so. */
export const vanishing =
  (when: (base: Base, key: Key) => boolean) =>
  (base: Base): Partial<Store> => ({
    async claim(all) {
      for (const { key } of all) {
        const owner = base.owners.get(key);
        if (!owner || !when(base, key)) continue;
        await base.store.settle([{ key, token: owner.token, retainMs: 0, as: 'released', counted: true }]);
        await base.store.forget(key);
        base.owners.delete(key);
      }
      return base.store.claim(all);
    },
  });

export const retentionPassed = ({ now, claimedAt, owners }: Base, key: Key) => now() > claimedAt.get(key)! + owners.get(key)!.retainMs;
