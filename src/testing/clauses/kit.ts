import assert from 'node:assert/strict';
import { digest } from '../../digest.ts';
import type { Answer, Ask, DedupStore, Ending, Key, Settled, StoreAdmin } from '../../store.ts';

/** What a store's test gives to each clause: an empty store, and its time. */
export interface StoreHarness {
  /** Empty, and used by this clause alone. */
  readonly store: DedupStore & Partial<StoreAdmin>;
  /** Moves the store's clock on. It must not wait for real time where the store's clock can be moved otherwise. */
  elapse(ms: number): Promise<void> | void;
  /** By how much the store's clock may move during a clause by itself, in milliseconds. Default: 0, a clock that stands still. */
  readonly precisionMs?: number;
  /** Another client of the same data, for races. Default: `store` itself. */
  another?(): Promise<DedupStore>;
  /** Restarts the store, hard, and opens it again. For clause 14. */
  reopen?(): Promise<DedupStore & Partial<StoreAdmin>>;
  /** Damages the record of a key behind the store's back. For clause 15. */
  corrupt?(key: Key): Promise<void> | void;
  close?(): Promise<void> | void;
}

/** One sentence of the contract, and how to find out whether it holds. */
export interface Clause<Harness = StoreHarness> {
  /** Number in `src/store.ts` and a letter; `admin` and a letter for `StoreAdmin`. */
  readonly id: string;
  readonly says: string;
  /** What of the harness it needs. A harness without it must skip the clause, with a reason. */
  readonly needs?: keyof Harness | 'admin';
  run(harness: Harness): Promise<void>;
}

/** Lease and retention of all clauses, unless they are about them. */
export const leaseMs = 10_000;
export const retainMs = 100_000;

/** A key, the same each time for one name. */
export const keyOf = (name: string | number): Key => digest(['contract', String(name)], 32);
export const fingerprintOf = (name: string | number): string => digest(['fingerprint', String(name)], 22);

/** An ask for the key `name`; the token is `token` and the payload is the same for each ask of that key. */
export function ask(name: string | number, token: string, change: Partial<Ask> = {}): Ask {
  return { key: keyOf(name), fingerprint: fingerprintOf(name), token, leaseMs, retainMs, ...change };
}

export const asCompleted: Ending = { as: 'completed' };
export const asReleased: Ending = { as: 'released', counted: true };
export const asUncounted: Ending = { as: 'released', counted: false };
export const asParked: Ending = { as: 'parked', reason: 'max-attempts', detail: 'Error: 7 of 7', label: 'billing/order-1' };

/** The verbs for one key, without the arrays. */
export function single(store: DedupStore) {
  return {
    async claim(name: string | number, token: string, change: Partial<Ask> = {}): Promise<Answer> {
      return one(await store.claim([ask(name, token, change)]));
    },
    async settle(name: string | number, token: string, ending: Ending, retain: number = retainMs): Promise<Settled> {
      return one(await store.settle([{ key: keyOf(name), token, retainMs: retain, ...ending }]));
    },
    async extend(name: string | number, token: string, lease: number = leaseMs): Promise<Settled> {
      return one(await store.extend([{ key: keyOf(name), token, leaseMs: lease }]));
    },
  };
}

function one<T>(answers: readonly T[]): T {
  assert.equal(answers.length, 1, 'one answer for one item');
  return answers[0]!;
}

/** The answer, which must be `claimed`. */
export function claimed(answer: Answer | undefined): Extract<Answer, { state: 'claimed' }> {
  assert.equal(answer?.state, 'claimed', `expected the claim to be given, got ${JSON.stringify(answer)}`);
  return answer as Extract<Answer, { state: 'claimed' }>;
}

export function expectState(answer: Answer | undefined, state: Answer['state'], why?: string): void {
  assert.equal(answer?.state, state, why && `${why}: got ${JSON.stringify(answer)}`);
}

/** `got` is `expected`, or less by as much as the store's clock may have moved. */
export function expectAbout(got: number, expected: number, { precisionMs = 0 }: StoreHarness, what: string): void {
  assert.ok(
    got <= expected + precisionMs && got >= expected - precisionMs,
    `expected ${what} of ${expected} ms, within ${precisionMs}, got ${got}`,
  );
}

/** The admin verbs; the suite has checked that they are there. */
export const adminOf = (store: Partial<StoreAdmin>): StoreAdmin => store as StoreAdmin;

/** Brings a new key into a state. Its token is `owner`. */
export const states: Readonly<
  Record<'claimed' | 'orphaned' | 'released' | 'completed' | 'parked', (harness: StoreHarness, name: string) => Promise<void>>
> = {
  async claimed({ store }, name) {
    claimed(await single(store).claim(name, 'owner'));
  },
  async orphaned({ store, elapse }, name) {
    claimed(await single(store).claim(name, 'owner'));
    await elapse(leaseMs + 1);
  },
  async released({ store }, name) {
    claimed(await single(store).claim(name, 'owner'));
    assert.equal(await single(store).settle(name, 'owner', asReleased), 'ok');
  },
  async completed({ store }, name) {
    claimed(await single(store).claim(name, 'owner'));
    assert.equal(await single(store).settle(name, 'owner', asCompleted), 'ok');
  },
  async parked({ store }, name) {
    claimed(await single(store).claim(name, 'owner'));
    assert.equal(await single(store).settle(name, 'owner', asParked), 'ok');
  },
};

export const stateNames = Object.keys(states) as (keyof typeof states)[];
