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

/** An entry is used for at most this long, so that a record that people forget through the store is soon forgotten here too. */
const usedForMs = 60_000;

export function completedCache(clock: Clock, options: { readonly size: number; readonly retentionMs: number }): CompletedCache {
  const entries = new Map<Key, Completed & { readonly until: number }>();
  return {
    get(key, fingerprint) {
      const entry = entries.get(key);
      if (!entry) return undefined;
      if (clock.now() >= entry.until) {
        entries.delete(key);
        return undefined;
      }
      // Another payload: the store decides.
      return entry.fingerprint === fingerprint ? entry : undefined;
    },
    add(key, completed) {
      if (options.size === 0) return;
      const now = clock.now();
      // The copy in the store may have been written earlier than we think by one round trip; a tenth of the time is margin enough.
      const until = Math.min(now + usedForMs, completed.at + options.retentionMs * 0.9);
      entries.delete(key);
      entries.set(key, { ...completed, until });
      if (entries.size > options.size) entries.delete(entries.keys().next().value!);
    },
  };
}
