import type { BrokerName, Mode, Order, StoreName, Times } from './cell.ts';

/** What a worker process is given, as JSON in its only argument. */
export interface Task {
  readonly store: StoreName;
  readonly broker: BrokerName;
  readonly mode: Mode;
  /** Of this cell: prefix, schema or scope. */
  readonly name: string;
  /** A file, or an address behind the proxy. */
  readonly storeUrl: string;
  readonly brokerUrl: string;
  /** Queue URL or topic. */
  readonly queue: string;
  readonly times: Times;
  readonly seed: number;
}

/** What a worker tells. Times are of the host's clock, the same for all. */
export type Told =
  /** It has begun to receive. */
  | { readonly is: 'working' }
  | { readonly is: 'claimed' | 'recorded' | 'duplicate'; readonly id: string }
  /** Asks the outer ledger for an effect, and waits for its answer. In a transaction it only says that it writes one. */
  | { readonly is: 'effect'; readonly ask?: number; readonly order: Order; readonly fence?: number }
  | { readonly is: 'busy' | 'fenced' | 'thrown' | 'storeDown' }
  | { readonly is: 'parked'; readonly id: string; readonly reason: string }
  /** Its event loop stood still, whoever stopped it. */
  | { readonly is: 'stalled'; readonly from: number; readonly until: number };

/** The ledger's answer to an effect. `false`: refused, its fence is stale. */
export interface Answer {
  readonly ask: number;
  readonly accepted: boolean;
}
