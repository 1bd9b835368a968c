import type { Key } from '../../src/store.ts';
import { Database, type Tx } from '../../src/testing/virtual/database.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import type { Row } from '../../src/testing/virtual/rows.ts';
import type { Ledger, Run } from './ledger.ts';
import { syncedAt } from './relaxed.ts';

/** The database of the simulated fleet: its effects are runs of handlers, and if it is relaxed, a crash takes back its last commits. */
export class FleetDatabase extends Database<Run> {
  /** Keys whose last commits a crash has taken back, and when. */
  readonly lost = new Map<Key, number[]>();
  readonly #kernel: Kernel;
  readonly #ledger: Pick<Ledger, 'commit' | 'undo'>;
  readonly #relaxed: boolean;
  readonly #open = new Set<Tx<Run>>();
  /** Commits, and what was there before. */
  readonly #commits: { readonly at: number; readonly tx: Tx<Run>; readonly before: ReadonlyMap<Key, Row | undefined> }[] = [];

  constructor(kernel: Kernel, ledger: Pick<Ledger, 'commit' | 'undo'>, isolation: 'exclusive' | 'optimistic', relaxed = false) {
    super(kernel, (runs) => ledger.commit(runs), isolation);
    this.#kernel = kernel;
    this.#ledger = ledger;
    this.#relaxed = relaxed;
  }

  override async begin(): Promise<Tx<Run>> {
    const tx = await super.begin();
    if (this.#relaxed) this.#open.add(tx);
    return tx;
  }

  override commit(tx: Tx<Run>): void {
    if (!this.#relaxed || tx.state !== 'open') return super.commit(tx);
    const before = new Map([...tx.written.keys()].map((key) => [key, this.rows.get(key)]));
    super.commit(tx);
    this.#open.delete(tx);
    this.#commits.push({ at: this.#kernel.now, tx, before });
  }

  override abort(tx: Tx<Run>): void {
    super.abort(tx);
    this.#open.delete(tx);
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
}
