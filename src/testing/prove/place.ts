import type { World } from '../../clock.ts';
import type { Message } from '../../message.ts';
import type { Receiver } from '../../receiver.ts';
import type { DedupStore, TransactionalStore } from '../../store.ts';
import type { Database } from '../virtual/database.ts';
import type { Kernel } from '../virtual/kernel.ts';
import { unitStore, type VirtualTx } from '../virtual/units.ts';
import type { Effect, Ledger } from './ledger.ts';
import type { Link } from './link.ts';
import type { Process } from './process.ts';

/** The transaction of the virtual database: `ctx.tx` of a transactional receiver. */
export type ProofTx = VirtualTx<Effect>;

/** A database of one's own. Each call is a step that can go wrong, and so is each one inside of a transaction. */
export interface ProofDatabase {
  get(name: string): Promise<unknown>;
  set(name: string, value: unknown): Promise<void>;
  /** False, and nothing is changed, if there is a value already: a unique key. */
  insert(name: string, value: unknown): Promise<boolean>;
  /** Commits what `run` wrote, or nothing of it. What it throws is thrown on, and so is a commit whose answer got lost. */
  transaction<T>(run: (tx: ProofTx) => Promise<T>): Promise<T>;
}

/** Everything that one process of the worker may touch. */
export interface Place {
  /** Time and chance of this process: the `world` of its receiver. */
  readonly world: World;
  /** A store with transactions: for `guarantee: 'transactional'` and for `leased`. */
  readonly store: DedupStore & TransactionalStore<ProofTx>;
  /** The database that the store is in, for handlers that use it by themselves. */
  readonly database: ProofDatabase;
  /**
   * Does something outside: charges a card, sends a mail. It has happened when the request arrives, whatever becomes of the reply. With `key`
   * the outside honours idempotency keys, and does nothing for one that it has seen. @throws Error when the network fails
   */
  effect(name: string, about: string, options?: { readonly key?: string }): Promise<void>;
}

/** Makes one process of the worker: a receiver, or a handler whose return acknowledges the message and whose throw does not. */
export type Worker = (place: Place) => AnyReceiver | ((message: Message) => unknown);

/** A receiver of any guarantee. Not `Receiver` itself, because its guarantee would then be taken for that of the receiver which is made. */
export type AnyReceiver = Pick<Receiver, 'process'>;

export function placeOf(process: Process, parts: { kernel: Kernel; link: Link; db: Database<Effect>; ledger: Ledger }): Place {
  const { kernel, link, db, ledger } = parts;
  const wait = (ms: number) => new Promise<void>((resolve) => void process.deliver(kernel.now + ms, resolve));
  const store = unitStore(db, { verbs: link, statements: link }, wait, { count: () => {} }, process.onKill);
  const alone = <T>(op: string, run: () => T) => link.call(op, run);
  return {
    world: process,
    store,
    database: {
      get: (name) => alone(`read ${name}`, () => db.values.get(name)),
      set: (name, value) => alone(`write ${name}`, () => void db.values.set(name, value)),
      insert: (name, value) =>
        alone(`insert ${name}`, () => {
          if (db.values.has(name)) return false;
          db.values.set(name, value);
          return true;
        }),
      transaction: (run) => store.unit((unit) => unit.savepoint(run)),
    },
    effect: (name, about, options) =>
      link.call(
        `${name} ${about}`,
        () => ledger.apply({ name, about }, options?.key),
        (happened) => (happened ? `does ${name} ${about}` : `asks for ${name} ${about} again, and it is known by its key`),
      ) as unknown as Promise<void>,
  };
}
