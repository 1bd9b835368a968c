import { ReceiverError } from '../../errors.ts';
import type { DedupStore, TransactionalStore, Unit } from '../../store.ts';
import type { Database, Tx } from './database.ts';
import { Aborted } from './database.ts';
import { type Calls, RefusedError } from './network.ts';

/** How often a client asks what became of its commit, before it says that it does not know. */
const askings = 4;

/** What a transaction of the virtual database offers to handlers. */
export interface VirtualTx<Effect> {
  /** An effect that commits with the transaction, or not at all. */
  write(effect: Effect): Promise<void>;
  /** Reads a value, as this transaction sees it. */
  get(name: string): Promise<unknown>;
  set(name: string, value: unknown): Promise<void>;
}

/** What the client counts of its fate. */
export interface UnitCounts {
  count(name: 'inDoubt' | 'inDoubtCommitted' | 'rollbacks' | 'conflicts'): void;
}

/**
 * A store of the database for one worker, written as such an adapter is: statements over a connection that can break, and a commit
 * whose outcome may be unknown and is then found out. `verbs` may re-send by itself, `statements` never does.
 */
export function unitStore<Effect>(
  db: Database<Effect>,
  links: { verbs: Calls; statements: Calls },
  wait: (ms: number) => Promise<unknown>,
  watch: UnitCounts,
  onCrash: Set<() => void>,
): DedupStore & TransactionalStore<VirtualTx<Effect>> {
  const { verbs, statements } = links;

  async function unit<R>(work: (unit: Unit<VirtualTx<Effect>>) => Promise<R>): Promise<R> {
    const connection = new Connection<Effect>(db, statements, onCrash);
    try {
      await connection.begin();
      let result: R;
      try {
        result = await work(connection);
      } catch (error) {
        watch.count('rollbacks');
        await connection.rollback();
        throw error;
      }
      await connection.commit().catch((error: unknown) => settleDoubt(connection, error));
      return result;
    } finally {
      connection.close();
    }
  }

  /** Contract 21: resolves if it has committed, rejects if it has not, and says so if nobody knows. */
  async function settleDoubt(connection: Connection<Effect>, error: unknown): Promise<void> {
    if (error instanceof Aborted) {
      watch.count('conflicts');
      throw error;
    }
    watch.count('inDoubt');
    for (let asked = 0; asked < askings; asked++) {
      try {
        const outcome = await connection.outcome();
        if (outcome === 'aborted') throw new Aborted('The commit did not arrive');
        watch.count('inDoubtCommitted');
        return;
      } catch (cause) {
        if (cause instanceof Aborted) throw cause;
        await wait(100 * 2 ** asked);
      }
    }
    throw new ReceiverError('commit-in-doubt', 'Nobody answers what has become of the commit', { cause: error });
  }

  return {
    unit,
    claim: (asks) => verbs.call('claim', () => db.claim(asks)),
    settle: (ends) => verbs.call('settle', () => db.settle(ends)),
    extend: (holds) => verbs.call('extend', () => db.extend(holds)),
    purge: (limit) => verbs.call('purge', () => db.purge(limit)),
  };
}

/** A connection with one transaction. When a statement got no answer, nothing more can be done on it. */
class Connection<Effect> implements Unit<VirtualTx<Effect>> {
  #tx: Tx<Effect> | undefined;
  #broken: Error | undefined;
  readonly #db: Database<Effect>;
  readonly #link: Calls;
  readonly #onCrash: Set<() => void>;
  /** The server sees that its client has gone, and rolls back. */
  readonly #gone = () => {
    if (this.#tx) this.#db.abort(this.#tx);
  };

  constructor(db: Database<Effect>, link: Calls, onCrash: Set<() => void>) {
    this.#db = db;
    this.#link = link;
    this.#onCrash = onCrash;
    onCrash.add(this.#gone);
  }

  begin = (): Promise<void> =>
    this.#run('begin', async () => {
      // Known to the server before its answer arrives, or does not.
      this.#tx = await this.#db.begin();
    });
  commit = (): Promise<void> => this.#run('commit', () => this.#db.commit(this.#tx!));
  /** On a new connection. */
  outcome = (): Promise<'committed' | 'aborted'> => this.#link.call('outcome', () => this.#db.outcome(this.#tx!));
  record: Unit<unknown>['record'] = (asks) => this.#run('record', () => this.#db.record(this.#tx!, asks));
  settle: Unit<unknown>['settle'] = (ends) => this.#run('settle in unit', () => this.#db.settleIn(this.#tx!, ends));

  async savepoint<T>(run: (tx: VirtualTx<Effect>) => Promise<T>): Promise<T> {
    await this.#run('savepoint', () => this.#db.savepoint(this.#tx!));
    let result: T;
    try {
      result = await run({
        write: (effect) => this.#run('effect', () => this.#db.write(this.#tx!, effect)),
        get: (name) => this.#run('read', () => this.#db.get(this.#tx!, name)),
        set: (name, value) => this.#run('write', () => this.#db.set(this.#tx!, name, value)),
      });
    } catch (error) {
      await this.#run('undo', () => this.#db.release(this.#tx!, true));
      throw error;
    }
    await this.#run('release', () => this.#db.release(this.#tx!, false));
    return result;
  }

  async rollback(): Promise<void> {
    await this.#run('rollback', () => this.#db.abort(this.#tx!)).catch(() => {});
  }

  /** Closing rolls back what is still open, when the server notices. */
  close(): void {
    this.#onCrash.delete(this.#gone);
    const tx = this.#tx;
    if (tx?.state === 'open') void this.#link.call('close', () => this.#db.abort(tx)).catch(() => {});
  }

  async #run<T>(op: string, run: () => T | Promise<T>): Promise<T> {
    if (this.#broken) throw this.#broken;
    try {
      return await this.#link.call(op, run);
    } catch (error) {
      if (!(error instanceof RefusedError)) this.#broken = new Error(`The connection broke at ${op}`, { cause: error });
      throw error;
    }
  }
}
