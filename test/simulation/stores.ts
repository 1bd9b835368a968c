import { memoryStore } from '../../adapters/stores/memory.ts';
import type { DedupStore, Key, TransactionalStore } from '../../src/store.ts';
import type { Kernel } from '../../src/testing/virtual/kernel.ts';
import { unitStore } from '../../src/testing/virtual/units.ts';
import type { FleetDatabase } from './database.ts';
import type { Link, Server } from './link.ts';
import { Owners } from './owners.ts';
import { relaxedStore, syncedAt } from './relaxed.ts';
import type { Watch } from './watch.ts';
import type { Worker } from './worker.ts';

/** A record as the checker reads it, behind everybody's back; also one that has expired. */
export interface Seen {
  readonly state: 'claimed' | 'released' | 'completed' | 'parked';
  readonly token: string;
  readonly attempts: number;
  readonly leaseUntil: number;
  readonly claimedAt: number;
  readonly result: string | undefined;
  readonly reason: string;
}

/** A store in the simulated world: what workers are given of it, and what is really in it. */
export interface SimStore {
  readonly server: Server;
  /** `statements` are those of a transaction: their driver never sends one twice by itself. */
  client(worker: Worker, link: Link, statements: Link): DedupStore & Partial<TransactionalStore<unknown>>;
  seen(key: Key): Seen | undefined;
  /** Told of a lease that ended and was extended after that. */
  onLapse(told: (key: Key, lease: { readonly token: string; readonly leaseUntil: number }) => void): void;
  /** Keys that lost what was written of them, and when. */
  readonly lost: ReadonlyMap<Key, readonly number[]>;
}

/** The memory store behind a network, for the leased and the fenced way. `make` may give another one: a store with a bug. */
export function leasedStore(
  kernel: Kernel,
  server: Server,
  watch: Watch,
  nameOf: (key: Key) => string,
  relaxed: boolean,
  make: (now: () => number) => DedupStore = (now) => memoryStore({ now }),
): SimStore {
  const owners = new Owners(kernel, watch, nameOf);
  const lost = new Map<Key, number[]>();
  let inner = make(() => kernel.now);
  if (relaxed) {
    const losing = relaxedStore(kernel, make);
    inner = losing;
    const onCrash = () => {
      losing.crash();
      for (const key of owners.lose(syncedAt(kernel.now))) lost.set(key, [...(lost.get(key) ?? []), kernel.now]);
    };
    server.onCrash = onCrash;
  }
  const store = owners.guard(inner);
  return {
    server,
    seen: (key) => owners.known.get(key),
    onLapse: (told) => {
      owners.onLapse = told;
    },
    lost,
    client: (_worker, link) => ({
      claim: (asks) => link.call('claim', () => store.claim(asks)),
      settle: (ends) => link.call('settle', () => store.settle(ends)),
      extend: (holds) => link.call('extend', () => store.extend(holds)),
      purge: (limit) => link.call('purge', () => store.purge(limit)),
    }),
  };
}

/** The database for the transactional way: records and effects in the same transaction. */
export function databaseStore(server: Server, watch: Watch, db: FleetDatabase): SimStore {
  const onCrash = () => db.crash();
  server.onCrash = onCrash;
  return {
    server,
    seen: (key) => db.rows.get(key) ?? db.purged.get(key),
    onLapse() {},
    lost: db.lost,
    client: (worker, verbs, statements) => unitStore(db, { verbs, statements }, (ms) => worker.sleep(ms), watch, worker.onCrash),
  };
}
