import type { Answer, Ask, End, Hold, Key, Settled } from '../../store.ts';
import type { Kernel } from './kernel.ts';
import { claimRow, endRow, extendRow, type Row, recordRow, settleRow } from './rows.ts';

/** Refused by the database: nothing of the transaction has been or will be committed. */
export class Aborted extends Error {}

/** One transaction, on the server. */
export interface Tx<Effect> {
  state: 'open' | 'committed' | 'aborted';
  readonly written: Map<Key, Row>;
  /** What was read of each key: in optimistic isolation it must still be so at the commit. */
  readonly read: Map<Key, Row | undefined>;
  /** Keys that this transaction has recorded, as they were claimed. */
  readonly own: Map<Key, Row>;
  effects: Effect[];
  values: Map<string, unknown>;
  readonly savepoints: { readonly effects: number; readonly values: Map<string, unknown> }[];
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
export class Database<Effect> {
  readonly rows: Map<Key, Row> = new Map();
  /** What was purged, for those who look from outside. */
  readonly purged: Map<Key, Row> = new Map();
  /** What handlers keep in the database themselves. */
  readonly values: Map<string, unknown> = new Map();
  conflicts = 0;
  readonly #kernel: Kernel;
  readonly #committed: (effects: readonly Effect[]) => void;
  readonly #exclusive: boolean;
  #fence = 0;
  #writer: Tx<Effect> | undefined;
  readonly #waiting: (() => void)[] = [];

  /** `committed` is told the effects of each transaction, once it has committed. */
  constructor(kernel: Kernel, committed: (effects: readonly Effect[]) => void, isolation: 'exclusive' | 'optimistic') {
    this.#kernel = kernel;
    this.#committed = committed;
    this.#exclusive = isolation === 'exclusive';
  }

  async begin(): Promise<Tx<Effect>> {
    const { now } = this.#kernel;
    const tx: Tx<Effect> = {
      state: 'open',
      written: new Map(),
      read: new Map(),
      own: new Map(),
      effects: [],
      values: new Map(),
      savepoints: [],
      lastUsedAt: now,
    };
    if (this.#exclusive) await this.#lock(tx);
    tx.lastUsedAt = this.#kernel.now;
    this.#watchIdle(tx);
    return tx;
  }

  record(tx: Tx<Effect>, asks: readonly Ask[]): Answer[] {
    this.#use(tx);
    return asks.map((ask) => recordRow(this.#view(tx), tx.own, ask));
  }

  settleIn(tx: Tx<Effect>, ends: readonly End[]): Settled[] {
    this.#use(tx);
    return ends.map((end) => {
      const own = tx.own.get(end.key);
      if (own?.token !== end.token) return 'fenced';
      tx.written.set(end.key, endRow(own, end, this.#kernel.now));
      return 'ok';
    });
  }

  savepoint(tx: Tx<Effect>): void {
    this.#use(tx);
    tx.savepoints.push({ effects: tx.effects.length, values: new Map(tx.values) });
  }

  /** Ends the innermost savepoint; `undo` takes back its effects. */
  release(tx: Tx<Effect>, undo: boolean): void {
    this.#use(tx);
    const before = tx.savepoints.pop()!;
    if (!undo) return;
    tx.effects = tx.effects.slice(0, before.effects);
    tx.values = before.values;
  }

  write(tx: Tx<Effect>, effect: Effect): void {
    this.#use(tx);
    tx.effects.push(effect);
  }

  get(tx: Tx<Effect>, name: string): unknown {
    this.#use(tx);
    return tx.values.has(name) ? tx.values.get(name) : this.values.get(name);
  }

  set(tx: Tx<Effect>, name: string, value: unknown): void {
    this.#use(tx);
    tx.values.set(name, value);
  }

  commit(tx: Tx<Effect>): void {
    if (tx.state === 'committed') return;
    this.#use(tx);
    for (const [key, row] of tx.read) {
      if (this.rows.get(key) === row) continue;
      this.conflicts++;
      this.abort(tx);
      throw new Aborted('Another transaction has committed what this one has read');
    }
    tx.state = 'committed';
    for (const [key, row] of tx.written) this.rows.set(key, row);
    for (const [name, value] of tx.values) this.values.set(name, value);
    this.#unlock(tx);
    if (tx.effects.length > 0) this.#committed(tx.effects);
  }

  abort(tx: Tx<Effect>): void {
    if (tx.state !== 'open') return;
    tx.state = 'aborted';
    this.#unlock(tx);
  }

  /** For a client that does not know what became of its commit. What is still open is rolled back, so that the answer is final. */
  outcome(tx: Tx<Effect>): 'committed' | 'aborted' {
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

  #view(tx: Tx<Effect>): RowsView {
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

  #use(tx: Tx<Effect>): void {
    if (tx.state !== 'open') throw new Aborted(`The transaction is ${tx.state}`);
    tx.lastUsedAt = this.#kernel.now;
  }

  #lock(tx: Tx<Effect>): Promise<void> {
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

  #unlock(tx: Tx<Effect>): void {
    if (this.#writer !== tx) return;
    this.#writer = undefined;
    this.#waiting.shift()?.();
  }

  #watchIdle(tx: Tx<Effect>): void {
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
