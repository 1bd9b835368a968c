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
  function find(key: Key): MemoryRecord | undefined {
    const record = records.get(key);
    return record && record.expiresAt > now() ? record : undefined;
  }

  function claimOne(ask: Ask): Answer {
    const record = find(ask.key);
    if (!record) return take(ask, 1, false);
    if (record.fingerprint !== '' && ask.fingerprint !== '' && record.fingerprint !== ask.fingerprint) return { state: 'mismatch' };
    switch (record.state) {
      case 'completed':
        return { state: 'completed', result: record.result, ageMs: now() - record.writtenAt };
      case 'parked':
        return { state: 'parked', reason: record.reason, detail: record.detail, attempts: record.attempts };
      case 'released':
        return take(ask, record.attempts + 1, false, record);
      case 'claimed': {
        if (record.token === ask.token) {
          lease(record, ask.leaseMs, ask.retainMs);
          return { state: 'claimed', fence: record.fence, attempt: record.attempts, orphaned: record.orphaned };
        }
        const remainingMs = record.leaseUntil - now();
        return remainingMs > 0 ? { state: 'busy', remainingMs } : take(ask, record.attempts + 1, true, record);
      }
    }
  }

  function take(ask: Ask, attempts: number, orphaned: boolean, before?: MemoryRecord): Answer {
    const fence = ++lastFence;
    const record: MemoryRecord = {
      ...blank,
      key: ask.key,
      fingerprint: before?.fingerprint || ask.fingerprint,
      entries: before?.entries ?? new Map(),
      state: 'claimed',
      token: ask.token,
      fence,
      attempts,
      orphaned,
    };
    lease(record, ask.leaseMs, ask.retainMs);
    records.set(ask.key, record);
    return { state: 'claimed', fence, attempt: attempts, orphaned };
  }

  function settleOne(end: End): Settled {
    const record = find(end.key);
    if (!record || record.token !== end.token) return 'fenced';
    // The same ending again is a reply that was lost; another one comes too late for a claim that has ended.
    if (record.state !== 'claimed') return record.state === end.as ? 'ok' : 'fenced';
    record.state = end.as;
    if (end.as === 'completed') record.result = end.result;
    if (end.as === 'released' && !end.counted) record.attempts--;
    if (end.as === 'parked') Object.assign(record, { reason: end.reason, detail: end.detail, label: end.label });
    lease(record, 0, end.retainMs);
    return 'ok';
  }

  function extendOne(hold: Hold): Settled {
    const record = find(hold.key);
    if (!record || record.token !== hold.token || record.state !== 'claimed') return 'fenced';
    lease(record, hold.leaseMs, record.retainMs);
    return 'ok';
  }

  /** The entries of a record, if the token holds its claim. */
  function entriesOf({ key, token }: ClaimRef): Map<string, Entry> | undefined {
    const record = find(key);
    return record?.state === 'claimed' && record.token === token ? record.entries : undefined;
  }

  function writeOne({ name, state, text, ...claim }: EntryWrite): Settled {
    const entries = entriesOf(claim);
    if (!entries) return 'fenced';
    const before = entries.get(name);
    if (!before || before.state === 'started') entries.set(name, { name, state, text });
    return 'ok';
  }

  function readOne(claim: ClaimRef): Entries {
    const entries = entriesOf(claim);
    return entries ? [...entries.values()] : 'fenced';
  }

  /** Every write ends here: the record is kept for `retainMs` from now, and never less than its lease. */
  function lease(record: MemoryRecord, leaseMs: number, retainMs: number): void {
    record.writtenAt = now();
    record.leaseUntil = record.writtenAt + leaseMs;
    record.retainMs = retainMs;
    record.expiresAt = record.writtenAt + Math.max(leaseMs, retainMs);
  }

  function view(record: MemoryRecord): RecordView {
    const { key, state, attempts, fence } = record;
    const shown = { key, state, attempts, fence, ageMs: now() - record.writtenAt, remainingMs: record.expiresAt - now() };
    return state === 'parked' ? { ...shown, reason: record.reason, detail: record.detail, label: record.label } : shown;
  }

  return {
    claim: async (asks) => asks.map(claimOne),
    settle: async (ends) => ends.map(settleOne),
    extend: async (holds) => holds.map(extendOne),
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
      lease(record, 0, record.retainMs);
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
  readonly entries: Map<string, Entry>;
  result: string | undefined;
  reason: string;
  detail: string;
  label: string;
  leaseUntil: number;
  retainMs: number;
  writtenAt: number;
  expiresAt: number;
}

const blank = { result: undefined, reason: '', detail: '', label: '', leaseUntil: 0, retainMs: 0, writtenAt: 0, expiresAt: 0 };
