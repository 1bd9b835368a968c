import type { Clock } from './clock.ts';
import type { Fingerprint, Key } from './store.ts';

/** What this process knows to be completed. */
export interface Completed {
  readonly fingerprint: Fingerprint;
  readonly result: string | undefined;
  /** When it was completed, on the monotonic clock. */
  readonly at: number;
}

/** Remembers completed keys, so that a copy that comes soon after costs no round trip. Completed is final, so only forgetting has to be waited for. */
export interface CompletedCache {
  get(key: Key, fingerprint: Fingerprint): Completed | undefined;
  add(key: Key, completed: Completed): void;
}

/** An entry is used for so long after the completion, so that a record that people forget through the store is soon forgotten here too. */
const usedForMs = 60_000;

/** Longer results stay in the store: 10,000 of them may be more than a process can hold. */
const maxResultLength = 1_024;

export function completedCache(clock: Clock, options: { readonly size: number; readonly retentionMs: number }): CompletedCache {
  // Two generations instead of an order of use: when the young one holds half of what may be held, it becomes the old one. A Map
  // that loses its oldest entry on each insert would search longer for it each time.
  let young = new Map<Key, Completed>();
  let old = new Map<Key, Completed>();
  // The copy in the store may have been written earlier than we think by one round trip; a tenth of the time is margin enough.
  const forMs = Math.min(usedForMs, options.retentionMs * 0.9);
  return {
    get(key, fingerprint) {
      const entry = young.get(key) ?? old.get(key);
      // Another payload: the store decides.
      return entry && entry.fingerprint === fingerprint && clock.now() < entry.at + forMs ? entry : undefined;
    },
    add(key, completed) {
      const { result } = completed;
      if (options.size === 0 || (result !== undefined && result.length > maxResultLength)) return;
      if (young.size >= options.size / 2) {
        old = young;
        young = new Map();
      }
      young.set(key, completed);
    },
  };
}
