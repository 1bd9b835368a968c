import type { Message } from './message.ts';

/**
 * The dedup store: where the receiver remembers which messages it has handled. Words:
 *
 * - key: what makes two deliveries the same message, as a digest.
 * - fingerprint: digest of the payload. Same key with another fingerprint is a mismatch, never a duplicate.
 * - claim: the right to run the handler for a key: a secret `token`, a `fence` that only grows, and a lease.
 * - record: what the store remembers of a key: claimed, released, completed or parked.
 * - settle: to end a claim.
 *
 * The contract. The numbers are those of the contract suite in `idempotent-receiver/testing`, which every store must pass:
 *
 *  1. Every call takes an array and answers in the order in which it was asked, one answer for each. Items of one call act in that
 *     order, so of two asks for one key the second meets the first one's claim. An empty array is answered by an empty array.
 *  2. Of any number of concurrent claims for a key, exactly one is answered `claimed`; the others are answered `busy`.
 *  3. A completed record is answered `completed` until its retention ends, with the result that was stored with it, if any.
 *  4. Same key with another fingerprint is answered `mismatch`, whatever the state of the record, and changes nothing. Fingerprints
 *     are compared only where both are not empty.
 *  5. A claim ends by `settle`, or becomes available to others when its lease has ended. Until others take it, its token stays
 *     current: it can still be extended and settled.
 *  6. Each new claim of a key gets a greater fence than any before it, also after the record has expired, was forgotten or purged.
 *  7. `settle` and `extend` with a token that is not current change nothing and are answered `fenced`. A token is current from its claim
 *     to its settle; one that has settled can't be extended, or settled in another way.
 *  8. All three are idempotent for their token, because clients re-send after a lost reply: a claim that is asked again with the
 *     token that holds it is answered as before (same fence, same attempt, same `orphaned`) and has its lease from then on; a settle that
 *     is asked again, while its record is still there, is answered `ok` and changes nothing.
 *  9. `attempt` counts the claims of a key, durably, also those whose process died. A release with `counted: false` takes its own
 *     back. `orphaned` is true if the claim was taken over from an owner whose lease had ended.
 * 10. A released key can be claimed at once. A parked one is answered `parked`, with its reason, until its retention ends.
 * 11. No record without an end: each expires `retainMs` after it was last written, but never while its lease runs. An extension is a
 *     write. An expired record is answered as absent, whether or not it has been purged.
 * 12. `purge` deletes at most `limit` expired records and answers how many. It deletes nothing else.
 * 13. The time that decides is the store's own, never the caller's.
 * 14. Durable before answered: what was answered survives a crash of the store, at the durability that the store documents.
 * 15. Fail closed: when in doubt, throw. A store never answers `claimed`, `completed` or `ok` without knowing. A record that can't be
 *     read is answered `corrupt`, never taken for absent.
 */
export interface DedupStore {
  /** Claims keys. See 1-6, 8-11. */
  claim(asks: readonly Ask[]): Promise<readonly Answer[]>;
  /** Ends claims: complete, release or park. See 5, 7-10. */
  settle(ends: readonly End[]): Promise<readonly Settled[]>;
  /** Gives claims a new lease of `leaseMs` from now. See 5, 7, 8. */
  extend(holds: readonly Hold[]): Promise<readonly Settled[]>;
  /** Deletes expired records, at most `limit` of them; answers how many. See 12. */
  purge(limit: number): Promise<number>;
}

/** Digest of scope and id: 32 characters of base64url (192 bits). */
export type Key = string;

/** Digest of a payload: 22 characters of base64url (128 bits), or empty when fingerprints are off. */
export type Fingerprint = string;

/** Asks for the claim of a key. */
export interface Ask {
  readonly key: Key;
  readonly fingerprint: Fingerprint;
  /** Secret and new for each claim. Asking again with the same token means the same claim. */
  readonly token: string;
  readonly leaseMs: number;
  /** How long the record is remembered after its last write, in milliseconds. At least `leaseMs`. */
  readonly retainMs: number;
}

/** The store's answer to an `Ask`. */
export type Answer =
  | { readonly state: 'claimed'; readonly fence: number; readonly attempt: number; readonly orphaned: boolean }
  /** `ageMs`: since it was completed. `result`: the encoded result, if one was stored. */
  | { readonly state: 'completed'; readonly result?: string | undefined; readonly ageMs: number }
  /** `remainingMs`: until the owner's lease ends, if it is not extended. */
  | { readonly state: 'busy'; readonly remainingMs: number }
  | { readonly state: 'parked'; readonly reason: string; readonly detail: string; readonly attempts: number }
  | { readonly state: 'mismatch' }
  | { readonly state: 'corrupt'; readonly detail: string };

/** Names a claim by key and token, and what is to become of it. */
export type End = { readonly key: Key; readonly token: string; readonly retainMs: number } & Ending;

/** How a claim ends. */
export type Ending =
  | { readonly as: 'completed'; readonly result?: string | undefined }
  /** `counted: false` gives the attempt back: the handler was never started. */
  | { readonly as: 'released'; readonly counted: boolean }
  /** `label` is shown to people who list parked records: the scope and the clear id. */
  | { readonly as: 'parked'; readonly reason: string; readonly detail: string; readonly label: string };

/** Names a claim whose lease is to be extended. */
export interface Hold {
  readonly key: Key;
  readonly token: string;
  readonly leaseMs: number;
}

/** `fenced`: the token is not current, and nothing was changed. */
export type Settled = 'ok' | 'fenced';

/**
 * A store that can put a record and the handler's effects into one transaction. Its contract beside that of the records:
 *
 * 20. What happens inside `unit` commits as one or not at all. It has committed when `unit` resolves, and has not when it rejects
 *     with anything but an error of code `commit-in-doubt`, or `claim-lost`: its outcome is then the new owner's to know.
 * 21. An outcome of a commit that the driver left in doubt is settled inside, by reading back.
 * 22. Units never see each other's uncommitted writes. Of two units that record a key at once, one is answered `claimed`.
 */
export interface TransactionalStore<Tx> {
  /** How many units a receiver may have open at the same time, of one partition where there are any. Default: 1. */
  readonly unitsAtOnce?: number | undefined;
  /**
   * True if a unit commits only after, and only if, those of its partition that were begun before it have. Its handlers may then run while those
   * commit, and `record` answers for what they are about to commit.
   */
  readonly chained?: boolean | undefined;
  /** True if a transaction belongs to one partition of the broker. `unit` is then called with its name. */
  readonly perPartition?: boolean | undefined;
  /** False if its records keep no results: a receiver with `results: true` is refused. */
  readonly keepsResults?: boolean | undefined;
  /**
   * Runs `work` in a transaction and commits it. If `work` rejects, everything is rolled back and the same error is thrown.
   * `partition` is `Source.partition`.
   */
  unit<R>(work: (unit: Unit<Tx>) => Promise<R>, partition?: string): Promise<R>;
}

/** One transaction. Its methods are called one after another, never at the same time. */
export interface Unit<Tx> {
  /**
   * Records keys as completed, in this transaction, and answers as `claim` does: `claimed` means that the record is now this unit's
   * own. A claim that is held under the same token is turned into the record, keeping its attempt and fence. No lease is involved.
   * A key that this unit has recorded under another token is `busy`, because its handler may still fail.
   */
  record(asks: readonly Ask[]): Promise<readonly Answer[]>;
  /**
   * Runs `run` in a savepoint. If it rejects, what it wrote through `tx` is undone, nothing else, and the same error is thrown.
   * `cause`: the message whose handler runs in it.
   */
  savepoint<T>(run: (tx: Tx) => Promise<T>, cause?: Cause): Promise<T>;
  /**
   * True after a savepoint whose `run` has failed because of what another transaction did, as in a deadlock. What this unit has locked for the messages
   * before may be in the way of both, so the receiver commits it, and goes on in another unit. Not where units are `chained`.
   */
  readonly crowded?: boolean | undefined;
  /**
   * Changes what this unit recorded: a result for a completed one, released or parked for one whose handler failed. The last word
   * counts. Records of units are settled here only: their tokens are worth nothing once the unit has ended.
   */
  settle(ends: readonly End[]): Promise<readonly Settled[]>;
}

/** The message that an effect comes from, and the key that was recorded for it. */
export interface Cause {
  readonly key: Key;
  readonly message: Message;
}

/** What people and tools may do with records. Every store that can offers it. */
export interface StoreAdmin {
  /** The record of a key, or undefined. */
  inspect(key: Key): Promise<RecordView | undefined>;
  /** Parked records, oldest first; `after` is the key of the last one seen. If that is parked no more, from the oldest. */
  listParked(options: { readonly limit: number; readonly after?: Key | undefined }): Promise<readonly RecordView[]>;
  /** Lets a parked message be tried again, with its attempts back at 0. False if the key is not parked. */
  replay(key: Key): Promise<boolean>;
  /** Forgets a record, so that its message would be new. False if there is none, or if it is claimed under a running lease. */
  forget(key: Key): Promise<boolean>;
  /** How many records there are in each state, expired ones not counted. */
  stats(): Promise<StoreStats>;
}

/** A record as shown to people. Its token is secret and not part of it. */
export interface RecordView {
  readonly key: Key;
  readonly state: 'claimed' | 'released' | 'completed' | 'parked';
  readonly attempts: number;
  readonly fence: number;
  /** Since the last write, in milliseconds. */
  readonly ageMs: number;
  /** Until it is forgotten, in milliseconds. */
  readonly remainingMs: number;
  readonly reason?: string | undefined;
  readonly detail?: string | undefined;
  readonly label?: string | undefined;
}

export type StoreStats = Readonly<Record<RecordView['state'], number>>;
