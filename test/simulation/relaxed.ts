import type { DedupStore } from '../../src/store.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';

/** So often a store of relaxed durability writes to its disk what it has answered before. */
const syncMs = 3_000;

/** What a crash takes back: everything since then. */
export const syncedAt = (now: number): number => Math.floor(now / syncMs) * syncMs;

/** A store that answers before it is durable (Redis with `appendfsync everysec`, which is less often here): a crash takes it back to its last sync. */
export interface RelaxedStore extends DedupStore {
  crash(): void;
}

export function relaxedStore(kernel: Kernel, make: (now: () => number) => DedupStore): RelaxedStore {
  let clock = () => kernel.now;
  let store = make(() => clock());
  let log: { readonly at: number; readonly play: () => unknown }[] = [];
  const logged = (verb: 'claim' | 'settle' | 'extend') => (items: readonly never[]) => {
    const play = () => store[verb](items) as Promise<never[]>;
    log.push({ at: kernel.now, play });
    return play();
  };
  return {
    claim: logged('claim'),
    settle: logged('settle'),
    extend: logged('extend'),
    // What has expired is absent, purged or not.
    purge: (limit) => store.purge(limit),
    crash() {
      const until = syncedAt(kernel.now);
      log = log.filter(({ at }) => at < until);
      let past = 0;
      clock = () => past;
      store = make(() => clock());
      for (const { at, play } of log) {
        past = at;
        void play();
      }
      clock = () => kernel.now;
    },
  };
}
