/**
 * The completed ids of a partition, in memory: 128 bits of the key and 32 of the fingerprint, 20 bytes each, in open-addressed tables that are
 * filled to 70 %. A table holds the ids of a span of time, and is dropped as a whole when all of them have expired.
 *
 * So two ids are taken for one with a chance of one in 2^128 a pair, and another payload of a known id is missed once in 2^32.
 */
export interface IdIndex {
  /** Adds the entry at `entry` of `words`, five words each, that was written at `atMs`. */
  add(words: Int32Array, entry: number, atMs: number): void;
  /** The fingerprint's word (0 for none) and since when it is known at the latest, or undefined. */
  find(words: Int32Array, entry: number): { readonly fingerprint: number; readonly atMs: number } | undefined;
  /** Forgets tables whose newest entry was written before `beforeMs`. */
  expire(beforeMs: number): void;
  readonly size: number;
  readonly bytes: number;
}

/** Four words of the key, one of the fingerprint. */
export const entryWords = 5;

const firstSlots = 1_024;
const maxSlots = 1 << 21;
const fullAt = 0.7;

interface Table {
  slots: number;
  words: Int32Array;
  size: number;
  readonly oldestMs: number;
  newestMs: number;
}

/** `spanMs`: how long one table is filled at most. What it holds is remembered longer by as much. */
export function idIndex({ spanMs }: { readonly spanMs: number }): IdIndex {
  /** The newest last. Only that is written. */
  const tables: Table[] = [];

  function writable(atMs: number): Table {
    let table = tables.at(-1);
    if (table && (atMs - table.oldestMs > spanMs || (table.size >= table.slots * fullAt && table.slots >= maxSlots))) {
      resize(table, Math.max(1, Math.ceil(table.size / fullAt)));
      table = undefined;
    }
    if (!table) {
      table = { slots: firstSlots, words: new Int32Array(firstSlots * entryWords), size: 0, oldestMs: atMs, newestMs: atMs };
      tables.push(table);
    }
    if (table.size >= table.slots * fullAt) resize(table, Math.min(maxSlots, table.slots * 2));
    if (atMs > table.newestMs) table.newestMs = atMs;
    return table;
  }

  return {
    add(words, entry, atMs) {
      insert(writable(atMs), words, entry * entryWords);
    },

    find(words, entry) {
      for (let i = tables.length - 1; i >= 0; i--) {
        const table = tables[i]!;
        const at = slotOf(table, words, entry * entryWords);
        if (isTaken(table.words, at)) return { fingerprint: table.words[at + 4]!, atMs: table.oldestMs };
      }
      return undefined;
    },

    expire(beforeMs) {
      while (tables.length > 0 && tables[0]!.newestMs < beforeMs) tables.shift();
    },

    get size() {
      return tables.reduce((sum, { size }) => sum + size, 0);
    },

    get bytes() {
      return tables.reduce((sum, { words }) => sum + words.byteLength, 0);
    },
  };
}

function insert(table: Table, words: Int32Array, from: number): void {
  const at = slotOf(table, words, from);
  const to = table.words;
  if (!isTaken(to, at)) {
    table.size++;
    to[at] = words[from]!;
    to[at + 1] = words[from + 1]!;
    to[at + 2] = words[from + 2]!;
    to[at + 3] = words[from + 3]!;
  }
  to[at + 4] = words[from + 4]!;
}

/** Where an entry is, or the free place where it would be. There always is one: a table is never full. */
function slotOf({ slots, words: table }: Table, words: Int32Array, from: number): number {
  const a = words[from]!;
  const b = words[from + 1]!;
  const c = words[from + 2]!;
  const d = words[from + 3]!;
  let at = Math.floor(((a >>> 0) / 0x1_0000_0000) * slots) * entryWords;
  for (;;) {
    if (table[at] === a && table[at + 1] === b && table[at + 2] === c && table[at + 3] === d) return at;
    if (!isTaken(table, at)) return at;
    at += entryWords;
    if (at === table.length) at = 0;
  }
}

/** No digest is all zeros. */
function isTaken(table: Int32Array, at: number): boolean {
  return (table[at]! | table[at + 1]! | table[at + 2]! | table[at + 3]!) !== 0;
}

function resize(table: Table, slots: number): void {
  if (slots === table.slots) return;
  const old = table.words;
  // One slot is always free, so that a search ends.
  table.slots = Math.max(slots, table.size + 1);
  table.words = new Int32Array(table.slots * entryWords);
  table.size = 0;
  for (let at = 0; at < old.length; at += entryWords) if (isTaken(old, at)) insert(table, old, at);
}
