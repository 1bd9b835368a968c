import type { ClaimRef, Entries, Entry, EntryWrite, Journal } from '../../src/effects/journal.ts';
import type { Answer, Ask, DedupStore, End, Hold, Key, RecordView, Settled, StoreAdmin } from '../../src/store.ts';

/** Options of {@link memoryStore}. */
export interface MemoryStoreOptions {
  /** The store's clock, in milliseconds from any origin. Must not go back. Default: `performance.now`. */
  readonly now?: () => number;
}

/**
 * A store in this process's memory: the reference that other stores are compared with, and good for tests and for single processes
 * whose messages may be handled again after a restart. Nothing survives the process. `purge` and `listParked` look at every record.
 */
export function memoryStore(options: MemoryStoreOptions = {}): DedupStore & Journal & StoreAdmin {
  const now = options.now ?? (() => performance.now());
  const records = new Map<Key, MemoryRecord>();
  // One counter for all keys: fences of a key grow even when its record has been forgotten in between.
  let lastFence = 0;

  /** The record of a key, unless it has expired: an expired record is absent, purged or not. */
  function find(key: Key, at: number = now()): MemoryRecord | undefined {
    const record = records.get(key);
    return record && record.expiresAt > at ? record : undefined;
  }

  function claimOne(ask: Ask, at: number): Answer {
    const record = find(ask.key, at);
    if (!record) return take(ask, at, 1, false);
    if (record.fingerprint !== '' && ask.fingerprint !== '' && record.fingerprint !== ask.fingerprint) return { state: 'mismatch' };
    switch (record.state) {
      case 'completed':
        return { state: 'completed', result: record.result, ageMs: at - record.writtenAt };
      case 'parked':
        return { state: 'parked', reason: record.reason, detail: record.detail, attempts: record.attempts };
      case 'released':
        return take(ask, at, record.attempts + 1, false, record);
      case 'claimed': {
        if (record.token === ask.token) {
          lease(record, at, ask.leaseMs, ask.retainMs);
          return { state: 'claimed', fence: record.fence, attempt: record.attempts, orphaned: record.orphaned };
        }
        const remainingMs = record.leaseUntil - at;
        return remainingMs > 0 ? { state: 'busy', remainingMs } : take(ask, at, record.attempts + 1, true, record);
      }
    }
  }

  function take(ask: Ask, at: number, attempts: number, orphaned: boolean, before?: MemoryRecord): Answer {
    const fence = ++lastFence;
    const record: MemoryRecord = {
      key: ask.key,
      fingerprint: before?.fingerprint || ask.fingerprint,
      entries: before?.entries,
      state: 'claimed',
      token: ask.token,
      fence,
      attempts,
      orphaned,
      result: undefined,
      reason: '',
      detail: '',
      label: '',
      leaseUntil: 0,
      retainMs: 0,
      writtenAt: 0,
      expiresAt: 0,
    };
    lease(record, at, ask.leaseMs, ask.retainMs);
    records.set(ask.key, record);
    return { state: 'claimed', fence, attempt: attempts, orphaned };
  }

  function settleOne(end: End, at: number): Settled {
    const record = find(end.key, at);
    if (!record || record.token !== end.token) return 'fenced';
    // The same ending again is a reply that was lost; another one comes too late for a claim that has ended.
    if (record.state !== 'claimed') return record.state === end.as ? 'ok' : 'fenced';
    record.state = end.as;
    if (end.as === 'completed') record.result = end.result;
    if (end.as === 'released' && !end.counted) record.attempts--;
    if (end.as === 'parked') Object.assign(record, { reason: end.reason, detail: end.detail, label: end.label });
    lease(record, at, 0, end.retainMs);
    return 'ok';
  }

  function extendOne(hold: Hold, at: number): Settled {
    const record = find(hold.key, at);
    if (!record || record.token !== hold.token || record.state !== 'claimed') return 'fenced';
    lease(record, at, hold.leaseMs, record.retainMs);
    return 'ok';
  }

  /** The record of a key, if the token holds its claim. */
  function held({ key, token }: ClaimRef): MemoryRecord | undefined {
    const record = find(key);
    return record?.state === 'claimed' && record.token === token ? record : undefined;
  }

  function writeOne({ name, state, text, ...claim }: EntryWrite): Settled {
    const record = held(claim);
    if (!record) return 'fenced';
    record.entries ??= new Map();
    const before = record.entries.get(name);
    if (!before || before.state === 'started') record.entries.set(name, { name, state, text });
    return 'ok';
  }

  function readOne(claim: ClaimRef): Entries {
    const record = held(claim);
    return record ? [...(record.entries?.values() ?? [])] : 'fenced';
  }

  /** Every write ends here: the record is kept for `retainMs` from now, and never less than its lease. */
  function lease(record: MemoryRecord, at: number, leaseMs: number, retainMs: number): void {
    record.writtenAt = at;
    record.leaseUntil = record.writtenAt + leaseMs;
    record.retainMs = retainMs;
    record.expiresAt = record.writtenAt + Math.max(leaseMs, retainMs);
  }

  function view(record: MemoryRecord): RecordView {
    const { key, state, attempts, fence } = record;
    const shown = { key, state, attempts, fence, ageMs: now() - record.writtenAt, remainingMs: record.expiresAt - now() };
    return state === 'parked' ? { ...shown, reason: record.reason, detail: record.detail, label: record.label } : shown;
  }

  /** All items of a call act at one time. */
  function each<In, Out>(act: (item: In, at: number) => Out): (items: readonly In[]) => Promise<Out[]> {
    return async (items) => {
      const at = now();
      return items.map((item) => act(item, at));
    };
  }

  return {
    claim: each(claimOne),
    settle: each(settleOne),
    extend: each(extendOne),
    writeEntries: async (writes) => writes.map(writeOne),
    readEntries: async (claims) => claims.map(readOne),

    async purge(limit) {
      let purged = 0;
      for (const [key, record] of records) {
        if (purged >= limit) break;
        if (record.expiresAt > now()) continue;
        records.delete(key);
        purged++;
      }
      return purged;
    },

    async inspect(key) {
      const record = find(key);
      return record && view(record);
    },

    async listParked({ limit, after }) {
      const parked = [...records.values()]
        .filter((record) => record.state === 'parked' && record.expiresAt > now())
        .sort((a, b) => a.writtenAt - b.writtenAt || (a.key < b.key ? -1 : 1));
      const start = parked.findIndex((record) => record.key === after) + 1;
      return parked.slice(start, start + limit).map(view);
    },

    async replay(key) {
      const record = find(key);
      if (record?.state !== 'parked') return false;
      Object.assign(record, { state: 'released', attempts: 0 });
      lease(record, now(), 0, record.retainMs);
      return true;
    },

    async forget(key) {
      const record = find(key);
      if (!record || (record.state === 'claimed' && record.leaseUntil > now())) return false;
      return records.delete(key);
    },

    async stats() {
      const count = { claimed: 0, released: 0, completed: 0, parked: 0 };
      for (const record of records.values()) if (record.expiresAt > now()) count[record.state]++;
      return count;
    },
  };
}

interface MemoryRecord {
  readonly key: Key;
  fingerprint: string;
  state: RecordView['state'];
  /** Of the owner, or of the last one when the claim has ended: re-sent endings are known by it. */
  token: string;
  fence: number;
  attempts: number;
  orphaned: boolean;
  /** Most messages have no steps. */
  entries: Map<string, Entry> | undefined;
  result: string | undefined;
  reason: string;
  detail: string;
  label: string;
  leaseUntil: number;
  retainMs: number;
  writtenAt: number;
  expiresAt: number;
}
