import type { Key, Settled } from '../store.ts';

/**
 * The journal: what the steps of a message have come to, so that a later attempt need not do them again. A store may offer it beside its
 * records; an entry belongs to a record, and to the claim that wrote it. The contract goes on from that of `DedupStore`:
 *
 * 30. Both verbs take an array and answer in the order asked, one answer for each. Items of one call act in that order.
 * 31. A write counts only under the token that holds the key's claim. Any other is answered `fenced` and changes nothing: a token that
 *     others have taken over from, one that has settled, one of a key that has no record. As in 5, a claim whose lease has ended still
 *     holds until others take it.
 * 32. `done` and `failed` are final. A write to a final entry changes nothing and is answered `ok`: it is a write that was sent again.
 *     `started` gives way to both.
 * 33. Entries live and die with their record. Releases, takeovers, parking and replay keep them; a record that has expired, was purged or
 *     was forgotten takes them along, so that the next record of its key has none.
 * 34. `readEntries` answers all entries of a key, in any order, or `fenced`. What a call has written, the next one reads.
 * 35. Name and text come back as they were written: any well-formed text. Two names are the same only if all their characters are.
 * 36. Durable before answered, as 14. When in doubt, throw, as 15.
 */
export interface Journal {
  /** True if it can be written while a transaction of the same store is open, so that it can be the `journal` of its own units. */
  readonly besideUnits?: boolean | undefined;
  /** Writes entries of claims. See 30-33, 35, 36. */
  writeEntries(writes: readonly EntryWrite[]): Promise<readonly Settled[]>;
  /** Reads all entries of claims. See 30, 31, 34. */
  readEntries(claims: readonly ClaimRef[]): Promise<readonly Entries[]>;
}

/** Names a claim. */
export interface ClaimRef {
  readonly key: Key;
  readonly token: string;
}

export interface Entry {
  /** 1 to 500 characters, none of them a control character; unique among the entries of a key. */
  readonly name: string;
  readonly state: 'started' | 'done' | 'failed';
  /** What the library keeps there; the store need not understand it. */
  readonly text: string;
}

export interface EntryWrite extends ClaimRef, Entry {}

/** The answer for one claim. */
export type Entries = readonly Entry[] | 'fenced';

export function isJournal(store: object): store is Journal {
  const { writeEntries, readEntries } = store as Partial<Journal>;
  return typeof writeEntries === 'function' && typeof readEntries === 'function';
}
