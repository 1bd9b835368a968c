import type { Answer, Ask, End, Hold, Key, Settled } from '../../src/store.ts';
import type { Kernel } from './kernel.ts';
import type { Ledger, Run } from './ledger.ts';
import { syncedAt } from './relaxed.ts';
import { claimRow, endRow, extendRow, type Row, recordRow, settleRow } from './rows.ts';

/** Refused by the database: nothing of the transaction has been or will be committed. */
export class Aborted extends Error {}

/** One transaction, on the server. */
export interface Tx {
  state: 'open' | 'committed' | 'aborted';
  readonly written: Map<Key, Row>;
  /** What was read of each key: in optimistic isolation it must still be so at the commit. */
  readonly read: Map<Key, Row | undefined>;
  /** Keys that this transaction has recorded, as they were claimed. */
  readonly own: Map<Key, Row>;
  effects: Run[];
  readonly savepoints: number[];
  lastUsedAt: number;
}

/** A transaction that nobody uses for so long is rolled back by the server: its client may be a zombie. */
const idleMs = 8_000;
/** So long a transaction waits for the one before it. */
const lockWaitMs = 2_500;

/**
 * A database with transactions, in which records and effects commit together or not at all. `exclusive`: one writer at a time, the others wait
 * (SQLite). `optimistic`: all at once, and whoever commits second what both have read is refused (DynamoDB, serializable Postgres).
 */
export class Database {
  readonly rows = new Map<Key, Row>();
  /** What was purged, for those who look from outside. */
  readonly purged = new Map<Key, Row>();
  conflicts = 0;
  /** Keys whose last commits a crash has taken back, and when. */
  readonly lost = new Map<Key, number[]>();
  readonly #kernel: Kernel;
  readonly #ledger: Pick<Ledger, 'commit' | 'undo'>;
  readonly #exclusive: boolean;
  readonly #relaxed: boolean;
  readonly #open = new Set<Tx>();
  /** Commits, and what was there before. */
  readonly #commits: { readonly at: number; readonly tx: Tx; readonly before: ReadonlyMap<Key, Row | undefined> }[] = [];
  #fence = 0;
  #writer: Tx | undefined;
  readonly #waiting: (() => void)[] = [];

  constructor(kernel: Kernel, ledger: Pick<Ledger, 'commit' | 'undo'>, isolation: 'exclusive' | 'optimistic', relaxed = false) {
    this.#kernel = kernel;
    this.#ledger = ledger;
    this.#relaxed = relaxed;
    this.#exclusive = isolation === 'exclusive';
  }

  async begin(): Promise<Tx> {
    const { now } = this.#kernel;
    const tx: Tx = { state: 'open', written: new Map(), read: new Map(), own: new Map(), effects: [], savepoints: [], lastUsedAt: now };
    if (this.#exclusive) await this.#lock(tx);
    tx.lastUsedAt = this.#kernel.now;
    this.#open.add(tx);
    this.#watchIdle(tx);
    return tx;
  }

  record(tx: Tx, asks: readonly Ask[]): Answer[] {
    this.#use(tx);
    return asks.map((ask) => recordRow(this.#view(tx), tx.own, ask));
  }

  settleIn(tx: Tx, ends: readonly End[]): Settled[] {
    this.#use(tx);
    return ends.map((end) => {
      const own = tx.own.get(end.key);
      if (own?.token !== end.token) return 'fenced';
      tx.written.set(end.key, endRow(own, end, this.#kernel.now));
      return 'ok';
    });
  }

  savepoint(tx: Tx): void {
    this.#use(tx);
    tx.savepoints.push(tx.effects.length);
  }

  /** Ends the innermost savepoint; `undo` takes back its effects. */
  release(tx: Tx, undo: boolean): void {
    this.#use(tx);
    const at = tx.savepoints.pop()!;
    if (undo) tx.effects = tx.effects.slice(0, at);
  }

  write(tx: Tx, run: Run): void {
    this.#use(tx);
    tx.effects.push(run);
  }

  commit(tx: Tx): void {
    if (tx.state === 'committed') return;
    this.#use(tx);
    for (const [key, row] of tx.read) {
      if (this.rows.get(key) === row) continue;
      this.conflicts++;
      this.abort(tx);
      throw new Aborted('Another transaction has committed what this one has read');
    }
    tx.state = 'committed';
    this.#open.delete(tx);
    if (this.#relaxed) {
      const before = new Map([...tx.written.keys()].map((key) => [key, this.rows.get(key)]));
      this.#commits.push({ at: this.#kernel.now, tx, before });
    }
    for (const [key, row] of tx.written) this.rows.set(key, row);
    this.#unlock(tx);
    if (tx.effects.length > 0) this.#ledger.commit(tx.effects);
  }

  abort(tx: Tx): void {
    if (tx.state !== 'open') return;
    tx.state = 'aborted';
    this.#open.delete(tx);
    this.#unlock(tx);
  }

  /** Ends all transactions, and takes back what has been committed since the last sync: records and effects together. */
  crash(): void {
    if (!this.#relaxed) return;
    for (const tx of this.#open) this.abort(tx);
    const { now } = this.#kernel;
    while (this.#commits.length > 0 && this.#commits.at(-1)!.at >= syncedAt(now)) {
      const { tx, before } = this.#commits.pop()!;
      tx.state = 'aborted';
      for (const [key, row] of before) {
        if (row) this.rows.set(key, row);
        else this.rows.delete(key);
        this.lost.set(key, [...(this.lost.get(key) ?? []), now]);
      }
      this.#ledger.undo(tx.effects);
    }
  }

  /** For a client that does not know what became of its commit. What is still open is rolled back, so that the answer is final. */
  outcome(tx: Tx): 'committed' | 'aborted' {
    this.abort(tx);
    return tx.state as 'committed' | 'aborted';
  }

  /** The three verbs outside of units, each a transaction of its own. */
  claim(asks: readonly Ask[]): Promise<Answer[]> {
    return this.#alone((rows) => asks.map((ask) => claimRow(rows, ask)));
  }

  settle(ends: readonly End[]): Promise<Settled[]> {
    return this.#alone((rows) => ends.map((end) => settleRow(rows, end)));
  }

  extend(holds: readonly Hold[]): Promise<Settled[]> {
    return this.#alone((rows) => holds.map((hold) => extendRow(rows, hold)));
  }

  purge(limit: number): Promise<number> {
    return this.#alone(() => {
      const expired = [...this.rows].filter(([, row]) => row.expiresAt <= this.#kernel.now).slice(0, limit);
      for (const [key, row] of expired) {
        this.purged.set(key, row);
        this.rows.delete(key);
      }
      return expired.length;
    });
  }

  async #alone<T>(work: (rows: RowsView) => T): Promise<T> {
    const tx = await this.begin();
    try {
      const result = work(this.#view(tx));
      this.commit(tx);
      return result;
    } finally {
      this.abort(tx);
    }
  }

  #view(tx: Tx): RowsView {
    return {
      now: this.#kernel.now,
      nextFence: () => ++this.#fence,
      get: (key) => {
        const committed = this.rows.get(key);
        if (!tx.read.has(key)) tx.read.set(key, committed);
        const row = tx.written.get(key) ?? committed;
        return row && row.expiresAt > this.#kernel.now ? row : undefined;
      },
      put: (row) => void tx.written.set(row.key, row),
    };
  }

  #use(tx: Tx): void {
    if (tx.state !== 'open') throw new Aborted(`The transaction is ${tx.state}`);
    tx.lastUsedAt = this.#kernel.now;
  }

  #lock(tx: Tx): Promise<void> {
    if (!this.#writer) {
      this.#writer = tx;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const enter = () => {
        cancel();
        this.#writer = tx;
        resolve();
      };
      const cancel = this.#kernel.after(lockWaitMs, () => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(new Aborted('Another transaction holds the lock'));
      });
      this.#waiting.push(enter);
    });
  }

  #unlock(tx: Tx): void {
    if (this.#writer !== tx) return;
    this.#writer = undefined;
    this.#waiting.shift()?.();
  }

  #watchIdle(tx: Tx): void {
    if (tx.state !== 'open') return;
    const leftMs = tx.lastUsedAt + idleMs - this.#kernel.now;
    if (leftMs <= 0) this.abort(tx);
    else this.#kernel.after(leftMs, () => this.#watchIdle(tx));
  }
}

/** Records as one transaction sees them. */
export interface RowsView {
  readonly now: number;
  get(key: Key): Row | undefined;
  put(row: Row): void;
  nextFence(): number;
}
